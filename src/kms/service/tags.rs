//! What people write on a key: TagResource, UntagResource, UpdateKeyDescription.

use super::KeyService;
use crate::ids::KeyId;
use crate::kms::error::KmsError;
use crate::kms::event::Event;
use crate::kms::key::{Description, KeyRef, Tags};
use crate::kms::record::KeyRecord;
use crate::kms::state::Operation;

impl KeyService {
    /// TagResource: adds tags; the value of one that is there is replaced. Returns the key's id.
    ///
    /// # Errors
    /// [`KmsError::NotFoundException`], [`KmsError::KMSInvalidStateException`], [`KmsError::LimitExceededException`] for
    /// more than 50 in all.
    pub fn tag_resource(&self, key: &KeyRef, tags: &Tags) -> Result<KeyId, KmsError> {
        let keys: Vec<&str> = tags.iter().map(|(key, _)| key).collect();
        let event = Event::new("TagResource").asked(key).with("tagKeys", keys);
        self.rewrite(event, key, Operation::TagResource, |old| {
            Ok(KeyRecord {
                tags: old.tags.with(tags)?,
                ..old.clone()
            })
        })
    }

    /// UntagResource: removes the tags with these keys; they need not be there. Returns the key's id.
    ///
    /// # Errors
    /// [`KmsError::NotFoundException`], [`KmsError::KMSInvalidStateException`].
    pub fn untag_resource(&self, key: &KeyRef, tag_keys: &[String]) -> Result<KeyId, KmsError> {
        let event = Event::new("UntagResource")
            .asked(key)
            .with("tagKeys", tag_keys.to_vec());
        self.rewrite(event, key, Operation::UntagResource, |old| {
            Ok(KeyRecord {
                tags: old.tags.without(tag_keys),
                ..old.clone()
            })
        })
    }

    /// UpdateKeyDescription. Returns the key's id.
    ///
    /// # Errors
    /// [`KmsError::NotFoundException`], [`KmsError::KMSInvalidStateException`].
    pub fn update_key_description(
        &self,
        key: &KeyRef,
        description: &Description,
    ) -> Result<KeyId, KmsError> {
        let event = Event::new("UpdateKeyDescription")
            .asked(key)
            .with("description", description.as_str());
        self.rewrite(event, key, Operation::UpdateKeyDescription, |old| {
            Ok(KeyRecord {
                description: description.clone(),
                ..old.clone()
            })
        })
    }

    fn rewrite(
        &self,
        event: Event,
        key: &KeyRef,
        operation: Operation,
        new: impl FnOnce(&KeyRecord) -> Result<KeyRecord, KmsError>,
    ) -> Result<KeyId, KmsError> {
        self.change(event, |change| {
            let old = self.admit(&mut change.event, key, operation)?;
            let record = new(&old.value)?;
            if record != old.value {
                change.put_key(Some(&old), &record)?;
            }
            Ok(record.key_id)
        })
    }
}
