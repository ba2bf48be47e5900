//! What is sound is called sound, and what cannot be verified is not called damaged.

use cmkfs::kms::key::KeyRef;

use super::bed::{Bed, LENGTHS, flip};
use super::{DAMAGED, IN_USE, NOT_VERIFIED};

#[test]
fn a_volume_with_one_of_everything_is_sound_and_counted() {
    let bed = Bed::new();
    let outcome = bed.verify(&[]);
    assert!(outcome.is_clean(), "{outcome:?}");
    let totals = &outcome.report["Totals"];
    // Those that `Bed::new` makes; the second name of `small` is a name and no file.
    let files = 6 + 2 + 2 + LENGTHS.len() + 1;
    assert_eq!(totals["Files"], files);
    assert_eq!(totals["Directories"], 6);
    assert_eq!(totals["Symlinks"], 3);
    assert_eq!(totals["Specials"], 1);
    assert_eq!(totals["Names"], files + 1 + 5 + 3 + 1);
    assert_eq!(totals["Attributes"], 3);
    assert_eq!(totals["UnsealedFiles"], 0);
    assert!(totals["Bytes"].as_u64().unwrap() > 1 << 40);
}

#[test]
fn what_is_under_a_disabled_key_is_not_verified_and_everything_else_is() {
    let bed = Bed::new();
    bed.volume
        .keys
        .disable_key(&KeyRef::Id(bed.second))
        .unwrap();
    let outcome = bed.verify(&[]);
    assert_eq!(outcome.code, NOT_VERIFIED, "{outcome:?}");
    assert_eq!(outcome.report["Sound"], true);
    assert_eq!(outcome.report["Complete"], false);
    let (directory, file) = (bed.relative("bound"), bed.relative("bound/secret"));
    assert_eq!(
        outcome.of("NotVerified"),
        [("Key", directory.as_str()), ("Key", file.as_str())]
    );
    for finding in outcome.findings() {
        assert_eq!(finding["KeyId"], bed.second.to_string().as_str());
    }
    // Damage elsewhere weighs more.
    flip(&bed.place("small"), 4096 + 10);
    assert_eq!(bed.verify(&[]).code, DAMAGED);
    flip(&bed.place("small"), 4096 + 10);
    bed.volume.keys.enable_key(&KeyRef::Id(bed.second)).unwrap();
    assert!(bed.verify(&[]).is_clean());
}

#[test]
fn a_volume_that_cannot_be_opened_for_its_key_is_not_verified() {
    let bed = Bed::new();
    let default = super::support::DEFAULT_ALIAS.parse().unwrap();
    bed.volume.keys.disable_key(&default).unwrap();
    let outcome = bed.verify(&[]);
    assert_eq!(outcome.code, NOT_VERIFIED, "{outcome:?}");
    assert_eq!(outcome.of("NotVerified"), [("Key", "cmkfs.volume")]);
}

#[test]
fn a_volume_that_another_process_has_open_is_neither_verified_nor_repaired_behind_its_back() {
    let bed = Bed::new();
    let open = bed.volume.open();
    assert_eq!(bed.verify(&[]).code, IN_USE);
    assert_eq!(bed.verify(&["--repair"]).code, IN_USE);
    drop(open);
    let reader = cmkfs::volume::open(
        &bed.volume.cipher(),
        &bed.volume.keys,
        cmkfs::volume::Access::ReadOnly,
    );
    // Readers do not exclude one another.
    assert!(bed.verify(&[]).is_clean());
    assert_eq!(bed.verify(&["--repair"]).code, IN_USE);
    drop(reader);
    assert!(bed.verify(&["--repair"]).is_clean());
}

#[test]
fn what_is_not_of_cmkfs_s_making_is_told_and_left_alone() {
    let bed = Bed::new();
    std::fs::write(bed.place("d").join("notes.txt"), "mine").unwrap();
    std::fs::create_dir(bed.place("").join("lost+found")).unwrap();
    let outcome = bed.verify(&["--repair"]);
    assert_eq!(outcome.code, super::SOUND, "{outcome:?}");
    let notes = format!("{}/notes.txt", bed.relative("d"));
    let mut expected = [
        ("ForeignName", notes.as_str()),
        ("ForeignName", "lost+found"),
    ];
    expected.sort_unstable();
    assert_eq!(outcome.of("Foreign"), expected);
    assert_eq!(
        std::fs::read(bed.place("d").join("notes.txt")).unwrap(),
        b"mine"
    );
}
