//! A backup of a key directory: its frame, and the list of records inside. Bytes only; docs/KEYSTORE.md is its twin.

use bincode::{Decode, Encode};

use super::codec::{self, FormatError};
use crate::ids::{BackupId, KeyStoreId};

/// Bytes before the ciphertext.
pub const HEADER_LEN: usize = 92;
/// The part of them that is authenticated but not encrypted: all that stands before the nonce.
pub const AAD_LEN: usize = 80;
/// Bytes of the tag at the end.
pub const TAG_LEN: usize = 16;

const MAGIC: [u8; 8] = *b"cmkfsbak";
const VERSION: u16 = 1;
const BACKUP: &str = "backup of a key directory";

/// What stands before the ciphertext of a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct BackupHeader {
    magic: [u8; 8],
    version: u16,
    reserved: u16,
    backup_id: [u8; 16],
    store_id: [u8; 16],
    /// Argon2id memory in KiB.
    pub memory_kib: u32,
    /// Argon2id passes.
    pub passes: u32,
    /// Argon2id lanes.
    pub lanes: u32,
    /// Argon2id salt.
    pub salt: [u8; 16],
    payload_len: u64,
    /// Nonce of the sealing.
    pub nonce: [u8; 12],
}

impl BackupHeader {
    /// The header of a backup of `store`; cost, salt and nonce are zero.
    #[must_use]
    pub const fn new(backup: BackupId, store: KeyStoreId, payload_len: u64) -> Self {
        Self {
            magic: MAGIC,
            version: VERSION,
            reserved: 0,
            backup_id: backup.0,
            store_id: store.0,
            memory_kib: 0,
            passes: 0,
            lanes: 0,
            salt: [0; 16],
            payload_len,
            nonce: [0; 12],
        }
    }

    /// The backup's id.
    #[must_use]
    pub const fn backup_id(&self) -> BackupId {
        BackupId(self.backup_id)
    }

    /// The key directory it was made of.
    #[must_use]
    pub const fn store_id(&self) -> KeyStoreId {
        KeyStoreId(self.store_id)
    }

    /// The stored bytes; the first [`AAD_LEN`] are the AAD of the payload.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        codec::encode(self)
    }

    /// Takes a backup apart into header, ciphertext and tag.
    ///
    /// # Errors
    /// [`FormatError`] for anything this version does not write, also where the length is not the one it says.
    pub fn split(bytes: &[u8]) -> Result<(Self, &[u8], [u8; TAG_LEN]), FormatError> {
        let length = |expected| FormatError::Length {
            what: BACKUP,
            expected,
            actual: bytes.len(),
        };
        let least = HEADER_LEN + TAG_LEN;
        let Some((header, rest)) = bytes.split_at_checked(HEADER_LEN) else {
            return Err(length(least));
        };
        let header: Self = codec::decode(BACKUP, HEADER_LEN, header)?;
        if header.magic != MAGIC {
            return Err(FormatError::Magic { what: BACKUP });
        }
        if header.version != VERSION {
            let version = header.version;
            return Err(FormatError::Version {
                what: BACKUP,
                version,
            });
        }
        if header.reserved != 0 {
            return Err(FormatError::Field {
                what: BACKUP,
                field: "reserved",
            });
        }
        let payload = usize::try_from(header.payload_len).unwrap_or(usize::MAX);
        let expected = least.saturating_add(payload);
        if bytes.len() != expected {
            return Err(length(expected));
        }
        match rest.split_last_chunk() {
            Some((payload, tag)) => Ok((header, payload, *tag)),
            None => Err(length(expected)),
        }
    }
}

/// A record inside a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The record's kind, as in its own header.
    pub kind: u8,
    /// How often it was written.
    pub counter: u64,
    /// Its path relative to the key directory.
    pub place: &'a str,
    /// What it says.
    pub payload: &'a [u8],
}

impl<'a> Entry<'a> {
    /// How many bytes it takes.
    #[must_use]
    pub const fn encoded_len(&self) -> usize {
        15 + self.place.len() + self.payload.len()
    }

