//! What the documents say is so: docs/FORMAT.md has a row for every offset constant of `format`, and every test that a
//! document names is there.

use cmkfs::format::{
    ciphertext, envelope, header, journal, layout, names, slot, symlink, volume, xattr,
};

const DOCUMENT: &str = include_str!("../docs/FORMAT.md");

macro_rules! rows {
    ($($constant:path),+ $(,)?) => {
        [$((stringify!($constant).replace(' ', ""), $constant as u64)),+]
    };
}

/// Whether a table row begins with `offset` and ends with the constant's name.
fn has_row(document: &str, constant: &str, offset: u64) -> bool {
    let ending = format!("| `{constant}` |");
    let beginning = format!("| {offset} |");
    let with_variable = format!("| {offset} + n |");
    document.lines().any(|line| {
        line.ends_with(&ending)
            && (line.starts_with(&beginning) || line.starts_with(&with_variable))
    })
}

#[test]
fn every_offset_in_the_document_is_the_one_in_the_code() {
    let rows = rows![
        envelope::KEY_ID,
        envelope::MATERIAL_ID,
        envelope::NONCE,
        envelope::CIPHERTEXT,
        envelope::TAG,
        envelope::COMMITMENT,
        envelope::ENVELOPE_LEN,
        ciphertext::KEY_ID,
        ciphertext::MATERIAL_ID,
        ciphertext::NONCE,
        ciphertext::CIPHERTEXT,
        volume::MAGIC_AT,
        volume::VERSION_AT,
        volume::CIPHER_AT,
        volume::FEATURES_AT,
        volume::BLOCK_SIZE_AT,
        volume::VOLUME_ID_AT,
        volume::KEY_STORE_ID_AT,
        volume::ENVELOPE_AT,
        volume::NONCE_AT,
        volume::VOLUME_LEN,
        header::MAGIC_AT,
        header::VERSION_AT,
        header::KIND_AT,
        header::FLAGS_AT,
        header::OBJECT_ID_AT,
        header::ENVELOPE_AT,
        header::NONCE_AT,
        header::STATE_AT,
        header::TAG_AT,
        header::HEADER_LEN,
        header::state::SIZE_AT,
        header::state::EPOCH_AT,
        header::state::FLAGS_AT,
        header::state::BINDING_KIND_AT,
        header::state::BINDING_LEN_AT,
        header::state::BINDING_AT,
        journal::MAGIC_AT,
        journal::EPOCH_AT,
        journal::FIRST_AT,
        journal::COUNT_AT,
        journal::ENTRIES_AT,
        layout::HEADER_AREA,
        slot::CURRENT_AT,
        slot::PREVIOUS_AT,
        slot::SLOT_LEN,
        slot::TAG_AT,
        slot::LENGTH_AT,
        slot::ENTRY_LEN,
        symlink::OBJECT_ID_AT,
        symlink::ENVELOPE_AT,
        symlink::NONCE_AT,
        symlink::CIPHERTEXT_AT,
        symlink::RECORD_OVERHEAD,
        symlink::SIDE_LEN,
    ];
    for (constant, offset) in &rows {
        assert!(
            has_row(DOCUMENT, constant, *offset),
            "{constant} = {offset} has no row in docs/FORMAT.md"
        );
    }
    // And no row names a constant that is not checked here.
    let documented = DOCUMENT
        .lines()
        .filter(|line| line.ends_with("_AT` |") || line.ends_with("_LEN` |"))
        .count();
    let checked = rows
        .iter()
        .filter(|(name, _)| name.ends_with("_AT") || name.ends_with("_LEN"))
        .count();
    // `symlink::OBJECT_ID_AT` and `symlink::ENVELOPE_AT` serve record and marker.
    assert_eq!(documented, checked + 2);
}

#[test]
fn the_figures_in_the_text_are_those_of_the_code() {
    for (text, value) in [
        ("g · 233,472", (layout::GROUP_SPAN, 233_472)),
        ("s / 229,376", (layout::GROUP_BYTES, 229_376)),
        ("in groups of 57", (layout::GROUP_BLOCKS + 1, 57)),
        (
            "40 bytes, `envelope::CONTEXT_LEN`",
            (envelope::CONTEXT_LEN as u64, 40),
        ),
        ("29 bytes (`xattr::OVERHEAD`)", (xattr::OVERHEAD as u64, 29)),
        (
            "`names::INLINE_NAME_MAX`, 175",
            (names::INLINE_NAME_MAX as u64, 175),
        ),
        (
            "1 to 4095, `symlink::TARGET_MAX`",
            (symlink::TARGET_MAX as u64, 4095),
        ),
        ("at most 262", (header::ALIAS_MAX as u64, 262)),
    ] {
        assert!(DOCUMENT.contains(text), "{text}");
        assert_eq!(value.0, value.1, "{text}");
    }
}

#[test]
fn a_wrong_offset_would_be_noticed() {
    assert!(!has_row(DOCUMENT, "header::STATE_AT", 165));
    assert!(!has_row(DOCUMENT, "header::NO_SUCH_AT", 164));
}

/// Whether a test of this name is in one of these sources.
fn has_test(sources: &[String], name: &str) -> bool {
    let definition = format!("fn {name}(");
    sources.iter().any(|source| source.contains(&definition))
}

#[test]
fn every_test_that_a_document_names_is_there() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = Vec::new();
    let mut folders = vec![root.join("src"), root.join("tests")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                sources.push(std::fs::read_to_string(path).unwrap());
            }
        }
    }
    let mut named = 0;
    for document in ["SEMANTICS.md", "THREAT_MODEL.md"] {
        let text = std::fs::read_to_string(root.join("docs").join(document)).unwrap();
        // Code spans: every second part.
        for span in text.split('`').skip(1).step_by(2) {
            let name = span.rsplit("::").next().unwrap_or_default();
            let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            if name.matches('_').count() >= 3 && name.chars().all(is_name) {
                assert!(has_test(&sources, name), "{document} names {name}");
                named += 1;
            }
        }
    }
    assert!(named > 20, "{named} tests are named");
    assert!(!has_test(
        &sources,
        "a_test_that_is_not_there_at_all_really"
    ));
}
