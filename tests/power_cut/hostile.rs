//! Makes the kernel write back in an order that is unkind to whoever counts on another: single pages of backing and plain
//! files at random, and everything early.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::random::Random;
use crate::sys::send_pages;

const PAGE: u64 = 4096;
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Sends random pages of random files below a directory to the disk, until it is over.
pub fn send_random_pages(folder: &Path, random: &mut Random, over: &AtomicBool) {
    let mut files = Vec::new();
    let mut looked: Option<Instant> = None;
    while !over.load(Ordering::Relaxed) {
        if looked.is_none_or(|looked| looked.elapsed() > LOOK_AGAIN) {
            files.clear();
            find(folder, &mut files);
            looked = Some(Instant::now());
        }
        std::thread::sleep(random.pause(4));
        if files.is_empty() {
            continue;
        }
        let Ok(file) = File::open(random.of(&files)) else {
            continue;
        };
        let pages = file
            .metadata()
            .map_or(0, |metadata| metadata.len())
            .div_ceil(PAGE) as usize;
        for _ in 0..random.below(6) {
            let first = random.below(pages + 1) as u64 * PAGE;
            send_pages(&file, first..first + PAGE * (1 + random.below(2) as u64));
        }
    }
}

/// Adds all regular files below a directory; what goes meanwhile is not missed.
fn find(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => find(&entry.path(), files),
            Ok(kind) if kind.is_file() => files.push(entry.path()),
            _ => {}
        }
    }
}

const SETTINGS: [(&str, &str); 2] = [
    ("/proc/sys/vm/dirty_expire_centisecs", "20"),
    ("/proc/sys/vm/dirty_writeback_centisecs", "10"),
];

/// How many want early write-back, and what was set before.
static BEFORE: Mutex<(usize, Vec<String>)> = Mutex::new((0, Vec::new()));

/// While this is there the kernel writes back what is older than a fifth of a second.
pub struct EarlyWriteBack;

impl EarlyWriteBack {
    pub fn new() -> Self {
        let mut before = BEFORE.lock().unwrap();
        before.0 += 1;
        if before.0 == 1 {
            before.1 = SETTINGS
                .iter()
                .map(|(path, _)| fs::read_to_string(path).unwrap())
                .collect();
            SETTINGS
                .iter()
                .for_each(|(path, value)| fs::write(path, value).unwrap());
        }
        Self
    }
}

impl Drop for EarlyWriteBack {
    fn drop(&mut self) {
        let Ok(mut before) = BEFORE.lock() else {
            return;
        };
        before.0 -= 1;
        if before.0 == 0 {
            for ((path, early), value) in SETTINGS.iter().zip(&before.1) {
                // Another process that wants the same was first, and puts back what was there.
                if value.trim() != *early {
                    let _ = fs::write(path, value.trim());
                }
            }
        }
    }
}
