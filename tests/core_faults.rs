//! Every backing call of a scenario fails in turn: the error is clean, what was there before is still there, and the
//! filesystem goes on working once the trouble is over.

mod support;

use std::ffi::OsStr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use cmkfs::fs::backing::{Backing, Call, Observer};
use cmkfs::fs::{FileSystem, FsResult, OpenFlags, ROOT_NODE, SetAttributes, XattrMode};
use cmkfs::volume::keys::ServicePort;
use cmkfs::volume::{self, Access, Volume};
use rustix::io::Errno;
use support::{MODE, TestVolume, WRITE, caller};

/// Fails the n-th changing call from now, once; counts all of them.
struct FailOnce(Arc<AtomicI64>, Errno);

impl Observer for FailOnce {
    fn before(&self, call: Call) -> Result<(), Errno> {
        let changes = matches!(
            call,
            Call::Write | Call::Resize | Call::Make | Call::Rename | Call::Open | Call::Change
        );
        if changes && self.0.fetch_sub(1, Ordering::Relaxed) == 0 {
            Err(self.1)
        } else {
            Ok(())
        }
    }
}

fn open(volume: &TestVolume, countdown: &Arc<AtomicI64>, errno: Errno) -> Volume {
    let observer = Box::new(FailOnce(Arc::clone(countdown), errno));
    open_observed(volume, Backing::observed(observer))
}

fn open_observed(volume: &TestVolume, backing: Backing) -> Volume {
    let port = Arc::new(ServicePort::new(Arc::clone(&volume.keys)));
    volume::open_observed(
        &volume.cipher(),
        &volume.keys,
        port,
        Access::ReadWrite,
        backing,
    )
    .unwrap()
}

fn write(fs: &FileSystem, name: &str, offset: u64, data: &[u8]) -> FsResult<()> {
    let node = fs.lookup(ROOT_NODE, OsStr::new(name))?.node;
    let handle = fs.open(caller(), node, WRITE)?.handle;
    let written = fs.write(handle, offset, data);
    fs.release(handle);
    written
}

fn read(fs: &FileSystem, name: &str) -> FsResult<Vec<u8>> {
    let found = fs.lookup(ROOT_NODE, OsStr::new(name))?;
    let handle = fs.open(caller(), found.node, OpenFlags::default())?.handle;
    let mut content = vec![0; found.size as usize];
    let length = fs.read(handle, 0, &mut content);
    fs.release(handle);
    content.truncate(length?);
    Ok(content)
}

fn truncate(fs: &FileSystem, name: &str, size: u64) -> FsResult<()> {
    let node = fs.lookup(ROOT_NODE, OsStr::new(name))?.node;
    fs.set_attributes(
        caller(),
        node,
        None,
        &SetAttributes {
            size: Some(size),
            ..Default::default()
        },
    )
    .map(drop)
}

fn bytes(seed: u8, length: usize) -> Vec<u8> {
    (0..length)
        .map(|i| (i as u8).wrapping_mul(7).wrapping_add(seed))
        .collect()
}

/// Runs `change` on a file of `before` with its n-th backing call failing, for every n, and lets `judge` look at what is
/// left: the content right after, which must also be the content after a clean end and a new beginning.
fn fail_every_call(
    before: &[u8],
    errno: Errno,
    change: impl Fn(&FileSystem) -> FsResult<()>,
    judge: impl Fn(i64, &[u8], bool),
) {
    for n in 0.. {
        let volume = TestVolume::new();
        let countdown = Arc::new(AtomicI64::new(i64::MAX));
        let fs = open(&volume, &countdown, errno);
        let (_, opened) = fs
            .create(caller(), ROOT_NODE, OsStr::new("f"), MODE, WRITE)
            .unwrap();
        fs.release(opened.handle);
        write(&fs, "f", 0, before).unwrap();
        countdown.store(n, Ordering::Relaxed);
        let result = change(&fs);
        let failed = countdown.swap(i64::MAX, Ordering::Relaxed) < 0;
        if let Err(error) = &result {
            assert_eq!(error.errno(), errno, "call {n}");
        }
        let left = read(&fs, "f").unwrap_or_else(|error| panic!("call {n}: {error}"));
        judge(n, &left, result.is_ok());
        fs.shutdown().unwrap();
        drop(fs);
        let fs = volume.open();
        assert_eq!(
            read(&fs, "f").unwrap(),
            left,
            "call {n}: after a new beginning"
        );
        // And it goes on working.
        write(&fs, "f", 10, b"again").unwrap();
        assert_eq!(&read(&fs, "f").unwrap()[10..15], b"again");
        if !failed {
            assert!(n > 0, "the scenario makes changing calls");
            return;
        }
    }
}

