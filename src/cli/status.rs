//! `cmkfs status`: what is mounted, and by whom it is served.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use crate::mount::mountpoint::{daemon_of, locate};
use crate::mount::{MountError, mountinfo};

/// Show what is mounted.
#[derive(Debug, Clone, Args)]
pub struct StatusArgs {
    /// Only the volume that is mounted here
    #[arg(value_name = "MOUNTPOINT")]
    pub mountpoint: Option<PathBuf>,
}

/// One mounted volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct MountStatus {
    /// The ciphertext directory, or what `fsname` said.
    pub source: String,
    /// Where it is mounted.
    pub mountpoint: String,
    /// The process that serves it, as far as it can be found out.
    pub process_id: Option<u32>,
    /// Whether writing is refused.
    pub read_only: bool,
    /// Whether anybody answers.
    pub answers: bool,
}

/// What is mounted, in the order of mounting.
///
/// # Errors
/// Where `/proc` cannot be read, or nothing of ours is mounted at the mountpoint asked for.
pub fn list(args: &StatusArgs) -> Result<Vec<MountStatus>, MountError> {
    let only = args.mountpoint.as_deref().map(locate).transpose()?;
    let mounts = mountinfo::list().map_err(|source| MountError::Unreachable {
        path: "/proc/self/mountinfo".into(),
        source,
    })?;
    let wanted = |mount: &mountinfo::Mount| {
        mount.is_cmkfs() && only.as_ref().is_none_or(|only| mount.mountpoint == *only)
    };
    let found: Vec<_> = mounts
        .iter()
        .filter(|mount| wanted(mount))
        .map(status)
        .collect();
    match only {
        Some(only) if found.is_empty() => Err(MountError::NotMounted(only)),
        _ => Ok(found),
    }
}

fn status(mount: &mountinfo::Mount) -> MountStatus {
    MountStatus {
        source: mount.source.to_string_lossy().into_owned(),
        mountpoint: mount.mountpoint.to_string_lossy().into_owned(),
        process_id: daemon_of(mount),
        read_only: mount.is_read_only(),
        answers: std::fs::metadata(&mount.mountpoint).is_ok(),
    }
}
