//! Purging a volume of what no key can open any more: all of that, and nothing else.

mod support;

use std::ffi::OsStr;
use std::os::unix::fs::symlink;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use cmkfs::format::header::KeyBinding;
use cmkfs::fs::{FileKind, FileSystem, Fill, NodeId, NodeType, ROOT_NODE};
use cmkfs::ids::KeyId;
use cmkfs::kms::key::KeyRef;
use cmkfs::volume::VolumeError;
use cmkfs::volume::census::Tally;
use cmkfs::volume::purge::{Include, Purge, Report};
use support::{MODE, TestVolume, caller, mkdir, write};

const ALIAS: &str = "alias/secret";

/// The keys of most tests are lost, not deleted: no line of the log speaks of them.
const GONE: Include = Include {
    pending_import: false,
    unknown_keys: true,
};

/// What is left in the key directory after a key was deleted.
fn delete(volume: &TestVolume, key: KeyId) {
    let keys = volume.dir.path().join("keys/keys");
    std::fs::remove_dir_all(keys.join(key.to_string())).unwrap();
}

fn bind(fs: &FileSystem, node: NodeId, key: KeyId) {
    fs.bind(node, &KeyBinding::Key(key)).unwrap();
}

fn link(fs: &FileSystem, parent: NodeId, name: &str, target: &str) {
    let (name, target) = (OsStr::new(name), OsStr::new(target));
    fs.make_symlink(caller(), parent, name, target).unwrap();
}

/// A tree with all that can be dead: files, directories, symlinks, long names, hard links, empty files.
fn fill(fs: &FileSystem, parent: NodeId) {
    let below = mkdir(fs, parent, "below");
    let file = write(fs, parent, "file", 5000);
    fs.link(file, below, OsStr::new("linked")).unwrap();
    write(fs, parent, &"long".repeat(60), 10);
    mkdir(fs, below, &"folder".repeat(40));
    link(fs, below, "short", "target");
    link(fs, below, "long", &"t".repeat(4000));
    write(fs, below, "empty", 0);
    let pipe = NodeType {
        kind: FileKind::Fifo,
        device: 0,
    };
    fs.make_node(caller(), below, OsStr::new("pipe"), MODE, pipe)
        .unwrap();
}

const FILLED: Tally = Tally {
    files: 2,
    directories: 3,
    symlinks: 2,
    volume_keys: 0,
    bytes: 5010 + 4006,
};

fn plan(volume: &TestVolume) -> Report {
    let purge = Purge::new(&volume.cipher(), &volume.keys, GONE).unwrap();
    purge.plan(&mut |_| {}).unwrap()
}

fn purge(volume: &TestVolume) -> Report {
    let purge = Purge::new(&volume.cipher(), &volume.keys, GONE).unwrap();
    let plan = purge.plan(&mut |_| {}).unwrap();
    let done = purge.remove(&plan, &mut |_| {}).unwrap();
    assert!(done.failed.is_empty(), "{:?}", done.failed);
    assert_eq!(done.removed, plan.removed, "what was said is what was done");
    assert_eq!(done.nameless, plan.nameless);
    done
}

/// Every backing file and directory.
fn everything(directory: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            all.extend(everything(&entry.path()));
        }
        all.push(entry.path());
    }
    all.sort();
    all
}

fn list(fs: &FileSystem, node: NodeId) -> Vec<String> {
    let handle = fs.open_directory(node).unwrap();
    let mut names = Vec::new();
    fs.read_directory_plus(handle, 0, Duration::ZERO, &mut |entry| {
        names.push(entry.name.to_string_lossy().into_owned());
        Fill::Taken
    })
    .unwrap();
    fs.release_directory(handle);
    names.retain(|name| name != "." && name != "..");
    names.sort();
    names
}

