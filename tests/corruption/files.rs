//! Damage to files: headers, slots, blocks, lengths.

use cmkfs::format::envelope;
use cmkfs::format::header::{self, HEADER_LEN};
use cmkfs::format::layout::{self, BLOCK_LEN, PAGE, data_offset, meta_offset, slot_offset};
use cmkfs::format::slot::{self, SLOT_LEN};
use serde_json::{Value, json};

use super::bed::{Bed, LARGE, THREE, content, cut, flip, zero};
use super::{DAMAGED, NOT_VERIFIED};

/// A flipped byte of the header of `three`.
fn header_byte(at: usize, what: &str) {
    let bed = Bed::new();
    flip(&bed.place("three"), at);
    bed.unreadable(what, "three");
}

#[test]
fn a_header_with_another_magic() {
    header_byte(header::MAGIC_AT, "FileHeader");
}

#[test]
fn a_header_of_another_version() {
    header_byte(header::VERSION_AT, "FileHeader");
}

#[test]
fn a_header_of_another_kind() {
    header_byte(header::KIND_AT, "FileHeader");
}

#[test]
fn a_header_with_flags() {
    header_byte(header::FLAGS_AT, "FileHeader");
}

#[test]
fn a_header_with_another_object_id() {
    header_byte(header::OBJECT_ID_AT, "Envelope");
}

#[test]
fn a_header_with_a_changed_wrapped_key() {
    header_byte(header::ENVELOPE_AT + envelope::CIPHERTEXT, "Envelope");
}

#[test]
fn a_header_with_a_changed_key_commitment() {
    header_byte(header::ENVELOPE_AT + envelope::COMMITMENT, "Envelope");
}

#[test]
fn a_header_with_a_changed_nonce() {
    header_byte(header::NONCE_AT, "FileHeader");
}

#[test]
fn a_header_with_a_changed_state() {
    header_byte(header::STATE_AT + header::state::FLAGS_AT, "FileHeader");
}

#[test]
fn a_header_with_a_changed_tag() {
    header_byte(header::TAG_AT, "FileHeader");
}

#[test]
fn a_header_that_names_a_key_nobody_has_is_not_verified_because_the_key_may_come_back() {
    let bed = Bed::new();
    flip(&bed.place("three"), header::ENVELOPE_AT + envelope::KEY_ID);
    let outcome = bed.verify(&[]);
    assert_eq!(outcome.code, NOT_VERIFIED, "{outcome:?}");
    assert_eq!(
        outcome.of("NotVerified"),
        [("Key", bed.relative("three").as_str())]
    );
    bed.refused("three");
}

#[test]
fn a_zeroed_header() {
    let bed = Bed::new();
    zero(&bed.place("three"), 0, HEADER_LEN);
    bed.unreadable("FileHeader", "three");
}

#[test]
fn the_header_of_another_file() {
    let bed = Bed::new();
    let other = std::fs::read(bed.place("other")).unwrap();
    bed.change("three", |bytes| {
        bytes[..HEADER_LEN].copy_from_slice(&other[..HEADER_LEN])
    });
    let finding = bed.unreadable("Block", "three");
    assert_eq!(finding["Blocks"], json!([0, 2]));
}

/// A change of one file, which damages these of its blocks.
fn blocks(path: &str, what: &str, damaged: &[(u64, u64)], change: impl FnOnce(&Bed)) {
    let bed = Bed::new();
    change(&bed);
    let outcome = bed.verify(&[]);
    assert_eq!(outcome.code, DAMAGED, "{outcome:?}");
    let mut found: Vec<(u64, u64)> = Vec::new();
    for finding in outcome.findings() {
        assert_eq!(finding["Status"], "Damaged");
        assert_eq!(finding["What"], what);
        assert_eq!(finding["Path"], path);
        assert_eq!(finding["BackingPath"], bed.relative(path).as_str());
        assert!(finding["ObjectId"].is_string(), "{finding}");
        let at = |n: usize| finding["Blocks"][n].as_u64().unwrap();
        assert_eq!(finding["Bytes"], json!([at(0) * PAGE, (at(1) + 1) * PAGE]));
        found.push((at(0), at(1)));
    }
    found.sort_unstable();
    assert_eq!(found, damaged, "{outcome:?}");
    bed.refused(path);
}

fn slot_byte(at: usize) {
    for block in [0, 1, 57, 116] {
        blocks("large", "Block", &[(block, block)], |bed| {
            flip(&bed.place("large"), slot_offset(block) as usize + at);
        });
    }
}

#[test]
fn a_slot_with_a_changed_nonce() {
    slot_byte(0);
}

#[test]
fn a_slot_with_a_changed_tag() {
    slot_byte(slot::TAG_AT);
}

#[test]
fn a_slot_with_a_changed_length() {
    slot_byte(slot::LENGTH_AT);
}

#[test]
fn a_changed_byte_of_a_block() {
    for block in [0, 55, 56, 116] {
        for at in [0, BLOCK_LEN - 1] {
            blocks("large", "Block", &[(block, block)], |bed| {
                flip(&bed.place("large"), data_offset(block) as usize + at);
            });
        }
    }
    let last = layout::block_count(LARGE as u64) - 1;
    blocks("large", "Block", &[(last, last)], |bed| {
        flip(&bed.place("large"), data_offset(last) as usize + 16);
    });
}

