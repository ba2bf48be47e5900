//! The files of a key directory: the store file and the frame of sealed records. Bytes only; docs/KEYSTORE.md is its twin.

use std::ops::RangeInclusive;

use bincode::{Decode, Encode};

use super::codec::{self, FormatError};
use crate::ids::KeyStoreId;

/// Bytes of the store file.
pub const STORE_LEN: usize = 116;
/// The part of the store file that is authenticated but not encrypted: all that stands before the nonce.
pub const STORE_AAD_LEN: usize = 56;
/// Offset of a record's nonce; what stands before it is authenticated but not encrypted.
pub const RECORD_NONCE: usize = 40;
/// Offset of a record's ciphertext.
pub const RECORD_PAYLOAD: usize = 52;
/// Bytes of the tag at a record's end.
pub const RECORD_TAG_LEN: usize = 16;

const STORE_MAGIC: [u8; 8] = *b"cmkfskey";
const RECORD_MAGIC: [u8; 8] = *b"cmkfsrec";
const VERSION: u16 = 1;
/// Since this version of the store file there is an audit log beside it.
const WITH_AUDIT_LOG: u16 = 2;
const STORE: &str = "key store file";
const RECORD: &str = "key store record";

/// What protects the root key of a key directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Protection {
    /// The file `root.key` beside it.
    RootKeyFile = 1,
    /// A passphrase, stretched by Argon2id.
    Passphrase = 2,
}

/// The store file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct StoreFile {
    magic: [u8; 8],
    version: u16,
    protection: u8,
    reserved: u8,
    store_id: [u8; 16],
    /// Argon2id memory in KiB; zero without a passphrase.
    pub memory_kib: u32,
    /// Argon2id passes; zero without a passphrase.
    pub passes: u32,
    /// Argon2id lanes; zero without a passphrase.
    pub lanes: u32,
    /// Argon2id salt; zeros without a passphrase.
    pub salt: [u8; 16],
    /// Nonce of the sealed root key.
    pub nonce: [u8; 12],
    /// The root key, sealed under what protects it.
    pub root_key: [u8; 32],
    /// Its tag.
    pub tag: [u8; 16],
}

impl StoreFile {
    /// A store file whose root key is yet to be sealed; cost and salt are zero.
    #[must_use]
    pub const fn new(store: KeyStoreId, protection: Protection) -> Self {
        Self {
            magic: STORE_MAGIC,
            version: WITH_AUDIT_LOG,
            protection: protection as u8,
            reserved: 0,
            store_id: store.0,
            memory_kib: 0,
            passes: 0,
            lanes: 0,
            salt: [0; 16],
            nonce: [0; 12],
            root_key: [0; 32],
            tag: [0; 16],
        }
    }

    /// The key directory's id.
    #[must_use]
    pub const fn store_id(&self) -> KeyStoreId {
        KeyStoreId(self.store_id)
    }

    /// Whether there must be an audit log: only the first version of cmkfs made key directories without.
    #[must_use]
    pub const fn has_audit_log(&self) -> bool {
        self.version >= WITH_AUDIT_LOG
    }

    /// The same with an audit log; its root key is to be sealed anew.
    #[must_use]
    pub const fn with_audit_log(self) -> Self {
        Self {
            version: WITH_AUDIT_LOG,
            ..self
        }
    }

    /// What protects the root key.
    #[must_use]
    pub const fn protection(&self) -> Protection {
        // decode() lets no third value in.
        if self.protection == Protection::Passphrase as u8 {
            Protection::Passphrase
        } else {
            Protection::RootKeyFile
        }
    }

    /// The stored bytes; the first [`STORE_AAD_LEN`] are the AAD of the sealed root key.
    #[must_use]
    pub fn encode(&self) -> [u8; STORE_LEN] {
        codec::encode(self)
    }

    /// The AAD under which the root key is sealed.
    #[must_use]
    pub fn aad(&self) -> [u8; STORE_AAD_LEN] {
        let mut aad = [0; STORE_AAD_LEN];
        aad.copy_from_slice(&self.encode()[..STORE_AAD_LEN]);
        aad
    }

    /// Reads stored bytes.
    ///
    /// # Errors
    /// [`FormatError`] for anything this version does not write.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let file: Self = codec::decode(STORE, STORE_LEN, bytes)?;
        check(
            STORE,
            (file.magic, STORE_MAGIC),
            (file.version, VERSION..=WITH_AUDIT_LOG),
            file.reserved,
        )?;
        let without_cost = (file.memory_kib, file.passes, file.lanes) == (0, 0, 0);
        match file.protection {
            1 if without_cost && file.salt == [0; 16] => Ok(file),
            2 => Ok(file),
            _ => Err(FormatError::Field {
                what: STORE,
                field: "protection",
            }),
        }
    }
}

