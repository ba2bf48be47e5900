//! HKDF-SHA256 (RFC 5869) and the labels of every key cmkfs derives: one key, one purpose, one label.

use hkdf::Hkdf;
use sha2::{Digest, Sha256};

use super::counted::note;
use crate::ids::{KeyId, MaterialId};
use crate::secret::{Secret, leaving_nothing, locked};
use crate::sys::locked::Locked;

/// What a derived key is for: the `info` input of HKDF.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// CMK material → the key that wraps data keys.
    Wrap,
    /// CMK material → the key that encrypts small secrets directly.
    Encrypt,
    /// Data key → the commitment stored in its envelope.
    Commit,
    /// Data key → the key of a file's blocks.
    Content,
    /// Data key → the key of an object's sealed header.
    Header,
    /// Data key of a directory → the key of the names in it.
    Name,
    /// Data key of a symlink → the key of its target.
    Link,
    /// Data key → the key that turns xattr names into their stored names.
    XattrName,
    /// Data key → the key of xattr values.
    XattrValue,
    /// Volume key → the key that authenticates the volume file.
    Volume,
    /// Root key of a key directory → the key that seals its records.
    Record,
    /// Root key of a key directory → the key that chains its audit log.
    Audit,
    /// Stretched passphrase → the key that seals a backup of a key directory.
    Backup,
    /// Root key file or stretched passphrase → the key that seals the root key of a key directory.
    Root,
}

impl Purpose {
    /// The label, as docs/FORMAT.md lists it.
    #[must_use]
    pub const fn info(self) -> &'static [u8] {
        match self {
            Self::Wrap => b"cmkfs v1 wrap",
            Self::Encrypt => b"cmkfs v1 encrypt",
            Self::Commit => b"cmkfs v1 commit",
            Self::Content => b"cmkfs v1 content",
            Self::Header => b"cmkfs v1 header",
            Self::Name => b"cmkfs v1 name",
            Self::Link => b"cmkfs v1 link",
            Self::XattrName => b"cmkfs v1 xattr name",
            Self::XattrValue => b"cmkfs v1 xattr value",
            Self::Volume => b"cmkfs v1 volume",
            Self::Record => b"cmkfs v1 record",
            Self::Audit => b"cmkfs v1 audit",
            Self::Backup => b"cmkfs v1 backup",
            Self::Root => b"cmkfs v1 root",
        }
    }
}

/// The keys that can be derived from one secret. The extract step runs once, however many keys are asked for.
pub struct Kdf(Locked<Hkdf<Sha256>>);

impl std::fmt::Debug for Kdf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Kdf(…)")
    }
}

impl Kdf {
    /// HKDF-Extract without salt over a full-entropy secret.
    #[must_use]
    pub fn new(secret: &Secret<32>) -> Self {
        note(|counted| counted.kdf += 1);
        Self(locked(|| Hkdf::new(None, secret.expose())))
    }

    /// HKDF-Expand to `N` bytes (at most 8,160) for one purpose.
    #[must_use]
    pub fn derive<const N: usize>(&self, purpose: Purpose) -> Secret<N> {
        note(|counted| counted.kdf += 1);
        let expand = || {
            Secret::fill_with(|key| {
                // HKDF-Expand refuses only more than 255 hashes' worth of output.
                self.0
                    .expand(purpose.info(), key)
                    .expect("N is at most 8,160");
            })
        };
        leaving_nothing(expand)
    }
}

/// The id of a material: SHA-256("cmkfs material v1" ‖ key id ‖ material).
#[must_use]
pub fn material_id(key: &KeyId, material: &Secret<32>) -> MaterialId {
    let digest = Sha256::new()
        .chain_update(b"cmkfs material v1")
        .chain_update(key.as_bytes())
        .chain_update(material.expose())
        .finalize();
    MaterialId(digest.into())
}

/// What an alias's record is filed under: SHA-256("cmkfs alias v1" ‖ name). An alias may be longer than a file name.
#[must_use]
pub fn alias_digest(name: &str) -> [u8; 32] {
    let digest = Sha256::new()
        .chain_update(b"cmkfs alias v1")
        .chain_update(name.as_bytes())
        .finalize();
    digest.into()
}
