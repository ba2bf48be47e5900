//! A power cut in the core: the backing directory forgets what was not synced, in any way in which a real filesystem may
//! (`cut` lists the rules), after random histories; what is left is opened, and held against what was promised.
//!
//! `record` keeps the history of the disk · `cut` makes of it what may be left, `cache` of a file's content, by `chance` ·
//! `build` puts that into a directory · `operation` what is done · `model` what is promised · `check` whether that holds.
//!
//! `PROPTEST_CASES` says how many histories each test tries (40), `CMKFS_CUTS` into how many states each is cut (24).

#[path = "../support/mod.rs"]
mod support;

mod build;
mod cache;
mod chance;
mod check;
mod cut;
mod known;
mod model;
mod operation;
mod record;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use build::build;
use chance::Chance;
use check::{Found, Verdict, remove, use_and_remove};
use cmkfs::fs::backing::Backing;
use cmkfs::volume;
use cut::{Disk, Order, State, cut, kill};
use operation::{Operation, Run, histories};
use proptest::prelude::*;
use record::Id;
use support::direct::Direct;
use support::{DEFAULT_ALIAS, TestVolume, key_service};

/// Where there is no disk to wait for.
fn temporary() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        tempfile::tempdir_in(memory).unwrap()
    } else {
        tempfile::tempdir().unwrap()
    }
}

/// Does a history on a new volume.
fn run(history: &[Operation]) -> Run {
    let dir = temporary();
    let keys = key_service(&dir.path().join("keys"));
    let volume = TestVolume { dir, keys };
    let key = DEFAULT_ALIAS.parse().unwrap();
    volume::create(&volume.cipher(), &volume.keys, &key).unwrap();
    Run::on(volume, history)
}

/// A volume with what is left.
fn volume_of(run: &Run, state: &State) -> (TestVolume, HashMap<u64, Id>) {
    let volume = TestVolume {
        dir: temporary(),
        keys: Arc::clone(&run.tree.volume.keys),
    };
    std::fs::create_dir(volume.cipher()).unwrap();
    let numbers = build(state, &volume.cipher());
    (volume, numbers)
}

/// Opens what is left after so many events, and checks it. Tells whether all of it can be read.
fn judge(run: &Run, state: &State, events: usize, seed: usize, torn: bool) -> Result<bool, String> {
    let (volume, numbers) = volume_of(run, state);
    let mut tree = Direct::on(volume, Backing::default);
    let done = run.ends.iter().rposition(|end| *end <= events).unwrap_or(0);
    let begun = done + usize::from(run.ends[done] < events);
    let mut found = Found {
        tree: &mut tree,
        model: &run.model,
        numbers: &numbers,
        done,
        begun,
        torn,
        pardoned: false,
    };
    let verdict = found.check();
    let whole = !found.pardoned;
    let verdict = verdict.and_then(|()| match whole {
        true => use_and_remove(&mut tree, seed),
        false => remove(&mut tree, ""),
    });
    let calls = run.ends.last().unwrap();
    verdict
        .map(|()| whole)
        .map_err(|error| format!("after {done} operations ({events} of {calls} calls): {error}"))
}

fn cases() -> u32 {
    match std::env::var("PROPTEST_CASES") {
        Ok(_) => ProptestConfig::default().cases,
        Err(_) => 40,
    }
}

/// How many states a history is cut into.
fn cuts() -> usize {
    std::env::var("CMKFS_CUTS").map_or(24, |cuts| cuts.parse().unwrap())
}

/// Cuts what was done at many points, each in many ways. What some of them leave is worked on again, and cut again.
fn power_cuts(run: &Run, cuts: usize, disk: Disk, again: &[Operation]) -> Verdict {
    let recorded = run.recorder.history();
    let all = recorded.events.len();
    let mut points = Chance::new(0);
    for seed in 0..cuts {
        // The later, the more can be lost.
        let events = if seed % 3 == 0 {
            all
        } else {
            points.below(all + 1)
        };
        let state = cut(&recorded, events, disk, Chance::new(seed as u64));
        let told = |error| format!("cut {seed}: {error}\n{}", told(&recorded.events[..events]));
        let whole = judge(run, &state, events, seed, disk.torn).map_err(told)?;
        if whole && seed % 8 == 3 && !again.is_empty() {
            let next = Run::on(volume_of(run, &state).0, again);
            power_cuts(&next, cuts / 4, disk, &[])
                .map_err(|error| told(format!("and then {error}\nwhich had begun with")))?;
        }
    }
    Ok(())
}

fn told(events: &[record::Event]) -> String {
    let lines = events.iter().enumerate().map(|(at, event)| match event {
        record::Event::Write(id, offset, data) => {
            format!("  {at} Write({id}, {offset}, {} bytes)\n", data.len())
        }
        event => format!("  {at} {event:?}\n"),
    });
    lines.collect()
}

const JOURNAL: Disk = Disk {
    order: Order::Journal,
    ordered: true,
    torn: false,
};

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases(), failure_persistence: None, max_shrink_iters: 4000, ..ProptestConfig::default() })]

    #[test]
    fn what_was_synced_survives_a_power_cut(history in histories(12), again in histories(6)) {
        let verdict = power_cuts(&run(&history), cuts(), JOURNAL, &again);
        prop_assert!(verdict.is_ok(), "{}", verdict.unwrap_err());
    }

    #[test]
    fn what_was_synced_survives_where_sizes_come_before_data(history in histories(12), again in histories(6)) {
        let verdict = power_cuts(&run(&history), cuts(), Disk { ordered: false, ..JOURNAL }, &again);
        prop_assert!(verdict.is_ok(), "{}", verdict.unwrap_err());
    }

    #[test]
    fn what_was_synced_survives_torn_pages(history in histories(12), again in histories(6)) {
        let verdict = power_cuts(&run(&history), cuts(), Disk { torn: true, ordered: false, ..JOURNAL }, &again);
        prop_assert!(verdict.is_ok(), "{}", verdict.unwrap_err());
    }

    #[test]
    fn what_was_synced_survives_where_names_wait_for_no_others(history in histories(12), again in histories(6)) {
        let verdict = power_cuts(&run(&history), cuts(), Disk { order: Order::Loose, ..JOURNAL }, &again);
        prop_assert!(verdict.is_ok(), "{}", verdict.unwrap_err());
    }

    #[test]
    fn a_killed_process_leaves_all_but_the_end_of_its_last_write(history in histories(12)) {
        let run = run(&history);
        let recorded = run.recorder.history();
        let mut chance = Chance::new(0);
        for seed in 0..cuts() {
            let events = chance.below(recorded.events.len() + 1);
            let pages = chance.below(if seed % 2 == 0 { 3 } else { 60 });
            let verdict = judge(&run, &kill(&recorded, events, pages as u64), events, seed, false);
            prop_assert!(verdict.is_ok(), "{} pages of the last write: {}\n{}", pages, verdict.unwrap_err(), told(&recorded.events[..events]));
        }
    }
}
