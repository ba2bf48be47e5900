//! Tampering with the backing directory of a volume that was shut down cleanly: whatever is changed in it, reading gives
//! an error or what was written, never anything else, and nothing panics. What cannot be noticed is in
//! docs/THREAT_MODEL.md; where it can be shown it is pinned down here.

mod support;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use cmkfs::format::header::{self, HEADER_LEN};
use cmkfs::format::layout::{self, BLOCK_LEN, PAGE};
use cmkfs::format::slot::{self, SLOT_LEN};
use cmkfs::fs::{
    Caller, FileSystem, Fill, FsResult, NewMode, NodeId, OpenFlags, ROOT_NODE, SetAttributes,
    XattrMode,
};
use cmkfs::volume::{self, Access, Volume, VolumeError};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use rustix::io::Errno;
use support::TestVolume;

const MODE: NewMode = NewMode {
    permissions: 0o700,
    umask: 0,
};
const READ: OpenFlags = OpenFlags {
    write: false,
    truncate: false,
};
const WRITE: OpenFlags = OpenFlags {
    write: true,
    truncate: false,
};

fn caller() -> Caller {
    Caller {
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        pid: 0,
    }
}

/// Content no two blocks of which are alike.
fn content(length: usize) -> Vec<u8> {
    (0..length)
        .map(|at| (at / 251 + at * 7 + at / BLOCK_LEN * 13) as u8)
        .collect()
}

fn create(fs: &FileSystem, parent: NodeId, name: &str, data: &[u8]) -> NodeId {
    let (attributes, opened) = fs
        .create(caller(), parent, OsStr::new(name), MODE, WRITE)
        .unwrap();
    fs.write(opened.handle, 0, data).unwrap();
    fs.release(opened.handle);
    attributes.node
}

/// A volume whose only file holds `data`, cleanly sealed.
fn volume_with(data: &[u8]) -> (TestVolume, PathBuf) {
    let volume = TestVolume::new();
    let open = volume.open();
    create(&open, ROOT_NODE, "file", data);
    open.shutdown().unwrap();
    drop(open);
    let backing = volume.only_backing_file();
    (volume, backing)
}

/// Opens the volume without the sync that a writer needs.
fn reopen(volume: &TestVolume) -> Result<Volume, VolumeError> {
    volume::open(&volume.cipher(), &volume.keys, Access::ReadOnly)
}

fn read_at(fs: &FileSystem, parent: NodeId, name: &str) -> FsResult<Vec<u8>> {
    let found = fs.lookup(parent, OsStr::new(name))?;
    let handle = fs.open(caller(), found.node, READ)?.handle;
    // More than the size says: that was not authenticated yet.
    let mut buffer = vec![0xaa; found.size as usize + 3 * BLOCK_LEN];
    let read = fs.read(handle, 0, &mut buffer);
    fs.release(handle);
    buffer.truncate(read?);
    Ok(buffer)
}

/// What a fresh process reads of the only file.
fn read(volume: &TestVolume) -> Result<Vec<u8>, Errno> {
    read_at(&reopen(volume).unwrap(), ROOT_NODE, "file").map_err(|error| error.errno())
}

/// Runs `check` with one byte of a file flipped, and puts it back.
fn with_flipped(file: &std::fs::File, at: u64, check: impl FnOnce()) {
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1 << (at % 8)], at).unwrap();
    check();
    file.write_all_at(&byte, at).unwrap();
}

fn open_rw(path: &Path) -> std::fs::File {
    std::fs::File::options()
        .read(true)
        .write(true)
        .open(path)
        .unwrap()
}

/// What flipping a byte of a cleanly sealed file of `size` bytes must lead to.
#[derive(Debug, PartialEq, Eq)]
enum Expected {
    Damaged,
    /// The data key cannot be unwrapped: it belongs to another key or object now, or the envelope is not authentic.
    KeyRefused,
    /// Nothing in this version reads it.
    Ignored,
}

