//! Content: blocks that are overwritten and punched directly, lines that are appended and synced, pages that nobody syncs.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::FallocateFlags;

use crate::random::Random;
use crate::{Load, Round, ended_by_the_kill};

const BLOCK: usize = 4096;
/// Several groups.
const BLOCKS: usize = 300;
const LINE: usize = 16;

/// The content of a block at a version; zeros at version 0.
fn fill(block: usize, version: u64, page: &mut [u8]) {
    for (i, word) in page.chunks_exact_mut(8).enumerate() {
        let value = match version {
            0 => 0,
            _ => (version << 24 | (block as u64) << 10 | i as u64) << 1 | 1,
        };
        word.copy_from_slice(&value.to_le_bytes());
    }
}

fn holds(block: usize, version: u64, page: &[u8]) -> bool {
    let mut expected = vec![0; page.len()];
    fill(block, version, &mut expected);
    page == expected
}

fn open(path: &Path, flags: i32) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .custom_flags(flags)
        .open(path)
}

/// What may be found in each block, the version acknowledged last first. Written directly: what is acknowledged has passed
/// through the daemon.
#[derive(Default)]
pub struct Blocks {
    expected: Vec<Vec<u64>>,
    version: u64,
}

impl Blocks {
    fn step(&mut self, file: &File, random: &mut Random) -> io::Result<()> {
        let start = random.below(BLOCKS);
        let longest = if random.below(4) == 0 { 150 } else { 3 };
        let count = 1 + random.below((BLOCKS - start).min(longest));
        let punches = random.below(8) == 0;
        self.version += 1;
        let version = if punches { 0 } else { self.version };
        for expected in &mut self.expected[start..start + count] {
            expected.push(version);
        }
        let (offset, length) = (start * BLOCK, count * BLOCK);
        if punches {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            rustix::fs::fallocate(file, flags, offset as u64, length as u64)?;
        } else {
            // O_DIRECT wants it page-aligned.
            let mut bytes = vec![0_u8; length + BLOCK];
            let at = bytes.as_ptr().align_offset(BLOCK);
            let data = &mut bytes[at..at + length];
            for (page, block) in data.chunks_exact_mut(BLOCK).zip(start..) {
                fill(block, version, page);
            }
            file.write_all_at(data, offset as u64)?;
        }
        for expected in &mut self.expected[start..start + count] {
            *expected = vec![version];
        }
        Ok(())
    }
}

impl Load for Blocks {
    fn begin(&mut self, folder: &Path) {
        let file = open(&folder.join("blocks"), 0).unwrap();
        file.set_len((BLOCKS * BLOCK) as u64).unwrap();
        self.expected = vec![vec![0]; BLOCKS];
    }

    fn work(&mut self, folder: &Path, random: &mut Random, round: &Round) {
        let done = open(&folder.join("blocks"), libc::O_DIRECT).and_then(|file| {
            loop {
                self.step(&file, random)?;
                round.count();
            }
        });
        let done: io::Result<()> = done;
        ended_by_the_kill("blocks", &done.unwrap_err());
    }

    fn check(&mut self, folder: &Path) {
        let content = std::fs::read(folder.join("blocks")).unwrap();
        assert_eq!(content.len(), BLOCKS * BLOCK);
        for (block, expected) in self.expected.iter_mut().enumerate() {
            let page = &content[block * BLOCK..][..BLOCK];
            let found = expected
                .iter()
                .find(|version| holds(block, **version, page));
            let found = *found.unwrap_or_else(|| panic!("block {block} is none of {expected:?}"));
            *expected = vec![found];
        }
    }
}

fn text_of(number: u64) -> Vec<u8> {
    format!("{number:0width$}\n", width = LINE - 1).into_bytes()
}

/// Numbered lines, each synced; now and then the file is cut, by whole lines or to nothing, and synced as well.
#[derive(Default)]
pub struct Lines {
    /// Lines that may be there, and that are.
    synced: u64,
    least: u64,
    /// The cut to `least` lines is under way.
    is_cutting: bool,
}

