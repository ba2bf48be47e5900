//! Rotation (AWS's EnableKeyRotation, RotateKeyOnDemand, ListKeyRotations): a new current material; the old ones stay
//! for decrypting. Knows no file.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::error::KmsError;
use super::key::{ExpirationModel, KeyManager, Origin, rfc3339_optional};
use super::record::{KeyRecord, MaterialRecord, Rotated, Schedule};
use crate::clock::Timestamp;
use crate::ids::{KeyId, MaterialId};

/// Most rotations on demand of one key.
pub const MAX_ON_DEMAND: usize = 25;

/// Days between two rotations: 90 to 2560.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RotationPeriod(u16);

impl RotationPeriod {
    /// The fewest.
    pub const MIN: u16 = 90;
    /// The most.
    pub const MAX: u16 = 2560;
    /// What is taken where nothing is said.
    pub const YEAR: Self = Self(365);

    /// Checks the number of days.
    ///
    /// # Errors
    /// [`KmsError::ValidationException`].
    pub fn new(days: u16) -> Result<Self, KmsError> {
        if (Self::MIN..=Self::MAX).contains(&days) {
            return Ok(Self(days));
        }
        Err(KmsError::ValidationException(format!(
            "a rotation period has {} to {} days, not {days}",
            Self::MIN,
            Self::MAX
        )))
    }

    /// The number of days.
    #[must_use]
    pub const fn days(self) -> u16 {
        self.0
    }
}

impl FromStr for RotationPeriod {
    type Err = KmsError;

    fn from_str(text: &str) -> Result<Self, KmsError> {
        match text.parse() {
            Ok(days) => Self::new(days),
            Err(_) => Err(KmsError::ValidationException(format!(
                "{text:?} is no number of days"
            ))),
        }
    }
}

impl Schedule {
    /// The first rotation one period from now.
    pub(super) const fn starting(now: Timestamp, period: RotationPeriod) -> Self {
        Self {
            rotation_period_in_days: period.0,
            next_rotation_date: now.plus_days(period.0),
        }
    }

    /// After a rotation at `now`: rotations that were missed are not made up for one by one.
    const fn advanced(self, now: Timestamp) -> Self {
        let next = self
            .next_rotation_date
            .plus_days(self.rotation_period_in_days);
        Self {
            next_rotation_date: if next.0 > now.0 {
                next
            } else {
                now.plus_days(self.rotation_period_in_days)
            },
            ..self
        }
    }
}

impl KeyRecord {
    /// When the key is rotated by itself; the default key is, every year, without being asked to.
    pub(super) fn schedule(&self) -> Option<Schedule> {
        let by_itself = || Schedule::starting(self.creation_date, RotationPeriod::YEAR);
        self.rotation
            .or_else(|| (self.key_manager == KeyManager::Cmkfs).then(by_itself))
    }

    /// The record with the material `id` as the current one: the pending one, or a new one.
    pub(super) fn rotated(
        &self,
        now: Timestamp,
        id: MaterialId,
        rotation_type: RotationType,
    ) -> Self {
        let mut record = self.clone();
        let rotation = Some(Rotated {
            rotation_date: now,
            rotation_type,
        });
        match record.material_mut(id) {
            Some(pending) => pending.rotation = rotation,
            None => {
                let material = MaterialRecord::new(id, now, rotation, None);
                record.materials.push(material);
            }
        }
        record.current_key_material_id = Some(id);
        record.pending_key_material_id = None;
        if rotation_type == RotationType::Automatic {
            record.rotation = self.schedule().map(|schedule| schedule.advanced(now));
        }
        record
    }

    /// How often the key was rotated on demand.
    pub(super) fn rotations_on_demand(&self) -> usize {
        let rotations = self
            .materials
            .iter()
            .filter_map(|material| material.rotation);
        rotations
            .filter(|rotation| rotation.rotation_type == RotationType::OnDemand)
            .count()
    }

    /// What ListKeyRotations says, oldest first: the rotations, or every material.
    pub(super) fn rotations(
        &self,
        now: Timestamp,
        include: IncludeKeyMaterial,
    ) -> Vec<RotationsListEntry> {
        let shown = self.materials.iter().filter(|material| match include {
            IncludeKeyMaterial::RotationsOnly => material.rotation.is_some(),
            IncludeKeyMaterial::AllKeyMaterial => true,
        });
        shown.map(|material| self.entry(material, now)).collect()
    }

