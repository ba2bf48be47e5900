//! `cmkfs init`: makes a volume.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;

use super::args::Global;
use super::message::CliError;
use super::{keystore, output};
use crate::kms::KeyService;
use crate::kms::key::KeyRef;
use crate::mount::MountError;
use crate::volume::{self, VolumeError};

/// The arguments of `cmkfs init`.
#[derive(Debug, Clone, Args)]
pub struct InitArgs {
    /// Empty or missing directory that is to hold the encrypted files.
    #[arg(value_name = "CIPHERDIR")]
    pub ciphertext: PathBuf,
    /// Key for the volume's files: key id or alias/NAME. Without it: the default key.
    #[arg(long, value_name = "KEY")]
    pub key: Option<KeyRef>,
}

/// Runs `cmkfs init`.
///
/// # Errors
/// Why there is no new volume.
pub fn run(global: &Global, args: &InitArgs) -> Result<(), CliError> {
    make_directory(&args.ciphertext)?;
    make_volume(global, &args.ciphertext, args.key.as_ref())?;
    output::done(
        global,
        &format!("Created volume {}", args.ciphertext.display()),
    )
}

/// Makes the directory where it is missing.
///
/// # Errors
/// [`VolumeError::NotEmpty`] where something is in it.
pub(super) fn make_directory(ciphertext: &Path) -> Result<(), CliError> {
    let failed = |source| MountError::Unreachable {
        path: ciphertext.to_owned(),
        source,
    };
    fs::create_dir_all(ciphertext).map_err(failed)?;
    match fs::read_dir(ciphertext).map_err(failed)?.next() {
        None => Ok(()),
        Some(_) => Err(VolumeError::NotEmpty {
            path: ciphertext.to_owned(),
        }
        .into()),
    }
}

/// Makes a volume in an empty directory, and the key directory where there is none yet.
///
/// # Errors
/// What the key service and the volume say.
pub(super) fn make_volume(
    global: &Global,
    ciphertext: &Path,
    key: Option<&KeyRef>,
) -> Result<KeyService, CliError> {
    let (keys, _) = keystore::open_or_create(global, false)?;
    let _ = key;
    volume::create(ciphertext)?;
    Ok(keys)
}
