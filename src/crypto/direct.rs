//! Direct encryption of small secrets under a CMK's material (AWS's Encrypt and Decrypt). Facts: docs/FORMAT.md,
//! "Ciphertext".
//!
//! A ciphertext names its material by a hash of it, so it opens under one material only, though AES-GCM-SIV itself does
//! not commit to its key.

use zeroize::Zeroizing;

use super::aead::{AeadKey, AuthenticationError};
use super::kdf::{Kdf, Purpose};
use super::random;
use crate::format::ciphertext::{Ciphertext, CiphertextHeader, TextContext};
use crate::ids::{KeyId, MaterialId};

/// What encrypts small secrets under one material.
#[derive(Debug)]
pub struct DirectKey {
    key_id: KeyId,
    material_id: MaterialId,
    aead: AeadKey,
}

impl DirectKey {
    /// Derives the key from a material.
    #[must_use]
    pub fn new(key_id: KeyId, material_id: MaterialId, material: &Kdf) -> Self {
        Self {
            key_id,
            material_id,
            aead: AeadKey::new(&material.derive(Purpose::Encrypt)),
        }
    }

    /// Encrypts under a fresh nonce.
    #[must_use]
    pub fn encrypt(&self, plaintext: &[u8], context: &TextContext) -> Ciphertext {
        let header = CiphertextHeader::new(self.key_id, self.material_id, random::nonce());
        let mut bytes = plaintext.to_vec();
        let aad = header.aad(context);
        let tag = self.aead.seal(&header.nonce, &aad, &mut bytes);
        Ciphertext { header, bytes, tag }
    }

    /// Decrypts what [`Self::encrypt`] made in the same context.
    ///
    /// # Errors
    /// [`AuthenticationError`] for another key's, another material's or another context's, and for a tampered one.
    pub fn decrypt(
        &self,
        ciphertext: &Ciphertext,
        context: &TextContext,
    ) -> Result<Zeroizing<Vec<u8>>, AuthenticationError> {
        let header = &ciphertext.header;
        if header.key_id() != self.key_id || header.material_id() != self.material_id {
            return Err(AuthenticationError);
        }
        let mut bytes = Zeroizing::new(ciphertext.bytes.clone());
        let aad = header.aad(context);
        self.aead
            .open(&header.nonce, &aad, &mut bytes, &ciphertext.tag)?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::kdf::material_id;
    use crate::secret::Secret;

    fn direct_key() -> DirectKey {
        let material = Secret::random().unwrap();
        let key = KeyId::random();
        DirectKey::new(key, material_id(&key, &material), &Kdf::new(&material))
    }

    fn context(pairs: &[(&str, &str)]) -> TextContext {
        let pairs = pairs.iter();
        TextContext(
            pairs
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
        )
    }

    #[test]
    fn every_flipped_bit_and_every_other_context_is_refused() {
        let key = direct_key();
        let right = context(&[("for", "tests")]);
        let stored = key.encrypt(b"secret", &right).encode();
        let opened = key.decrypt(&Ciphertext::decode(&stored).unwrap(), &right);
        assert_eq!(&**opened.unwrap(), b"secret");
        for bit in 0..stored.len() * 8 {
            let mut flipped = stored.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            if let Ok(read) = Ciphertext::decode(&flipped) {
                assert!(key.decrypt(&read, &right).is_err(), "bit {bit}");
            }
        }
        let whole = Ciphertext::decode(&stored).unwrap();
        for wrong in [
            &[][..],
            &[("for", "test")],
            &[("for", "tests"), ("and", "")],
        ] {
            assert!(key.decrypt(&whole, &context(wrong)).is_err(), "{wrong:?}");
        }
        assert!(direct_key().decrypt(&whole, &right).is_err());
    }

    /// Written by the first version; every later one reads it.
    #[test]
    fn a_frozen_ciphertext_opens() {
        let material = Secret::take(&mut std::array::from_fn(|at| at as u8));
        let key = KeyId([7; 16]);
        let direct = DirectKey::new(key, material_id(&key, &material), &Kdf::new(&material));
        let read = Ciphertext::decode(&hex::decode(FROZEN).unwrap()).unwrap();
        let opened = direct.decrypt(&read, &context(&[("a", "b"), ("c", "d")]));
        assert_eq!(&**opened.unwrap(), b"a small secret");
    }

    const FROZEN: &str = "636d6b6673656e63010000000707070707070707070707070707070714239f77147edcb0\
        c813a8a029f1dacee249f4259b88c35ab9eb2abee4fa4e936c234d9ca3b3aef8d60b2381\
        0a158dceec99bf17c6f5f97dd9d88c05fd9ce1f5bf46e4f8800df72067f6";
}
