//! Hash chains with a key (HMAC-SHA256): each link covers a text and the link before it, so that whoever lacks the key can
//! neither change, insert, leave out nor reorder texts.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use crate::secret::{Secret, locked};
use crate::sys::locked::Locked;

/// A link: what covers a text and all before it.
pub type Link = [u8; 32];

/// The key of a chain. Its expanded state zeroizes when dropped.
pub struct ChainKey(Locked<Hmac<Sha256>>);

impl std::fmt::Debug for ChainKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ChainKey(…)")
    }
}

impl ChainKey {
    /// Expands `key`.
    #[must_use]
    pub fn new(key: &Secret<32>) -> Self {
        // HMAC takes keys of every length (RFC 2104).
        Self(locked(|| {
            Hmac::new_from_slice(key.expose()).expect("a key of any length")
        }))
    }

    /// The link of `text` after `previous`: HMAC(`previous` ‖ `text`).
    #[must_use]
    pub fn link(&self, previous: &[u8], text: &[u8]) -> Link {
        let mac = (*self.0).clone().chain_update(previous).chain_update(text);
        mac.finalize().into_bytes().into()
    }
}

/// SHA-256 of a file's content, for people to compare.
#[must_use]
pub fn fingerprint(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_depends_on_the_key_the_text_and_what_was_before() {
        let key = |byte| ChainKey::new(&Secret::take(&mut [byte; 32]));
        let link = key(1).link(&[0; 32], b"text");
        assert_eq!(key(1).link(&[0; 32], b"text"), link);
        assert_ne!(key(2).link(&[0; 32], b"text"), link);
        assert_ne!(key(1).link(&[1; 32], b"text"), link);
        assert_ne!(key(1).link(&[0; 32], b"texts"), link);
    }
}
