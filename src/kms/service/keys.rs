//! What a key is and how it comes about: CreateKey, DescribeKey, ListKeys, EnableKey, DisableKey.

use super::aliases::check_new_alias;
use super::{KeyService, Listing};
use crate::ids::KeyId;
use crate::kms::alias::AliasRecord;
use crate::kms::error::KmsError;
use crate::kms::event::Event;
use crate::kms::key::{CreateKeyRequest, KeyManager, KeyRef, Origin};
use crate::kms::metadata::KeyMetadata;
use crate::kms::record::KeyRecord;
use crate::kms::state::{KeyState, Operation};
use crate::secret::Secret;

impl KeyService {
    /// CreateKey, together with CreateAlias where an alias is asked for.
    ///
    /// # Errors
    /// As [`Self::create_alias`]; nothing is made then.
    pub fn create_key(&self, request: CreateKeyRequest) -> Result<KeyMetadata, KmsError> {
        let event = Event::new("CreateKey").with("origin", request.origin.as_str());
        self.change(event, |change| {
            if let Some(alias) = &request.alias {
                check_new_alias(&self.store, alias)?;
            }
            let material = match request.origin {
                Origin::Cmkfs => Some(Secret::random()?),
                Origin::External => None,
            };
            let now = self.clock.now();
            let record = KeyRecord::new(
                now,
                KeyManager::Customer,
                request.description,
                request.tags,
                material.as_ref(),
            );
            change.event.about(record.key_id);
            if let (Some(id), Some(material)) = (record.current_key_material_id, &material) {
                change.event.material(id);
                change.put_material(record.key_id, id, material);
            }
            change.put_key(None, &record)?;
            if let Some(alias_name) = request.alias {
                change.put_alias(
                    None,
                    &AliasRecord {
                        alias_name,
                        target_key_id: record.key_id,
                        creation_date: now,
                        last_updated_date: now,
                    },
                )?;
            }
            Ok(KeyMetadata::new(&record, now))
        })
    }

    /// DescribeKey.
    ///
    /// # Errors
    /// [`KmsError::NotFoundException`], [`KmsError::Damaged`].
    pub fn describe_key(&self, key: &KeyRef) -> Result<KeyMetadata, KmsError> {
        self.read(Event::reading("DescribeKey").asked(key), |event| {
            let key = self.admit(event, key, Operation::DescribeKey)?;
            Ok(KeyMetadata::new(&key.value, self.clock.now()))
        })
    }

    /// ListKeys, with their metadata, oldest first. A damaged key hides no other.
    ///
    /// # Errors
    /// Where the key directory itself cannot be read.
    pub fn list_keys(&self) -> Result<Listing<KeyMetadata>, KmsError> {
        self.read(Event::reading("ListKeys"), |_| {
            let (ids, mut damaged) = self.store.key_ids()?;
            let mut items = Vec::new();
            for id in ids {
                match self.store.key(id) {
                    Ok(key) => items.push(KeyMetadata::new(&key.value, self.clock.now())),
                    Err(KmsError::NotFoundException { .. }) => {}
                    Err(error) => damaged.push(error),
                }
            }
            items.sort_by_key(|key| (key.creation_date, key.key_id));
            Ok(Listing { items, damaged })
        })
    }

    /// EnableKey. Returns the key's id.
    ///
    /// # Errors
    /// [`KmsError::NotFoundException`], [`KmsError::KMSInvalidStateException`].
    pub fn enable_key(&self, key: &KeyRef) -> Result<KeyId, KmsError> {
        let id = self.change_state(Event::new("EnableKey"), key, Operation::EnableKey)?;
        // A rotation that was due while the key was disabled.
        self.run_due();
        Ok(id)
    }

    /// DisableKey. Returns the key's id.
    ///
    /// # Errors
    /// [`KmsError::NotFoundException`], [`KmsError::KMSInvalidStateException`].
    pub fn disable_key(&self, key: &KeyRef) -> Result<KeyId, KmsError> {
        let event = Event::new("DisableKey").restricting();
        self.change_state(event, key, Operation::DisableKey)
    }

    fn change_state(
        &self,
        event: Event,
        key: &KeyRef,
        operation: Operation,
    ) -> Result<KeyId, KmsError> {
        self.change(event.asked(key), |change| {
            let old = self.admit(&mut change.event, key, operation)?;
            let key_state = self.check_state(&old, operation)?;
            let now = self.clock.now();
            if key_state == KeyState::Enabled && !old.value.is_complete(now) {
                // Brought back from its deletion without its material.
                return Err(KmsError::KMSInvalidStateException {
                    key: old.value.key_id,
                    why: old.value.why_pending_import(now),
                });
            }
            if key_state != old.value.key_state {
                let record = KeyRecord {
                    key_state,
                    ..old.value.clone()
                };
                change.put_key(Some(&old), &record)?;
            }
            Ok(old.value.key_id)
        })
    }
}
