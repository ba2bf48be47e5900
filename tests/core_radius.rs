//! What a volume loses with a key: all that is under it, the names of what lies in its directories, or everything.

mod support;

use std::ffi::OsStr;

use cmkfs::fs::{FileSystem, NodeId, ROOT_NODE};
use cmkfs::ids::KeyId;
use cmkfs::kms::KmsError;
use cmkfs::kms::key::{CreateKeyRequest, KeyRef};
use cmkfs::volume;
use cmkfs::volume::probe::Probe;
use cmkfs::volume::radius::Radius;
use support::{MODE, TestVolume, WRITE, caller, key_service};

const ALIAS: &str = "alias/data";

/// Lets `ALIAS` stand for a new key.
fn new_key(volume: &TestVolume) -> KeyId {
    let key = volume
        .keys
        .create_key(CreateKeyRequest::default())
        .unwrap()
        .key_id;
    let alias = ALIAS.parse().unwrap();
    if volume.keys.update_alias(&alias, &KeyRef::Id(key)).is_err() {
        volume.keys.create_alias(&alias, &KeyRef::Id(key)).unwrap();
    }
    key
}

/// A volume whose root is bound to `ALIAS`, and the key that stands for at first.
fn aliased() -> (TestVolume, KeyId) {
    let dir = tempfile::tempdir().unwrap();
    let keys = key_service(&dir.path().join("keys"));
    let volume = TestVolume { dir, keys };
    let key = new_key(&volume);
    volume::create(&volume.cipher(), &volume.keys, &ALIAS.parse().unwrap()).unwrap();
    (volume, key)
}

fn write(fs: &FileSystem, parent: NodeId, name: &str, bytes: usize) -> NodeId {
    let (found, opened) = fs
        .create(caller(), parent, OsStr::new(name), MODE, WRITE)
        .unwrap();
    fs.write(opened.handle, 0, &vec![7; bytes]).unwrap();
    fs.release(opened.handle);
    found.node
}

fn mkdir(fs: &FileSystem, parent: NodeId, name: &str) -> NodeId {
    fs.make_directory(caller(), parent, OsStr::new(name), MODE)
        .unwrap()
        .node
}

fn radius(volume: &TestVolume, key: KeyId) -> Radius {
    Radius::of(&volume.cipher(), key, &mut |_| {}).unwrap()
}

/// The root under the first key; in it a directory under the second, which holds a file under the second, and a file and
/// a directory with a file under the third; beside it a file under the third.
fn three_keys() -> (TestVolume, [KeyId; 3]) {
    let (volume, first) = aliased();
    let fs = volume.open();
    let second = new_key(&volume);
    let middle = mkdir(&fs, ROOT_NODE, "middle");
    write(&fs, middle, "lost", 1000);
    let third = new_key(&volume);
    write(&fs, middle, "nameless", 200);
    let below = mkdir(&fs, middle, "below");
    write(&fs, below, "nameless", 30);
    write(&fs, ROOT_NODE, "stays", 4);
    fs.shutdown().unwrap();
    (volume, [first, second, third])
}

#[test]
fn what_lies_in_a_lost_directory_loses_its_name_and_keeps_its_content() {
    let (volume, [first, second, third]) = three_keys();
    let radius = radius(&volume, second);
    let lost = radius.lost();
    assert_eq!((lost.files, lost.directories, lost.bytes), (1, 1, 1000));
    let nameless = radius.nameless;
    assert_eq!(
        (nameless.files, nameless.directories, nameless.bytes),
        (2, 1, 230)
    );
    let stays = radius.stays;
    assert_eq!((stays.files, stays.directories, stays.bytes), (1, 1, 4));
    assert_eq!(stays.volume_keys, 1);
    assert_eq!(radius.other_keys, [first, third].into());
    assert!(!radius.is_whole());
    assert_eq!(radius.total().objects(), 8);
}

#[test]
fn a_file_that_has_another_name_elsewhere_keeps_that() {
    let (volume, [_, second, _]) = three_keys();
    let fs = volume.open();
    let middle = fs.lookup(ROOT_NODE, OsStr::new("middle")).unwrap().node;
    let nameless = fs.lookup(middle, OsStr::new("nameless")).unwrap().node;
    for name in ["another", "0", "zzz"] {
        fs.link(nameless, ROOT_NODE, OsStr::new(name)).unwrap();
    }
    fs.shutdown().unwrap();
    drop(fs);
    let radius = radius(&volume, second);
    assert_eq!((radius.nameless.files, radius.nameless.bytes), (1, 30));
    assert_eq!((radius.stays.files, radius.stays.bytes), (2, 204));
}

#[test]
fn with_the_key_of_the_root_and_of_the_volume_goes_everything() {
    let (volume, [first, second, third]) = three_keys();
    let whole = radius(&volume, first);
    assert!(whole.is_whole() && whole.volume_key && whole.root);
    assert_eq!(whole.stays.objects(), 0);
    assert_eq!(whole.nameless.files, 4);
    for other in [second, third] {
        assert!(!radius(&volume, other).is_whole());
    }
    let nothing = radius(&volume, KeyId([9; 16]));
    assert!(nothing.lost().is_empty() && nothing.probes.is_empty());
}

#[test]
fn a_probe_of_each_material_unwraps_until_its_key_does_not_written_down_or_not() {
    let (volume, keys) = three_keys();
    for key in keys {
        let found = radius(&volume, key);
        assert_eq!(found.probes.len(), found.by_material.len());
        for probe in found.probes {
            assert!(found.by_material.contains_key(&probe.material()));
            let path = volume.cipher().join(probe.path.as_ref().unwrap());
            assert!(path.is_file(), "{}", path.display());
            probe.attempt(&volume.keys).unwrap();
            let written = probe.write();
            let text = serde_json::to_string(&written).unwrap();
            let read = Probe::read(&serde_json::from_str(&text).unwrap()).unwrap();
            assert_eq!(read, probe);
            let reference = KeyRef::Id(key);
            volume.keys.disable_key(&reference).unwrap();
            for probe in [&probe, &read] {
                let refused = probe.attempt(&volume.keys).unwrap_err();
                assert!(matches!(refused, KmsError::DisabledException { .. }));
            }
            volume.keys.enable_key(&reference).unwrap();
            let mut other = written;
            other.envelope.replace_range(.., "00");
            assert!(Probe::read(&other).is_none());
        }
    }
}

#[test]
fn a_probe_can_be_made_for_a_key_that_guards_nothing() {
    let (volume, _) = aliased();
    let key = new_key(&volume);
    let probe = Probe::make(&volume.keys, key).unwrap();
    probe.attempt(&volume.keys).unwrap();
    assert!(probe.path.is_none());
    volume.keys.disable_key(&KeyRef::Id(key)).unwrap();
    assert!(probe.attempt(&volume.keys).is_err());
    assert!(Probe::make(&volume.keys, key).is_err());
}
