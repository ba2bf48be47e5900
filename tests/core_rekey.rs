//! Rekey on the bare core: every file and symlink has a new data key and reads as before, whatever is open, fails or
//! happens meanwhile.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};

use cmkfs::format::envelope::ObjectKind;
use cmkfs::fs::{ROOT_NODE, RenameMode};
use cmkfs::ids::ObjectId;
use cmkfs::volume::Volume;
use cmkfs::volume::rekey::{Report, rekey};
use cmkfs::volume::walk::{self, Found, Place};
use rustix::io::Errno;
use support::direct::Direct;
use support::tree::{Tree, snapshot};
use support::upkeep::{dying, leftovers, populate, stumbling};
use support::{MODE, TestVolume, WRITE, caller};

fn run(volume: &Volume) -> Report {
    rekey(volume, ROOT_NODE, &mut |_| ControlFlow::Continue(())).unwrap()
}

#[derive(Default)]
struct Ids {
    directories: BTreeSet<ObjectId>,
    others: BTreeSet<ObjectId>,
}

impl walk::Visitor for Ids {
    fn found(&mut self, place: &Place<'_>, found: &Found) -> ControlFlow<()> {
        match found {
            Found::Object(object) if object.kind == ObjectKind::Directory => {
                self.directories.insert(object.id);
            }
            Found::Object(object) => {
                self.others.insert(object.id);
            }
            Found::Keyless => {}
            other => panic!("{:?}: {other:?}", place.path),
        }
        ControlFlow::Continue(())
    }
}

/// The ids of all objects: a data key is as old as its object.
fn ids(volume: &TestVolume) -> Ids {
    let mut ids = Ids::default();
    walk::walk(&volume.cipher(), &mut ids).unwrap();
    ids
}

#[test]
fn every_file_and_symlink_has_a_new_data_key_and_is_as_before() {
    let mut tree = Direct::new();
    populate(&mut tree);
    tree.remount();
    let before = snapshot(&mut tree);
    let old = ids(&tree.volume);
    let report = run(tree.open_volume());
    assert_eq!(
        report.failures.count, 1,
        "the file of two names: {report:?}"
    );
    assert!(report.failures.first[0].reason.contains("several names"));
    let new = ids(&tree.volume);
    assert_eq!(new.others.len(), old.others.len());
    assert_eq!(new.others.intersection(&old.others).count(), 1);
    assert_eq!(new.directories, old.directories);
    assert_eq!(report.directories_kept, old.directories.len() as u64);
    assert!(snapshot(&mut tree) == before);
    tree.check_holes("sparse");
    tree.remount();
    assert!(snapshot(&mut tree) == before);
    assert!(leftovers(&tree.volume).is_empty());
    tree.unlink("a/b/same").unwrap();
    assert!(run(tree.open_volume()).is_complete());
    assert!(ids(&tree.volume).others.is_disjoint(&old.others));
}

#[test]
fn holes_take_no_space_afterwards_either() {
    let mut tree = Direct::new();
    tree.create("sparse", 0o644).unwrap();
    tree.write("sparse", 100_000_000, b"end").unwrap();
    tree.truncate("sparse", 300_000_000).unwrap();
    tree.remount();
    run(tree.open_volume());
    let node = tree.fs().lookup(ROOT_NODE, OsStr::new("sparse")).unwrap();
    assert_eq!(node.size, 300_000_000);
    assert!(node.blocks * 512 < 1_000_000, "{} blocks", node.blocks);
    tree.check_holes("sparse");
}

#[test]
fn what_is_open_goes_on_with_the_same_number_and_loses_nothing() {
    let mut tree = Direct::new();
    tree.create("file", 0o4755).unwrap();
    tree.write("file", 0, &[1; 300_000]).unwrap();
    tree.set_xattr("file", "user.name", b"value").unwrap();
    tree.hold("file").unwrap();
    tree.write_held(10, b"before").unwrap();
    let node = tree.see_node("file");
    assert!(run(tree.open_volume()).is_complete());
    tree.write_held(20, b"after").unwrap();
    assert_eq!(tree.see_node("file"), node);
    let mut expected = vec![1; 300_000];
    expected[10..16].copy_from_slice(b"before");
    expected[20..25].copy_from_slice(b"after");
    assert!(tree.read("file", 0, 300_000).unwrap() == expected);
    tree.rename("file", "elsewhere", support::tree::Mode::Replace)
        .unwrap();
    tree.write_held(30, b"moved").unwrap();
    expected[30..35].copy_from_slice(b"moved");
    assert!(run(tree.open_volume()).is_complete());
    assert_eq!(tree.see_node("elsewhere"), node);
    tree.remount();
    assert!(tree.read("elsewhere", 0, 300_000).unwrap() == expected);
    assert_eq!(
        tree.see("elsewhere").unwrap().xattrs[&b"user.name"[..].to_owned()],
        b"value"
    );
}

