//! The second process that asks the mount itself for something: were it a thread of the mount's process, a kill could catch
//! it waiting for an answer that nobody gives any more, in a way that no signal ends. The thread would never die, and with
//! it the process would keep the session's descriptor: so the kernel would never end the connection, and everybody on the
//! mount would wait for ever.
//!
//! What it does: has the kernel send its dirty pages, marks the ends of the queues behind them (`session::writeback` knows
//! what that is good for), and asks for the root. Between questions it has nothing of the mount open.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags, makedev};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde::{Deserialize, Serialize};

use super::error::MountError;
use super::second::{self, Second};

/// The subcommand under which this program is the second process.
pub const COMMAND: &str = "syncer";
/// How long dirty pages may take to be sent: all of a large memory may be dirty, and the disk behind the ciphertext slow.
const SYNC: Duration = Duration::from_secs(600);
/// How long a fresh mount may take to answer.
const PROBE: Duration = Duration::from_secs(60);
/// The processors that are there, as `0-3,8`.
const ONLINE: &str = "/sys/devices/system/cpu/online";

/// What it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Question {
    Sync,
    Probe,
}

/// How many marks were made, or what went wrong.
type Answer = Result<u32, String>;

/// The mount's side.
#[derive(Debug)]
pub(super) struct Syncer(Second);

impl Syncer {
    /// Starts the second process for the mount with this device at `path`.
    pub(super) fn start(path: &Path, device: (u32, u32)) -> Result<Self, MountError> {
        let second = Second::start(COMMAND, path, device);
        second.map(Self).map_err(MountError::Syncer)
    }

    /// The process that opens the directories whose closing marks the ends of the queues.
    pub(super) const fn id(&self) -> u32 {
        self.0.id()
    }

    /// Has the kernel send its dirty pages and marks the ends of its queues. Returns when both are done, not when the
    /// writes are answered or the marks have come; says how many of these there are.
    ///
    /// # Errors
    /// [`io::ErrorKind::BrokenPipe`] where the process is gone, and what it says of the mount.
    pub(super) fn sync(&self) -> io::Result<u32> {
        self.ask(Question::Sync, SYNC)
    }

    /// Asks the mount for its root, which goes through the kernel to the session and back.
    ///
    /// # Errors
    /// What comes instead of an answer.
    pub(super) fn probe(&self) -> io::Result<()> {
        self.ask(Question::Probe, PROBE).map(drop)
    }

    fn ask(&self, question: Question, patience: Duration) -> io::Result<u32> {
        let answer: Answer = self.0.ask(question, patience)?;
        answer.map_err(io::Error::other)
    }
}

/// The second process: asks the mount when it is asked to, until the first one has ended.
///
/// # Errors
/// Where the other process cannot be heard or answered.
pub fn serve(path: &Path, device: (u32, u32)) -> io::Result<()> {
    second::prepare(c"cmkfs-sync")?;
    second::serve(|question| -> Answer {
        match question {
            Question::Sync => sync(path, device),
            Question::Probe => probe(path, device).map(|()| 0),
        }
        .map_err(|error| error.to_string())
    })
}

fn sync(path: &Path, device: (u32, u32)) -> io::Result<u32> {
    let root = open(rustix::fs::CWD, path)?;
    if rustix::fs::fstat(&root)?.st_dev != makedev(device.0, device.1) {
        return Err(covered());
    }
    rustix::fs::syncfs(&root)?;
    // Requests may wait in a queue of the processor that they came from, so each one's is marked.
    let before = sched_getaffinity(None)?;
    // The root is closed last, and is a mark as well.
    let mut marks = 1;
    for processor in processors(&fs::read_to_string(ONLINE).unwrap_or_default()) {
        let mut only = CpuSet::new();
        only.set(processor);
        // It may have gone offline, or not be for this process.
        if sched_setaffinity(None, &only).is_ok() {
            drop(open(&root, Path::new("."))?);
            marks += 1;
        }
    }
    if let Err(error) = sched_setaffinity(None, &before) {
        log::debug!("the second process stays on one processor: {error}");
    }
    Ok(marks)
}

/// Short-lived: while it is open, umount(8) finds the mount busy.
fn open(from: impl rustix::fd::AsFd, path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Ok(rustix::fs::openat(from, path, flags, Mode::empty())?)
}

fn probe(path: &Path, device: (u32, u32)) -> io::Result<()> {
    rustix::fs::statfs(path)?;
    if fs::metadata(path)?.dev() == makedev(device.0, device.1) {
        Ok(())
    } else {
        Err(covered())
    }
}

fn covered() -> io::Error {
    io::Error::other("another filesystem is mounted over the mountpoint")
}

/// The processors of a list as the kernel writes it, as far as a set can hold them.
fn processors(list: &str) -> Vec<usize> {
    let range = |text: &str| {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        Some(first.parse().ok()?..=last.parse::<usize>().ok()?)
    };
    let ranges = list.trim().split(',').filter_map(range);
    ranges
        .flatten()
        .take_while(|processor| *processor < CpuSet::MAX_CPU)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_processors_are_read_as_the_kernel_writes_them() {
        assert_eq!(processors("0-1\n"), [0, 1]);
        assert_eq!(processors("0,2-4,7\n"), [0, 2, 3, 4, 7]);
        assert!(processors("").is_empty());
        assert_eq!(processors("0-99999999999\n").len(), CpuSet::MAX_CPU);
        assert!(!processors(&fs::read_to_string(ONLINE).unwrap()).is_empty());
    }

    #[test]
    fn each_processor_is_marked_once_and_the_root_besides() {
        let folder = tempfile::tempdir().unwrap();
        let device = fs::metadata(folder.path()).unwrap().dev();
        let device = (rustix::fs::major(device), rustix::fs::minor(device));
        let before = sched_getaffinity(None).unwrap();
        let marks = sync(folder.path(), device).unwrap();
        assert!(marks > before.count(), "{marks}");
        assert_eq!(sched_getaffinity(None).unwrap(), before);
        assert!(sync(folder.path(), (device.0, device.1 + 1)).is_err());
    }
}
