//! A day in the life of a daemon, by counting: round after round, many files are made, listed, read and removed, under a
//! descriptor limit of 1024. Descriptors stay within it, and memory, descriptors and inodes return to where they were
//! before. `CMKFS_MANY_FILES` makes it so many files a round instead of 8000; `TMPDIR` says where they lie.

mod common;

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::daemon::Figures;
use common::{DEADLINE, POLL, Volume, succeed};

const FILES: usize = 8_000;
const IN_A_DIRECTORY: usize = 1_000;
const LIMIT: u64 = 1024;
/// Descriptors of the limit that are always left for what users have open.
const SPARE: u64 = 128;
/// What the first round may leave in memory: code that was read in from the program's file, and what is made once.
const WARMTH: u64 = 8 << 20;
/// What a later one may leave, however many files it has.
const MEMORY: u64 = 1 << 20;
/// What either may leave besides, for each file beyond [`FILES`]: pages of the allocator that are in use in part. Far less than an inode takes,
/// several hundred bytes.
const MEMORY_A_FILE: u64 = 16;
/// Descriptors that may be open at the moment of counting.
const PASSING: u64 = 3;

struct Round<'a> {
    volume: &'a Volume,
    files: usize,
    name: &'static str,
}

impl Round<'_> {
    fn path(&self, file: usize) -> PathBuf {
        self.directory(file / IN_A_DIRECTORY)
            .join(format!("file-number-{file}"))
    }

    fn directory(&self, number: usize) -> PathBuf {
        self.volume.path(format!("directory-{number}"))
    }

    fn directories(&self) -> usize {
        self.files.div_ceil(IN_A_DIRECTORY)
    }

    /// Does something with every file, says how long the first and the last tenth took, and looks at the daemon.
    fn each(&self, what: &str, mut act: impl FnMut(usize)) -> Figures {
        let tenth = (self.files / 10).max(1);
        let start = Instant::now();
        let (mut first, mut before_last) = (Duration::ZERO, Duration::ZERO);
        for file in 0..self.files {
            act(file);
            if file + 1 == tenth {
                first = start.elapsed();
            }
            if file + tenth + 1 == self.files {
                before_last = start.elapsed();
            }
        }
        let last = start.elapsed() - before_last;
        let per = |time: Duration| time.as_micros() / tenth as u128;
        let figures = Figures::of(self.volume);
        eprintln!(
            "{} {what}: {} µs a file at first, {} µs at last; {figures:?}",
            self.name,
            per(first),
            per(last),
        );
        assert!(figures.descriptors <= LIMIT - SPARE, "{what}: {figures:?}");
        figures
    }

    /// One file in ten has content: some are changed and wait for their seal, most are empty.
    fn content(file: usize) -> String {
        if file.is_multiple_of(10) {
            format!("content of {file}")
        } else {
            String::new()
        }
    }

    /// Makes, lists, reads and removes all of them, and waits until the daemon is where it was before.
    fn run(&self, before: Figures, memory: u64) -> Figures {
        for number in 0..self.directories() {
            fs::create_dir(self.directory(number)).unwrap();
        }
        let full = self.each("made", |file| {
            let mut new = File::create_new(self.path(file)).unwrap();
            new.write_all(Self::content(file).as_bytes()).unwrap();
        });
        // Otherwise the count says nothing.
        assert!(full.inodes > self.directories() as u64, "{full:?}");
        let mut listed = (0..self.directories()).flat_map(|number| {
            let entries = fs::read_dir(self.directory(number)).unwrap();
            entries.map(|entry| entry.unwrap())
        });
        self.each("listed", |_| {
            let entry = listed.next().expect("as many entries as files");
            assert!(entry.metadata().unwrap().is_file());
        });
        assert!(listed.next().is_none());
        drop(listed);
        self.each("read", |file| {
            let content = fs::read_to_string(self.path(file)).unwrap();
            assert_eq!(content, Self::content(file), "{file}");
        });
        self.each("removed", |file| fs::remove_file(self.path(file)).unwrap());
        for number in 0..self.directories() {
            fs::remove_dir(self.directory(number)).unwrap();
        }
        let mut after = Figures::of(self.volume);
        let is_back = |after: &Figures| {
            after.inodes == 1
                && after.open_files == 0
                && after.open_directories == 0
                && after.descriptors <= before.descriptors + PASSING
                && after.memory <= before.memory + memory
        };
        // Memory is given back within a few seconds.
        let until = Instant::now() + DEADLINE;
        while !is_back(&after) {
            assert!(Instant::now() < until, "{after:?}, not as {before:?}");
            std::thread::sleep(POLL);
            after = Figures::of(self.volume);
        }
        eprintln!("{} over: {after:?}", self.name);
        after
    }
}

