//! The census: every object under the key and material that wrap it, without any key, whatever happens meanwhile.

mod support;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::ops::ControlFlow;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use cmkfs::fs::{FileKind, NodeType, ROOT_NODE};
use cmkfs::ids::KeyId;
use cmkfs::volume::census::{Census, Tally, find};
use cmkfs::volume::walk::Unread;
use cmkfs::volume::{self, VolumeError};
use support::{MODE, TestVolume, caller, key_service, mkdir, write};

const ALIAS: &str = "alias/data";

/// A volume whose root is bound to `ALIAS`, and the key that stands for at first.
fn aliased() -> (TestVolume, KeyId) {
    let dir = tempfile::tempdir().unwrap();
    let keys = key_service(&dir.path().join("keys"));
    let volume = TestVolume { dir, keys };
    let key = volume.new_key(ALIAS);
    volume::create(&volume.cipher(), &volume.keys, &ALIAS.parse().unwrap()).unwrap();
    (volume, key)
}

#[test]
fn every_object_counts_once_under_the_key_that_wraps_it() {
    let (volume, first) = aliased();
    let fs = volume.open();
    let old = mkdir(&fs, ROOT_NODE, "old");
    let linked = write(&fs, old, "a", 300_000);
    fs.link(linked, ROOT_NODE, OsStr::new("b")).unwrap();
    let long_name = "n".repeat(255);
    write(&fs, old, &long_name, 1);
    let second = volume.new_key(ALIAS);
    mkdir(&fs, old, "new");
    write(&fs, old, "c", 10);
    write(&fs, old, "never written", 0);
    for (name, length) in [("short", 5), ("long", 4000)] {
        let target = "t".repeat(length);
        let name = OsStr::new(name);
        fs.make_symlink(caller(), old, name, OsStr::new(&target))
            .unwrap();
    }
    let pipe = NodeType {
        kind: FileKind::Fifo,
        device: 0,
    };
    fs.make_node(caller(), ROOT_NODE, OsStr::new("pipe"), MODE, pipe)
        .unwrap();

    // The volume is open and in use, and nothing of it is sealed.
    let census = volume.census();
    assert_eq!(census.volume, fs.volume_id());
    assert_eq!(census.key_store, volume.keys.store_id());
    assert_eq!(
        census.remaining(first, None),
        Tally {
            files: 2,
            directories: 2,
            symlinks: 0,
            volume_keys: 1,
            bytes: 300_001
        }
    );
    let expected = Tally {
        files: 1,
        directories: 1,
        symlinks: 2,
        volume_keys: 0,
        bytes: 10 + 4005,
    };
    assert_eq!(census.remaining(second, None), expected);
    let (&(_, material), tally) = census.of_key(second).next().unwrap();
    assert_eq!(*tally, expected);
    assert_eq!(census.remaining(second, Some(material)), expected);
    assert!(census.remaining(first, Some(material)).is_empty());
    assert_eq!(census.keyless, 2);
    assert_eq!(census.foreign, 0);
    assert!(census.is_complete());
    let mut both = vec![first, second];
    both.sort();
    assert_eq!(census.keys().collect::<Vec<_>>(), both);
    fs.shutdown().unwrap();
    drop(fs);
    assert_eq!(volume.census(), census, "the same when it is closed");
}

#[test]
fn objects_under_a_key_are_found_by_their_backing_paths() {
    let (volume, first) = aliased();
    let fs = volume.open();
    let folder = mkdir(&fs, ROOT_NODE, "folder");
    volume.new_key(ALIAS);
    let below = mkdir(&fs, folder, "below");
    let (_, second) = (below, volume.keys.resolve(&ALIAS.parse().unwrap()).unwrap());
    let file = write(&fs, below, "file", 3);
    let paths = |key| {
        let mut paths = Vec::new();
        let found = find(&volume.cipher(), key, None, &mut |path, _| {
            paths.push(path.to_owned());
            ControlFlow::Continue(())
        });
        found.unwrap();
        paths
    };
    let folder = fs.backing_path(folder);
    assert_eq!(paths(first), [PathBuf::new(), folder]);
    assert_eq!(
        paths(second),
        [fs.backing_path(below), fs.backing_path(file)]
    );
    assert!(
        paths(second)
            .iter()
            .all(|path| volume.cipher().join(path).exists())
    );
    let mut seen = 0;
    find(&volume.cipher(), second, None, &mut |_, _| {
        seen += 1;
        ControlFlow::Break(())
    })
    .unwrap();
    assert_eq!(seen, 1, "stops when told to");
}

