//! What a repair heals. Without `--repair` it is listed and nothing changes; healed, a second verification finds nothing,
//! and all that users have made is there.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use cmkfs::fs::{OpenFlags, ROOT_NODE};

use super::bed::{Bed, content, flip};
use super::support::{MODE, WRITE, caller};
use super::{DAMAGED, NOT_VERIFIED, SOUND};

/// Everything in the backing directory, with its content.
fn everything(bed: &Bed) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut pending = vec![bed.volume.cipher()];
    while let Some(directory) = pending.pop() {
        for entry in std::fs::read_dir(directory).unwrap().map(Result::unwrap) {
            let (path, metadata) = (entry.path(), entry.metadata().unwrap());
            let data = if metadata.is_dir() {
                pending.push(path.clone());
                Vec::new()
            } else if metadata.is_symlink() {
                std::fs::read_link(&path)
                    .unwrap()
                    .into_os_string()
                    .into_encoded_bytes()
            } else if metadata.is_file() && metadata.len() < 10_000_000 {
                std::fs::read(&path).unwrap()
            } else {
                Vec::new()
            };
            found.insert(path, (metadata.mode(), data));
        }
    }
    found
}

/// `make` leaves what is to be found as `what` at `path` and healed; afterwards everything is as before, but for what
/// `differs` says.
fn heals(what: &str, make: impl FnOnce(&Bed) -> PathBuf, differs: impl Fn(&Path) -> bool) {
    let bed = Bed::new();
    let before = everything(&bed);
    let path = make(&bed);
    let path = path
        .strip_prefix(bed.volume.cipher())
        .unwrap()
        .to_str()
        .unwrap();
    let left = everything(&bed);
    let listed = bed.verify(&[]);
    assert_eq!(listed.code, SOUND, "{listed:?}");
    assert_eq!(listed.of("Repairable"), [(what, path)], "{listed:?}");
    assert!(everything(&bed) == left, "looking changes nothing");
    let healed = bed.verify(&["--repair"]);
    assert_eq!(healed.code, SOUND, "{healed:?}");
    assert_eq!(healed.of("Repaired"), [(what, path)], "{healed:?}");
    let again = bed.verify(&[]);
    assert!(again.is_clean(), "{again:?}");
    let same = |all: BTreeMap<PathBuf, (u32, Vec<u8>)>| -> BTreeMap<_, _> {
        all.into_iter().filter(|(path, _)| !differs(path)).collect()
    };
    assert!(same(everything(&bed)) == same(before), "all is as it was");
    assert_eq!(bed.read("small"), Ok(content(300, 1)));
    assert_eq!(bed.read("d/inner"), Ok(content(100, 7)));
}

fn never(_: &Path) -> bool {
    false
}

#[test]
fn an_empty_directory_that_has_lost_its_header_gets_a_new_one() {
    for lose in [
        |header: &Path| std::fs::remove_file(header).unwrap(),
        |header: &Path| std::fs::write(header, "").unwrap(),
    ] {
        let header = std::cell::RefCell::new(PathBuf::new());
        heals(
            "DirectoryHeaderMissing",
            |bed| {
                *header.borrow_mut() = bed.place("e").join("cmkfs.dir");
                lose(&header.borrow());
                bed.place("e")
            },
            |path| *path == *header.borrow(),
        );
    }
}

#[test]
fn the_kept_name_of_an_object_that_is_not_there_goes() {
    heals(
        "OrphanedName",
        |bed| {
            let path = bed
                .place("names")
                .join(format!("cmkfs.long.{}.name", "A".repeat(43)));
            std::fs::write(&path, [7; 200]).unwrap();
            path
        },
        never,
    );
}

#[test]
fn what_an_interrupted_mkdir_left_goes() {
    heals(
        "Leftover",
        |bed| {
            let path = bed.place("d").join("cmkfs.tmp.abc");
            std::fs::create_dir(&path).unwrap();
            std::fs::copy(bed.place("e").join("cmkfs.dir"), path.join("cmkfs.dir")).unwrap();
            path
        },
        never,
    );
}

