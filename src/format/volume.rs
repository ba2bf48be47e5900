//! The volume file: which volume this is, and which key directory opens it. docs/FORMAT.md, "Volume file".
//! `crypto::header` authenticates it under the volume key.

use bincode::{Decode, Encode};

use super::codec::{self, FormatError};
use super::envelope::Envelope;
use crate::ids::{KeyStoreId, VolumeId};

/// Bytes of the volume file.
pub const VOLUME_LEN: usize = 204;
/// Offset of the magic (8 bytes).
pub const MAGIC_AT: usize = 0;
/// Offset of the format version (u16).
pub const VERSION_AT: usize = 8;
/// Offset of the cipher (u8): 1 is AES-256-GCM-SIV. A reserved zero byte follows.
pub const CIPHER_AT: usize = 10;
/// Offset of the feature flags (u32); see [`feature`].
pub const FEATURES_AT: usize = 12;
/// Offset of the block size in bytes (u32): 4096.
pub const BLOCK_SIZE_AT: usize = 16;
/// Offset of the volume id (16 bytes).
pub const VOLUME_ID_AT: usize = 20;
/// Offset of the key store id (16 bytes).
pub const KEY_STORE_ID_AT: usize = 36;
/// Offset of the envelope of the volume key (124 bytes).
pub const ENVELOPE_AT: usize = 52;
/// Offset of the nonce (12 bytes). All before it is AAD of the tag (16 bytes) that follows it.
pub const NONCE_AT: usize = 176;

/// Feature flags. A flag that is not known here is refused.
pub mod feature {
    /// Blocks are overwritten by way of redo journals.
    pub const JOURNAL: u32 = 1;
    /// All that this version knows.
    pub const KNOWN: u32 = JOURNAL;
}

/// First bytes of the volume file.
pub const MAGIC: [u8; 8] = *b"cmkfsvol";
const VERSION: u16 = 1;
const CIPHER_AES_256_GCM_SIV: u8 = 1;
const BLOCK_SIZE: u32 = 4096;
const WHAT: &str = "volume file";

/// The volume file's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct VolumeFile {
    magic: [u8; 8],
    version: u16,
    cipher: u8,
    reserved: u8,
    features: u32,
    block_size: u32,
    volume_id: [u8; 16],
    key_store_id: [u8; 16],
    envelope: Envelope,
    /// Nonce of the tag.
    pub nonce: [u8; 12],
    /// Authenticates all before the nonce under the volume key.
    pub tag: [u8; 16],
}

impl VolumeFile {
    /// A volume file whose tag is yet to be computed.
    #[must_use]
    pub const fn new(
        volume: VolumeId,
        key_store: KeyStoreId,
        features: u32,
        envelope: Envelope,
    ) -> Self {
        Self {
            magic: MAGIC,
            version: VERSION,
            cipher: CIPHER_AES_256_GCM_SIV,
            reserved: 0,
            features,
            block_size: BLOCK_SIZE,
            volume_id: volume.0,
            key_store_id: key_store.0,
            envelope,
            nonce: [0; 12],
            tag: [0; 16],
        }
    }

    /// The volume.
    #[must_use]
    pub const fn volume_id(&self) -> VolumeId {
        VolumeId(self.volume_id)
    }

    /// The key directory the volume was made with.
    #[must_use]
    pub const fn key_store_id(&self) -> KeyStoreId {
        KeyStoreId(self.key_store_id)
    }

    /// Feature flags.
    #[must_use]
    pub const fn features(&self) -> u32 {
        self.features
    }

    /// The wrapped volume key.
    #[must_use]
    pub const fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    /// The stored bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; VOLUME_LEN] {
        codec::encode(self)
    }

    /// Reads stored bytes.
    ///
    /// # Errors
    /// [`FormatError`] for what this version does not know.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let file: Self = codec::decode(WHAT, VOLUME_LEN, bytes)?;
        let field = |field| Err(FormatError::Field { what: WHAT, field });
        match file {
            _ if file.magic != MAGIC => Err(FormatError::Magic { what: WHAT }),
            _ if file.version != VERSION => Err(FormatError::Version {
                what: WHAT,
                version: file.version,
            }),
            _ if file.cipher != CIPHER_AES_256_GCM_SIV => field("cipher"),
            _ if file.reserved != 0 => field("reserved"),
            _ if file.features & !feature::KNOWN != 0 => field("feature flags"),
            _ if file.block_size != BLOCK_SIZE => field("block size"),
            _ => Ok(file),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{KeyId, MaterialId};

    #[test]
    fn fields_lie_where_the_offsets_say_and_unknown_ones_are_refused() {
        let envelope = Envelope::new(
            KeyId([1; 16]),
            MaterialId([2; 32]),
            [3; 12],
            [4; 32],
            [5; 16],
            [6; 16],
        );
        let file = VolumeFile::new(
            VolumeId([7; 16]),
            KeyStoreId([8; 16]),
            feature::JOURNAL,
            envelope,
        );
        let bytes = file.encode();
        assert_eq!(&bytes[MAGIC_AT..VERSION_AT], b"cmkfsvol");
        assert_eq!(bytes[VERSION_AT..FEATURES_AT], [1, 0, 1, 0]);
        assert_eq!(bytes[FEATURES_AT..BLOCK_SIZE_AT], [1, 0, 0, 0]);
        assert_eq!(bytes[BLOCK_SIZE_AT..VOLUME_ID_AT], 4096_u32.to_le_bytes());
        assert_eq!(bytes[VOLUME_ID_AT..KEY_STORE_ID_AT], [7; 16]);
        assert_eq!(bytes[KEY_STORE_ID_AT..ENVELOPE_AT], [8; 16]);
        assert_eq!(bytes[ENVELOPE_AT..NONCE_AT], envelope.encode());
        assert_eq!(VolumeFile::decode(&bytes).unwrap(), file);
        for at in [
            MAGIC_AT,
            VERSION_AT,
            CIPHER_AT,
            CIPHER_AT + 1,
            FEATURES_AT,
            FEATURES_AT + 3,
            BLOCK_SIZE_AT,
        ] {
            let mut changed = bytes;
            changed[at] ^= 2;
            assert!(VolumeFile::decode(&changed).is_err(), "byte {at}");
        }
        assert!(VolumeFile::decode(&bytes[..203]).is_err());
    }
}