/// What stands before the ciphertext of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct RecordHeader {
    magic: [u8; 8],
    version: u16,
    /// The record's kind.
    pub kind: u8,
    reserved: u8,
    payload_len: u32,
    /// Counts the record's replacements, from 1.
    pub counter: u64,
    store_id: [u8; 16],
    /// Nonce of the sealing.
    pub nonce: [u8; 12],
}

impl RecordHeader {
    /// The header of a record with `payload_len` bytes of payload.
    #[must_use]
    pub const fn new(
        store: KeyStoreId,
        kind: u8,
        counter: u64,
        payload_len: u32,
        nonce: [u8; 12],
    ) -> Self {
        Self {
            magic: RECORD_MAGIC,
            version: VERSION,
            kind,
            reserved: 0,
            payload_len,
            counter,
            store_id: store.0,
            nonce,
        }
    }

    /// The key directory the record belongs to.
    #[must_use]
    pub const fn store_id(&self) -> KeyStoreId {
        KeyStoreId(self.store_id)
    }

    /// The stored bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; RECORD_PAYLOAD] {
        codec::encode(self)
    }

    /// Takes a record apart into header, ciphertext and tag.
    ///
    /// # Errors
    /// [`FormatError`] for anything this version does not write, also where the length is not the one it says.
    pub fn split(bytes: &[u8]) -> Result<(Self, &[u8], [u8; RECORD_TAG_LEN]), FormatError> {
        let length = |expected| FormatError::Length {
            what: RECORD,
            expected,
            actual: bytes.len(),
        };
        let least = RECORD_PAYLOAD + RECORD_TAG_LEN;
        let Some((header, rest)) = bytes.split_at_checked(RECORD_PAYLOAD) else {
            return Err(length(least));
        };
        let header: Self = codec::decode(RECORD, RECORD_PAYLOAD, header)?;
        check(
            RECORD,
            (header.magic, RECORD_MAGIC),
            (header.version, VERSION..=VERSION),
            header.reserved,
        )?;
        let expected = least.saturating_add(header.payload_len as usize);
        if bytes.len() != expected {
            return Err(length(expected));
        }
        let Some((payload, tag)) = rest.split_last_chunk() else {
            return Err(length(expected));
        };
        Ok((header, payload, *tag))
    }
}

fn check(
    what: &'static str,
    (magic, expected): ([u8; 8], [u8; 8]),
    (version, known): (u16, RangeInclusive<u16>),
    reserved: u8,
) -> Result<(), FormatError> {
    if magic != expected {
        return Err(FormatError::Magic { what });
    }
    if !known.contains(&version) {
        return Err(FormatError::Version { what, version });
    }
    if reserved != 0 {
        return Err(FormatError::Field {
            what,
            field: "reserved",
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_the_documented_one() {
        let mut file = StoreFile::new(KeyStoreId([7; 16]), Protection::Passphrase);
        (file.memory_kib, file.passes, file.lanes) = (0x0102_0304, 3, 4);
        file.salt = [8; 16];
        file.nonce = [9; 12];
        file.root_key = [10; 32];
        file.tag = [11; 16];
        let bytes = file.encode();
        assert_eq!(&bytes[..12], b"cmkfskey\x02\0\x02\0");
        assert_eq!(&bytes[12..28], &[7; 16]);
        assert_eq!(&bytes[28..40], &[4, 3, 2, 1, 3, 0, 0, 0, 4, 0, 0, 0]);
        assert_eq!(&bytes[40..56], &[8; 16]);
        assert_eq!(&bytes[56..68], &[9; 12]);
        assert_eq!(&bytes[68..100], &[10; 32]);
        assert_eq!(&bytes[100..], &[11; 16]);
        assert_eq!(StoreFile::decode(&bytes), Ok(file));

        let header = RecordHeader::new(KeyStoreId([7; 16]), 2, 5, 3, [9; 12]).encode();
        assert_eq!(&header[..16], b"cmkfsrec\x01\0\x02\0\x03\0\0\0");
        assert_eq!(&header[16..24], &[5, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(&header[24..40], &[7; 16]);
        assert_eq!(&header[RECORD_NONCE..RECORD_PAYLOAD], &[9; 12]);
    }

    #[test]
    fn what_this_version_never_writes_is_refused() {
        let bytes = StoreFile::new(KeyStoreId([7; 16]), Protection::RootKeyFile).encode();
        for at in [0, 8, 10, 11, 28, 40] {
            let mut changed = bytes;
            changed[at] ^= 0x10;
            assert!(StoreFile::decode(&changed).is_err(), "byte {at}");
        }
        assert!(StoreFile::decode(&bytes[1..]).is_err());
    }
}
