//! A power cut in the core: the backing directory forgets what was not synced, in any way in which a real filesystem may
//! (`cut` lists the rules), after random histories; what is left is opened, and held against what was promised.
//!
//! `record` keeps the history of the disk · `cut` makes of it what may be left, `cache` of a file's content, by `chance` ·
//! `build` puts that into a directory · `operation` what is done · `model` what is promised · `check` whether that holds ·
//! `trial` all of it together, which a fuzz target does too.
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
mod trial;

use std::sync::Arc;

use chance::Chance;
use cmkfs::kms::service::KeyService;
use cut::{Disk, Order, kill};
use operation::{Operation, Run, histories};
use proptest::prelude::*;
use support::key_service;
use trial::{JOURNAL, judge, power_cuts, told};

fn keys(dir: &tempfile::TempDir) -> Arc<KeyService> {
    key_service(&dir.path().join("keys"))
}

/// Does a history on a new volume with new keys.
fn run(history: &[Operation]) -> (Run, tempfile::TempDir) {
    let dir = trial::temporary();
    (trial::run(history, keys(&dir)), dir)
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

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases(), failure_persistence: None, max_shrink_iters: 4000, ..ProptestConfig::default() })]

    #[test]
    fn what_was_synced_survives_a_power_cut(history in histories(12), again in histories(6)) {
        let verdict = power_cuts(&run(&history).0, cuts(), JOURNAL, &again);
        prop_assert!(verdict.is_ok(), "{}", verdict.unwrap_err());
    }

    #[test]
    fn what_was_synced_survives_where_sizes_come_before_data(history in histories(12), again in histories(6)) {
        let verdict = power_cuts(&run(&history).0, cuts(), Disk { ordered: false, ..JOURNAL }, &again);
        prop_assert!(verdict.is_ok(), "{}", verdict.unwrap_err());
    }

    #[test]
    fn what_was_synced_survives_torn_pages(history in histories(12), again in histories(6)) {
        let verdict = power_cuts(&run(&history).0, cuts(), Disk { torn: true, ordered: false, ..JOURNAL }, &again);
        prop_assert!(verdict.is_ok(), "{}", verdict.unwrap_err());
    }

    #[test]
    fn what_was_synced_survives_where_names_wait_for_no_others(history in histories(12), again in histories(6)) {
        let verdict = power_cuts(&run(&history).0, cuts(), Disk { order: Order::Loose, ..JOURNAL }, &again);
        prop_assert!(verdict.is_ok(), "{}", verdict.unwrap_err());
    }

    #[test]
    fn a_killed_process_leaves_all_but_the_end_of_its_last_write(history in histories(12)) {
        let (run, _keys) = run(&history);
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