#[test]
fn what_cannot_be_read_is_counted_with_its_path_and_hides_nothing_else() {
    let volume = TestVolume::new();
    let (mut broken, mut headless) = (PathBuf::new(), PathBuf::new());
    {
        let fs = volume.open();
        let folder = mkdir(&fs, ROOT_NODE, "folder");
        write(&fs, folder, "inside", 5);
        headless.push(fs.backing_path(folder));
        broken.push(fs.backing_path(write(&fs, ROOT_NODE, "broken", 5)));
        write(&fs, ROOT_NODE, "fine", 5);
        fs.shutdown().unwrap();
    }
    let before = volume.census().total();
    std::fs::remove_file(volume.cipher().join(&headless).join("cmkfs.dir")).unwrap();
    std::fs::write(volume.cipher().join(&broken), [0; 4101]).unwrap();
    let census = volume.census();
    assert!(!census.is_complete());
    let paths: BTreeMap<_, _> = census.damaged.paths.iter().cloned().collect();
    assert_eq!(paths.get(&headless), Some(&Unread::HeaderMissing));
    assert!(matches!(paths.get(&broken), Some(Unread::Format(_))));
    assert_eq!(census.damaged.count, 2);
    assert_eq!(census.total().files, before.files - 1);
    assert_eq!(census.total().directories, before.directories - 1);
}

#[test]
fn nothing_outside_and_nothing_foreign_is_looked_into() {
    let volume = TestVolume::new();
    let outside = tempfile::tempdir().unwrap();
    {
        let fs = volume.open();
        mkdir(&fs, ROOT_NODE, "folder");
    }
    // A whole volume's worth of objects, but not this one's.
    let copy = |to: &Path| {
        for entry in std::fs::read_dir(volume.cipher()).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                std::fs::create_dir(to.join(entry.file_name())).unwrap();
            } else if entry.file_type().unwrap().is_file() {
                std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
            }
        }
    };
    copy(outside.path());
    symlink(outside.path(), volume.cipher().join("AAAA")).unwrap();
    let foreign = volume.cipher().join("lost+found");
    std::fs::create_dir(&foreign).unwrap();
    copy(&foreign);
    std::fs::create_dir(volume.cipher().join("cmkfs.tmp.left")).unwrap();
    copy(&volume.cipher().join("cmkfs.tmp.left"));
    let census = volume.census();
    assert_eq!(census.total().directories, 2);
    assert_eq!(census.foreign, 1);
    assert_eq!(census.damaged.count, 1, "the symlink, which is no object");
}

#[test]
fn a_directory_without_a_volume_has_no_census() {
    let empty = tempfile::tempdir().unwrap();
    let refused = Census::take(empty.path(), &mut |_| {});
    assert!(matches!(refused, Err(VolumeError::NotAVolume { .. })));
}

#[test]
fn what_comes_and_goes_meanwhile_is_no_damage() {
    let volume = TestVolume::new();
    let fs = volume.open();
    for number in 0..400 {
        let folder = mkdir(&fs, ROOT_NODE, &format!("stays {number}"));
        write(&fs, folder, "file", 100);
    }
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for worker in 0..2 {
            let (fs, over) = (&fs, &over);
            scope.spawn(move || {
                let name = format!("goes {worker}");
                let target = "t".repeat(4000);
                while !over.load(Ordering::Relaxed) {
                    let folder = mkdir(fs, ROOT_NODE, &name);
                    for name in ["a", "b", "c"] {
                        write(fs, folder, name, 5000);
                    }
                    let link = OsStr::new("link");
                    fs.make_symlink(caller(), folder, link, OsStr::new(&target))
                        .unwrap();
                    for name in ["a", "b", "c", "link"] {
                        fs.remove_file(folder, OsStr::new(name)).unwrap();
                    }
                    fs.remove_directory(ROOT_NODE, OsStr::new(&name)).unwrap();
                }
            });
        }
        let mut told = 0;
        for _ in 0..20 {
            let census = Census::take(&volume.cipher(), &mut |sum| told = sum.objects()).unwrap();
            assert_eq!(census.damaged.paths, []);
            let total = census.total();
            assert!(total.files >= 400 && total.directories >= 401, "{total:?}");
            assert_eq!(told, total.objects(), "the last that was told is the sum");
        }
        over.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_tree_deeper_than_any_path_is_counted() {
    let volume = TestVolume::new();
    let fs = volume.open();
    let mut folder = ROOT_NODE;
    for _ in 0..300 {
        folder = mkdir(&fs, folder, "d");
    }
    write(&fs, folder, "f", 1);
    let census = volume.census();
    assert!(census.is_complete());
    assert_eq!(census.total().directories, 301);
    assert_eq!(census.total().files, 1);
}
