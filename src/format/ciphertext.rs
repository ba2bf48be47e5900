//! What Encrypt makes of a small secret: a ciphertext that names its key and material. Bytes only; `crypto::direct`
//! encrypts and decrypts. Facts: docs/FORMAT.md, "Ciphertext".

use std::collections::BTreeMap;

use bincode::{Decode, Encode};

use super::codec::{self, FormatError};
use crate::ids::{KeyId, MaterialId};

/// Offset of the key id (16 bytes).
pub const KEY_ID: usize = 12;
/// Offset of the material id (32 bytes).
pub const MATERIAL_ID: usize = 28;
/// Offset of the nonce (12 bytes); what stands before it is authenticated but not encrypted.
pub const NONCE: usize = 60;
/// Offset of the encrypted bytes.
pub const CIPHERTEXT: usize = 72;
/// Bytes of the tag at the end.
pub const TAG_LEN: usize = 16;
/// Most bytes that are encrypted directly: AWS's limit.
pub const MAX_PLAINTEXT: usize = 4096;
/// Bytes of the longest ciphertext.
pub const MAX_LEN: usize = CIPHERTEXT + MAX_PLAINTEXT + TAG_LEN;

const MAGIC: [u8; 8] = *b"cmkfsenc";
const VERSION: u16 = 1;
const WHAT: &str = "ciphertext";

/// What stands before the encrypted bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct CiphertextHeader {
    magic: [u8; 8],
    version: u16,
    reserved: u16,
    key_id: [u8; 16],
    material_id: [u8; 32],
    /// Nonce of the encryption.
    pub nonce: [u8; 12],
}

impl CiphertextHeader {
    /// The header of a ciphertext under a material of a CMK.
    #[must_use]
    pub const fn new(key: KeyId, material: MaterialId, nonce: [u8; 12]) -> Self {
        Self {
            magic: MAGIC,
            version: VERSION,
            reserved: 0,
            key_id: key.0,
            material_id: material.0,
            nonce,
        }
    }

    /// The CMK.
    #[must_use]
    pub const fn key_id(&self) -> KeyId {
        KeyId(self.key_id)
    }

    /// The material of that CMK.
    #[must_use]
    pub const fn material_id(&self) -> MaterialId {
        MaterialId(self.material_id)
    }

    /// The stored bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; CIPHERTEXT] {
        codec::encode(self)
    }

    /// The AAD: what stands before the nonce, and the encryption context.
    #[must_use]
    pub fn aad(&self, context: &TextContext) -> Vec<u8> {
        let mut aad = self.encode()[..NONCE].to_vec();
        context.append_to(&mut aad);
        aad
    }
}

/// A ciphertext taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ciphertext {
    /// What it says of itself.
    pub header: CiphertextHeader,
    /// The encrypted bytes, at most [`MAX_PLAINTEXT`].
    pub bytes: Vec<u8>,
    /// Their tag.
    pub tag: [u8; TAG_LEN],
}

impl Ciphertext {
    /// The stored bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        [&self.header.encode()[..], &self.bytes, &self.tag].concat()
    }

    /// Reads stored bytes.
    ///
    /// # Errors
    /// [`FormatError`] for anything this version does not write.
    pub fn decode(stored: &[u8]) -> Result<Self, FormatError> {
        let length = || FormatError::Length {
            what: WHAT,
            expected: stored.len().clamp(CIPHERTEXT + TAG_LEN, MAX_LEN),
            actual: stored.len(),
        };
        let (header, rest) = stored.split_at_checked(CIPHERTEXT).ok_or_else(length)?;
        let header: CiphertextHeader = codec::decode(WHAT, CIPHERTEXT, header)?;
        if header.magic != MAGIC {
            return Err(FormatError::Magic { what: WHAT });
        }
        if header.version != VERSION {
            return Err(FormatError::Version {
                what: WHAT,
                version: header.version,
            });
        }
        if header.reserved != 0 {
            return Err(FormatError::Field {
                what: WHAT,
                field: "reserved",
            });
        }
        let (bytes, tag) = rest.split_last_chunk().ok_or_else(length)?;
        if bytes.len() > MAX_PLAINTEXT {
            return Err(length());
        }
        Ok(Self {
            header,
            bytes: bytes.to_vec(),
            tag: *tag,
        })
    }
}

/// The encryption context of Encrypt: names and values that are authenticated with the ciphertext, are not in it, and are
/// not secret. Their order does not matter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TextContext(pub BTreeMap<String, String>);

impl TextContext {
    /// The canonical bytes: number of pairs, then for each, in the order of their names, length and bytes of name and
    /// value; numbers in 4 bytes, little-endian.
    fn append_to(&self, bytes: &mut Vec<u8>) {
        let number = |bytes: &mut Vec<u8>, n: usize| {
            bytes.extend_from_slice(&u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes());
        };
        number(bytes, self.0.len());
        for text in self.0.iter().flat_map(|(name, value)| [name, value]) {
            number(bytes, text.len());
            bytes.extend_from_slice(text.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn offsets_are_those_of_the_document() {
        let header = CiphertextHeader::new(KeyId([1; 16]), MaterialId([2; 32]), [3; 12]);
        let bytes = header.encode();
        assert_eq!(&bytes[..KEY_ID], b"cmkfsenc\x01\0\0\0");
        assert_eq!(bytes[KEY_ID..MATERIAL_ID], [1; 16]);
        assert_eq!(bytes[MATERIAL_ID..NONCE], [2; 32]);
        assert_eq!(bytes[NONCE..CIPHERTEXT], [3; 12]);
    }

    #[test]
    fn pairs_cannot_be_shifted_into_one_another() {
        let bytes = |pairs: &[(&str, &str)]| {
            let pairs = pairs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
            let mut bytes = Vec::new();
            TextContext(pairs.collect()).append_to(&mut bytes);
            bytes
        };
        assert_eq!(bytes(&[]), [0; 4]);
        assert_eq!(bytes(&[("a", "bc")]), b"\x01\0\0\0\x01\0\0\0a\x02\0\0\0bc");
        assert_ne!(bytes(&[("a", "bc")]), bytes(&[("ab", "c")]));
        assert_eq!(
            bytes(&[("a", "1"), ("b", "2")]),
            bytes(&[("b", "2"), ("a", "1")])
        );
    }

    proptest! {
        #[test]
        fn whatever_decodes_encodes_to_the_same(bytes in proptest::collection::vec(any::<u8>(), 0..200), begin: bool) {
            let header = CiphertextHeader::new(KeyId([1; 16]), MaterialId([2; 32]), [3; 12]).encode();
            let stored = if begin { [&header[..], &bytes].concat() } else { bytes.clone() };
            match Ciphertext::decode(&stored) {
                Ok(read) => prop_assert_eq!(read.encode(), stored),
                Err(_) => prop_assert!(!begin || bytes.len() < TAG_LEN),
            }
        }
    }

    #[test]
    fn what_is_too_long_is_refused() {
        let ciphertext = |length| Ciphertext {
            header: CiphertextHeader::new(KeyId([1; 16]), MaterialId([2; 32]), [3; 12]),
            bytes: vec![0; length],
            tag: [0; 16],
        };
        let longest = ciphertext(MAX_PLAINTEXT).encode();
        assert_eq!(longest.len(), MAX_LEN);
        assert!(Ciphertext::decode(&longest).is_ok());
        assert!(Ciphertext::decode(&ciphertext(MAX_PLAINTEXT + 1).encode()).is_err());
    }
}
