//! `cmkfs rewrap` on volumes and on real mounts, while programs work there and while it is killed.

mod common;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cmkfs::ids::KeyId;
use cmkfs::volume::census::Census;
use common::{Volume, eventually};

const OLD: &str = "alias/cmkfs/default";

/// A key of its own behind an alias.
fn new_key(volume: &Volume, alias: &str) {
    volume.succeed(&["key", "create", "--alias", alias]);
}

fn key_id(volume: &Volume, key: &str) -> KeyId {
    let said = volume.succeed(&["key", "describe", key, "--output", "json"]);
    let described: serde_json::Value = serde_json::from_str(&said).unwrap();
    let id = described["KeyMetadata"]["KeyId"]
        .as_str()
        .unwrap()
        .to_owned();
    id.parse().unwrap()
}

fn keys_in_use(volume: &Volume) -> Vec<KeyId> {
    let census = Census::take(&volume.ciphertext(), &mut |_| {}).unwrap();
    assert!(census.is_complete(), "{census:?}");
    census.keys().collect()
}

fn populate(top: &Path, files: usize) {
    for n in 0..files {
        let directory = top.join(format!("d{}", n % 10));
        fs::create_dir_all(&directory).unwrap();
        let content = vec![n as u8; [0, 1, 5000, 300_000][n % 4]];
        fs::write(directory.join(format!("f{n}")), content).unwrap();
        std::os::unix::fs::symlink(format!("f{n}"), directory.join(format!("l{n}"))).unwrap();
    }
    fs::hard_link(top.join("d1/f1"), top.join("d2/linked")).unwrap();
    fs::hard_link(top.join("d1/l1"), top.join("d2/l linked")).unwrap();
    std::os::unix::fs::symlink("x".repeat(3500), top.join("d3/long")).unwrap();
}

/// Content, target, mode, owner, times and links of everything below.
fn look(top: &Path) -> BTreeMap<PathBuf, (String, Vec<u8>)> {
    let mut seen = BTreeMap::new();
    let mut pending = vec![top.to_owned()];
    while let Some(path) = pending.pop() {
        let found = fs::symlink_metadata(&path).unwrap();
        let content = if found.is_dir() {
            pending.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
            Vec::new()
        } else if found.is_symlink() {
            fs::read_link(&path)
                .unwrap()
                .into_os_string()
                .into_encoded_bytes()
        } else {
            fs::read(&path).unwrap()
        };
        let links = if found.is_dir() { 0 } else { found.nlink() };
        let (uid, gid) = (found.uid(), found.gid());
        let times = (found.mtime(), found.mtime_nsec());
        let attributes = format!(
            "{:o} {uid} {gid} {times:?} {links} {}",
            found.mode(),
            content.len()
        );
        seen.insert(path, (attributes, content));
    }
    seen
}

#[test]
fn a_mounted_volume_goes_under_another_key_and_does_without_the_old_one() {
    let volume = Volume::mounted();
    populate(&volume.mountpoint(), 40);
    new_key(&volume, "alias/new");
    volume.remount();
    let before = look(&volume.mountpoint());
    let said = volume.succeed(&["rewrap", "MOUNTPOINT", "--to", "alias/new"]);
    assert!(said.contains("0 objects remain under material"), "{said}");
    assert!(
        said.contains("0 objects remain under any other material"),
        "{said}"
    );
    assert!(look(&volume.mountpoint()) == before);
    assert_eq!(keys_in_use(&volume), [key_id(&volume, "alias/new")]);
    volume.succeed(&["key", "disable", OLD]);
    assert!(look(&volume.mountpoint()) == before);
    volume.remount();
    assert!(look(&volume.mountpoint()) == before);
    fs::write(volume.path("d0/made after"), "text").unwrap();
    volume.remount();
    assert_eq!(keys_in_use(&volume), [key_id(&volume, "alias/new")]);
}

#[test]
fn a_volume_that_nobody_has_open_is_rewrapped_and_its_old_material_may_go() {
    let volume = Volume::mounted();
    populate(&volume.mountpoint(), 20);
    volume.remount();
    let before = look(&volume.mountpoint());
    volume.unmount();
    let old = key_id(&volume, OLD);
    new_key(&volume, "alias/new");
    let said = volume.succeed(&[
        "rewrap",
        "CIPHERDIR",
        "--to",
        "alias/new",
        "--output",
        "json",
    ]);
    let report: serde_json::Value = serde_json::from_str(&said).unwrap();
    let materials = report["Materials"].as_array().unwrap();
    assert_eq!(materials.len(), 2, "{said}");
    let left = |material: &serde_json::Value| material["KeyId"] == old.to_string();
    let left = materials.iter().find(|material| left(material)).unwrap();
    assert_eq!(left["Objects"], 0);
    assert_eq!(report["Failures"]["Count"], 0);
    volume.succeed(&["key", "disable", OLD]);
    for file in fs::read_dir(volume.folder().join("keys/keys")).unwrap() {
        let path = file.unwrap().path();
        if path.to_string_lossy().contains(&old.to_string()) {
            let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path));
        }
    }
    volume.mount(&[]);
    assert!(look(&volume.mountpoint()) == before);
}

