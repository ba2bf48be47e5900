//! `cmkfs init`: makes a volume.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::mount::MountError;
use crate::volume::{self, VolumeError};

/// Make a volume.
#[derive(Debug, Clone, Args)]
pub struct InitArgs {
    /// Empty or missing directory that will hold the encrypted files
    #[arg(value_name = "CIPHERDIR")]
    pub ciphertext: PathBuf,
    /// Key under which the volume's files are wrapped: key id or alias/NAME [default: alias/cmkfs/default]
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
}

/// Runs the command: `create` makes the volume in a directory that exists and is empty.
///
/// # Errors
/// [`VolumeError::NotEmpty`] where there is something already, and whatever making the volume fails with.
pub fn run<T, E>(args: &InitArgs, create: impl FnOnce(&Path) -> Result<T, E>) -> Result<T, E>
where
    E: From<MountError> + From<VolumeError>,
{
    let path = &args.ciphertext;
    let failed = |source| MountError::Unreachable {
        path: path.clone(),
        source,
    };
    fs::create_dir_all(path).map_err(failed)?;
    let is_occupied = volume::exists(path)? || fs::read_dir(path).map_err(failed)?.next().is_some();
    if is_occupied {
        return Err(VolumeError::NotEmpty { path: path.clone() }.into());
    }
    create(path)
}