fn expected(at: u64, size: u64) -> Expected {
    let group_at = at / layout::GROUP_SPAN * layout::GROUP_SPAN;
    let within = (at - group_at) as usize;
    if within >= PAGE as usize {
        return Expected::Damaged;
    }
    if within < HEADER_LEN {
        return match within {
            _ if group_at > 0 => Expected::Ignored,
            header::OBJECT_ID_AT..header::NONCE_AT => Expected::KeyRefused,
            _ => Expected::Damaged,
        };
    }
    let index = ((within - HEADER_LEN) / SLOT_LEN) as u64;
    let block = at / layout::GROUP_SPAN * layout::GROUP_BLOCKS + index;
    let in_current = (within - HEADER_LEN) % SLOT_LEN < slot::PREVIOUS_AT;
    if block < layout::block_count(size) && in_current {
        Expected::Damaged
    } else {
        Expected::Ignored
    }
}

fn check_flips(size: usize, places: impl Iterator<Item = u64>) {
    let data = content(size);
    let (volume, backing) = volume_with(&data);
    let length = layout::backing_length(size as u64);
    assert_eq!(backing.metadata().unwrap().len(), length);
    let file = open_rw(&backing);
    let mut seen = [0; 3];
    for at in places.take_while(|at| *at < length) {
        with_flipped(&file, at, || {
            let expected = expected(at, size as u64);
            let fits = match read(&volume) {
                Ok(found) => found == data && expected == Expected::Ignored,
                Err(Errno::BADMSG) => expected == Expected::Damaged,
                Err(Errno::KEYREJECTED | Errno::NOKEY) => expected == Expected::KeyRefused,
                Err(_) => false,
            };
            assert!(
                fits,
                "byte {at}: {expected:?}, but {:?}",
                read(&volume).map(|d| d.len())
            );
            seen[expected as usize] += 1;
        });
    }
    assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
    assert_eq!(read(&volume), Ok(data));
}

#[test]
fn every_byte_of_a_small_file_is_guarded_or_without_effect() {
    check_flips(300, 0..);
}

#[test]
fn every_byte_of_a_file_of_three_blocks_is_guarded_or_without_effect() {
    check_flips(2 * BLOCK_LEN + 300, 0..);
}

#[test]
fn sampled_bytes_of_a_file_of_three_groups_are_guarded_or_without_effect() {
    let size = 2 * layout::GROUP_BYTES as usize + 5 * BLOCK_LEN + 17;
    // Every byte where structures begin and end, and all meta pages at a stride that meets each part of a slot.
    let meta = (0..3).flat_map(|group| {
        (0..PAGE)
            .step_by(61)
            .map(move |at| layout::meta_offset(group) + at)
    });
    let data = (0..layout::backing_length(size as u64)).step_by(7919);
    let edges = [1, 55, 56, 57, 111, 112, 116]
        .into_iter()
        .flat_map(|block| {
            let at = layout::data_offset(block);
            [at - 1, at, at + 1]
        });
    let mut places: Vec<u64> = meta.chain(data).chain(edges).collect();
    places.sort_unstable();
    check_flips(size, places.into_iter());
}

#[test]
fn a_flipped_byte_of_a_file_that_was_being_written_is_an_error_or_without_effect() {
    let data = content(BLOCK_LEN + 300);
    let volume = TestVolume::new();
    let open = volume.open();
    create(&open, ROOT_NODE, "file", &content(BLOCK_LEN));
    create(&open, ROOT_NODE, "other", b"");
    let node = open.lookup(ROOT_NODE, OsStr::new("file")).unwrap().node;
    let handle = open.open(caller(), node, WRITE).unwrap().handle;
    open.write(handle, 0, &data).unwrap();
    open.remove_file(ROOT_NODE, OsStr::new("other")).unwrap();
    // Gone without a word, as after SIGKILL.
    drop(open);
    let backing = volume.only_backing_file();
    let file = open_rw(&backing);
    for at in (0..backing.metadata().unwrap().len()).step_by(3) {
        with_flipped(&file, at, || match read(&volume) {
            Ok(found) => assert_eq!(found, data, "byte {at}"),
            Err(error) => assert!(
                matches!(error, Errno::BADMSG | Errno::KEYREJECTED | Errno::NOKEY),
                "byte {at}: {error}"
            ),
        });
    }
}

#[test]
fn a_file_cut_at_any_length_is_an_error_but_for_nothing_left_which_is_an_empty_file() {
    let data = content(BLOCK_LEN + 300);
    let (volume, backing) = volume_with(&data);
    let whole = std::fs::read(&backing).unwrap();
    for length in (1..whole.len()).rev() {
        open_rw(&backing).set_len(length as u64).unwrap();
        assert_eq!(read(&volume), Err(Errno::BADMSG), "{length} bytes");
    }
    // Like a file that was removed and made anew: docs/THREAT_MODEL.md.
    open_rw(&backing).set_len(0).unwrap();
    assert_eq!(read(&volume), Ok(Vec::new()));
    std::fs::write(&backing, whole).unwrap();
    assert_eq!(read(&volume), Ok(data));
}

