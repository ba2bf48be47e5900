//! pjdfstest, the POSIX test suite, as root on a real mount. What fails and what it skips has to be what docs/POSIX.md says:
//! neither more, nor less. `scripts/test` installs it.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Volume, succeed};

/// Fewer would mean that the suite did not run.
const TESTS: usize = 390;

/// What came of each test.
type Results = BTreeMap<String, String>;

/// The names in the first column of the table below a heading of docs/POSIX.md.
fn documented(heading: &str) -> BTreeSet<String> {
    let text = include_str!("../docs/POSIX.md");
    let (_, section) = text
        .split_once(&format!("\n### {heading}\n"))
        .unwrap_or_else(|| panic!("docs/POSIX.md has no heading {heading:?}"));
    let lines = section.lines().take_while(|line| !line.starts_with('#'));
    let names = lines.filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    names.map(str::to_owned).collect()
}

fn run(volume: &Volume, remount: bool, patterns: &[&str]) -> Results {
    let tool = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/bin/pjdfstest");
    assert!(
        tool.exists(),
        "pjdfstest is missing: run scripts/test, or cargo install pjdfstest --version ^0.2 --locked --root target/tools"
    );
    let settings = volume.folder().join("pjdfstest.toml");
    fs::write(
        &settings,
        format!(
            "[features]
             posix_fallocate = {{}}
             rename_ctime = {{}}
             stat_st_birthtime = {{}}
             utime_now = {{}}
             utimensat = {{}}
             secondary_fs = {:?}
             [settings]
             naptime = 0.01
             allow_remount = {remount}
             [dummy_auth]
             entries = [[\"nobody\", \"nogroup\"], [\"daemon\", \"daemon\"]]",
            volume.folder().join("other")
        ),
    )
    .unwrap();
    let mut command = Command::new("timeout");
    command.arg("300").arg(tool).arg("-c").arg(settings);
    command.arg("-p").arg(volume.mountpoint()).args(patterns);
    let path = format!(
        "{}:{}",
        remounter(volume).display(),
        std::env::var("PATH").unwrap()
    );
    // It fails if a test fails; which ones is what counts.
    let output = command.env("NO_COLOR", "1").env("PATH", path).output();
    let said = String::from_utf8(output.unwrap().stdout).unwrap();
    assert!(said.contains("Summary"), "{said}");
    let mut results = Results::new();
    for line in said.lines() {
        if let [name, result @ ("ok" | "FAILED" | "skipped")] =
            *line.split_whitespace().collect::<Vec<_>>()
        {
            results.insert(name.to_owned(), result.to_owned());
        }
    }
    if results.values().any(|result| result == "FAILED") {
        eprintln!("{said}");
    }
    results
}

/// A folder with the `mount` that pjdfstest calls, which leaves remounting to the helper as mount(8) does where that is
/// installed.
fn remounter(volume: &Volume) -> PathBuf {
    let folder = volume.folder().join("bin");
    let helper = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/mount.fuse.cmkfs");
    fs::create_dir_all(&folder).unwrap();
    let text = format!(
        "#!/bin/sh
         PATH=/usr/sbin:/usr/bin:/sbin:/bin
         case $2 in remount,*) exec '{}' none \"$3\" -o \"$2\" ;; esac
         exec mount \"$@\"",
        helper.display()
    );
    fs::write(folder.join("mount"), text).unwrap();
    fs::set_permissions(folder.join("mount"), Permissions::from_mode(0o755)).unwrap();
    folder
}

#[test]
fn the_posix_test_suite_passes_but_for_what_is_documented() {
    let volume = Volume::new();
    volume.mount(&["--allow-other", "-o", "suid,dev"]);
    for directory in [volume.folder(), &volume.mountpoint()] {
        fs::set_permissions(directory, Permissions::from_mode(0o755)).unwrap();
    }
    let other = volume.folder().join("other");
    fs::create_dir(&other).unwrap();
    succeed(
        Command::new("mount")
            .args(["-t", "tmpfs", "none"])
            .arg(other),
    );
    let mut results = run(&volume, false, &[]);
    // By themselves: before, the suite leaves descriptors of removed files open, and no filesystem can be remounted
    // read-only then.
    results.extend(run(&volume, true, &["erofs"]));
    assert!(results.len() >= TESTS, "only {} tests", results.len());
    let with = |result: &str| -> BTreeSet<String> {
        let found = results.iter().filter(|(_, value)| *value == result);
        found.map(|(name, _)| name.clone()).collect()
    };
    assert_eq!(with("FAILED"), documented("Tests that fail"));
    assert_eq!(with("skipped"), documented("Tests that are skipped"));
}
