//! Names of a directory's entries: AES-256-GCM-SIV under the directory's name key with a fixed nonce, so that a name
//! always encrypts to the same bytes and can be looked up. What that reveals (equal names within one directory, which
//! cannot exist) is nothing.

use sha2::{Digest, Sha256};

use super::aead::{AuthenticationError, NONCE_LEN, TAG_LEN};
use super::object::ObjectKeys;
use crate::format::names::{INLINE_NAME_MAX, NAME_MAX, NAME_PADDING};

const NONCE: [u8; NONCE_LEN] = [0; NONCE_LEN];

/// Encrypts a name of 1–255 bytes: ciphertext and tag. It is padded where the padded form still fits a backing name.
#[must_use]
pub fn seal(directory: &ObjectKeys, name: &[u8]) -> Vec<u8> {
    let padded = name.len().next_multiple_of(NAME_PADDING);
    let length = if padded <= INLINE_NAME_MAX {
        padded
    } else {
        name.len()
    };
    let mut bytes = Vec::with_capacity(length + TAG_LEN);
    bytes.extend_from_slice(name);
    bytes.resize(length, 0);
    let tag = directory.main().seal(&NONCE, &[], &mut bytes);
    bytes.extend_from_slice(&tag);
    bytes
}

/// SHA-256 of an encrypted name: what a name too long for the backing directory is found under.
#[must_use]
pub fn digest(encrypted: &[u8]) -> [u8; 32] {
    Sha256::digest(encrypted).into()
}

/// Decrypts what [`seal`] made.
///
/// # Errors
/// [`AuthenticationError`] for anything else, a name of another directory among it.
pub fn open(directory: &ObjectKeys, mut bytes: Vec<u8>) -> Result<Vec<u8>, AuthenticationError> {
    let length = bytes
        .len()
        .checked_sub(TAG_LEN)
        .ok_or(AuthenticationError)?;
    let mut tag = [0; TAG_LEN];
    tag.copy_from_slice(&bytes[length..]);
    bytes.truncate(length);
    directory.main().open(&NONCE, &[], &mut bytes, &tag)?;
    // A name has no zero byte, so the padding ends where the name does.
    let end = bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |last| last + 1);
    bytes.truncate(end);
    let valid = (1..=NAME_MAX).contains(&bytes.len())
        && !bytes.iter().any(|byte| matches!(byte, 0 | b'/'))
        && !matches!(&bytes[..], b"." | b"..");
    if valid {
        Ok(bytes)
    } else {
        Err(AuthenticationError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::envelope::DataKey;
    use crate::format::envelope::ObjectKind;
    use crate::format::names::{BACKING_NAME_MAX, to_text};
    use proptest::prelude::*;

    fn keys() -> ObjectKeys {
        ObjectKeys::new(&DataKey::take(&mut [7; 32]), ObjectKind::Directory)
    }

    #[test]
    fn every_length_round_trips_and_the_inline_limit_is_exact() {
        for length in 1..=NAME_MAX {
            let name = vec![b'n'; length];
            let sealed = seal(&keys(), &name);
            assert_eq!(
                to_text(&sealed).len() <= BACKING_NAME_MAX,
                length <= INLINE_NAME_MAX,
                "length {length}"
            );
            assert_eq!(open(&keys(), sealed).unwrap(), name);
        }
    }

    #[test]
    fn every_byte_can_be_part_of_a_name() {
        for byte in (1..=255).filter(|byte| *byte != b'/') {
            let name = [b'n', byte];
            assert_eq!(open(&keys(), seal(&keys(), &name)).unwrap(), name);
        }
    }

    proptest! {
        #[test]
        fn different_names_differ_and_equal_ones_do_not(a in "[^/\0]{1,80}", b in "[^/\0]{1,80}") {
            prop_assert_eq!(a == b, seal(&keys(), a.as_bytes()) == seal(&keys(), b.as_bytes()));
        }

        #[test]
        fn every_flipped_bit_is_refused(name in "[^/\0]{1,60}", bit: prop::sample::Index) {
            let mut sealed = seal(&keys(), name.as_bytes());
            let bit = bit.index(sealed.len() * 8);
            sealed[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(open(&keys(), sealed).is_err());
        }
    }

    #[test]
    fn what_can_be_no_name_of_an_entry_is_refused_however_it_was_sealed() {
        for name in [&b"."[..], b"..", b"a/b", b"a\0b", b""] {
            assert!(open(&keys(), seal(&keys(), name)).is_err(), "{name:?}");
        }
    }

    #[test]
    fn another_directory_cannot_read_it() {
        let other = ObjectKeys::new(&DataKey::random().unwrap(), ObjectKind::Directory);
        assert!(open(&other, seal(&keys(), b"name")).is_err());
    }
}
