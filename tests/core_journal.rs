//! The redo journal: what is overwritten is recorded before its place is touched, and counts after an unclean stop.

mod support;

use std::ffi::OsStr;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use cmkfs::format::layout;
use cmkfs::fs::backing::{Backing, Call, Observer};
use cmkfs::fs::settings::Overwrites;
use cmkfs::fs::{FileSystem, FsResult, HandleId, OpenFlags, ROOT_NODE, SetAttributes};
use cmkfs::volume::keys::ServicePort;
use cmkfs::volume::{self, Access, Volume};
use rustix::io::Errno;
use support::{MODE, TestVolume, WRITE, caller};

/// Notes calls, and fails those that make journals while it is told to.
#[derive(Clone, Default)]
struct Watch {
    calls: Arc<Mutex<Vec<Call>>>,
    no_room: Arc<AtomicBool>,
}

impl Observer for Watch {
    fn before(&self, call: Call) -> Result<(), Errno> {
        self.calls.lock().unwrap().push(call);
        match call {
            Call::Open | Call::Make if self.no_room.load(Ordering::Relaxed) => Err(Errno::NOSPC),
            _ => Ok(()),
        }
    }
}

impl Watch {
    fn take(&self) -> Vec<Call> {
        std::mem::take(&mut self.calls.lock().unwrap())
    }

    fn open(&self, volume: &TestVolume) -> Volume {
        let port = Arc::new(ServicePort::new(Arc::clone(&volume.keys)));
        let backing = Backing::observed(Box::new(self.clone()));
        volume::open_observed(
            &volume.cipher(),
            &volume.keys,
            port,
            Access::ReadWrite,
            backing,
        )
        .unwrap()
    }
}

fn journals(volume: &TestVolume) -> Vec<PathBuf> {
    match std::fs::read_dir(volume.cipher().join("cmkfs.journal")) {
        Ok(entries) => entries.map(|entry| entry.unwrap().path()).collect(),
        Err(_) => Vec::new(),
    }
}

fn create(fs: &FileSystem, content: &[u8]) -> HandleId {
    let name = OsStr::new("f");
    let (_, opened) = fs.create(caller(), ROOT_NODE, name, MODE, WRITE).unwrap();
    fs.write(opened.handle, 0, content).unwrap();
    opened.handle
}

fn open_file(fs: &FileSystem, flags: OpenFlags) -> HandleId {
    let node = fs.lookup(ROOT_NODE, OsStr::new("f")).unwrap().node;
    fs.open(caller(), node, flags).unwrap().handle
}

fn read(fs: &FileSystem) -> FsResult<Vec<u8>> {
    let found = fs.lookup(ROOT_NODE, OsStr::new("f"))?;
    let handle = fs.open(caller(), found.node, OpenFlags::default())?.handle;
    let mut content = vec![0; found.size as usize];
    let length = fs.read(handle, 0, &mut content);
    fs.release(handle);
    content.truncate(length?);
    Ok(content)
}

/// Ends as SIGKILL does: a volume that is not shut down writes nothing more.
fn kill(volume: Volume) {
    drop(volume);
}

/// Content of so many bytes that differs from block to block.
fn content(seed: u8, length: usize) -> Vec<u8> {
    (0..length)
        .map(|i| (i as u8) ^ (i >> 12) as u8 ^ seed)
        .collect()
}

#[test]
fn an_overwrite_is_one_record_and_leaves_the_place_alone_until_the_file_is_sealed() {
    let volume = TestVolume::new();
    let watch = Watch::default();
    let fs = watch.open(&volume);
    let mut expected = content(1, 300_000);
    let handle = create(&fs, &expected);
    fs.write(handle, 4096, &[9; 4096]).unwrap();
    expected[4096..8192].fill(9);
    let place = std::fs::read(volume.only_backing_file()).unwrap();
    watch.take();
    for _ in 0..3 {
        fs.write(handle, 8192, &[7; 4096]).unwrap();
        assert_eq!(watch.take(), [Call::Write, Call::Change]);
    }
    expected[8192..12288].fill(7);
    assert!(std::fs::read(volume.only_backing_file()).unwrap() == place);
    assert!(read(&fs).unwrap() == expected);
    assert_eq!(journals(&volume).len(), 1);
    fs.release(handle);
    fs.shutdown().unwrap();
    drop(fs);
    assert!(std::fs::read(volume.only_backing_file()).unwrap() != place);
    assert_eq!(journals(&volume).len(), 0);
    assert!(read(&volume.open()).unwrap() == expected);
}