    /// Appends it. A place of more than 65,535 bytes or a payload of more than 4 GiB is cut: no record has such.
    pub fn append_to(&self, bytes: &mut Vec<u8>) {
        let place = u16::try_from(self.place.len()).unwrap_or(u16::MAX);
        let payload = u32::try_from(self.payload.len()).unwrap_or(u32::MAX);
        bytes.push(self.kind);
        bytes.extend_from_slice(&self.counter.to_le_bytes());
        bytes.extend_from_slice(&place.to_le_bytes());
        bytes.extend_from_slice(&payload.to_le_bytes());
        bytes.extend(self.place.bytes().take(place.into()));
        bytes.extend(self.payload.iter().take(payload as usize));
    }

    /// Takes the first entry off `bytes`.
    ///
    /// # Errors
    /// [`FormatError`] where there is none.
    pub fn take_from(bytes: &mut &'a [u8]) -> Result<Self, FormatError> {
        let error = FormatError::Field {
            what: BACKUP,
            field: "records",
        };
        let mut take = |length: usize| {
            let (taken, rest) = bytes.split_at_checked(length)?;
            *bytes = rest;
            Some(taken)
        };
        let mut entry = || {
            let kind = *take(1)?.first()?;
            let counter = u64::from_le_bytes(take(8)?.try_into().ok()?);
            let place = u16::from_le_bytes(take(2)?.try_into().ok()?);
            let payload = u32::from_le_bytes(take(4)?.try_into().ok()?);
            Some(Entry {
                kind,
                counter,
                place: std::str::from_utf8(take(place.into())?).ok()?,
                payload: take(payload as usize)?,
            })
        };
        entry().ok_or(error)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_layout_is_the_documented_one() {
        let mut header = BackupHeader::new(BackupId([7; 16]), KeyStoreId([8; 16]), 3);
        (header.memory_kib, header.passes, header.lanes) = (0x0102_0304, 3, 4);
        header.salt = [9; 16];
        header.nonce = [10; 12];
        let bytes = header.encode();
        assert_eq!(&bytes[..12], b"cmkfsbak\x01\0\0\0");
        assert_eq!(&bytes[12..28], &[7; 16]);
        assert_eq!(&bytes[28..44], &[8; 16]);
        assert_eq!(&bytes[44..56], &[4, 3, 2, 1, 3, 0, 0, 0, 4, 0, 0, 0]);
        assert_eq!(&bytes[56..72], &[9; 16]);
        assert_eq!(&bytes[72..AAD_LEN], &[3, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(&bytes[AAD_LEN..], &[10; 12]);
        let mut entry = Vec::new();
        let known = Entry {
            kind: 2,
            counter: 5,
            place: "ab",
            payload: b"xyz",
        };
        known.append_to(&mut entry);
        assert_eq!(entry, b"\x02\x05\0\0\0\0\0\0\0\x02\0\x03\0\0\0abxyz");
        assert_eq!(entry.len(), known.encoded_len());
    }

    proptest! {
        #[test]
        #[cfg_attr(miri, ignore = "too much for an interpreter")]
        fn entries_come_back_in_order(
            entries in proptest::collection::vec((any::<u8>(), any::<u64>(), "\\PC{0,20}", proptest::collection::vec(any::<u8>(), 0..50)), 0..8),
        ) {
            let mut bytes = Vec::new();
            for (kind, counter, place, payload) in &entries {
                Entry { kind: *kind, counter: *counter, place, payload }.append_to(&mut bytes);
            }
            let mut rest = &bytes[..];
            for (kind, counter, place, payload) in &entries {
                let expected = Entry { kind: *kind, counter: *counter, place, payload };
                prop_assert_eq!(Entry::take_from(&mut rest).unwrap(), expected);
            }
            prop_assert!(rest.is_empty());
            prop_assert!(Entry::take_from(&mut rest).is_err());
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(BackupHeader::split(&bytes).is_err());
            let mut rest = &bytes[..];
            while let Ok(entry) = Entry::take_from(&mut rest) {
                prop_assert!(entry.encoded_len() >= 15);
            }
        }
    }
}
