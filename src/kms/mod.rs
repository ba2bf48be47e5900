//! The local key service, after AWS KMS: customer master keys in a key directory.
//!
//! [`service`] one door, one method an operation · [`caller`] who asks · [`policy`] and
//! [`grant`] who may do what · [`state`] which operation is allowed in which state · [`key`] the words
//! of a key · `record` what is stored of it · [`metadata`] what is told of it · [`deletion`] · [`rotation`] · [`import`] ·
//! `due` what time alone does to it · [`alias`] names for keys · [`material`] usable keys · `cache` what was read and is
//! still so · `store` records on disk · `transaction` changing them · `journal` whole or not at all · `reserve` room for a
//! full disk · `event` what is written down of an operation, [`audit`] where · `create` making a key directory · `root` its
//! root key · `seal` sealed records · [`backup`] every record in one file ·
//! `verify` reads every record · `storage` files, locks, atomic replacement · [`error`] what can go wrong.

pub mod alias;
pub mod audit;
pub mod backup;
mod cache;
pub mod caller;
mod create;
pub mod deletion;
mod due;
pub mod error;
mod event;
pub mod grant;
pub mod import;
mod journal;
pub mod key;
pub mod material;
pub mod metadata;
pub mod policy;
mod record;
mod reserve;
pub mod root;
pub mod rotation;
mod seal;
pub mod service;
pub mod state;
mod storage;
mod store;
mod transaction;
mod verify;

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod tamper_tests;

pub use create::MOUNTS;
pub use error::{KeyUnavailable, KmsError};
pub use service::KeyService;
pub use verify::Verification;