#[test]
fn a_file_that_was_emptied_while_open_has_a_new_data_key_too_once_it_is_written_to() {
    let mut tree = Direct::new();
    tree.create("file", 0o644).unwrap();
    tree.write("file", 0, b"content").unwrap();
    let old = ids(&tree.volume).others;
    tree.hold("file").unwrap();
    tree.truncate("file", 0).unwrap();
    assert!(run(tree.open_volume()).is_complete());
    tree.write_held(0, b"new").unwrap();
    tree.release_held();
    let new = ids(&tree.volume).others;
    assert!(new.len() == 1 && new.is_disjoint(&old));
    assert_eq!(tree.read("file", 0, 10).unwrap(), b"new");
}

#[test]
fn a_damaged_file_is_told_and_stays_as_it_was() {
    let mut tree = Direct::new();
    populate(&mut tree);
    let report = tree.while_closed(|volume| {
        let fs = volume.open();
        let node = fs.lookup(ROOT_NODE, OsStr::new("sparse")).unwrap().node;
        let path = volume.cipher().join(fs.backing_path(node));
        let before = std::fs::read(&path).unwrap();
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.write_all_at(&[1], 200).unwrap();
        let report = run(&fs);
        file.write_all_at(&before[200..201], 200).unwrap();
        assert!(std::fs::read(&path).unwrap() == before);
        report
    });
    assert_eq!(
        report.failures.count, 2,
        "and the file of two names: {report:?}"
    );
}

fn survives(errno: Errno) {
    let mut n = 0;
    loop {
        let mut tree = Direct::new();
        populate(&mut tree);
        tree.remount();
        let mut before = snapshot(&mut tree);
        let died = tree.while_closed(|volume| {
            dying(volume, n, errno, |fs| {
                let _ = rekey(fs, ROOT_NODE, &mut |_| ControlFlow::Continue(()));
            })
        });
        let mut after = snapshot(&mut tree);
        // A kill may part the names of a symlink; and it may come before a directory's time is put back.
        for seen in before.values_mut().chain(after.values_mut()) {
            if seen.kind == "symlink" {
                seen.links = 0;
            }
            if seen.kind == "directory" {
                seen.mtime = None;
            }
        }
        assert!(after == before, "killed at call {n}");
        assert_eq!(
            run(tree.open_volume()).failures.count,
            1,
            "killed at call {n}"
        );
        assert!(leftovers(&tree.volume).is_empty(), "killed at call {n}");
        if !died {
            assert!(n > 60, "{n} calls");
            return;
        }
        n += 1 + i64::from(n > 10);
    }
}

#[test]
fn killed_at_any_call_it_leaves_every_file_old_or_new_and_whole() {
    survives(Errno::IO);
}

#[test]
fn one_call_that_fails_costs_nobody_a_file_a_target_or_a_write() {
    let mut n = 0;
    loop {
        let mut tree = Direct::new();
        populate(&mut tree);
        tree.remount();
        let before = snapshot(&mut tree);
        let stumbled = tree.while_closed(|volume| {
            stumbling(volume, n, |fs, begin| {
                let node = fs.lookup(ROOT_NODE, OsStr::new("small")).unwrap().node;
                let small = fs.open(caller(), node, WRITE).unwrap().handle;
                let a = fs.lookup(ROOT_NODE, OsStr::new("a")).unwrap().node;
                let node = fs.lookup(a, OsStr::new("large")).unwrap().node;
                let large = fs.open(caller(), node, WRITE).unwrap().handle;
                begin();
                let _ = rekey(fs, ROOT_NODE, &mut |_| ControlFlow::Continue(()));
                for handle in [small, large] {
                    // The call that fails may still be to come.
                    while fs.write(handle, 5, b"late").is_err() {}
                    fs.release(handle);
                }
                let _ = fs.shutdown();
            })
        });
        for path in ["small", "a/large"] {
            assert_eq!(tree.read(path, 5, 4).unwrap(), b"late", "call {n}");
        }
        for (path, seen) in before.iter().filter(|(_, seen)| seen.kind == "symlink") {
            let target = tree.see(path).unwrap().content;
            assert!(target == seen.content, "call {n}: {path:?}");
        }
        if !stumbled {
            assert!(n > 250, "{n} calls");
            return;
        }
        n += 4;
    }
}

