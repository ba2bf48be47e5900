//! Large directories, and directories that change while they are listed.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::common::Volume;

/// How often each name appears.
fn names(directory: &Path) -> HashMap<String, usize> {
    let mut names = HashMap::new();
    for entry in fs::read_dir(directory).unwrap() {
        *names
            .entry(entry.unwrap().file_name().into_string().unwrap())
            .or_default() += 1;
    }
    names
}

#[test]
fn a_directory_of_100_000_entries_works() {
    const ENTRIES: usize = 100_000;
    let volume = Volume::mounted();
    let directory = volume.path("many");
    fs::create_dir(&directory).unwrap();
    let start = Instant::now();
    for n in 0..ENTRIES {
        fs::write(directory.join(format!("entry-{n}")), "").unwrap();
    }
    let check = || {
        let names = names(&directory);
        assert_eq!(names.len(), ENTRIES);
        for n in 0..ENTRIES {
            assert_eq!(names.get(&format!("entry-{n}")), Some(&1), "entry-{n}");
        }
    };
    check();
    volume.remount();
    check();
    assert!(
        fs::metadata(directory.join("entry-99999"))
            .unwrap()
            .is_file()
    );
    for n in 0..ENTRIES {
        fs::remove_file(directory.join(format!("entry-{n}"))).unwrap();
    }
    assert_eq!(names(&directory).len(), 0);
    fs::remove_dir(&directory).unwrap();
    // A hundred times slower would be quadratic; a loaded machine is not.
    assert!(
        start.elapsed() < Duration::from_secs(200),
        "it took {:?}",
        start.elapsed()
    );
}

#[test]
fn what_stays_is_listed_exactly_once_while_other_entries_come_and_go() {
    const STABLE: usize = 2000;
    const LISTINGS: usize = 20;
    let volume = Volume::mounted();
    let directory = volume.path("busy");
    fs::create_dir(&directory).unwrap();
    for n in 0..STABLE {
        // Short ones and ones that are kept in a file of their own.
        let length = if n % 10 == 0 { 220 } else { 6 };
        fs::write(directory.join(format!("{n:0length$}")), "").unwrap();
    }
    let done = AtomicBool::new(false);
    std::thread::scope(|threads| {
        let (directory, done) = (&directory, &done);
        let churn = threads.spawn(move || {
            let mut round = 0_usize;
            while !done.load(Ordering::Relaxed) {
                let length = if round.is_multiple_of(7) { 230 } else { 9 };
                let path = directory.join(format!("churn-{round:0length$}"));
                fs::write(&path, "").unwrap();
                let moved = directory.join(format!("moved-{round}"));
                fs::rename(&path, &moved).unwrap();
                fs::remove_file(&moved).unwrap();
                round += 1;
            }
            round
        });
        for _ in 0..LISTINGS {
            let names = names(directory);
            let stable = names
                .iter()
                .filter(|(name, _)| name.starts_with(|c: char| c.is_ascii_digit()));
            let (mut seen, mut times) = (0, 0);
            for (_, count) in stable {
                seen += 1;
                times += count;
            }
            assert_eq!((seen, times), (STABLE, STABLE));
        }
        done.store(true, Ordering::Relaxed);
        assert!(churn.join().unwrap() > 0);
    });
    volume.remount();
    assert_eq!(names(&directory).len(), STABLE);
}

#[test]
fn a_tree_can_be_removed_while_it_is_listed() {
    let volume = Volume::mounted();
    for n in 0..300 {
        fs::create_dir_all(volume.path(format!("tree/{n}/inner"))).unwrap();
        fs::write(volume.path(format!("tree/{n}/{}", "l".repeat(250))), "long").unwrap();
    }
    fs::remove_dir_all(volume.path("tree")).unwrap();
    assert_eq!(names(&volume.mountpoint()).len(), 0);
}
