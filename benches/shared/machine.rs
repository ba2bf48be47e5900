//! The machine: what figures depend on and a reader has to know, how busy it is, and its page cache.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::statfs;

/// statfs(2)'s number of tmpfs.
const TMPFS: i64 = 0x0102_1994;

/// Where the contenders store what they store.
#[derive(Debug)]
pub struct Backing {
    /// Below it each contender has its directories.
    pub path: PathBuf,
    /// Type of the filesystem.
    pub kind: String,
    in_memory: bool,
}

impl Backing {
    /// Of an existing directory.
    pub fn at(path: &Path) -> std::io::Result<Self> {
        let in_memory = statfs(path)?.f_type as i64 == TMPFS;
        let mounts = cmkfs::mount::mountinfo::list()?;
        let path = fs::canonicalize(path)?;
        // Of several at one place the last one counts, and is what this finds.
        let mount = mounts
            .iter()
            .filter(|mount| path.starts_with(&mount.mountpoint))
            .max_by_key(|mount| mount.mountpoint.as_os_str().len());
        let kind = mount.map_or_else(String::new, |mount| mount.filesystem_type.clone());
        Ok(Self {
            path,
            kind,
            in_memory,
        })
    }

    /// Bytes that are free.
    pub fn free(&self) -> std::io::Result<u64> {
        let statfs = rustix::fs::statvfs(&self.path)?;
        Ok(statfs.f_bavail.saturating_mul(statfs.f_frsize))
    }

    /// Whether what is cold is read from the disk, too.
    pub fn can_forget(&self) -> bool {
        self.in_memory || rustix::process::geteuid().is_root()
    }

    /// Writes what is dirty and drops the page cache. What lies in memory anyway stays.
    pub fn forget(&self) {
        if !self.in_memory {
            rustix::fs::sync();
            // Said once, at the start: `can_forget`.
            let _ = fs::write("/proc/sys/vm/drop_caches", "3");
        }
    }
}

/// Processors that are at work for somebody else, over a second: whatever has ended before, a build say, does not count.
pub fn load() -> f64 {
    let before = ticks();
    std::thread::sleep(Duration::from_secs(1));
    let after = ticks();
    let (all, idle) = (after.0 - before.0, after.1 - before.1);
    if all <= 0.0 {
        return 0.0;
    }
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    (all - idle) / all * cores as f64
}

/// Of all processors, in all and idle: proc_stat(5).
fn ticks() -> (f64, f64) {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let first = text.lines().next().unwrap_or_default();
    let numbers = first.split_whitespace().skip(1).take(8);
    let numbers: Vec<f64> = numbers.filter_map(|word| word.parse().ok()).collect();
    let waiting = numbers.iter().skip(3).take(2).sum();
    (numbers.iter().sum(), waiting)
}

/// Processor and kernel in one line.
pub fn describe() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let mut names = text.lines().filter(|line| line.starts_with("model name"));
    let name = names.next().and_then(|line| line.split(": ").nth(1));
    let name = name.unwrap_or("unknown processor");
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{cores} × {name}, Linux {}", kernel.trim())
}
