//! stress-ng's filesystem stressors on a real mount, all at once, with what they verify of themselves. What a plain directory
//! of the backing filesystem gets wrong as well is not cmkfs's. Afterwards everything that was there is as it was, nothing of
//! theirs is left, and the daemon holds no more than before. `scripts/test` installs it; `CMKFS_STRESS_SECONDS` makes it run
//! so long instead of 6 seconds.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use common::daemon::{Figures, seal};
use common::{Volume, eventually};

const SECONDS: u64 = 6;
/// What a stressor that cannot be stopped in the middle may take longer, on a loaded machine.
const PATIENCE: u64 = 120;

/// What works with files, and has its own files to do so. Others of the class need what no FUSE filesystem has (fiemap,
/// verity, swap), work on the whole machine (procfs, sysinfo, fanotify), or sync all of its filesystems without end (sync-file
/// excepted).
const STRESSORS: &[&str] = &[
    "access",
    "aio",
    "chattr",
    "chdir",
    "chmod",
    "chown",
    "copy-file",
    "dentry",
    "dir",
    "dirdeep",
    "dirmany",
    "dnotify",
    "fallocate",
    "fcntl",
    "fifo",
    "file-ioctl",
    "filename",
    "flock",
    "fpunch",
    "fsize",
    "fstat",
    "getdent",
    "handle",
    "hdd",
    "inotify",
    "io",
    "lease",
    "link",
    "locka",
    "lockf",
    "lockofd",
    "mknod",
    "mmap",
    "msync",
    "open",
    "readahead",
    "rename",
    "revio",
    "seek",
    "sendfile",
    "splice",
    "symlink",
    "sync-file",
    "touch",
    "utime",
    "xattr",
];

/// Those that say they fail. All of them where the program itself ends badly and names none.
fn failing(directory: &Path, stressors: &[&str], seconds: u64) -> BTreeSet<String> {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=10", &(seconds + PATIENCE).to_string()]);
    command.arg("stress-ng").arg("--temp-path").arg(directory);
    command.args(["--verify", "--timeout", &format!("{seconds}s")]);
    // Small: so many run at once.
    command.args([
        "--hdd-bytes",
        "8M",
        "--fallocate-bytes",
        "8M",
        "--seek-size",
        "4M",
    ]);
    command.args([
        "--mmap-bytes",
        "4M",
        "--readahead-bytes",
        "8M",
        "--revio-bytes",
        "4M",
    ]);
    command.args([
        "--copy-file-bytes",
        "128M",
        "--sync-file-bytes",
        "4M",
        "--splice-bytes",
        "1M",
    ]);
    for stressor in stressors {
        command.args([format!("--{stressor}"), "1".to_owned()]);
    }
    let output = command.output().unwrap();
    let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
    said.push_str(&String::from_utf8_lossy(&output.stderr));
    assert!(
        said.contains("dispatching hogs"),
        "stress-ng has not run; scripts/test installs it: {said}"
    );
    let mut found = BTreeSet::new();
    for line in said.lines().filter(|line| line.contains("fail:")) {
        eprintln!("{}: {line}", directory.display());
        // "stress-ng: fail:  [PID] NAME: …", sometimes "stress-ng-NAME: …".
        let (_, rest) = line.split_once(']').unwrap_or(("", line));
        let name = rest.split(':').next().unwrap_or_default().trim();
        let name = name.trim_start_matches("stress-ng-");
        found.insert(name.to_owned());
    }
    if !output.status.success() && found.is_empty() {
        eprintln!("{}: {}: {said}", directory.display(), output.status);
        found.extend(stressors.iter().map(|&name| name.to_owned()));
    }
    found
}

#[test]
fn filesystem_stressors_find_nothing_that_a_plain_directory_does_not_have() {
    let seconds = std::env::var("CMKFS_STRESS_SECONDS")
        .map_or(SECONDS, |text| text.parse().expect("a number of seconds"));
    let volume = Volume::mounted();
    let kept: Vec<_> = (0..50_usize)
        .map(|number| {
            let content: Vec<u8> = (0..number * 997).map(|at| (at % 251) as u8).collect();
            let path = volume.path(format!("kept-{number}"));
            fs::write(&path, &content).unwrap();
            (path, content)
        })
        .collect();
    let work = volume.path("work");
    let plain = volume.folder().join("plain-directory");
    fs::create_dir(&work).unwrap();
    fs::create_dir(&plain).unwrap();
    seal(&volume);
    let before = Figures::of(&volume);

    let failed = failing(&work, STRESSORS, seconds);
    // Alone, and on the backing filesystem: the same may be a fault of stress-ng, or of the kernel.
    let failed: Vec<_> = failed.iter().map(String::as_str).collect();
    let excused = if failed.is_empty() {
        BTreeSet::new()
    } else {
        failing(&plain, &failed, seconds)
    };
    let ours: Vec<_> = failed
        .iter()
        .filter(|name| !excused.contains(**name))
        .collect();
    assert!(ours.is_empty(), "{ours:?} fail on the mount alone");

    let left: Vec<_> = fs::read_dir(&work).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    seal(&volume);
    let mut after = before;
    // Two more: the two directories of the workload that may just have been looked at.
    eventually("the daemon holds no more inodes than before", || {
        after = Figures::of(&volume);
        after.inodes <= before.inodes + 2 && after.open_files == 0 && after.open_directories == 0
    });
    eprintln!("before {before:?}, after {after:?}");
    let intact = || {
        for (path, content) in &kept {
            assert!(fs::read(path).unwrap() == *content, "{}", path.display());
        }
    };
    intact();
    volume.remount();
    intact();
}
