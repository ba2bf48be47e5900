//! Power cuts, for real: a volume on ext4, xfs and btrfs is written by many threads, and now and then everything that its disk
//! holds at that moment is kept, without a sync. Each of these disks is then mounted as after a power cut, and the volume on it
//! is compared with what its writers had been told is durable.
//!
//! `CMKFS_POWER_CUTS` says how many cuts each filesystem gets, and `CMKFS_POWER_SEED` with which seed a run begins.
//! `CMKFS_POWER_PLAIN` lets the same work on the filesystem itself, without cmkfs: what does not hold there, nobody can promise.
//! What a test needs: loop devices, and the programs that scripts/test installs.

#[path = "../common/mod.rs"]
mod common;
#[path = "../storm/random.rs"]
mod random;

mod check;
mod content;
mod disk;
mod files;
mod hostile;
mod ledger;
mod model;
mod names;
mod pattern;
mod sqlite;
mod sys;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use check::Problem;
use common::{Volume, eventually, succeed};
use disk::{Filesystem, Pool};
use files::{Files, LARGE, SMALL, make_top};
use hostile::EarlyWriteBack;
use ledger::Ledger;
use model::Model;
use names::Names;
use random::Random;
use sqlite::{ROLLBACK, Sqlite, WAL};

/// Cuts of one run on one disk.
const CUTS_A_RUN: usize = 8;
const WORKERS: usize = 7;

/// Descriptors of the daemon: so few that files are sealed while the others are written.
const DESCRIPTORS: &str = "--nofile=400:400";

/// Without cmkfs.
fn is_plain() -> bool {
    std::env::var_os("CMKFS_POWER_PLAIN").is_some()
}

/// Where the workers' directories are.
fn root(volume: &Volume) -> PathBuf {
    if is_plain() {
        volume.ciphertext()
    } else {
        volume.mountpoint()
    }
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |text| text.parse().expect(name))
}

#[test]
fn what_was_synced_on_ext4_is_there_after_a_power_cut() {
    cut_often(Filesystem::Ext4);
}

#[test]
fn what_was_synced_on_xfs_is_there_after_a_power_cut() {
    cut_often(Filesystem::Xfs);
}

#[test]
fn what_was_synced_on_btrfs_is_there_after_a_power_cut() {
    cut_often(Filesystem::Btrfs);
}

fn cut_often(filesystem: Filesystem) {
    disk::needs();
    let mut left = number("CMKFS_POWER_CUTS", 4) as usize;
    let mut seed = number("CMKFS_POWER_SEED", u64::from(std::process::id()));
    let mut found: Vec<Problem> = Vec::new();
    let mut cuts = 0;
    while left > 0 {
        let now = left.min(CUTS_A_RUN);
        let begun = Instant::now();
        let problems = run(filesystem, seed, now);
        println!(
            "{filesystem:?} seed {seed}: {now} cuts, {} problems, {:?}",
            problems.len(),
            begun.elapsed()
        );
        for problem in &problems {
            let text = problem.text.replace(names::LONG, "…");
            let text: String = text.chars().take(1500).collect();
            println!(
                "  {} {text}",
                if problem.broken { "BROKEN" } else { "unsynced" }
            );
        }
        found.extend(problems);
        (left, cuts, seed) = (left - now, cuts + now, seed + 1);
    }
    let broken = found.iter().filter(|problem| problem.broken).count();
    println!(
        "{filesystem:?}: {cuts} cuts, {broken} broken promises, {} unsynced and unreadable",
        found.len() - broken
    );
    assert_eq!(broken, 0, "promises were broken");
}

/// What the ledgers said before and after a cut.
struct Cut {
    name: String,
    positions: Vec<(usize, usize)>,
}

/// Ends the run also when a thread panics.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Unmounts the volume also when the test panics: its disk can go only after that.
struct Mounted<'a>(&'a Volume);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        if self.0.is_mounted() {
            let _ = self.0.run(&["unmount", "MOUNTPOINT"]);
        }
        if self.0.is_mounted() && self.0.daemon().is_some() {
            self.0.kill();
            let _ = self.0.run(&["unmount", "MOUNTPOINT"]);
        }
    }
}

/// Writes to a volume on a new disk, and cuts its power so many times.
fn run(filesystem: Filesystem, seed: u64, cuts: usize) -> Vec<Problem> {
    let mut random = Random::new(seed, 99);
    let volume = &Volume::bare(None);
    let pool = &Pool::new(volume.folder());
    let backing = volume.ciphertext();
    std::fs::create_dir(&backing).unwrap();
    std::fs::create_dir(volume.mountpoint()).unwrap();
    let _early = (random.below(2) == 0).then(EarlyWriteBack::new);
    let ledgers: &[Ledger] = &std::array::from_fn::<_, WORKERS, _>(|_| Ledger::default());
    let cuts = {
        let _disk = pool.disk("disk", filesystem, &backing);
        if !is_plain() {
            volume.succeed(&["init", "CIPHERDIR"]);
            let mut mount = volume.program("prlimit");
            mount.arg(DESCRIPTORS).arg(env!("CARGO_BIN_EXE_cmkfs"));
            succeed(mount.arg("mount").arg(&backing).arg(volume.mountpoint()));
        }
        let _mounted = Mounted(volume);
        (0..WORKERS).for_each(|worker| make_top(&top(volume, worker)));
        let mut cuts = write_and_cut(volume, pool, ledgers, seed, cuts - 1);
        // And one while everything is sealed.
        std::thread::scope(|scope| {
            let unmount = scope.spawn(|| {
                if volume.is_mounted() {
                    volume.unmount();
                }
            });
            std::thread::sleep(random.pause(60));
            cuts.push(cut(pool, ledgers, cuts.len()));
            unmount.join().unwrap();
        });
        volume.wait_until_free();
        cuts
    };
    let mut problems = Vec::new();
    for cut in &cuts {
        let _disk = pool.boot(&cut.name, filesystem, &backing);
        let found = check_cut(filesystem, volume, ledgers, cut, seed);
        problems.extend(found.into_iter().map(|problem| Problem {
            text: format!("{}: {}", cut.name, problem.text),
            ..problem
        }));
        drop(_disk);
        pool.remove(&cut.name);
    }
    problems
}

