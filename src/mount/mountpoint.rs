//! Mountpoints: which are fit, how a mount comes to be there, and how it goes without taking another one along.
//!
//! As root we call mount(2) and umount2(2) ourselves; for ordinary users `fusermount3` does both.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, makedev};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};

use super::confine::{Confinement, Reach, confine};
use super::error::MountError;
use super::fusermount::{self, HelperError};
use super::liveness::Life;
use super::mountinfo::{self, FILESYSTEM_TYPE};
use super::options::MountOptions;
use super::syncer::Syncer;
use super::unmounter::Unmounter;
use super::{holders, mountinfo::Mount};
use crate::sys::process;
use crate::volume::lock::holder;

/// How long a busy mountpoint is tried again: short-lived users (a shell's completion, an indexer) are gone by then.
const PATIENCE: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(50);
/// How long a mount may take to answer that is there already: its daemon may have been stopped, and never answer.
const ANSWER: Duration = Duration::from_secs(5);
/// Dead daemons leave a mount each; more than this many on one place is somebody else's accident.
const STALE_LAYERS: usize = 16;

/// A directory that is fit to be mounted on.
#[derive(Debug, Clone)]
pub struct Place(PathBuf);

impl Place {
    /// Checks the mountpoint for a volume in `ciphertext`, and clears dead mounts of ours out of the way.
    ///
    /// # Errors
    /// Why it is not fit.
    pub fn check(mountpoint: &Path, ciphertext: &Path) -> Result<Self, MountError> {
        let path = locate(mountpoint)?;
        clear_stale(&path)?;
        let metadata = std::fs::metadata(&path).map_err(|error| unreachable(&path, error))?;
        if !metadata.is_dir() {
            return Err(MountError::NotADirectory(path));
        }
        if let Some(mount) = mountinfo::at(&path).map_err(|error| unreachable(&path, error))?
            && mount.is_cmkfs()
        {
            let pid = daemon_of(&mount);
            return Err(MountError::AlreadyMounted {
                mountpoint: path,
                source_name: mount.source,
                pid,
            });
        }
        let ciphertext = ciphertext
            .canonicalize()
            .map_err(|error| unreachable(ciphertext, error))?;
        if path.starts_with(&ciphertext) || ciphertext.starts_with(&path) {
            return Err(MountError::Overlap {
                mountpoint: path,
                ciphertext,
            });
        }
        Ok(Self(path))
    }

    /// The canonical path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

/// The process that serves a mount, as far as it can be found out: by its name for the mount, or the lock of its volume.
#[must_use]
pub fn daemon_of(mount: &Mount) -> Option<u32> {
    mount
        .user()
        .and_then(|user| holders::of_mount(mount.device.1, user))
        .or_else(|| holder(Path::new(&mount.source)))
}

/// The programs that use a mount, as far as this user may see them.
#[must_use]
pub fn holders_of(mount: &Mount) -> Vec<holders::Process> {
    holders::of_device(makedev(mount.device.0, mount.device.1))
}

/// The canonical form of a mountpoint, which may be a dead mount that cannot even be looked at.
///
/// # Errors
/// Where it is missing or out of reach.
pub fn locate(mountpoint: &Path) -> Result<PathBuf, MountError> {
    match mountpoint.canonicalize() {
        Ok(path) => Ok(path),
        Err(error) if is_stale(&error) => {
            let absolute =
                std::path::absolute(mountpoint).map_err(|error| unreachable(mountpoint, error))?;
            let (Some(parent), Some(name)) = (absolute.parent(), absolute.file_name()) else {
                return Err(unreachable(mountpoint, error));
            };
            let parent = parent
                .canonicalize()
                .map_err(|error| unreachable(mountpoint, error))?;
            Ok(parent.join(name))
        }
        Err(error) => Err(unreachable(mountpoint, error)),
    }
}

/// Why a mountpoint that does not answer is not fit.
fn silent(mount: Mount) -> MountError {
    if !mount.is_cmkfs() {
        return unreachable(&mount.mountpoint, io::ErrorKind::TimedOut.into());
    }
    MountError::AlreadyMounted {
        pid: daemon_of(&mount),
        mountpoint: mount.mountpoint,
        source_name: mount.source,
    }
}

fn is_stale(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::NOTCONN | Errno::CONNABORTED)
    )
}