#[test]
fn a_directory_of_a_mount_is_rewrapped_alone_and_a_mounted_volume_by_its_directory() {
    let volume = Volume::mounted();
    populate(&volume.mountpoint(), 20);
    new_key(&volume, "alias/one");
    new_key(&volume, "alias/two");
    let directory = volume.path("d3");
    volume.succeed(&["rewrap", directory.to_str().unwrap(), "--to", "alias/one"]);
    let mut both = vec![key_id(&volume, OLD), key_id(&volume, "alias/one")];
    both.sort();
    assert_eq!(keys_in_use(&volume), both);
    volume.succeed(&["rewrap", "CIPHERDIR", "--to", "alias/two"]);
    assert_eq!(keys_in_use(&volume), [key_id(&volume, "alias/two")]);
    assert!(
        volume
            .fail(&["rewrap", "."])
            .contains("holds no cmkfs volume")
    );
}

#[test]
fn a_disabled_key_is_refused_before_anything_is_done() {
    let volume = Volume::mounted();
    populate(&volume.mountpoint(), 4);
    let old = key_id(&volume, OLD);
    new_key(&volume, "alias/new");
    volume.succeed(&["key", "disable", "alias/new"]);
    // By a mount or by the command itself, with the same exit code and the same advice.
    let refused = |path: &str| {
        let output = volume.run(&["rewrap", path, "--to", "alias/new"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("disabled"), "{said}");
        assert!(said.contains("cmkfs key enable"), "{said}");
        assert_eq!(output.status.code(), Some(5), "{said}");
    };
    refused("MOUNTPOINT");
    assert_eq!(keys_in_use(&volume), [old]);
    volume.unmount();
    refused("CIPHERDIR");
    volume.succeed(&["key", "enable", "alias/new"]);
    volume.succeed(&["key", "disable", OLD]);
    let said = volume.fail(&["rewrap", "CIPHERDIR", "--to", "alias/new"]);
    assert!(said.contains("disabled"), "{said}");
    assert_eq!(keys_in_use(&volume), [old]);
}

/// Writes, renames and removes files of its own until it is over; every file holds its own text over and over.
fn storm(top: &Path, thread: usize, over: &AtomicBool) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files: Vec<(PathBuf, Vec<u8>)> = Vec::new();
    let mut state = thread as u64 + 0x9E37_79B9;
    let mut choose = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let mut made = 0;
    while !over.load(Ordering::Relaxed) {
        let directory = top.join(format!("d{}", choose(10)));
        match choose(5) {
            0 | 1 if files.len() < 50 => {
                made += 1;
                let path = directory.join(format!("storm {thread} {made}"));
                let content = format!("{thread}.{made} ")
                    .repeat(choose(20_000))
                    .into_bytes();
                fs::write(&path, &content).unwrap();
                files.push((path, content));
            }
            0 | 1 if !files.is_empty() => {
                let (path, _) = files.swap_remove(choose(files.len()));
                fs::remove_file(path).unwrap();
            }
            2 if !files.is_empty() => {
                let which = choose(files.len());
                let to = directory.join(files[which].0.file_name().unwrap());
                match fs::rename(&files[which].0, &to) {
                    Ok(()) => files[which].0 = to,
                    // One of the two directories is bound to the other key already.
                    Err(error) if error.kind() == ErrorKind::CrossesDevices => {}
                    Err(error) => panic!("{error}"),
                }
            }
            3 if !files.is_empty() => {
                let which = choose(files.len());
                let (path, content) = &mut files[which];
                let file = File::options().write(true).open(&*path).unwrap();
                let at = choose(content.len() + 1);
                file.write_all_at(b"overwritten", at as u64).unwrap();
                let end = (at + 11).max(content.len());
                content.resize(end, 0);
                content[at..at + 11].copy_from_slice(b"overwritten");
            }
            _ if !files.is_empty() => {
                let (path, content) = &files[choose(files.len())];
                let mut read = Vec::new();
                File::open(path).unwrap().read_to_end(&mut read).unwrap();
                assert!(read == *content, "{}", path.display());
            }
            _ => {}
        }
    }
    files.into_iter().collect()
}

