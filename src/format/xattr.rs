//! Extended attributes as they are stored: which are encrypted, under what name, and what the sealed value holds.
//! docs/FORMAT.md, "Extended attributes". `crypto::xattr` seals.

use super::names;

/// What stands between the namespace and the encrypted name.
pub const INFIX: &str = "cmkfs.";
/// Longest plaintext name of an attribute, namespace included, in bytes.
pub const XATTR_NAME_MAX: usize = 255;
/// Bytes a sealed value needs besides name and value: nonce 12, name length 1, tag 16.
pub const OVERHEAD: usize = 29;

const NAMESPACES: [&str; 2] = ["user.", "trusted."];

/// How an attribute is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// Encrypted, name and value; only the namespace (with its dot) stays visible.
    Encrypted(&'static str),
    /// As it is: the kernel itself reads it.
    Clear,
    /// Not offered.
    Unsupported,
}

impl Storage {
    /// How the attribute of this name is stored.
    #[must_use]
    pub fn of(name: &[u8]) -> Self {
        for namespace in NAMESPACES {
            if let Some(rest) = name.strip_prefix(namespace.as_bytes()) {
                return if rest.is_empty() {
                    Self::Unsupported
                } else {
                    Self::Encrypted(namespace)
                };
            }
        }
        if name.starts_with(b"security.") || name.starts_with(b"system.posix_acl_") {
            return Self::Clear;
        }
        Self::Unsupported
    }
}

/// The stored name of an encrypted attribute.
#[must_use]
pub fn stored_name(namespace: &str, digest: &[u8; 16]) -> String {
    format!("{namespace}{INFIX}{}", names::to_text(digest))
}

/// Whether this is the stored name of an encrypted attribute.
#[must_use]
pub fn is_stored_name(name: &[u8]) -> bool {
    let rest = NAMESPACES
        .iter()
        .find_map(|namespace| name.strip_prefix(namespace.as_bytes()));
    rest.is_some_and(|rest| rest.starts_with(INFIX.as_bytes()))
}
