//! The transparently encrypting filesystem, free of FUSE types: plain values in, plain values out, `&self` throughout,
//! buffers owned by the caller. A transport (`mount/`) translates the kernel's requests into these calls and decides
//! nothing.
//!
//! [`ops`] one method a filesystem operation · [`inodes`] what the transport knows by number · [`file`] the data path ·
//! [`directory`] headers and names · [`keys`] the port to the key path · [`lease`] keys that can be revoked under us ·
//! [`object`] data keys in use · [`flaw`] what verifying finds · [`backing`] the directory that holds the ciphertext · [`error`] what can go wrong.

pub mod backing;
pub mod core;
mod directory;
pub mod error;
mod file;
pub mod flaw;
mod inodes;
mod journals;
pub mod keys;
pub mod lease;
pub mod object;
mod ops;
pub mod settings;
pub mod types;

pub use error::{FsError, FsResult};
pub use ops::{
    Entry, FileSystem, Listed, Listing, Maintenance, SideFiles, Withdrawn, WithdrawnName,
};
pub use types::*;