#[test]
fn what_is_under_a_deleted_key_goes_and_leaves_nothing_behind() {
    let volume = TestVolume::new();
    let key = volume.new_key(ALIAS);
    let before = {
        let fs = volume.open();
        let alive = mkdir(&fs, ROOT_NODE, "alive");
        fill(&fs, alive);
        fs.shutdown().unwrap();
        let before = everything(&volume.cipher());
        let secret = mkdir(&fs, ROOT_NODE, "secret");
        bind(&fs, secret, key);
        fill(&fs, secret);
        fs.shutdown().unwrap();
        before
    };
    assert_eq!(plan(&volume).objects(), 0, "the key is there");
    delete(&volume, key);
    let report = purge(&volume);
    assert_eq!(
        report.removed.values().copied().collect::<Vec<_>>(),
        [FILLED]
    );
    assert_eq!(report.nameless, 2);
    assert_eq!(report.objects(), 9);
    assert_eq!(report.bytes(), FILLED.bytes);
    assert_eq!(report.kept.count, 0);
    assert_eq!(everything(&volume.cipher()), before);
    assert_eq!(purge(&volume).objects(), 0);
    let fs = volume.open();
    assert_eq!(list(&fs, ROOT_NODE), ["alive"]);
}

#[test]
fn a_plan_removes_nothing() {
    let volume = TestVolume::new();
    let key = volume.new_key(ALIAS);
    {
        let fs = volume.open();
        let secret = mkdir(&fs, ROOT_NODE, "secret");
        bind(&fs, secret, key);
        fill(&fs, secret);
        fs.shutdown().unwrap();
    }
    delete(&volume, key);
    let before = everything(&volume.cipher());
    assert_eq!(plan(&volume).objects(), 9);
    assert_eq!(everything(&volume.cipher()), before);
}

#[test]
fn a_dead_file_in_a_living_directory_goes_alone() {
    let volume = TestVolume::new();
    volume.new_key(ALIAS);
    let second = {
        let fs = volume.open();
        let folder = mkdir(&fs, ROOT_NODE, "folder");
        let binding = KeyBinding::Alias(ALIAS.to_owned());
        fs.bind(folder, &binding).unwrap();
        write(&fs, folder, "stays", 1);
        let second = volume.new_key(ALIAS);
        write(&fs, folder, "goes", 1);
        write(&fs, folder, "empty", 0);
        fs.shutdown().unwrap();
        second
    };
    delete(&volume, second);
    let report = purge(&volume);
    assert_eq!((report.objects(), report.nameless), (1, 0));
    let fs = volume.open();
    let folder = fs.lookup(ROOT_NODE, OsStr::new("folder")).unwrap().node;
    assert_eq!(list(&fs, folder), ["empty", "stays"]);
}

#[test]
fn what_a_key_can_still_open_stays_with_the_directories_above_it_and_is_reported() {
    let volume = TestVolume::new();
    let (dead, living) = (volume.new_key(ALIAS), volume.new_key("alias/living"));
    let (secret, public) = {
        let fs = volume.open();
        let secret = mkdir(&fs, ROOT_NODE, "secret");
        bind(&fs, secret, dead);
        fill(&fs, secret);
        let public = mkdir(&fs, mkdir(&fs, secret, "between"), "public");
        bind(&fs, public, living);
        write(&fs, public, "file", 10);
        let paths = (fs.backing_path(secret), fs.backing_path(public));
        fs.shutdown().unwrap();
        paths
    };
    delete(&volume, dead);
    let report = purge(&volume);
    assert_eq!(
        report.objects(),
        8,
        "all but secret, between and below that"
    );
    let between = public.parent().unwrap().to_owned();
    assert_eq!(report.kept.count, 2);
    assert_eq!(report.kept.first, [public.clone(), between]);
    let census = volume.census();
    let tally = |files, directories| Tally {
        files,
        directories,
        bytes: files * 10,
        ..Tally::default()
    };
    assert_eq!(census.remaining(dead, None), tally(0, 2));
    assert_eq!(census.remaining(living, None), tally(1, 1));
    assert!(volume.cipher().join(secret).exists());
}

