//! A volume on a real small filesystem, in a loop device, filled to the brim through a real mount, again and again: what was
//! acknowledged reads back, a full disk can be emptied and its files overwritten and cut, and all space comes back.
//!
//! `CMKFS_FILLINGS` says how often each filesystem is filled, twice where it says nothing. Needs root, loop devices,
//! mkfs.ext4 and mkfs.xfs.

mod common;

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use cmkfs::volume::lock::holder;
use common::{Volume, eventually, succeed};
use rustix::mount::UnmountFlags;
use rustix::process::{Pid, Signal};

/// Of what a whole file is made.
const PIECE: usize = 1 << 20;

/// A filesystem of its own in a loop device, mounted where a volume keeps its ciphertext; gone when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn new(folder: &Path, kind: &str, megabytes: u64) -> Self {
        assert!(
            Path::new("/dev/loop-control").exists(),
            "this test needs loop devices: run `modprobe loop` as root; in a container, give it /dev/loop-control"
        );
        let image = folder.join("image");
        let file = File::create(&image).unwrap();
        file.set_len(megabytes << 20).unwrap();
        succeed(Command::new(format!("mkfs.{kind}")).arg("-q").arg(&image));
        let at = folder.join("disk");
        fs::create_dir(&at).unwrap();
        succeed(
            Command::new("mount")
                .args(["-o", "loop"])
                .arg(&image)
                .arg(&at),
        );
        Self(at)
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

/// The content of a file at a version; every page tells which it is.
fn content(file: usize, version: u64, length: usize) -> Vec<u8> {
    let page = |n: usize| {
        let seed =
            ((file as u64) << 40 ^ version << 20 ^ n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (0..512).flat_map(move |word: u64| (seed ^ word | 1).to_le_bytes())
    };
    let mut content: Vec<u8> = (0..length.div_ceil(4096)).flat_map(page).collect();
    content.truncate(length);
    content
}

/// There is no room, and nothing else is wrong.
fn is_full(error: &io::Error) -> bool {
    assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
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
        let versions: Vec<_> = self
            .versions
            .iter()
            .map(|version| content(self.number, *version, self.length))
            .collect();
        for at in (0..self.length).step_by(4096) {
            let end = self.length.min(at + 4096);
            assert!(
                versions
                    .iter()
                    .any(|version| version[at..end] == found[at..end]),
                "{when}: {:?} at {at}",
                self.path
            );
        }
    }
}

/// Writes whole files until there is no room; those that were synced.
fn fill(folder: &Path, round: u64, length: usize) -> Vec<Known> {
    let mut known = Vec::new();
    for number in 0.. {
        let path = folder.join(format!("{length}-{number}"));
        let made = File::create(&path).and_then(|file| {
            file.write_all_at(&content(number, round, length), 0)?;
            file.sync_all()
        });
        match made {
            Ok(()) => known.push(Known {
                path,
                number,
                length,
                versions: vec![round],
            }),
            Err(error) if is_full(&error) => return known,
            Err(_) => unreachable!(),
        }
    }
    unreachable!()
}

/// Appends to one file until there is no room, syncing now and then.
fn fill_by_appending(folder: &Path, round: u64) -> Known {
    let path = folder.join("appended");
    let file = File::create(&path).unwrap();
    let mut known = Known {
        path,
        number: 77,
        length: 0,
        versions: vec![round],
    };
    // Large enough that any of these disks ends before.
    let whole = content(77, round, 64 << 20);
    let mut at = 0;
    loop {
        let part = &whole[at % whole.len()..][..30_000];
        let done = file.write_all_at(part, at as u64).and_then(|()| {
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
            Err(error) if is_full(&error) => return known,
            Err(_) => unreachable!(),
        }
    }
}

/// Overwrites a file as often as the disk is full, in its middle and as a whole: each page is old or new, and new where
/// that was acknowledged.
fn overwrite(known: &mut Known, version: u64) {
    let file = OpenOptions::new().write(true).open(&known.path).unwrap();
    let new = content(known.number, version, known.length);
    let done = file.write_all_at(&new, 0).and_then(|()| file.sync_all());
    match done {
        Ok(()) => known.versions = vec![version],
        Err(error) if is_full(&error) => known.versions.push(version),
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

fn fill_again_and_again(kind: &str, megabytes: u64) {
    assert!(
        rustix::process::geteuid().is_root(),
        "this test mounts filesystems: run it as root"
    );
    let fillings = std::env::var("CMKFS_FILLINGS").ok();
    let fillings: u64 = fillings.map_or(2, |text| text.parse().expect("a number"));
    let volume = Volume::bare(None);
    let disk = SmallDisk::new(volume.folder(), kind, megabytes);
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
        let when = |what: &str| format!("{kind}, filling {round}, {what}");
        // Pieces of a size that ends in the middle of one, then small files into what is left; or one file that grows.
        let mut known = match round % 2 {
            0 => fill(&folder, round, 5 * PIECE + 1234),
            _ => vec![fill_by_appending(&folder, round)],
        };
        known.extend(fill(&folder, round, 100_000));
        known.extend(fill(&folder, round, 3000));
        check_all(&known, &when("full"));
        // On the full disk: overwriting, and cutting.
        for known in known.iter_mut().take(3) {
            overwrite(known, 1000 + round);
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
        for length in [first.length * 2 / 3 + 7, first.length / 2, 5] {
            file.set_len(length as u64)
                .unwrap_or_else(|error| panic!("{}: {error}", when("cut")));
            first.length = length;
            first.check(&when("cut"));
        }
        file.set_len(0).unwrap();
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
        "{kind}: filled {fillings} times; {overwritten:?} overwrites succeeded and found no room"
    );
    volume.unmount();
}

#[test]
fn a_full_ext4_loses_nothing_and_can_be_emptied() {
    fill_again_and_again("ext4", 64);
}

#[test]
fn a_full_xfs_loses_nothing_and_can_be_emptied() {
    fill_again_and_again("xfs", 300);
}
