//! From a path to the mount that serves it: which volume it lies in, and the control socket of that.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::message::CliError;
use crate::mount::control::client;
use crate::mount::control::protocol::{Request, Response};
use crate::mount::control::registry::{self, Entry};
use crate::mount::mountinfo::{self, Mount};

/// How long mounts may take to say what they are.
const PATIENCE: Duration = Duration::from_secs(10);

/// The mount that a path lies in, where that is one of ours.
///
/// # Errors
/// Where the path or `/proc` cannot be looked at.
pub fn mount_of(path: &Path) -> Result<Option<Mount>, CliError> {
    let failed = |source| CliError::Io {
        action: "find",
        path: path.to_owned(),
        source,
    };
    let device = path.metadata().map_err(failed)?.dev();
    let device = (rustix::fs::major(device), rustix::fs::minor(device));
    let mounts = mountinfo::list().map_err(failed)?;
    // The first, because that is what the mount itself knows; others are bind mounts of it.
    Ok(mounts
        .into_iter()
        .find(|mount| mount.is_cmkfs() && mount.device == device))
}

/// The control socket of a mount, among those that use this key directory.
///
/// # Errors
/// [`CliError::Unreached`] where it is none of them, or does not answer.
pub fn socket_of(mount: &Mount, keys: &Path) -> Result<Entry, CliError> {
    let unreached = || CliError::Unreached {
        mountpoint: mount.mountpoint.clone(),
        keys: keys.to_owned(),
    };
    let failed = |source| CliError::Io {
        action: "find the mounts of",
        path: keys.to_owned(),
        source,
    };
    let deadline = Instant::now() + PATIENCE;
    let asked = client::ask_all(keys, &Request::Status, deadline).map_err(failed)?;
    let mountpoint = mount.mountpoint.to_string_lossy();
    let is_it = |asked: &client::Asked| matches!(&asked.result, Ok(Response::Status(status)) if status.mountpoint == mountpoint);
    let found = asked.into_iter().find(is_it).ok_or_else(unreached)?;
    let entries = registry::list(keys).map_err(failed)?;
    let mut entries = entries.into_iter();
    entries
        .find(|entry| entry.path == found.socket)
        .ok_or_else(unreached)
}
