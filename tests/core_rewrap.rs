//! Rewrap on the bare core: everything goes under the new key and reads as before, whatever is open, fails or happens
//! meanwhile.

mod support;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};

use cmkfs::format::header::KeyBinding;
use cmkfs::fs::keys::KeyUnavailable;
use cmkfs::fs::{NodeId, ROOT_NODE, RenameMode};
use cmkfs::ids::KeyId;
use cmkfs::kms::key::KeyRef;
use cmkfs::volume::census::Census;
use cmkfs::volume::rewrap::{Report, rewrap};
use cmkfs::volume::{self, Volume, VolumeError};
use rustix::io::Errno;
use support::direct::Direct;
use support::tree::{Mode, Tree, snapshot};
use support::upkeep::{default_key, dying, leftovers, new_key, populate};
use support::{MODE, TestVolume, WRITE, caller};

fn run(volume: &Volume, top: NodeId, to: Option<KeyId>) -> Result<Report, VolumeError> {
    let to = to.map(KeyBinding::Key);
    rewrap(volume, top, to.as_ref(), &mut |_| ControlFlow::Continue(()))
}

fn keys_in_use(volume: &TestVolume) -> BTreeSet<KeyId> {
    let census = Census::take(&volume.cipher(), &mut |_| {}).unwrap();
    assert!(census.is_complete(), "{census:?}");
    census.keys().collect()
}

#[test]
fn everything_is_under_the_new_key_and_reads_as_before() {
    let mut tree = Direct::new();
    populate(&mut tree);
    tree.remount();
    let before = snapshot(&mut tree);
    let (old, new) = (default_key(&tree.volume), new_key(&tree.volume));
    let report = run(tree.open_volume(), ROOT_NODE, Some(new)).unwrap();
    assert!(report.is_complete(), "{report:?}");
    assert_eq!(report.remaining(), 0);
    assert_eq!(keys_in_use(&tree.volume), BTreeSet::from([new]));
    assert_eq!(snapshot(&mut tree), before);
    tree.remount();
    assert_eq!(snapshot(&mut tree), before);
    // The old key is not needed for anything: not what was there, and not what is made from now on.
    tree.volume.keys.disable_key(&KeyRef::Id(old)).unwrap();
    tree.remount();
    assert_eq!(snapshot(&mut tree), before);
    populate_more(&mut tree);
    assert_eq!(keys_in_use(&tree.volume), BTreeSet::from([new]));
    let again = run(tree.open_volume(), ROOT_NODE, Some(new)).unwrap();
    assert_eq!(again.rewrapped, 0);
    assert!(again.is_complete());
}

fn populate_more(tree: &mut Direct) {
    tree.create("a/new", 0o644).unwrap();
    tree.write("a/new", 0, b"new").unwrap();
    tree.write("empty", 0, b"first").unwrap();
    tree.mkdir("a/b/new", 0o755).unwrap();
    tree.symlink("a/b/new/link", "target").unwrap();
}

#[test]
fn without_a_key_named_everything_follows_the_alias_it_is_bound_to() {
    let dir = tempfile::tempdir().unwrap();
    let keys = support::key_service(&dir.path().join("keys"));
    let volume = TestVolume { dir, keys };
    let (first, second) = (new_key(&volume), new_key(&volume));
    let alias = "alias/data".parse().unwrap();
    volume
        .keys
        .create_alias(&alias, &KeyRef::Id(first))
        .unwrap();
    volume::create(
        &volume.cipher(),
        &volume.keys,
        &"alias/data".parse().unwrap(),
    )
    .unwrap();
    let fs = volume.open();
    let (_, opened) = fs
        .create(caller(), ROOT_NODE, OsStr::new("f"), MODE, WRITE)
        .unwrap();
    fs.write(opened.handle, 0, b"content").unwrap();
    fs.release(opened.handle);
    assert_eq!(run(&fs, ROOT_NODE, None).unwrap().rewrapped, 0);
    volume
        .keys
        .update_alias(&alias, &KeyRef::Id(second))
        .unwrap();
    let report = run(&fs, ROOT_NODE, None).unwrap();
    assert_eq!(report.rewrapped, 3, "root, file and volume key: {report:?}");
    assert_eq!(keys_in_use(&volume), BTreeSet::from([second]));
    assert_eq!(report.materials.len(), 2);
    assert!(report.materials.iter().any(|guarded| {
        guarded.key_id == first && guarded.objects_before == 3 && guarded.objects == 0
    }));
}

