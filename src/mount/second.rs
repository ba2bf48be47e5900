//! A second, small process beside a mount's own, which does for it what that one must not or cannot do itself: started
//! before the mount's process gives up what it takes to start any, asked line by line through a pipe, and gone when that
//! pipe ends, however the mount's process does. It has no keys, and no descriptor of the mount's session: while anybody has
//! one, the kernel takes the mount for alive. A command starts one as well, for a single question (`liveness`).

use std::ffi::OsString;
use std::io::{self, BufRead, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::control::protocol;

/// Longest line, in bytes: every program that holds a mount busy has a few.
const LINE_MAX: usize = 1 << 20;
/// How long one may take to end that was told to.
const END: Duration = Duration::from_secs(5);
/// How long one may take that was killed. It may be waiting for a mount that does not answer, and then it takes longer.
const KILLED: Duration = Duration::from_millis(50);
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// A question or an answer. The number tells an answer from one that came too late for the question before.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Numbered<T> {
    number: u64,
    said: T,
}

struct Line {
    // Closed to end it.
    ask: Option<ChildStdin>,
    hear: ChildStdout,
    /// What came since the last whole line.
    heard: Vec<u8>,
    number: u64,
    process: Child,
    /// How long it may take to end when it is told to.
    end: Duration,
}

/// The mount's side.
pub(super) struct Second(Mutex<Line>, u32);

impl std::fmt::Debug for Second {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Second").field(&self.1).finish()
    }
}

impl Second {
    /// Starts this program under a hidden subcommand, for the mount with this device at `path`.
    pub(super) fn start(command: &str, path: &Path, device: (u32, u32)) -> io::Result<Self> {
        let name = std::env::args_os()
            .next()
            .unwrap_or_else(|| OsString::from("cmkfs"));
        let mut program = Command::new("/proc/self/exe");
        program
            .arg0(name)
            .arg(command)
            .arg(path)
            .args([device.0.to_string(), device.1.to_string()])
            .arg(std::process::id().to_string());
        Self::run(&mut program)
    }

    fn run(program: &mut Command) -> io::Result<Self> {
        let mut process = program
            // Ctrl-C is for the mount's process, which asks for what it needs then.
            .process_group(0)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let no_pipe = || io::Error::other("it has no pipes");
        let ask = process.stdin.take().ok_or_else(no_pipe)?;
        let hear = process.stdout.take().ok_or_else(no_pipe)?;
        // Of this process's ends alone: nothing is waited for that has no deadline.
        fcntl_setfl(&ask, fcntl_getfl(&ask)? | OFlags::NONBLOCK)?;
        fcntl_setfl(&hear, fcntl_getfl(&hear)? | OFlags::NONBLOCK)?;
        let id = process.id();
        let line = Line {
            ask: Some(ask),
            hear,
            heard: Vec::new(),
            number: 0,
            process,
            end: END,
        };
        Ok(Self(Mutex::new(line), id))
    }

    /// Its process id.
    pub(super) const fn id(&self) -> u32 {
        self.1
    }

    /// Has it answer one question and end. Where no answer comes in time it is left behind: it may be waiting for something that
    /// nothing takes it from.
    ///
    /// # Errors
    /// As [`Second::ask`].
    pub(super) fn ask_once<A: DeserializeOwned>(
        mut self,
        question: impl Serialize,
        patience: Duration,
    ) -> io::Result<A> {
        self.ask(question, patience).inspect_err(|_| {
            let line = self.0.get_mut();
            line.end = KILLED;
            // It may have ended.
            let _ = line.process.kill();
        })
    }

    /// Has it answer a question. One is answered at a time.
    ///
    /// # Errors
    /// [`io::ErrorKind::TimedOut`] where no answer comes in time, [`io::ErrorKind::BrokenPipe`] where it has ended.
    pub(super) fn ask<A: DeserializeOwned>(
        &self,
        question: impl Serialize,
        patience: Duration,
    ) -> io::Result<A> {
        let until = Instant::now() + patience;
        let line = &mut *self.0.lock();
        line.number += 1;
        let asked = Numbered {
            number: line.number,
            said: question,
        };
        match &mut line.ask {
            Some(ask) => protocol::send(ask, &asked)?,
            None => return Err(ended()),
        }
        loop {
            let answer = line.hear(until)?;
            let answer: Option<Numbered<A>> = protocol::receive(&mut &*answer, LINE_MAX)?;
            let answer = answer.ok_or_else(ended)?;
            if answer.number == asked.number {
                return Ok(answer.said);
            }
        }
    }
}

