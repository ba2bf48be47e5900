//! `cmkfs volume verify` of a mounted volume, while users work on it: no false alarms, and damage is found all the same.

mod common;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use common::Volume;
use serde_json::Value;

fn verify(volume: &Volume, path: &str) -> (i32, Value) {
    let output = volume.run(&["verify", path, "--output", "json"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let report = serde_json::from_slice(&output.stdout);
    (
        output.status.code().unwrap(),
        report.unwrap_or(Value::String(said)),
    )
}

/// The backing files that are no smaller than this.
fn backing_files(volume: &Volume, smallest: u64) -> Vec<PathBuf> {
    let entries = fs::read_dir(volume.ciphertext())
        .unwrap()
        .map(Result::unwrap);
    let mut found: Vec<_> = entries
        .filter(|entry| !entry.file_name().to_string_lossy().contains('.'))
        .filter(|entry| {
            entry
                .metadata()
                .is_ok_and(|data| data.is_file() && data.len() >= smallest)
        })
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}

#[test]
fn a_mounted_volume_and_a_directory_of_it_are_verified_through_the_mount() {
    let volume = Volume::mounted();
    fs::create_dir(volume.path("folder")).unwrap();
    fs::write(volume.path("folder/inside"), [1; 10_000]).unwrap();
    fs::write(volume.path("outside"), [2; 10_000]).unwrap();
    for path in ["CIPHERDIR", "MOUNTPOINT"] {
        let (code, report) = verify(&volume, path);
        assert_eq!(code, 0, "{report}");
        assert_eq!(report["Totals"]["Files"], 2);
        assert_eq!(report["Totals"]["Directories"], 2);
        assert_eq!(report["InUse"], true);
    }
    let folder = volume.path("folder");
    let (code, report) = verify(&volume, folder.to_str().unwrap());
    assert_eq!(code, 0, "{report}");
    assert_eq!(report["Totals"]["Files"], 1);
    let said = volume.fail(&["volume", "verify", "MOUNTPOINT", "--repair"]);
    assert!(said.contains("in use"), "{said}");
}

#[test]
fn damage_under_a_mount_is_found_also_where_memory_still_knows_better() {
    let volume = Volume::mounted();
    fs::write(volume.path("file"), [3; 20_000]).unwrap();
    volume.remount();
    // Open, and its slots in memory.
    let open = fs::File::open(volume.path("file")).unwrap();
    let mut buffer = [0; 100];
    open.read_exact_at(&mut buffer, 0).unwrap();
    let place = backing_files(&volume, 20_000).remove(0);
    let backing = fs::File::options()
        .read(true)
        .write(true)
        .open(&place)
        .unwrap();
    let slot = cmkfs::format::layout::slot_offset(2);
    let mut old = [0];
    backing.read_exact_at(&mut old, slot).unwrap();
    backing.write_all_at(&[old[0] ^ 1], slot).unwrap();
    let (code, report) = verify(&volume, "MOUNTPOINT");
    assert_eq!(code, 9, "{report}");
    let finding = &report["Findings"][0];
    assert_eq!(finding["What"], "Block", "{report}");
    assert_eq!(finding["Path"], "file");
    assert_eq!(finding["Blocks"], serde_json::json!([2, 2]));
    backing.write_all_at(&old, slot).unwrap();
    // And its header.
    let at = cmkfs::format::header::TAG_AT as u64;
    backing.read_exact_at(&mut old, at).unwrap();
    backing.write_all_at(&[old[0] ^ 1], at).unwrap();
    let (code, report) = verify(&volume, "MOUNTPOINT");
    assert_eq!(code, 9, "{report}");
    assert_eq!(report["Findings"][0]["What"], "FileHeader", "{report}");
    backing.write_all_at(&old, at).unwrap();
    let (code, report) = verify(&volume, "MOUNTPOINT");
    assert_eq!(code, 0, "{report}");
}

/// Everything that users do to names and contents, over and over.
fn work(volume: &Volume, thread: u64, round: u64) {
    let path = |name: &str| volume.path(format!("{name} {thread} {}", round % 7));
    let long = "l".repeat(220);
    let target = "t".repeat(3900);
    fs::write(
        path("file"),
        vec![round as u8; (round as usize * 7919) % 300_000],
    )
    .unwrap();
    fs::write(path(&long), "long name").unwrap();
    fs::create_dir(path("folder")).unwrap();
    fs::write(path("folder").join("inside"), [1; 5000]).unwrap();
    std::os::unix::fs::symlink(&target, path("folder").join("link")).unwrap();
    fs::hard_link(path("file"), path("folder").join("same")).unwrap();
    let file = fs::File::options().write(true).open(path("file")).unwrap();
    file.write_all_at(b"changed", 5000).unwrap();
    file.set_len(100_000).unwrap();
    file.set_len(2000).unwrap();
    fs::rename(path("folder"), path("renamed")).unwrap();
    fs::rename(path("file"), path("renamed").join("file")).unwrap();
    fs::rename(path(&long), path(&format!("{long}2"))).unwrap();
    fs::remove_file(path(&format!("{long}2"))).unwrap();
    fs::remove_dir_all(path("renamed")).unwrap();
}

#[test]
fn a_volume_in_use_gives_no_false_alarm() {
    let volume = Volume::mounted();
    for number in 0..50 {
        fs::write(
            volume.path(format!("still {number}")),
            vec![7; number * 3000],
        )
        .unwrap();
    }
    let (stop, rounds) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let (volume, stop, rounds) = (&volume, &stop, &rounds);
            scope.spawn(move || {
                let mut round = 0;
                while !stop.load(Ordering::Relaxed) {
                    work(volume, thread, round);
                    round += 1;
                    rounds.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let verified: Vec<_> = (0..15).map(|_| verify(&volume, "MOUNTPOINT")).collect();
        stop.store(true, Ordering::Relaxed);
        for (code, report) in verified {
            assert_eq!(code, 0, "{report}");
            assert!(
                report["Totals"]["Files"].as_u64().unwrap() >= 50,
                "{report}"
            );
        }
    });
    assert!(rounds.load(Ordering::Relaxed) > 20);
    volume.unmount();
    let (code, report) = verify(&volume, "CIPHERDIR");
    assert_eq!(
        (code, &report["InUse"]),
        (0, &Value::Bool(false)),
        "{report}"
    );
    assert_eq!(report["Findings"], serde_json::json!([]), "{report}");
}

#[test]
fn what_is_under_a_key_that_was_withdrawn_is_not_verified_and_not_called_damaged() {
    let volume = Volume::mounted();
    let said = volume.succeed(&["key", "create", "--alias", "alias/other"]);
    assert!(!said.is_empty());
    fs::create_dir(volume.path("bound")).unwrap();
    let bound = volume.path("bound");
    volume.succeed(&["bind", bound.to_str().unwrap(), "alias/other"]);
    fs::write(volume.path("bound/secret"), [4; 5000]).unwrap();
    fs::write(volume.path("open"), [5; 5000]).unwrap();
    volume.succeed(&["key", "disable", "alias/other"]);
    let (code, report) = verify(&volume, "MOUNTPOINT");
    assert_eq!(code, 13, "{report}");
    assert_eq!(report["Damaged"], 0, "{report}");
    for finding in report["Findings"].as_array().unwrap() {
        assert_eq!(finding["What"], "Key", "{report}");
    }
    volume.succeed(&["key", "enable", "alias/other"]);
    let (code, report) = verify(&volume, "MOUNTPOINT");
    assert_eq!(code, 0, "{report}");
}

#[test]
fn files_of_a_killed_mount_are_not_sealed_and_no_damage() {
    let volume = Volume::mounted();
    fs::write(volume.path("file"), vec![6; 200_000]).unwrap();
    fs::File::open(volume.path("file"))
        .unwrap()
        .sync_all()
        .unwrap();
    volume.kill();
    let _ = volume.run(&["unmount", "MOUNTPOINT"]);
    let (code, report) = verify(&volume, "CIPHERDIR");
    assert_eq!(code, 0, "{report}");
    assert_eq!(report["NotSealed"], 1, "{report}");
    volume.succeed(&["volume", "verify", "--repair", "CIPHERDIR"]);
    let (code, report) = verify(&volume, "CIPHERDIR");
    assert_eq!(
        (code, &report["NotSealed"]),
        (0, &Value::from(0)),
        "{report}"
    );
}
