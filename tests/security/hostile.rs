//! Key directories and volumes made to hurt: every command ends soon, in little memory, with an error that says what it is
//! about.

use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, OFlags};

use crate::bounded;
use crate::common::{Volume, succeed};

const KINDS: [&str; 6] = ["fifo", "directory", "loop", "endless", "huge", "noise"];

/// The last ones get what room the first has left.
const KINDS_OF_ATTRIBUTES: [&str; 3] = [
    "user.cmkfs.AAAAAAAAAAAAAAAAAAAAAA",
    "user.cmkfs.x",
    "user.other",
];

/// Puts something of this kind at a path that is free.
fn put(kind: &str, path: &Path) {
    match kind {
        "fifo" => {
            let mode = Mode::from_raw_mode(0o600);
            rustix::fs::mknodat(CWD, path, FileType::Fifo, mode, 0).unwrap();
        }
        "directory" => fs::create_dir(path).unwrap(),
        "loop" => symlink(path, path).unwrap(),
        "endless" => symlink("/dev/zero", path).unwrap(),
        "huge" => File::create(path).unwrap().set_len(1 << 40).unwrap(),
        _ => {
            let mut noise = vec![0; 1 << 20];
            getrandom::fill(&mut noise).unwrap();
            fs::write(path, noise).unwrap();
        }
    }
}

