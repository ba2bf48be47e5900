//! Envelope encryption: wraps a data key under a CMK's material and unwraps it. Facts: docs/FORMAT.md, "Keys".
//!
//! Whether the material may be used is not decided here: `kms::service` hands it out only after it has checked.

use subtle::ConstantTimeEq;

use super::aead::AeadKey;
use super::direct::DirectKey;
use super::kdf::{Kdf, Purpose};
use super::random;
use crate::format::envelope::{EncryptionContext, Envelope};
use crate::ids::{KeyId, MaterialId};
use crate::secret::Secret;

/// A data key: 32 random bytes from which an object's keys are derived.
pub type DataKey = Secret<32>;

/// The envelope cannot be opened with this key in this context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the wrapped data key does not belong to this key material and encryption context, or was tampered with"
)]
pub struct UnwrapError;

/// The wrapping key of one material of one CMK.
#[derive(Debug)]
pub struct WrappingKey {
    key_id: KeyId,
    material_id: MaterialId,
    aead: AeadKey,
    direct: DirectKey,
}

impl WrappingKey {
    /// Derives the wrapping key of a material.
    #[must_use]
    pub fn new(key_id: KeyId, material_id: MaterialId, material: &Secret<32>) -> Self {
        let material = Kdf::new(material);
        Self {
            key_id,
            material_id,
            aead: AeadKey::new(&material.derive(Purpose::Wrap)),
            direct: DirectKey::new(key_id, material_id, &material),
        }
    }

    /// What encrypts small secrets under the same material.
    #[must_use]
    pub const fn direct(&self) -> &DirectKey {
        &self.direct
    }

    /// The CMK this belongs to.
    #[must_use]
    pub const fn key_id(&self) -> KeyId {
        self.key_id
    }

    /// The material this was derived from.
    #[must_use]
    pub const fn material_id(&self) -> MaterialId {
        self.material_id
    }

    /// Wraps `data_key` for the object that `context` names, under a fresh nonce.
    #[must_use]
    pub fn wrap(&self, data_key: &DataKey, context: &EncryptionContext) -> Envelope {
        let nonce = random::nonce();
        let mut ciphertext = *data_key.expose();
        let tag = self.aead.seal(&nonce, &context.encode(), &mut ciphertext);
        Envelope::new(
            self.key_id,
            self.material_id,
            nonce,
            ciphertext,
            tag,
            commitment(data_key),
        )
    }

    /// Unwraps the data key of the object that `context` names.
    ///
    /// # Errors
    /// [`UnwrapError`] for another key's, another material's or another object's envelope, and for a tampered one.
    pub fn unwrap(
        &self,
        envelope: &Envelope,
        context: &EncryptionContext,
    ) -> Result<DataKey, UnwrapError> {
        if envelope.key_id() != self.key_id || envelope.material_id() != self.material_id {
            return Err(UnwrapError);
        }
        let mut bytes = envelope.ciphertext;
        self.aead
            .open(
                &envelope.nonce,
                &context.encode(),
                &mut bytes,
                &envelope.tag,
            )
            .map_err(|_| UnwrapError)?;
        let data_key = DataKey::take(&mut bytes);
        if bool::from(commitment(&data_key).ct_eq(&envelope.commitment)) {
            Ok(data_key)
        } else {
            Err(UnwrapError)
        }
    }
}

fn commitment(data_key: &DataKey) -> [u8; 16] {
    *Kdf::new(data_key).derive::<16>(Purpose::Commit).expose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::kdf::material_id;
    use crate::format::envelope::ObjectKind;
    use crate::ids::{ObjectId, VolumeId};

    fn wrapping_key() -> WrappingKey {
        let material = Secret::random().unwrap();
        let key = KeyId::random();
        WrappingKey::new(key, material_id(&key, &material), &material)
    }

    fn context() -> EncryptionContext {
        EncryptionContext {
            volume: VolumeId::random(),
            object: ObjectId::random(),
            kind: ObjectKind::File,
        }
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        let (key, context, data_key) = (wrapping_key(), context(), DataKey::random().unwrap());
        let envelope = key.wrap(&data_key, &context);
        assert_eq!(key.unwrap(&envelope, &context).unwrap(), data_key);
        let bytes = envelope.encode();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            let envelope = Envelope::decode(&flipped).unwrap();
            assert_eq!(
                key.unwrap(&envelope, &context).err(),
                Some(UnwrapError),
                "bit {bit}"
            );
        }
    }

    #[test]
    fn another_context_or_key_is_refused() {
        let (key, context, data_key) = (wrapping_key(), context(), DataKey::random().unwrap());
        let envelope = key.wrap(&data_key, &context);
        for other in [
            EncryptionContext {
                volume: VolumeId::random(),
                ..context
            },
            EncryptionContext {
                object: ObjectId::random(),
                ..context
            },
            EncryptionContext {
                kind: ObjectKind::Directory,
                ..context
            },
        ] {
            assert!(key.unwrap(&envelope, &other).is_err());
        }
        assert!(wrapping_key().unwrap(&envelope, &context).is_err());
    }
}