#[test]
fn an_extended_file_is_an_error() {
    for size in [1, 300, BLOCK_LEN, layout::GROUP_BYTES as usize] {
        let data = content(size);
        let (volume, backing) = volume_with(&data);
        let whole = backing.metadata().unwrap().len();
        for more in [1, 100, 512, PAGE - 1, PAGE, PAGE + 1, layout::GROUP_SPAN] {
            open_rw(&backing).set_len(whole + more).unwrap();
            assert_eq!(read(&volume), Err(Errno::BADMSG), "{size} + {more} bytes");
        }
        open_rw(&backing).set_len(whole).unwrap();
        assert_eq!(read(&volume), Ok(data));
    }
}

/// Swaps two ranges of a file's bytes.
fn swap(bytes: &mut [u8], a: u64, b: u64, length: usize) {
    let (a, b) = (a as usize, b as usize);
    for at in 0..length {
        bytes.swap(a + at, b + at);
    }
}

#[test]
fn swapped_blocks_and_slots_are_an_error() {
    let data = content(58 * BLOCK_LEN);
    let (volume, backing) = volume_with(&data);
    let whole = std::fs::read(&backing).unwrap();
    for (a, b) in [(0, 1), (3, 40), (1, 57), (55, 56)] {
        for (pages, slots) in [(true, false), (false, true), (true, true)] {
            let mut swapped = whole.clone();
            if pages {
                swap(
                    &mut swapped,
                    layout::data_offset(a),
                    layout::data_offset(b),
                    BLOCK_LEN,
                );
            }
            if slots {
                swap(
                    &mut swapped,
                    layout::slot_offset(a),
                    layout::slot_offset(b),
                    SLOT_LEN,
                );
            }
            std::fs::write(&backing, &swapped).unwrap();
            assert_eq!(
                read(&volume),
                Err(Errno::BADMSG),
                "blocks {a} and {b}, pages {pages}, slots {slots}"
            );
        }
    }
    let mut groups = whole;
    swap(
        &mut groups,
        HEADER_LEN as u64,
        layout::meta_offset(1) + HEADER_LEN as u64,
        SLOT_LEN * 2,
    );
    std::fs::write(&backing, &groups).unwrap();
    assert_eq!(read(&volume), Err(Errno::BADMSG));
}

#[test]
fn a_previous_entry_put_in_the_place_of_the_current_one_is_an_error() {
    let volume = TestVolume::new();
    let open = volume.open();
    let node = create(&open, ROOT_NODE, "file", &content(300));
    let handle = open.open(caller(), node, WRITE).unwrap().handle;
    open.write(handle, 0, &[9; 300]).unwrap();
    open.release(handle);
    open.shutdown().unwrap();
    drop(open);
    let backing = volume.only_backing_file();
    assert_eq!(read(&volume), Ok(vec![9; 300]));
    let mut bytes = std::fs::read(&backing).unwrap();
    let at = layout::slot_offset(0) as usize;
    assert_ne!(
        bytes[at + slot::PREVIOUS_AT..][..slot::ENTRY_LEN],
        [0; slot::ENTRY_LEN]
    );
    bytes.copy_within(
        at + slot::PREVIOUS_AT..at + slot::PREVIOUS_AT + slot::ENTRY_LEN,
        at,
    );
    std::fs::write(&backing, &bytes).unwrap();
    assert_eq!(read(&volume), Err(Errno::BADMSG));
}

