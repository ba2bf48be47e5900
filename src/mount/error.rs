//! What can go wrong with a mount, before, during and at its end.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

use super::fusermount::HelperError;
use super::holders::Process;
use crate::fs::FsError;

/// Why a mount or unmount failed. What to do about it is [`MountError::hint`].
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The mountpoint is not there.
    #[error("mountpoint {} does not exist", .0.display())]
    Missing(PathBuf),
    /// The mountpoint is not a directory.
    #[error("mountpoint {} is not a directory", .0.display())]
    NotADirectory(PathBuf),
    /// A path cannot be looked at.
    #[error("{}: {source}", path.display())]
    Unreachable {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A cmkfs volume is mounted there already.
    #[error("{} is already mounted on {}{}", source_name.display(), mountpoint.display(), by(*pid))]
    AlreadyMounted {
        /// Where.
        mountpoint: PathBuf,
        /// What.
        source_name: OsString,
        /// By which process.
        pid: Option<u32>,
    },
    /// A mount of another filesystem there has lost its daemon.
    #[error("{} is a dead mount of another filesystem ({filesystem_type})", mountpoint.display())]
    ForeignStale {
        /// Where.
        mountpoint: PathBuf,
        /// Which.
        filesystem_type: String,
    },
    /// Mountpoint and ciphertext directory lie within each other.
    #[error("mountpoint {} and ciphertext directory {} lie within each other", mountpoint.display(), ciphertext.display())]
    Overlap {
        /// The mountpoint.
        mountpoint: PathBuf,
        /// The ciphertext directory.
        ciphertext: PathBuf,
    },
    /// The kernel has no FUSE.
    #[error("/dev/fuse cannot be opened: {0}")]
    NoFuse(io::Error),
    /// The kernel refuses the mount.
    #[error("cannot mount on {}: {source}", mountpoint.display())]
    Refused {
        /// Where.
        mountpoint: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The helper for ordinary users failed.
    #[error(transparent)]
    Helper(#[from] HelperError),
    /// Nothing of ours is mounted there.
    #[error("no cmkfs volume is mounted on {}", .0.display())]
    NotMounted(PathBuf),
    /// The mount is in use.
    #[error("{} is in use{}", mountpoint.display(), list(holders))]
    Busy {
        /// Where.
        mountpoint: PathBuf,
        /// By whom, as far as can be seen.
        holders: Vec<Process>,
    },
    /// Unmounting failed otherwise.
    #[error("cannot unmount {}: {source}", mountpoint.display())]
    Unmount {
        /// Where.
        mountpoint: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The process that unmounts for the mount's own has failed.
    #[error("the process that unmounts for the mount: {0}")]
    Unmounter(io::Error),
    /// The process that asks the mount for the mount's own has failed.
    #[error("the process that asks the mount for the mount's own: {0}")]
    Syncer(io::Error),
    /// The transport failed.
    #[error("the connection to the kernel failed: {0}")]
    Session(io::Error),
    /// Commands could not reach the mount: a key that is disabled would go on working there.
    #[error("no control socket can be made in the key directory {}: {source}", keys.display())]
    Control {
        /// The key directory.
        keys: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The mount is there but does not answer.
    #[error("the mount on {} does not answer: {source}", mountpoint.display())]
    Silent {
        /// Where.
        mountpoint: PathBuf,
        /// What came instead.
        source: io::Error,
    },
    /// The last seals could not be written; the next mount recovers.
    #[error("the volume could not be closed cleanly: {0}")]
    Shutdown(FsError),
    /// The log cannot be written.
    #[error("log file {}: {source}", path.display())]
    Log {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The background process could not be started or waited for.
    #[error("cannot go into the background: {0}")]
    Background(io::Error),
    /// The background process was killed before the mount answered.
    #[error("the mount process was killed by signal {0} before the mount was ready")]
    Killed(i32),
    /// Unmounted, but the daemon goes on.
    #[error("{} is unmounted, but its process {pid} is still writing", mountpoint.display())]
    StillFinishing {
        /// Where it was.
        mountpoint: PathBuf,
        /// The daemon.
        pid: u32,
    },
}

impl MountError {
    /// What to do next.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Missing(path) => Some(format!("create it first: mkdir -p {}", path.display())),
            Self::NotADirectory(_) => Some("mount on an empty directory".to_owned()),
            Self::AlreadyMounted { mountpoint, .. } => Some(format!(
                "unmount it first: cmkfs unmount {}",
                mountpoint.display()
            )),
            Self::ForeignStale { mountpoint, .. } => {
                Some(format!("clear it: umount -l {}", mountpoint.display()))
            }
            Self::Overlap { .. } => {
                Some("mount on a directory outside of the ciphertext directory".to_owned())
            }
            Self::NoFuse(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                Some("everybody may use it where udev sets it up: chmod 666 /dev/fuse".to_owned())
            }
            Self::NoFuse(_) => Some(
                "load the kernel module (modprobe fuse), and give a container --device /dev/fuse"
                    .to_owned(),
            ),
            Self::Refused { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("in a container, mounting needs CAP_SYS_ADMIN".to_owned())
            }
            Self::Helper(HelperError::Missing) => {
                Some("install the package fuse3, or mount as root".to_owned())
            }
            Self::Helper(HelperError::Refused(words)) if words.contains("user_allow_other") => {
                Some(
                    "add the line user_allow_other to /etc/fuse.conf, or leave allow_other out"
                        .to_owned(),
                )
            }
            Self::NotMounted(_) => Some("see what is mounted: cmkfs status".to_owned()),
            Self::Busy { .. } => Some(
                "end these programs, or detach now and finish when they end: cmkfs unmount --lazy"
                    .to_owned(),
            ),
            Self::Control { .. } => Some(
                "a mount has to be told when a key is withdrawn: keep the key directory on a writable filesystem that can hold sockets"
                    .to_owned(),
            ),
            Self::Silent { .. } => Some("the log of the mount says more".to_owned()),
            Self::StillFinishing { .. } => {
                Some("it ends by itself; the volume can be mounted again then".to_owned())
            }
            Self::Log { .. } => Some("choose another with --log FILE".to_owned()),
            Self::Shutdown(_) => {
                Some("nothing is lost: the next mount brings the files in order".to_owned())
            }
            Self::Unreachable { .. }
            | Self::Refused { .. }
            | Self::Helper(_)
            | Self::Unmount { .. }
            | Self::Unmounter(_)
            | Self::Syncer(_)
            | Self::Session(_)
            | Self::Background(_)
            | Self::Killed(_) => None,
        }
    }
}

fn by(pid: Option<u32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" by process {pid}"))
}

fn list(holders: &[Process]) -> String {
    let names: Vec<_> = holders.iter().map(ToString::to_string).collect();
    if names.is_empty() {
        String::new()
    } else {
        format!(" by {}", names.join(", "))
    }
}
