//! Extended attributes: the stored name is a keyed digest of the name, and the sealed value holds both name and value.
//! So every name works, however long, and a value moved to another name is refused. Facts: docs/FORMAT.md.

use super::aead::{AuthenticationError, NONCE_LEN, TAG_LEN};
use super::kdf::Purpose;
use super::object::ObjectKeys;
use super::random;
use crate::format::xattr::OVERHEAD;

/// The keyed digest under which an attribute is stored: the synthetic IV of its name.
#[must_use]
pub fn digest(keys: &ObjectKeys, name: &[u8]) -> [u8; 16] {
    keys.derive(Purpose::XattrName)
        .seal(&[0; NONCE_LEN], &[], &mut name.to_vec())
}

/// Seals an attribute; its name, namespace included, has 1–255 bytes.
#[must_use]
pub fn seal(keys: &ObjectKeys, name: &[u8], value: &[u8]) -> Vec<u8> {
    let nonce = random::nonce();
    let mut bytes = Vec::with_capacity(OVERHEAD + name.len() + value.len());
    bytes.extend_from_slice(&nonce);
    bytes.push(name.len() as u8);
    bytes.extend_from_slice(name);
    bytes.extend_from_slice(value);
    let tag = keys
        .derive(Purpose::XattrValue)
        .seal(&nonce, &[], &mut bytes[NONCE_LEN..]);
    bytes.extend_from_slice(&tag);
    bytes
}

/// Opens an attribute: its name, namespace included, and its value.
///
/// # Errors
/// [`AuthenticationError`] where the bytes are not what was sealed under these keys.
pub fn open(keys: &ObjectKeys, bytes: &[u8]) -> Result<(Vec<u8>, Vec<u8>), AuthenticationError> {
    if bytes.len() < OVERHEAD {
        return Err(AuthenticationError);
    }
    let (nonce_bytes, rest) = bytes.split_at(NONCE_LEN);
    let (sealed, tag_bytes) = rest.split_at(rest.len() - TAG_LEN);
    let (mut nonce, mut tag) = ([0; NONCE_LEN], [0; TAG_LEN]);
    nonce.copy_from_slice(nonce_bytes);
    tag.copy_from_slice(tag_bytes);
    let mut plain = sealed.to_vec();
    keys.derive(Purpose::XattrValue)
        .open(&nonce, &[], &mut plain, &tag)?;
    let (length, plain) = plain.split_first().ok_or(AuthenticationError)?;
    let (name, value) = plain
        .split_at_checked((*length).into())
        .ok_or(AuthenticationError)?;
    Ok((name.to_vec(), value.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::envelope::DataKey;
    use crate::format::envelope::ObjectKind;
    use proptest::prelude::*;

    fn keys() -> ObjectKeys {
        ObjectKeys::new(&DataKey::take(&mut [7; 32]), ObjectKind::File)
    }

    proptest! {
        #[test]
        fn round_trips(name in prop::collection::vec(1..=255_u8, 1..=255), value: Vec<u8>) {
            prop_assert_eq!(open(&keys(), &seal(&keys(), &name, &value)).unwrap(), (name, value));
        }
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        let sealed = seal(&keys(), b"name", b"value");
        for bit in 0..sealed.len() * 8 {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&keys(), &flipped).is_err(), "bit {bit}");
        }
        assert!(open(&keys(), &sealed[..OVERHEAD - 1]).is_err());
    }
}
