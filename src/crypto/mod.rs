//! Cryptography: the only files that name cipher crates. No I/O, no policy.
//!
//! [`aead`] AES-256-GCM-SIV · [`kdf`] HKDF-SHA256 and its labels · [`random`] nonces · [`envelope`] wrapped data keys · [`direct`] small secrets ·
//! [`object`] the keys of one object · [`block`] file blocks · [`name`] names · [`header`] sealed headers and the volume
//! file · [`symlink`] targets · [`xattr`] extended attributes · [`passphrase`] Argon2id · [`chain`] HMAC-SHA256 over what was before ·
//! [`known_answer`] whether the cipher works here · [`counted`] how often all that was asked for.

pub mod aead;
pub mod block;
pub mod chain;
pub mod counted;
pub mod direct;
pub mod envelope;
pub mod header;
pub mod kdf;
pub mod known_answer;
pub mod name;
pub mod object;
pub mod passphrase;
pub mod random;
pub mod symlink;
pub mod xattr;
