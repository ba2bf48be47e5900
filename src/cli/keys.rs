//! `cmkfs keys`: the key directory as a whole.

use clap::Subcommand;
use serde::Serialize;

use super::args::Global;
use super::keystore;
use super::message::CliError;
use super::output::{self, Format, OutputArgs};
use crate::format::keystore::Protection;

/// The commands of `cmkfs keys`.
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Make the key directory, with its default key.
    ///
    /// A root key file in it unlocks it, unless it is to have a passphrase. Where it exists already, nothing changes.
    Init {
        /// Protect it with a passphrase, asked for on the terminal or taken from --passphrase-file or
        /// --passphrase-command.
        #[arg(long)]
        passphrase: bool,
    },
    /// Read every record, and the audit log, and say what is damaged. Changes nothing.
    Verify(OutputArgs),
}

/// Runs `cmkfs keys`.
///
/// # Errors
/// Why it failed.
pub fn run(global: &Global, command: KeysCommand) -> Result<(), CliError> {
    match command {
        KeysCommand::Init { passphrase } => init(global, passphrase),
        KeysCommand::Verify(output) => verify(global, output.output),
    }
}

fn init(global: &Global, passphrase: bool) -> Result<(), CliError> {
    let (service, made) = keystore::open_or_create(global, passphrase)?;
    let dir = service.dir();
    if made {
        // Making it has been mentioned already.
        return Ok(());
    }
    if passphrase && service.protection()? == Protection::RootKeyFile {
        return Err(CliError::KeysExist {
            dir: dir.to_owned(),
        });
    }
    output::done(
        global,
        &format!("The key directory {} exists already", dir.display()),
    )
}

fn verify(global: &Global, format: Format) -> Result<(), CliError> {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Report {
        key_store_id: String,
        keys: usize,
        key_materials: usize,
        aliases: usize,
        audit_events: u64,
        damaged: Vec<String>,
    }
    let service = keystore::open(global)?;
    let mut found = service.verify()?;
    let audit = service.verify_audit();
    found.damaged.extend(audit.damage);
    let report = Report {
        key_store_id: service.store_id().to_string(),
        keys: found.keys,
        key_materials: found.materials,
        aliases: found.aliases,
        audit_events: audit.events,
        damaged: found.damaged.iter().map(ToString::to_string).collect(),
    };
    match format {
        Format::Json => output::json(&report)?,
        Format::Table => output::line(&format!(
            "{} keys, {} key materials, {} aliases and {} lines of the audit log are whole",
            report.keys, report.key_materials, report.aliases, report.audit_events
        ))?,
    }
    if found.damaged.is_empty() {
        Ok(())
    } else {
        Err(CliError::Damaged(found.damaged))
    }
}
