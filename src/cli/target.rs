//! What `rewrap` and `rekey` work on: a volume that nobody has open, or a mount, or a directory in one.

use std::fs::File;
use std::ops::ControlFlow;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::OFlags;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::args::Global;
use super::message::CliError;
use super::progress::Progress;
use super::{keystore, reach};
use crate::fs::ROOT_NODE;
use crate::mount::MountError;
use crate::mount::control::client::{self, AskError};
use crate::mount::control::protocol::{Request, Response};
use crate::mount::control::registry::Entry;
use crate::mount::mountpoint::daemon_of;
use crate::volume::lock::holder;
use crate::volume::{self, Access, Volume, VolumeError, sweep};

/// What is to be worked on.
pub enum Target {
    /// A volume that is not mounted, opened.
    Offline(Box<Volume>),
    /// A mount, and where in it to begin.
    Online {
        /// Its control socket.
        entry: Entry,
        /// The directory's inode number.
        directory: u64,
        /// Keeps the kernel from forgetting that number.
        _held: Option<File>,
    },
}

impl Target {
    /// Finds out what lies at `path`: a volume's directory, a mountpoint, a directory in a mount.
    ///
    /// # Errors
    /// None of these; a mount that does not use this key directory; why a volume cannot be opened.
    pub fn find(global: &Global, path: &Path) -> Result<Self, CliError> {
        if let Some(mounted) = Self::mounted(global, path)? {
            return Ok(mounted);
        }
        let keys = Arc::new(keystore::open(global)?);
        let volume = volume::open(path, &keys, Access::ReadWrite)?;
        Ok(Self::Offline(Box::new(volume)))
    }

    /// Finds out which mount serves `path`; `None` for the directory of a volume that is not mounted.
    ///
    /// # Errors
    /// No volume's directory, nor in a mount; a mount that does not use this key directory.
    pub fn mounted(global: &Global, path: &Path) -> Result<Option<Self>, CliError> {
        let failed = |source| CliError::Io {
            action: "look at",
            path: path.to_owned(),
            source,
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let held = File::options()
            .read(true)
            .custom_flags(flags.bits() as i32)
            .open(path)
            .map_err(failed)?;
        let metadata = held.metadata().map_err(failed)?;
        let keys = keystore::locate(global)?;
        if let Some(mount) = reach::mount_at(&metadata, path)? {
            return Ok(Some(Self::Online {
                entry: reach::socket_of(daemon_of(&mount), &mount.mountpoint, &keys)?,
                directory: metadata.ino(),
                _held: Some(held),
            }));
        }
        if !volume::exists(path)? {
            return Err(VolumeError::NotAVolume {
                path: path.to_owned(),
            }
            .into());
        }
        // A mount that writes holds the lock; whoever else does, opening says so.
        if let Some(pid) = holder(path)
            && let Ok(entry) = reach::socket_of(Some(pid), path, &keys)
        {
            return Ok(Some(Self::Online {
                entry,
                directory: ROOT_NODE,
                _held: None,
            }));
        }
        Ok(None)
    }
}

/// Asks a mount for long work. An interrupt ends this process between two lines of progress, and the mount stops then.
///
/// # Errors
/// Why there is no result.
pub fn ask(
    entry: &Entry,
    request: &Request,
    bar: &Progress,
    interrupt: &Interrupt,
) -> Result<Response, CliError> {
    let mut progress = |at: crate::mount::control::protocol::Progress| {
        let at = sweep::Progress {
            done: at.done,
            total: at.total,
        };
        if show(bar, at, interrupt).is_break() {
            bar.suspend(|| eprintln!("Interrupted: the mount stops. Run it again to go on."));
            std::process::exit(INTERRUPTED);
        }
    };
    client::ask(entry, request, None, &mut progress).map_err(|error| match error {
        AskError::Failed(failed) => CliError::Refused(failed),
        error => CliError::Unheard {
            process_id: entry.process_id,
            source: error,
        },
    })
}

/// As the shell tells of a program that SIGINT has ended.
pub const INTERRUPTED: i32 = 130;

/// Shows how far it has come; `Break` where the user has had enough.
pub fn show(bar: &Progress, at: sweep::Progress, interrupt: &Interrupt) -> ControlFlow<()> {
    if bar.is_shown() {
        bar.set(at.done);
        bar.say(match at.total {
            0 => format!("{} objects counted", at.done),
            total => format!("{} of {total} objects", at.done),
        });
    }
    if interrupt.is_requested() {
        ControlFlow::Break(())
    } else {
        ControlFlow::Continue(())
    }
}

/// Whether the user wants it to end. The second time it ends at once.
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Takes the signals that ask for an end.
    ///
    /// # Errors
    /// Where they cannot be taken.
    pub fn take() -> Result<Self, MountError> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            let at_once = Arc::clone(&flag);
            signal_hook::flag::register_conditional_shutdown(signal, INTERRUPTED, at_once)
                .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&flag)))
                .map_err(MountError::Session)?;
        }
        Ok(Self(flag))
    }

    /// It was asked for.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// How a failure of single objects is told.
#[must_use]
pub fn failures(failures: &sweep::Failures, verb: &str) -> Vec<String> {
    const SHOWN: usize = 20;
    let mut lines: Vec<_> = failures
        .first
        .iter()
        .take(SHOWN)
        .map(|failure| format!("not {verb}: {}: {}", failure.path.display(), failure.reason))
        .collect();
    let more = failures.count.saturating_sub(SHOWN as u64);
    if more > 0 {
        lines.push(format!("and {more} more"));
    }
    lines
}

/// Seals a volume that was worked on.
///
/// # Errors
/// Where it cannot be put on the disk.
pub fn close(volume: &Volume, path: &Path) -> Result<(), CliError> {
    volume.shutdown().map_err(|source| {
        VolumeError::Filesystem {
            path: path.to_owned(),
            source,
        }
        .into()
    })
}
