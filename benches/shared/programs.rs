//! Running the programs that make up a workload: each has a deadline, and says what it complained of when it fails.

use std::ffi::OsStr;
use std::io;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, LazyLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// What went wrong, in words for the table.
pub type Outcome<T> = Result<T, String>;

/// How long one program may take before its contender has failed.
const DEADLINE: Duration = Duration::from_secs(180);
/// How soon a running program is ended once a signal has come.
const GLANCE: Duration = Duration::from_millis(200);

static STOPPED: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// From now on Ctrl-C and its kin do not end the process: they are asked for by [`stopped`], so that everything is
/// unmounted on the way out.
pub fn catch_signals() -> io::Result<()> {
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&STOPPED))?;
    }
    Ok(())
}

/// Whether a signal has come.
pub fn stopped() -> bool {
    STOPPED.load(Ordering::Relaxed)
}

/// A program whose output goes nowhere, free of the caller's settings.
pub fn program(name: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(name);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command.env("LC_ALL", "C").env("GIT_CONFIG_NOSYSTEM", "1");
    command.env("GIT_CONFIG_GLOBAL", "/dev/null");
    command
}

/// Runs it to its end, which must be a good one. How long it took, and what it printed.
pub fn run(command: &mut Command) -> Outcome<(Duration, Vec<u8>)> {
    let name = command.get_program().to_string_lossy().into_owned();
    let name = name.rsplit('/').next().unwrap_or_default().to_owned();
    let start = Instant::now();
    let child = command.stderr(Stdio::piped()).spawn();
    let child = child.map_err(|error| unable(&name, &error))?;
    let alarm = Alarm::set(&child).map_err(|error| format!("{name}: {error}"))?;
    let output = child.wait_with_output();
    let took = start.elapsed();
    let rang = alarm.cancel();
    let output = output.map_err(|error| format!("{name}: {error}"))?;
    if rang && !stopped() {
        return Err(format!("{name}: not done after {} s", DEADLINE.as_secs()));
    }
    if output.status.success() {
        Ok((took, output.stdout))
    } else {
        Err(complaint(&name, &output))
    }
}

/// Why a program could not be started.
pub fn unable(name: &str, error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::NotFound {
        format!("{name} is not installed")
    } else {
        format!("{name}: {error}")
    }
}

/// The last line that says something.
pub fn last_line(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let mut lines = text.lines().map(str::trim).rev();
    let line = lines.find(|line| !line.is_empty()).unwrap_or_default();
    line.chars().filter(|c| !c.is_control()).take(200).collect()
}

fn complaint(name: &str, output: &Output) -> String {
    let said = last_line(&output.stderr);
    let said = if said.is_empty() {
        last_line(&output.stdout)
    } else {
        said
    };
    format!("{name}: {said} ({})", output.status)
}

/// Kills a child at its deadline, or when a signal has come.
struct Alarm {
    cancelled: Sender<()>,
    watcher: JoinHandle<bool>,
}

impl Alarm {
    fn set(child: &Child) -> io::Result<Self> {
        let pid = Pid::from_child(child);
        let process = pidfd_open(pid, PidfdFlags::empty())?;
        let (cancelled, cancellation) = channel();
        let deadline = Instant::now() + DEADLINE;
        let watcher = std::thread::spawn(move || {
            while cancellation.recv_timeout(GLANCE).is_err() {
                if stopped() || Instant::now() > deadline {
                    // Where it is gone already there is nothing to kill.
                    let _ = pidfd_send_signal(&process, Signal::KILL);
                    return true;
                }
            }
            false
        });
        Ok(Self { cancelled, watcher })
    }

    /// Whether it rang.
    fn cancel(self) -> bool {
        // It is gone if it rang.
        let _ = self.cancelled.send(());
        self.watcher.join().unwrap_or(true)
    }
}
