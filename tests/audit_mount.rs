//! What a mount does with data keys, as the audit log tells it: counted, soon, complete, and not without.

mod common;

use std::fs;
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::time::{Duration, Instant};

use common::{Volume, eventually};
use serde_json::Value;

/// How often an operation with data keys was done, or refused with `code`, by the audit log.
fn counted(volume: &Volume, keys: &str, name: &str, code: Option<&str>) -> u64 {
    let shown = volume.succeed(&[
        "--keys", keys, "audit", "show", "--event", name, "--output", "json",
    ]);
    let shown: Value = serde_json::from_str(&shown).unwrap();
    let records = shown["Records"].as_array().unwrap().iter();
    records
        .filter(|record| record["errorCode"].as_str() == code)
        .map(|record| record["additionalEventData"]["count"].as_u64().unwrap())
        .sum()
}

#[test]
fn decrypts_of_a_mount_are_in_the_log_within_a_second_and_none_is_missing_after_unmounting() {
    const FILES: u64 = 60;
    let volume = Volume::mounted();
    let keys = volume.folder().join("keys");
    let keys = keys.to_str().unwrap();
    for name in 0..FILES {
        fs::write(volume.path(name.to_string()), "content").unwrap();
    }
    volume.unmount();
    // The volume's key, its root, and the files.
    assert_eq!(counted(&volume, keys, "GenerateDataKey", None), FILES + 2);
    let before = counted(&volume, keys, "Decrypt", None);
    volume.mount(&[]);
    let read = |names: std::ops::Range<u64>| {
        for name in names {
            fs::read(volume.path(name.to_string())).unwrap();
        }
    };
    read(0..FILES / 2);
    let at = Instant::now();
    eventually("the first half is written down", || {
        counted(&volume, keys, "Decrypt", None) >= before + FILES / 2
    });
    // The program that looks takes its time, too.
    assert!(at.elapsed() < Duration::from_secs(5), "{:?}", at.elapsed());
    read(FILES / 2..FILES);
    volume.unmount();
    let all = counted(&volume, keys, "Decrypt", None);
    assert!(all >= before + FILES, "{all} after {before}");
    volume.succeed(&["audit", "verify"]);
    let shown = volume.succeed(&[
        "audit", "show", "--event", "Decrypt", "--last", "1", "--output", "json",
    ]);
    let shown: Value = serde_json::from_str(&shown).unwrap();
    let context = &shown["Records"][0]["requestParameters"]["encryptionContext"];
    assert_eq!(context["volume"].as_str().unwrap().len(), 36);
    let lines = fs::read_to_string(volume.folder().join("keys/audit/log")).unwrap();
    assert!(lines.lines().count() < 40, "many uses make few lines");
}

/// A small filesystem in memory for the keys, unmounted when it goes.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=2m,mode=700", "tmpfs"])
            .arg(temp.path())
            .status();
        assert!(mounted.unwrap().success(), "a tmpfs can be mounted");
        Self(temp)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn while_the_log_cannot_be_written_no_further_file_is_opened_and_open_ones_go_on() {
    let disk = SmallDisk::new();
    let keys = disk.0.path().join("keys");
    let keys = keys.to_str().unwrap();
    let volume = Volume::bare(None);
    volume.succeed(&["--keys", keys, "init", "CIPHERDIR"]);
    fs::create_dir(volume.mountpoint()).unwrap();
    volume.mount(&["--keys", keys]);
    for name in 0..400 {
        fs::write(volume.path(name.to_string()), format!("content of {name}")).unwrap();
    }
    volume.unmount();
    volume.mount(&["--keys", keys]);
    let open = fs::File::open(volume.path("0")).unwrap();
    let mut buffer = [0; 12];
    open.read_exact_at(&mut buffer, 0).unwrap();

    let filler = disk.0.path().join("filler");
    let mut file = fs::File::create(&filler).unwrap();
    let _ = std::io::copy(&mut std::io::repeat(1), &mut file);
    drop(file);
    // One after the other, until one cannot be written down any more: the log may have room left in its last block.
    let mut name = 1;
    eventually("a file is refused", || {
        name += 1;
        match fs::read(volume.path(name.to_string())) {
            Ok(content) => {
                assert_eq!(content, format!("content of {name}").into_bytes());
                false
            }
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(libc::EIO), "{error}");
                true
            }
        }
    });
    open.read_exact_at(&mut buffer, 0).unwrap();
    assert_eq!(&buffer, b"content of 0");
    fs::remove_file(filler).unwrap();
    eventually("files are opened again", || {
        fs::read(volume.path("399")).is_ok()
    });
    drop(open);
    volume.unmount();
    let found = volume.run(&["--keys", keys, "audit", "verify"]);
    assert!(found.status.success(), "{found:?}");
    assert!(counted(&volume, keys, "Decrypt", None) > 3);
}

#[test]
fn a_refused_decrypt_of_a_mount_is_in_the_log_with_its_reason() {
    let volume = Volume::mounted();
    let keys = volume.folder().join("keys");
    let keys = keys.to_str().unwrap();
    fs::write(volume.path("a"), "content").unwrap();
    volume.remount();
    volume.succeed(&["key", "disable", "alias/cmkfs/default"]);
    fs::read(volume.path("a")).unwrap_err();
    fs::read(volume.path("a")).unwrap_err();
    volume.unmount();
    let output = volume.run(&["mount", "CIPHERDIR", "MOUNTPOINT"]);
    assert!(!output.status.success());
    let refused = counted(&volume, keys, "Decrypt", Some("DisabledException"));
    assert!(refused >= 1, "{refused}");
    volume.succeed(&["audit", "verify"]);
}
