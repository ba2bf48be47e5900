//! The lock of a key directory: flock(2) on the file `lock`.

use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::{missing, owner};
use crate::kms::error::KmsError;

/// The lock file of a key directory.
pub(in crate::kms) const LOCK: &str = "lock";

/// The right to change a key directory: one holder at a time, over all processes and threads. Released when dropped.
pub(in crate::kms) struct Lock(#[expect(dead_code, reason = "closing it releases the lock")] File);

impl Lock {
    /// Waits for the lock of `dir`.
    pub(in crate::kms) fn exclusive(dir: &Path) -> Result<Self, KmsError> {
        let path: PathBuf = dir.join(LOCK);
        loop {
            let file = open(&path)?;
            rustix::io::retry_on_intr(|| flock(&file, FlockOperation::LockExclusive))
                .map_err(|errno| KmsError::io("lock", &path)(errno.into()))?;
            // Somebody may have replaced the file, or the whole directory, while this waited: then the lock is on nothing.
            let held = file.metadata().map_err(KmsError::io("look at", &path))?;
            match fs::metadata(&path) {
                Ok(there) if (there.dev(), there.ino()) == (held.dev(), held.ino()) => {
                    return Ok(Self(file));
                }
                Ok(_) => {}
                Err(error) if missing(&error) => {}
                Err(error) => return Err(KmsError::io("look at", &path)(error)),
            }
        }
    }
}

/// Opens the lock file, or makes it. What somebody put in its place neither leads elsewhere nor lets anybody wait.
fn open(path: &Path) -> Result<File, KmsError> {
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    let opened = match made {
        Ok(file) => {
            owner::inherit(&file, path)?;
            return Ok(file);
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => OpenOptions::new()
            .write(true)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(path),
        Err(error) => Err(error),
    };
    match opened {
        // Somebody took it away in between.
        Err(error) if missing(&error) && path.parent().is_some_and(Path::is_dir) => open(path),
        opened => opened.map_err(KmsError::io("open", path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_lets_one_in_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let inside = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let lock = Lock::exclusive(dir.path()).unwrap();
                        assert_eq!(inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                        std::thread::yield_now();
                        inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                        drop(lock);
                    }
                });
            }
        });
    }
}
