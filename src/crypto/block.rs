//! One block of a file: sealed under a fresh nonce, its index and length authenticated. No allocation, no copy.

use super::aead::AuthenticationError;
use super::object::ObjectKeys;
use super::random;
use crate::format::layout::BLOCK_LEN;
use crate::format::slot::Entry;

fn aad(index: u64, length: u16) -> [u8; 10] {
    let mut aad = [0; 10];
    aad[..8].copy_from_slice(&index.to_le_bytes());
    aad[8..].copy_from_slice(&length.to_le_bytes());
    aad
}

/// Encrypts block `index` (1–4096 bytes) into `ciphertext` of the same length.
///
/// # Panics
/// Where the lengths differ or are not those of a block: the caller's mistake.
#[must_use]
pub fn seal(keys: &ObjectKeys, index: u64, plaintext: &[u8], ciphertext: &mut [u8]) -> Entry {
    assert!(
        (1..=BLOCK_LEN).contains(&plaintext.len()),
        "a block has 1–4096 bytes"
    );
    let length = plaintext.len() as u16;
    let nonce = random::nonce();
    let tag = keys
        .main()
        .seal_to(&nonce, &aad(index, length), plaintext, ciphertext);
    Entry { nonce, tag, length }
}

/// Decrypts block `index` in place; `buffer` holds as many bytes as `entry` says.
///
/// # Errors
/// [`AuthenticationError`] for another block, another version, another length, or a changed byte; the buffer then holds
/// the ciphertext again.
pub fn open(
    keys: &ObjectKeys,
    index: u64,
    entry: &Entry,
    buffer: &mut [u8],
) -> Result<(), AuthenticationError> {
    if buffer.len() != usize::from(entry.length) || buffer.is_empty() {
        return Err(AuthenticationError);
    }
    keys.main()
        .open(&entry.nonce, &aad(index, entry.length), buffer, &entry.tag)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::envelope::DataKey;
    use crate::format::envelope::ObjectKind;
    use crate::format::slot::{SLOT_LEN, Slot};

    fn keys() -> ObjectKeys {
        ObjectKeys::new(&DataKey::random().unwrap(), ObjectKind::File)
    }

    #[test]
    fn every_length_round_trips() {
        let keys = keys();
        let plaintext: Vec<u8> = (0..BLOCK_LEN).map(|i| i as u8).collect();
        for length in 1..=BLOCK_LEN {
            let mut buffer = vec![0; length];
            let entry = seal(&keys, 7, &plaintext[..length], &mut buffer);
            open(&keys, 7, &entry, &mut buffer).unwrap();
            assert_eq!(buffer, &plaintext[..length]);
        }
    }

    #[test]
    fn every_flipped_bit_of_block_and_entry_is_refused_and_leaves_ciphertext() {
        let keys = keys();
        let mut sealed = [0; 100];
        let entry = seal(&keys, 7, &[42; 100], &mut sealed);
        for bit in 0..800 {
            let mut buffer = sealed;
            buffer[bit / 8] ^= 1 << (bit % 8);
            let flipped = buffer;
            assert!(open(&keys, 7, &entry, &mut buffer).is_err());
            assert_eq!(buffer, flipped);
        }
        let mut slot = [0; SLOT_LEN];
        Slot::HOLE.superseded_by(entry).encode(&mut slot);
        for bit in 0..240 {
            let mut flipped = slot;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(
                open(
                    &keys,
                    7,
                    &Slot::decode(&flipped).current,
                    &mut sealed.clone()
                )
                .is_err(),
                "bit {bit}"
            );
        }
    }

    #[test]
    fn another_place_or_file_is_refused() {
        let keys = keys();
        let mut sealed = [0; 100];
        let entry = seal(&keys, 7, &[42; 100], &mut sealed);
        assert!(open(&keys, 8, &entry, &mut sealed.clone()).is_err());
        assert!(open(&self::keys(), 7, &entry, &mut sealed.clone()).is_err());
    }
}
