//! The local key service, after AWS KMS: customer master keys in a key directory.
//!
//! [`service`] one door, one method an operation · [`state`] which operation is allowed in which state · [`key`] what is
//! known of a key · [`alias`] names for keys · [`material`] usable keys · `cache` what was read and is still so ·
//! `store` records on disk · `create` making a key directory · `root` its root key · `seal` sealed records ·
//! `verify` reads every record · `storage` files, locks, atomic replacement · [`error`] what can go wrong.

pub mod alias;
mod cache;
mod create;
pub mod error;
pub mod key;
pub mod material;
pub mod root;
mod seal;
pub mod service;
pub mod state;
mod storage;
mod store;
mod verify;

#[cfg(test)]
mod tamper_tests;

pub use create::MOUNTS;
pub use error::{KeyUnavailable, KmsError};
pub use service::KeyService;
pub use verify::Verification;
