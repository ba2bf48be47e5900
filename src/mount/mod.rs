//! A running mount: from the ciphertext directory's core to the kernel, and back down on the last day.
//!
//! [`options`] what `-o` says · [`mountinfo`] what is mounted where · [`mountpoint`] checks, mounts, unmounts ·
//! [`fusermount`] the helper for ordinary users · [`session`] what answers the kernel · [`transport`] how its requests come ·
//! [`protocol`] the kernel's structures · [`processors`] of this machine · [`stats`] what it was asked · [`serve`] the life of a mount ·
//! [`revoke`] keys that change under it · `sharing` long work by a few threads · [`control`] how commands reach it · [`ticker`] threads that wake now and then · [`daemon`] into the background ·
//! [`confine`] what the process gives up · `second` the processes beside it: [`unmounter`] unmounts for it, and if it is killed and cannot die
//! ends the connection (`aborter`), [`syncer`] asks the mount itself ·
//! [`holders`] who keeps a mount busy · [`liveness`] whether one answers · [`error`] what can go wrong.

mod aborter;
pub mod confine;
pub mod control;
pub mod daemon;
pub mod error;
pub mod fusermount;
pub mod holders;
pub mod liveness;
pub mod mountinfo;
pub mod mountpoint;
pub mod options;
pub mod processors;
pub mod protocol;
pub mod revoke;
mod second;
pub mod serve;
pub mod session;
mod sharing;
pub mod stats;
pub mod syncer;
pub mod ticker;
pub mod transport;
pub mod unmounter;

pub use error::MountError;
pub use options::MountOptions;
