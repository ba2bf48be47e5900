//! Symlink targets: sealed under the link's own key and a random nonce. Facts: docs/FORMAT.md, "Symlinks".

use super::aead::AuthenticationError;
use super::object::ObjectKeys;
use super::random;
use crate::format::envelope::Envelope;
use crate::format::symlink::{SymlinkRecord, aad};
use crate::ids::ObjectId;

/// Encrypts a target of 1–4095 bytes.
#[must_use]
pub fn seal(
    keys: &ObjectKeys,
    object: ObjectId,
    envelope: Envelope,
    target: &[u8],
) -> SymlinkRecord {
    let nonce = random::nonce();
    let mut ciphertext = target.to_vec();
    let tag = keys
        .main()
        .seal(&nonce, &aad(object, &envelope), &mut ciphertext);
    SymlinkRecord {
        object,
        envelope,
        nonce,
        ciphertext,
        tag,
    }
}

/// Decrypts a target.
///
/// # Errors
/// [`AuthenticationError`] where the record is not what was sealed under these keys.
pub fn open(keys: &ObjectKeys, record: SymlinkRecord) -> Result<Vec<u8>, AuthenticationError> {
    let mut target = record.ciphertext;
    keys.main().open(
        &record.nonce,
        &aad(record.object, &record.envelope),
        &mut target,
        &record.tag,
    )?;
    Ok(target)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::envelope::DataKey;
    use crate::format::envelope::ObjectKind;
    use crate::ids::{KeyId, MaterialId};

    #[test]
    fn round_trips_and_every_flipped_bit_is_refused() {
        let keys = ObjectKeys::new(&DataKey::random().unwrap(), ObjectKind::Symlink);
        let envelope = Envelope::new(
            KeyId([1; 16]),
            MaterialId([2; 32]),
            [3; 12],
            [4; 32],
            [5; 16],
            [6; 16],
        );
        let record = seal(&keys, ObjectId([7; 16]), envelope, b"../target");
        let bytes = record.encode();
        assert_eq!(open(&keys, record).unwrap(), b"../target");
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let opened = SymlinkRecord::decode(&flipped).map(|record| open(&keys, record));
            assert!(!matches!(opened, Ok(Ok(_))), "bit {bit}");
        }
    }
}
