//! The transparently encrypting filesystem, free of FUSE types: plain values in, plain values out, `&self` throughout,
//! buffers owned by the caller. A transport (`mount/`) translates the kernel's requests into these calls and decides
//! nothing.
//!
//! [`ops`] one method a filesystem operation · [`inodes`] what the transport knows by number · [`file`] the data path ·
//! [`dir`] names and listings · [`keys`] the port to the key path · [`lease`] keys that can be revoked under us ·
//! [`backing`] the directory that holds the ciphertext · [`error`] what can go wrong, as errno.

pub mod error;
pub mod keys;
pub mod lease;
pub mod stub;
pub mod types;
pub use stub::FileSystem;

pub use error::{FsError, FsResult};
pub use types::*;
