//! Who holds a mount busy, and which process serves one: read from `/proc`, as far as this user may.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

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
    let is_there = |path: &Path| fs::metadata(path).is_ok_and(|found| found.dev() == device);
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

/// The process that serves the FUSE connection of this device's minor number (Linux 5.19 or newer; a process of another
/// user is seen only by root).
#[must_use]
pub fn of_connection(minor: u32) -> Option<u32> {
    let serves = |pid: &u32| {
        let entries = fs::read_dir(format!("/proc/{pid}/fdinfo"))
            .into_iter()
            .flatten()
            .flatten();
        entries
            .filter_map(|entry| fs::read_to_string(entry.path()).ok())
            .any(|info| {
                let connection = info
                    .lines()
                    .find_map(|line| line.strip_prefix("fuse_connection:"));
                connection.and_then(|number| number.trim().parse().ok()) == Some(minor)
            })
    };
    processes().find(serves)
}

#[cfg(test)]
mod tests {
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
}
