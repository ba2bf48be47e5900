//! `cmkfs init`: makes a volume.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};

use super::args::Global;
use super::message::CliError;
use super::{keystore, output};
use crate::fs::settings::Overwrites;
use crate::kms::KeyService;
use crate::kms::alias::AliasName;
use crate::kms::key::KeyRef;
use crate::mount::MountError;
use crate::volume;

/// The arguments of `cmkfs init`.
#[derive(Debug, Clone, Args)]
pub struct InitArgs {
    /// Empty or missing directory that is to hold the encrypted files.
    #[arg(value_name = "CIPHERDIR")]
    pub ciphertext: PathBuf,
    /// Key for the volume's files: key id or alias/NAME. Without it: the default key.
    #[arg(long, value_name = "KEY")]
    pub key: Option<KeyRef>,
    /// How blocks that are on the disk already are overwritten. journaled: a power cut leaves each as it was or as it was
    /// to be. in-place: writes half as much, and a power cut can make blocks unreadable that were being overwritten.
    #[arg(long, value_name = "HOW", value_enum, default_value = "journaled")]
    pub overwrites: OverwritesArg,
}

/// How blocks are overwritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum OverwritesArg {
    /// By way of a redo journal.
    #[default]
    Journaled,
    /// At once in their place.
    InPlace,
}

impl From<OverwritesArg> for Overwrites {
    fn from(arg: OverwritesArg) -> Self {
        match arg {
            OverwritesArg::Journaled => Self::Journaled,
            OverwritesArg::InPlace => Self::InPlace,
        }
    }
}

/// Runs `cmkfs init`.
///
/// # Errors
/// Why there is no new volume.
pub fn run(global: &Global, args: &InitArgs) -> Result<(), CliError> {
    make_volume(
        global,
        &args.ciphertext,
        args.key.as_ref(),
        args.overwrites.into(),
    )?;
    let text = format!("Created volume {}", args.ciphertext.display());
    output::done(global, &text)
}

/// Makes the directory where it is missing.
pub(super) fn make_directory(ciphertext: &Path) -> Result<(), MountError> {
    let mut builder = std::fs::DirBuilder::new();
    let made = builder.recursive(true).mode(0o700).create(ciphertext);
    made.map_err(|source| MountError::Unreachable {
        path: ciphertext.to_owned(),
        source,
    })
}

/// Makes a volume in an empty or missing directory, and the key directory where there is none yet.
///
/// # Errors
/// What the key service and the volume say.
pub(super) fn make_volume(
    global: &Global,
    ciphertext: &Path,
    key: Option<&KeyRef>,
    overwrites: Overwrites,
) -> Result<Arc<KeyService>, CliError> {
    let (keys, _) = keystore::open_or_create(global, false)?;
    let keys = Arc::new(keys);
    let default = KeyRef::Alias(AliasName::default_key());
    volume::create_with(ciphertext, &keys, key.unwrap_or(&default), overwrites)?;
    Ok(keys)
}
