//! A worker that changes what is in files, in every way there is, and syncs them now and then.

use std::fs::{self, File, OpenOptions};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use rustix::fs::FallocateFlags;

use crate::content::BLOCK;
use crate::ledger::{Event, Id, Kind, Ledger, TOP};
use crate::model::tag;
use crate::pattern;
use crate::random::Random;
use crate::sys::write_mapped;

/// How a worker's files are.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub files: usize,
    /// Bytes that a file has at most.
    pub limit: u64,
    /// Files that stay open at once; one that is closed is sealed sooner or later.
    pub open: usize,
}

/// Large files, several groups each.
pub const LARGE: Shape = Shape {
    files: 6,
    limit: 1 << 20,
    open: 4,
};
/// More files than may wait for their seal.
pub const SMALL: Shape = Shape {
    files: 160,
    limit: 20_000,
    open: 5,
};

struct One {
    id: Id,
    path: PathBuf,
    handle: Option<File>,
    size: u64,
}

/// The worker.
pub struct Files<'a> {
    worker: u32,
    shape: Shape,
    folder: PathBuf,
    ledger: &'a Ledger,
    random: Random,
    files: Vec<One>,
}

impl<'a> Files<'a> {
    pub fn new(
        worker: u32,
        shape: Shape,
        folder: PathBuf,
        ledger: &'a Ledger,
        random: Random,
    ) -> Self {
        Self {
            worker,
            shape,
            folder,
            ledger,
            random,
            files: Vec::new(),
        }
    }

    /// Does something with some file.
    pub fn step(&mut self) {
        if self.files.len() < self.shape.files {
            self.create();
        }
        let mut at = self.random.below(self.files.len());
        if self
            .files
            .iter()
            .filter(|file| file.handle.is_some())
            .count()
            >= self.shape.open
        {
            let open = |(n, file): (usize, &One)| file.handle.is_some().then_some(n);
            let opened: Vec<usize> = self.files.iter().enumerate().filter_map(open).collect();
            at = *self.random.of(&opened);
            if self.random.below(self.shape.open * 2) == 0 {
                self.files[at].handle = None;
            }
        }
        if self.files[at].handle.is_none() {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .open(&self.files[at].path);
            self.files[at].handle = Some(file.unwrap());
        }
        self.change(at);
    }

    fn create(&mut self) {
        let id = self.files.len() as Id + 1;
        let name = format!("f{id}");
        let path = self.folder.join(&name);
        self.ledger.push(Event::Make(id, Kind::File));
        self.ledger.push(Event::Link(TOP, name, id));
        let handle = File::create_new(&path).unwrap();
        if self.random.below(4) > 0 {
            handle.sync_all().unwrap();
            self.ledger.push(Event::Synced {
                object: id,
                folder: TOP,
                attributes: true,
            });
        }
        if self.random.below(4) > 0 {
            File::open(&self.folder).unwrap().sync_all().unwrap();
            self.ledger.push(Event::Synced {
                object: TOP,
                folder: TOP,
                attributes: true,
            });
        }
        // That one may only be written.
        drop(handle);
        self.files.push(One {
            id,
            path,
            handle: None,
            size: 0,
        });
    }

    fn change(&mut self, at: usize) {
        let size = self.files[at].size;
        let room = self.shape.limit - size;
        let growth =
            |random: &mut Random, most: u64| (random.below(most as usize) as u64 + 1).min(room);
        match self.random.below(16) {
            // A block of a database.
            0..=2 if size >= BLOCK => {
                let start = self.random.below((size / BLOCK) as usize) as u64 * BLOCK;
                self.write(at, start..start + BLOCK);
                self.sync(at);
            }
            3 if size > 1 => {
                let range = self.part(size, 10_000);
                self.write(at, range);
                self.sync_sometimes(at);
            }
            // A log.
            4 | 5 if room > 0 => {
                let end = size + growth(&mut self.random, 6000);
                self.write(at, size..end);
                self.sync(at);
            }
            6 if room > 0 => {
                let end = size + growth(&mut self.random, 20_000);
                self.write(at, size..end);
            }
            // The same again and again, so that both entries of a slot are of unsynced versions.
            7 | 8 if size > 1 => {
                let range = self.part(size, 9000);
                for _ in 0..=self.random.below(6) {
                    self.write(at, range.clone());
                    if self.random.below(2) == 0 {
                        self.send(at, &range);
                    }
                }
            }
            9 if size > 1 => self.map(at),
            10 => self.rewrite(at),
            11 if size > 1 => {
                let to = match self.random.below(4) {
                    0 => (size + self.random.below(60_000) as u64).min(self.shape.limit),
                    _ => size - self.random.below((size as usize).min(30_000)) as u64,
                };
                self.resize(at, to);
                self.sync_sometimes(at);
            }
            12 if size > 1 => self.punch(at),
            // Several groups at once.
            13 if room > 0 => {
                let start = self.random.below(size as usize + 1) as u64;
                let end = (start + 1 + self.random.below(400_000) as u64).min(self.shape.limit);
                self.write(at, start..end);
                self.sync_sometimes(at);
            }
            // A gap.
            14 if room > 100 => {
                let start = size + growth(&mut self.random, 40_000) / 2;
                self.write(at, start..(start + 3000).min(self.shape.limit));
                self.sync_sometimes(at);
            }
            _ => self.sync(at),
        }
    }