impl Line {
    /// The next whole line.
    fn hear(&mut self, until: Instant) -> io::Result<Vec<u8>> {
        let mut searched = 0;
        loop {
            let end = self.heard.iter().skip(searched).position(|b| *b == b'\n');
            if let Some(end) = end {
                return Ok(self.heard.drain(..=searched + end).collect());
            }
            searched = self.heard.len();
            if searched >= LINE_MAX {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let left = until.saturating_duration_since(Instant::now());
            let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
            let mut polled = [PollFd::new(&self.hear, PollFlags::IN)];
            match rustix::event::poll(&mut polled, Some(&timeout)) {
                Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            let mut more = [0; 4096];
            match self.hear.read(&mut more) {
                Ok(0) => return Err(ended()),
                Ok(length) => self.heard.extend(more.iter().take(length)),
                Err(error) if is_passing(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        let line = self.0.get_mut();
        drop(line.ask.take());
        let until = Instant::now() + line.end;
        // It goes when the mount's process does where it cannot be waited for: there is nobody to tell.
        while matches!(line.process.try_wait(), Ok(None)) && Instant::now() < until {
            std::thread::sleep(LOOK_AGAIN);
        }
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

fn ended() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "it has ended")
}

/// In the second process, first: it is not ended by what ends the mount's, which needs it to end well.
pub(super) fn prepare(name: &std::ffi::CStr) -> io::Result<()> {
    let ignored = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&ignored))?;
    }
    Ok(rustix::thread::set_name(name)?)
}

/// In the second process: answers on standard output what is asked on standard input, until the other side has ended.
pub(super) fn serve<Q: DeserializeOwned, A: Serialize>(answer: impl Fn(Q) -> A) -> io::Result<()> {
    answer_all(&mut io::stdin().lock(), &mut io::stdout().lock(), answer)
}

/// The same, wherever questions come from and answers go.
pub(super) fn answer_all<Q: DeserializeOwned, A: Serialize>(
    asked: &mut impl BufRead,
    told: &mut impl Write,
    answer: impl Fn(Q) -> A,
) -> io::Result<()> {
    while let Some(Numbered { number, said }) = protocol::receive(asked, LINE_MAX)? {
        let said = answer(said);
        protocol::send(told, &Numbered { number, said })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn shell(script: &str) -> Second {
        Second::run(Command::new("sh").args(["-c", script])).unwrap()
    }

    #[test]
    fn it_answers_each_question_and_ends_with_whoever_asks() {
        let mut told = Vec::new();
        let asked = b"{\"Number\":7,\"Said\":2}\n{\"Number\":9,\"Said\":3}\n";
        answer_all(&mut &asked[..], &mut told, |n: u32| n * n).unwrap();
        let said = b"{\"Number\":7,\"Said\":4}\n{\"Number\":9,\"Said\":9}\n";
        assert_eq!(told, said);
        let no_question = answer_all(&mut &b"x\n"[..], &mut told, |n: u32| n);
        assert_eq!(no_question.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn an_answer_that_comes_too_late_is_not_taken_for_the_next_one() {
        let second = shell(
            "read first; read second; echo '{\"Number\":1,\"Said\":10}'; echo '{\"Number\":2,\"Said\":20}'; read end",
        );
        let late: io::Result<u32> = second.ask("one", Duration::from_millis(10));
        assert_eq!(late.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(second.ask::<u32>("two", LONG).unwrap(), 20);
    }

    #[test]
    fn one_that_has_died_is_an_error_and_no_hang() {
        let second = shell("read question; printf '{\"Number\"'");
        let answer: io::Result<u32> = second.ask("one", LONG);
        assert_eq!(answer.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        drop(second);
        let second = shell("exec kill -9 $$");
        let answer: io::Result<u32> = second.ask("one", LONG);
        assert_eq!(answer.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