impl Lines {
    fn step(&mut self, file: &File, random: &mut Random) -> io::Result<()> {
        if random.below(40) == 0 {
            self.least = random.below(self.synced as usize + 1) as u64 * random.below(2) as u64;
            self.is_cutting = true;
            file.set_len(self.least * LINE as u64)?;
            self.is_cutting = false;
            self.synced = self.least;
            return file.sync_all();
        }
        file.write_all_at(&text_of(self.synced + 1), self.synced * LINE as u64)?;
        file.sync_data()?;
        self.synced += 1;
        self.least = self.synced;
        Ok(())
    }
}

impl Load for Lines {
    fn begin(&mut self, folder: &Path) {
        File::create(folder.join("lines")).unwrap();
        *self = Self::default();
    }

    fn work(&mut self, folder: &Path, random: &mut Random, round: &Round) {
        let done: io::Result<()> = open(&folder.join("lines"), 0).and_then(|file| {
            loop {
                self.step(&file, random)?;
                round.count();
            }
        });
        ended_by_the_kill("lines", &done.unwrap_err());
    }

    fn check(&mut self, folder: &Path) {
        let path = folder.join("lines");
        let content = std::fs::read(&path).unwrap();
        let (lines, rest) = content.as_chunks::<LINE>();
        assert!(rest.is_empty(), "whole lines");
        let mut found = lines.len() as u64;
        assert!(found >= self.least, "{found} lines of {}", self.least);
        assert!(
            found <= self.synced + 1,
            "{found} lines, {} written",
            self.synced
        );
        for (line, number) in lines.iter().zip(1..) {
            // Of a cut that was interrupted, the block in which the new end was to lie may tell: it ends there.
            let last_block = self.least * LINE as u64 / BLOCK as u64;
            if self.is_cutting
                && number > self.least
                && (number - 1) * LINE as u64 / BLOCK as u64 == last_block
                && *line == [0; LINE]
            {
                found = self.least;
                continue;
            }
            assert_eq!(
                line.escape_ascii().to_string(),
                text_of(number).escape_ascii().to_string(),
                "line {number} of {}, {} at least",
                lines.len(),
                self.least
            );
        }
        if found < lines.len() as u64 {
            open(&path, 0)
                .and_then(|file| file.set_len(found * LINE as u64))
                .unwrap();
        }
        self.is_cutting = false;
        (self.synced, self.least) = (found, found);
    }
}

/// Whole pages written by way of the page cache and through a mapping's like, the file cut and extended meanwhile, nothing
/// synced: each page is some version that was written, or zeros.
#[derive(Default)]
pub struct Pages {
    version: u64,
}

impl Load for Pages {
    fn begin(&mut self, folder: &Path) {
        File::create(folder.join("pages")).unwrap();
    }

    fn work(&mut self, folder: &Path, random: &mut Random, round: &Round) {
        let mut work = || -> io::Result<()> {
            loop {
                let file = open(&folder.join("pages"), 0)?;
                for _ in 0..20 {
                    self.version += 1;
                    let block = random.below(BLOCKS);
                    match random.below(10) {
                        0 => file.set_len((random.below(BLOCKS) * BLOCK) as u64)?,
                        1 => {
                            let flags = FallocateFlags::ZERO_RANGE;
                            let (at, length) = ((block * BLOCK) as u64, 3 * BLOCK as u64);
                            rustix::fs::fallocate(&file, flags, at, length)?;
                        }
                        _ => {
                            let mut data = vec![0; BLOCK * (1 + random.below(8))];
                            for (page, block) in data.chunks_exact_mut(BLOCK).zip(block..) {
                                fill(block, self.version, page);
                            }
                            file.write_all_at(&data, (block * BLOCK) as u64)?;
                        }
                    }
                    round.count();
                }
                drop(file);
                if random.below(10) == 0 {
                    File::create(folder.join("pages"))?;
                }
            }
        };
        ended_by_the_kill("pages", &work().unwrap_err());
    }

    fn check(&mut self, folder: &Path) {
        let content = std::fs::read(folder.join("pages")).unwrap();
        for (block, page) in content.chunks(BLOCK).enumerate() {
            let first = u64::from_le_bytes(page[..8].try_into().unwrap());
            let version = first >> 25;
            assert!(
                version <= self.version && holds(block, version, page),
                "page {block} is no version of it"
            );
        }
    }
}
