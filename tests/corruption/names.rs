//! Damage to names, inline and long, and to extended attributes.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::DAMAGED;
use super::bed::{Bed, cut, flip};

fn long(bed: &Bed, length: usize) -> (String, PathBuf) {
    let name = format!("names/{}", "n".repeat(length));
    let mut kept = bed.place(&name).into_os_string();
    kept.push(".name");
    (name, kept.into())
}

#[test]
fn a_name_of_which_a_letter_was_changed() {
    let bed = Bed::new();
    let there = bed.place("d/inner");
    let mut name = there.file_name().unwrap().as_bytes().to_vec();
    name[5] = if name[5] == b'A' { b'B' } else { b'A' };
    std::fs::rename(&there, there.with_file_name(OsStr::from_bytes(&name))).unwrap();
    let finding = bed.damaged("Name", None);
    assert!(
        finding["BackingPath"]
            .as_str()
            .unwrap()
            .starts_with(&bed.relative("d"))
    );
    assert_eq!(bed.read("d/inner"), Err(Errno::NOENT));
}

#[test]
fn a_name_that_is_no_encrypted_one() {
    let bed = Bed::new();
    let there = bed.place("d/inner");
    std::fs::rename(&there, there.with_file_name("plain~name")).unwrap();
    bed.damaged("Name", None);
}

#[test]
fn a_name_of_another_directory() {
    let bed = Bed::new();
    let there = bed.place("d/inner");
    std::fs::rename(&there, bed.place("e").join(there.file_name().unwrap())).unwrap();
    bed.damaged("Name", None);
    assert_eq!(bed.read("e/inner"), Err(Errno::NOENT));
}

#[test]
fn a_long_name_that_is_lost() {
    let bed = Bed::new();
    let (name, kept) = long(&bed, 200);
    std::fs::remove_file(&kept).unwrap();
    let finding = bed.damaged("LongNameMissing", None);
    assert_eq!(finding["BackingPath"], bed.relative(&name).as_str());
    // It is not healed: nobody knows the name.
    let outcome = bed.verify(&["--repair"]);
    assert_eq!(outcome.code, DAMAGED);
    assert!(bed.place(&name).exists());
}

#[test]
fn a_long_name_that_was_changed_or_cut() {
    let bed = Bed::new();
    let (name, kept) = long(&bed, 255);
    for at in [0, 100, 270] {
        flip(&kept, at);
        let finding = bed.damaged("Name", None);
        assert_eq!(finding["BackingPath"], bed.relative(&name).as_str());
        flip(&kept, at);
    }
    assert!(bed.verify(&[]).is_clean());
    cut(&kept, 100);
    bed.damaged("Name", None);
}

#[test]
fn two_long_names_that_have_changed_places() {
    let bed = Bed::new();
    let ((_, one), (_, other)) = (long(&bed, 200), long(&bed, 255));
    let (first, second) = (std::fs::read(&one).unwrap(), std::fs::read(&other).unwrap());
    std::fs::write(&one, second).unwrap();
    std::fs::write(&other, first).unwrap();
    let outcome = bed.verify(&[]);
    assert_eq!(outcome.code, DAMAGED);
    let found: Vec<_> = outcome
        .of("Damaged")
        .iter()
        .map(|(what, _)| *what)
        .collect();
    assert_eq!(found, ["Name", "Name"], "{outcome:?}");
}

#[test]
fn a_short_name_that_is_kept_as_a_long_one() {
    let bed = Bed::new();
    let there = bed.place("d/inner");
    let text = there.file_name().unwrap().as_bytes();
    let encrypted = cmkfs::format::names::from_text(text).unwrap();
    let digest = cmkfs::crypto::name::digest(&encrypted);
    let object = format!("cmkfs.long.{}", cmkfs::format::names::to_text(&digest));
    std::fs::write(there.with_file_name(format!("{object}.name")), encrypted).unwrap();
    std::fs::rename(&there, there.with_file_name(object)).unwrap();
    let outcome = bed.verify(&[]);
    assert_eq!(outcome.code, DAMAGED);
    assert_eq!(outcome.of("Damaged")[0].0, "Name", "{outcome:?}");
}

/// The stored name and value of the only encrypted attribute.
fn attribute(path: &Path) -> (String, Vec<u8>) {
    let mut names = vec![0; 4096];
    let length = rustix::fs::listxattr(path, &mut names).unwrap();
    let names = String::from_utf8(names[..length].to_vec()).unwrap();
    let name = names
        .split_terminator('\0')
        .find(|name| name.starts_with("user.cmkfs."));
    let name = name.unwrap().to_owned();
    let mut value = vec![0; 4096];
    let length = rustix::fs::getxattr(path, name.as_str(), &mut value).unwrap();
    value.truncate(length);
    (name, value)
}

fn set(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::setxattr(path, name, value, rustix::fs::XattrFlags::empty()).unwrap();
}

#[test]
fn an_attribute_that_was_changed_or_cut() {
    for path in ["twin", "d"] {
        let bed = Bed::new();
        let place = bed.place(path);
        let (name, value) = attribute(&place);
        let mut changed = value.clone();
        changed[20] ^= 1;
        set(&place, &name, &changed);
        let finding = bed.damaged("Attribute", Some(path));
        assert!(finding["Reason"].as_str().unwrap().contains(&name));
        set(&place, &name, &value[..10]);
        bed.damaged("Attribute", Some(path));
        set(&place, &name, &value);
        assert!(bed.verify(&[]).is_clean());
    }
}

#[test]
fn an_attribute_of_another_file() {
    let bed = Bed::new();
    let (name, value) = attribute(&bed.place("twin"));
    set(&bed.place("three"), &name, &value);
    bed.damaged("Attribute", Some("three"));
}

#[test]
fn an_attribute_on_a_file_without_a_key() {
    let bed = Bed::new();
    let (name, value) = attribute(&bed.place("twin"));
    set(&bed.place("empty"), &name, &value);
    bed.damaged("Attribute", Some("empty"));
}
