//! What a mount does not do to whoever attacks it: from the backing directory, through the control socket, with a key
//! directory or volume made to hurt, or with a look into its memory. Every mount here is real.
//!
//! `CMKFS_SECURITY_SECONDS` (2): how long the swapping threads of `escape` go on.

#[path = "../common/mod.rs"]
mod common;

mod confinement;
mod control;
mod escape;
mod hostile;
mod memory;

use std::process::Output;
use std::time::{Duration, Instant};

use common::Volume;

/// `nobody`, whom every machine has: fusermount3 asks for his name.
pub const USER: (u32, u32) = (65534, 65534);

/// A volume of an ordinary user, mounted.
pub fn of_user() -> Volume {
    let volume = Volume::bare(Some(USER));
    volume.succeed(&["init", "CIPHERDIR"]);
    std::fs::create_dir(volume.mountpoint()).unwrap();
    std::os::unix::fs::chown(volume.mountpoint(), Some(USER.0), Some(USER.1)).unwrap();
    volume.mount(&[]);
    volume
}

/// A line of `/proc/PID/status`, without its name.
pub fn status_of(task: &str, name: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{task}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(&format!("{name}:")));
    line.unwrap_or_default().trim().to_owned()
}

/// Runs cmkfs with little memory and little time; it must end by itself, and say something where it fails.
pub fn bounded(volume: &Volume, arguments: &[&str]) -> Output {
    let inner = volume.command(arguments);
    let mut command = volume.program("timeout");
    command.args(["20", "sh", "-c", "ulimit -v 2000000; exec \"$@\"", "sh"]);
    command.arg(inner.get_program()).args(inner.get_args());
    let start = Instant::now();
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let code = output.status.code();
    assert!(
        !matches!(code, None | Some(101 | 124 | 134 | 137 | 139)),
        "cmkfs {arguments:?}: {} after {:?}: {said}",
        output.status,
        start.elapsed()
    );
    assert!(
        output.status.success() || said.contains("cmkfs") || said.contains("error"),
        "cmkfs {arguments:?} failed without a word"
    );
    output
}

/// How long attacks go on.
pub fn seconds() -> Duration {
    let set = std::env::var("CMKFS_SECURITY_SECONDS").ok();
    Duration::from_secs(set.and_then(|set| set.parse().ok()).unwrap_or(2))
}
