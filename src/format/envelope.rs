//! The envelope: a data key wrapped under one material of one CMK. Bytes only; `crypto::envelope` wraps and unwraps.

use bincode::{Decode, Encode};

use super::codec::{self, FormatError};
use crate::ids::{KeyId, MaterialId, ObjectId, VolumeId};

/// Offset of the key id (16 bytes).
pub const KEY_ID: usize = 0;
/// Offset of the material id (32 bytes).
pub const MATERIAL_ID: usize = 16;
/// Offset of the nonce (12 bytes).
pub const NONCE: usize = 48;
/// Offset of the wrapped data key (32 bytes).
pub const CIPHERTEXT: usize = 60;
/// Offset of the tag (16 bytes).
pub const TAG: usize = 92;
/// Offset of the commitment (16 bytes).
pub const COMMITMENT: usize = 108;
/// Bytes of an envelope.
pub const ENVELOPE_LEN: usize = 124;
/// Bytes of an encoded encryption context.
pub const CONTEXT_LEN: usize = 40;

/// A wrapped data key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Envelope {
    key_id: [u8; 16],
    material_id: [u8; 32],
    /// Nonce of the wrapping.
    pub nonce: [u8; 12],
    /// The data key, encrypted.
    pub ciphertext: [u8; 32],
    /// Tag of the wrapping.
    pub tag: [u8; 16],
    /// Commits to the data key: AES-GCM-SIV alone does not.
    pub commitment: [u8; 16],
}

impl Envelope {
    /// Puts an envelope together.
    #[must_use]
    pub const fn new(
        key: KeyId,
        material: MaterialId,
        nonce: [u8; 12],
        ciphertext: [u8; 32],
        tag: [u8; 16],
        commitment: [u8; 16],
    ) -> Self {
        Self {
            key_id: key.0,
            material_id: material.0,
            nonce,
            ciphertext,
            tag,
            commitment,
        }
    }

    /// The CMK that wraps the data key.
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
    pub fn encode(&self) -> [u8; ENVELOPE_LEN] {
        codec::encode(self)
    }

    /// Reads stored bytes. Every 124 bytes are an envelope; whether it is a true one shows on unwrapping.
    ///
    /// # Errors
    /// [`FormatError::Length`].
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        codec::decode("envelope", ENVELOPE_LEN, bytes)
    }
}

/// What kind of object a data key belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ObjectKind {
    /// A regular file.
    File = 1,
    /// A directory.
    Directory = 2,
    /// A symbolic link.
    Symlink = 3,
    /// The volume itself.
    Volume = 4,
}

impl ObjectKind {
    /// The name that audit records and errors use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Directory => "directory",
            Self::Symlink => "symlink",
            Self::Volume => "volume",
        }
    }
}

/// The encryption context of a data key: which object of which volume it belongs to. Authenticated with the envelope,
/// logged by the audit, not secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncryptionContext {
    /// The volume.
    pub volume: VolumeId,
    /// The object in it.
    pub object: ObjectId,
    /// The object's kind.
    pub kind: ObjectKind,
}

impl EncryptionContext {
    /// The canonical bytes: "cmkfs/1" · kind 1 · volume id 16 · object id 16.
    #[must_use]
    pub fn encode(&self) -> [u8; CONTEXT_LEN] {
        let mut bytes = [0; CONTEXT_LEN];
        bytes[..7].copy_from_slice(b"cmkfs/1");
        bytes[7] = self.kind as u8;
        bytes[8..24].copy_from_slice(self.volume.as_bytes());
        bytes[24..40].copy_from_slice(self.object.as_bytes());
        bytes
    }
}
