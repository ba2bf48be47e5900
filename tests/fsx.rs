//! fsx, the file system exerciser, on a real mount: random operations on one file, every read checked. `scripts/test`
//! installs it.

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::{Volume, succeed};

const OPERATIONS: &str = "10000";

/// Runs fsx in a mount of its own, then reads the file once more after a remount.
fn exercise(seed: u32, longest: u32, largest_operation: u32, sync_maps: bool) {
    let fsx = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/bin/fsx");
    assert!(
        fsx.exists(),
        "fsx is missing: run scripts/test, or cargo install fsx --version ^0.3 --locked --root target/tools"
    );
    let volume = Volume::mounted();
    let settings = volume.folder().join("fsx.toml");
    let no_sync = !sync_maps;
    fs::write(
        &settings,
        format!(
            "flen = {longest}
             nomsyncafterwrite = {no_sync}
             [opsize]
             max = {largest_operation}
             [weights]
             close_open = 2
             read = 10
             write = 10
             mapread = 10
             mapwrite = 10
             invalidate = 1
             truncate = 6
             fsync = 1
             fdatasync = 1
             posix_fallocate = 3
             punch_hole = 6
             sendfile = 3
             posix_fadvise = 2
             copy_file_range = 3"
        ),
    )
    .unwrap();
    let mut command = Command::new("timeout");
    command.arg("300").arg(fsx).arg("-f").arg(settings);
    command.args(["-N", OPERATIONS, "-S", &seed.to_string()]);
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
    exercise(1, 20_000, 5_000, true);
}

#[test]
fn operations_of_every_size() {
    exercise(2, 256 * 1024, 64 * 1024, true);
}

#[test]
fn large_operations_in_a_large_file() {
    exercise(3, 3_000_000, 300_000, false);
}

#[test]
fn small_operations_in_a_large_file() {
    exercise(4, 2_000_000, 10_000, false);
}
