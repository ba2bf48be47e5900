//! The volume's lock: one writer, or any number of readers. An flock(2) on the volume file, so it goes with the process,
//! however that ends, and nothing is left behind that could stand in the way.

use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::{Access, VolumeError};
use crate::format::names::VOLUME_FILE;

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
    let locks = std::fs::read_to_string("/proc/locks").ok()?;
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
    locks.lines().find_map(holder)
}
