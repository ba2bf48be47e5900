//! Files: who opens, writes, cuts, closes and removes one while another seals it or its key goes.

use std::ffi::OsStr;
use std::sync::Arc;

use shuttle::thread;

use crate::explore;
use crate::fs::keys::KeyUnavailable;
use crate::fs::{AllocateMode, FileSystem, FsError, NodeId, OpenFlags, ROOT_NODE, SetAttributes};
use crate::volume::{KEY, TestVolume, WRITE, caller, content, create};

/// Runs these at the same time on a volume with one closed file of 9000 bytes, and returns what it holds then, before and
/// after the volume was opened again: ended cleanly or not.
fn at_the_same_time(
    works: Vec<fn(&FileSystem, NodeId)>,
    is_clean: bool,
) -> [Result<Vec<u8>, FsError>; 2] {
    let volume = TestVolume::new();
    let fs = Arc::new(volume.open());
    let (node, handle) = create(&fs, "f");
    fs.write(handle, 0, &[1; 9000]).expect("a write");
    fs.release(handle);
    let threads: Vec<_> = works
        .into_iter()
        .map(|work| {
            let fs = Arc::clone(&fs);
            thread::spawn(move || work(&fs, node))
        })
        .collect();
    for thread in threads {
        thread.join().expect("no panic");
    }
    let now = content(&fs, node);
    if is_clean {
        fs.shutdown().expect("a clean end");
    }
    drop(fs);
    let fs = volume.open();
    let later = fs
        .lookup(ROOT_NODE, OsStr::new("f"))
        .and_then(|found| content(&fs, found.node));
    [now, later]
}

fn overwrite(fs: &FileSystem, node: NodeId) {
    let handle = fs.open(caller(), node, WRITE).expect("it opens").handle;
    fs.write(handle, 4096, &[2; 4096]).expect("a write");
    fs.release(handle);
}

fn append(fs: &FileSystem, node: NodeId) {
    let handle = fs.open(caller(), node, WRITE).expect("it opens").handle;
    fs.write(handle, 9000, &[3; 1000]).expect("a write");
    fs.release(handle);
}

fn read(fs: &FileSystem, node: NodeId) {
    let read = content(fs, node).expect("it is read");
    assert!(read.len() >= 5000 && read[..4096] == [1; 4096]);
    let middle = read[4096];
    assert!(read[4096..5000].iter().all(|byte| *byte == middle) && matches!(middle, 1 | 2));
}

fn cut(fs: &FileSystem, node: NodeId) {
    let size = Some(5000);
    let changes = SetAttributes {
        size,
        ..SetAttributes::default()
    };
    fs.set_attributes(caller(), node, None, &changes)
        .expect("a truncation");
}

fn seal(fs: &FileSystem, _: NodeId) {
    fs.seal_now();
}

fn sync(fs: &FileSystem, node: NodeId) {
    let opened = fs.open(caller(), node, OpenFlags::default());
    let handle = opened.expect("it opens").handle;
    fs.sync(handle, true).expect("a sync");
    fs.release(handle);
}

fn punch(fs: &FileSystem, node: NodeId) {
    let handle = fs.open(caller(), node, WRITE).expect("it opens").handle;
    fs.allocate(handle, AllocateMode::PunchHole, 4096, 4096)
        .expect("a hole");
    fs.release(handle);
}

#[test]
fn a_file_is_sealed_opened_and_written_by_several_at_once() {
    explore(200, || {
        let [now, later] = at_the_same_time(vec![overwrite, append, seal, seal], true);
        let expected = [&[1; 4096][..], &[2; 4096], &[1; 808], &[3; 1000]].concat();
        assert!(now.expect("it is read") == expected);
        assert!(later.expect("it is read") == expected);
    });
}

#[test]
fn a_seal_never_speaks_of_a_file_that_was_let_go_of_and_opened_anew() {
    // Read, so that it waits for its seal once more, with nothing changed; then changed.
    let read_then_append = |fs: &FileSystem, node| {
        read(fs, node);
        append(fs, node);
    };
    explore(200, move || {
        let [now, later] = at_the_same_time(vec![read_then_append, seal, seal], false);
        let expected = [&[1; 9000][..], &[3; 1000]].concat();
        assert!(now.expect("it is read") == expected);
        assert!(later.expect("it is read") == expected);
    });
}

#[test]
fn a_reader_sees_each_block_whole_while_others_write_cut_and_seal() {
    explore(200, || {
        let [now, later] = at_the_same_time(vec![overwrite, read, cut, seal], true);
        let (now, later) = (now.expect("it is read"), later.expect("it is read"));
        assert!(now == later && now[..4096] == [1; 4096]);
        // Cut before or after the write.
        let middle = now[4096..5000].to_vec();
        assert!(matches!(now.len(), 5000 | 8192) && middle == [2; 904]);
    });
}

#[test]
fn a_file_is_written_synced_punched_and_sealed_by_several_at_once() {
    explore(200, || {
        let [now, later] = at_the_same_time(vec![overwrite, sync, punch, seal], true);
        let (now, later) = (now.expect("it is read"), later.expect("it is read"));
        assert!(now == later && now.len() == 9000);
        assert!(now[..4096] == [1; 4096] && now[8192..] == [1; 808]);
        // Punched before or after the write.
        assert!(now[4096..8192] == [2; 4096] || now[4096..8192] == [0; 4096]);
    });
}

#[test]
fn a_key_that_goes_and_comes_back_loses_no_acknowledged_write_and_stops_nobody() {
    explore(200, || {
        let volume = TestVolume::new();
        let fs = Arc::new(volume.open());
        let (node, handle) = create(&fs, "f");
        fs.write(handle, 0, &[1; 9000]).expect("a write");
        let writer = {
            let fs = Arc::clone(&fs);
            thread::spawn(move || {
                let written = fs.write(handle, 4096, &[2; 4096]).is_ok();
                fs.release(handle);
                written
            })
        };
        let sealer = {
            let fs = Arc::clone(&fs);
            thread::spawn(move || fs.seal_now())
        };
        fs.leases().close(KEY, KeyUnavailable::Disabled);
        fs.leases().wipe(KEY);
        assert!(
            content(&fs, node).is_err(),
            "nothing is read while it is away"
        );
        fs.leases().restore(KEY);
        let written = writer.join().expect("no panic");
        sealer.join().expect("no panic");
        let read = content(&fs, node).expect("it is read");
        assert!(!written || read[4096..8192] == [2; 4096]);
        assert!(written || read[4096..8192] == [1; 4096]);
    });
}

#[test]
fn a_file_that_is_removed_while_it_is_open_and_sealed_stays_readable_to_who_has_it() {
    explore(200, || {
        let volume = TestVolume::new();
        let fs = Arc::new(volume.open());
        let (_, handle) = create(&fs, "f");
        fs.write(handle, 0, &[1; 5000]).expect("a write");
        let removal = {
            let fs = Arc::clone(&fs);
            thread::spawn(move || fs.remove_file(ROOT_NODE, OsStr::new("f")).expect("it goes"))
        };
        let sealer = {
            let fs = Arc::clone(&fs);
            thread::spawn(move || fs.seal_now())
        };
        let mut content = vec![0; 5000];
        fs.write(handle, 0, &[2; 100]).expect("a write");
        assert_eq!(fs.read(handle, 0, &mut content).expect("it is read"), 5000);
        assert!(content[..100] == [2; 100] && content[100..] == [1; 4900]);
        removal.join().expect("no panic");
        sealer.join().expect("no panic");
        fs.release(handle);
        fs.shutdown().expect("a clean end");
    });
}