#[test]
fn what_an_interrupted_rmdir_left_goes_with_what_was_half_made_in_it() {
    heals(
        "Leftover",
        |bed| {
            let path = bed.place("").join("cmkfs.tmp.abc");
            std::fs::create_dir_all(path.join("cmkfs.tmp.def")).unwrap();
            std::fs::write(path.join("cmkfs.tmp.file"), "half").unwrap();
            path
        },
        never,
    );
}

#[test]
fn what_an_interrupted_rename_over_a_file_or_symlink_left_goes() {
    heals(
        "Leftover",
        |bed| {
            let path = bed.place("d2").join("cmkfs.tmp.copy");
            std::fs::copy(bed.place("three"), &path).unwrap();
            path
        },
        never,
    );
    heals(
        "Leftover",
        |bed| {
            let path = bed.place("d2").join("cmkfs.tmp.link");
            std::os::unix::fs::symlink("half", &path).unwrap();
            path
        },
        never,
    );
}

#[test]
fn the_side_file_of_a_symlink_that_is_not_there_goes() {
    heals(
        "OrphanedSideFile",
        |bed| {
            let side = bed.side_file("long");
            let path = side.with_file_name("00000000-0000-4000-8000-000000000001");
            std::fs::copy(side, &path).unwrap();
            path
        },
        never,
    );
    heals(
        "Leftover",
        |bed| {
            let path = bed.side_file("long").with_file_name("cmkfs.tmp.half");
            std::fs::write(&path, "half").unwrap();
            path
        },
        never,
    );
}

#[test]
fn a_journal_that_no_file_needs_goes() {
    heals(
        "OrphanedJournal",
        |bed| {
            let journals = bed.place("").join("cmkfs.journal");
            std::fs::create_dir_all(&journals).unwrap();
            let path = journals.join("00000000-0000-4000-8000-000000000001");
            std::fs::write(&path, "records").unwrap();
            path
        },
        |path| path.ends_with("cmkfs.journal"),
    );
}

#[test]
fn a_header_that_an_interrupted_binding_left_goes() {
    heals(
        "UnfinishedBinding",
        |bed| {
            let path = bed.place("d").join("cmkfs.tmp.cmkfs.dir");
            std::fs::copy(bed.place("e").join("cmkfs.dir"), &path).unwrap();
            path
        },
        never,
    );
}

#[test]
fn what_lies_aside_and_holds_something_is_left_alone_and_told() {
    let bed = Bed::new();
    let aside = bed.place("").join("cmkfs.tmp.abc");
    std::fs::rename(bed.place("d"), &aside).unwrap();
    let before = everything(&bed);
    for options in [&[][..], &["--repair"]] {
        let outcome = bed.verify(options);
        assert_eq!(outcome.code, NOT_VERIFIED, "{outcome:?}");
        assert_eq!(
            outcome.of("NotRepaired"),
            [("Leftover", "cmkfs.tmp.abc")],
            "{outcome:?}"
        );
        assert!(everything(&bed) == before);
    }
    std::fs::rename(&aside, bed.place("d")).unwrap();
    assert!(bed.verify(&[]).is_clean());
}

/// Leaves `name` as a mount that was killed does, in the middle of writing it.
fn leave_unsealed(bed: &Bed, name: &str, data: &[u8]) {
    let fs = bed.volume.open();
    let name = OsStr::new(name);
    let handle = match fs.lookup(ROOT_NODE, name) {
        Ok(found) => {
            let flags = OpenFlags {
                write: true,
                truncate: false,
            };
            fs.open(caller(), found.node, flags).unwrap().handle
        }
        Err(_) => {
            fs.create(caller(), ROOT_NODE, name, MODE, WRITE)
                .unwrap()
                .1
                .handle
        }
    };
    fs.write(handle, 0, data).unwrap();
    // Gone without a word.
    drop(fs);
}

