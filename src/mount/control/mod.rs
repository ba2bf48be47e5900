//! The control socket: how a command reaches the mounts that use a key directory. Every mount listens on a socket of its
//! own in `KEYS/mounts`, the one place that all mounts of a key directory, and all commands that change its keys, have in
//! common, whoever runs them. It listens before it opens the volume: a command that has changed a key and then asks
//! everybody here has missed nobody who could have seen the key as it was.
//!
//! [`protocol`] what is said · [`registry`] where the sockets are · [`server`] the mount's side · [`handler`] what each
//! request does · [`client`] the command's side.

pub mod client;
pub mod handler;
pub mod protocol;
pub mod registry;
pub mod server;
