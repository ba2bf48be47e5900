//! `cmkfs bind`: an empty directory of a mounted volume; what is created in it is wrapped under a key from then on.

use std::fs::File;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use rustix::fs::OFlags;

use super::args::Global;
use super::message::CliError;
use super::{keystore, output, reach};
use crate::kms::key::KeyRef;
use crate::mount::control::client::{self, AskError};
use crate::mount::control::protocol::{Failed, Request, Response};
use crate::mount::mountpoint::daemon_of;

/// How long the mount may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// The arguments of `cmkfs bind`.
#[derive(Debug, Clone, Args)]
pub struct BindArgs {
    /// An empty directory of a mounted volume.
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
    /// Key id, or alias/NAME: whatever key the alias stands for when something is created.
    #[arg(value_name = "KEY")]
    pub key: KeyRef,
}

/// Why a directory cannot be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// It holds something.
    #[error("it is not empty")]
    NotEmpty,
    /// It is something else.
    #[error("it is no directory")]
    NotADirectory,
    /// The mount says why.
    #[error("{0}")]
    Refused(#[from] AskError),
}

/// Runs `cmkfs bind`.
///
/// # Errors
/// The key unknown or refused; the directory not empty, or in no volume; what the mount says. Nothing has changed then.
pub fn run(global: &Global, args: &BindArgs) -> Result<(), CliError> {
    let path = &args.directory;
    let failed = |source| CliError::Io {
        action: "open",
        path: path.clone(),
        source,
    };
    let bind = |why| CliError::Bind {
        path: path.clone(),
        why,
    };
    // Kept open until the mount has answered, so that the number stays this directory's.
    let directory = File::options()
        .read(true)
        .custom_flags(OFlags::PATH.bits() as i32)
        .open(path)
        .map_err(failed)?;
    let metadata = directory.metadata().map_err(failed)?;
    let mount = reach::mount_at(&metadata, path)?;
    let mount = mount.ok_or_else(|| CliError::NotInAVolume(path.clone()))?;
    if !metadata.is_dir() {
        return Err(bind(BindError::NotADirectory));
    }
    let service = keystore::open(global)?;
    let key = service.describe_key(&args.key)?.key_id;
    service.key_status(key)?;
    if std::fs::read_dir(path).map_err(failed)?.next().is_some() {
        return Err(bind(BindError::NotEmpty));
    }
    let socket = reach::socket_of(daemon_of(&mount), &mount.mountpoint, service.dir())?;
    let request = Request::Bind {
        node: metadata.ino(),
        key: match &args.key {
            KeyRef::Id(id) => id.to_string(),
            KeyRef::Alias(alias) => alias.to_string(),
        },
    };
    let deadline = Instant::now() + PATIENCE;
    let answer = client::ask(&socket, &request, Some(deadline), &mut |_| ());
    match answer.map_err(|error| bind(error.into()))? {
        Response::Bound(bound) => {
            let text = format!("Bound {} to {}", path.display(), bound.binding);
            output::done(global, &text)
        }
        _ => Err(bind(BindError::Refused(AskError::Failed(
            Failed::another_answer(),
        )))),
    }
}
