//! A storm: eight threads of file operations on a real mount, while its keys are disabled, enabled, scheduled for deletion,
//! rotated, deleted and imported, aliases are moved, and everything is rewrapped and rekeyed, at random. Nothing hangs, nothing
//! is refused but as it is documented, and nothing that was acknowledged is lost.
//!
//! `CMKFS_STORM_SECONDS` says how long, ten seconds where it says nothing.

#[path = "../common/mod.rs"]
mod common;

mod chaos;
mod keys;
mod model;
mod random;
mod watch;
mod worker;

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use common::Volume;
use keys::{BOUND, Keys};
use random::Random;
use watch::{EndsStorm, Watched};
use worker::Worker;

const WORKERS: usize = 8;
/// Threads that run commands.
const CHANGING: usize = WORKERS;
const WORKING: usize = WORKERS + 1;

fn duration() -> Duration {
    let seconds = std::env::var("CMKFS_STORM_SECONDS").ok();
    let seconds = seconds.map(|text| text.parse().expect("seconds"));
    Duration::from_secs(seconds.unwrap_or(10))
}

/// Directories of the root's key and of the others, one for each thread or for all of them.
fn folders(volume: &Volume, name: &str) -> Vec<PathBuf> {
    let tops = [""].iter().chain(&BOUND);
    let folders: Vec<_> = tops.map(|top| volume.path(top).join(name)).collect();
    for folder in &folders {
        fs::create_dir(folder).unwrap();
    }
    folders
}

/// Where every thread of the daemon is in the kernel.
fn stacks(volume: &Volume) -> String {
    let Some(daemon) = volume.daemon() else {
        return "the daemon is gone".to_owned();
    };
    let tasks = fs::read_dir(format!("/proc/{daemon}/task")).into_iter();
    let stack = |task: fs::DirEntry| {
        let wchan = fs::read_to_string(task.path().join("wchan")).unwrap_or_default();
        let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        format!("{:?} {} {wchan}\n", task.file_name(), name.trim())
    };
    tasks.flatten().flatten().map(stack).collect()
}

/// Waits until the time is up and all threads have ended; a thread that is stuck is freed by a kill of the daemon.
fn watch_over(volume: &Volume, watched: &Watched, have_ended: impl Fn() -> bool) {
    let until = Instant::now() + duration();
    while !have_ended() {
        if Instant::now() > until {
            watched.end();
        }
        let stuck = watched.stuck();
        if !stuck.is_empty() {
            watched.give_up();
            let stacks = stacks(volume);
            volume.kill();
            panic!("stuck: {stuck:#?}\n{stacks}");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn is_sound(volume: &Volume) {
    let info = volume.succeed(&["volume", "info", "CIPHERDIR", "--output", "json"]);
    let info: serde_json::Value = serde_json::from_str(&info).unwrap();
    assert_eq!(info["Damaged"], 0, "{info}");
    volume.succeed(&["audit", "verify"]);
    let keys = volume.succeed(&["keys", "verify", "--output", "json"]);
    let keys: serde_json::Value = serde_json::from_str(&keys).unwrap();
    assert_eq!(keys["Damaged"], serde_json::json!([]), "{keys}");
    let log = volume.log();
    for bad in ["panicked", "fails authentication", "changed outside"] {
        assert!(!log.contains(bad), "the log says {bad}");
    }
}

#[test]
fn a_storm_of_file_operations_and_key_changes_loses_nothing_and_hangs_nowhere() {
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    let volume = &Volume::mounted();
    let daemon = volume.daemon().expect("a daemon");
    let keys = &Keys::new(volume);
    let watched = &Watched::new(WORKERS + 2);
    let shared = &folders(volume, "shared");
    let workers: Vec<_> = (0..WORKERS)
        .map(|n| Worker::new(n, seed, folders(volume, &format!("t{n}")), watched))
        .collect();
    let mut workers: Vec<Worker> = std::thread::scope(|scope| {
        let threads: Vec<_> = workers
            .into_iter()
            .enumerate()
            .map(|(n, mut worker)| {
                scope.spawn(move || {
                    let _ends = EndsStorm(watched);
                    let mut random = Random::new(!seed, n as u64);
                    while !watched.is_over() {
                        match random.below(4) {
                            0 => chaos::step(n, shared, &mut random, watched),
                            _ => worker.step(),
                        }
                    }
                    worker
                })
            })
            .collect();
        let commands = [CHANGING, WORKING].map(|thread| {
            scope.spawn(move || {
                let _ends = EndsStorm(watched);
                let mut random = Random::new(seed, thread as u64);
                let mut count = 0;
                while !watched.is_over() {
                    match thread {
                        CHANGING => keys.change((thread, watched), &mut random),
                        _ => keys.work((thread, watched), &mut random),
                    }
                    count += 1;
                }
                count
            })
        });
        watch_over(volume, watched, || {
            threads.iter().all(|thread| thread.is_finished())
                && commands.iter().all(|thread| thread.is_finished())
        });
        let counts = commands.map(|thread| thread.join().unwrap());
        println!(
            "{counts:?} rounds of commands; longest: {}",
            watched.longest()
        );
        assert!(counts.iter().all(|count| *count > 0));
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    let sum = |count: fn(&Worker) -> u64| workers.iter().map(count).sum::<u64>();
    let (done, refused) = (sum(|worker| worker.counts.0), sum(|worker| worker.counts.1));
    println!("{done} file operations succeeded, {refused} were refused");
    assert!(done > 100 && refused > 10, "{done} and {refused}");

    assert_eq!(volume.daemon(), Some(daemon), "the daemon has lived on");
    keys.restore();
    for _ in 0..2 {
        for worker in &mut workers {
            worker.check();
        }
        is_sound(volume);
        volume.remount();
    }
}