#[test]
fn a_zeroed_slot_page_or_header_is_an_error() {
    let data = content(2 * BLOCK_LEN + 100);
    let (volume, backing) = volume_with(&data);
    let whole = std::fs::read(&backing).unwrap();
    for (at, length) in [
        (0, HEADER_LEN),
        (layout::slot_offset(0), SLOT_LEN),
        (layout::slot_offset(2), SLOT_LEN),
        (layout::slot_offset(0), 3 * SLOT_LEN),
        (layout::data_offset(1), BLOCK_LEN),
        (layout::data_offset(2), 100),
        (0, PAGE as usize),
        (0, whole.len()),
    ] {
        let mut zeroed = whole.clone();
        zeroed[at as usize..][..length].fill(0);
        std::fs::write(&backing, &zeroed).unwrap();
        assert_eq!(read(&volume), Err(Errno::BADMSG), "{length} bytes at {at}");
    }
    // A slot and its page, as punching a hole does it; the file is not sparse.
    let mut punched = whole;
    punched[layout::slot_offset(1) as usize..][..SLOT_LEN].fill(0);
    punched[layout::data_offset(1) as usize..][..BLOCK_LEN].fill(0);
    std::fs::write(&backing, &punched).unwrap();
    assert_eq!(read(&volume), Err(Errno::BADMSG));
}

#[test]
fn a_block_of_a_sparse_file_can_be_turned_into_a_hole() {
    // Not noticed, and said so in docs/THREAT_MODEL.md: the slots of a sparse file are not counted anywhere.
    let volume = TestVolume::new();
    let open = volume.open();
    let node = create(&open, ROOT_NODE, "file", &content(BLOCK_LEN));
    let changes = SetAttributes {
        size: Some(3 * PAGE),
        ..SetAttributes::default()
    };
    open.set_attributes(caller(), node, None, &changes).unwrap();
    open.shutdown().unwrap();
    drop(open);
    let backing = volume.only_backing_file();
    open_rw(&backing)
        .write_all_at(&[0; SLOT_LEN], layout::slot_offset(0))
        .unwrap();
    assert_eq!(read(&volume), Ok(vec![0; 3 * BLOCK_LEN]));
}

/// Two backing files, told apart by their length.
fn two_files(first: &[u8], second: &[u8]) -> (TestVolume, [PathBuf; 2]) {
    let volume = TestVolume::new();
    let open = volume.open();
    create(&open, ROOT_NODE, "file", first);
    let before: Vec<PathBuf> = objects(&volume.cipher());
    create(&open, ROOT_NODE, "second", second);
    open.shutdown().unwrap();
    drop(open);
    let added = objects(&volume.cipher());
    let other = added.iter().find(|path| !before.contains(path)).unwrap();
    (volume, [before[0].clone(), other.clone()])
}

/// What lies in a backing directory under encrypted names.
fn objects(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap().map(Result::unwrap);
    entries
        .filter(|entry| !entry.file_name().to_string_lossy().contains('.'))
        .map(|entry| entry.path())
        .collect()
}

#[test]
fn parts_of_another_file_are_an_error() {
    let (volume, [a, b]) = two_files(&content(5000), &[7; 5000]);
    let (whole, other) = (std::fs::read(&a).unwrap(), std::fs::read(&b).unwrap());
    let slots = HEADER_LEN..PAGE as usize;
    let page = PAGE as usize..2 * PAGE as usize;
    for range in [
        0..HEADER_LEN,
        slots.clone(),
        page.clone(),
        slots.start..page.end,
        header::OBJECT_ID_AT..header::NONCE_AT,
        header::NONCE_AT..HEADER_LEN,
    ] {
        let mut mixed = whole.clone();
        mixed[range.clone()].copy_from_slice(&other[range.clone()]);
        std::fs::write(&a, &mixed).unwrap();
        assert_eq!(read(&volume), Err(Errno::BADMSG), "{range:?}");
    }
    // Only the envelope: it belongs to another object.
    let mut mixed = whole;
    let envelope = header::ENVELOPE_AT..header::NONCE_AT;
    mixed[envelope.clone()].copy_from_slice(&other[envelope]);
    std::fs::write(&a, &mixed).unwrap();
    assert_eq!(read(&volume), Err(Errno::KEYREJECTED));
}

#[test]
fn a_file_of_another_volume_is_refused() {
    let (volume, backing) = volume_with(b"mine");
    let (_other, foreign) = volume_with(b"theirs");
    std::fs::copy(&foreign, &backing).unwrap();
    // Another key directory: its key is not known here.
    assert_eq!(read(&volume), Err(Errno::NOKEY));
    // The same key directory: the envelope names another volume.
    let second = volume.dir.path().join("second");
    let key = support::DEFAULT_ALIAS.parse().unwrap();
    volume::create(&second, &volume.keys, &key).unwrap();
    let open = volume::open(&second, &volume.keys, Access::ReadWrite).unwrap();
    create(&open, ROOT_NODE, "file", b"theirs");
    open.shutdown().unwrap();
    drop(open);
    std::fs::copy(&objects(&second)[0], &backing).unwrap();
    assert_eq!(read(&volume), Err(Errno::KEYREJECTED));
}

