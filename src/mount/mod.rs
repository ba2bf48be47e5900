//! A running mount: from the ciphertext directory's core to the kernel, and back down on the last day.
//!
//! [`options`] what `-o` says · [`mountinfo`] what is mounted where · [`mountpoint`] checks, mounts, unmounts ·
//! [`fusermount`] the helper for ordinary users · [`session`] what answers the kernel · [`transport`] how its requests come ·
//! [`protocol`] the kernel's structures · [`processors`] of this machine · [`stats`] what it was asked · [`serve`] the life of a mount ·
//! [`revoke`] keys that change under it · [`control`] how commands reach it · [`ticker`] threads that wake now and then · [`daemon`] into the background ·
//! [`confine`] what the process gives up · [`unmounter`] the process that unmounts for it ·
//! [`holders`] who keeps a mount busy · [`error`] what can go wrong.

pub mod confine;
pub mod control;
pub mod daemon;
pub mod error;
pub mod fusermount;
pub mod holders;
pub mod mountinfo;
pub mod mountpoint;
pub mod options;
pub mod processors;
pub mod protocol;
pub mod revoke;
pub mod serve;
pub mod session;
pub mod stats;
pub mod ticker;
pub mod transport;
pub mod unmounter;

pub use error::MountError;
pub use options::MountOptions;
