//! A history, done and cut: what each of the states that a power cut leaves says of what was promised.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use cmkfs::fs::backing::Backing;
use cmkfs::kms::service::KeyService;
use cmkfs::volume;

use super::build::build;
use super::chance::Chance;
use super::check::{Found, Verdict, remove, use_and_remove};
use super::cut::{Disk, Order, State, cut};
use super::operation::{Operation, Run};
use super::record::{Event, Id};
use super::support::direct::Direct;
use super::support::{DEFAULT_ALIAS, TestVolume};

/// Where there is no disk to wait for.
pub fn temporary() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        tempfile::tempdir_in(memory).unwrap()
    } else {
        tempfile::tempdir().unwrap()
    }
}

/// Does a history on a new volume, under keys that may lie elsewhere.
pub fn run(history: &[Operation], keys: Arc<KeyService>) -> Run {
    let dir = temporary();
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
pub fn judge(
    run: &Run,
    state: &State,
    events: usize,
    seed: usize,
    torn: bool,
) -> Result<bool, String> {
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

/// Cuts what was done at many points, each in many ways. What some of them leave is worked on again, and cut again.
pub fn power_cuts(run: &Run, cuts: usize, disk: Disk, again: &[Operation]) -> Verdict {
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

pub fn told(events: &[Event]) -> String {
    let lines = events.iter().enumerate().map(|(at, event)| match event {
        Event::Write(id, offset, data) => {
            format!("  {at} Write({id}, {offset}, {} bytes)\n", data.len())
        }
        event => format!("  {at} {event:?}\n"),
    });
    lines.collect()
}

/// A disk as most are.
pub const JOURNAL: Disk = Disk {
    order: Order::Journal,
    ordered: true,
    torn: false,
};