#[test]
fn whatever_is_written_over_a_file_it_reads_as_it_was_or_not_at_all() {
    let data = content(BLOCK_LEN + 700);
    let (volume, backing) = volume_with(&data);
    let whole = std::fs::read(&backing).unwrap();
    let change = (0..9000_usize, prop::collection::vec(any::<u8>(), 1..700));
    let changes = prop::collection::vec(change, 1..4);
    let config = ProptestConfig {
        cases: 300,
        ..ProptestConfig::default()
    };
    let mut runner = TestRunner::new(config);
    let result = runner.run(&changes, |changes| {
        std::fs::write(&backing, &whole).unwrap();
        let file = open_rw(&backing);
        for (at, bytes) in &changes {
            file.write_all_at(bytes, *at as u64).unwrap();
        }
        if let Ok(found) = read(&volume) {
            prop_assert_eq!(&found, &data);
        }
        Ok(())
    });
    result.unwrap();
}

#[test]
fn every_byte_of_the_volume_file_is_guarded() {
    let (volume, _) = volume_with(b"data");
    let path = volume.cipher().join("cmkfs.volume");
    let whole = std::fs::read(&path).unwrap();
    let file = open_rw(&path);
    for at in 0..whole.len() as u64 {
        with_flipped(&file, at, || assert!(reopen(&volume).is_err(), "byte {at}"));
    }
    for length in 0..whole.len() {
        std::fs::write(&path, &whole[..length]).unwrap();
        assert!(
            matches!(reopen(&volume), Err(VolumeError::Damaged { .. })),
            "{length} bytes"
        );
    }
    std::fs::write(&path, [&whole[..], &[0]].concat()).unwrap();
    assert!(matches!(reopen(&volume), Err(VolumeError::Damaged { .. })));
    std::fs::write(&path, &whole).unwrap();
    assert_eq!(read(&volume), Ok(b"data".to_vec()));
}

/// A volume with `outer/file`, cleanly shut down, and the backing directory of `outer`.
fn volume_with_directory() -> (TestVolume, PathBuf) {
    let volume = TestVolume::new();
    let open = volume.open();
    let outer = open
        .make_directory(caller(), ROOT_NODE, OsStr::new("outer"), MODE)
        .unwrap();
    create(&open, outer.node, "file", b"inside");
    open.shutdown().unwrap();
    drop(open);
    let directory = volume.only_backing_file();
    (volume, directory)
}

fn read_inside(volume: &TestVolume) -> Result<Vec<u8>, Errno> {
    let open = reopen(volume).unwrap();
    let read = || {
        let outer = open.lookup(ROOT_NODE, OsStr::new("outer"))?;
        let handle = open.open_directory(outer.node)?;
        open.read_directory(handle, 0, &mut |_| Fill::Taken)?;
        open.release_directory(handle);
        read_at(&open, outer.node, "file")
    };
    read().map_err(|error| error.errno())
}

#[test]
fn every_byte_of_a_directory_header_is_guarded() {
    let (volume, directory) = volume_with_directory();
    let path = directory.join("cmkfs.dir");
    let whole = std::fs::read(&path).unwrap();
    assert_eq!(whole.len(), HEADER_LEN);
    let file = open_rw(&path);
    for at in 0..HEADER_LEN {
        with_flipped(&file, at as u64, || {
            let error = read_inside(&volume).unwrap_err();
            let key = (header::OBJECT_ID_AT..header::NONCE_AT).contains(&at);
            let fits = match error {
                Errno::BADMSG => !key,
                Errno::KEYREJECTED | Errno::NOKEY => key,
                _ => false,
            };
            assert!(fits, "byte {at}: {error}");
        });
    }
    for length in 0..HEADER_LEN {
        std::fs::write(&path, &whole[..length]).unwrap();
        assert_eq!(read_inside(&volume), Err(Errno::BADMSG), "{length} bytes");
    }
    std::fs::write(&path, [&whole[..], &[0]].concat()).unwrap();
    assert_eq!(read_inside(&volume), Err(Errno::BADMSG));
    std::fs::remove_file(&path).unwrap();
    assert_eq!(read_inside(&volume), Err(Errno::BADMSG));
    std::fs::write(&path, &whole).unwrap();
    assert_eq!(read_inside(&volume), Ok(b"inside".to_vec()));
}

