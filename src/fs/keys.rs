//! The port between the two paths: all that the filesystem asks of a key service. It never sees a CMK's state, and the
//! service never sees a path. The embedded key store implements it (`volume::keys`); a remote one could.

use crate::crypto::envelope::DataKey;
use crate::format::envelope::{EncryptionContext, Envelope};
use crate::format::header::KeyBinding;
use crate::ids::KeyId;

/// Why a key cannot be used. What the user sees of it is `FsError::errno`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyUnavailable {
    /// The CMK is disabled.
    #[error("the customer master key is disabled")]
    Disabled,
    /// The CMK waits for its deletion.
    #[error("the customer master key is pending deletion")]
    PendingDeletion,
    /// The CMK or the material is not there (never imported, deleted).
    #[error("the key material is not there")]
    NoMaterial,
    /// The imported material has expired.
    #[error("the key material has expired")]
    Expired,
    /// The envelope is not this key's, not this object's, or was tampered with.
    #[error("the wrapped data key does not belong to this key and object, or was tampered with")]
    Rejected,
    /// A policy denies it.
    #[error("the key policy denies the use of this key")]
    Denied,
    /// The key store cannot be read; its error is in the log.
    #[error("the key store cannot be read")]
    Store,
}

/// A key service as the filesystem sees it.
pub trait KeyPort: Send + Sync {
    /// Makes a data key for an object and wraps it under the CMK that the binding names *now* (an alias is resolved at
    /// this moment).
    ///
    /// # Errors
    /// Why the CMK cannot be used.
    fn generate_data_key(
        &self,
        binding: &KeyBinding,
        context: &EncryptionContext,
    ) -> Result<(DataKey, Envelope), KeyUnavailable>;

    /// Unwraps the data key of an object.
    ///
    /// # Errors
    /// Why the CMK cannot be used, or [`KeyUnavailable::Rejected`].
    fn unwrap_data_key(
        &self,
        envelope: &Envelope,
        context: &EncryptionContext,
    ) -> Result<DataKey, KeyUnavailable>;

    /// Wraps the data key of an object anew, under the current material of the CMK that the binding names *now*; `None`
    /// where that wraps it already.
    ///
    /// # Errors
    /// Why either CMK cannot be used, or [`KeyUnavailable::Rejected`].
    fn rewrap_data_key(
        &self,
        binding: &KeyBinding,
        envelope: &Envelope,
        context: &EncryptionContext,
    ) -> Result<Option<Envelope>, KeyUnavailable>;

    /// Whether the CMK may be used for unwrapping at this moment. Cheap: asked several times a second for every key in
    /// use.
    ///
    /// # Errors
    /// Why it may not.
    fn check(&self, key: &KeyId) -> Result<(), KeyUnavailable>;
}
