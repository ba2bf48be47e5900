//! A day in the life of a daemon, by counting: round after round, many files are made, listed, read and removed, under a
//! descriptor limit of 1024. Descriptors stay within it, and memory, descriptors and inodes return to where they were after
//! the round before. `CMKFS_MANY_FILES` makes it so many files a round instead of 8000; `TMPDIR` says where they lie.

mod common;

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use common::daemon::{Figures, seal};
use common::{Volume, eventually, succeed};

const FILES: usize = 8_000;
const IN_A_DIRECTORY: usize = 1_000;
const LIMIT: u64 = 1024;
/// Descriptors of the limit that are always left for what users have open.
const SPARE: u64 = 128;
/// What the allocator may keep more after a round than after the round before: a little, and per file far less than an inode
/// or an open file takes (several hundred bytes), so that none of these can get lost in it.
const MEMORY: u64 = 2 << 20;
const MEMORY_A_FILE: u64 = 64;

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

    /// Makes, lists, reads and removes all of them.
    fn run(&self) -> Figures {
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
        seal(self.volume);
        let mut after = Figures::of(self.volume);
        eventually("the daemon knows nothing any more but the root", || {
            after = Figures::of(self.volume);
            after.inodes == 1 && after.open_files == 0 && after.open_directories == 0
        });
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
    let round = |name| {
        let volume = &volume;
        Round {
            volume,
            files,
            name,
        }
        .run()
    };
    // What is made once, and what the allocator keeps for the next time, is there after one round.
    let first = round("first round");
    let second = round("second round");
    let bound = first.memory + MEMORY + MEMORY_A_FILE * files as u64;
    assert!(second.memory <= bound, "{first:?} {second:?}");
    // Directories used last are kept open, those of the first round among them until others come.
    let kept = (files.div_ceil(IN_A_DIRECTORY) as u64).min(LIMIT / 4);
    assert!(
        second.descriptors <= first.descriptors + kept,
        "{first:?} {second:?}"
    );
}