#[test]
fn every_byte_of_the_root_header_is_guarded() {
    let (volume, _) = volume_with(b"data");
    let path = volume.cipher().join("cmkfs.dir");
    let file = open_rw(&path);
    for at in 0..HEADER_LEN as u64 {
        with_flipped(&file, at, || assert!(reopen(&volume).is_err(), "byte {at}"));
    }
    std::fs::remove_file(&path).unwrap();
    assert!(reopen(&volume).is_err());
}

#[test]
fn a_directory_without_its_header_can_be_removed_when_it_is_empty() {
    let (volume, directory) = volume_with_directory();
    std::fs::remove_file(directory.join("cmkfs.dir")).unwrap();
    let open = volume.open();
    let outer = OsStr::new("outer");
    let error = open.remove_directory(ROOT_NODE, outer).unwrap_err();
    assert_eq!(error.errno(), Errno::NOTEMPTY);
    std::fs::remove_file(&objects(&directory)[0]).unwrap();
    open.remove_directory(ROOT_NODE, outer).unwrap();
    assert!(!directory.exists());
    assert_eq!(
        open.lookup(ROOT_NODE, outer).unwrap_err().errno(),
        Errno::NOENT
    );
}

#[test]
fn an_empty_directory_heals_that_lost_its_header_and_one_that_holds_something_does_not() {
    let (volume, directory) = volume_with_directory();
    let header = directory.join("cmkfs.dir");
    let outer = OsStr::new("outer");
    for lose in [
        |header: &Path| std::fs::remove_file(header).unwrap(),
        |header: &Path| {
            std::fs::write(header, "").unwrap();
        },
    ] {
        lose(&header);
        let fs = volume.open();
        let node = fs.lookup(ROOT_NODE, outer).unwrap().node;
        let listed = fs.open_directory(node).map_err(|error| error.errno());
        if objects(&directory).is_empty() {
            fs.release_directory(listed.unwrap());
            assert_eq!(std::fs::metadata(&header).unwrap().len(), HEADER_LEN as u64);
        } else {
            assert_eq!(listed, Err(Errno::BADMSG));
            std::fs::remove_file(&objects(&directory)[0]).unwrap();
        }
        drop(fs);
    }
    let fs = volume.open();
    let node = fs.lookup(ROOT_NODE, outer).unwrap().node;
    let mode = cmkfs::fs::NewMode {
        permissions: 0o755,
        umask: 0,
    };
    fs.make_directory(support::caller(), node, OsStr::new("new"), mode)
        .unwrap();
    drop(fs);
    let fs = volume.open();
    let node = fs.lookup(ROOT_NODE, outer).unwrap().node;
    fs.lookup(node, OsStr::new("new")).unwrap();
}

#[test]
fn the_header_of_another_directory_opens_none_of_the_names() {
    let (volume, directory) = volume_with_directory();
    std::fs::copy(
        volume.cipher().join("cmkfs.dir"),
        directory.join("cmkfs.dir"),
    )
    .unwrap();
    assert_eq!(read_inside(&volume), Err(Errno::NOENT));
}

fn names_in(fs: &FileSystem, node: NodeId) -> Vec<Vec<u8>> {
    let mut names = Vec::new();
    let handle = fs.open_directory(node).unwrap();
    fs.read_directory(handle, 0, &mut |entry| {
        names.push(entry.name.as_bytes().to_vec());
        Fill::Taken
    })
    .unwrap();
    fs.release_directory(handle);
    names.retain(|name| name != b"." && name != b"..");
    names.sort();
    names
}

