//! Histories on a disk that loses its power, as in `tests/core_power_cut`, but chosen by an input instead of at random.

use std::sync::{Arc, OnceLock};

use arbitrary::{Result, Unstructured};
use cmkfs::kms::service::KeyService;

use super::support;
use super::support::tree::{Mode, Range};

#[path = "../../../tests/core_power_cut/build.rs"]
mod build;
#[path = "../../../tests/core_power_cut/cache.rs"]
mod cache;
#[path = "../../../tests/core_power_cut/chance.rs"]
mod chance;
#[path = "../../../tests/core_power_cut/check.rs"]
mod check;
#[path = "../../../tests/core_power_cut/cut.rs"]
mod cut;
#[path = "../../../tests/core_power_cut/model.rs"]
mod model;
#[allow(dead_code, reason = "histories are chosen here")]
#[path = "../../../tests/core_power_cut/operation.rs"]
mod operation;
#[path = "../../../tests/core_power_cut/record.rs"]
mod record;
#[path = "../../../tests/core_power_cut/trial.rs"]
mod trial;

use cut::{Disk, Order, kill};
use operation::{DIRECTORIES, FILES, Operation, Path};
use trial::JOURNAL;

/// States that each history is cut into.
const CUTS: usize = 8;

/// The disks, one of which an input begins with.
const DISKS: [Disk; 4] = [
    JOURNAL,
    Disk {
        ordered: false,
        ..JOURNAL
    },
    Disk {
        torn: true,
        ordered: false,
        ..JOURNAL
    },
    Disk {
        order: Order::Loose,
        ..JOURNAL
    },
];

/// A key directory for all histories of this process: making one takes longer than a history.
fn keys() -> Arc<KeyService> {
    static KEYS: OnceLock<Arc<KeyService>> = OnceLock::new();
    let make = || {
        let dir = tempfile::tempdir().expect("a directory");
        let keys = support::key_service(&dir.path().join("keys"));
        // For as long as the process lives.
        std::mem::forget(dir);
        keys
    };
    Arc::clone(KEYS.get_or_init(make))
}

fn file(input: &mut Unstructured<'_>) -> Result<Path> {
    // Most is done to one, so that something comes of it.
    if input.ratio(1, 2)? {
        return Ok(FILES[0]);
    }
    input.choose(&FILES).copied()
}

fn path(input: &mut Unstructured<'_>) -> Result<Path> {
    if input.ratio(1, 4)? {
        return input.choose(&DIRECTORIES).copied();
    }
    file(input)
}

fn offset(input: &mut Unstructured<'_>) -> Result<u64> {
    let boundary = *input.choose(&[0, 0, 1, 2, 3, 56, 57])? * 4096;
    Ok(u64::saturating_add_signed(
        boundary,
        input.arbitrary::<i8>()?.into(),
    ))
}

fn length(input: &mut Unstructured<'_>) -> Result<usize> {
    input
        .choose(&[1, 100, 4096, 5000, 13_000, 56 * 4096])
        .copied()
}

fn operation(input: &mut Unstructured<'_>) -> Result<Operation> {
    use Operation::*;
    let modes = [
        Mode::Replace,
        Mode::Replace,
        Mode::NoReplace,
        Mode::Exchange,
    ];
    let ranges = [
        Range::Allocate,
        Range::KeepSize,
        Range::Punch,
        Range::Zero,
        Range::ZeroKeepSize,
    ];
    Ok(match input.int_in_range(0..=39_u8)? {
        0..=2 => Create(file(input)?),
        3 => MakeDirectory(input.choose(&DIRECTORIES)?),
        4 => Symlink(path(input)?, *input.choose(&[1, 60, 4000])?),
        5 => Link(path(input)?, path(input)?),
        6 | 7 => Unlink(file(input)?),
        8 => RemoveDirectory(input.choose(&DIRECTORIES)?),
        9..=11 => Rename(path(input)?, path(input)?, *input.choose(&modes)?),
        12..=18 => Write(file(input)?, offset(input)?, length(input)?),
        19 | 20 => Append(file(input)?, length(input)?),
        21..=23 => Truncate(file(input)?, offset(input)?),
        24 => Empty(file(input)?),
        25 | 26 => {
            let length = 1 + u64::from(input.arbitrary::<u16>()? % 20_000);
            Allocate(
                file(input)?,
                *input.choose(&ranges)?,
                offset(input)?,
                length,
            )
        }
        27 => Chmod(file(input)?, *input.choose(&[0o600, 0o755])?),
        28 => SetAttribute(file(input)?, *input.choose(&[0, 300])?),
        29 => RemoveAttribute(file(input)?),
        30..=33 => Sync(file(input)?, input.arbitrary()?),
        34 => SyncDirectory(input.choose(&["", "d", "e", "d/e"])?),
        35 => Hold(file(input)?),
        36 => Release,
        37 => Seal,
        38 => Remount,
        _ => Takeover,
    })
}

fn history(input: &mut Unstructured<'_>, longest: usize) -> Vec<Operation> {
    let mut history = vec![Operation::Create(FILES[0])];
    while history.len() < longest && !input.is_empty() {
        let Ok(operation) = operation(input) else {
            break;
        };
        history.push(operation);
    }
    history
}

/// The target.
pub fn power_cut(input: &[u8]) {
    let Some((disk, choices)) = input.split_first() else {
        return;
    };
    let mut choices = Unstructured::new(choices);
    let operations = history(&mut choices, 12);
    let again = history(&mut choices, 5);
    let run = trial::run(&operations, keys());
    let disk = DISKS[usize::from(*disk) % DISKS.len()];
    let verdict = trial::power_cuts(&run, CUTS, disk, &again);
    assert!(verdict.is_ok(), "{}", verdict.unwrap_err());
    let recorded = run.recorder.history();
    let mut chance = chance::Chance::new(0);
    for seed in 0..CUTS / 4 {
        let events = chance.below(recorded.events.len() + 1);
        let state = kill(&recorded, events, chance.below(60) as u64);
        let verdict = trial::judge(&run, &state, events, seed, false);
        assert!(
            verdict.is_ok(),
            "killed: {}\n{}",
            verdict.unwrap_err(),
            trial::told(&recorded.events[..events])
        );
    }
}