#[test]
fn a_file_that_is_only_overwritten_is_synced_by_syncing_its_journal() {
    let volume = TestVolume::new();
    let watch = Watch::default();
    let fs = watch.open(&volume);
    let handle = create(&fs, &content(1, 100_000));
    fs.write(handle, 0, &[1; 4096]).unwrap();
    fs.sync(handle, true).unwrap();
    watch.take();
    fs.write(handle, 4096, &[2; 4096]).unwrap();
    fs.sync(handle, true).unwrap();
    let syncs = |calls: Vec<Call>| calls.iter().filter(|call| **call == Call::Sync).count();
    assert_eq!(syncs(watch.take()), 1);
    fs.sync(handle, true).unwrap();
    assert_eq!(syncs(watch.take()), 0, "nothing has changed since");
}

#[test]
fn what_was_overwritten_is_there_after_a_kill_whatever_has_become_of_its_place() {
    let volume = TestVolume::new();
    let mut expected = content(1, 500_000);
    let fs = volume.open();
    let handle = create(&fs, &expected);
    for (offset, length) in [(0, 4096), (5000, 10), (229_000, 1000), (499_990, 5_000)] {
        let data = content(offset as u8 | 0x80, length);
        fs.write(handle, offset as u64, &data).unwrap();
        expected.resize(expected.len().max(offset + length), 0);
        expected[offset..offset + length].copy_from_slice(&data);
    }
    kill(fs);
    // As if a checkpoint had been cut off by a power cut, and its pages torn.
    let place = std::fs::OpenOptions::new()
        .write(true)
        .open(volume.only_backing_file())
        .unwrap();
    place
        .write_all_at(&[0xaa; 700], layout::data_offset(0) + 100)
        .unwrap();
    place
        .write_all_at(&[0xaa; 64], layout::slot_offset(1))
        .unwrap();
    for access in [Access::ReadOnly, Access::ReadWrite, Access::ReadWrite] {
        let fs = volume::open(&volume.cipher(), &volume.keys, access).unwrap();
        assert!(read(&fs).unwrap() == expected, "{access:?}");
        fs.seal_now();
        fs.shutdown().unwrap();
    }
    assert_eq!(journals(&volume).len(), 0);
}

#[test]
fn records_count_up_to_the_first_that_is_not_whole() {
    let volume = TestVolume::new();
    let fs = volume.open();
    let mut expected = content(1, 40_960);
    let handle = create(&fs, &expected);
    for block in 0..4 {
        fs.write(handle, block * 4096, &[block as u8; 4096])
            .unwrap();
    }
    kill(fs);
    let journal = journals(&volume).pop().unwrap();
    // The third record: head, entry and ciphertext are 32 + 30 + 4096 bytes.
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(journal)
        .unwrap();
    file.write_all_at(&[0xaa], 2 * 4158 + 1000).unwrap();
    expected[..4096].fill(0);
    expected[4096..8192].fill(1);
    assert!(read(&volume.open()).unwrap() == expected);
}

#[test]
fn the_journal_of_a_clean_file_or_of_another_file_means_nothing() {
    let volume = TestVolume::new();
    let fs = volume.open();
    let mut expected = content(1, 40_960);
    let handle = create(&fs, &expected);
    fs.write(handle, 0, &[1; 4096]).unwrap();
    let journal = journals(&volume).pop().unwrap();
    let kept = std::fs::read(&journal).unwrap();
    fs.write(handle, 0, &[2; 4096]).unwrap();
    fs.release(handle);
    fs.shutdown().unwrap();
    drop(fs);
    expected[..4096].fill(2);
    std::fs::write(&journal, &kept).unwrap();
    let fs = volume.open();
    assert!(read(&fs).unwrap() == expected);
    let handle = open_file(&fs, WRITE);
    fs.write(handle, 8192, &[3; 4096]).unwrap();
    expected[8192..12288].fill(3);
    kill(fs);
    // Its own records, of an epoch that has passed.
    std::fs::write(&journal, &kept).unwrap();
    expected[8192..12288].copy_from_slice(&content(1, 40_960)[8192..12288]);
    assert!(read(&volume.open()).unwrap() == expected);
}

