//! From a path to the mount that serves it: which volume it lies in, and the control socket of that.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::message::CliError;
use crate::mount::control::registry::{self, Entry};
use crate::mount::mountinfo::{self, Mount};

/// The mount that a path lies in, where that is one of ours.
///
/// # Errors
/// Where the path or `/proc` cannot be looked at.
pub fn mount_of(path: &Path) -> Result<Option<Mount>, CliError> {
    mount_at(&path.metadata().map_err(failed(path))?, path)
}

/// As [`mount_of`], of a path that was looked at already.
///
/// # Errors
/// Where `/proc` cannot be looked at.
pub fn mount_at(metadata: &Metadata, path: &Path) -> Result<Option<Mount>, CliError> {
    let device = metadata.dev();
    let device = (rustix::fs::major(device), rustix::fs::minor(device));
    let mounts = mountinfo::list().map_err(failed(path))?;
    // The first, because that is what the mount itself knows; others are bind mounts of it.
    Ok(mounts
        .into_iter()
        .find(|mount| mount.is_cmkfs() && mount.device == device))
}

fn failed(path: &Path) -> impl Fn(std::io::Error) -> CliError {
    move |source| CliError::Io {
        action: "look at",
        path: path.to_owned(),
        source,
    }
}

/// The control socket of a daemon, among those that use this key directory.
///
/// # Errors
/// [`CliError::Unreached`] where it is none of them.
pub fn socket_of(daemon: Option<u32>, mountpoint: &Path, keys: &Path) -> Result<Entry, CliError> {
    let entries = registry::list(keys).map_err(|source| CliError::Io {
        action: "find the mounts of",
        path: keys.to_owned(),
        source,
    })?;
    let found = entries
        .into_iter()
        .find(|entry| Some(entry.process_id) == daemon);
    found.ok_or_else(|| CliError::Unreached {
        mountpoint: mountpoint.to_owned(),
        keys: keys.to_owned(),
    })
}
