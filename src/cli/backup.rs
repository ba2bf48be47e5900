//! `cmkfs keys backup` and `cmkfs keys restore`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Args;
use serde::Serialize;

use super::args::Global;
use super::keystore::{self, Asked};
use super::message::CliError;
use super::output::{self, Format, OutputArgs};
use crate::clock::SystemClock;
use crate::crypto::passphrase::Argon2Params;
use crate::kms::backup::{Backup, Restored};
use crate::kms::root::PassphraseSource;
use crate::kms::{KeyService, KmsError};

/// Where a backup's passphrase comes from.
#[derive(Debug, Args)]
pub struct BackupPassphrase {
    /// Read the backup's passphrase from the first line of FILE.
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "backup_passphrase_command"
    )]
    backup_passphrase_file: Option<PathBuf>,
    /// Read the backup's passphrase from the first line that CMD prints (run by the shell).
    #[arg(long, value_name = "CMD")]
    backup_passphrase_command: Option<String>,
}

impl BackupPassphrase {
    fn asked(&self) -> Asked<'_> {
        Asked {
            file: self.backup_passphrase_file.as_deref(),
            command: self.backup_passphrase_command.as_deref(),
        }
    }
}

/// The arguments of `cmkfs keys backup`.
#[derive(Debug, Args)]
pub struct BackupArgs {
    /// The file to write.
    file: PathBuf,
    /// Replace the file where it is there.
    #[arg(long)]
    force: bool,
    /// Its passphrase.
    #[command(flatten)]
    passphrase: BackupPassphrase,
    /// How to print what was written.
    #[command(flatten)]
    output: OutputArgs,
}

/// The arguments of `cmkfs keys restore`.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// The backup.
    file: PathBuf,
    /// Bring back what was deleted or destroyed since, too.
    #[arg(long)]
    include_deleted: bool,
    /// Protect a new key directory with a passphrase; asked for on the terminal or taken from --passphrase-file or
    /// --passphrase-command.
    #[arg(long)]
    passphrase: bool,
    /// The backup's passphrase.
    #[command(flatten)]
    backup_passphrase: BackupPassphrase,
    /// How to print what came back.
    #[command(flatten)]
    output: OutputArgs,
}

/// Runs `cmkfs keys backup`.
pub(super) fn write(global: &Global, args: &BackupArgs) -> Result<(), CliError> {
    let service = keystore::open(global)?;
    let path = absolute(&args.file)?;
    let passphrase = args.passphrase.asked().chosen(&path)?;
    let written = service.backup(&path, args.force, Argon2Params::RECOMMENDED, &passphrase)?;
    match args.output.output {
        Format::Json => output::json(&written)?,
        Format::Table => output::done(
            global,
            &format!(
                "Backed up {} keys with {} key materials to {}\nBackup {}, SHA-256 {}",
                written.keys,
                written.key_materials,
                path.display(),
                written.backup_id,
                written.sha256
            ),
        )?,
    }
    if written.damaged.is_empty() {
        Ok(())
    } else {
        Err(CliError::Damaged(written.damaged))
    }
}

/// Runs `cmkfs keys restore`.
pub(super) fn restore(global: &Global, args: &RestoreArgs) -> Result<(), CliError> {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Report<'a> {
        backup_id: String,
        key_store_id: String,
        #[serde(flatten)]
        restored: &'a Restored,
    }
    let path = absolute(&args.file)?;
    // Before anything is made: the backup must be good.
    let backup = Backup::read(&path, || args.backup_passphrase.asked().existing(&path))?;
    let restored = match keystore::open(global) {
        Ok(service) => service.restore(&backup, args.include_deleted)?,
        Err(CliError::Kms(KmsError::NoStore { dir })) => {
            let protection = keystore::protection(global, args.passphrase);
            let passphrases = Asked::of(global);
            let clock = Arc::new(SystemClock);
            let (_, restored) =
                KeyService::create_from(&dir, &backup, protection, &passphrases, clock)?;
            output::note(global, &format!("Created key directory {}", dir.display()));
            restored
        }
        Err(error) => return Err(error),
    };
    match args.output.output {
        Format::Json => output::json(&Report {
            backup_id: backup.id().to_string(),
            key_store_id: backup.store_id().to_string(),
            restored: &restored,
        }),
        Format::Table => tell(global, &restored),
    }
}

fn tell(global: &Global, restored: &Restored) -> Result<(), CliError> {
    let mut text = format!(
        "Restored {} keys, {} key materials and {} aliases; {} records were there and stayed",
        restored.keys.len(),
        restored.key_materials.len(),
        restored.aliases.len(),
        restored.kept
    );
    let keys = restored.deleted_keys.iter().map(|key| format!("key {key}"));
    let materials = restored.deleted_key_materials.iter();
    let materials = materials.map(|material| format!("key material {material}"));
    for what in keys
        .chain(materials)
        .chain(restored.deleted_aliases.iter().cloned())
    {
        text += &format!("\nNot restored, because it was deleted: {what}");
    }
    output::done(global, &text)
}

fn absolute(path: &Path) -> Result<PathBuf, CliError> {
    std::path::absolute(path).map_err(|source| CliError::Io {
        action: "find",
        path: path.to_owned(),
        source,
    })
}
