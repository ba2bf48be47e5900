//! Where the sockets are: `KEYS/mounts/<boot id>-<process id>-<random>.sock`. A socket is bound under another name, and
//! appears when it listens, so one that refuses a connection is dead for certain if it is of this boot; whoever finds it
//! removes it. One of another boot is either dead or of another host, which looks after its own: it is removed when
//! nobody has touched it for a week.
//!
//! Paths go through `/proc/self/fd`: a socket's address has room for 107 bytes only.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, RenameFlags, Timespec, Timestamps, UTIME_NOW, Uid};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::kms::MOUNTS;

const SUFFIX: &str = ".sock";
/// Length of a boot id in text.
const BOOT_ID: usize = 36;
/// Connections that may wait to be accepted.
const BACKLOG: i32 = 128;
/// A socket of another host that was not touched for so long is taken for dead.
const FORGOTTEN: Duration = Duration::from_secs(7 * 24 * 3600);
/// How often a live socket is touched.
const TOUCH: Duration = Duration::from_secs(3600);

/// A socket that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its path.
    pub path: PathBuf,
    /// The daemon, as its own process namespace numbers it.
    pub process_id: u32,
    is_of_this_boot: bool,
}

/// The sockets of a key directory.
///
/// # Errors
/// Where they cannot be listed. A key directory that never had any has none.
pub fn list(keys: &Path) -> io::Result<Vec<Entry>> {
    let folder = keys.join(MOUNTS);
    let entries = match fs::read_dir(&folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let boot = boot_id()?;
    let mut found = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        let Some((of, process_id)) = name.to_str().and_then(parse) else {
            continue;
        };
        found.push(Entry {
            path: folder.join(&name),
            process_id,
            is_of_this_boot: of == boot,
        });
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

impl Entry {
    /// Connects; `None` where nobody listens there (any more) that this host could reach. What is dead is removed.
    ///
    /// # Errors
    /// Where somebody listens and cannot be reached, within `patience` in any case.
    pub fn connect(&self, patience: Duration) -> io::Result<Option<UnixStream>> {
        let (Some(folder), Some(name)) = (self.path.parent(), self.path.file_name()) else {
            return Ok(None);
        };
        let socket = socket()?;
        // Connecting waits where the backlog is full, as it is when a daemon was stopped.
        set_socket_timeout(&socket, Timeout::Send, Some(patience))?;
        let connected =
            open(folder).and_then(|folder| rustix::net::connect(&socket, &address(&folder, name)?));
        match connected {
            Ok(()) => Ok(Some(socket.into())),
            Err(Errno::NOENT) => Ok(None),
            Err(Errno::CONNREFUSED) => {
                if self.is_dead() {
                    // Somebody else may have found it as well.
                    let _ = fs::remove_file(&self.path);
                }
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn is_dead(&self) -> bool {
        let untouched = || {
            let touched = fs::symlink_metadata(&self.path)?.modified()?;
            Ok::<_, io::Error>(age(touched) > FORGOTTEN)
        };
        self.is_of_this_boot || untouched().unwrap_or(false)
    }
}

/// A socket that listens and can be found; it goes when this is dropped.
#[derive(Debug)]
pub struct Socket {
    keys: PathBuf,
    path: PathBuf,
    inode: (u64, u64),
    owner: u32,
    listener: UnixListener,
}

impl Socket {
    /// Listens in a key directory. Connections wait until somebody accepts them.
    ///
    /// # Errors
    /// Where the socket cannot be made: then no command could reach this mount.
    pub fn bind(keys: &Path) -> io::Result<Self> {
        let folder = keys.join(MOUNTS);
        let owner = fs::metadata(keys)?;
        match fs::DirBuilder::new().mode(0o700).create(&folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let directory = open(&folder)?;
        let give = |name: &CString| give_to(&directory, name, &owner);
        give(&CString::from(c"."))?;
        let name = format!(
            "{}-{}-{}{SUFFIX}",
            boot_id()?,
            std::process::id(),
            uuid::Uuid::new_v4().as_simple()
        );
        let hidden = c_name(&format!(".{name}"))?;
        let visible = c_name(&name)?;
        let socket = socket()?;
        rustix::net::bind(&socket, &address(&directory, format!(".{name}"))?)?;
        let appear = || {
            rustix::net::listen(&socket, BACKLOG)?;
            rustix::fs::chmodat(
                &directory,
                &hidden,
                Mode::RUSR | Mode::WUSR,
                AtFlags::empty(),
            )?;
            give(&hidden)?;
            let flags = RenameFlags::NOREPLACE;
            rustix::fs::renameat_with(&directory, &hidden, &directory, &visible, flags)?;
            rustix::fs::statat(&directory, &visible, AtFlags::SYMLINK_NOFOLLOW)
        };
        let stat = appear().inspect_err(|_| {
            let _ = rustix::fs::unlinkat(&directory, &hidden, AtFlags::empty());
        })?;
        let listener = UnixListener::from(socket);
        listener.set_nonblocking(true)?;
        Ok(Self {
            keys: keys.to_owned(),
            path: folder.join(&name),
            inode: (stat.st_dev, stat.st_ino),
            owner: owner.uid(),
            listener,
        })
    }

    /// What connections are accepted from.
    #[must_use]
    pub const fn listener(&self) -> &UnixListener {
        &self.listener
    }

    /// Who may speak to it besides root and the daemon's own user: the owner of the key directory.
    #[must_use]
    pub const fn owner(&self) -> u32 {
        self.owner
    }

    /// Whether commands still find it: the key directory may have been replaced by a backup of it.
    #[must_use]
    pub fn is_found(&self) -> bool {
        let Ok(metadata) = fs::symlink_metadata(&self.path) else {
            return false;
        };
        if metadata
            .modified()
            .is_ok_and(|touched| age(touched) > TOUCH)
        {
            self.touch();
        }
        self.inode == (metadata.dev(), metadata.ino())
    }

    /// The key directory.
    #[must_use]
    pub fn keys(&self) -> &Path {
        &self.keys
    }

    fn touch(&self) {
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_NOW,
        };
        let times = Timestamps {
            last_access: now,
            last_modification: now,
        };
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        if let Err(error) = rustix::fs::utimensat(rustix::fs::CWD, &self.path, &times, flags) {
            log::debug!("{}: {error}", self.path.display());
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if self.is_found() {
            // What stays refuses connections, and goes with the next command.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn parse(name: &str) -> Option<(&str, u32)> {
    let (boot, rest) = name.strip_suffix(SUFFIX)?.split_at_checked(BOOT_ID)?;
    let (process, random) = rest.strip_prefix('-')?.split_once('-')?;
    if random.is_empty() || boot.starts_with('.') {
        return None;
    }
    Some((boot, process.parse().ok()?))
}

fn boot_id() -> io::Result<String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let id = id.trim().to_owned();
    if id.len() == BOOT_ID {
        Ok(id)
    } else {
        Err(io::Error::other("the kernel's boot id is not a UUID"))
    }
}

fn socket() -> Result<OwnedFd, Errno> {
    rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )
}

fn open(folder: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(folder, flags, Mode::empty())
}

fn address(folder: &OwnedFd, name: impl AsRef<Path>) -> Result<SocketAddrUnix, Errno> {
    let base = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd()));
    SocketAddrUnix::new(base.join(name))
}

/// What root makes in somebody's key directory is theirs: their commands have to reach it.
fn give_to(directory: &OwnedFd, name: &CString, owner: &fs::Metadata) -> Result<(), Errno> {
    if owner.uid() == rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    rustix::fs::chownat(
        directory,
        name,
        Some(Uid::from_raw(owner.uid())),
        Some(Gid::from_raw(owner.gid())),
        AtFlags::SYMLINK_NOFOLLOW,
    )
}

fn c_name(name: &str) -> io::Result<CString> {
    CString::new(name).map_err(io::Error::other)
}

fn age(of: SystemTime) -> Duration {
    SystemTime::now().duration_since(of).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn only(keys: &Path) -> Entry {
        let mut found = list(keys).unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        found.remove(0)
    }

    #[test]
    fn a_socket_is_found_while_it_listens_however_long_the_path_is() {
        let folder = tempfile::tempdir().unwrap();
        let keys = folder.path().join("k".repeat(200));
        fs::create_dir(&keys).unwrap();
        assert!(list(&keys).unwrap().is_empty());
        let socket = Socket::bind(&keys).unwrap();
        assert!(socket.is_found());
        let entry = only(&keys);
        assert_eq!(entry.process_id, std::process::id());
        assert!(entry.connect(PATIENCE).unwrap().is_some());
        drop(socket);
        assert!(list(&keys).unwrap().is_empty());
        assert!(entry.connect(PATIENCE).unwrap().is_none());
    }

    #[test]
    fn only_a_dead_socket_of_this_boot_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let mut socket = Socket::bind(folder.path()).unwrap();
        let entry = only(folder.path());
        // As if its process had been killed: the name stays, nobody listens.
        let path = std::mem::take(&mut socket.path);
        drop(socket);
        let boot = "0".repeat(BOOT_ID);
        let other = folder.path().join(MOUNTS).join(format!("{boot}-1-a.sock"));
        fs::rename(&path, &other).unwrap();
        assert!(only(folder.path()).connect(PATIENCE).unwrap().is_none());
        fs::rename(&other, &path).unwrap();
        assert!(entry.connect(PATIENCE).unwrap().is_none());
        assert!(list(folder.path()).unwrap().is_empty());
    }

    #[test]
    fn a_socket_whose_key_directory_was_replaced_knows_it() {
        let folder = tempfile::tempdir().unwrap();
        let keys = folder.path().join("keys");
        fs::create_dir(&keys).unwrap();
        let socket = Socket::bind(&keys).unwrap();
        fs::rename(&keys, folder.path().join("old")).unwrap();
        assert!(!socket.is_found());
        fs::create_dir(&keys).unwrap();
        assert!(Socket::bind(&keys).unwrap().is_found());
    }

    #[test]
    fn other_names_are_passed_over() {
        let boot = "b".repeat(BOOT_ID);
        assert_eq!(
            parse(&format!("{boot}-12-x.sock")),
            Some((boot.as_str(), 12))
        );
        for name in ["", ".sock", "x.sock", "lost+found"] {
            assert_eq!(parse(name), None);
        }
        for name in [
            format!("{boot}-x-1.sock"),
            format!("{boot}-1.sock"),
            format!(".{boot}-1-1.sock"),
        ] {
            assert_eq!(parse(&name), None);
        }
    }
}