#[test]
fn a_directory_alone_is_rewrapped_and_bound() {
    let mut tree = Direct::new();
    populate(&mut tree);
    let (old, new) = (default_key(&tree.volume), new_key(&tree.volume));
    let top = tree.fs().lookup(ROOT_NODE, OsStr::new("c")).unwrap().node;
    let report = run(tree.open_volume(), top, Some(new)).unwrap();
    assert!(report.is_complete(), "{report:?}");
    assert_eq!(report.rewrapped, 3, "directory, long symlink, file");
    assert_eq!(keys_in_use(&tree.volume), BTreeSet::from([old, new]));
    tree.create("c/made after", 0o644).unwrap();
    tree.write("c/made after", 0, b"x").unwrap();
    let refused = tree.rename("small", "c/small", Mode::Replace);
    assert_eq!(refused, Err(Errno::XDEV));
    tree.fs().withdraw(new, KeyUnavailable::Disabled);
    assert_eq!(tree.read("c/made after", 0, 1), Err(Errno::KEYREVOKED));
    assert_eq!(tree.read("small", 0, 1).map(|read| read.len()), Ok(1));
}

#[test]
fn a_symlink_with_names_outside_of_the_directory_is_told_and_done_with_the_whole_volume() {
    let mut tree = Direct::new();
    populate(&mut tree);
    let new = new_key(&tree.volume);
    let top = tree.fs().lookup(ROOT_NODE, OsStr::new("a")).unwrap().node;
    let report = run(tree.open_volume(), top, Some(new)).unwrap();
    assert_eq!(
        (report.failures.count, report.remaining()),
        (1, 1),
        "{report:?}"
    );
    assert!(!report.is_complete());
    let report = run(tree.open_volume(), ROOT_NODE, Some(new)).unwrap();
    assert!(report.is_complete(), "{report:?}");
}

#[test]
fn what_is_open_goes_on_under_the_new_key_and_the_old_envelope_does_not_come_back() {
    let mut tree = Direct::new();
    populate(&mut tree);
    let (old, new) = (default_key(&tree.volume), new_key(&tree.volume));
    tree.create("gone", 0o644).unwrap();
    tree.write("gone", 0, &[3; 100_000]).unwrap();
    tree.hold("gone").unwrap();
    tree.unlink("gone").unwrap();
    tree.write_held(100_000, b"more").unwrap();
    let gone = tree.read_held().unwrap();
    assert!(
        run(tree.open_volume(), ROOT_NODE, Some(new))
            .unwrap()
            .is_complete()
    );
    tree.fs().withdraw(old, KeyUnavailable::NoMaterial);
    assert_eq!(tree.read_held().unwrap(), gone, "open and without a name");
    tree.write_held(7, b"under the new key").unwrap();
    tree.hold("small").unwrap();
    tree.write_held(0, b"dirty when it is rewrapped").unwrap();
    let third = new_key(&tree.volume);
    assert!(
        run(tree.open_volume(), ROOT_NODE, Some(third))
            .unwrap()
            .is_complete()
    );
    tree.write_held(5, b"and after").unwrap();
    tree.remount();
    assert_eq!(keys_in_use(&tree.volume), BTreeSet::from([third]));
    let expected = b"dirtyand afteris rewrapped";
    let content = tree.read("small", 0, 100).unwrap();
    assert_eq!(content.len(), expected.len());
    assert_eq!(&content[5..14], b"and after");
}

#[test]
fn a_refused_key_is_told_before_anything_is_done() {
    let mut tree = Direct::new();
    populate(&mut tree);
    let (old, new) = (default_key(&tree.volume), new_key(&tree.volume));
    for disabled in [new, old] {
        tree.volume.keys.disable_key(&KeyRef::Id(disabled)).unwrap();
        let refused = run(tree.open_volume(), ROOT_NODE, Some(new));
        assert!(
            matches!(&refused, Err(VolumeError::Filesystem { source, .. })
                if source.errno() == Errno::KEYREVOKED),
            "{refused:?}"
        );
        assert_eq!(keys_in_use(&tree.volume), BTreeSet::from([old]));
        tree.volume.keys.enable_key(&KeyRef::Id(disabled)).unwrap();
    }
}

#[test]
fn a_damaged_object_is_told_and_keeps_nobody_else_from_the_new_key() {
    let mut tree = Direct::new();
    populate(&mut tree);
    let (old, new) = (default_key(&tree.volume), new_key(&tree.volume));
    let report = tree.while_closed(|volume| {
        let fs = volume.open();
        let node = fs.lookup(ROOT_NODE, OsStr::new("sparse")).unwrap().node;
        let path = volume.cipher().join(fs.backing_path(node));
        let file = std::fs::File::options().write(true).open(path).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &[1], 200).unwrap();
        run(&fs, ROOT_NODE, Some(new)).unwrap()
    });
    assert_eq!(
        (report.failures.count, report.remaining()),
        (1, 1),
        "{report:?}"
    );
    assert_eq!(keys_in_use(&tree.volume), BTreeSet::from([old, new]));
}

