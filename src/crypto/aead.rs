//! AES-256-GCM-SIV (RFC 8452) with detached tags. Owns the cipher; knows nothing of what is encrypted.

use aes_gcm_siv::aead::AeadInOut;
use aes_gcm_siv::aead::inout::InOutBuf;
use aes_gcm_siv::aes::Aes256Enc;
use aes_gcm_siv::{AesGcmSiv, KeyInit};

use super::counted::note;
use crate::secret::{Secret, locked};
use crate::sys::locked::Locked;

/// Bytes of a nonce.
pub const NONCE_LEN: usize = 12;
/// Bytes of an authentication tag.
pub const TAG_LEN: usize = 16;

/// A nonce. Random for everything but names, which are encrypted deterministically.
pub type Nonce = [u8; NONCE_LEN];
/// An authentication tag.
pub type Tag = [u8; TAG_LEN];

/// The ciphertext is not what was encrypted under this key, nonce and AAD.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("authentication failed")]
pub struct AuthenticationError;

/// AES for encryption only: GCM-SIV decrypts by that too, and each message has round keys of its own.
type Aes256GcmSiv = AesGcmSiv<Aes256Enc>;

/// An expanded AES-256-GCM-SIV key; its round keys zeroize when dropped.
pub struct AeadKey(Locked<Aes256GcmSiv>);

impl std::fmt::Debug for AeadKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AeadKey(…)")
    }
}

impl AeadKey {
    /// Expands `key`.
    #[must_use]
    pub fn new(key: &Secret<32>) -> Self {
        note(|counted| counted.keys += 1);
        Self(locked(|| Aes256GcmSiv::new(key.expose().into())))
    }

    /// Encrypts `buffer` in place and returns the tag.
    #[must_use]
    pub fn seal(&self, nonce: &Nonce, aad: &[u8], buffer: &mut [u8]) -> Tag {
        self.seal_inout(nonce, aad, buffer.into())
    }

    /// Encrypts `plaintext` into `ciphertext` in one pass without an extra copy, and returns the tag.
    ///
    /// # Panics
    /// Where the two differ in length: that is the caller's mistake, never the input's.
    #[must_use]
    pub fn seal_to(
        &self,
        nonce: &Nonce,
        aad: &[u8],
        plaintext: &[u8],
        ciphertext: &mut [u8],
    ) -> Tag {
        let buffer = InOutBuf::new(plaintext, ciphertext).expect("equal lengths, by contract");
        self.seal_inout(nonce, aad, buffer)
    }

    /// Decrypts `buffer` in place.
    ///
    /// # Errors
    /// [`AuthenticationError`]; the buffer then holds the ciphertext again, never unauthenticated plaintext.
    pub fn open(
        &self,
        nonce: &Nonce,
        aad: &[u8],
        buffer: &mut [u8],
        tag: &Tag,
    ) -> Result<(), AuthenticationError> {
        note(|counted| counted.aead += 1);
        self.0
            .decrypt_inout_detached(nonce.into(), aad, buffer.into(), tag.into())
            .map_err(|_| AuthenticationError)
    }

    fn seal_inout(&self, nonce: &Nonce, aad: &[u8], buffer: InOutBuf<'_, '_, u8>) -> Tag {
        note(|counted| counted.aead += 1);
        // The cipher refuses only what is longer than 64 GiB (RFC 8452, section 6); callers seal at most some KiB.
        let tag = self.0.encrypt_inout_detached(nonce.into(), aad, buffer);
        tag.expect("shorter than 64 GiB").into()
    }
}