#[test]
fn a_name_moved_to_another_directory_is_nobody_s() {
    let volume = TestVolume::new();
    let open = volume.open();
    let directory = open
        .make_directory(caller(), ROOT_NODE, OsStr::new("outer"), MODE)
        .unwrap();
    let backing = volume.only_backing_file();
    for name in ["short", &"l".repeat(200)] {
        create(&open, directory.node, name, b"data");
    }
    assert_eq!(names_in(&open, directory.node).len(), 2);
    open.shutdown().unwrap();
    drop(open);
    for entry in std::fs::read_dir(&backing).unwrap().map(Result::unwrap) {
        if entry.file_name() != "cmkfs.dir" {
            std::fs::rename(entry.path(), volume.cipher().join(entry.file_name())).unwrap();
        }
    }
    let open = reopen(&volume).unwrap();
    assert_eq!(names_in(&open, ROOT_NODE), [b"outer"]);
    let error = open.lookup(ROOT_NODE, OsStr::new("short")).unwrap_err();
    assert_eq!(error.errno(), Errno::NOENT);
}

#[test]
fn a_changed_name_is_left_out_and_the_others_stay() {
    let (volume, [a, _]) = two_files(b"1", b"2");
    let name = a.file_name().unwrap().as_bytes().to_vec();
    for at in 0..name.len() {
        let mut changed = name.clone();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        let there = a.with_file_name(OsStr::from_bytes(&changed));
        std::fs::rename(&a, &there).unwrap();
        let open = reopen(&volume).unwrap();
        assert_eq!(names_in(&open, ROOT_NODE), [b"second"], "character {at}");
        drop(open);
        std::fs::rename(&there, &a).unwrap();
    }
}

#[test]
fn every_byte_of_a_kept_long_name_is_guarded() {
    let volume = TestVolume::new();
    let open = volume.open();
    let name = "n".repeat(255);
    create(&open, ROOT_NODE, &name, b"data");
    open.shutdown().unwrap();
    drop(open);
    let entries = std::fs::read_dir(volume.cipher())
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let kept = entries
        .into_iter()
        .find(|path| {
            path.extension()
                .is_some_and(|extension| extension == "name")
        })
        .unwrap();
    let length = kept.metadata().unwrap().len();
    assert_eq!(length, 255 + 16);
    let file = open_rw(&kept);
    for at in 0..length {
        with_flipped(&file, at, || {
            assert_eq!(
                names_in(&reopen(&volume).unwrap(), ROOT_NODE),
                [b""; 0],
                "byte {at}"
            );
        });
    }
    assert_eq!(
        names_in(&reopen(&volume).unwrap(), ROOT_NODE),
        [name.as_bytes()]
    );
}

/// A volume whose only object is a symlink to `target`, and that backing symlink.
fn volume_with_symlink(target: &str) -> (TestVolume, PathBuf) {
    let volume = TestVolume::new();
    let open = volume.open();
    open.make_symlink(caller(), ROOT_NODE, OsStr::new("link"), OsStr::new(target))
        .unwrap();
    open.shutdown().unwrap();
    drop(open);
    let backing = volume.only_backing_file();
    (volume, backing)
}

fn target(volume: &TestVolume) -> Result<Vec<u8>, Errno> {
    let open = reopen(volume).unwrap();
    let found = open.lookup(ROOT_NODE, OsStr::new("link"));
    found
        .and_then(|found| open.read_link(found.node))
        .map_err(|error| error.errno())
}

fn assert_refused(found: Result<Vec<u8>, Errno>, what: &str) {
    let refused = matches!(
        found,
        Err(Errno::BADMSG | Errno::KEYREJECTED | Errno::NOKEY)
    );
    assert!(refused, "{what}: {found:?}");
}

fn replace_symlink(path: &Path, target: &[u8]) {
    std::fs::remove_file(path).unwrap();
    std::os::unix::fs::symlink(OsStr::from_bytes(target), path).unwrap();
}

#[test]
fn every_character_of_a_symlink_is_guarded() {
    for plain in ["../some/where", &"t".repeat(4000)] {
        let (volume, backing) = volume_with_symlink(plain);
        let text = std::fs::read_link(&backing).unwrap().into_os_string();
        let text = text.as_bytes();
        for at in 0..text.len() {
            let mut changed = text.to_vec();
            changed[at] = if changed[at] == b'A' { b'Q' } else { b'A' };
            replace_symlink(&backing, &changed);
            assert_refused(target(&volume), &format!("character {at}"));
            replace_symlink(&backing, &text[..at.max(1)]);
            assert_refused(target(&volume), &format!("cut to {at}"));
        }
        replace_symlink(&backing, text);
        assert_eq!(target(&volume).unwrap(), plain.as_bytes());
    }
}

