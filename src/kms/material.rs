//! Usable keys: what wraps and unwraps data keys, once the key's policy and state have been found to allow it.

use std::sync::Arc;

use super::error::KmsError;
use super::key::KeyRecord;
use super::policy::Permission;
use super::state::{self, Operation};
use crate::crypto::envelope::{DataKey, WrappingKey};
use crate::format::envelope::{EncryptionContext, Envelope};

/// A material that may be used now, for one operation. Made by the check itself, so that no check can be skipped;
/// not kept, so that none grows stale.
pub struct UsableKey(Arc<WrappingKey>);

impl UsableKey {
    /// Checks the key's state, once its policy has given permission, and only then has the material loaded.
    pub(super) fn admit(
        key: &KeyRecord,
        _permission: &Permission,
        operation: Operation,
        load: impl FnOnce() -> Result<Arc<WrappingKey>, KmsError>,
    ) -> Result<Self, KmsError> {
        state::transition(key.key_state, operation)
            .map_err(|error| KmsError::from_state(key.key_id, error))?;
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
            .map_err(|_| KmsError::InvalidCiphertextException {
                key: self.0.key_id(),
            })
    }
}
