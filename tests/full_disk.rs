//! A volume on a real small filesystem, in a loop device, filled to the brim through a real mount, again and again: what was
//! acknowledged reads back, a full disk can be emptied and its files overwritten and cut, and all space comes back. And the
//! same where it is not the disk that is full, but the quota of a user.
//!
//! `CMKFS_FILLINGS` says how often each filesystem is filled, twice where it says nothing. Needs root, loop devices,
//! mkfs.ext4, mkfs.xfs and mkfs.btrfs.

mod common;

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use cmkfs::volume::lock::holder;
use common::{Volume, eventually, succeed};
use rustix::fs::FallocateFlags;
use rustix::mount::UnmountFlags;
use rustix::process::{Pid, Signal};

/// Of what a whole file is made.
const PIECE: usize = 1 << 20;

/// A filesystem of Linux, and how it is made and mounted.
#[derive(Clone, Copy)]
struct Kind {
    name: &'static str,
    megabytes: u64,
    made: &'static [&'static str],
    /// What is overwritten takes room.
    copies_on_write: bool,
    /// Not the disk is full, but what it grants.
    quota: bool,
}

/// How much of a disk is left to fill, in bytes.
const ROOM: u64 = 60 << 20;
/// How much of one is granted where there is a quota.
const QUOTA: &str = "60M";

/// A filesystem of its own in a loop device, mounted where a volume keeps its ciphertext; gone when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn new(folder: &Path, kind: Kind) -> Self {
        assert!(
            Path::new("/dev/loop-control").exists(),
            "this test needs loop devices: run `modprobe loop` as root; in a container, give it /dev/loop-control"
        );
        let image = folder.join("image");
        let file = File::create(&image).unwrap();
        file.set_len(kind.megabytes << 20).unwrap();
        let mut mkfs = Command::new(format!("mkfs.{}", kind.name));
        succeed(mkfs.arg("-q").args(kind.made).arg(&image));
        let at = folder.join("disk");
        fs::create_dir(&at).unwrap();
        succeed(
            Command::new("mount")
                .args(["-t", kind.name, "-o", "loop"])
                .arg(&image)
                .arg(&at),
        );
        let disk = Self(at);
        if kind.quota {
            for arguments in [&["quota", "enable"][..], &["qgroup", "limit", QUOTA]] {
                succeed(Command::new("btrfs").args(arguments).arg(&disk.0));
            }
        } else {
            // Filled quickly, however small a filesystem may be.
            let ballast = File::create(disk.0.join("ballast")).unwrap();
            let length = disk.free().saturating_sub(ROOM);
            if length > 0 {
                rustix::fs::fallocate(&ballast, FallocateFlags::empty(), 0, length).unwrap();
            }
        }
        disk
    }

    fn free(&self) -> u64 {
        rustix::fs::sync();
        let disk = rustix::fs::statvfs(&self.0).unwrap();
        disk.f_bfree * disk.f_frsize
    }

    /// Everything on it.
    fn listing(&self) -> Vec<PathBuf> {
        let (mut found, mut pending) = (Vec::new(), vec![self.0.clone()]);
        while let Some(directory) = pending.pop() {
            for entry in fs::read_dir(directory).unwrap().flatten() {
                if entry.file_type().unwrap().is_dir() {
                    pending.push(entry.path());
                }
                found.push(entry.path());
            }
        }
        found.sort();
        found
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, UnmountFlags::DETACH);
    }
}

