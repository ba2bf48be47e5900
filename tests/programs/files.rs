//! What programs do with single files: replacing them safely, mapping them, allocating, running them.

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::ptr::NonNull;

use rustix::fs::{SeekFrom, seek};

use crate::common::Volume;
use crate::{needs, script};

#[test]
fn an_editor_replaces_a_file_safely() {
    let volume = Volume::mounted();
    script(
        &volume.mountpoint(),
        "umask 022; echo one > letter; chmod 640 letter
         for round in $(seq 50); do
             printf 'version %s\\n' $round > .letter.swp
             chmod --reference=letter .letter.swp
             sync .letter.swp
             ln -f letter letter~
             mv -f .letter.swp letter
             sync .
             test \"$(cat letter)\" = \"version $round\"
         done
         test \"$(cat letter~)\" = 'version 49'
         test $(stat -c %a letter) = 640
         sed -i s/version/Version/ letter",
    );
    volume.remount();
    assert_eq!(
        fs::read_to_string(volume.path("letter")).unwrap(),
        "Version 50\n"
    );
    assert_eq!(
        fs::read_to_string(volume.path("letter~")).unwrap(),
        "version 49\n"
    );
}

/// A mapped file, unmapped when dropped.
struct Map(NonNull<u8>, usize);

impl Map {
    fn new(file: &File, length: usize, flags: i32) -> Self {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: the kernel chooses an address that is free.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                access,
                flags,
                file.as_raw_fd(),
                0,
            )
        };
        assert_ne!(
            start,
            libc::MAP_FAILED,
            "{}",
            std::io::Error::last_os_error()
        );
        Self(NonNull::new(start.cast()).unwrap(), length)
    }

    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: mapped for reading and writing, for as long as this lives; the file is never shorter.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_ptr(), self.1) }
    }

    fn sync(&self) {
        // SAFETY: this range is mapped.
        let done = unsafe { libc::msync(self.0.as_ptr().cast(), self.1, libc::MS_SYNC) };
        assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: this range is mapped, and nobody has a reference into it any more.
        unsafe { libc::munmap(self.0.as_ptr().cast(), self.1) };
    }
}

#[test]
fn shared_maps_are_the_file_and_private_ones_are_not() {
    const LENGTH: usize = 300_000;
    let volume = Volume::mounted();
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(volume.path("file"))
        .unwrap();
    file.write_all_at(&[1; LENGTH], 0).unwrap();
    let mut shared = Map::new(&file, LENGTH, libc::MAP_SHARED);
    let mut second = Map::new(
        &File::options()
            .read(true)
            .write(true)
            .open(volume.path("file"))
            .unwrap(),
        LENGTH,
        libc::MAP_SHARED,
    );
    let mut private = Map::new(&file, LENGTH, libc::MAP_PRIVATE);
    private.bytes()[5] = 9;
    shared.bytes()[100_000] = 2;
    assert_eq!((second.bytes()[100_000], private.bytes()[100_000]), (2, 2));
    file.write_all_at(&[3], 200_000).unwrap();
    assert_eq!((shared.bytes()[200_000], second.bytes()[200_000]), (3, 3));
    let mut byte = [0];
    file.read_exact_at(&mut byte, 100_000).unwrap();
    assert_eq!(byte, [2]);
    // What is mapped outlives the name and the descriptor.
    second.bytes()[LENGTH - 1] = 4;
    drop(file);
    shared.sync();
    drop((shared, second));
    assert_eq!(private.bytes()[5], 9);
    drop(private);
    volume.remount();
    let mut expected = vec![1; LENGTH];
    (expected[100_000], expected[200_000], expected[LENGTH - 1]) = (2, 3, 4);
    assert!(fs::read(volume.path("file")).unwrap() == expected);
}

#[test]
fn a_file_without_a_name_is_had_or_refused_so_that_programs_fall_back() {
    let volume = Volume::mounted();
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(libc::O_TMPFILE);
    let made = options.open(volume.mountpoint());
    if volume.transport().starts_with("fuser") {
        let error = made.unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EOPNOTSUPP));
    } else {
        assert_eq!(made.unwrap().metadata().unwrap().nlink(), 0);
    }
    // One that falls back by itself.
    let file = tempfile::tempfile_in(volume.mountpoint()).unwrap();
    file.write_all_at(b"without a name", 5).unwrap();
    let mut read = [0; 14];
    file.read_exact_at(&mut read, 5).unwrap();
    assert_eq!(&read, b"without a name");
    assert_eq!(fs::read_dir(volume.mountpoint()).unwrap().count(), 0);
}