#[test]
fn nothing_goes_that_is_disabled_or_whose_key_cannot_be_read() {
    let volume = TestVolume::new();
    let (disabled, broken) = (volume.new_key(ALIAS), volume.new_key("alias/broken"));
    {
        let fs = volume.open();
        for (name, key) in [("disabled", disabled), ("broken", broken)] {
            let folder = mkdir(&fs, ROOT_NODE, name);
            bind(&fs, folder, key);
            fill(&fs, folder);
        }
        fs.shutdown().unwrap();
    }
    volume.keys.disable_key(&KeyRef::Id(disabled)).unwrap();
    let record = volume.dir.path().join("keys/keys").join(broken.to_string());
    for entry in std::fs::read_dir(&record).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            std::fs::write(path, "broken").unwrap();
        }
    }
    assert_eq!(purge(&volume).objects(), 0);
    let report = plan(&volume);
    assert_eq!(report.unclear.keys().collect::<Vec<_>>(), [&broken]);
    std::fs::rename(&record, volume.dir.path().join("aside")).unwrap();
    let keys = volume.dir.path().join("keys/keys");
    std::fs::rename(&keys, volume.dir.path().join("all")).unwrap();
    let refused =
        Purge::new(&volume.cipher(), &volume.keys, GONE).and_then(|purge| purge.plan(&mut |_| {}));
    assert!(
        matches!(&refused, Err(VolumeError::Keys(_))),
        "all keys are out of reach, which says nothing of each: {refused:?}"
    );
}

#[test]
fn a_key_that_is_only_missing_keeps_what_is_under_it() {
    let volume = TestVolume::new();
    let key = volume.new_key(ALIAS);
    {
        let fs = volume.open();
        let secret = mkdir(&fs, ROOT_NODE, "secret");
        bind(&fs, secret, key);
        fill(&fs, secret);
        fs.shutdown().unwrap();
    }
    delete(&volume, key);
    let before = everything(&volume.cipher());
    let purge = Purge::new(&volume.cipher(), &volume.keys, Include::default()).unwrap();
    let plan = purge.plan(&mut |_| {}).unwrap();
    assert_eq!(plan.objects(), 0);
    assert_eq!(plan.unclear.keys().collect::<Vec<_>>(), [&key]);
    assert_eq!(purge.remove(&plan, &mut |_| {}).unwrap().objects(), 0);
    assert_eq!(everything(&volume.cipher()), before);
}

#[test]
fn a_key_that_comes_back_keeps_what_is_under_it() {
    let volume = TestVolume::new();
    let key = volume.new_key(ALIAS);
    {
        let fs = volume.open();
        let secret = mkdir(&fs, ROOT_NODE, "secret");
        bind(&fs, secret, key);
        fill(&fs, secret);
        fs.shutdown().unwrap();
    }
    let record = volume.dir.path().join("keys/keys").join(key.to_string());
    let aside = volume.dir.path().join("aside");
    std::fs::rename(&record, &aside).unwrap();
    let before = everything(&volume.cipher());
    let purge = Purge::new(&volume.cipher(), &volume.keys, GONE).unwrap();
    let plan = purge.plan(&mut |_| {}).unwrap();
    assert_eq!(plan.objects(), 9);
    std::fs::rename(&aside, &record).unwrap();
    assert_eq!(purge.remove(&plan, &mut |_| {}).unwrap().objects(), 0);
    assert_eq!(everything(&volume.cipher()), before);
}

