//! Many threads make, link, rename, remove, look up and list names in the same two directories of a real mount. What stays is
//! listed exactly once, nothing twice, nothing that is gone; no file is lost; a rename is never seen half done; nothing
//! hangs. `CMKFS_NAMES_SECONDS` makes it run so long instead of 5 seconds.

mod common;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use common::{Volume, eventually};

const SECONDS: u64 = 5;
/// Entries that nobody touches, in each directory.
const STABLE: u64 = 200;
/// Threads that each work on names of their own.
const WORKERS: u64 = 3;
/// Files that each of them keeps, more or less.
const KEPT: usize = 60;
/// Threads that fight for the same few names.
const RIVALS: u64 = 2;
const CONTESTED: usize = 6;

/// An entry of one of the two directories. No number is used twice.
type Entry = (usize, u64);

/// What is known of the workers' entries at this moment.
#[derive(Debug, Default, Clone)]
struct Ledger {
    /// Made, and nobody has begun to take them away.
    there: HashSet<Entry>,
    /// Taken away, and the call has returned.
    gone: HashSet<Entry>,
}

#[derive(Debug)]
struct Shared {
    directories: [PathBuf; 2],
    ledger: Mutex<Ledger>,
    next: AtomicU64,
    stop: AtomicBool,
    /// Even while nothing is being moved to and fro.
    moves: AtomicU64,
    /// What each kind of thread has done, to see that it did.
    counts: Mutex<HashMap<&'static str, u64>>,
}

impl Shared {
    /// Every seventh name is so long that it is kept beside its entry.
    fn path(&self, (directory, number): Entry) -> PathBuf {
        let width = if number.is_multiple_of(7) { 230 } else { 9 };
        self.directories[directory].join(format!("w{number:0width$}"))
    }

    fn new_entry(&self, directory: usize) -> Entry {
        (directory, self.next.fetch_add(1, Ordering::Relaxed))
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn count(&self, what: &'static str) {
        *self.counts.lock().unwrap().entry(what).or_default() += 1;
    }

    fn appears(&self, entry: Entry) {
        self.ledger.lock().unwrap().there.insert(entry);
    }

    fn goes(&self, entry: Entry) {
        assert!(self.ledger.lock().unwrap().there.remove(&entry));
    }

    fn has_gone(&self, entry: Entry) {
        self.ledger.lock().unwrap().gone.insert(entry);
    }
}

/// splitmix64: any spread will do.
struct Choice(u64);

impl Choice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        ((z ^ (z >> 27)) % limit as u64) as usize
    }
}

fn exists(path: &Path) -> bool {
    path.try_exists().unwrap()
}

/// Makes, links, renames and removes entries that nobody else touches; what each has to hold in the end.
fn work(shared: &Shared, mut choice: Choice) -> HashMap<Entry, String> {
    let mut mine: Vec<(Entry, String)> = Vec::new();
    while !shared.stopped() {
        let new = shared.new_entry(choice.below(2));
        let path = shared.path(new);
        let at = choice.below(mine.len().max(1));
        match choice.below(if mine.len() < KEPT { 5 } else { 8 }) {
            0..=1 => {
                let content = format!("born as {}", new.1);
                let mut file = fs::File::create_new(&path).unwrap();
                file.write_all(content.as_bytes()).unwrap();
                shared.appears(new);
                mine.push((new, content));
                shared.count("made");
            }
            2 if !mine.is_empty() => {
                fs::hard_link(shared.path(mine[at].0), &path).unwrap();
                shared.appears(new);
                mine.push((new, mine[at].1.clone()));
                shared.count("linked");
            }
            3..=4 if !mine.is_empty() => {
                let old = std::mem::replace(&mut mine[at].0, new);
                shared.goes(old);
                fs::rename(shared.path(old), &path).unwrap();
                shared.has_gone(old);
                shared.appears(new);
                assert!(
                    !exists(&shared.path(old)),
                    "{old:?} is there after a rename"
                );
                assert_eq!(fs::read_to_string(&path).unwrap(), mine[at].1, "{new:?}");
                shared.count("renamed");
            }
            _ if !mine.is_empty() => {
                let (old, _) = mine.swap_remove(at);
                shared.goes(old);
                fs::remove_file(shared.path(old)).unwrap();
                shared.has_gone(old);
                assert!(
                    !exists(&shared.path(old)),
                    "{old:?} is there after its removal"
                );
                shared.count("removed");
            }
            _ => {}
        }
    }
    mine.into_iter().collect()
}

