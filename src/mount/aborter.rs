//! Ends the connection of a mount whose process was killed and cannot die. The kernel ends it by itself when the last
//! descriptor of the session is closed, so when the last thread is dead. A thread that waits in the kernel for an answer of
//! its own mount, as telling the kernel to drop a page does that is being read, never dies, because nobody is left to
//! answer: everybody who uses the mount would wait with it, out of reach of every signal.
//!
//! So another process looks every second whether the mount's main thread is dead, which waits for nothing that comes from
//! the mount. (The kernel could tell it, by `PR_SET_PDEATHSIG`; but that signal counts as sent by who dies, and Landlock
//! keeps a mount's process from sending any.) It gives the other threads a moment, and then aborts the connection: by
//! umount2(2) with `MNT_FORCE`, which aborts before it looks whether the mount is in use, and finds that it is, so that the
//! dead mount stays as it does after every kill; or, where that is not allowed, through the file that the kernel has for it
//! (fusectl), which belongs to whoever mounted.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags};
use rustix::mount::UnmountFlags;
use rustix::process::getppid;

/// How often it is looked, and tried again while the killed process is still there.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long a killed process may take to be gone: usually milliseconds.
const GRACE: Duration = Duration::from_millis(300);
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// Where the kernel's files for FUSE connections are, if anybody has mounted them.
const CONNECTIONS: &str = "/sys/fs/fuse/connections";

/// The process that is watched: the one that started this.
#[derive(Debug, Clone, Copy)]
struct Daemon(u32);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Alive,
    /// Its main thread is dead, others are not.
    Dying,
    Gone,
}

impl Daemon {
    fn state(self) -> State {
        // Children of a process are its own until its last thread is dead.
        let parent = getppid().map_or(0, |parent| parent.as_raw_pid().cast_unsigned());
        if parent != self.0 {
            return State::Gone;
        }
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0)).unwrap_or_default();
        match stat.rsplit_once(") ") {
            Some((_, rest)) if rest.starts_with(['Z', 'X']) => State::Dying,
            _ => State::Alive,
        }
    }

    /// Waits until it is not as it was.
    fn leaves(self, state: State, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        while self.state() == state {
            if Instant::now() >= until {
                return false;
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        true
    }
}

/// From here on, in a thread of its own: aborts the connection of the mount with this device at `path` if the process that
/// has started this one is killed and does not go.
///
/// # Errors
/// Where no thread can be started.
pub(super) fn watch(path: &Path, device: (u32, u32), daemon: u32) -> io::Result<()> {
    let daemon = Daemon(daemon);
    let path = path.to_owned();
    let watch = move || {
        while daemon.state() != State::Gone {
            if daemon.state() == State::Dying && !daemon.leaves(State::Dying, GRACE) {
                // Nobody is left to tell where it cannot be done.
                let _ = abort(&path, device, daemon);
            }
            std::thread::sleep(INTERVAL);
        }
    };
    // On a thread of its own, because the other may itself be waiting for the mount.
    std::thread::Builder::new()
        .name("cmkfs-abort".to_owned())
        .spawn(watch)
        .map(drop)
}

fn abort(path: &Path, device: (u32, u32), daemon: Daemon) -> io::Result<()> {
    force(path, device, daemon).or_else(|_| {
        let file = PathBuf::from(CONNECTIONS).join(format!("{}/abort", device.1));
        // While it is not gone its device's number cannot be another's.
        if daemon.state() == State::Dying {
            fs::write(file, "1")?;
        }
        Ok(())
    })
}

fn force(path: &Path, device: (u32, u32), daemon: Daemon) -> io::Result<()> {
    // It asks the filesystem for nothing. While it is open the mount is in use, and cannot become another.
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let root = rustix::fs::open(path, flags, Mode::empty())?;
    let known = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let found = rustix::fs::statx(&root, "", known, StatxFlags::empty())?;
    if (found.stx_dev_major, found.stx_dev_minor) != device || daemon.state() != State::Dying {
        return Err(io::Error::other("the mount is not there"));
    }
    let root = format!("/proc/self/fd/{}", root.as_raw_fd());
    match rustix::mount::unmount(root, UnmountFlags::FORCE) {
        Ok(()) | Err(rustix::io::Errno::BUSY) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_is_told_from_one_that_is_gone() {
        let parent = getppid().unwrap().as_raw_pid().cast_unsigned();
        assert_eq!(Daemon(parent).state(), State::Alive);
        assert_eq!(Daemon(u32::MAX).state(), State::Gone);
        assert!(!Daemon(parent).leaves(State::Alive, Duration::ZERO));
        assert!(Daemon(parent).leaves(State::Gone, Duration::ZERO));
    }
}
