//! Cryptography: the only files that name cipher crates. No I/O, no policy.
//!
//! [`aead`] AES-256-GCM-SIV · [`kdf`] HKDF-SHA256 and its labels · [`random`] nonces · [`envelope`] wrapped data keys ·
//! [`object`] the keys of one object · [`block`] file blocks · [`name`] names · [`header`] sealed headers ·
//! [`record`] sealed records (symlinks, xattrs, the volume file) · [`passphrase`] Argon2id.

pub mod aead;
pub mod envelope;
pub mod kdf;
pub mod passphrase;
pub mod random;
