//! fsx, the file system exerciser, on a real mount: random operations on one file, every read checked. `scripts/test`
//! installs it. `CMKFS_FSX_OPERATIONS` makes each test run so many operations instead of 10000, and
//! `CMKFS_FSX_SEED` adds to the seeds.

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::{Volume, succeed};

/// Operations of each test where the environment does not say.
const OPERATIONS: u64 = 10_000;

/// Seconds that so many operations may take, however loaded the machine.
const PATIENCE: u64 = 300;

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).map_or(otherwise, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{variable} has to be a number, not {text:?}"))
    })
}

/// What is weighed differently from test to test.
struct Mix {
    maps: u32,
    holes: u32,
    allocations: u32,
    copies: u32,
}

const EVERYTHING: Mix = Mix {
    maps: 10,
    holes: 6,
    allocations: 3,
    copies: 3,
};

/// Runs fsx in a mount of its own, then reads the file once more after a remount.
fn exercise(seed: u64, longest: u32, largest_operation: u32, sync_maps: bool, mix: &Mix) {
    let fsx = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/bin/fsx");
    assert!(
        fsx.exists(),
        "fsx is missing: run scripts/test, or cargo install fsx --version ^0.3 --locked --root target/tools"
    );
    let volume = Volume::mounted();
    let settings = volume.folder().join("fsx.toml");
    let no_sync = !sync_maps;
    let Mix {
        maps,
        holes,
        allocations,
        copies,
    } = mix;
    let operations = number("CMKFS_FSX_OPERATIONS", OPERATIONS);
    let seed = seed + number("CMKFS_FSX_SEED", 0);
    let patience = PATIENCE * operations.div_ceil(OPERATIONS);
    fs::write(
        &settings,
        format!(
            "flen = {longest}
             nomsyncafterwrite = {no_sync}
             [opsize]
             min = 1
             max = {largest_operation}
             [weights]
             close_open = 2
             read = 10
             write = 10
             mapread = {maps}
             mapwrite = {maps}
             invalidate = 1
             truncate = 6
             fsync = 1
             fdatasync = 1
             posix_fallocate = {allocations}
             punch_hole = {holes}
             sendfile = 3
             posix_fadvise = 2
             copy_file_range = {copies}"
        ),
    )
    .unwrap();
    let mut command = Command::new("timeout");
    command.arg(patience.to_string());
    command.arg(fsx).arg("-f").arg(settings);
    command.args(["-N", &operations.to_string(), "-S", &seed.to_string()]);
    command
        .arg("-P")
        .arg(volume.folder())
        .arg(volume.path("file"));
    let said = succeed(&mut command);
    assert!(said.contains("A-OK"), "{said}");
    let written = fs::read(volume.path("file")).unwrap();
    volume.remount();
    assert!(
        fs::read(volume.path("file")).unwrap() == written,
        "the file has changed with the remount"
    );
}

#[test]
fn small_operations_in_a_small_file() {
    exercise(1, 20_000, 5_000, true, &EVERYTHING);
}

#[test]
fn operations_of_every_size() {
    exercise(2, 256 * 1024, 64 * 1024, true, &EVERYTHING);
}

#[test]
fn large_operations_in_a_large_file() {
    exercise(3, 3_000_000, 300_000, false, &EVERYTHING);
}

#[test]
fn small_operations_in_a_large_file() {
    exercise(4, 2_000_000, 10_000, false, &EVERYTHING);
}

#[test]
fn reads_and_writes_without_maps() {
    let plain = Mix {
        maps: 0,
        holes: 0,
        allocations: 0,
        copies: 0,
    };
    exercise(5, 65_536, 8_192, false, &plain);
}

#[test]
fn mostly_holes_allocations_and_copies() {
    let holes = Mix {
        maps: 5,
        holes: 20,
        allocations: 10,
        copies: 10,
    };
    exercise(6, 1_000_000, 60_000, false, &holes);
}
