//! Many small files: what each step costs a file, what the daemon needs in memory for it, and what does not depend on their
//! number: mounting. Each step begins with empty caches unless it says otherwise.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::figures::Figures;
use crate::machine::Backing;
use crate::programs::{self, Outcome};
use crate::volume::Volume;

/// How files lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// A hundred in each directory, a hundred of which are in each of those above.
    Spread,
    /// In one directory.
    Flat,
}

/// Bytes in each file.
const CONTENT: usize = 100;
/// What a file takes where all lies in memory: two pages of the backing file, one that the kernel caches of the plain one,
/// and what it knows of the three.
const ROOM: u64 = 16 << 10;
/// How often mounting is measured.
const MOUNTS: usize = 5;
/// How soon what the kernel does not need any more has to be forgotten.
const FORGETTING: Duration = Duration::from_secs(60);

impl Layout {
    fn path(self, root: &Path, number: u32) -> PathBuf {
        match self {
            Self::Flat => root.join(format!("file{number}")),
            Self::Spread => {
                let (above, directory) = (number / 10_000, number / 100 % 100);
                root.join(format!("{above}/{directory}/file{number}"))
            }
        }
    }
}

/// Fails where so many files do not fit.
pub fn check_room(backing: &Backing, files: u32) -> Outcome<()> {
    let place = backing.path.display();
    let free = backing
        .free()
        .map_err(|error| format!("{place}: {error}"))?;
    let needed = u64::from(files) * ROOM;
    if free < needed {
        let (free, needed) = (free >> 20, needed >> 20);
        return Err(format!(
            "{place}: {free} MiB are free, and {needed} are needed: use fewer --files or another directory (--on)"
        ));
    }
    Ok(())
}

/// Measures one number of files.
pub fn measure(below: &Path, layout: Layout, count: u32, figures: &mut Figures) -> Outcome<()> {
    let mut volume = Volume::new(below)?;
    let root = volume.mountpoint();
    let paths: Vec<_> = (0..count)
        .map(|number| layout.path(&root, number))
        .collect();
    let each = |took: Duration| took.as_secs_f64() * 1e6 / f64::from(count);
    let milliseconds = |took: Duration| took.as_secs_f64() * 1e3;

    let create = timed(|| create_all(&paths))?;
    let (unmount, _) = volume.remount()?;

    let mut mounts = Vec::new();
    for _ in 0..MOUNTS {
        mounts.push(volume.remount()?.1);
    }
    mounts.sort_unstable();

    let empty = volume.memory()?;
    let stat = timed(|| each_of(&paths, |path| fs::symlink_metadata(path).map(drop)))?;
    let cached = volume.memory()?;
    let again = timed(|| each_of(&paths, |path| fs::symlink_metadata(path).map(drop)))?;
    let disable_stat = volume.disable()?;
    expect_refused(&paths)?;
    volume.enable()?;

    volume.remount()?;
    let read = timed(|| each_of(&paths, read_file))?;
    let after_read = volume.memory()?;
    let disable = volume.disable()?;
    expect_refused(&paths)?;
    let enable = volume.enable()?;
    each_of(&paths, read_file)?;
    forget(&volume)?;
    let dropped = volume.memory()?;

    volume.remount()?;
    let mut entries = 0;
    let list = timed(|| list_all(&root, &mut entries))?;
    if entries < count {
        return Err(format!("{entries} entries were listed instead of {count}"));
    }

    volume.remount()?;
    let unlink = timed(|| each_of(&paths, |path| fs::remove_file(path)))?;
    volume.unmount()?;

    let mebibytes = |bytes: f64| bytes / f64::from(1 << 20);
    let name = match layout {
        Layout::Spread => "files in directories of 100",
        Layout::Flat => "files in one directory",
    };
    figures.add(
        name,
        count.to_string(),
        vec![
            ("create, write 100 bytes, close", "µs/file", each(create)),
            ("unmount after that (seals)", "µs/file", each(unmount)),
            ("mount", "ms", milliseconds(mounts[MOUNTS / 2])),
            ("stat, cold", "µs/file", each(stat)),
            ("stat, again", "µs/file", each(again)),
            ("open, read, close, cold", "µs/file", each(read)),
            ("list, cold", "µs/entry", each(list)),
            ("unlink, cold", "µs/file", each(unlink)),
            ("key disable after stat", "ms", milliseconds(disable_stat)),
            ("key disable after reading", "ms", milliseconds(disable)),
            ("key enable", "ms", milliseconds(enable)),
            ("memory, empty", "MiB", mebibytes(empty)),
            (
                "memory for an inode",
                "bytes",
                (cached - empty) / f64::from(count),
            ),
            ("memory after reading", "MiB", mebibytes(after_read)),
            ("memory after forgetting", "MiB", mebibytes(dropped)),
        ],
    );
    Ok(())
}

fn timed(work: impl FnOnce() -> Outcome<()>) -> Outcome<Duration> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed())
}

fn each_of(paths: &[PathBuf], work: impl Fn(&Path) -> std::io::Result<()>) -> Outcome<()> {
    for path in paths {
        if programs::stopped() {
            return Err("stopped by a signal".to_owned());
        }
        work(path).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(())
}

fn create_all(paths: &[PathBuf]) -> Outcome<()> {
    let mut made = None;
    for path in paths {
        let directory = path.parent();
        if directory != made {
            made = directory;
            let there = directory.map_or(Ok(()), fs::create_dir_all);
            there.map_err(|error| format!("{}: {error}", path.display()))?;
        }
        each_of(std::slice::from_ref(path), |path| {
            File::create_new(path)?.write_all(&[7; CONTENT])
        })?;
    }
    Ok(())
}

fn read_file(path: &Path) -> std::io::Result<()> {
    let mut content = [0; CONTENT + 1];
    let length = File::open(path)?.read(&mut content)?;
    if content[..length] == [7; CONTENT] {
        Ok(())
    } else {
        Err(std::io::Error::other("not what was written"))
    }
}

fn list_all(directory: &Path, files: &mut u32) -> Outcome<()> {
    let failed = |error| format!("{}: {error}", directory.display());
    for entry in fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_type().map_err(failed)?.is_dir() {
            list_all(&entry.path(), files)?;
        } else {
            *files += 1;
        }
    }
    Ok(())
}

/// A figure of a withdrawal that did not happen would be worth nothing.
fn expect_refused(paths: &[PathBuf]) -> Outcome<()> {
    for path in paths.iter().step_by(paths.len() / 100) {
        if fs::symlink_metadata(path).is_ok() {
            return Err(format!(
                "{}: seen while the key is disabled",
                path.display()
            ));
        }
    }
    Ok(())
}

/// Has the kernel drop what it has cached, which it tells the daemon.
fn forget(volume: &Volume) -> Outcome<()> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("growth: only root can drop the kernel's caches: nothing will be forgotten");
        return Ok(());
    }
    fs::write("/proc/sys/vm/drop_caches", "2").map_err(|error| format!("drop_caches: {error}"))?;
    let start = Instant::now();
    while volume.inodes()? > 100 {
        if start.elapsed() > FORGETTING {
            eprintln!("growth: the kernel has not forgotten all inodes");
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    // What the daemon does not need any more it gives back every few seconds.
    std::thread::sleep(Duration::from_secs(6));
    Ok(())
}