fn unreachable(path: &Path, source: io::Error) -> MountError {
    match source.kind() {
        io::ErrorKind::NotFound => MountError::Missing(path.to_owned()),
        io::ErrorKind::NotADirectory => MountError::NotADirectory(path.to_owned()),
        _ => MountError::Unreachable {
            path: path.to_owned(),
            source,
        },
    }
}

/// Detaches what daemons that died have left at `path`.
fn clear_stale(path: &Path) -> Result<(), MountError> {
    for _ in 0..STALE_LAYERS {
        let Some(mount) = mountinfo::at(path).map_err(|error| unreachable(path, error))? else {
            return Ok(());
        };
        match Life::of(&mount, ANSWER) {
            Life::Answers => return Ok(()),
            Life::Silent => return Err(silent(mount)),
            Life::Dead => {}
        }
        if !mount.is_cmkfs() {
            let filesystem_type = mount.filesystem_type;
            return Err(MountError::ForeignStale {
                mountpoint: path.to_owned(),
                filesystem_type,
            });
        }
        log::warn!(
            "{} was mounted by a process that is gone; taking the place over",
            path.display()
        );
        detach(path, true)?;
    }
    Ok(())
}

/// A mount of ours.
#[derive(Debug)]
pub struct Mounted {
    path: PathBuf,
    device: (u32, u32),
    unmounter: Unmounter,
    syncer: Syncer,
    confinement: Confinement,
}