#[test]
fn blocks_side_by_side_are_told_together_and_others_apart() {
    blocks("large", "Block", &[(3, 5), (60, 60)], |bed| {
        for block in [3, 4, 5, 60] {
            flip(&bed.place("large"), data_offset(block) as usize);
        }
    });
}

#[test]
fn two_blocks_of_a_file_that_have_changed_places() {
    let page = BLOCK_LEN..2 * BLOCK_LEN;
    blocks("three", "Block", &[(0, 1)], |bed| {
        bed.change("three", |bytes| {
            let (first, second) = bytes[page.start..].split_at_mut(BLOCK_LEN);
            first.swap_with_slice(&mut second[..BLOCK_LEN]);
        });
    });
    // With their slots.
    blocks("three", "Block", &[(0, 1)], |bed| {
        bed.change("three", |bytes| {
            for (a, b, length) in [
                (data_offset(0), data_offset(1), BLOCK_LEN),
                (slot_offset(0), slot_offset(1), SLOT_LEN),
            ] {
                for at in 0..length {
                    bytes.swap(a as usize + at, b as usize + at);
                }
            }
        });
    });
}

#[test]
fn a_block_of_another_file() {
    blocks("three", "Block", &[(1, 1)], |bed| {
        let other = std::fs::read(bed.place("other")).unwrap();
        bed.change("three", |bytes| {
            for (at, length) in [(data_offset(1), BLOCK_LEN), (slot_offset(1), SLOT_LEN)] {
                let range = at as usize..at as usize + length;
                bytes[range.clone()].copy_from_slice(&other[range]);
            }
        });
    });
}

#[test]
fn a_page_that_was_zeroed() {
    blocks("three", "Block", &[(1, 1)], |bed| {
        zero(&bed.place("three"), data_offset(1), BLOCK_LEN);
    });
}

#[test]
fn a_slot_that_was_zeroed_in_a_file_without_holes() {
    blocks("three", "BlockMissing", &[(1, 1)], |bed| {
        zero(&bed.place("three"), slot_offset(1), SLOT_LEN);
    });
}

#[test]
fn a_meta_page_that_was_zeroed_in_a_file_without_holes() {
    blocks("large", "BlockMissing", &[(56, 111)], |bed| {
        zero(&bed.place("large"), meta_offset(1), PAGE as usize);
    });
}

#[test]
fn a_file_that_was_cut() {
    let whole = layout::backing_length(THREE as u64);
    for length in [
        whole - 1,
        data_offset(2),
        data_offset(1) + 1,
        PAGE,
        slot_offset(1),
    ] {
        let bed = Bed::new();
        cut(&bed.place("three"), length);
        bed.unreadable("Length", "three");
    }
    let bed = Bed::new();
    cut(&bed.place("large"), meta_offset(2));
    bed.unreadable("Length", "large");
    let bed = Bed::new();
    cut(&bed.place("three"), 100);
    bed.unreadable("FileHeader", "three");
}

#[test]
fn a_file_that_was_extended() {
    for path in ["small", "three", "large"] {
        for more in [1, 512, PAGE, layout::GROUP_SPAN] {
            let bed = Bed::new();
            let length = bed.place(path).metadata().unwrap().len();
            cut(&bed.place(path), length + more);
            bed.unreadable("Length", path);
        }
    }
}

#[test]
fn every_byte_of_a_small_file_that_verify_lets_pass_has_no_effect() {
    let bed = Bed::new();
    let path = bed.place("small");
    let (mut passed, mut found) = (0, 0);
    for at in (0..path.metadata().unwrap().len() as usize).step_by(61) {
        flip(&path, at);
        let outcome = bed.verify(&[]);
        if outcome.is_clean() {
            assert_eq!(bed.read("small"), Ok(content(300, 1)), "byte {at}");
            passed += 1;
        } else {
            assert!(
                [DAMAGED, NOT_VERIFIED].contains(&outcome.code),
                "byte {at}: {outcome:?}"
            );
            let small = |finding: &Value| {
                finding["BackingPath"].as_str().is_some_and(|place| {
                    place == bed.relative("small") || place.starts_with(&bed.relative("d"))
                })
            };
            assert!(
                outcome.findings().iter().all(small),
                "byte {at}: {outcome:?}"
            );
            bed.refused("small");
            found += 1;
        }
        flip(&path, at);
    }
    assert!(passed > 5 && found > 5, "{passed} {found}");
    assert!(bed.verify(&[]).is_clean());
}

#[test]
fn a_file_with_several_kinds_of_damage_has_each_of_them_told() {
    let bed = Bed::new();
    flip(&bed.place("large"), data_offset(2) as usize);
    zero(&bed.place("large"), slot_offset(3), SLOT_LEN);
    flip(&bed.place("three"), header::TAG_AT);
    let outcome = bed.verify(&[]);
    assert_eq!(outcome.code, DAMAGED);
    assert_eq!(outcome.report["Damaged"], 3);
    let (large, three) = (bed.relative("large"), bed.relative("three"));
    let mut expected = [
        ("Block", large.as_str()),
        ("BlockMissing", large.as_str()),
        ("FileHeader", three.as_str()),
    ];
    expected.sort_unstable();
    assert_eq!(outcome.of("Damaged"), expected);
}
