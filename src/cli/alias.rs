//! `cmkfs alias`: names for keys.

use clap::Subcommand;
use serde::Serialize;

use super::args::Global;
use super::keystore;
use super::message::CliError;
use super::output::{self, Format, OutputArgs};
use crate::kms::alias::{AliasListEntry, AliasName};
use crate::kms::key::{KeyRef, rfc3339_text};

/// The commands of `cmkfs alias`.
#[derive(Debug, Subcommand)]
pub enum AliasCommand {
    /// Give a key a new alias.
    Create {
        /// The alias.
        #[arg(value_name = "alias/NAME")]
        alias: AliasName,
        /// Key id or alias/NAME.
        key: KeyRef,
    },
    /// Point an alias at another key: what is new is encrypted under that one.
    Update {
        /// The alias.
        #[arg(value_name = "alias/NAME")]
        alias: AliasName,
        /// Key id or alias/NAME.
        key: KeyRef,
    },
    /// Remove an alias; the key stays.
    Delete {
        /// The alias.
        #[arg(value_name = "alias/NAME")]
        alias: AliasName,
    },
    /// List the aliases.
    List {
        /// Only those of this key: key id or alias/NAME.
        key: Option<KeyRef>,
        /// How to print them.
        #[command(flatten)]
        output: OutputArgs,
    },
}

/// Runs `cmkfs alias`.
///
/// # Errors
/// Why it failed.
pub fn run(global: &Global, command: AliasCommand) -> Result<(), CliError> {
    let service = keystore::open(global)?;
    match command {
        AliasCommand::Create { alias, key } => {
            let id = service.create_alias(&alias, &key)?;
            output::done(global, &format!("Created {alias} for key {id}"))
        }
        AliasCommand::Update { alias, key } => {
            let id = service.update_alias(&alias, &key)?;
            output::done(global, &format!("Updated {alias}: now for key {id}"))
        }
        AliasCommand::Delete { alias } => {
            service.delete_alias(&alias)?;
            output::done(global, &format!("Deleted {alias}"))
        }
        AliasCommand::List { key, output } => {
            let aliases = service.list_aliases(key.as_ref())?;
            print(&aliases.items, output.output)?;
            if aliases.damaged.is_empty() {
                Ok(())
            } else {
                Err(CliError::Damaged(aliases.damaged))
            }
        }
    }
}

fn print(aliases: &[AliasListEntry], format: Format) -> Result<(), CliError> {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Aliases<'a> {
        aliases: &'a [AliasListEntry],
    }
    match format {
        Format::Json => output::json(&Aliases { aliases }),
        Format::Table => output::table(
            ["ALIAS", "KEY ID", "CREATED", "UPDATED"],
            aliases.iter().map(|alias| {
                [
                    alias.alias_name.to_string(),
                    alias.target_key_id.to_string(),
                    rfc3339_text(alias.creation_date),
                    rfc3339_text(alias.last_updated_date),
                ]
            }),
        ),
    }
}