#[test]
fn what_is_damaged_or_foreign_stays() {
    let volume = TestVolume::new();
    let key = volume.new_key(ALIAS);
    let secret = {
        let fs = volume.open();
        let secret = mkdir(&fs, ROOT_NODE, "secret");
        bind(&fs, secret, key);
        let broken = write(&fs, secret, "broken", 10);
        write(&fs, secret, "goes", 10);
        let broken = volume.cipher().join(fs.backing_path(broken));
        fs.shutdown().unwrap();
        std::fs::write(broken, "not a header").unwrap();
        volume.cipher().join(fs.backing_path(secret))
    };
    std::fs::write(secret.join("notes.txt"), "mine").unwrap();
    delete(&volume, key);
    let report = purge(&volume);
    assert_eq!(report.objects(), 1);
    assert_eq!(report.damaged.count, 1);
    assert_eq!(report.kept.count, 2);
    assert_eq!(everything(&secret).len(), 3, "the two, and the header");
}

#[test]
fn a_volume_that_is_dead_in_use_or_anothers_is_refused() {
    let volume = TestVolume::new();
    let key = volume.new_key(ALIAS);
    let open = volume.open();
    let attempt = |volume: &TestVolume| Purge::new(&volume.cipher(), &volume.keys, GONE).err();
    assert!(matches!(attempt(&volume), Some(VolumeError::InUse { .. })));
    bind(&open, ROOT_NODE, key);
    open.shutdown().unwrap();
    drop(open);
    let other = TestVolume::new();
    let refused = Purge::new(&volume.cipher(), &other.keys, GONE).err();
    assert!(matches!(refused, Some(VolumeError::WrongKeyStore { .. })));
    assert!(attempt(&volume).is_none());
    delete(&volume, key);
    let before = everything(&volume.cipher());
    match attempt(&volume) {
        Some(VolumeError::Dead { key: named, .. }) => assert_eq!(named, key),
        other => panic!("{other:?}"),
    }
    assert_eq!(everything(&volume.cipher()), before);
}

#[test]
fn a_purge_that_is_cut_off_anywhere_is_finished_by_the_next() {
    let mut cut = 0;
    for n in 1.. {
        let volume = TestVolume::new();
        let key = volume.new_key(ALIAS);
        {
            let fs = volume.open();
            let secret = mkdir(&fs, ROOT_NODE, "secret");
            bind(&fs, secret, key);
            fill(&fs, secret);
            write(&fs, ROOT_NODE, "alive", 10);
            fs.shutdown().unwrap();
        }
        delete(&volume, key);
        let whole = {
            let purge = Purge::new(&volume.cipher(), &volume.keys, GONE).unwrap();
            let plan = purge.plan(&mut |_| {}).unwrap();
            let mut told = 0;
            let mut die = |_| {
                told += 1;
                if told == n {
                    resume_unwind(Box::new("cut off here"));
                }
            };
            catch_unwind(AssertUnwindSafe(|| purge.remove(&plan, &mut die))).is_ok()
        };
        assert!(volume.census().is_complete());
        assert!(list(&volume.open(), ROOT_NODE).contains(&"alive".to_owned()));
        purge(&volume);
        let fs = volume.open();
        assert_eq!(list(&fs, ROOT_NODE), ["alive"]);
        assert_eq!(
            everything(&volume.cipher()).len(),
            4,
            "nothing is left over"
        );
        if whole {
            break;
        }
        cut += 1;
    }
    assert!(cut > 8, "{cut}");
}

#[test]
fn symlinks_are_not_followed_out_of_the_volume() {
    let volume = TestVolume::new();
    let key = volume.new_key(ALIAS);
    let secret = {
        let fs = volume.open();
        let secret = mkdir(&fs, ROOT_NODE, "secret");
        bind(&fs, secret, key);
        fs.shutdown().unwrap();
        volume.cipher().join(fs.backing_path(secret))
    };
    let outside = tempfile::tempdir().unwrap();
    std::fs::copy(secret.join("cmkfs.dir"), outside.path().join("cmkfs.dir")).unwrap();
    symlink(outside.path(), volume.cipher().join("AAAA")).unwrap();
    symlink(outside.path(), secret.join("BBBB")).unwrap();
    delete(&volume, key);
    assert_eq!(purge(&volume).objects(), 0);
    assert!(outside.path().join("cmkfs.dir").exists());
}