/// A page of a file at a version: it tells which it is.
fn page(file: usize, version: u64, n: usize) -> impl Iterator<Item = u8> {
    let seed = ((file as u64) << 40 ^ version << 20 ^ n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (0..512).flat_map(move |word: u64| (seed ^ word | 1).to_le_bytes())
}

/// A part of the content of a file at a version.
fn content(file: usize, version: u64, part: Range<usize>) -> Vec<u8> {
    let pages = part.start / 4096..part.end.div_ceil(4096);
    pages
        .clone()
        .flat_map(|n| page(file, version, n))
        .skip(part.start - pages.start * 4096)
        .take(part.len())
        .collect()
}

/// There is no room, and nothing else is wrong.
fn is_full(error: &io::Error, kind: Kind) -> bool {
    let expected = if kind.quota {
        ErrorKind::QuotaExceeded
    } else {
        ErrorKind::StorageFull
    };
    assert_eq!(error.kind(), expected, "{error}");
    true
}

/// What a file is known to hold.
struct Known {
    path: PathBuf,
    number: usize,
    length: usize,
    /// The versions of which its pages may be.
    versions: Vec<u64>,
}

impl Known {
    fn check(&self, when: &str) {
        let found =
            fs::read(&self.path).unwrap_or_else(|error| panic!("{when}: {:?}: {error}", self.path));
        assert!(
            found.len() >= self.length,
            "{when}: {:?} has {} of {} bytes",
            self.path,
            found.len(),
            self.length
        );
        for at in (0..self.length).step_by(4096) {
            let part = at..self.length.min(at + 4096);
            let is_known =
                |version: &u64| content(self.number, *version, part.clone()) == found[part.clone()];
            assert!(
                self.versions.iter().any(is_known),
                "{when}: {:?} at {at}",
                self.path
            );
        }
    }
}

/// Writes whole files until there is no room; those that were synced.
fn fill(folder: &Path, kind: Kind, round: u64, length: usize) -> Vec<Known> {
    let mut known = Vec::new();
    for number in 0.. {
        let path = folder.join(format!("{length}-{number}"));
        let made = File::create(&path).and_then(|file| {
            file.write_all_at(&content(number, round, 0..length), 0)?;
            file.sync_all()
        });
        match made {
            Ok(()) => known.push(Known {
                path,
                number,
                length,
                versions: vec![round],
            }),
            Err(error) if is_full(&error, kind) => return known,
            Err(_) => unreachable!(),
        }
    }
    unreachable!()
}

/// Appends to one file until there is no room, syncing now and then.
fn fill_by_appending(folder: &Path, kind: Kind, round: u64) -> Known {
    let path = folder.join("appended");
    let file = File::create(&path).unwrap();
    let mut known = Known {
        path,
        number: 77,
        length: 0,
        versions: vec![round],
    };
    let mut at = 0;
    loop {
        let part = content(77, round, at..at + 30_000);
        let done = file.write_all_at(&part, at as u64).and_then(|()| {
            if at / 30_000 % 20 == 19 {
                file.sync_data()
            } else {
                Ok(())
            }
        });
        at += 30_000;
        match done {
            Ok(()) if at / 30_000 % 20 == 0 => known.length = at,
            Ok(()) => {}
            Err(error) if is_full(&error, kind) => return known,
            Err(_) => unreachable!(),
        }
    }
}

/// Overwrites a file as often as the disk is full, in its middle and as a whole: each page is old or new, and new where
/// that was acknowledged.
fn overwrite(known: &mut Known, kind: Kind, version: u64) {
    let file = OpenOptions::new().write(true).open(&known.path).unwrap();
    let new = content(known.number, version, 0..known.length);
    let done = file.write_all_at(&new, 0).and_then(|()| file.sync_all());
    match done {
        Ok(()) => known.versions = vec![version],
        Err(error) if is_full(&error, kind) => known.versions.push(version),
        Err(_) => unreachable!(),
    }
}

/// Kills the daemon that serves a volume.
fn kill(cipher: &Path) {
    let pid = holder(cipher).expect("a daemon");
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, Signal::KILL).unwrap();
    eventually("the daemon is gone", || holder(cipher).is_none());
}

fn check_all(known: &[Known], when: &str) {
    for known in known {
        known.check(when);
    }
}