/// Fights with others for a few names. Only what such a fight can bring about may fail.
fn fight(shared: &Shared, mut choice: Choice) {
    let name = |choice: &mut Choice| {
        let directory = &shared.directories[choice.below(2)];
        directory.join(format!("contested-{}", choice.below(CONTESTED)))
    };
    while !shared.stopped() {
        let (one, other) = (name(&mut choice), name(&mut choice));
        let result = match choice.below(5) {
            0 => fs::File::create_new(&one).map(drop),
            1 => fs::remove_file(&one),
            2 => fs::hard_link(&one, &other),
            3 => fs::rename(&one, &other),
            _ => fs::metadata(&one).map(drop),
        };
        match result.map_err(|error| error.kind()) {
            Ok(()) | Err(ErrorKind::NotFound | ErrorKind::AlreadyExists) => shared.count("fought"),
            Err(kind) => panic!("{} and {}: {kind:?}", one.display(), other.display()),
        }
    }
}

/// Lists both directories again and again, and holds each listing against what was there all the while, or gone before.
fn list(shared: &Shared) {
    while !shared.stopped() {
        for (directory, path) in shared.directories.iter().enumerate() {
            let before = shared.ledger.lock().unwrap().clone();
            let mut listed: HashMap<String, u32> = HashMap::new();
            for entry in fs::read_dir(path).unwrap() {
                let name = entry.unwrap().file_name().into_string().unwrap();
                *listed.entry(name).or_default() += 1;
            }
            let after = shared.ledger.lock().unwrap().there.clone();
            let times = |name: &str| listed.get(name).copied().unwrap_or(0);
            for number in 0..STABLE {
                let name = stable(number);
                assert_eq!(times(&name), 1, "{name} in {}", path.display());
            }
            let here = |entry: &&Entry| entry.0 == directory;
            let name = |entry: Entry| {
                let path = shared.path(entry);
                path.file_name().unwrap().to_str().unwrap().to_owned()
            };
            for &entry in before.there.intersection(&after).filter(here) {
                assert_eq!(times(&name(entry)), 1, "{entry:?} was there all the while");
            }
            for &entry in before.gone.iter().filter(here) {
                assert_eq!(times(&name(entry)), 0, "{entry:?} was gone before");
            }
            // The contested ones come and go under the same name, and may be met twice on the way.
            for (name, times) in &listed {
                assert!(
                    *times == 1 || name.starts_with("contested"),
                    "{name}: {times} times"
                );
            }
            shared.count("listed");
        }
    }
}

fn stable(number: u64) -> String {
    let width = if number.is_multiple_of(5) { 220 } else { 5 };
    format!("stable-{number:0width$}")
}

/// Puts new content in the place of old, by renaming, again and again.
fn replace(shared: &Shared) {
    for version in 1_u64.. {
        if shared.stopped() {
            return;
        }
        let next = shared.directories[(version % 2) as usize].join("next");
        fs::write(&next, format!("{version:020}")).unwrap();
        fs::rename(&next, shared.directories[0].join("current")).unwrap();
        shared.count("replaced");
    }
}

/// What is replaced by renaming is there at every moment, whole, and never older than it was.
fn watch_replacement(shared: &Shared) {
    let mut newest = 0;
    while !shared.stopped() {
        let text = fs::read_to_string(shared.directories[0].join("current")).unwrap();
        assert_eq!(text.len(), 20, "{text:?} is not whole");
        let version: u64 = text.parse().unwrap();
        assert!(version >= newest, "{version} after {newest}");
        newest = version;
        shared.count("watched");
    }
}

/// Moves a directory with a file in it to and fro.
fn move_about(shared: &Shared, mut choice: Choice) {
    let mut from = 0;
    while !shared.stopped() {
        let [here, there] = [from, 1 - from].map(|at| shared.directories[at].join("wanderer"));
        shared.moves.fetch_add(1, Ordering::SeqCst);
        fs::rename(here, there).unwrap();
        shared.moves.fetch_add(1, Ordering::SeqCst);
        from = 1 - from;
        shared.count("moved");
        std::thread::sleep(Duration::from_micros(choice.below(2000) as u64));
    }
}

/// While nothing is being moved, the wanderer is in one place and not in the other, with what is in it.
fn follow(shared: &Shared) {
    while !shared.stopped() {
        let before = shared.moves.load(Ordering::SeqCst);
        let found = [0, 1].map(|at| {
            fs::read_to_string(shared.directories[at].join("wanderer/inside"))
                .map_err(|error| error.kind())
        });
        if before.is_multiple_of(2) && before == shared.moves.load(Ordering::SeqCst) {
            let there = usize::from(found[0].is_err());
            assert_eq!(found[there].as_deref(), Ok("inside"), "{found:?}");
            assert_eq!(found[1 - there], Err(ErrorKind::NotFound), "{found:?}");
            shared.count("followed");
        }
    }
}