#[test]
fn a_side_file_is_guarded_and_must_be_there() {
    let plain = "t".repeat(4095);
    let (volume, _) = volume_with_symlink(&plain);
    let side = objects(&volume.cipher().join("cmkfs.links"));
    let [side] = &side[..] else {
        panic!("one side file")
    };
    let whole = std::fs::read(side).unwrap();
    let file = open_rw(side);
    let places = (0..200).chain((200..whole.len() as u64).step_by(97));
    for at in places.chain(whole.len() as u64 - 16..whole.len() as u64) {
        with_flipped(&file, at, || {
            assert_refused(target(&volume), &format!("byte {at}"))
        });
    }
    for length in (0..whole.len()).step_by(41) {
        std::fs::write(side, &whole[..length]).unwrap();
        assert_refused(target(&volume), &format!("cut to {length}"));
    }
    std::fs::remove_file(side).unwrap();
    assert_refused(target(&volume), "no side file");
    std::fs::write(side, &whole).unwrap();
    assert_eq!(target(&volume).unwrap(), plain.as_bytes());
}

/// The stored names of the encrypted attributes of a backing object.
fn stored_xattrs(path: &Path) -> Vec<String> {
    let mut names = vec![0; 4096];
    let length = rustix::fs::listxattr(path, &mut names).unwrap();
    let names = String::from_utf8(names[..length].to_vec()).unwrap();
    names
        .split_terminator('\0')
        .filter(|name| name.starts_with("user.cmkfs."))
        .map(str::to_owned)
        .collect()
}

fn raw_xattr(path: &Path, name: &str) -> Vec<u8> {
    let mut value = vec![0; 4096];
    let length = rustix::fs::getxattr(path, name, &mut value).unwrap();
    value.truncate(length);
    value
}

fn set_raw_xattr(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::setxattr(path, name, value, rustix::fs::XattrFlags::empty()).unwrap();
}

#[test]
fn every_byte_of_an_attribute_is_guarded_and_it_belongs_to_its_name_and_file() {
    let volume = TestVolume::new();
    let open = volume.open();
    let node = create(&open, ROOT_NODE, "file", b"data");
    let set = |node, name: &str, value: &[u8]| {
        open.set_xattr(caller(), node, OsStr::new(name), value, XattrMode::Set)
            .unwrap();
    };
    set(node, "user.one", b"first");
    let backing = volume.only_backing_file();
    let one = stored_xattrs(&backing)[0].clone();
    set(node, "user.two", b"second");
    let two = stored_xattrs(&backing)
        .into_iter()
        .find(|name| *name != one)
        .unwrap();
    open.shutdown().unwrap();
    drop(open);
    let get = || {
        let open = reopen(&volume).unwrap();
        let node = open.lookup(ROOT_NODE, OsStr::new("file")).unwrap().node;
        open.list_xattrs(node)
            .and_then(|_| open.get_xattr(node, OsStr::new("user.one")))
            .map_err(|error| error.errno())
    };
    let whole = raw_xattr(&backing, &one);
    for at in 0..whole.len() {
        let mut changed = whole.clone();
        changed[at] ^= 1 << (at % 8);
        set_raw_xattr(&backing, &one, &changed);
        assert_eq!(get(), Err(Errno::BADMSG), "byte {at}");
        set_raw_xattr(&backing, &one, &whole[..at]);
        assert_eq!(get(), Err(Errno::BADMSG), "cut to {at}");
    }
    set_raw_xattr(&backing, &one, &raw_xattr(&backing, &two));
    assert_eq!(get(), Err(Errno::BADMSG), "the value of another name");
    set_raw_xattr(&backing, &one, &whole);
    assert_eq!(get(), Ok(b"first".to_vec()));

    let open = volume.open();
    create(&open, ROOT_NODE, "second", b"data");
    open.shutdown().unwrap();
    drop(open);
    let other = objects(&volume.cipher())
        .into_iter()
        .find(|path| *path != backing)
        .unwrap();
    set_raw_xattr(&other, &one, &whole);
    let open = reopen(&volume).unwrap();
    let node = open.lookup(ROOT_NODE, OsStr::new("second")).unwrap().node;
    let error = open.get_xattr(node, OsStr::new("user.one")).unwrap_err();
    assert_eq!(error.errno(), Errno::NODATA, "another file's name for it");
    assert_eq!(open.list_xattrs(node).unwrap_err().errno(), Errno::BADMSG);
}
