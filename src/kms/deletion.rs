//! Scheduled deletion (AWS's ScheduleKeyDeletion): how long it waits. Knows no file.

use std::str::FromStr;

use serde::Serialize;

use super::error::KmsError;
use super::key::rfc3339;
use super::record::{Deletion, KeyRecord};
use super::state::KeyState;
use crate::clock::Timestamp;
use crate::ids::KeyId;

/// Days between asking for a key's deletion and the deletion: 7 to 30.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PendingWindow(u16);

impl PendingWindow {
    /// The fewest.
    pub const MIN: u16 = 7;
    /// The most, and what is taken where nothing is said.
    pub const MAX: u16 = 30;

    /// Checks the number of days.
    ///
    /// # Errors
    /// [`KmsError::ValidationException`].
    pub fn new(days: u16) -> Result<Self, KmsError> {
        if (Self::MIN..=Self::MAX).contains(&days) {
            return Ok(Self(days));
        }
        Err(KmsError::ValidationException(format!(
            "a deletion waits {} to {} days, not {days}",
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

impl Default for PendingWindow {
    fn default() -> Self {
        Self(Self::MAX)
    }
}

impl FromStr for PendingWindow {
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

/// A deletion that waits: AWS's answer to ScheduleKeyDeletion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ScheduledDeletion {
    /// The key.
    pub key_id: KeyId,
    /// When it will be deleted.
    #[serde(serialize_with = "rfc3339")]
    pub deletion_date: Timestamp,
    /// Its state from now on.
    pub key_state: KeyState,
    /// The days between.
    pub pending_window_in_days: u16,
}

impl KeyRecord {
    /// The record with its deletion `window` from now.
    pub(super) fn pending_deletion(&self, now: Timestamp, window: PendingWindow) -> Self {
        Self {
            key_state: KeyState::PendingDeletion,
            deletion: Some(Deletion {
                deletion_date: now.plus_days(window.0),
                pending_window_in_days: window.0,
            }),
            ..self.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deletion_waits_seven_to_thirty_days_and_thirty_where_nothing_is_said() {
        for days in 0..60 {
            assert_eq!(PendingWindow::new(days).is_ok(), (7..=30).contains(&days));
            let parsed = days.to_string().parse::<PendingWindow>();
            assert_eq!(parsed.is_ok(), (7..=30).contains(&days));
        }
        assert!("".parse::<PendingWindow>().is_err());
        assert!("-7".parse::<PendingWindow>().is_err());
        assert_eq!(PendingWindow::default().days(), 30);
    }
}