#[test]
fn it_is_broken_off_in_the_middle_of_a_large_file() {
    let mut tree = Direct::new();
    tree.create("large", 0o644).unwrap();
    for part in 0..8_u64 {
        tree.write("large", part << 20, &[7; 1 << 20]).unwrap();
    }
    tree.remount();
    let before = ids(&tree.volume).others;
    let mut asked = 0;
    let report = rekey(tree.open_volume(), ROOT_NODE, &mut |at| {
        // Not while it counts, and not at once.
        asked += u32::from(at.total > 0);
        match asked {
            3 => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    })
    .unwrap();
    assert!(report.interrupted && report.rekeyed == 0, "{report:?}");
    assert_eq!(report.failures.count, 0);
    assert_eq!(ids(&tree.volume).others, before);
    assert!(leftovers(&tree.volume).is_empty());
}

#[test]
fn a_full_disk_leaves_every_file_as_it_was_and_is_told() {
    let mut tree = Direct::new();
    populate(&mut tree);
    tree.remount();
    let before = snapshot(&mut tree);
    tree.while_closed(|volume| {
        let old = ids(volume);
        dying(volume, 0, Errno::NOSPC, |fs| {
            let report = rekey(fs, ROOT_NODE, &mut |_| ControlFlow::Continue(())).ok();
            let said = |report: &Report| {
                let mut failures = report.failures.first.iter();
                failures.any(|failure| failure.reason.contains("space left")) && report.rekeyed == 0
            };
            assert!(report.as_ref().is_none_or(said), "{report:?}");
        });
        assert_eq!(ids(volume).others, old.others);
    });
    assert!(snapshot(&mut tree) == before);
}

#[test]
fn writers_lose_nothing_while_files_are_rekeyed_under_them() {
    let volume = TestVolume::new();
    let fs = volume.open();
    let over = AtomicBool::new(false);
    let written: Vec<BTreeMap<u64, u8>> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4_u64)
            .map(|n| {
                let (fs, over) = (&fs, &over);
                scope.spawn(move || {
                    let mut name = format!("file {n}");
                    let (_, opened) = fs
                        .create(caller(), ROOT_NODE, OsStr::new(&name), MODE, WRITE)
                        .unwrap();
                    let mut written = BTreeMap::new();
                    let mut state = n + 0x9E37_79B9;
                    while !over.load(Ordering::Relaxed) {
                        state ^= state << 13;
                        state ^= state >> 7;
                        state ^= state << 17;
                        let (at, byte) = (state % 400_000, (state >> 32) as u8);
                        fs.write(opened.handle, at, &[byte]).unwrap();
                        written.insert(at, byte);
                        if state.is_multiple_of(64) {
                            let to = format!("file {n}.{}", state % 7);
                            fs.rename(
                                ROOT_NODE,
                                OsStr::new(&name),
                                ROOT_NODE,
                                OsStr::new(&to),
                                RenameMode::Replace,
                            )
                            .unwrap();
                            name = to;
                            std::thread::sleep(std::time::Duration::from_millis(2));
                        }
                    }
                    let mut read = [0];
                    for (at, byte) in &written {
                        fs.read(opened.handle, *at, &mut read).unwrap();
                        assert_eq!(read[0], *byte);
                    }
                    fs.release(opened.handle);
                    let to = format!("end {n}");
                    let (from, to) = (OsStr::new(&name), OsStr::new(&to));
                    fs.rename(ROOT_NODE, from, ROOT_NODE, to, RenameMode::Replace)
                        .unwrap();
                    written
                })
            })
            .collect();
        let mut rekeyed = 0;
        let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
        for _ in 0..4 {
            assert!(std::time::Instant::now() < until);
            rekeyed += run(&fs).rekeyed;
        }
        over.store(true, Ordering::Relaxed);
        println!("{rekeyed} rekeyed");
        writers
            .into_iter()
            .map(|writer| writer.join().unwrap())
            .collect()
    });
    assert!(run(&fs).is_complete());
    fs.shutdown().unwrap();
    drop(fs);
    let fs = volume.open();
    for (n, written) in written.iter().enumerate() {
        let name = format!("end {n}");
        let node = fs.lookup(ROOT_NODE, OsStr::new(&name)).unwrap().node;
        let handle = fs.open(caller(), node, WRITE).unwrap().handle;
        let mut read = [0];
        for (at, byte) in written {
            fs.read(handle, *at, &mut read).unwrap();
            assert_eq!(read[0], *byte);
        }
    }
}