    fn part(&mut self, size: u64, most: usize) -> Range<u64> {
        let start = self.random.below(size as usize - 1) as u64;
        start..(start + 1 + self.random.below(most) as u64).min(size)
    }

    fn handle(&self, at: usize) -> &File {
        self.files[at].handle.as_ref().unwrap()
    }

    fn write(&mut self, at: usize, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let id = self.files[at].id;
        let version = self.ledger.push(Event::Write {
            file: id,
            range: range.clone(),
            mapped: false,
        });
        let bytes = pattern::bytes(tag(self.worker, id), version, range.clone());
        self.handle(at).write_all_at(&bytes, range.start).unwrap();
        self.files[at].size = self.files[at].size.max(range.end);
    }

    fn map(&mut self, at: usize) {
        let (id, size) = (self.files[at].id, self.files[at].size);
        let range = self.part(size, 12_000);
        let version = self.ledger.push(Event::Write {
            file: id,
            range: range.clone(),
            mapped: true,
        });
        let bytes = pattern::bytes(tag(self.worker, id), version, range.clone());
        write_mapped(self.handle(at), size as usize, range.start as usize, &bytes);
        // All of the file is mapped, and so all that is dirty of it was synced.
        self.synced(at, false);
    }

    fn rewrite(&mut self, at: usize) {
        let id = self.files[at].id;
        self.ledger.push(Event::Resize(id, 0));
        let truncate = OpenOptions::new()
            .read(true)
            .write(true)
            .truncate(true)
            .open(&self.files[at].path);
        self.files[at].handle = Some(truncate.unwrap());
        self.files[at].size = 0;
        if self.random.below(6) > 0 {
            let end = self.random.below(self.shape.limit.min(300_000) as usize) as u64;
            self.write(at, 0..end);
        }
        self.sync_sometimes(at);
    }

    fn resize(&mut self, at: usize, size: u64) {
        self.ledger.push(Event::Resize(self.files[at].id, size));
        self.handle(at).set_len(size).unwrap();
        self.files[at].size = size;
    }

    fn punch(&mut self, at: usize) {
        let range = self.part(self.files[at].size, 50_000);
        self.ledger
            .push(Event::Punch(self.files[at].id, range.clone()));
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        rustix::fs::fallocate(self.handle(at), flags, range.start, range.end - range.start)
            .unwrap();
        self.sync_sometimes(at);
        if self.random.below(3) > 0 {
            self.write(at, range);
            self.sync_sometimes(at);
        }
    }

    /// Sends a range to the daemon, which promises nothing.
    fn send(&self, at: usize, range: &Range<u64>) {
        crate::sys::send_pages(self.handle(at), range.clone());
    }

    fn sync_sometimes(&mut self, at: usize) {
        if self.random.below(2) == 0 {
            self.sync(at);
        }
    }

    fn sync(&mut self, at: usize) {
        let data_only = self.random.below(2) == 0;
        if data_only {
            self.handle(at).sync_data().unwrap();
        } else {
            self.handle(at).sync_all().unwrap();
        }
        self.synced(at, !data_only);
    }

    fn synced(&self, at: usize, attributes: bool) {
        self.ledger.push(Event::Synced {
            object: self.files[at].id,
            folder: TOP,
            attributes,
        });
    }
}

/// What a worker begins with: its directory, durable.
pub fn make_top(folder: &std::path::Path) {
    fs::create_dir(folder).unwrap();
    File::open(folder).unwrap().sync_all().unwrap();
    File::open(folder.parent().unwrap())
        .unwrap()
        .sync_all()
        .unwrap();
}
