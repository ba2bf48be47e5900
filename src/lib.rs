//! cmkfs: an encrypting filesystem whose mounts obey their keys.
//!
//! Two paths run through this crate, and each file lies on one of them:
//!
//! ```text
//! data:  kernel → mount/session → fs/ops → fs/file → format/layout + crypto/block → backing file
//! keys:  CLI or mount → kms/service → policy → state → material → storage
//! ```
//!
//! They meet in one place, the port `fs::keys`. Imports point downwards only; docs/ARCHITECTURE.md has the floors, and
//! tests/architecture.rs keeps them.

#![deny(missing_docs, unsafe_code)]

pub mod cli;
pub mod clock;
pub mod crypto;
pub mod format;
pub mod fs;
pub mod ids;
pub mod kms;
pub mod mount;
pub mod secret;
pub mod sync;
pub mod sys;
pub mod volume;