#[test]
fn files_of_a_mount_that_was_killed_are_told_as_not_sealed_and_sealed() {
    let bed = Bed::new();
    leave_unsealed(&bed, "three", &[9; 5000]);
    leave_unsealed(&bed, "new", &[8; 70_000]);
    let mut expected = content(super::bed::THREE, 3);
    expected[..5000].fill(9);
    let listed = bed.verify(&[]);
    assert_eq!(listed.code, SOUND, "{listed:?}");
    assert_eq!(listed.report["NotSealed"], 2);
    assert_eq!(listed.report["Totals"]["UnsealedFiles"], 2);
    let healed = bed.verify(&["--repair"]);
    assert_eq!(healed.code, SOUND, "{healed:?}");
    assert_eq!(healed.of("Repaired").len(), 2, "{healed:?}");
    assert!(
        healed
            .of("Repaired")
            .iter()
            .all(|(what, _)| *what == "Unsealed")
    );
    let again = bed.verify(&[]);
    assert!(again.is_clean(), "{again:?}");
    assert_eq!(bed.read("three"), Ok(expected));
    assert_eq!(bed.read("new"), Ok(vec![8; 70_000]));
}

#[test]
fn many_unsealed_files_are_sealed() {
    let bed = Bed::new();
    let fs = bed.volume.open();
    for number in 0..600 {
        let name = format!("file {number}");
        let made = fs.create(caller(), ROOT_NODE, OsStr::new(&name), MODE, WRITE);
        let handle = made.unwrap().1.handle;
        fs.write(handle, 0, name.as_bytes()).unwrap();
    }
    drop(fs);
    assert_eq!(bed.verify(&[]).report["NotSealed"], 600);
    let healed = bed.verify(&["--repair"]);
    assert_eq!(healed.of("Repaired").len(), 600);
    assert!(bed.verify(&[]).is_clean());
    assert_eq!(bed.read("file 599"), Ok(b"file 599".to_vec()));
}

#[test]
fn a_damaged_file_is_not_sealed_and_nothing_else_of_it_is_lost() {
    let bed = Bed::new();
    leave_unsealed(&bed, "new", &[8; 70_000]);
    let fs = bed.volume.open();
    let node = fs.lookup(ROOT_NODE, OsStr::new("new")).unwrap().node;
    let place = bed.volume.cipher().join(fs.backing_path(node));
    drop(fs);
    flip(&place, cmkfs::format::layout::data_offset(3) as usize);
    for options in [&[][..], &["--repair"]] {
        let outcome = bed.verify(options);
        assert_eq!(outcome.code, DAMAGED, "{outcome:?}");
        assert_eq!(outcome.of("Damaged").len(), 1, "{outcome:?}");
    }
    flip(&place, cmkfs::format::layout::data_offset(3) as usize);
    assert_eq!(bed.verify(&["--repair"]).code, SOUND);
    assert!(bed.verify(&[]).is_clean());
    assert_eq!(bed.read("new"), Ok(vec![8; 70_000]));
}

#[test]
fn all_of_it_at_once() {
    let bed = Bed::new();
    leave_unsealed(&bed, "three", &[9; 100]);
    std::fs::remove_file(bed.place("e").join("cmkfs.dir")).unwrap();
    std::fs::write(bed.place("d").join("cmkfs.tmp.x"), "half").unwrap();
    let kept = bed
        .place("d2")
        .join(format!("cmkfs.long.{}.name", "B".repeat(43)));
    std::fs::write(kept, "a name").unwrap();
    let healed = bed.verify(&["--repair"]);
    assert_eq!(healed.code, SOUND, "{healed:?}");
    assert_eq!(healed.report["Repaired"], 4, "{healed:?}");
    assert!(bed.verify(&["--repair"]).is_clean());
}