fn fill_again_and_again(kind: Kind) {
    let name = kind.name;
    assert!(
        rustix::process::geteuid().is_root(),
        "this test mounts filesystems: run it as root"
    );
    let fillings = std::env::var("CMKFS_FILLINGS").ok();
    let fillings: u64 = fillings.map_or(2, |text| text.parse().expect("a number"));
    let volume = Volume::bare(None);
    let disk = SmallDisk::new(volume.folder(), kind);
    let cipher = disk.0.join("cipher").to_string_lossy().into_owned();
    volume.succeed(&["init", &cipher]);
    fs::create_dir(volume.mountpoint()).unwrap();
    let mount = || {
        volume.succeed(&["mount", &cipher, "MOUNTPOINT"]);
    };
    mount();
    let folder = volume.path("folder");
    fs::create_dir(&folder).unwrap();
    // The directory of the journals is made with the first of them, and stays.
    fs::write(folder.join("f"), "once").unwrap();
    OpenOptions::new()
        .write(true)
        .open(folder.join("f"))
        .unwrap()
        .write_all_at(b"twice", 0)
        .unwrap();
    fs::remove_file(folder.join("f")).unwrap();
    volume.unmount();
    mount();
    let (clean, free) = (disk.listing(), disk.free());
    let mut overwritten = (0, 0);
    for round in 0..fillings {
        let when = |what: &str| format!("{name}, filling {round}, {what}");
        // Pieces of a size that ends in the middle of one, then small files into what is left; or one file that grows.
        let mut known = match round % 2 {
            0 => fill(&folder, kind, round, 5 * PIECE + 1234),
            _ => vec![fill_by_appending(&folder, kind, round)],
        };
        known.extend(fill(&folder, kind, round, 100_000));
        known.extend(fill(&folder, kind, round, 3000));
        check_all(&known, &when("full"));
        // On the full disk: overwriting, and cutting.
        for known in known.iter_mut().take(3) {
            overwrite(known, kind, 1000 + round);
            match known.versions.len() {
                1 => overwritten.0 += 1,
                _ => overwritten.1 += 1,
            }
        }
        check_all(&known, &when("overwritten"));
        if round % 2 == 0 {
            volume.unmount();
        } else {
            kill(Path::new(&cipher));
        }
        mount();
        check_all(&known, &when("mounted again"));
        let first = &mut known[0];
        let file = OpenOptions::new().write(true).open(&first.path).unwrap();
        for length in [first.length * 2 / 3 + 7, first.length / 2, 5, 0] {
            match file.set_len(length as u64) {
                Ok(()) => first.length = length,
                // The block that the new end lies in is written anew, which takes room there; and so does the cut itself.
                Err(error) if kind.copies_on_write => assert!(is_full(&error, kind)),
                Err(error) => panic!("{}: {error}", when("cut")),
            }
            first.check(&when("cut"));
        }
        drop(file);
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            fs::remove_file(&path).unwrap_or_else(|error| panic!("{}: {error}", when("removed")));
        }
        volume.unmount();
        mount();
        assert_eq!(disk.listing(), clean, "{}", when("emptied: what is left"));
        // The filesystem may keep a little for the names there were.
        let margin = 256 << 10;
        let now = disk.free();
        assert!(
            now + margin >= free,
            "{}: {now} of {free} bytes are free",
            when("emptied")
        );
    }
    println!(
        "{name}: filled {fillings} times; {overwritten:?} overwrites succeeded and found no room"
    );
    volume.unmount();
}

const EXT4: Kind = Kind {
    name: "ext4",
    megabytes: 72,
    made: &["-b", "4096"],
    copies_on_write: false,
    quota: false,
};

const BTRFS: Kind = Kind {
    name: "btrfs",
    megabytes: 110,
    made: &["--mixed"],
    copies_on_write: true,
    quota: false,
};

#[test]
fn a_full_ext4_loses_nothing_and_can_be_emptied() {
    fill_again_and_again(EXT4);
}

#[test]
fn a_full_ext4_of_small_blocks_loses_nothing_and_can_be_emptied() {
    let made = &["-b", "1024"];
    fill_again_and_again(Kind { made, ..EXT4 });
}

#[test]
fn a_full_xfs_loses_nothing_and_can_be_emptied() {
    fill_again_and_again(Kind {
        name: "xfs",
        megabytes: 300,
        made: &[],
        copies_on_write: false,
        quota: false,
    });
}

#[test]
fn a_full_btrfs_loses_nothing_and_can_be_emptied() {
    fill_again_and_again(BTRFS);
}

#[test]
fn a_full_quota_loses_nothing_and_can_be_emptied() {
    fill_again_and_again(Kind {
        quota: true,
        ..BTRFS
    });
}
