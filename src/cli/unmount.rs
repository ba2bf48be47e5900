//! `cmkfs unmount`: unmounts, and returns when the volume is closed and free for the next mount.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags};

use super::args::Global;
use super::message::CliError;
use super::progress::Progress;
use crate::mount::mountpoint::{daemon_of, locate};
use crate::mount::{MountError, liveness, mountinfo, mountpoint, syncer, unmounter};

/// How long the daemon may take to write its last seals: they come after a sync of the whole backing filesystem, which
/// others may keep busy. As with umount(8), waiting is what is wanted; only a disk that does nothing any more takes longer.
const FINISH: Duration = Duration::from_secs(600);

/// The arguments of `cmkfs unmount`.
#[derive(Debug, Clone, Args)]
pub struct UnmountArgs {
    /// Where the volume is mounted.
    #[arg(value_name = "MOUNTPOINT")]
    pub mountpoint: PathBuf,
    /// Detach now even where it is in use; its process ends when the last user does.
    #[arg(short, long)]
    pub lazy: bool,
}

/// The arguments of the processes beside a mount's own.
#[derive(Debug, Clone, Args)]
pub struct SecondArgs {
    /// Where the volume is mounted.
    pub mountpoint: PathBuf,
    /// The mount's device, the major number.
    pub major: u32,
    /// The minor number.
    pub minor: u32,
    /// The mount's process.
    pub daemon: u32,
}

/// Runs `cmkfs unmounter`.
///
/// # Errors
/// Where the process that started it cannot be heard or answered.
pub fn serve_unmounter(args: &SecondArgs) -> Result<(), CliError> {
    let served = unmounter::serve(&args.mountpoint, (args.major, args.minor), args.daemon);
    Ok(served.map_err(MountError::Unmounter)?)
}

/// Runs `cmkfs syncer`.
///
/// # Errors
/// Where the process that started it cannot be heard or answered.
pub fn serve_syncer(args: &SecondArgs) -> Result<(), CliError> {
    let served = syncer::serve(&args.mountpoint, (args.major, args.minor));
    Ok(served.map_err(MountError::Syncer)?)
}

/// Runs `cmkfs probe`.
///
/// # Errors
/// Where the process that started it cannot be heard or answered.
pub fn serve_probe(args: &SecondArgs) -> Result<(), CliError> {
    let served = liveness::serve(&args.mountpoint);
    Ok(served.map_err(MountError::Syncer)?)
}

/// Runs `cmkfs unmount`.
///
/// # Errors
/// [`MountError::NotMounted`], [`MountError::Busy`] with those who hold it, or [`MountError::StillFinishing`].
pub fn run(global: &Global, args: &UnmountArgs) -> Result<(), CliError> {
    let path = locate(&args.mountpoint)?;
    let found = mountinfo::at(&path);
    let found = found.map_err(|source| MountError::Unreachable {
        path: path.clone(),
        source,
    })?;
    let mount = found
        .filter(mountinfo::Mount::is_cmkfs)
        .ok_or_else(|| MountError::NotMounted(path.clone()))?;
    let daemon = daemon_of(&mount);
    mountpoint::unmount(&path, mount.device, args.lazy)?;
    match daemon {
        Some(pid) if !args.lazy => {
            let _progress = Progress::counter(global, "Writing to the disk");
            Ok(wait_for(pid, &path)?)
        }
        _ => Ok(()),
    }
}

/// Waits for the end of a process that is not our child, as of which the kernel has freed its locks.
fn wait_for(pid: u32, mountpoint: &Path) -> Result<(), MountError> {
    let Some(process) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return Ok(());
    };
    let Ok(process) = rustix::process::pidfd_open(process, PidfdFlags::empty()) else {
        // It has ended already.
        return Ok(());
    };
    let timeout = Timespec::try_from(FINISH).ok();
    let mut polled = [PollFd::new(&process, PollFlags::IN)];
    match rustix::io::retry_on_intr(|| rustix::event::poll(&mut polled, timeout.as_ref())) {
        Ok(0) => Err(MountError::StillFinishing {
            mountpoint: mountpoint.to_owned(),
            pid,
        }),
        Ok(_) => Ok(()),
        Err(error) => Err(MountError::Unmount {
            mountpoint: mountpoint.to_owned(),
            source: error.into(),
        }),
    }
}
