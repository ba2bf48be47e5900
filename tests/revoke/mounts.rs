//! Many mounts, and mounts in every state of health: all obey, or are named.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::Command;

use cmkfs::mount::mountinfo;
use rustix::process::Signal;

use super::common::{Volume, eventually, succeed};
use super::{KEY, SIZE, UNANSWERED, disable, enable, is_revoked, json, read, stderr};

fn sockets(volume: &Volume) -> Vec<PathBuf> {
    let entries = fs::read_dir(volume.folder().join("keys/mounts")).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn every_mount_of_a_key_obeys_and_says_what_it_did() {
    let volume = Volume::mounted();
    let (cipher, plain) = (
        volume.folder().join("cipher2"),
        volume.folder().join("plain2"),
    );
    let (cipher, plain) = (cipher.to_str().unwrap(), plain.to_str().unwrap());
    volume.succeed(&["mount", "--init", cipher, plain]);
    let files = [volume.path("file"), PathBuf::from(plain).join("file")].map(|path| {
        fs::write(&path, vec![3; SIZE]).unwrap();
        File::open(path).unwrap()
    });
    let said = json(&volume.succeed(&["key", "disable", KEY, "--output", "json"]));
    let mounts = said["Mounts"].as_array().unwrap();
    assert_eq!(mounts.len(), 2, "{said}");
    for mount in mounts {
        assert_eq!(mount["Lease"], "Disabled");
        // The root's and the file's.
        assert_eq!(mount["DataKeysDropped"], 2);
        assert!(mount["InodesInvalidated"].as_u64().unwrap() >= 2);
    }
    assert!(files.iter().all(|file| is_revoked(&read(file))));
    let said = json(&volume.succeed(&["key", "enable", KEY, "--output", "json"]));
    assert_eq!(said["Mounts"][1]["Lease"], "Held");
    assert!(files.iter().all(|file| read(file).is_ok()));
    drop(files);
    volume.succeed(&["unmount", plain]);
    assert_eq!(sockets(&volume).len(), 1);
    volume.unmount();
    eventually("no socket is left", || sockets(&volume).is_empty());
}

#[test]
fn a_stopped_mount_is_named_and_obeys_as_soon_as_it_goes_on() {
    let volume = Volume::mounted();
    fs::write(volume.path("file"), vec![3; SIZE]).unwrap();
    let file = File::open(volume.path("file")).unwrap();
    read(&file).unwrap();
    volume.signal(Signal::STOP);
    let output = volume.run(&["key", "disable", KEY, "--timeout", "1"]);
    let status = json(&volume.succeed(&["status", "--output", "json"]));
    volume.signal(Signal::CONT);
    assert_eq!(output.status.code(), Some(UNANSWERED), "{output:?}");
    let said = stderr(&output);
    let named = volume.mountpoint().canonicalize().unwrap();
    assert!(said.contains(named.to_str().unwrap()), "{said}");
    assert!(
        said.contains(&volume.daemon().unwrap().to_string()),
        "{said}"
    );
    let ours = |mount: &&serde_json::Value| mount["Mountpoint"] == named.to_str().unwrap();
    let ours = status.as_array().unwrap().iter().find(ours).unwrap();
    assert_eq!(ours["Answers"], false);
    eventually("it obeys", || is_revoked(&read(&file)));
    enable(&volume);
    read(&file).unwrap();
}

#[test]
fn what_a_killed_daemon_left_behind_disturbs_nobody() {
    let volume = Volume::mounted();
    fs::write(volume.path("file"), "text").unwrap();
    volume.kill();
    assert_eq!(sockets(&volume).len(), 1);
    disable(&volume);
    assert!(sockets(&volume).is_empty());
    enable(&volume);
    volume.mount(&[]);
    assert_eq!(fs::read(volume.path("file")).unwrap(), b"text");
}

#[test]
fn a_dead_mount_from_which_a_program_can_still_read_is_named() {
    let volume = Volume::mounted();
    fs::write(volume.path("file"), vec![3; SIZE]).unwrap();
    let file = File::open(volume.path("file")).unwrap();
    read(&file).unwrap();
    volume.kill();
    let output = volume.run(&["key", "disable", KEY]);
    assert_eq!(output.status.code(), Some(UNANSWERED), "{output:?}");
    let process = std::process::id().to_string();
    assert!(stderr(&output).contains(&process), "{output:?}");
    drop(file);
    disable(&volume);
}

#[test]
fn a_mount_that_starts_meanwhile_is_not_missed() {
    let volume = Volume::mounted();
    fs::write(volume.path("file"), "text").unwrap();
    volume.unmount();
    for _ in 0..20 {
        std::thread::scope(|scope| {
            let mounting = scope.spawn(|| volume.run(&["mount", "CIPHERDIR", "MOUNTPOINT"]));
            disable(&volume);
            let output = mounting.join().unwrap();
            if output.status.success() {
                assert!(is_revoked(&fs::read(volume.path("file"))));
                volume.unmount();
            } else {
                assert!(stderr(&output).contains("disabled"), "{output:?}");
            }
        });
        volume.wait_until_free();
        enable(&volume);
    }
}

#[test]
fn commands_of_many_at_once_are_obeyed_one_after_the_other() {
    let volume = Volume::mounted();
    fs::write(volume.path("file"), vec![3; SIZE]).unwrap();
    let file = File::open(volume.path("file")).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..10 {
                    disable(&volume);
                    enable(&volume);
                }
            });
        }
    });
    read(&file).unwrap();
    disable(&volume);
    assert!(is_revoked(&read(&file)));
    enable(&volume);
    read(&file).unwrap();
}