#[test]
fn killed_at_any_call_it_leaves_everything_readable_and_is_taken_up_again() {
    for n in 0.. {
        let mut tree = Direct::new();
        populate(&mut tree);
        tree.remount();
        let mut before = snapshot(&mut tree);
        let new = new_key(&tree.volume);
        let died = tree.while_closed(|volume| {
            dying(volume, n, Errno::IO, |fs| {
                let _ = run(fs, ROOT_NODE, Some(new));
            })
        });
        let mut after = snapshot(&mut tree);
        // A kill between the names of one symlink parts them; and between a header and its time, changes that.
        for seen in before.values_mut().chain(after.values_mut()) {
            seen.mtime = None;
            if seen.kind == "symlink" {
                seen.links = 0;
            }
        }
        assert_eq!(after, before, "killed at call {n}");
        let report = run(tree.open_volume(), ROOT_NODE, Some(new)).unwrap();
        assert!(report.is_complete(), "killed at call {n}: {report:?}");
        assert_eq!(keys_in_use(&tree.volume), BTreeSet::from([new]));
        assert!(leftovers(&tree.volume).is_empty(), "killed at call {n}");
        if !died {
            assert!(n > 30, "{n} calls");
            return;
        }
    }
}

#[test]
fn nothing_slips_through_whatever_is_renamed_linked_and_made_meanwhile() {
    let volume = TestVolume::new();
    let fs = volume.open();
    let directories: Vec<NodeId> = (0..8)
        .map(|n| {
            let name = format!("d{n}");
            fs.make_directory(caller(), ROOT_NODE, OsStr::new(&name), MODE)
                .unwrap()
                .node
        })
        .collect();
    let write = |parent, name: &str, text: &[u8]| {
        let (found, opened) = fs.create(caller(), parent, OsStr::new(name), MODE, WRITE)?;
        let written = fs.write(opened.handle, 0, text);
        fs.release(opened.handle);
        fs.forget(found.node, 1);
        written
    };
    for (n, directory) in directories.iter().enumerate() {
        for m in 0..20 {
            let name = format!("{n}.{m}");
            write(*directory, &name, name.as_bytes()).unwrap();
            let link = format!("l{n}.{m}");
            fs.make_symlink(caller(), *directory, OsStr::new(&link), OsStr::new(&name))
                .unwrap();
        }
    }
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for thread in 0..3_u64 {
            let (fs, over, directories, write) = (&fs, &over, &directories, &write);
            scope.spawn(move || {
                let mut state = thread + 0x9E37_79B9;
                let mut choose = |below: usize| {
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    (state % below as u64) as usize
                };
                let mut made = 0;
                while !over.load(Ordering::Relaxed) {
                    let (n, m) = (choose(8), choose(20));
                    let (from, to) = (directories[choose(8)], directories[choose(8)]);
                    let file = format!("{n}.{m}");
                    let link = format!("l{file}");
                    for name in [file, link] {
                        let name = OsStr::new(&name);
                        // As the kernel does, which looks a name up before it moves it.
                        let Ok(found) = fs.lookup(from, name) else {
                            continue;
                        };
                        let _ = fs.rename(from, name, to, name, RenameMode::NoReplace);
                        fs.forget(found.node, 1);
                    }
                    if choose(8) > 0 {
                        continue;
                    }
                    made += 1;
                    let name = format!("new{thread}.{made}");
                    write(to, &name, name.as_bytes()).unwrap();
                    if choose(10) > 0 {
                        fs.remove_file(to, OsStr::new(&name)).unwrap();
                    }
                }
            });
        }
        for _ in 0..4 {
            let new = new_key(&volume);
            let report = run(&fs, ROOT_NODE, Some(new)).unwrap();
            assert!(report.failures.count == 0, "{report:?}");
            assert!(!report.missed, "{report:?}");
        }
        over.store(true, Ordering::Relaxed);
    });
    let last = new_key(&volume);
    // The last of them under the storm is to have left nothing behind: looked at now that all is quiet.
    let before = keys_in_use(&volume);
    assert_eq!(before.len(), 1, "{before:?}");
    run(&fs, ROOT_NODE, Some(last)).unwrap();
    fs.shutdown().unwrap();
    drop(fs);
    let fs = volume.open();
    let mut found = 0;
    for n in 0..8 {
        let directory = &fs
            .lookup(ROOT_NODE, OsStr::new(&format!("d{n}")))
            .unwrap()
            .node;
        let node = |name: &str| fs.lookup(*directory, OsStr::new(name));
        for n in 0..8 {
            for m in 0..20 {
                let name = format!("{n}.{m}");
                if let Ok(file) = node(&name) {
                    let handle = fs.open(caller(), file.node, WRITE).unwrap().handle;
                    let mut content = vec![0; 10];
                    let length = fs.read(handle, 0, &mut content).unwrap();
                    assert_eq!(&content[..length], name.as_bytes());
                    fs.release(handle);
                    found += 1;
                }
                if let Ok(link) = node(&format!("l{name}")) {
                    assert_eq!(fs.read_link(link.node).unwrap(), name.as_bytes());
                    found += 1;
                }
            }
        }
    }
    assert_eq!(found, 320);
}