    fn entry(&self, material: &MaterialRecord, now: Timestamp) -> RotationsListEntry {
        let id = material.key_material_id;
        let imported = self.origin == Origin::External;
        let there = material.missing(now).is_none();
        RotationsListEntry {
            key_id: self.key_id,
            key_material_id: id,
            key_material_state: if self.current_key_material_id == Some(id) {
                KeyMaterialState::Current
            } else if self.pending_key_material_id == Some(id) {
                KeyMaterialState::PendingRotation
            } else {
                KeyMaterialState::NonCurrent
            },
            import_state: imported.then_some(if there {
                ImportState::Imported
            } else {
                ImportState::PendingImport
            }),
            expiration_model: (imported && there).then_some(match material.valid_to {
                Some(_) => ExpirationModel::KeyMaterialExpires,
                None => ExpirationModel::KeyMaterialDoesNotExpire,
            }),
            valid_to: material.valid_to.filter(|_| there),
            rotation_date: material.rotation.map(|rotation| rotation.rotation_date),
            rotation_type: material.rotation.map(|rotation| rotation.rotation_type),
        }
    }
}

/// What brought a rotation about: AWS's RotationType.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum RotationType {
    /// Its date had come.
    Automatic,
    /// Somebody asked for it.
    OnDemand,
}

impl RotationType {
    /// The name as it is shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Automatic => "AUTOMATIC",
            Self::OnDemand => "ON_DEMAND",
        }
    }
}

/// Which materials ListKeyRotations speaks of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum IncludeKeyMaterial {
    /// Those that became current by a rotation.
    #[default]
    RotationsOnly,
    /// The first one too, and one that waits to become current.
    AllKeyMaterial,
}

/// A material's part in its key: AWS's KeyMaterialState.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum KeyMaterialState {
    /// It encrypts and decrypts.
    Current,
    /// It decrypts.
    NonCurrent,
    /// It becomes current with the next rotation on demand.
    PendingRotation,
}

impl KeyMaterialState {
    /// The name as it is shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Current => "CURRENT",
            Self::NonCurrent => "NON_CURRENT",
            Self::PendingRotation => "PENDING_ROTATION",
        }
    }
}

/// Whether an imported material is there: AWS's ImportState.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ImportState {
    /// It is.
    Imported,
    /// It was deleted or has expired, and can be imported again.
    PendingImport,
}

impl ImportState {
    /// The name as it is shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Imported => "IMPORTED",
            Self::PendingImport => "PENDING_IMPORT",
        }
    }
}

/// One material of a key, and how it became current: AWS's RotationsListEntry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct RotationsListEntry {
    /// The key.
    pub key_id: KeyId,
    /// The material.
    pub key_material_id: MaterialId,
    /// Its part in the key.
    pub key_material_state: KeyMaterialState,
    /// Whether it is there; imported material only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub import_state: Option<ImportState>,
    /// Whether it expires; imported material only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiration_model: Option<ExpirationModel>,
    /// When it does.
    #[serde(
        serialize_with = "rfc3339_optional",
        skip_serializing_if = "Option::is_none"
    )]
    pub valid_to: Option<Timestamp>,
    /// When it became current.
    #[serde(
        serialize_with = "rfc3339_optional",
        skip_serializing_if = "Option::is_none"
    )]
    pub rotation_date: Option<Timestamp>,
    /// What brought that about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotation_type: Option<RotationType>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rotation_period_has_ninety_to_2560_days() {
        for days in [0, 89, 2561, u16::MAX] {
            assert!(RotationPeriod::new(days).is_err(), "{days}");
        }
        for days in [90, 365, 2560] {
            assert_eq!(RotationPeriod::new(days).unwrap().days(), days);
            let parsed: RotationPeriod = days.to_string().parse().unwrap();
            assert_eq!(parsed.days(), days);
        }
    }

    #[test]
    fn a_late_rotation_keeps_to_the_schedule_and_missed_ones_are_not_made_up_for() {
        let start = Timestamp(0);
        let schedule = Schedule::starting(start, RotationPeriod(100));
        assert_eq!(schedule.next_rotation_date, start.plus_days(100));
        let late = schedule.advanced(start.plus_days(130));
        assert_eq!(late.next_rotation_date, start.plus_days(200));
        let missed = schedule.advanced(start.plus_days(950));
        assert_eq!(missed.next_rotation_date, start.plus_days(1050));
    }
}