#[test]
fn without_room_for_a_journal_slots_are_on_the_disk_before_what_they_guard_is_overwritten() {
    let volume = TestVolume::new();
    let watch = Watch::default();
    let fs = watch.open(&volume);
    let mut expected = content(1, 300_000);
    let handle = create(&fs, &expected);
    watch.no_room.store(true, Ordering::Relaxed);
    watch.take();
    fs.write(handle, 225_280, &[5; 8192]).unwrap();
    expected[225_280..233_472].fill(5);
    let calls = watch.take();
    let order: Vec<_> = calls
        .iter()
        .filter(|call| matches!(call, Call::Write | Call::Sync))
        .collect();
    use Call::{Sync, Write};
    assert_eq!(order, [&Sync, &Write, &Write, &Sync, &Write, &Write]);
    assert!(journals(&volume).is_empty());
    watch.no_room.store(false, Ordering::Relaxed);
    assert!(read(&fs).unwrap() == expected);
    fs.write(handle, 0, &[6; 4096]).unwrap();
    expected[..4096].fill(6);
    assert_eq!(journals(&volume).len(), 1);
    kill(fs);
    assert!(read(&volume.open()).unwrap() == expected);
}

#[test]
fn a_long_journal_is_brought_to_its_places_and_begun_anew() {
    let volume = TestVolume::new();
    let fs = volume.open();
    let mut expected = content(1, 3 << 20);
    let handle = create(&fs, &expected);
    for round in 0..20 {
        let data = content(round, 2 << 20);
        fs.write(handle, 4096 * u64::from(round), &data).unwrap();
        expected[4096 * usize::from(round)..][..2 << 20].copy_from_slice(&data);
    }
    let longest = std::fs::metadata(&journals(&volume)[0]).unwrap().len();
    assert!(longest <= 33 << 20, "{longest}");
    assert!(read(&fs).unwrap() == expected);
    // While it is synced: already much earlier.
    for round in 0..600 {
        fs.write(handle, 4096 * round, &[round as u8; 4096])
            .unwrap();
        expected[4096 * round as usize..][..4096].fill(round as u8);
        fs.sync(handle, true).unwrap();
    }
    kill(fs);
    assert!(read(&volume.open()).unwrap() == expected);
}

#[test]
fn what_is_cut_off_does_not_come_back_from_the_journal() {
    let volume = TestVolume::new();
    let fs = volume.open();
    let handle = create(&fs, &content(1, 40_960));
    let resize = |size| {
        let node = fs.lookup(ROOT_NODE, OsStr::new("f")).unwrap().node;
        let change = SetAttributes {
            size: Some(size),
            ..Default::default()
        };
        fs.set_attributes(caller(), node, Some(handle), &change)
            .unwrap();
    };
    fs.write(handle, 20_480, &[1; 4096]).unwrap();
    resize(20_000);
    resize(30_000);
    let mut expected = content(1, 20_000);
    expected.resize(30_000, 0);
    assert!(read(&fs).unwrap() == expected);
    fs.write(handle, 0, &[2; 4096]).unwrap();
    resize(0);
    assert_eq!(
        std::fs::metadata(volume.only_backing_file()).unwrap().len(),
        0
    );
    assert!(journals(&volume).is_empty());
    fs.write(handle, 5000, b"again").unwrap();
    let mut expected = vec![0; 5000];
    expected.extend(b"again");
    assert!(read(&fs).unwrap() == expected);
    kill(fs);
    assert!(read(&volume.open()).unwrap() == expected);
}

#[test]
fn a_volume_may_be_made_to_overwrite_in_place() {
    let volume = TestVolume::new();
    std::fs::remove_dir_all(volume.cipher()).unwrap();
    let key = support::DEFAULT_ALIAS.parse().unwrap();
    volume::create_with(&volume.cipher(), &volume.keys, &key, Overwrites::InPlace).unwrap();
    let fs = volume.open();
    let handle = create(&fs, &content(1, 40_960));
    let place = std::fs::read(volume.only_backing_file()).unwrap();
    fs.write(handle, 4096, &[1; 4096]).unwrap();
    assert!(std::fs::read(volume.only_backing_file()).unwrap() != place);
    assert!(journals(&volume).is_empty());
    kill(fs);
    let mut expected = content(1, 40_960);
    expected[4096..8192].fill(1);
    assert!(read(&volume.open()).unwrap() == expected);
}

