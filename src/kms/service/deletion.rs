//! Scheduled deletion: ScheduleKeyDeletion, CancelKeyDeletion.

use super::KeyService;
use crate::ids::KeyId;
use crate::kms::deletion::{PendingWindow, ScheduledDeletion};
use crate::kms::error::KmsError;
use crate::kms::event::Event;
use crate::kms::key::KeyRef;
use crate::kms::record::KeyRecord;
use crate::kms::state::{KeyState, Operation};

impl KeyService {
    /// ScheduleKeyDeletion: the key is unusable from now on, and goes with its materials and aliases after `window`.
    ///
    /// # Errors
    /// [`KmsError::NotFoundException`], [`KmsError::KMSInvalidStateException`],
    /// [`KmsError::UnsupportedOperationException`] for the default key.
    pub fn schedule_key_deletion(
        &self,
        key: &KeyRef,
        window: PendingWindow,
    ) -> Result<ScheduledDeletion, KmsError> {
        let event = Event::new("ScheduleKeyDeletion")
            .asked(key)
            .with("pendingWindowInDays", window.days())
            .restricting();
        self.change(event, |change| {
            let old = self.admit(&mut change.event, key, Operation::ScheduleKeyDeletion)?;
            let now = self.clock.now();
            let record = old.value.pending_deletion(now, window);
            change.put_key(Some(&old), &record)?;
            Ok(ScheduledDeletion {
                key_id: record.key_id,
                deletion_date: now.plus_days(window.days()),
                key_state: record.key_state,
                pending_window_in_days: window.days(),
            })
        })
    }

    /// CancelKeyDeletion: the key stays, disabled. Returns its id.
    ///
    /// # Errors
    /// [`KmsError::NotFoundException`], [`KmsError::KMSInvalidStateException`].
    pub fn cancel_key_deletion(&self, key: &KeyRef) -> Result<KeyId, KmsError> {
        let event = Event::new("CancelKeyDeletion").asked(key);
        self.change(event, |change| {
            let old = self.admit(&mut change.event, key, Operation::CancelKeyDeletion)?;
            let record = KeyRecord {
                key_state: KeyState::Disabled,
                deletion: None,
                ..old.value.clone()
            };
            change.put_key(Some(&old), &record)?;
            Ok(record.key_id)
        })
    }
}
