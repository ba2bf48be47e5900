//! Damage to directories' headers, the root's among them, and to the volume file.

use cmkfs::format::envelope;
use cmkfs::format::header;
use cmkfs::format::volume::{NONCE_AT, VERSION_AT, VOLUME_ID_AT};
use rustix::io::Errno;

use super::DAMAGED;
use super::bed::{Bed, cut, flip};

/// A change of the header of `d`.
fn header(what: &str, change: impl FnOnce(&std::path::Path)) {
    let bed = Bed::new();
    change(&bed.place("d").join("cmkfs.dir"));
    let finding = bed.damaged(what, Some("d"));
    assert_eq!(finding["Kind"], "Directory");
    assert!(bed.read("d/inner").is_err());
}

#[test]
fn a_directory_with_a_changed_header() {
    for (at, what) in [
        (header::MAGIC_AT, "DirectoryHeader"),
        (header::VERSION_AT, "DirectoryHeader"),
        (header::OBJECT_ID_AT, "Envelope"),
        (header::ENVELOPE_AT + envelope::TAG, "Envelope"),
        (
            header::STATE_AT + header::state::BINDING_AT,
            "DirectoryHeader",
        ),
        (header::TAG_AT, "DirectoryHeader"),
    ] {
        header(what, |path| flip(path, at));
    }
}

#[test]
fn a_directory_with_a_header_that_was_cut_or_extended() {
    header("DirectoryHeader", |path| cut(path, 511));
    header("DirectoryHeader", |path| cut(path, 513));
}

#[test]
fn a_directory_that_has_lost_its_header_and_holds_something() {
    header("DirectoryHeaderMissing", |path| {
        std::fs::remove_file(path).unwrap()
    });
    header("DirectoryHeaderMissing", |path| cut(path, 0));
}

#[test]
fn a_directory_with_something_else_in_the_place_of_its_header() {
    header("DirectoryHeader", |path| {
        std::fs::remove_file(path).unwrap();
        std::fs::create_dir(path).unwrap();
    });
    header("DirectoryHeader", |path| {
        std::fs::remove_file(path).unwrap();
        std::os::unix::fs::symlink("/dev/zero", path).unwrap();
    });
}

#[test]
fn two_directories_that_have_changed_headers() {
    let bed = Bed::new();
    let (one, other) = (
        bed.place("d").join("cmkfs.dir"),
        bed.place("d2").join("cmkfs.dir"),
    );
    let aside = bed.volume.dir.path().join("aside");
    std::fs::rename(&one, &aside).unwrap();
    std::fs::rename(&other, &one).unwrap();
    std::fs::rename(&aside, &other).unwrap();
    let outcome = bed.verify(&[]);
    assert_eq!(outcome.code, DAMAGED, "{outcome:?}");
    // Both headers are authentic: it is the names that belong to the other, and an attribute.
    let (inner, inner2) = (bed.relative("d/inner"), bed.relative("d2/inner"));
    let damaged = outcome.of("Damaged");
    assert!(damaged.contains(&("Name", inner.as_str())), "{outcome:?}");
    assert!(damaged.contains(&("Name", inner2.as_str())), "{outcome:?}");
    assert!(
        damaged.contains(&("Attribute", bed.relative("d").as_str())),
        "{outcome:?}"
    );
    assert_eq!(damaged.len(), 4, "{outcome:?}");
    assert_eq!(bed.read("d/inner"), Err(Errno::NOENT));
}

#[test]
fn the_root_with_a_changed_or_lost_header() {
    let bed = Bed::new();
    let path = bed.place("").join("cmkfs.dir");
    flip(&path, header::TAG_AT);
    bed.damaged("DirectoryHeader", Some("."));
    flip(&path, header::TAG_AT);
    flip(&path, header::OBJECT_ID_AT);
    bed.damaged("Envelope", Some("."));
    flip(&path, header::OBJECT_ID_AT);
    std::fs::remove_file(&path).unwrap();
    bed.damaged("DirectoryHeaderMissing", Some("."));
    assert_eq!(bed.verify(&["--repair"]).code, DAMAGED);
    assert_eq!(bed.read("small"), Err(Errno::BADMSG));
}

#[test]
fn a_volume_file_that_was_changed_cut_or_extended() {
    let bed = Bed::new();
    let path = bed.place("").join("cmkfs.volume");
    let whole = std::fs::read(&path).unwrap();
    for at in [
        0,
        VERSION_AT,
        VOLUME_ID_AT,
        52 + envelope::CIPHERTEXT,
        NONCE_AT,
        203,
    ] {
        flip(&path, at);
        let finding = bed.damaged("VolumeFile", None);
        assert_eq!(finding["BackingPath"], "cmkfs.volume", "byte {at}");
        flip(&path, at);
    }
    for length in [0, 203, 205] {
        cut(&path, length);
        bed.damaged("VolumeFile", None);
        std::fs::write(&path, &whole).unwrap();
    }
    assert!(bed.verify(&[]).is_clean());
}
