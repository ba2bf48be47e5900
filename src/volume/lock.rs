//! The volume's lock: one writer, or any number of readers. An flock(2) on the volume file, so it goes with the process,
//! however that ends, and nothing is left behind that could stand in the way.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::{Access, VolumeError};
use crate::format::names::VOLUME_FILE;

/// As much as the kernel gives at once, and more.
const PAGE: usize = 1 << 16;
/// How often many locks are looked through for one that may have been passed over.
const TRIES: u32 = 10;

/// The lock, held while this lives.
#[derive(Debug)]
pub struct VolumeLock(#[expect(dead_code, reason = "held, not read")] File);

impl VolumeLock {
    /// Takes the lock by way of the open volume file of `directory`.
    ///
    /// # Errors
    /// [`VolumeError::InUse`], with the holder's process id where it can be told.
    pub fn take(volume_file: &File, directory: &Path, access: Access) -> Result<Self, VolumeError> {
        let path = directory.join(VOLUME_FILE);
        let operation = match access {
            Access::ReadWrite => FlockOperation::NonBlockingLockExclusive,
            Access::ReadOnly => FlockOperation::NonBlockingLockShared,
        };
        let file = volume_file
            .try_clone()
            .map_err(VolumeError::io("lock", &path))?;
        match rustix::fs::flock(&file, operation) {
            Ok(()) => Ok(Self(file)),
            Err(Errno::WOULDBLOCK) => Err(VolumeError::InUse {
                path: directory.to_owned(),
                pid: holder(directory),
            }),
            Err(errno) => Err(VolumeError::io("lock", path)(errno.into())),
        }
    }
}

/// The process that holds the lock of the volume in `directory`, as /proc/locks tells it.
#[must_use]
pub fn holder(directory: &Path) -> Option<u32> {
    let volume_file = std::fs::metadata(directory.join(VOLUME_FILE)).ok()?;
    let device = volume_file.dev();
    let device = (rustix::fs::major(device), rustix::fs::minor(device));
    // "1: FLOCK  ADVISORY  WRITE 1234 fe:00:5678 0 EOF". Filesystems whose devices are of no driver may show another there
    // than stat(2) does.
    let holder = |line: &str| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let ["FLOCK", _, _, pid, file, ..] = fields.get(1..)? else {
            return None;
        };
        let mut parts = file.split(':');
        let mut hexadecimal = || u32::from_str_radix(parts.next()?, 16).ok();
        let shown = (hexadecimal()?, hexadecimal()?);
        let inode = parts.next()?.parse::<u64>().ok()?;
        let is_it = inode == volume_file.ino() && (device.0 == 0 || shown == device);
        is_it.then(|| pid.parse().ok()).flatten()
    };
    for _ in 0..TRIES {
        let (locks, is_whole) = locks().ok()?;
        let found = locks.lines().find_map(holder);
        if found.is_some() || is_whole {
            return found;
        }
    }
    None
}

/// /proc/locks, and whether all of it is of one moment: the kernel counts lines from one read(2) to the next, and passes one
/// over where another goes meanwhile. It gives a page at once, if it is asked for as much.
fn locks() -> io::Result<(String, bool)> {
    let mut file = File::open("/proc/locks")?;
    let (mut text, mut page) = (Vec::new(), vec![0; PAGE]);
    let mut pieces = 0;
    loop {
        match file.read(&mut page) {
            Ok(0) => return Ok((String::from_utf8_lossy(&text).into_owned(), pieces <= 1)),
            Ok(length) => text.extend(page.iter().take(length)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        pieces += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn a_holder_is_found_while_other_locks_come_and_go() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(VOLUME_FILE);
        let file = File::create(&path).unwrap();
        let _lock = VolumeLock::take(&file, folder.path(), Access::ReadWrite).unwrap();
        let is_over = AtomicBool::new(false);
        let come_and_go = |name: &str| {
            let other = File::create(folder.path().join(name)).unwrap();
            while !is_over.load(Ordering::Relaxed) {
                rustix::fs::flock(&other, FlockOperation::LockExclusive).unwrap();
                rustix::fs::flock(&other, FlockOperation::Unlock).unwrap();
            }
        };
        let found: Vec<_> = std::thread::scope(|scope| {
            for name in ["a", "b"] {
                let come_and_go = &come_and_go;
                scope.spawn(move || come_and_go(name));
            }
            let found = (0..ASKED).map(|_| holder(folder.path())).collect();
            is_over.store(true, Ordering::Relaxed);
            found
        });
        assert_eq!(found, [Some(std::process::id()); ASKED]);
    }

    const ASKED: usize = 300;
}