#[test]
fn an_overwrite_that_fails_leaves_each_block_old_or_new() {
    let (old, new) = (bytes(1, 300_000), bytes(9, 250_000));
    let after = [&old[..5000], &new, &old[255_000..]].concat();
    fail_every_call(
        &old,
        Errno::NOSPC,
        |fs| write(fs, "f", 5000, &new),
        |n, left, done| {
            assert_eq!(left.len(), old.len());
            if done {
                assert!(left == after, "call {n}");
            }
            for (block, page) in left.chunks(4096).enumerate() {
                let at = block * 4096;
                let range = at..at + page.len();
                assert!(
                    page == &old[range.clone()] || page == &after[range],
                    "call {n}: block {block}"
                );
            }
        },
    );
}

#[test]
fn an_append_that_fails_leaves_the_file_as_it_was() {
    let (old, new) = (bytes(1, 230_000), bytes(9, 300_000));
    fail_every_call(
        &old,
        Errno::NOSPC,
        |fs| write(fs, "f", old.len() as u64, &new),
        |n, left, done| {
            let after = [&old[..], &new].concat();
            assert!(left == if done { &after } else { &old }, "call {n}");
        },
    );
}

/// Lets the n-th write from now take one page, and fails what comes after it, until the countdown is set anew.
struct FillsUp(Arc<AtomicI64>);

impl Observer for FillsUp {
    fn before(&self, call: Call) -> Result<(), Errno> {
        if call == Call::Write && self.0.fetch_sub(1, Ordering::Relaxed) == -1 {
            return Err(Errno::NOSPC);
        }
        Ok(())
    }

    fn room(&self) -> usize {
        if self.0.load(Ordering::Relaxed) == -1 {
            4096
        } else {
            usize::MAX
        }
    }
}

#[test]
fn an_append_of_which_a_part_fits_the_disk_leaves_the_file_as_it_was() {
    let (old, new) = (bytes(1, 5000), bytes(9, 300_000));
    for (n, offset) in (0..6).flat_map(|n| [(n, old.len()), (n, 4500), (n, 20_000)]) {
        let volume = TestVolume::new();
        let countdown = Arc::new(AtomicI64::new(i64::MAX));
        let observer = Box::new(FillsUp(Arc::clone(&countdown)));
        let fs = open_observed(&volume, Backing::observed(observer));
        let (_, opened) = fs
            .create(caller(), ROOT_NODE, OsStr::new("f"), MODE, WRITE)
            .unwrap();
        fs.write(opened.handle, 0, &old).unwrap();
        countdown.store(n, Ordering::Relaxed);
        let written = fs.write(opened.handle, offset as u64, &new);
        countdown.store(i64::MAX, Ordering::Relaxed);
        let kept = offset.min(old.len());
        let check = |fs: &FileSystem| {
            let left = read(fs, "f").unwrap_or_else(|error| panic!("write {n}: {error}"));
            if written.is_err() {
                assert_eq!(left.len(), old.len(), "write {n} at {offset}");
                assert!(left[..kept] == old[..kept], "write {n} at {offset}");
                let block = &left[4096..];
                assert!(block == &old[4096..] || block[kept - 4096..] == new[..old.len() - kept]);
            }
        };
        check(&fs);
        fs.release(opened.handle);
        fs.shutdown().unwrap();
        drop(fs);
        check(&volume.open());
    }
}

#[test]
fn a_write_far_past_the_end_that_fails_leaves_the_file_as_it_was() {
    let old = bytes(1, 10_000);
    fail_every_call(
        &old,
        Errno::IO,
        |fs| write(fs, "f", 500_000, b"far"),
        |n, left, done| {
            let mut after = old.clone();
            after.resize(500_000, 0);
            after.extend(b"far");
            assert!(left == if done { &after } else { &old }, "call {n}");
        },
    );
}

#[test]
fn an_attribute_that_cannot_be_set_on_an_empty_file_leaves_it_readable() {
    fail_every_call(
        &[],
        Errno::IO,
        |fs| {
            let node = fs.lookup(ROOT_NODE, OsStr::new("f"))?.node;
            let name = OsStr::new("user.a");
            fs.set_xattr(caller(), node, name, b"value", XattrMode::Set)
        },
        |n, left, _| assert!(left.is_empty(), "call {n}"),
    );
}

