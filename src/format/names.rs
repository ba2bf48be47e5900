//! Names in the backing directory: the reserved ones, which contain a dot, and encrypted ones, which never do.
//! docs/FORMAT.md, "Names". `crypto::name` encrypts.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Longest plaintext name in bytes.
pub const NAME_MAX: usize = 255;
/// Longest name of the backing filesystem in bytes.
pub const BACKING_NAME_MAX: usize = 255;
/// Longest plaintext name whose encrypted form, padded or not, fits a backing name: (175 + 16) · 4/3 ≤ 255.
pub const INLINE_NAME_MAX: usize = 175;
/// Names are padded with zeros to a multiple of this where that fits.
pub const NAME_PADDING: usize = 16;

/// The volume file, at the root only.
pub const VOLUME_FILE: &str = "cmkfs.volume";
/// The header of a directory.
pub const DIRECTORY_FILE: &str = "cmkfs.dir";
/// Where the targets of long symlinks lie, at the root only.
pub const LINKS_DIRECTORY: &str = "cmkfs.links";
/// Where the redo journals of files lie, at the root only.
pub const JOURNAL_DIRECTORY: &str = "cmkfs.journal";
/// What is being made or removed: this prefix and random letters.
pub const TEMPORARY_PREFIX: &str = "cmkfs.tmp.";
/// An object whose encrypted name does not fit: this prefix and a hash of the encrypted name.
pub const LONG_PREFIX: &str = "cmkfs.long.";
/// Behind the name of such an object: the file that holds its encrypted name.
pub const LONG_NAME_SUFFIX: &str = ".name";

/// What a name in the backing directory stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackingName<'a> {
    /// An object under its encrypted name, still base64url.
    Inline(&'a [u8]),
    /// An object whose encrypted name is kept beside it.
    Long,
    /// What is being made or removed, or was when the process died.
    Temporary,
    /// cmkfs's own, no object.
    Reserved,
    /// Not of cmkfs's making.
    Foreign,
}

impl<'a> BackingName<'a> {
    /// Tells what a backing name stands for.
    #[must_use]
    pub fn classify(name: &'a [u8]) -> Self {
        if !name.contains(&b'.') {
            Self::Inline(name)
        } else if name.starts_with(TEMPORARY_PREFIX.as_bytes()) {
            Self::Temporary
        } else if name.starts_with(LONG_PREFIX.as_bytes()) {
            if name.ends_with(LONG_NAME_SUFFIX.as_bytes()) {
                Self::Reserved
            } else {
                Self::Long
            }
        } else if [
            VOLUME_FILE,
            DIRECTORY_FILE,
            LINKS_DIRECTORY,
            JOURNAL_DIRECTORY,
        ]
        .iter()
        .any(|own| own.as_bytes() == name)
        {
            Self::Reserved
        } else {
            Self::Foreign
        }
    }
}

/// Base64url without padding: how encrypted bytes become part of a name.
#[must_use]
pub fn to_text(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The bytes behind base64url without padding; `None` for anything that [`to_text`] does not produce.
#[must_use]
pub fn from_text(text: &[u8]) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

/// Decoded bytes of base64url text of this many characters.
#[must_use]
pub const fn decoded_length(text: usize) -> usize {
    text / 4 * 3 + text % 4 * 3 / 4
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn text_round_trips_and_has_no_dot(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let text = to_text(&bytes);
            prop_assert_eq!(BackingName::classify(text.as_bytes()), BackingName::Inline(text.as_bytes()));
            prop_assert_eq!(decoded_length(text.len()), bytes.len());
            prop_assert_eq!(from_text(text.as_bytes()).unwrap(), bytes);
        }
    }

    #[test]
    fn text_has_one_spelling() {
        assert_eq!(from_text(b"AA"), Some(vec![0]));
        for other in [&b"AB"[..], b"AA==", b"A", b"A+A/", b"AA AA"] {
            assert_eq!(from_text(other), None, "{other:?}");
        }
    }

    #[test]
    fn reserved_names_are_told_apart() {
        for (name, kind) in [
            ("cmkfs.dir", BackingName::Reserved),
            ("cmkfs.volume", BackingName::Reserved),
            ("cmkfs.links", BackingName::Reserved),
            ("cmkfs.journal", BackingName::Reserved),
            ("cmkfs.long.abc", BackingName::Long),
            ("cmkfs.long.abc.name", BackingName::Reserved),
            ("cmkfs.tmp.abc", BackingName::Temporary),
            (".directory", BackingName::Foreign),
            ("notes.txt", BackingName::Foreign),
        ] {
            assert_eq!(BackingName::classify(name.as_bytes()), kind, "{name}");
        }
    }
}
