//! Each way in which something stored can be damaged: `cmkfs volume verify` names the object and the kind of damage and
//! ends with the exit code for it, and reading gives an error, never other plaintext. And what a repair heals: a second
//! verification finds nothing, and everything users have made is still there.

#[path = "../support/mod.rs"]
mod support;

mod bed;
mod directories;
mod files;
mod links;
mod names;
mod repair;
mod sound;

/// Everything is as it was written.
const SOUND: i32 = 0;
/// Something is damaged.
const DAMAGED: i32 = 9;
/// The volume is mounted.
const IN_USE: i32 = 10;
/// Not everything could be verified.
const NOT_VERIFIED: i32 = 13;