#[test]
fn a_truncation_that_fails_keeps_what_it_should_not_cut() {
    let old = bytes(1, 300_000);
    fail_every_call(
        &old,
        Errno::IO,
        |fs| truncate(fs, "f", 100_000),
        |n, left, done| {
            assert_eq!(left.len(), if done { 100_000 } else { 300_000 }, "call {n}");
            assert!(left[..100_000] == old[..100_000], "call {n}");
            let tail = left[100_000..].iter().zip(&old[100_000..]);
            assert!(
                tail.clone().all(|(left, old)| left == old || *left == 0),
                "call {n}"
            );
        },
    );
}

/// Notes down what would be on the disk in another order than it was done: writes, syncs, resizes.
struct Recorder(Arc<Mutex<Vec<Call>>>);

impl Observer for Recorder {
    fn before(&self, call: Call) -> Result<(), Errno> {
        if matches!(call, Call::Write | Call::Sync | Call::Resize | Call::Rename) {
            self.0.lock().unwrap().push(call);
        }
        Ok(())
    }
}

#[test]
fn the_mark_of_a_change_is_on_the_disk_before_the_change() {
    type Change = fn(&FileSystem) -> FsResult<()>;
    let changes: [Change; 3] = [
        |fs| write(fs, "f", 100, b"over"),
        |fs| write(fs, "f", 8192, b"after"),
        |fs| truncate(fs, "f", 5),
    ];
    for change in changes {
        let volume = TestVolume::new();
        let calls = Arc::new(Mutex::new(Vec::new()));
        let reopen = || {
            let observer = Box::new(Recorder(Arc::clone(&calls)));
            open_observed(&volume, Backing::observed(observer))
        };
        let fs = reopen();
        let (_, opened) = fs
            .create(caller(), ROOT_NODE, OsStr::new("f"), MODE, WRITE)
            .unwrap();
        fs.write(opened.handle, 0, &bytes(1, 8192)).unwrap();
        fs.release(opened.handle);
        // A new file need not wait: nothing on the disk speaks of it.
        assert!(!calls.lock().unwrap().contains(&Call::Sync));
        fs.shutdown().unwrap();
        drop(fs);
        let fs = reopen();
        calls.lock().unwrap().clear();
        change(&fs).unwrap();
        assert_eq!(calls.lock().unwrap()[..2], [Call::Write, Call::Sync]);
        calls.lock().unwrap().clear();
        change(&fs).unwrap();
        assert!(!calls.lock().unwrap().contains(&Call::Sync));
    }
}

#[test]
fn a_sync_brings_along_what_it_takes_to_read_the_file() {
    let volume = TestVolume::new();
    let calls = Arc::new(Mutex::new(Vec::new()));
    let observer = Box::new(Recorder(Arc::clone(&calls)));
    let fs = open_observed(&volume, Backing::observed(observer));
    let syncs = || {
        let calls = std::mem::take(&mut *calls.lock().unwrap());
        calls.iter().filter(|call| **call == Call::Sync).count()
    };
    let made = fs
        .make_directory(caller(), ROOT_NODE, OsStr::new("d"), MODE)
        .unwrap();
    assert_eq!(
        syncs(),
        1,
        "the header is sent ahead of the directory's name"
    );
    // The kernel may forget a directory that nobody uses.
    fs.forget(made.node, 1);
    let directory = fs.lookup(ROOT_NODE, OsStr::new("d")).unwrap().node;
    let create = |name: &str| {
        let name = OsStr::new(name);
        fs.create(caller(), directory, name, MODE, WRITE)
            .unwrap()
            .1
            .handle
    };
    let short = create("short");
    assert_eq!(syncs(), 0);
    fs.sync(short, false).unwrap();
    // The file, and header and entries of both directories.
    assert_eq!(syncs(), 5);
    fs.sync(short, false).unwrap();
    assert_eq!(syncs(), 1);
    create(&"l".repeat(200));
    assert_eq!(syncs(), 1, "the kept name");
    let inner = fs
        .make_directory(caller(), directory, OsStr::new("inner"), MODE)
        .unwrap();
    let (_, below) = fs
        .create(caller(), inner.node, OsStr::new("f"), MODE, WRITE)
        .unwrap();
    assert_eq!(syncs(), 1);
    fs.sync(below.handle, false).unwrap();
    // The file, header and entries of the new directory, and its entry in the one above.
    assert_eq!(syncs(), 4);
}

