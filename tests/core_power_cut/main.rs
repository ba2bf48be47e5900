//! A power cut in the core: the backing directory forgets what was not synced, in any way in which a real filesystem may
//! (`cut` lists the rules), after random histories; what is left is opened, and held against what was promised.
//!
//! `record` keeps the history of the disk · `cut` makes of it what may be left · `build` puts that into a directory ·
//! `operation` what is done · `model` what is promised · `check` whether that holds.
//!
//! `PROPTEST_CASES` says how many histories; `CMKFS_CUTS` how many states each is cut into (24).

#[path = "../support/mod.rs"]
mod support;

mod build;
mod check;
mod cut;
mod model;
mod operation;
mod record;

use std::path::Path;
use std::sync::Arc;

use build::build;
use check::{Demand, Found, Verdict, remove, use_and_remove};
use cmkfs::fs::backing::Backing;
use cmkfs::volume;
use cut::{Chance, Disk, Order, State, cut, kill};
use model::Model;
use operation::{Operation, Run, histories};
use proptest::prelude::*;
use record::Recorder;
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
    volume::create(
        &volume.cipher(),
        &volume.keys,
        &DEFAULT_ALIAS.parse().unwrap(),
    )
    .unwrap();
    let recorder = Recorder::new(&volume.cipher());
    let observer = recorder.clone();
    let tree = Direct::on(volume, move || {
        Backing::observed(Box::new(observer.clone()))
    });
    let ends = vec![recorder.history().events.len()];
    let mut run = Run {
        tree,
        recorder,
        model: Model::new(),
        ends,
    };
    for operation in history {
        run.step(operation);
    }
    run
}

/// Opens what is left after so many events, and checks it.
fn judge(run: &Run, state: &State, events: usize, seed: usize, torn: bool) -> Verdict {
    let volume = TestVolume {
        dir: temporary(),
        keys: Arc::clone(&run.tree.volume.keys),
    };
    std::fs::create_dir(volume.cipher()).unwrap();
    let numbers = build(state, &volume.cipher());
    let mut tree = Direct::on(volume, Backing::default);
    let done = run.ends.iter().rposition(|end| *end <= events).unwrap_or(0);
    let begun = done + usize::from(run.ends[done] < events);
    let mut found = Found {
        tree: &mut tree,
        model: &run.model,
        numbers: &numbers,
        done,
        begun,
        demand: demand(),
        torn,
        pardoned: Vec::new(),
        undeletable: false,
    };
    let verdict = found.check();
    let (sound, undeletable) = (found.pardoned.is_empty(), found.undeletable);
    let verdict = verdict.and_then(|()| match sound {
        true => use_and_remove(&mut tree, seed),
        false if undeletable => Ok(()),
        false => remove(&mut tree, ""),
    });
    verdict.map_err(|error| {
        format!(
            "after {done} operations ({events} of {} calls): {error}",
            run.ends.last().unwrap()
        )
    })
}

fn demand() -> Demand {
    match std::env::var("CMKFS_DEMAND").as_deref() {
        Ok("unchanged") => Demand::Unchanged,
        Ok("promised") => Demand::Promised,
        _ => Demand::Everything,
    }
}

/// How many states a history is cut into.
fn cuts() -> usize {
    std::env::var("CMKFS_CUTS").map_or(24, |cuts| cuts.parse().unwrap())
}

/// Cuts a history at many points, each in many ways.
fn power_cuts(history: &[Operation], disk: Disk) -> Verdict {
    let run = run(history);
    let recorded = run.recorder.history();
    let all = recorded.events.len();
    let mut points = Chance::new(0);
    for seed in 0..cuts() {
        // The later, the more can be lost.
        let events = if seed % 3 == 0 {
            all
        } else {
            points.below(all + 1)
        };
        let state = cut(&recorded, events, disk, Chance::new(seed as u64));
        judge(&run, &state, events, seed, disk.torn).map_err(|error| {
            format!("cut {seed}: {error}\n{}", told(&recorded.events[..events]))
        })?;
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
        failure_persistence: None, max_shrink_iters: 4000, ..ProptestConfig::default() })]

    #[test]
    fn what_was_synced_survives_a_power_cut(history in histories(12)) {
        let verdict = power_cuts(&history, JOURNAL);
        prop_assert!(verdict.is_ok(), "{}", verdict.unwrap_err());
    }

    #[test]
    fn what_was_synced_survives_where_sizes_come_before_data(history in histories(12)) {
        let verdict = power_cuts(&history, Disk { ordered: false, ..JOURNAL });
        prop_assert!(verdict.is_ok(), "{}", verdict.unwrap_err());
    }

    #[test]
    fn what_was_synced_survives_torn_pages(history in histories(12)) {
        let verdict = power_cuts(&history, Disk { torn: true, ordered: false, ..JOURNAL });
        prop_assert!(verdict.is_ok(), "{}", verdict.unwrap_err());
    }

    #[test]
    fn what_was_synced_survives_where_names_wait_for_no_others(history in histories(12)) {
        let verdict = power_cuts(&history, Disk { order: Order::Loose, ..JOURNAL });
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
