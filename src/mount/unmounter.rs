//! A second, small process beside each mount, that keeps what unmounting takes when the first one has given it up: the right
//! to call umount2(2), or to start `fusermount3`. It has no keys, hears one word from the mount's process, unmounts that one
//! mount and no other, and ends when the mount's process does, however that ends.

use std::ffi::OsString;
use std::io::{self, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::control::protocol;
use super::error::MountError;
use super::holders::Process;
use super::mountpoint;

/// The subcommand under which this program is the second process.
pub const COMMAND: &str = "unmounter";
const UNMOUNT: u8 = b'u';
const DETACH: u8 = b'l';
/// Longest answer, in bytes: every program that holds a mount busy has a few.
const ANSWER_MAX: usize = 1 << 20;

/// What became of it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "Result", rename_all_fields = "PascalCase")]
enum Answer {
    Done,
    Busy { holders: Vec<(u32, String)> },
    Failed { message: String },
}

struct Line {
    // Closed to end it.
    ask: Option<ChildStdin>,
    hear: BufReader<ChildStdout>,
    process: Child,
}

/// The mount's side.
pub(super) struct Unmounter(Mutex<Line>);

impl std::fmt::Debug for Unmounter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Unmounter")
    }
}

impl Unmounter {
    /// Starts the second process for the mount with this device at `path`.
    pub(super) fn start(path: &Path, device: (u32, u32)) -> Result<Self, MountError> {
        let name = std::env::args_os()
            .next()
            .unwrap_or_else(|| OsString::from("cmkfs"));
        let start = || {
            let mut process = Command::new("/proc/self/exe")
                .arg0(name)
                .arg(COMMAND)
                .arg(path)
                .args([device.0.to_string(), device.1.to_string()])
                // Ctrl-C is for the mount's process, which asks for what it needs then.
                .process_group(0)
                .current_dir("/")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()?;
            let ask = process.stdin.take();
            let no_pipe = || io::Error::other("it has no pipes");
            let hear = BufReader::new(process.stdout.take().ok_or_else(no_pipe)?);
            Ok(Self(Mutex::new(Line { ask, hear, process })))
        };
        start().map_err(MountError::Unmounter)
    }

    /// Has it unmount.
    pub(super) fn unmount(&self, path: &Path, lazy: bool) -> Result<(), MountError> {
        let mut line = self.0.lock();
        let word = [if lazy { DETACH } else { UNMOUNT }];
        let asked = line.ask.as_mut().map_or(Ok(()), |ask| ask.write_all(&word));
        let answer = asked.and_then(|()| protocol::receive(&mut line.hear, ANSWER_MAX));
        match answer.map_err(MountError::Unmounter)? {
            Some(Answer::Done) => Ok(()),
            Some(Answer::Busy { holders }) => Err(MountError::Busy {
                mountpoint: path.to_owned(),
                holders: holders
                    .into_iter()
                    .map(|(pid, command)| Process { pid, command })
                    .collect(),
            }),
            Some(Answer::Failed { message }) => {
                Err(MountError::Unmounter(io::Error::other(message)))
            }
            None => Err(MountError::Unmounter(io::Error::other("it has ended"))),
        }
    }
}

impl Drop for Unmounter {
    fn drop(&mut self) {
        let line = self.0.get_mut();
        drop(line.ask.take());
        // There is nobody to tell where it cannot be waited for.
        let _ = line.process.wait();
    }
}

/// The second process: unmounts when asked, until the first one has ended.
///
/// # Errors
/// Where the other process cannot be heard or answered.
pub fn serve(path: &Path, device: (u32, u32)) -> io::Result<()> {
    // Whoever ends all processes of a service means the mount's, and that one needs this one to end well.
    let ignored = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&ignored))?;
    }
    rustix::thread::set_name(c"cmkfs-unmount")?;
    answer(&mut io::stdin().lock(), &mut io::stdout().lock(), |lazy| {
        mountpoint::unmount(path, device, lazy)
    })
}

fn answer(
    asked: &mut impl Read,
    told: &mut impl Write,
    unmount: impl Fn(bool) -> Result<(), MountError>,
) -> io::Result<()> {
    let mut word = [0];
    loop {
        match asked.read(&mut word) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        let result = match word[0] {
            UNMOUNT => unmount(false),
            DETACH => unmount(true),
            _ => Err(MountError::Unmounter(io::Error::other("no such word"))),
        };
        let answer = match result {
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
        };
        protocol::send(told, &answer)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(asked: &[u8]) -> Vec<Answer> {
        let mut told = Vec::new();
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
        answer(&mut &*asked, &mut told, unmount).unwrap();
        let mut told = &*told;
        std::iter::from_fn(|| protocol::receive(&mut told, ANSWER_MAX).unwrap()).collect()
    }

    #[test]
    fn it_knows_two_words_and_ends_with_whoever_says_them() {
        let holders = vec![(7, "sh".to_owned())];
        assert_eq!(said(b"ul"), [Answer::Busy { holders }, Answer::Done]);
        assert!(matches!(said(b"x")[..], [Answer::Failed { .. }]));
        assert_eq!(said(b""), []);
    }
}
