//! `cmkfs volume`: looking at a volume as a whole, verifying it, and removing what is dead in it.

pub mod info;
pub mod purge;
pub mod verify;

use std::path::{Path, PathBuf};

use clap::Subcommand;

use super::args::Global;
use super::message::CliError;
use super::reach;
use crate::sys::process::raise_descriptor_limit;
use crate::volume;

/// `cmkfs volume …`
#[derive(Debug, Subcommand)]
pub enum VolumeCommand {
    /// Show a volume's bindings, and what each key and material guards.
    ///
    /// Works on a mounted volume, too. Then it is no snapshot: what is renamed meanwhile may be counted twice or not at all.
    Info(info::InfoArgs),
    /// Verify everything that is stored, and heal what heals without guessing.
    ///
    /// Works on a mounted volume, too. Then it is no snapshot: what is renamed meanwhile may be counted twice.
    Verify(verify::VerifyArgs),
    /// Remove the files that no key can open any more.
    ///
    /// That are those under a key that is deleted. Files under a key that is disabled, or pending deletion, stay.
    Purge(purge::PurgeArgs),
}

/// Runs `cmkfs volume`.
///
/// # Errors
/// Why it failed.
pub fn run(global: &Global, command: &VolumeCommand) -> Result<(), CliError> {
    // A walk holds one descriptor for each level of directories.
    raise_descriptor_limit();
    match command {
        VolumeCommand::Info(args) => info::run(global, args),
        VolumeCommand::Verify(args) => verify::run(global, args),
        VolumeCommand::Purge(args) => purge::run(global, args),
    }
}

/// The backing directory that is meant: the one given or, for a path in a mounted volume, that volume's.
///
/// # Errors
/// Where the path cannot be looked at.
pub fn ciphertext_of(path: &Path) -> Result<PathBuf, CliError> {
    // In a mount whose key is refused nobody can tell.
    if volume::exists(path).unwrap_or(false) {
        return Ok(path.to_owned());
    }
    let mount = reach::mount_of(path)?;
    Ok(mount.map_or_else(|| path.to_owned(), |mount| mount.source.into()))
}