impl Mounted {
    /// Mounts at a checked place and gives the session's descriptor with it.
    ///
    /// # Errors
    /// Why the kernel or the helper refuses.
    pub fn new(
        place: &Place,
        source: &OsStr,
        options: &MountOptions,
    ) -> Result<(Self, OwnedFd), MountError> {
        let path = place.path().to_owned();
        let device = match mount_directly(&path, source, options) {
            Err(MountError::Refused { source: why, .. })
                if why.kind() == io::ErrorKind::PermissionDenied
                    && !rustix::process::geteuid().is_root() =>
            {
                fusermount::mount(&path, &helper_options(source, options))?
            }
            result => result?,
        };
        let found = mountinfo::at(&path).map_err(|error| unreachable(&path, error))?;
        let found = found
            .filter(Mount::is_cmkfs)
            .ok_or_else(|| MountError::NotMounted(path.clone()))?;
        let seconds = Unmounter::start(&path, found.device)
            .and_then(|unmounter| Ok((unmounter, Syncer::start(&path, found.device)?)));
        let (unmounter, syncer) = seconds.inspect_err(|_| {
            if let Err(error) = unmount(&path, found.device, true) {
                log::error!("{error}");
            }
        })?;
        let mounted = Self {
            path,
            device: found.device,
            unmounter,
            syncer,
            confinement: Confinement::default(),
        };
        Ok((mounted, device))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The minor number of its device, which is its own.
    #[must_use]
    pub const fn device_minor(&self) -> u32 {
        self.device.1
    }

    /// Makes the kernel send its dirty pages of this mount and marks the ends of its queues behind them, and returns when all
    /// are sent, not when they are answered (`session::writeback` knows that). Says how many marks there are. Never called
    /// by a worker of the session, which has to take them.
    ///
    /// # Errors
    /// Where the mount cannot be reached by its path, or the writing fails; [`io::ErrorKind::BrokenPipe`] where that can never
    /// be done again.
    pub(super) fn send_dirty_pages(&self) -> io::Result<u32> {
        self.syncer.sync()
    }

    /// The process that makes the marks.
    pub(super) const fn marker(&self) -> u32 {
        self.syncer.id()
    }

    /// Asks the mount for its root, which goes through the kernel to the session and back.
    ///
    /// # Errors
    /// What comes instead of an answer.
    pub fn probe(&self) -> io::Result<()> {
        self.syncer.probe()
    }

    /// Has this process give up what serving the mount does not take. Only while it has one thread.
    pub fn confine(&mut self, ciphertext: &Path, keys: &Path) {
        self.confinement = confine(&Reach {
            ciphertext,
            keys,
            mountpoint: &self.path,
            readahead: &self.readahead(),
        });
    }

    /// What this process has given up.
    #[must_use]
    pub const fn confinement(&self) -> &Confinement {
        &self.confinement
    }

    /// Where the kernel is told how far to read ahead.
    #[must_use]
    pub fn readahead(&self) -> PathBuf {
        self.setting("read_ahead_kb")
    }

    /// How the kernel treats this mount's pages.
    fn setting(&self, name: &str) -> PathBuf {
        let (major, minor) = self.device;
        format!("/sys/class/bdi/{major}:{minor}/{name}").into()
    }

    /// Lets the kernel hold as many dirty pages of this mount as of any other filesystem. It is stricter with what a process
    /// serves, because that may be waiting for its own pages to be written; so this one is kept from it first. Needs root
    /// with CAP_SYS_RESOURCE; without it bursts of writes are merely slower. To be called before any thread is started.
    pub fn lift_write_limit(&self) {
        let path = self.setting("strict_limit");
        let lifted = process::wait_for_own_writes_only().and_then(|()| std::fs::write(&path, "0"));
        if let Err(error) = lifted {
            log::debug!("{}: {error}", path.display());
        }
    }

    /// Lets the kernel read ahead by 1 MiB instead of 128 KiB. Needs root; without it reading is merely slower.
    pub fn raise_readahead(&self) {
        let path = self.readahead();
        if let Err(error) = std::fs::write(&path, "1024") {
            log::debug!("{}: {error}", path.display());
        }
    }

    /// Unmounts this mount, and never another one that lies below or above it. One that is gone already is no error.
    ///
    /// # Errors
    /// [`MountError::Busy`] where it stays in use, unless `lazy`.
    pub fn unmount(&self, lazy: bool) -> Result<(), MountError> {
        let device = self.device;
        let is_ours = || {
            mountinfo::at(&self.path).map(|found| found.is_some_and(|mount| mount.device == device))
        };
        match is_ours() {
            Ok(true) => self.unmounter.unmount(&self.path, lazy),
            Ok(false) => Ok(()),
            Err(error) => Err(unreachable(&self.path, error)),
        }
    }
}

/// Unmounts the mount with this device at `path`, trying again for a while where it is busy.
///
/// # Errors
/// [`MountError::Busy`] with those who hold it, or why it cannot be unmounted.
pub fn unmount(path: &Path, device: (u32, u32), lazy: bool) -> Result<(), MountError> {
    let until = Instant::now() + PATIENCE;
    loop {
        match detach(path, lazy) {
            Err(MountError::Busy { .. }) if Instant::now() < until => std::thread::sleep(PAUSE),
            Err(MountError::Busy { mountpoint, .. }) => {
                let holders = holders::of_device(makedev(device.0, device.1));
                return Err(MountError::Busy {
                    mountpoint,
                    holders,
                });
            }
            result => return result,
        }
    }
}

fn detach(path: &Path, lazy: bool) -> Result<(), MountError> {
    let flags = UnmountFlags::NOFOLLOW
        | if lazy {
            UnmountFlags::DETACH
        } else {
            UnmountFlags::empty()
        };
    let busy = || MountError::Busy {
        mountpoint: path.to_owned(),
        holders: Vec::new(),
    };
    match rustix::mount::unmount(path, flags) {
        Ok(()) => Ok(()),
        Err(Errno::BUSY) => Err(busy()),
        Err(Errno::PERM) => match fusermount::unmount(path, lazy) {
            Err(HelperError::Refused(words)) if words.contains("busy") => Err(busy()),
            result => Ok(result?),
        },
        Err(error) => Err(MountError::Unmount {
            mountpoint: path.to_owned(),
            source: error.into(),
        }),
    }
}

fn mount_directly(
    path: &Path,
    source: &OsStr,
    options: &MountOptions,
) -> Result<OwnedFd, MountError> {
    let device = rustix::fs::open("/dev/fuse", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| MountError::NoFuse(error.into()))?;
    let (user, group) = (
        rustix::process::getuid().as_raw(),
        rustix::process::getgid().as_raw(),
    );
    let descriptor = device.as_raw_fd();
    let mut data = format!(
        "fd={descriptor},rootmode=40000,user_id={user},group_id={group},default_permissions"
    );
    if allow_other(options) {
        data.push_str(",allow_other");
    }
    let data = std::ffi::CString::new(data).map_err(|error| MountError::Session(error.into()))?;
    rustix::mount::mount(
        source,
        path,
        FILESYSTEM_TYPE,
        options.flags,
        Some(data.as_c_str()),
    )
    .map_err(|error| MountError::Refused {
        mountpoint: path.to_owned(),
        source: error.into(),
    })?;
    Ok(device)
}

/// New objects belong to whoever makes them and the kernel checks permissions, so root's mounts are open by default.
fn allow_other(options: &MountOptions) -> bool {
    options
        .allow_other
        .unwrap_or_else(|| rustix::process::geteuid().is_root())
}

fn helper_options(source: &OsStr, options: &MountOptions) -> OsString {
    let mut list = OsString::from("subtype=cmkfs,default_permissions,fsname=");
    list.push(fusermount::escape(source));
    if allow_other(options) {
        list.push(",allow_other");
    }
    let names = [
        (MountFlags::RDONLY, ",ro"),
        (MountFlags::NOEXEC, ",noexec"),
        (MountFlags::NOATIME, ",noatime"),
        (MountFlags::NODIRATIME, ",nodiratime"),
        (MountFlags::RELATIME, ",relatime"),
        (MountFlags::STRICTATIME, ",strictatime"),
        (MountFlags::SYNCHRONOUS, ",sync"),
        (MountFlags::DIRSYNC, ",dirsync"),
        (MountFlags::NOSYMFOLLOW, ",nosymfollow"),
    ];
    for (_, name) in names
        .iter()
        .filter(|(flag, _)| options.flags.contains(*flag))
    {
        list.push(name);
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mountpoint_must_be_a_directory_apart_from_the_ciphertext() {
        let folder = tempfile::tempdir().unwrap();
        let ciphertext = folder.path().join("c");
        std::fs::create_dir_all(ciphertext.join("inside")).unwrap();
        std::fs::write(folder.path().join("file"), "").unwrap();
        let check = |name: &str| Place::check(&folder.path().join(name), &ciphertext);
        assert!(matches!(check("missing"), Err(MountError::Missing(_))));
        assert!(matches!(check("file"), Err(MountError::NotADirectory(_))));
        assert!(matches!(check("c"), Err(MountError::Overlap { .. })));
        assert!(matches!(check("c/inside"), Err(MountError::Overlap { .. })));
        assert!(matches!(check("."), Err(MountError::Overlap { .. })));
        std::fs::create_dir(folder.path().join("c2")).unwrap();
        assert!(check("c2").is_ok());
    }

    #[test]
    fn the_helper_is_told_flags_and_an_escaped_source() {
        let options: MountOptions = "ro,noexec,noatime,allow_other".parse().unwrap();
        let list = helper_options(OsStr::new("/a,b"), &options);
        assert_eq!(
            list,
            r"subtype=cmkfs,default_permissions,fsname=/a\,b,allow_other,ro,noexec,noatime"
        );
    }
}