#[test]
fn a_mount_that_could_not_be_told_is_refused() {
    let volume = Volume::new();
    fs::write(volume.folder().join("keys/mounts"), "").unwrap();
    let said = volume.fail(&["mount", "CIPHERDIR", "MOUNTPOINT"]);
    assert!(
        said.contains("control socket") && said.contains("hint"),
        "{said}"
    );
    assert!(!volume.is_mounted());
}

#[test]
fn a_mount_is_found_again_after_the_key_directory_was_replaced() {
    let volume = Volume::mounted();
    fs::write(volume.path("file"), "text").unwrap();
    let (keys, copy) = (volume.folder().join("keys"), volume.folder().join("copy"));
    succeed(Command::new("cp").arg("-a").arg(&keys).arg(&copy));
    fs::remove_dir_all(copy.join("mounts")).unwrap();
    fs::rename(&keys, volume.folder().join("old")).unwrap();
    fs::rename(&copy, &keys).unwrap();
    eventually("it listens again", || {
        keys.join("mounts").exists() && sockets(&volume).len() == 1
    });
    disable(&volume);
    assert!(is_revoked(&fs::read(volume.path("file"))));
    enable(&volume);
}

#[test]
fn a_users_command_reaches_the_mount_that_root_made_with_the_users_keys() {
    let volume = Volume::bare(Some((1234, 1234)));
    volume.succeed(&["init", "CIPHERDIR"]);
    fs::create_dir(volume.mountpoint()).unwrap();
    let mut root = Command::new(env!("CARGO_BIN_EXE_cmkfs"));
    root.arg("mount")
        .arg(volume.ciphertext())
        .arg(volume.mountpoint());
    root.env("CMKFS_KEYS", volume.folder().join("keys"));
    root.env("HOME", volume.folder().join("roots-home"));
    succeed(&mut root);
    let mount = mountinfo::at(&volume.mountpoint()).unwrap().unwrap();
    assert_eq!(mount.user(), Some(0));
    assert_eq!(fs::metadata(&sockets(&volume)[0]).unwrap().uid(), 1234);
    fs::write(volume.path("file"), "text").unwrap();
    disable(&volume);
    assert!(is_revoked(&fs::read(volume.path("file"))));
    enable(&volume);
    assert_eq!(fs::read(volume.path("file")).unwrap(), b"text");
}
