//! What the kernel asks only of transports of our own, and what it marks for them.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags, linkat, openat, statx};

use super::{OWN, TRANSPORTS, let_everybody_in, mounted};

#[test]
fn a_file_without_a_name_is_used_named_and_stays() {
    for transport in OWN {
        let volume = mounted(transport);
        let flags = OFlags::TMPFILE | OFlags::RDWR;
        let make = || openat(CWD, volume.mountpoint(), flags, Mode::from_raw_mode(0o640)).unwrap();
        let mut file = File::from(make());
        file.write_all(b"without a name").unwrap();
        assert_eq!(file.metadata().unwrap().nlink(), 0);
        file.seek(SeekFrom::Start(0)).unwrap();
        let mut read = String::new();
        file.read_to_string(&mut read).unwrap();
        assert_eq!(read, "without a name");
        assert_eq!(std::fs::read_dir(volume.mountpoint()).unwrap().count(), 0);
        let long = "n".repeat(255);
        let through = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
        linkat(
            CWD,
            &through,
            CWD,
            volume.path(&long),
            AtFlags::SYMLINK_FOLLOW,
        )
        .unwrap();
        assert_eq!(file.metadata().unwrap().nlink(), 1);
        // One that never gets a name leaves nothing.
        drop(make());
        drop(file);
        volume.remount();
        assert_eq!(std::fs::read_to_string(volume.path(&long)).unwrap(), read);
        assert_eq!(volume.path(&long).metadata().unwrap().mode() & 0o777, 0o640);
        volume.unmount();
        let said = volume.succeed(&["verify", "CIPHERDIR"]);
        assert!(said.contains("Verified 1 file"), "{said}");
    }
}

#[test]
fn the_time_of_birth_is_that_of_the_making() {
    for transport in OWN {
        let volume = mounted(transport);
        let before = SystemTime::now() - Duration::from_secs(5);
        let path = volume.path("a");
        std::fs::write(&path, "a").unwrap();
        let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        File::open(&path).unwrap().set_modified(long_ago).unwrap();
        let born = path.metadata().unwrap().created().unwrap();
        assert!(before < born && born <= SystemTime::now() + Duration::from_secs(5));
        // Where only the birth is wanted, and where nobody asks for it.
        let asked = statx(CWD, &path, AtFlags::empty(), StatxFlags::BTIME).unwrap();
        assert!(asked.stx_mask & StatxFlags::BTIME.bits() != 0);
        assert_eq!(path.metadata().unwrap().modified().unwrap(), long_ago);
    }
}

/// The mode that is left of 6755 after an ordinary user's `change`, and after root's.
#[test]
fn setuid_and_setgid_go_with_a_change_by_an_ordinary_user_and_stay_with_one_by_root() {
    type Change = fn(&std::path::Path);
    let changes: [(&str, Change); 4] = [
        ("write", |path| {
            let file = File::options().write(true).open(path).unwrap();
            file.write_all_at(b"x", 0).unwrap();
            file.sync_all().unwrap();
        }),
        ("truncate", |path| {
            let file = File::options().write(true).open(path).unwrap();
            file.set_len(1).unwrap();
        }),
        ("open to truncate", |path| {
            drop(File::create(path).unwrap());
        }),
        ("fallocate", |path| {
            let file = File::options().write(true).open(path).unwrap();
            let mode = rustix::fs::FallocateFlags::empty();
            rustix::fs::fallocate(&file, mode, 0, 8192).unwrap();
        }),
    ];
    for transport in TRANSPORTS {
        let volume = mounted(transport);
        let_everybody_in(&volume);
        for (name, change) in changes {
            for (user, left) in [(1000, 0o777), (0, 0o6777)] {
                let path = volume.path("program");
                let mut file = File::options();
                let file = file.write(true).create_new(true).mode(0o700).open(&path);
                file.unwrap().write_all(b"#!/bin/sh\n").unwrap();
                std::fs::set_permissions(&path, PermissionsExt::from_mode(0o6777)).unwrap();
                as_user(user, || change(&path));
                let mode = path.metadata().unwrap().mode() & 0o7777;
                assert_eq!(mode, left, "{transport}: {name} by {user}: {mode:o}");
                std::fs::remove_file(&path).unwrap();
            }
        }
    }
}

/// With this user's rights over files, in a thread of its own.
fn as_user(user: u32, work: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            cmkfs::sys::identity::assume(user, user);
            work();
        });
        worker.join().unwrap();
    });
}

#[test]
fn an_access_list_by_somebody_outside_the_group_takes_setgid_away() {
    for transport in OWN {
        let volume = mounted(transport);
        let_everybody_in(&volume);
        let path = volume.path("a");
        std::fs::write(&path, "a").unwrap();
        std::os::unix::fs::chown(&path, Some(1000), Some(2000)).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o2755)).unwrap();
        let mut list = volume.program("setpriv");
        list.args(["--reuid=1000", "--regid=1000", "--clear-groups"]);
        list.args(["setfacl", "-m", "u:1001:r"]).arg(&path);
        super::common::succeed(&mut list);
        let mode = path.metadata().unwrap().mode();
        assert_eq!(mode & 0o2000, 0, "{transport}: {mode:o}");
    }
}
