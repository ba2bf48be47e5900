//! `cmkfs status`: what is mounted, and by whom it is served.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::message::CliError;
use super::output::{self, Format, OutputArgs};
use crate::format::names::VOLUME_FILE;
use crate::format::volume::VolumeFile;
use crate::ids::{KeyId, VolumeId};
use crate::mount::mountpoint::{answers, daemon_of, locate};
use crate::mount::{MountError, mountinfo};

/// The arguments of `cmkfs status`.
#[derive(Debug, Clone, Args)]
pub struct StatusArgs {
    /// Only the volume that is mounted here.
    #[arg(value_name = "MOUNTPOINT")]
    pub mountpoint: Option<PathBuf>,
    /// How to print it.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// One mounted volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct MountStatus {
    /// The ciphertext directory, or what `fsname` said.
    source: String,
    mountpoint: String,
    /// The volume, where its directory can be read.
    volume_id: Option<VolumeId>,
    /// The key that wraps the volume's own.
    key_id: Option<KeyId>,
    /// The process that serves it, as far as it can be found out.
    process_id: Option<u32>,
    read_only: bool,
    /// Whether that process is alive.
    answers: bool,
}

/// Runs `cmkfs status`.
///
/// # Errors
/// Where `/proc` cannot be read, or nothing of ours is mounted at the mountpoint asked for.
pub fn run(args: &StatusArgs) -> Result<(), CliError> {
    let mounts = list(args)?;
    match args.output.output {
        Format::Json => output::json(&mounts),
        Format::Table => {
            let yes = |is_so: bool, yes: &str, no: &str| if is_so { yes } else { no }.to_owned();
            let text = |id: Option<String>| id.unwrap_or_default();
            let rows = mounts.into_iter().map(|mount| {
                [
                    mount.source,
                    mount.mountpoint,
                    text(mount.volume_id.map(|id| id.to_string())),
                    text(mount.key_id.map(|id| id.to_string())),
                    mount
                        .process_id
                        .map_or_else(String::new, |pid| pid.to_string()),
                    yes(mount.read_only, "ro", "rw"),
                    yes(mount.answers, "mounted", "dead"),
                ]
            });
            output::table(
                [
                    "SOURCE",
                    "MOUNTPOINT",
                    "VOLUME",
                    "KEY",
                    "PROCESS",
                    "ACCESS",
                    "STATE",
                ],
                rows,
            )
        }
    }
}

/// What is mounted, in the order of mounting.
fn list(args: &StatusArgs) -> Result<Vec<MountStatus>, MountError> {
    let only = args.mountpoint.as_deref().map(locate).transpose()?;
    let unreadable = |source| MountError::Unreachable {
        path: "/proc/self/mountinfo".into(),
        source,
    };
    let mounts = mountinfo::list().map_err(unreadable)?;
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
    let bytes = std::fs::read(Path::new(&mount.source).join(VOLUME_FILE)).ok();
    let volume = bytes.and_then(|bytes| VolumeFile::decode(&bytes).ok());
    MountStatus {
        volume_id: volume.as_ref().map(VolumeFile::volume_id),
        key_id: volume.as_ref().map(|volume| volume.envelope().key_id()),
        source: mount.source.to_string_lossy().into_owned(),
        mountpoint: mount.mountpoint.to_string_lossy().into_owned(),
        process_id: daemon_of(mount),
        read_only: mount.is_read_only(),
        answers: answers(&mount.mountpoint),
    }
}