#[test]
fn a_daemon_returns_to_where_it_was_however_many_files_have_come_and_gone() {
    let files = std::env::var("CMKFS_MANY_FILES")
        .map_or(FILES, |text| text.parse().expect("a number of files"));
    let volume = Volume::new();
    // The hard limit too: the daemon raises the soft one to it.
    let mut mount = volume.program("prlimit");
    mount.arg(format!("--nofile={LIMIT}:{LIMIT}"));
    mount.arg(env!("CARGO_BIN_EXE_cmkfs")).arg("mount");
    succeed(mount.arg(volume.ciphertext()).arg(volume.mountpoint()));
    let round = |name, before, memory| {
        let volume = &volume;
        Round {
            volume,
            files,
            name,
        }
        .run(before, memory)
    };
    let new = Figures::of(&volume);
    let parts = files.saturating_sub(FILES) as u64 * MEMORY_A_FILE;
    let first = round("first round", new, WARMTH + parts);
    round("second round", first, MEMORY + parts);
}

/// How many descriptors the daemon holds of objects that have no name any more.
fn removed_and_held(daemon: u32) -> usize {
    let folder = format!("/proc/{daemon}/fd");
    let links = fs::read_dir(folder).unwrap().flatten();
    let stats = links.filter_map(|link| fs::metadata(link.path()).ok());
    stats
        .filter(|stat| (stat.is_file() || stat.is_dir()) && stat.nlink() == 0)
        .count()
}

/// Changes a file so that it waits for its seal, with a redo journal.
fn overwritten(path: &Path) -> File {
    let file = File::create_new(path).unwrap();
    for byte in [1, 2] {
        file.write_all_at(&[byte; 1 << 16], 0).unwrap();
        file.sync_all().unwrap();
    }
    file
}

/// The seal comes after twenty seconds; this waits for less.
fn soon(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(15);
    while !is_so() {
        assert!(Instant::now() < until, "it has not come about that {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_removed_file_and_its_journal_take_no_space_although_it_was_not_sealed() {
    let volume = Volume::mounted();
    let daemon = volume.daemon().expect("a daemon");
    let [closed, open, target, source, linked] =
        ["closed", "open", "target", "source", "linked"].map(|name| volume.path(name));
    drop(overwritten(&closed));
    drop(overwritten(&target));
    drop(overwritten(&source));
    drop(overwritten(&linked));
    let handle = overwritten(&open);
    fs::hard_link(&linked, volume.path("other name")).unwrap();
    let journals = || {
        let folder = volume.ciphertext().join("cmkfs.journal");
        fs::read_dir(folder).unwrap().count()
    };
    assert_eq!(journals(), 5);
    fs::remove_file(&closed).unwrap();
    fs::remove_file(&open).unwrap();
    fs::remove_file(&linked).unwrap();
    fs::rename(&source, &target).unwrap();
    let mut byte = [0];
    handle.read_exact_at(&mut byte, 0).unwrap();
    assert_eq!(byte, [2], "a file stays usable while it is open");
    drop(handle);
    soon("only what has a name is held", || {
        removed_and_held(daemon) == 0 && journals() <= 2
    });
    for name in ["target", "other name"] {
        let read = || fs::read(volume.path(name)).unwrap();
        assert!(read() == [2; 1 << 16], "{name}");
    }
    volume.remount();
    for name in ["target", "other name"] {
        let read = || fs::read(volume.path(name)).unwrap();
        assert!(read() == [2; 1 << 16], "{name} after a remount");
    }
}

#[test]
fn a_removed_directory_is_not_held() {
    let volume = Volume::mounted();
    let daemon = volume.daemon().expect("a daemon");
    for number in 0..50 {
        let directory = volume.path(format!("directory-{number}"));
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("file"), "").unwrap();
        fs::remove_file(directory.join("file")).unwrap();
        fs::remove_dir(&directory).unwrap();
    }
    soon("no removed directory is held", || {
        removed_and_held(daemon) == 0
    });
}
