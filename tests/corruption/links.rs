//! Damage to symlinks: what they hold, and their side files.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::DAMAGED;
use super::bed::{Bed, cut, flip};

fn replace(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut text = std::fs::read_link(path)
        .unwrap()
        .as_os_str()
        .as_bytes()
        .to_vec();
    change(&mut text);
    std::fs::remove_file(path).unwrap();
    std::os::unix::fs::symlink(OsStr::from_bytes(&text), path).unwrap();
}

/// Another letter of base64url.
fn change(text: &mut [u8], at: usize) {
    text[at] = if text[at] == b'A' { b'Q' } else { b'A' };
}

#[test]
fn a_symlink_whose_target_was_changed_or_cut() {
    let bed = Bed::new();
    let last = std::fs::read_link(bed.place("short"))
        .unwrap()
        .as_os_str()
        .len()
        - 1;
    for (at, what) in [(0, "Symlink"), (190, "Envelope"), (last - 3, "Symlink")] {
        let bed = Bed::new();
        // The object id and the envelope lie in characters 1 to 188; the target and its tag behind.
        let at = if what == "Envelope" { 100 } else { at };
        replace(&bed.place("short"), |text| change(text, at));
        bed.unreadable(what, "short");
    }
    replace(&bed.place("short"), |text| text.truncate(50));
    bed.unreadable("Symlink", "short");
    let bed = Bed::new();
    replace(&bed.place("short"), |text| *text = b"/etc/passwd".to_vec());
    bed.unreadable("Symlink", "short");
}

#[test]
fn a_side_file_that_is_lost() {
    let bed = Bed::new();
    std::fs::remove_file(bed.side_file("long")).unwrap();
    bed.unreadable("SideFile", "long");
}

#[test]
fn all_side_files_lost() {
    let bed = Bed::new();
    std::fs::remove_dir_all(bed.place("").join("cmkfs.links")).unwrap();
    let outcome = bed.verify(&[]);
    assert_eq!(outcome.code, DAMAGED);
    let found: Vec<_> = outcome
        .of("Damaged")
        .iter()
        .map(|(what, _)| *what)
        .collect();
    assert_eq!(found, ["SideFile", "SideFile"], "{outcome:?}");
}

#[test]
fn a_side_file_that_was_changed_or_cut() {
    let bed = Bed::new();
    let side = bed.side_file("long");
    flip(&side, 200);
    bed.unreadable("SideFile", "long");
    flip(&side, 200);
    flip(&side, 30);
    let outcome = bed.verify(&[]);
    assert!(
        [DAMAGED, super::NOT_VERIFIED].contains(&outcome.code),
        "{outcome:?}"
    );
    flip(&side, 30);
    cut(&side, 300);
    bed.unreadable("SideFile", "long");
}

#[test]
fn the_side_file_of_another_symlink() {
    let bed = Bed::new();
    std::fs::copy(bed.side_file("long2"), bed.side_file("long")).unwrap();
    bed.unreadable("SideFile", "long");
}

#[test]
fn a_side_file_stays_where_the_symlink_that_owns_it_cannot_be_told() {
    let bed = Bed::new();
    let side = bed.side_file("long");
    // It names another object now: its side file is no one's, as far as one can see.
    replace(&bed.place("long"), |text| change(text, 3));
    let finding = bed.damaged("SideFile", Some("long"));
    assert_eq!(finding["BackingPath"], bed.relative("long").as_str());
    let outcome = bed.verify(&["--repair"]);
    assert_eq!(outcome.code, DAMAGED);
    assert!(side.exists(), "{outcome:?}");
}
