//! The keys of one object, derived from its data key. What every operation needs is expanded at once, the rest on
//! demand. All of it zeroizes when dropped.

use super::aead::AeadKey;
use super::envelope::DataKey;
use super::kdf::{Kdf, Purpose};
use crate::format::envelope::ObjectKind;

/// The keys of a file, directory, symlink or volume.
#[derive(Debug)]
pub struct ObjectKeys {
    kdf: Kdf,
    main: AeadKey,
}

impl ObjectKeys {
    /// Derives the keys of an object.
    #[must_use]
    pub fn new(data_key: &DataKey, kind: ObjectKind) -> Self {
        let kdf = Kdf::new(data_key);
        let purpose = match kind {
            ObjectKind::File => Purpose::Content,
            ObjectKind::Directory => Purpose::Name,
            ObjectKind::Symlink => Purpose::Link,
            ObjectKind::Volume => Purpose::Volume,
        };
        let main = AeadKey::new(&kdf.derive(purpose));
        Self { kdf, main }
    }

    /// The key of what the object is there for: a file's blocks, a directory's names, a symlink's target, a volume's
    /// file.
    pub(super) const fn main(&self) -> &AeadKey {
        &self.main
    }

    /// A key that is needed too rarely to be kept expanded.
    pub(super) fn derive(&self, purpose: Purpose) -> AeadKey {
        AeadKey::new(&self.kdf.derive(purpose))
    }
}
