//! Whose new files are: whoever owns the directory they are made in. Else what root changes in somebody's key directory
//! would be lost to its owner.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::{Gid, Uid, fchown};
use rustix::io::Errno;

use crate::kms::error::KmsError;

/// Gives a file that was just made the owner and group of its directory, where this process may do so.
///
/// Only for what this process has made itself: given away, a file that somebody else put there would be theirs.
pub(super) fn inherit(file: impl AsFd, path: &Path) -> Result<(), KmsError> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) else {
        return Ok(());
    };
    let directory = std::fs::metadata(parent).map_err(KmsError::io("look at", parent))?;
    let (user, group) = (directory.uid(), directory.gid());
    let given = rustix::fs::fstat(&file).and_then(|own| {
        if (own.st_uid, own.st_gid) == (user, group) {
            return Ok(());
        }
        fchown(&file, Some(Uid::from_raw(user)), Some(Gid::from_raw(group)))
    });
    match given {
        // Root of a namespace that has no such user, or a filesystem without owners.
        Ok(()) | Err(Errno::PERM | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => Ok(()),
        Err(errno) => Err(KmsError::io("give to its owner", path)(errno.into())),
    }
}

/// The same for a directory.
pub(super) fn inherit_directory(path: &Path) -> Result<(), KmsError> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let opened = File::options()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_DIRECTORY)
        .open(path)
        .map_err(KmsError::io("open", path))?;
    inherit(&opened, path)
}