/// Runs `work` while four threads write, rename and remove; then everything holds what was written.
fn during_a_storm(volume: &Volume, work: impl FnOnce()) {
    populate(&volume.mountpoint(), 40);
    let before = look(&volume.mountpoint());
    let over = AtomicBool::new(false);
    let written: Vec<_> = std::thread::scope(|scope| {
        let (over, top) = (&over, volume.mountpoint());
        let threads: Vec<_> = (0..4)
            .map(|thread| {
                let top = top.clone();
                scope.spawn(move || storm(&top, thread, over))
            })
            .collect();
        work();
        over.store(true, Ordering::Relaxed);
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    for _ in 0..2 {
        for (path, content) in written.iter().flatten() {
            assert!(fs::read(path).unwrap() == *content, "{}", path.display());
        }
        for (path, (_, content)) in before
            .iter()
            .filter(|(path, _)| !path.is_symlink() && path.is_file())
        {
            assert!(fs::read(path).unwrap() == *content, "{}", path.display());
        }
        volume.remount();
    }
}

#[test]
fn nothing_is_lost_and_nothing_slips_through_in_a_storm_of_writes_and_renames() {
    let volume = Volume::mounted();
    for alias in ["alias/one", "alias/two"] {
        new_key(&volume, alias);
    }
    during_a_storm(&volume, || {
        for round in 0..6 {
            let to = ["alias/one", "alias/two"][round % 2];
            volume.succeed(&["rewrap", "MOUNTPOINT", "--to", to]);
        }
    });
    assert_eq!(keys_in_use(&volume), [key_id(&volume, "alias/two")]);
}

/// Starts the command and kills it, or the daemon, after a while of its own choosing.
fn kill_during(volume: &Volume, arguments: &[&str], round: u64, kill_daemon: bool) {
    let mut command = volume.command(arguments);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    // Not a wait for something to come about: the moment of the kill is what is tried out.
    std::thread::sleep(Duration::from_micros(2000 + round * 3700));
    if kill_daemon {
        volume.kill();
    }
    match child.kill() {
        Err(error) if error.kind() != ErrorKind::InvalidInput => panic!("{error}"),
        _ => {}
    }
    child.wait().unwrap();
    if kill_daemon {
        volume.mount(&[]);
    }
}

/// Without times and the links of symlinks: a kill between two calls can change these.
fn look_roughly(top: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let seen = look(top).into_iter();
    seen.map(|(path, (_, content))| (path, content)).collect()
}

#[test]
fn killed_at_any_moment_it_leaves_everything_readable_and_is_taken_up_again() {
    let volume = Volume::mounted();
    populate(&volume.mountpoint(), 120);
    let before = look_roughly(&volume.mountpoint());
    for alias in ["alias/one", "alias/two"] {
        new_key(&volume, alias);
    }
    for round in 0..24 {
        let to = ["alias/one", "alias/two"][round as usize % 2];
        match round % 3 {
            0 => kill_during(&volume, &["rewrap", "MOUNTPOINT", "--to", to], round, true),
            1 => kill_during(&volume, &["rewrap", "MOUNTPOINT", "--to", to], round, false),
            _ => {
                volume.unmount();
                kill_during(&volume, &["rewrap", "CIPHERDIR", "--to", to], round, false);
                volume.mount(&[]);
            }
        }
        assert_eq!(look_roughly(&volume.mountpoint()), before, "round {round}");
        // A mount whose command was killed may be about to notice.
        eventually("a rewrap can be taken up again", || {
            let output = volume.run(&["rewrap", "MOUNTPOINT", "--to", to]);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success() || said.contains("busy"), "{said}");
            output.status.success()
        });
        assert_eq!(keys_in_use(&volume), [key_id(&volume, to)], "round {round}");
    }
}

#[test]
fn writers_and_renames_lose_nothing_to_a_rekey() {
    let volume = Volume::mounted();
    during_a_storm(&volume, || {
        for _ in 0..3 {
            // Files of several names, and those that are written to all the time, are told: then the exit code is not 0.
            let output = volume.run(&["rekey", "MOUNTPOINT", "--output", "json"]);
            let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
            assert!(report["Rekeyed"].as_u64().unwrap() > 40, "{report}");
        }
    });
}

#[test]
fn a_rekey_that_is_killed_at_any_moment_leaves_every_file_whole() {
    let volume = Volume::mounted();
    populate(&volume.mountpoint(), 120);
    let before = look_roughly(&volume.mountpoint());
    for round in 0..20 {
        match round % 3 {
            0 => kill_during(&volume, &["rekey", "MOUNTPOINT"], round, true),
            1 => kill_during(&volume, &["rekey", "MOUNTPOINT"], round, false),
            _ => {
                volume.unmount();
                kill_during(&volume, &["rekey", "CIPHERDIR"], round, false);
                volume.mount(&[]);
            }
        }
        assert!(
            look_roughly(&volume.mountpoint()) == before,
            "round {round}"
        );
    }
    eventually("a rekey goes through", || {
        let output = volume.run(&["rekey", "MOUNTPOINT", "--output", "json"]);
        serde_json::from_slice::<serde_json::Value>(&output.stdout)
            .is_ok_and(|report| report["Failures"]["Count"] == 1)
    });
    volume.remount();
    assert!(look_roughly(&volume.mountpoint()) == before);
}