#[test]
fn the_journal_of_a_removed_file_goes_once_that_is_on_the_disk_and_at_once_where_it_was_not_synced()
{
    for synced in [false, true] {
        let volume = TestVolume::new();
        let watch = Watch::default();
        let fs = watch.open(&volume);
        let handle = create(&fs, &[1; 5000]);
        fs.write(handle, 0, &[2; 5000]).unwrap();
        if synced {
            fs.sync(handle, false).unwrap();
        }
        fs.release(handle);
        let node = fs.lookup(ROOT_NODE, OsStr::new("f")).unwrap().node;
        fs.remove_file(ROOT_NODE, OsStr::new("f")).unwrap();
        // As the kernel does: once for making it, once for looking it up.
        fs.forget(node, 2);
        assert_eq!(journals(&volume).len(), usize::from(synced));
        watch.take();
        fs.seal_now();
        assert_eq!(journals(&volume).len(), 0);
        let calls = watch.take();
        if synced {
            let at = |call| calls.iter().position(|done| *done == call).unwrap();
            assert!(at(Call::Sync) < at(Call::Remove), "{calls:?}");
        }
    }
}

#[test]
fn the_journal_that_a_killed_process_has_left_goes_with_its_file_although_that_was_not_opened() {
    let volume = TestVolume::new();
    {
        let fs = volume.open();
        let handle = create(&fs, &[1; 5000]);
        fs.write(handle, 0, &[2; 5000]).unwrap();
        fs.sync(handle, false).unwrap();
    }
    let fs = volume.open();
    assert_eq!(journals(&volume).len(), 1);
    fs.remove_file(ROOT_NODE, OsStr::new("f")).unwrap();
    fs.seal_now();
    assert_eq!(journals(&volume).len(), 0);
}

#[test]
fn on_a_filesystem_in_memory_nothing_is_recorded_and_what_was_recorded_elsewhere_counts() {
    let volume = TestVolume::in_memory();
    let fs = volume.open();
    let mut expected = content(1, 40_960);
    let handle = create(&fs, &expected);
    fs.write(handle, 4096, &[1; 4096]).unwrap();
    expected[4096..8192].fill(1);
    assert_eq!(journals(&volume).len(), 1, "opened as on a disk");
    kill(fs);
    let open = || volume::open(&volume.cipher(), &volume.keys, Access::ReadWrite).unwrap();
    let fs = open();
    assert!(read(&fs).unwrap() == expected);
    let handle = open_file(&fs, WRITE);
    for (offset, byte) in [(0_usize, 2), (4096, 3), (9000, 4)] {
        fs.write(handle, offset as u64, &[byte; 4096]).unwrap();
        expected[offset..offset + 4096].fill(byte);
    }
    assert!(read(&fs).unwrap() == expected);
    fs.release(handle);
    fs.seal_now();
    assert!(journals(&volume).is_empty());
    let handle = open_file(&fs, WRITE);
    fs.write(handle, 8192, &[5; 4096]).unwrap();
    expected[8192..12_288].fill(5);
    assert!(journals(&volume).is_empty());
    kill(fs);
    assert!(read(&open()).unwrap() == expected);
}

#[test]
fn a_file_of_more_groups_than_memory_keeps_holds_what_was_written_last() {
    const GROUPS: u64 = 1100;
    // All of them, each far from the one before.
    let groups = || (0..GROUPS).map(|n| n * 389 % GROUPS);
    let place = |group: u64| group * layout::GROUP_BYTES + group % layout::GROUP_BLOCKS * 4096;
    let block = |group: u64, version: u64| content((group % 251 + version) as u8, 4096);
    let check = |fs: &FileSystem, handle: HandleId, version: &dyn Fn(u64) -> u64| {
        for group in groups() {
            let mut found = vec![0; 4096];
            let length = fs.read(handle, place(group), &mut found).unwrap();
            assert!(
                length == 4096 && found == block(group, version(group)),
                "{group}"
            );
        }
    };
    let volume = TestVolume::new();
    let fs = Watch::default().open(&volume);
    let handle = create(&fs, &[]);
    for group in groups() {
        fs.write(handle, place(group), &block(group, 0)).unwrap();
    }
    check(&fs, handle, &|_| 0);
    let later = |group: u64| u64::from(group.is_multiple_of(3));
    for group in groups().filter(|group| later(*group) == 1) {
        fs.write(handle, place(group), &block(group, 1)).unwrap();
    }
    check(&fs, handle, &later);
    kill(fs);
    let fs = Watch::default().open(&volume);
    let handle = open_file(&fs, WRITE);
    check(&fs, handle, &later);
    // Each recovered block once more, by one that is written over it.
    for group in groups() {
        fs.write(handle, place(group), &block(group, 2)).unwrap();
    }
    check(&fs, handle, &|_| 2);
}