/// Every entry can be looked at, and every file has as many links as it has names.
fn check_links(shared: &Shared) {
    let mut names: HashMap<u64, (u64, u64)> = HashMap::new();
    for directory in &shared.directories {
        for entry in fs::read_dir(directory).unwrap() {
            let found = fs::symlink_metadata(entry.unwrap().path()).unwrap();
            if found.is_file() {
                names.entry(found.ino()).or_insert((found.nlink(), 0)).1 += 1;
            }
        }
    }
    for (number, (links, counted)) in names {
        assert_eq!(links, counted, "links and names of inode {number}");
    }
}

/// Everything that the workers left is there with its content, and nothing more.
fn check_workers(shared: &Shared, left: &HashMap<Entry, String>) {
    for (&entry, content) in left {
        let found = fs::read_to_string(shared.path(entry)).unwrap();
        assert_eq!(found, *content, "{entry:?}");
    }
    let mut listed = 0;
    for directory in &shared.directories {
        for entry in fs::read_dir(directory).unwrap() {
            listed += usize::from(
                entry
                    .unwrap()
                    .file_name()
                    .to_string_lossy()
                    .starts_with('w'),
            );
        }
    }
    // The wanderer is not theirs.
    assert_eq!(listed, left.len() + 1);
}

#[test]
fn names_that_many_threads_change_are_never_lost_doubled_or_seen_half_renamed() {
    let seconds = std::env::var("CMKFS_NAMES_SECONDS")
        .map_or(SECONDS, |text| text.parse().expect("a number of seconds"));
    let volume = Volume::mounted();
    let directories = ["a", "b"].map(|name| volume.path(name));
    for directory in &directories {
        fs::create_dir(directory).unwrap();
        for number in 0..STABLE {
            fs::write(directory.join(stable(number)), "").unwrap();
        }
    }
    fs::create_dir(directories[0].join("wanderer")).unwrap();
    fs::write(directories[0].join("wanderer/inside"), "inside").unwrap();
    fs::write(directories[0].join("current"), format!("{:020}", 0)).unwrap();
    let shared = Arc::new(Shared {
        directories,
        ledger: Mutex::default(),
        next: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        moves: AtomicU64::new(0),
        counts: Mutex::default(),
    });

    let mut others: Vec<JoinHandle<()>> = Vec::new();
    let mut start = |run: Box<dyn FnOnce(&Shared) + Send>| {
        let shared = Arc::clone(&shared);
        others.push(std::thread::spawn(move || run(&shared)));
    };
    for rival in 0..RIVALS {
        start(Box::new(move |shared| fight(shared, Choice(1000 + rival))));
    }
    start(Box::new(list));
    start(Box::new(list));
    start(Box::new(replace));
    start(Box::new(watch_replacement));
    start(Box::new(|shared| move_about(shared, Choice(2000))));
    start(Box::new(follow));
    let workers: Vec<_> = (0..WORKERS)
        .map(|worker| {
            let shared = Arc::clone(&shared);
            std::thread::spawn(move || work(&shared, Choice(worker)))
        })
        .collect();

    let until = std::time::Instant::now() + Duration::from_secs(seconds);
    // A thread ends early only by failing.
    while std::time::Instant::now() < until
        && !others.iter().any(JoinHandle::is_finished)
        && !workers.iter().any(JoinHandle::is_finished)
    {
        std::thread::sleep(Duration::from_millis(20));
    }
    shared.stop.store(true, Ordering::Relaxed);
    eventually("every thread has ended", || {
        others.iter().all(JoinHandle::is_finished) && workers.iter().all(JoinHandle::is_finished)
    });
    for other in others {
        other.join().unwrap();
    }
    let left: HashMap<_, _> = workers
        .into_iter()
        .flat_map(|worker| worker.join().unwrap())
        .collect();
    let counts = shared.counts.lock().unwrap().clone();
    eprintln!("{counts:?}");
    for what in [
        "made", "linked", "renamed", "removed", "fought", "listed", "replaced", "watched", "moved",
        "followed",
    ] {
        assert!(counts.contains_key(what), "nothing was {what}: {counts:?}");
    }
    check_workers(&shared, &left);
    check_links(&shared);
    volume.remount();
    check_workers(&shared, &left);
    check_links(&shared);
}
