//! The daemon is killed with SIGKILL at a random instant of a load of all kinds at once, round after round on the same
//! volume, and the next mount takes the dead one's place over with no help: every block is readable, and old or new; nothing
//! that was acknowledged is lost; what the database and git had committed is there; everything can be removed, and nothing
//! piles up.
//!
//! `CMKFS_KILLS` says how many rounds, twenty where it says nothing; `CMKFS_LOAD` names one kind of load, to kill that alone.

#[path = "../common/mod.rs"]
mod common;
#[path = "../storm/random.rs"]
mod random;

mod data;
mod names;
mod programs;
mod take_over;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::{Volume, eventually};
use random::Random;

/// After so many rounds everything is removed, and made anew.
const ROUNDS_TO_REMOVAL: u64 = 10;
/// A round in which little is acknowledged ends nevertheless, after so many milliseconds at most.
const LONGEST: usize = 2000;

/// What the loads of a round share.
#[derive(Default)]
pub struct Round {
    acknowledged: AtomicU64,
    over: AtomicBool,
}

impl Round {
    /// Something was acknowledged.
    pub fn count(&self) {
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
    }

    /// The daemon was killed.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

/// What a load did in a round ended with an error: the daemon was killed, and nothing else was wrong.
pub fn ended_by_the_kill(what: &str, error: &io::Error) {
    let documented = [libc::ENOTCONN, libc::ECONNABORTED, libc::EIO, libc::EINTR];
    let errno = error.raw_os_error().unwrap_or_default();
    // What the kernel says of a request in a ring that goes.
    let of_a_ring = errno == libc::ECANCELED && common::may_have_rings();
    assert!(documented.contains(&errno) || of_a_ring, "{what}: {error}");
}

/// One kind of work, in a directory of its own.
pub trait Load: Send {
    /// Begins in an empty directory.
    fn begin(&mut self, folder: &Path);
    /// Works until the daemon is gone.
    fn work(&mut self, folder: &Path, random: &mut Random, round: &Round);
    /// Looks at everything that is there.
    fn check(&mut self, folder: &Path);
}

/// What kills leave in a key directory and a volume.
#[derive(Debug, Default, PartialEq, Eq)]
struct Leftovers {
    temporary: usize,
    side_files: usize,
    journals: usize,
    sockets: usize,
}

fn leftovers(volume: &Volume) -> Leftovers {
    let count = |folder: PathBuf| fs::read_dir(folder).map_or(0, Iterator::count);
    let mut found = Leftovers {
        side_files: count(volume.ciphertext().join("cmkfs.links")),
        journals: count(volume.ciphertext().join("cmkfs.journal")),
        sockets: count(volume.folder().join("keys/mounts")),
        ..Leftovers::default()
    };
    let mut pending = vec![volume.ciphertext()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(directory).unwrap().flatten() {
            let name = entry.file_name();
            found.temporary += usize::from(name.to_string_lossy().starts_with("cmkfs.tmp."));
            if entry.file_type().unwrap().is_dir() {
                pending.push(entry.path());
            }
        }
    }
    found
}

/// Everything that can be reached is readable.
fn read_all(directory: &Path) {
    for entry in fs::read_dir(directory).unwrap_or_else(|error| panic!("{directory:?}: {error}")) {
        let path = entry.unwrap().path();
        let kind = fs::symlink_metadata(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        let read = if kind.is_dir() {
            read_all(&path);
            Ok(())
        } else if kind.is_symlink() {
            fs::read_link(&path).map(drop)
        } else {
            fs::read(&path).map(drop)
        };
        read.unwrap_or_else(|error| panic!("{path:?}: {error}"));
    }
}

#[test]
fn a_daemon_killed_at_any_instant_of_a_mixed_load_loses_nothing() {
    let rounds = std::env::var("CMKFS_KILLS").ok();
    let rounds: u64 = rounds.map_or(20, |text| text.parse().expect("a number"));
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    let volume = &Volume::mounted();
    let mut random = Random::new(seed, 99);
    let mut loads: Vec<(&str, Box<dyn Load>)> = vec![
        ("blocks", Box::new(data::Blocks::default())),
        ("lines", Box::new(data::Lines::default())),
        ("pages", Box::new(data::Pages::default())),
        ("names", Box::new(names::Names::default())),
        ("database", Box::new(programs::Database::default())),
        ("git", Box::new(programs::Git::default())),
    ];
    if let Ok(only) = std::env::var("CMKFS_LOAD") {
        loads.retain(|(name, _)| *name == only);
        assert!(!loads.is_empty(), "there is no load {only}");
    }
    let (mut acknowledged, mut most) = (0, Leftovers::default());
    for count in 0..rounds {
        if count % ROUNDS_TO_REMOVAL == 0 {
            for (name, load) in &mut loads {
                fs::create_dir(volume.path(*name)).unwrap();
                load.begin(&volume.path(*name));
            }
        }
        let round = &Round::default();
        let wanted = 1 + random.below(600) as u64;
        std::thread::scope(|scope| {
            for (n, (name, load)) in loads.iter_mut().enumerate() {
                let folder = volume.path(*name);
                scope.spawn(move || {
                    let mut random = Random::new(seed + count, n as u64);
                    load.work(&folder, &mut random, round);
                });
            }
            scope.spawn(|| programs::change_keys(volume, count, round));
            let until = Instant::now() + Duration::from_millis(random.below(LONGEST) as u64);
            while round.acknowledged.load(Ordering::Relaxed) < wanted && Instant::now() < until {
                std::thread::sleep(random_pause(&mut Random::new(seed, count)));
            }
            volume.while_used(|| volume.kill());
            round.over.store(true, Ordering::Relaxed);
        });
        acknowledged += round.acknowledged.load(Ordering::Relaxed);
        volume.mount(&[]);
        if count % 7 == 6 {
            // And after a clean end nothing of the recovery is left to see.
            end_and_mount(volume);
        }
        for (name, load) in &mut loads {
            load.check(&volume.path(*name));
        }
        read_all(&volume.mountpoint());
        let left = leftovers(volume);
        most = Leftovers {
            temporary: most.temporary.max(left.temporary),
            side_files: most.side_files.max(left.side_files),
            journals: most.journals.max(left.journals),
            sockets: most.sockets.max(left.sockets),
        };
        if count % ROUNDS_TO_REMOVAL == ROUNDS_TO_REMOVAL - 1 || count == rounds - 1 {
            for (name, _) in &loads {
                let path = volume.path(*name);
                fs::remove_dir_all(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
            }
            println!("after {} kills: {:?}", count + 1, leftovers(volume));
        }
    }
    println!("{rounds} kills, {acknowledged} operations acknowledged, at most {most:?}");
    assert!(acknowledged > rounds * 5, "{acknowledged} operations");
    // A clean end and a command that looks for mounts.
    end_and_mount(volume);
    volume.succeed(&["status"]);
    let left = leftovers(volume);
    assert_eq!(left.sockets, 1, "dead sockets are removed");
    // Each kill may have come in the middle of one thing, and journals of removed files wait for a sync; a repair clears
    // all that away.
    assert!(
        ((left.side_files + left.temporary) as u64) <= rounds,
        "{left:?}"
    );
    volume.unmount();
    volume.succeed(&["volume", "verify", "CIPHERDIR", "--repair"]);
    let left = leftovers(volume);
    assert_eq!(left, Leftovers::default());
}

/// Unmounts, whoever on this machine may look at all mounts just now, and mounts again.
fn end_and_mount(volume: &Volume) {
    eventually("the mount is free", || {
        volume.run(&["unmount", "MOUNTPOINT"]).status.success()
    });
    volume.mount(&[]);
}

fn random_pause(random: &mut Random) -> Duration {
    random.pause(2)
}