/// The regular files below a directory.
fn files(folder: &Path) -> Vec<PathBuf> {
    let (mut found, mut pending) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(path) = pending.pop() {
        let stat = fs::symlink_metadata(&path).unwrap();
        if stat.is_dir() {
            pending.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        } else if stat.is_file() {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[test]
fn whatever_lies_in_the_place_of_a_file_of_the_key_directory_ends_in_an_error() {
    let volume = Volume::new();
    volume.succeed(&["key", "list"]);
    let keys = volume.folder().join("keys");
    let aside = volume.folder().join("aside");
    let all = files(&keys);
    assert!(all.len() >= 5, "{all:?}");
    for file in all {
        fs::rename(&file, &aside).unwrap();
        for kind in KINDS {
            put(kind, &file);
            for command in [
                &["key", "list"][..],
                &["keys", "verify"],
                &["mount", "CIPHERDIR", "MOUNTPOINT"],
            ] {
                bounded(&volume, command);
            }
            if volume.is_mounted() {
                volume.unmount();
            }
            match fs::symlink_metadata(&file) {
                Ok(stat) if stat.is_dir() => fs::remove_dir_all(&file).unwrap(),
                Ok(_) => fs::remove_file(&file).unwrap(),
                Err(_) => {}
            }
        }
        fs::rename(&aside, &file).unwrap();
    }
    volume.mount(&[]);
}

#[test]
fn twenty_thousand_records_of_noise_are_told_of_in_bounded_time_and_memory() {
    let volume = Volume::new();
    let keys = volume.folder().join("keys/keys");
    assert!(keys.is_dir());
    // Many names of one file: making and removing so many files would take longer than what is tested.
    let noise = volume.folder().join("noise");
    fs::write(&noise, "noise").unwrap();
    for n in 0..20_000 {
        let mut record = keys.join(uuid::Uuid::new_v4().to_string());
        if n % 40 == 0 {
            fs::create_dir(&record).unwrap();
            record.push("key");
        }
        fs::hard_link(&noise, record).unwrap();
    }
    let start = Instant::now();
    let output = bounded(&volume, &["key", "list"]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.lines().count() >= 20_000, "{}", said.lines().count());
    bounded(&volume, &["mount", "CIPHERDIR", "MOUNTPOINT"]);
    assert!(start.elapsed() < Duration::from_secs(30));
    // What is no key stands in nobody's way.
    fs::write(volume.path("file"), "x").unwrap();
}

#[test]
fn whatever_lies_in_the_place_of_a_volumes_files_ends_in_an_error() {
    let volume = Volume::mounted();
    fs::create_dir(volume.path("dir")).unwrap();
    fs::write(volume.path("dir/file"), vec![7; 100_000]).unwrap();
    volume.unmount();
    let aside = volume.folder().join("aside");
    for file in files(&volume.ciphertext()) {
        fs::rename(&file, &aside).unwrap();
        for kind in KINDS {
            put(kind, &file);
            bounded(&volume, &["volume", "info", "CIPHERDIR"]);
            bounded(&volume, &["volume", "purge", "CIPHERDIR"]);
            bounded(&volume, &["mount", "CIPHERDIR", "MOUNTPOINT"]);
            if volume.is_mounted() {
                let script = "find . -ls; [ -p dir/file ] && exit; cat dir/file | head -c 100; echo x >> dir/file; echo y > new; tail -c 5 dir/file; rm -f new";
                let mut shell = volume.program("timeout");
                shell
                    .args(["20", "sh", "-c", script])
                    .current_dir(volume.mountpoint());
                assert_ne!(
                    shell.output().unwrap().status.code(),
                    Some(124),
                    "{kind} {file:?}"
                );
                bounded(&volume, &["status"]);
                volume.unmount();
            }
            match fs::symlink_metadata(&file) {
                Ok(stat) if stat.is_dir() => fs::remove_dir_all(&file).unwrap(),
                Ok(_) => fs::remove_file(&file).unwrap(),
                Err(_) => {}
            }
        }
        fs::rename(&aside, &file).unwrap();
    }
    volume.mount(&[]);
    assert_eq!(fs::read(volume.path("dir/file")).unwrap(), vec![7; 100_000]);
}

#[test]
fn a_tree_ten_thousand_directories_deep_is_walked_or_refused() {
    let volume = Volume::mounted();
    fs::create_dir(volume.path("dir")).unwrap();
    volume.unmount();
    let name = fs::read_dir(volume.ciphertext())
        .unwrap()
        .find_map(|entry| {
            let name = entry.unwrap().file_name().into_string().unwrap();
            (!name.contains('.')).then_some(name)
        });
    let name = name.unwrap();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let mut at = rustix::fs::open(volume.ciphertext().join(&name), flags, Mode::empty()).unwrap();
    for _ in 0..10_000 {
        rustix::fs::mkdirat(at.as_fd(), &name, Mode::from_raw_mode(0o700)).unwrap();
        at = rustix::fs::openat(at.as_fd(), &name, flags, Mode::empty()).unwrap();
    }
    drop(at);
    bounded(&volume, &["volume", "info", "CIPHERDIR"]);
    volume.mount(&[]);
    let mut find = volume.program("timeout");
    find.args(["20", "find", "."])
        .current_dir(volume.mountpoint());
    assert_ne!(find.output().unwrap().status.code(), Some(124));
    volume.unmount();
    // The harness's way of removing it goes no deeper than there are descriptors.
    succeed(volume.program("rm").arg("-rf").arg(volume.ciphertext()));
}

#[test]
fn a_giant_directory_of_foreign_names_and_a_giant_sparse_file_do_no_harm() {
    let volume = Volume::mounted();
    fs::write(volume.path("file"), vec![7; 10_000]).unwrap();
    volume.unmount();
    for n in 0..20_000 {
        File::create(volume.ciphertext().join(format!("foreign.{n}"))).unwrap();
    }
    let object = files(&volume.ciphertext())
        .into_iter()
        .find(|path| !path.file_name().unwrap().to_string_lossy().contains('.'))
        .unwrap();
    // As large as this filesystem takes.
    let file = File::options().write(true).open(&object).unwrap();
    let size = (40..63)
        .rev()
        .find(|bits| file.set_len((1 << bits) + 12345).is_ok());
    assert!(size.is_some());
    for kind in KINDS_OF_ATTRIBUTES {
        let room = [65536, 4000, 1000].into_iter().find(|length| {
            let flags = rustix::fs::XattrFlags::empty();
            rustix::fs::setxattr(&object, kind, &vec![1; *length], flags).is_ok()
        });
        assert!(room.is_some() || kind != KINDS_OF_ATTRIBUTES[0]);
    }
    bounded(&volume, &["volume", "info", "CIPHERDIR"]);
    volume.mount(&[]);
    let script = "ls -l | wc -l; cat file | head -c 100; tail -c 100 file; getfattr -d file; setfattr -n user.a -v b file; echo x >> file; truncate -s 5 file; cp file copy; rm file";
    let mut shell = volume.program("timeout");
    shell
        .args(["20", "sh", "-c", script])
        .current_dir(volume.mountpoint());
    assert_ne!(shell.output().unwrap().status.code(), Some(124));
    let resident = crate::status_of(&volume.daemon().unwrap().to_string(), "VmRSS");
    let kilobytes: u64 = resident.trim_end_matches(" kB").parse().unwrap();
    assert!(kilobytes < 300_000, "{resident}");
    fs::write(volume.path("after"), "after").unwrap();
}
