//! Whether anybody answers for a mount. A process of its own asks: over rings, a question that a stopped daemon has can be
//! taken back by nobody, and whoever asked cannot be killed until the daemon goes on or is gone. So that is never a command
//! that somebody waits for.

use std::io;
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::mountinfo::Mount;
use super::second::{self, Second};

/// The subcommand under which this program is that process.
pub const COMMAND: &str = "probe";

const AGAIN: Duration = Duration::from_millis(1);
const TRIES: u32 = 10_000;

/// Whether a mount's process does its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Life {
    /// It does, as far as this user may ask.
    Answers,
    /// It takes longer than anybody wants to wait: stopped, or very busy.
    Silent,
    /// It is gone.
    Dead,
}

#[derive(Debug, Serialize, Deserialize)]
struct Question;

impl Life {
    /// Of a mount, which has so long to answer. What no process serves has nobody who would have to.
    #[must_use]
    pub fn of(mount: &Mount, patience: Duration) -> Self {
        if !mount.is_fuse() {
            return Self::Answers;
        }
        let asked = Second::start(COMMAND, &mount.mountpoint, mount.device)
            .and_then(|second| second.ask_once(Question, patience));
        asked.unwrap_or_else(|error| {
            let mountpoint = mount.mountpoint.display();
            match error.kind() {
                io::ErrorKind::TimedOut => log::debug!("{mountpoint} does not answer"),
                _ => log::warn!("cannot find out whether {mountpoint} answers: {error}"),
            }
            Self::Silent
        })
    }
}

/// The process that asks.
///
/// # Errors
/// Where the other process cannot be heard or answered.
pub fn serve(mountpoint: &Path) -> io::Result<()> {
    second::serve(|Question| {
        for _ in 0..TRIES {
            // Unlike stat(2), statfs(2) is never answered from the kernel's cache.
            match rustix::fs::statfs(mountpoint) {
                Err(Errno::NOTCONN | Errno::CONNABORTED) => return Life::Dead,
                // A ring went with the request in it: its process is about to be gone.
                Err(Errno::CANCELED) => std::thread::sleep(AGAIN),
                _ => return Life::Answers,
            }
        }
        Life::Silent
    })
}
