//! Usable keys: what wraps and unwraps data keys and small secrets, once the key's policy and state have been found
//! to allow it.

use std::sync::Arc;

use zeroize::Zeroizing;

use super::error::{InvalidCiphertext, KmsError};
use super::policy::Permission;
use super::record::KeyRecord;
use super::state::Operation;
use crate::clock::Timestamp;
use crate::crypto::envelope::{DataKey, WrappingKey};
use crate::format::ciphertext::{Ciphertext, TextContext};
use crate::format::envelope::{EncryptionContext, Envelope};
use crate::ids::MaterialId;

/// A material that may be used now, for one operation. Made by the check itself, so that no check can be skipped;
/// not kept, so that none grows stale.
pub struct UsableKey(Arc<WrappingKey>);

impl UsableKey {
    /// Checks the key's state, once its policy has given permission, and only then has the material loaded.
    pub(super) fn admit(
        key: &KeyRecord,
        _permission: &Permission,
        now: Timestamp,
        operation: Operation,
        load: impl FnOnce() -> Result<Arc<WrappingKey>, KmsError>,
    ) -> Result<Self, KmsError> {
        key.after(operation, now)
            .map_err(|error| KmsError::from_state(key.key_id, operation, error))?;
        load().map(Self)
    }

    /// Wraps a data key.
    #[must_use]
    pub fn wrap(self, data_key: &DataKey, context: &EncryptionContext) -> Envelope {
        self.0.wrap(data_key, context)
    }

    /// Unwraps a data key.
    ///
    /// # Errors
    /// [`KmsError::InvalidCiphertextException`].
    pub fn unwrap(
        self,
        envelope: &Envelope,
        context: &EncryptionContext,
    ) -> Result<DataKey, KmsError> {
        self.0
            .unwrap(envelope, context)
            .map_err(|_| self.rejected())
    }

    /// Encrypts a small secret.
    #[must_use]
    pub fn encrypt(self, plaintext: &[u8], context: &TextContext) -> Ciphertext {
        self.0.direct().encrypt(plaintext, context)
    }

    /// Decrypts a small secret.
    ///
    /// # Errors
    /// [`KmsError::InvalidCiphertextException`].
    pub fn decrypt(
        self,
        ciphertext: &Ciphertext,
        context: &TextContext,
    ) -> Result<Zeroizing<Vec<u8>>, KmsError> {
        let opened = self.0.direct().decrypt(ciphertext, context);
        opened.map_err(|_| self.rejected())
    }

    /// The material's id.
    #[must_use]
    pub fn material_id(&self) -> MaterialId {
        self.0.material_id()
    }

    fn rejected(&self) -> KmsError {
        KmsError::InvalidCiphertextException(InvalidCiphertext::Rejected {
            key: self.0.key_id(),
        })
    }
}
