//! A symlink's target as it is stored: a record in the backing symlink itself, base64url, or, where that does not fit,
//! in a side file that the backing symlink names. docs/FORMAT.md, "Symlinks". `crypto::symlink` seals.

use super::codec::FormatError;
use super::envelope::{ENVELOPE_LEN, Envelope};
use super::names;
use crate::ids::ObjectId;

/// Longest target in bytes.
pub const TARGET_MAX: usize = 4095;
/// First byte of a record.
pub const INLINE: u8 = 1;
/// First byte of the name of a side file.
pub const SIDE: u8 = 2;
/// Offset of the object id (16 bytes).
pub const OBJECT_ID_AT: usize = 1;
/// Offset of the envelope (124 bytes).
pub const ENVELOPE_AT: usize = 17;
/// Offset of the nonce (12 bytes). All before it is AAD.
pub const NONCE_AT: usize = 141;
/// Offset of the encrypted target. The tag (16 bytes) follows it.
pub const CIPHERTEXT_AT: usize = 153;
/// Bytes of a record besides the target.
pub const RECORD_OVERHEAD: usize = 169;
/// Bytes of a side marker: its first byte, the object id, the length of the target (u16).
pub const SIDE_LEN: usize = 19;
const WHAT: &str = "symlink";

/// A record, its target still encrypted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SymlinkRecord {
    /// The symlink.
    pub object: ObjectId,
    /// Its wrapped data key.
    pub envelope: Envelope,
    /// Nonce of the target.
    pub nonce: [u8; 12],
    /// The target, encrypted.
    pub ciphertext: Vec<u8>,
    /// Tag over the target and all before the nonce.
    pub tag: [u8; 16],
}

/// The bytes that are authenticated with the target.
#[must_use]
pub fn aad(object: ObjectId, envelope: &Envelope) -> [u8; NONCE_AT] {
    let mut bytes = [0; NONCE_AT];
    bytes[0] = INLINE;
    bytes[OBJECT_ID_AT..ENVELOPE_AT].copy_from_slice(object.as_bytes());
    bytes[ENVELOPE_AT..].copy_from_slice(&envelope.encode());
    bytes
}

impl SymlinkRecord {
    /// The stored bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(RECORD_OVERHEAD + self.ciphertext.len());
        bytes.extend_from_slice(&aad(self.object, &self.envelope));
        bytes.extend_from_slice(&self.nonce);
        bytes.extend_from_slice(&self.ciphertext);
        bytes.extend_from_slice(&self.tag);
        bytes
    }

    /// Reads stored bytes.
    ///
    /// # Errors
    /// [`FormatError`] for what is no record of a target of 1–4095 bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let target = bytes.len().saturating_sub(RECORD_OVERHEAD);
        if !(1..=TARGET_MAX).contains(&target) {
            return Err(FormatError::Length {
                what: WHAT,
                expected: RECORD_OVERHEAD + 1,
                actual: bytes.len(),
            });
        }
        if bytes[0] != INLINE {
            return Err(FormatError::Version {
                what: WHAT,
                version: bytes[0].into(),
            });
        }
        let (sealed, tag_bytes) = bytes.split_at(bytes.len() - 16);
        let (mut object, mut nonce, mut tag) = ([0; 16], [0; 12], [0; 16]);
        object.copy_from_slice(&sealed[OBJECT_ID_AT..ENVELOPE_AT]);
        nonce.copy_from_slice(&sealed[NONCE_AT..CIPHERTEXT_AT]);
        tag.copy_from_slice(tag_bytes);
        Ok(Self {
            object: ObjectId(object),
            envelope: Envelope::decode(&sealed[ENVELOPE_AT..ENVELOPE_AT + ENVELOPE_LEN])?,
            nonce,
            ciphertext: sealed[CIPHERTEXT_AT..].to_vec(),
            tag,
        })
    }
}

/// What a backing symlink holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored {
    /// The record itself.
    Inline(SymlinkRecord),
    /// The record lies in the side file of this object; the target has so many bytes.
    Side {
        /// The symlink.
        object: ObjectId,
        /// Bytes of its target.
        length: u16,
    },
}

impl Stored {
    /// The target of the backing symlink.
    #[must_use]
    pub fn to_text(&self) -> String {
        match self {
            Self::Inline(record) => names::to_text(&record.encode()),
            Self::Side { object, length } => {
                let mut bytes = [0; SIDE_LEN];
                bytes[0] = SIDE;
                bytes[OBJECT_ID_AT..ENVELOPE_AT].copy_from_slice(object.as_bytes());
                bytes[ENVELOPE_AT..].copy_from_slice(&length.to_le_bytes());
                names::to_text(&bytes)
            }
        }
    }

    /// Reads the target of a backing symlink.
    ///
    /// # Errors
    /// [`FormatError`] for what cmkfs never writes.
    pub fn from_text(text: &[u8]) -> Result<Self, FormatError> {
        let bytes = names::from_text(text).ok_or(FormatError::Field {
            what: WHAT,
            field: "target",
        })?;
        if bytes.len() == SIDE_LEN && bytes[0] == SIDE {
            let mut object = [0; 16];
            object.copy_from_slice(&bytes[OBJECT_ID_AT..ENVELOPE_AT]);
            let length = u16::from_le_bytes([bytes[ENVELOPE_AT], bytes[ENVELOPE_AT + 1]]);
            return Ok(Self::Side {
                object: ObjectId(object),
                length,
            });
        }
        Ok(Self::Inline(SymlinkRecord::decode(&bytes)?))
    }

    /// Length of the target, told by the length of the backing symlink alone; `None` where the text itself must be
    /// read (a side file).
    #[must_use]
    pub fn target_length(text_length: u64) -> Option<u64> {
        let bytes = names::decoded_length(usize::try_from(text_length).ok()?);
        if bytes == SIDE_LEN {
            None
        } else {
            Some(bytes.saturating_sub(RECORD_OVERHEAD) as u64)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{KeyId, MaterialId};

    fn record(length: usize) -> SymlinkRecord {
        let envelope = Envelope::new(
            KeyId([1; 16]),
            MaterialId([2; 32]),
            [3; 12],
            [4; 32],
            [5; 16],
            [6; 16],
        );
        SymlinkRecord {
            object: ObjectId([7; 16]),
            envelope,
            nonce: [8; 12],
            ciphertext: vec![9; length],
            tag: [10; 16],
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "too much for an interpreter")]
    fn every_length_round_trips_and_shows_in_the_size_alone() {
        for length in 1..=TARGET_MAX {
            let stored = Stored::Inline(record(length));
            let text = stored.to_text();
            assert_eq!(
                Stored::target_length(text.len() as u64),
                Some(length as u64)
            );
            assert_eq!(Stored::from_text(text.as_bytes()).unwrap(), stored);
        }
    }

    #[test]
    fn a_side_marker_round_trips() {
        let stored = Stored::Side {
            object: ObjectId([7; 16]),
            length: 4095,
        };
        assert_eq!(Stored::target_length(stored.to_text().len() as u64), None);
        assert_eq!(
            Stored::from_text(stored.to_text().as_bytes()).unwrap(),
            stored
        );
    }

    #[test]
    fn what_is_no_record_is_refused() {
        for text in [
            "",
            "AA",
            "/etc/passwd",
            &names::to_text(&[3; 200]),
            &names::to_text(&[INLINE; 169]),
        ] {
            assert!(Stored::from_text(text.as_bytes()).is_err(), "{text}");
        }
    }
}
