//! Locks between processes.

use std::fs::{self, OpenOptions};
use std::os::fd::AsRawFd;

use crate::common::Volume;
use crate::{needs, script};

#[test]
fn a_file_locked_by_flock_is_locked_for_other_processes() {
    needs(&[("flock", "util-linux")]);
    let volume = Volume::mounted();
    script(
        &volume.mountpoint(),
        "flock file sh -c '! flock -n file true'
         flock -s file flock -n -s file true
         flock -s file sh -c '! flock -n -x file true'
         flock -n file true",
    );
    // The last one to take it sees what all before have written.
    script(
        &volume.mountpoint(),
        "echo 0 > count
         for worker in 1 2 3 4; do
             for round in $(seq 25); do flock count sh -c 'echo $(($(cat count) + 1)) > count'; done &
         done
         wait
         test $(cat count) = 100",
    );
}

#[test]
fn a_range_locked_by_fcntl_is_locked_for_other_processes() {
    needs(&[("perl", "perl")]);
    let volume = Volume::mounted();
    fs::write(volume.path("file"), [0; 100]).unwrap();
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(volume.path("file"))
        .unwrap();
    let lock = |kind: i32| {
        // SAFETY: all fields are integers.
        let mut range: libc::flock = unsafe { std::mem::zeroed() };
        range.l_type = kind as libc::c_short;
        (range.l_start, range.l_len) = (10, 10);
        // SAFETY: the descriptor is open and the structure lives through the call.
        let done = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLK, &raw mut range) };
        assert_eq!(done, 0);
    };
    // struct flock on 64-bit Linux: two shorts, padding, two 64-bit offsets, a pid.
    let other = |start: u32, length: u32| {
        script(
            &volume.mountpoint(),
            &format!(
                "perl -e 'use Fcntl; open(my $f, \"+<\", \"file\") or die; \
                 my $l = pack(\"s s x4 q q i x4\", F_WRLCK, 0, {start}, {length}, 0); \
                 print fcntl($f, F_SETLK, $l) ? \"free\" : \"locked\"'"
            ),
        )
    };
    lock(libc::F_WRLCK);
    assert_eq!(
        (other(0, 10), other(19, 5)),
        ("free".to_owned(), "locked".to_owned())
    );
    lock(libc::F_UNLCK);
    assert_eq!(other(19, 5), "free");
}
