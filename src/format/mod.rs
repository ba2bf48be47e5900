//! Bytes on disk: no I/O, no crypto, no time. docs/FORMAT.md is the byte-exact twin of this folder.
//!
//! [`layout`] where blocks lie in a backing file · [`journal`] blocks that are to be overwritten · [`slot`] the two entries that guard a block · [`header`] the header of
//! an object · [`envelope`] a wrapped data key · [`names`] names in the backing directory · [`symlink`] targets ·
//! [`xattr`] extended attributes · [`ciphertext`] a small secret · [`volume`] the volume file · [`keystore`] the files of a key directory, [`backup`] a backup of it · [`codec`] the
//! one bincode configuration.

pub mod backup;
pub mod ciphertext;
pub mod codec;
pub mod envelope;
pub mod header;
pub mod journal;
pub mod keystore;
pub mod layout;
pub mod names;
pub mod slot;
pub mod symlink;
pub mod volume;
pub mod xattr;