#[test]
fn a_directory_has_its_header_on_the_disk_before_it_has_its_name() {
    let volume = TestVolume::new();
    let calls = Arc::new(Mutex::new(Vec::new()));
    let observer = Box::new(Recorder(Arc::clone(&calls)));
    let fs = open_observed(&volume, Backing::observed(observer));
    calls.lock().unwrap().clear();
    fs.make_directory(caller(), ROOT_NODE, OsStr::new("d"), MODE)
        .unwrap();
    let calls = calls.lock().unwrap();
    let at = |wanted| calls.iter().position(|call| *call == wanted).unwrap();
    assert!(at(Call::Write) < at(Call::Sync) && at(Call::Sync) < at(Call::Rename));
}

#[test]
fn a_file_of_which_a_power_cut_has_left_nothing_but_its_length_is_empty() {
    let volume = TestVolume::new();
    let fs = volume.open();
    support::write(&fs, ROOT_NODE, "f", 20_000);
    drop(fs);
    let backing = std::fs::File::options()
        .write(true)
        .open(volume.only_backing_file())
        .unwrap();
    backing.set_len(0).unwrap();
    backing.set_len(300_000).unwrap();
    // What had come further than the header did.
    std::os::unix::fs::FileExt::write_all_at(&backing, &[7; 4096], 240_000).unwrap();
    let fs = volume.open();
    let found = fs.lookup(ROOT_NODE, OsStr::new("f")).unwrap();
    assert_eq!(found.size, 0);
    assert_eq!(read(&fs, "f").unwrap(), b"");
    write(&fs, "f", 250_000, b"new").unwrap();
    let mut expected = vec![0; 250_000];
    expected.extend(b"new");
    assert_eq!(read(&fs, "f").unwrap(), expected);
    drop(fs);
    assert_eq!(read(&volume.open(), "f").unwrap(), expected);
}

#[test]
fn what_is_made_with_a_failing_call_is_there_or_not_and_never_half() {
    let long = "l".repeat(250);
    type Make<'a> = Box<dyn Fn(&FileSystem) -> FsResult<()> + 'a>;
    let name = OsStr::new(&long);
    let makers: [Make; 3] = [
        Box::new(|fs| fs.make_directory(caller(), ROOT_NODE, name, MODE).map(drop)),
        Box::new(|fs| {
            fs.make_symlink(caller(), ROOT_NODE, name, OsStr::new(&"t".repeat(4000)))
                .map(drop)
        }),
        Box::new(|fs| {
            fs.create(caller(), ROOT_NODE, name, MODE, WRITE)
                .map(|(_, opened)| fs.release(opened.handle))
        }),
    ];
    for (which, make) in makers.iter().enumerate() {
        for n in 0.. {
            let volume = TestVolume::new();
            let countdown = Arc::new(AtomicI64::new(i64::MAX));
            let fs = open(&volume, &countdown, Errno::NOSPC);
            countdown.store(n, Ordering::Relaxed);
            let made = make(&fs);
            let failed = countdown.swap(i64::MAX, Ordering::Relaxed) < 0;
            let found = fs.lookup(ROOT_NODE, name);
            match made {
                Ok(()) => assert!(found.is_ok(), "maker {which}, call {n}"),
                Err(error) => {
                    assert_eq!(error.errno(), Errno::NOSPC, "maker {which}, call {n}");
                    // It may have come about before the call that failed.
                    if found.is_err() {
                        make(&fs).unwrap();
                    }
                }
            }
            fs.shutdown().unwrap();
            drop(fs);
            let fs = volume.open();
            let found = fs.lookup(ROOT_NODE, name).unwrap();
            match which {
                0 => fs.remove_directory(ROOT_NODE, name).unwrap(),
                1 => {
                    assert_eq!(
                        fs.read_link(found.node).unwrap(),
                        "t".repeat(4000).into_bytes()
                    );
                    fs.remove_file(ROOT_NODE, name).unwrap();
                }
                _ => fs.remove_file(ROOT_NODE, name).unwrap(),
            }
            let own = |name: &std::ffi::OsStr| {
                ["cmkfs.dir", "cmkfs.volume", "cmkfs.links"]
                    .iter()
                    .any(|own| name == *own)
            };
            let left: Vec<_> = std::fs::read_dir(volume.cipher())
                .unwrap()
                .map(|entry| entry.unwrap().file_name())
                .collect();
            assert!(
                left.iter().all(|name| own(name)),
                "maker {which}, call {n}: {left:?}"
            );
            if !failed {
                break;
            }
        }
    }
}