fn top(volume: &Volume, worker: usize) -> PathBuf {
    root(volume).join(format!("w{worker}"))
}

fn write_and_cut(
    volume: &Volume,
    pool: &Pool,
    ledgers: &[Ledger],
    seed: u64,
    count: usize,
) -> Vec<Cut> {
    let over = &AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _ends = Ends(over);
        for (n, ledger) in ledgers.iter().enumerate() {
            scope.spawn(move || {
                let _ends = Ends(over);
                work(n, &top(volume, n), ledger, seed, over);
            });
        }
        for (n, folder) in [volume.ciphertext(), volume.mountpoint()]
            .into_iter()
            .enumerate()
        {
            scope.spawn(move || {
                let mut random = Random::new(seed, 50 + n as u64);
                hostile::send_random_pages(&folder, &mut random, over);
            });
        }
        let mut random = Random::new(seed, 98);
        // Now and then so long that the sealer comes by in between.
        let pause = if random.below(6) == 0 { 8000 } else { 1000 };
        let mut cuts = Vec::new();
        while cuts.len() < count && !over.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(100) + random.pause(pause));
            cuts.push(cut(pool, ledgers, cuts.len()));
        }
        cuts
    })
}

fn work(n: usize, folder: &Path, ledger: &Ledger, seed: u64, over: &AtomicBool) {
    let (worker, random) = (n as u32, Random::new(seed, n as u64));
    let mut step: Box<dyn FnMut()> = match n {
        0 | 1 => {
            let mut files = Files::new(worker, LARGE, folder.to_owned(), ledger, random);
            Box::new(move || files.step())
        }
        2 => {
            let mut files = Files::new(worker, SMALL, folder.to_owned(), ledger, random);
            Box::new(move || files.step())
        }
        3 | 4 => {
            let mut names = Names::new(worker, folder.to_owned(), ledger, random);
            Box::new(move || names.step())
        }
        _ => {
            let mode = if n == 5 {
                WAL
            } else {
                ROLLBACK[(seed % 3) as usize]
            };
            let mut sqlite = Sqlite::new(mode, folder, ledger);
            Box::new(move || sqlite.step())
        }
    };
    while !over.load(Ordering::Relaxed) {
        step();
    }
}

/// Cuts the power, as far as the clone is concerned.
fn cut(pool: &Pool, ledgers: &[Ledger], n: usize) -> Cut {
    let name = format!("cut {n}");
    let before: Vec<usize> = ledgers.iter().map(Ledger::position).collect();
    pool.cut("disk", &name);
    let after = ledgers.iter().map(Ledger::position);
    Cut {
        name,
        positions: before.into_iter().zip(after).collect(),
    }
}

fn check_cut(
    filesystem: Filesystem,
    volume: &Volume,
    ledgers: &[Ledger],
    cut: &Cut,
    seed: u64,
) -> Vec<Problem> {
    if !is_plain() {
        let mounted = volume.run(&["mount", "CIPHERDIR", "MOUNTPOINT"]);
        if !mounted.status.success() {
            let text = format!(
                "the volume cannot be mounted: {}",
                String::from_utf8_lossy(&mounted.stderr)
            );
            return vec![Problem { broken: true, text }];
        }
    }
    let _mounted = Mounted(volume);
    let models = ledgers.iter().enumerate().zip(&cut.positions);
    let models: Vec<Model> = models
        .map(|((n, ledger), (before, after))| {
            let mut model = Model::replay(n as u32, ledger, *before, *after);
            model.names_return = filesystem == Filesystem::Btrfs;
            model
        })
        .collect();
    let check = || {
        let found = models
            .iter()
            .enumerate()
            .map(|(n, model)| check::check(&top(volume, n), model));
        found.flatten().collect::<Vec<_>>()
    };
    let mut problems = check();
    // What was recovered is sealed at the latest when it is unmounted, and is to be the same after.
    if seed.is_multiple_of(2) && volume.is_mounted() {
        volume.remount();
        let again = check();
        if again.len() != problems.len() {
            let text = format!(
                "{} problems were {} before a remount: {again:#?}",
                again.len(),
                problems.len()
            );
            problems.push(Problem { broken: true, text });
        }
    }
    problems.extend(check::use_and_empty(&root(volume)));
    eventually("the volume is unmounted", || {
        !volume.is_mounted() || volume.run(&["unmount", "MOUNTPOINT"]).status.success()
    });
    volume.wait_until_free();
    problems
}
