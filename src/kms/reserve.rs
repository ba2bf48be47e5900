//! Room that is kept for the day when the disk is full: so that a key can be disabled even then.

use std::path::Path;

use super::audit::AUDIT;
use super::error::KmsError;
use super::storage;

const RESERVE: &str = "reserve";
/// Enough for a record, a journal, a line of the audit log and their directories, in blocks of 64 KiB.
const SIZE: usize = 256 << 10;

/// Keeps room again where it was given up. It is no failure that there is none.
pub(super) fn refill(dir: &Path) {
    let path = dir.join(AUDIT).join(RESERVE);
    // One that was cut short by a crash is none.
    let is_whole = std::fs::symlink_metadata(&path).is_ok_and(|found| found.len() >= SIZE as u64);
    if is_whole {
        return;
    }
    let made = storage::discard(&path).and_then(|()| storage::create(&path, &vec![0; SIZE]));
    if let Err(error) = made {
        log::warn!("no room is kept for disabling a key on a full disk: {error}");
        let _ = storage::discard(&path);
    }
}

/// Gives the room up.
pub(super) fn release(dir: &Path) -> Result<(), KmsError> {
    storage::discard(&dir.join(AUDIT).join(RESERVE))?;
    storage::sync(&dir.join(AUDIT))
}
