//! Rotation: EnableKeyRotation, DisableKeyRotation, RotateKeyOnDemand, ListKeyRotations. What becomes of a schedule is in
//! `due`.

use super::KeyService;
use crate::ids::{KeyId, MaterialId};
use crate::kms::error::KmsError;
use crate::kms::event::Event;
use crate::kms::key::{KeyRef, Origin};
use crate::kms::metadata::{KeyMetadata, KeyRotationStatus};
use crate::kms::record::{KeyRecord, Schedule};
use crate::kms::rotation::{
    IncludeKeyMaterial, MAX_ON_DEMAND, RotationPeriod, RotationType, RotationsListEntry,
};
use crate::kms::state::{InvalidState, Operation};

impl KeyService {
    /// EnableKeyRotation: a new material every `period`, the first time one period from now. Where that was so already,
    /// the schedule stays as it is. Returns the key's id.
    ///
    /// # Errors
    /// [`KmsError::NotFoundException`], [`KmsError::DisabledException`], [`KmsError::KMSInvalidStateException`],
    /// [`KmsError::UnsupportedOperationException`] for imported material and for the default key.
    pub fn enable_key_rotation(
        &self,
        key: &KeyRef,
        period: RotationPeriod,
    ) -> Result<KeyId, KmsError> {
        let event = Event::new("EnableKeyRotation")
            .asked(key)
            .with("rotationPeriodInDays", period.days());
        self.change_schedule(event, key, Operation::EnableKeyRotation, |old| {
            let unchanged =
                old.filter(|schedule| schedule.rotation_period_in_days == period.days());
            Some(unchanged.unwrap_or_else(|| Schedule::starting(self.clock.now(), period)))
        })
    }

    /// DisableKeyRotation. Returns the key's id.
    ///
    /// # Errors
    /// As [`Self::enable_key_rotation`].
    pub fn disable_key_rotation(&self, key: &KeyRef) -> Result<KeyId, KmsError> {
        let event = Event::new("DisableKeyRotation").asked(key);
        self.change_schedule(event, key, Operation::DisableKeyRotation, |_| None)
    }

    fn change_schedule(
        &self,
        event: Event,
        key: &KeyRef,
        operation: Operation,
        new: impl FnOnce(Option<Schedule>) -> Option<Schedule>,
    ) -> Result<KeyId, KmsError> {
        self.change(event, |change| {
            let old = self.admit(&mut change.event, key, operation)?;
            let rotation = new(old.value.rotation);
            if rotation != old.value.rotation {
                let record = KeyRecord {
                    rotation,
                    ..old.value.clone()
                };
                change.put_key(Some(&old), &record)?;
            }
            Ok(old.value.key_id)
        })
    }

    /// RotateKeyOnDemand: a new current material, made by cmkfs or, for a key of origin EXTERNAL, the one imported for
    /// it. Old ones stay for decrypting, and the schedule stays. Returns the key's id and its new current material.
    ///
    /// # Errors
    /// [`KmsError::NotFoundException`], [`KmsError::DisabledException`], [`KmsError::KMSInvalidStateException`],
    /// [`KmsError::LimitExceededException`] after 25 times.
    pub fn rotate_key_on_demand(&self, key: &KeyRef) -> Result<(KeyId, MaterialId), KmsError> {
        self.change(Event::new("RotateKeyOnDemand").asked(key), |change| {
            let old = self.admit(&mut change.event, key, Operation::RotateKeyOnDemand)?;
            let key_id = old.value.key_id;
            if old.value.rotations_on_demand() >= MAX_ON_DEMAND {
                return Err(KmsError::LimitExceededException {
                    what: format!("rotations on demand of key {key_id}"),
                    limit: MAX_ON_DEMAND,
                });
            }
            let id = match old.value.origin {
                Origin::Cmkfs => self.rotate(change, &old, RotationType::OnDemand)?,
                Origin::External => {
                    let now = self.clock.now();
                    let there = |id: &MaterialId| {
                        let material = old.value.material(*id);
                        material.is_some_and(|material| material.missing(now).is_none())
                    };
                    let pending = old.value.pending_key_material_id.filter(there);
                    let id = pending.ok_or(KmsError::KMSInvalidStateException {
                        key: key_id,
                        why: InvalidState::NoNewMaterial,
                    })?;
                    change.event.material(id);
                    let record = old.value.rotated(now, id, RotationType::OnDemand);
                    change.put_key(Some(&old), &record)?;
                    id
                }
            };
            Ok((key_id, id))
        })
    }

    /// GetKeyRotationStatus: whether the key is rotated by itself, how often, and when next.
    ///
    /// # Errors
    /// [`KmsError::NotFoundException`], [`KmsError::Damaged`].
    pub fn get_key_rotation_status(&self, key: &KeyRef) -> Result<KeyRotationStatus, KmsError> {
        self.read(Event::reading("GetKeyRotationStatus").asked(key), |event| {
            let key = self.admit(event, key, Operation::GetKeyRotationStatus)?;
            Ok(KeyRotationStatus::of(&KeyMetadata::new(
                &key.value,
                self.clock.now(),
            )))
        })
    }

    /// ListKeyRotations, oldest first.
    ///
    /// # Errors
    /// [`KmsError::NotFoundException`], [`KmsError::Damaged`].
    pub fn list_key_rotations(
        &self,
        key: &KeyRef,
        include: IncludeKeyMaterial,
    ) -> Result<Vec<RotationsListEntry>, KmsError> {
        self.read(Event::reading("ListKeyRotations").asked(key), |event| {
            let key = self.admit(event, key, Operation::List)?;
            Ok(key.value.rotations(self.clock.now(), include))
        })
    }
}