#[test]
fn fallocate_does_what_its_modes_say() {
    needs(&[("fallocate", "util-linux")]);
    let volume = Volume::mounted();
    script(
        &volume.mountpoint(),
        "size() { stat -c %s $1; }
         head -c 1000000 /dev/urandom > file; cp file ../reference
         same() { cmp file ../reference; }
         fallocate -l 2000000 file;              truncate -s 2000000 ../reference; same
         fallocate -n -o 1900000 -l 5000000 file; test $(size file) = 2000000; same
         fallocate -p -o 5000 -l 300000 file;    fallocate -p -o 5000 -l 300000 ../reference; same
         fallocate -z -o 400001 -l 100000 file;  fallocate -z -o 400001 -l 100000 ../reference; same
         fallocate -z -o 1999999 -l 9999 file;   fallocate -z -o 1999999 -l 9999 ../reference; same
         fallocate -z -n -o 2000000 -l 99999 file; test $(size file) = $(size ../reference); same
         fallocate -d file; same
         for mode in -c -i; do
             if fallocate $mode -o 4096 -l 4096 file 2> said; then exit 1; fi
             grep -q 'not supported' said; same
         done",
    );
    volume.remount();
    script(
        &volume.mountpoint(),
        "cmp file ../reference; rm ../reference",
    );
}

#[test]
fn holes_are_found_while_a_writer_has_the_file_open() {
    let volume = Volume::mounted();
    let writer = File::create_new(volume.path("file")).unwrap();
    writer.set_len(10 << 20).unwrap();
    writer.write_all_at(&[1; 8192], 4 << 20).unwrap();
    let reader = File::open(volume.path("file")).unwrap();
    assert_eq!(seek(&reader, SeekFrom::Data(0)).unwrap(), 4 << 20);
    assert_eq!(
        seek(&reader, SeekFrom::Hole(4 << 20)).unwrap(),
        (4 << 20) + 8192
    );
    assert_eq!(
        seek(&reader, SeekFrom::Data(5 << 20)),
        Err(rustix::io::Errno::NXIO)
    );
    assert_eq!(seek(&reader, SeekFrom::Hole(5 << 20)).unwrap(), 5 << 20);
    assert!(writer.metadata().unwrap().blocks() < 2048);
}

#[test]
fn appending_processes_do_not_overwrite_each_other() {
    let volume = Volume::mounted();
    script(
        &volume.mountpoint(),
        "for worker in 1 2 3 4; do
             (for line in $(seq 500); do echo \"worker $worker line $line\"; done >> log) &
         done
         wait
         test $(wc -l < log) = 2000
         test $(sort log | uniq | grep -cxE 'worker [1-4] line [0-9]+') = 2000",
    );
}

#[test]
fn programs_run_from_the_mount() {
    let volume = Volume::mounted();
    script(
        &volume.mountpoint(),
        "cp \"$(command -v id)\" program
         test \"$(./program -u)\" = 0
         printf '#!/bin/sh\\necho \"$0 $1\"\\n' > script; chmod +x script
         test \"$(./script word)\" = './script word'
         cp \"$(command -v sleep)\" busy
         ./busy 60 & pid=$!
         until [ \"$(readlink /proc/$pid/exe)\" = \"$PWD/busy\" ]; do :; done
         if cat program 2> /dev/null > busy; then exit 1; fi
         rm busy
         kill $pid",
    );
    volume.remount();
    script(&volume.mountpoint(), "test \"$(./program -u)\" = 0");
}

#[test]
fn the_free_space_is_the_backing_filesystems() {
    let volume = Volume::mounted();
    let figures = |path| {
        let figures = rustix::fs::statvfs(path).unwrap();
        (
            figures.f_blocks * figures.f_frsize,
            figures.f_files,
            figures.f_namemax,
        )
    };
    assert_eq!(figures(volume.mountpoint()), figures(volume.ciphertext()));
    script(
        &volume.mountpoint(),
        "df . > /dev/null; test $(stat -f -c %T .) = fuseblk -o $(stat -f -c %T .) = fuse",
    );
}
