//! Who holds a mount busy, and which process serves one: read from `/proc`, as far as this user may.

use std::fs;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, StatxFlags, makedev, statx};

/// A process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// The name of its command.
    pub command: String,
}

impl std::fmt::Display for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (process {})", self.command, self.pid)
    }
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn named(pid: u32) -> Process {
    let command = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let command = command.trim_end();
    Process {
        pid,
        command: if command.is_empty() {
            "a program"
        } else {
            command
        }
        .to_owned(),
    }
}

/// Processes that use the filesystem with this device number: working directory, root, open or mapped file. A process of
/// another user is seen only by root.
#[must_use]
pub fn of_device(device: u64) -> Vec<Process> {
    let is_there = |path: &Path| device_of(path) == Some(device);
    let holds = |pid: &u32| {
        let process = Path::new("/proc").join(pid.to_string());
        let any_of = |folder: &str| {
            let entries = fs::read_dir(process.join(folder))
                .into_iter()
                .flatten()
                .flatten();
            entries
                .map(|entry| entry.path())
                .any(|path| is_there(&path))
        };
        is_there(&process.join("cwd"))
            || is_there(&process.join("root"))
            || any_of("fd")
            || maps(&process, device)
    };
    processes().filter(holds).map(named).collect()
}

/// The device a path leads to, as far as the kernel knows without asking a daemon, which may be stopped or dead.
fn device_of(path: &Path) -> Option<u64> {
    let found = statx(CWD, path, AtFlags::STATX_DONT_SYNC, StatxFlags::empty()).ok()?;
    Some(makedev(found.stx_dev_major, found.stx_dev_minor))
}

/// Lines of maps: range, permissions, offset, major:minor in hexadecimal, inode, path.
fn maps(process: &Path, device: u64) -> bool {
    let wanted = format!(
        "{:02x}:{:02x}",
        rustix::fs::major(device),
        rustix::fs::minor(device)
    );
    let maps = fs::read(process.join("maps")).unwrap_or_default();
    String::from_utf8_lossy(&maps)
        .lines()
        .any(|line| line.split_ascii_whitespace().nth(3) == Some(&wanted))
}

/// The name of the thread that stands for a mount: so everybody can tell which process serves it, where only root may look
/// at the process's descriptors. At most fifteen bytes long, as the kernel keeps it.
#[must_use]
pub fn thread_name(device_minor: u32) -> String {
    format!("cmkfs-fs{device_minor}")
}

/// The process of this user that serves the mount with this device's minor number.
#[must_use]
pub fn of_mount(device_minor: u32, user: u32) -> Option<u32> {
    let name = thread_name(device_minor) + "\n";
    let is_users = |pid: &u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        // Real, effective, saved, filesystem. The first is whom fusermount3 mounts for.
        let uids = status.lines().find_map(|line| line.strip_prefix("Uid:"));
        uids.and_then(|uids| uids.split_ascii_whitespace().next()?.parse().ok()) == Some(user)
    };
    let serves = |pid: &u32| {
        let threads = fs::read_dir(format!("/proc/{pid}/task"));
        let mut threads = threads.into_iter().flatten().flatten();
        threads.any(|thread| {
            fs::read_to_string(thread.path().join("comm")).is_ok_and(|comm| comm == name)
        })
    };
    // The kernel gives a number out again as soon as a mount is gone, which its process learns a moment later.
    let all = processes().filter(|pid| serves(pid) && is_users(pid));
    all.max_by_key(|pid| started(*pid))
}

/// When a process was started, in clock ticks since boot: field 22 of proc_pid_stat(5), the 20th after the name.
fn started(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_process_is_found_by_its_working_directory() {
        let here = fs::metadata(".").unwrap().dev();
        assert!(
            of_device(here)
                .iter()
                .any(|process| process.pid == std::process::id())
        );
    }

    #[test]
    fn the_process_of_a_mount_is_found_by_its_thread_and_user() {
        let name = thread_name(u32::MAX >> 12);
        assert!(name.len() <= 15);
        let user = rustix::process::getuid().as_raw();
        let (wake, woken) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::Builder::new()
            .name(name)
            .spawn(move || woken.recv());
        let thread = thread.unwrap();
        let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while of_mount(u32::MAX >> 12, user) != Some(std::process::id()) {
            assert!(std::time::Instant::now() < until);
        }
        assert_eq!(of_mount(u32::MAX >> 12, user + 1), None);
        // Of two, the one that was started last.
        let script = format!(
            "echo {} > /proc/$$/comm; read end",
            thread_name(u32::MAX >> 12)
        );
        let mut later = std::process::Command::new("sh")
            .args(["-c", &script])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        while of_mount(u32::MAX >> 12, user) != Some(later.id()) {
            assert!(std::time::Instant::now() < until);
        }
        drop(later.stdin.take());
        later.wait().unwrap();
        assert_eq!(of_mount(u32::MAX >> 12, user), Some(std::process::id()));
        wake.send(()).unwrap();
        thread.join().unwrap().unwrap();
    }
}
