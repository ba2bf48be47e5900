//! The root key of a key directory: made, sealed into the store file, unsealed again. Every record's key follows from it.
//!
//! A passphrase or the file `root.key` seals the root key and is not the root key itself, so either can be changed
//! without touching a record. Where a passphrase comes from is not decided here.

use std::path::Path;

use zeroize::Zeroizing;

use super::error::KmsError;
use super::storage;
use crate::crypto::aead::AeadKey;
use crate::crypto::kdf::{Kdf, Purpose};
use crate::crypto::passphrase::{Argon2Params, Passphrase};
use crate::crypto::random;
use crate::format::keystore::{Protection, StoreFile};
use crate::ids::KeyStoreId;
use crate::secret::Secret;

/// The store file of a key directory.
pub(super) const STORE: &str = "store";
/// The file that unlocks a key directory without passphrase.
pub(super) const ROOT_KEY: &str = "root.key";

/// Says the passphrase of a key directory, when one is needed.
pub trait PassphraseSource {
    /// The passphrase of the key directory at `dir`.
    ///
    /// # Errors
    /// [`KmsError::NoPassphrase`] where there is none to be had.
    fn existing(&self, dir: &Path) -> Result<Passphrase, KmsError>;

    /// A passphrase for the key directory about to be made at `dir`.
    ///
    /// # Errors
    /// [`KmsError::NoPassphrase`] where there is none to be had.
    fn chosen(&self, dir: &Path) -> Result<Passphrase, KmsError>;
}

/// What is to protect a new key directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewProtection {
    /// A root key file beside the records: whoever can read the directory can use its keys.
    RootKeyFile,
    /// A passphrase, stretched at this cost.
    Passphrase(Argon2Params),
}

/// What seals a root key.
pub(super) enum Protector {
    File(Secret<32>),
    Passphrase(Argon2Params, Passphrase),
}

/// Makes a root key and the store file that holds it.
pub(super) fn make(
    store: KeyStoreId,
    protector: &Protector,
) -> Result<(StoreFile, Secret<32>), KmsError> {
    let root_key = Secret::random()?;
    let (mut file, key);
    match protector {
        Protector::File(secret) => {
            file = StoreFile::new(store, Protection::RootKeyFile);
            key = sealing_key(secret);
        }
        Protector::Passphrase(params, passphrase) => {
            file = StoreFile::new(store, Protection::Passphrase);
            file.memory_kib = params.memory_kib();
            file.passes = params.passes();
            file.lanes = params.lanes();
            getrandom::fill(&mut file.salt)?;
            let stretched = params.stretch(passphrase, &file.salt);
            key = sealing_key(&stretched.map_err(|error| KmsError::NoPassphrase {
                why: error.to_string(),
            })?);
        }
    }
    seal(&mut file, &key, &root_key);
    Ok((file, root_key))
}

/// A root key, and what it was sealed under.
pub(super) struct Unlocked {
    pub root_key: Secret<32>,
    sealing: AeadKey,
}

impl Unlocked {
    /// Seals the root key anew, as `file` is to be now.
    pub(super) fn seal_into(&self, mut file: StoreFile) -> StoreFile {
        seal(&mut file, &self.sealing, &self.root_key);
        file
    }
}

fn seal(file: &mut StoreFile, sealing: &AeadKey, root_key: &Secret<32>) {
    file.nonce = random::nonce();
    let mut sealed = Zeroizing::new(*root_key.expose());
    file.tag = sealing.seal(&file.nonce, &file.aad(), sealed.as_mut_slice());
    file.root_key = *sealed;
}

/// Unseals the root key of the key directory at `dir`.
pub(super) fn unlock(
    dir: &Path,
    file: &StoreFile,
    passphrases: &dyn PassphraseSource,
) -> Result<Unlocked, KmsError> {
    let key = match file.protection() {
        Protection::RootKeyFile => sealing_key(&read_root_key(dir)?),
        Protection::Passphrase => {
            // The limits come before the question: a hostile file is refused without anybody typing.
            let params = Argon2Params::new(file.memory_kib, file.passes, file.lanes)
                .map_err(|error| KmsError::damaged(dir.join(STORE), error))?;
            let stretched = params.stretch(&passphrases.existing(dir)?, &file.salt);
            sealing_key(&stretched.map_err(|_| KmsError::WrongPassphrase {
                dir: dir.to_owned(),
            })?)
        }
    };
    let mut root_key = Zeroizing::new(file.root_key);
    match key.open(&file.nonce, &file.aad(), root_key.as_mut_slice(), &file.tag) {
        Ok(()) => Ok(Unlocked {
            root_key: Secret::take(&mut root_key),
            sealing: key,
        }),
        Err(_) => Err(match file.protection() {
            Protection::Passphrase => KmsError::WrongPassphrase {
                dir: dir.to_owned(),
            },
            Protection::RootKeyFile => KmsError::damaged(
                dir.join(STORE),
                format!("it and {ROOT_KEY} do not belong together, or one of them was edited"),
            ),
        }),
    }
}

fn read_root_key(dir: &Path) -> Result<Secret<32>, KmsError> {
    let path = dir.join(ROOT_KEY);
    let Some(mut snapshot) = storage::read(&path)? else {
        return Err(KmsError::damaged(path, "it is missing"));
    };
    storage::check_private(&path)?;
    match <&mut [u8; 32]>::try_from(snapshot.bytes.as_mut_slice()) {
        Ok(bytes) => Ok(Secret::take(bytes)),
        Err(_) => Err(KmsError::damaged(path, "it is not 32 bytes long")),
    }
}

fn sealing_key(secret: &Secret<32>) -> AeadKey {
    AeadKey::new(&Kdf::new(secret).derive(Purpose::Root))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kms::service::tests::Says;

    #[test]
    fn cost_and_salt_are_authenticated_and_limited() {
        let dir = tempfile::tempdir().unwrap();
        let protector = Protector::Passphrase(
            Argon2Params::CHEAP_AND_INSECURE,
            Says("open sesame").chosen(dir.path()).unwrap(),
        );
        let (file, root_key) = make(KeyStoreId::random(), &protector).unwrap();
        let unlocked = unlock(dir.path(), &file, &Says("open sesame")).unwrap();
        assert_eq!(unlocked.root_key, root_key);
        let wrong = unlock(dir.path(), &file, &Says("open sesamf"));
        assert!(matches!(wrong, Err(KmsError::WrongPassphrase { .. })));
        for change in [
            |file: &mut StoreFile| file.memory_kib += 1,
            |file: &mut StoreFile| file.passes += 1,
            |file: &mut StoreFile| file.salt[0] ^= 1,
            |file: &mut StoreFile| file.nonce[0] ^= 1,
            |file: &mut StoreFile| file.root_key[0] ^= 1,
            |file: &mut StoreFile| file.tag[0] ^= 1,
        ] {
            let mut changed = file;
            change(&mut changed);
            let refused = unlock(dir.path(), &changed, &Says("open sesame"));
            assert!(matches!(refused, Err(KmsError::WrongPassphrase { .. })));
        }
        let mut hostile = file;
        hostile.memory_kib = u32::MAX;
        let refused = unlock(dir.path(), &hostile, &Says("open sesame"));
        assert!(matches!(refused, Err(KmsError::Damaged { .. })));
    }
}
