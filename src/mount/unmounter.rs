//! The second process that keeps what unmounting takes when the mount's own has given it up: the right to call umount2(2),
//! or to start `fusermount3`. It unmounts that one mount and no other. And where the mount's process is killed and cannot
//! die, it ends the connection ([`super::aborter`]).

use std::io;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::aborter;
use super::error::MountError;
use super::holders::Process;
use super::mountpoint;
use super::second::{self, Second};

/// The subcommand under which this program is the second process.
pub const COMMAND: &str = "unmounter";
/// How long unmounting may take: dirty pages are written first.
const PATIENCE: Duration = Duration::from_secs(3600);

/// What it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Question {
    Unmount,
    Detach,
}

/// What became of it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "Result", rename_all_fields = "PascalCase")]
enum Answer {
    Done,
    Busy { holders: Vec<(u32, String)> },
    Failed { message: String },
}

/// The mount's side.
#[derive(Debug)]
pub(super) struct Unmounter(Second);

impl Unmounter {
    /// Starts the second process for the mount with this device at `path`.
    pub(super) fn start(path: &Path, device: (u32, u32)) -> Result<Self, MountError> {
        let second = Second::start(COMMAND, path, device);
        second.map(Self).map_err(MountError::Unmounter)
    }

    /// Has it unmount.
    pub(super) fn unmount(&self, path: &Path, lazy: bool) -> Result<(), MountError> {
        let question = if lazy {
            Question::Detach
        } else {
            Question::Unmount
        };
        let answer = self.0.ask(question, PATIENCE);
        match answer.map_err(MountError::Unmounter)? {
            Answer::Done => Ok(()),
            Answer::Busy { holders } => Err(MountError::Busy {
                mountpoint: path.to_owned(),
                holders: holders
                    .into_iter()
                    .map(|(pid, command)| Process { pid, command })
                    .collect(),
            }),
            Answer::Failed { message } => Err(MountError::Unmounter(io::Error::other(message))),
        }
    }
}

/// The second process: unmounts when asked, until the first one has ended.
///
/// # Errors
/// Where the other process cannot be heard or answered.
pub fn serve(path: &Path, device: (u32, u32), daemon: u32) -> io::Result<()> {
    second::prepare(c"cmkfs-unmount")?;
    aborter::watch(path, device, daemon)?;
    second::serve(|question| answer(question, |lazy| mountpoint::unmount(path, device, lazy)))
}

fn answer(question: Question, unmount: impl Fn(bool) -> Result<(), MountError>) -> Answer {
    match unmount(question == Question::Detach) {
        Ok(()) => Answer::Done,
        Err(MountError::Busy { holders, .. }) => Answer::Busy {
            holders: holders
                .into_iter()
                .map(|holder| (holder.pid, holder.command))
                .collect(),
        },
        Err(error) => Answer::Failed {
            message: error.to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_who_holds_the_mount() {
        let unmount = |lazy| {
            if lazy {
                return Ok(());
            }
            Err(MountError::Busy {
                mountpoint: "/m".into(),
                holders: vec![Process {
                    pid: 7,
                    command: "sh".to_owned(),
                }],
            })
        };
        let holders = vec![(7, "sh".to_owned())];
        assert_eq!(answer(Question::Unmount, unmount), Answer::Busy { holders });
        assert_eq!(answer(Question::Detach, unmount), Answer::Done);
        let failed = answer(Question::Detach, |_| {
            Err(MountError::NotMounted("/m".into()))
        });
        assert!(matches!(failed, Answer::Failed { .. }));
    }
}
