//! Tests of the key service as a whole.

use super::*;
use crate::crypto::passphrase::Passphrase;

/// A key directory without passphrase must not ask for one.
pub(in crate::kms) struct Never;

impl PassphraseSource for Never {
    fn existing(&self, _: &Path) -> Result<Passphrase, KmsError> {
        panic!("asked for a passphrase")
    }
    fn chosen(&self, _: &Path) -> Result<Passphrase, KmsError> {
        panic!("asked for a passphrase")
    }
}

/// Somebody who knows a passphrase.
pub(in crate::kms) struct Says(pub &'static str);

impl PassphraseSource for Says {
    fn existing(&self, _: &Path) -> Result<Passphrase, KmsError> {
        Ok(Passphrase::new(self.0.as_bytes().to_vec().into()))
    }
    fn chosen(&self, dir: &Path) -> Result<Passphrase, KmsError> {
        self.existing(dir)
    }
}
