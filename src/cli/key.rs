//! `cmkfs key`: customer master keys.

use clap::{Args, Subcommand};
use serde::Serialize;

use super::args::Global;
use super::keystore;
use super::message::CliError;
use super::obey::{self, ObeyArgs};
use super::output::{self, Format, OutputArgs};
use crate::ids::KeyId;
use crate::kms::alias::{AliasListEntry, AliasName};
use crate::kms::key::{CreateKeyRequest, Description, KeyMetadata, KeyRef, Tags, rfc3339_text};
use crate::kms::{KeyService, KmsError};

/// The commands of `cmkfs key`.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Make a key (and, the first time, the key directory with its default key).
    Create(CreateArgs),
    /// List the keys.
    List(OutputArgs),
    /// Show what is known of a key.
    Describe {
        /// Key id or alias/NAME.
        key: KeyRef,
        /// How to print it.
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Make a disabled key usable again, in running mounts too.
    Enable(SwitchArgs),
    /// Make a key unusable until it is enabled again, in running mounts too.
    Disable(SwitchArgs),
}

/// The arguments of `cmkfs key enable` and `cmkfs key disable`.
#[derive(Debug, Args)]
pub struct SwitchArgs {
    /// Key id or alias/NAME.
    key: KeyRef,
    /// How long mounts may take.
    #[command(flatten)]
    obey: ObeyArgs,
    /// How to print what they did.
    #[command(flatten)]
    output: OutputArgs,
}

/// The arguments of `cmkfs key create`.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// A name for it: alias/NAME.
    #[arg(long, value_name = "alias/NAME")]
    alias: Option<AliasName>,
    /// Text for people, up to 8,192 characters.
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    description: String,
    /// A tag; may be given up to 50 times.
    #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = tag)]
    tags: Vec<(String, String)>,
    /// How to print the new key.
    #[command(flatten)]
    output: OutputArgs,
}

/// Runs `cmkfs key`.
///
/// # Errors
/// Why it failed.
pub fn run(global: &Global, command: KeyCommand) -> Result<(), CliError> {
    match command {
        KeyCommand::Create(args) => create(global, args),
        KeyCommand::List(output) => list(global, output.output),
        KeyCommand::Describe { key, output } => describe(global, &key, output.output),
        KeyCommand::Enable(args) => switch(global, &args, "Enabled", KeyService::enable_key),
        KeyCommand::Disable(args) => switch(global, &args, "Disabled", KeyService::disable_key),
    }
}

fn switch(
    global: &Global,
    args: &SwitchArgs,
    done: &str,
    make: fn(&KeyService, &KeyRef) -> Result<KeyId, KmsError>,
) -> Result<(), CliError> {
    let service = keystore::open(global)?;
    let key = service.describe_key(&args.key)?.key_id;
    let make = || Ok(make(&service, &key.into())?);
    let (key, obedience) = obey::change(service.dir(), args.obey, key, make)?;
    match args.output.output {
        Format::Json => {
            output::json(&obedience)?;
            obedience.check()
        }
        Format::Table => {
            output::done(global, &format!("{done} key {key}"))?;
            obedience.report(global)
        }
    }
}

fn create(global: &Global, args: CreateArgs) -> Result<(), CliError> {
    let request = CreateKeyRequest {
        description: Description::new(args.description)?,
        tags: Tags::new(args.tags)?,
        alias: args.alias.clone(),
    };
    let (service, _) = keystore::open_or_create(global, false)?;
    let key = service.create_key(request)?;
    match (args.output.output, args.alias) {
        (Format::Json, _) => print_json(&key),
        // What a script wants to keep in a variable.
        (Format::Table, _) if global.quiet => output::line(&key.key_id.to_string()),
        (Format::Table, None) => output::line(&format!("Created key {}", key.key_id)),
        (Format::Table, Some(alias)) => {
            output::line(&format!("Created key {} ({alias})", key.key_id))
        }
    }
}

fn list(global: &Global, format: Format) -> Result<(), CliError> {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Keys<'a> {
        keys: &'a [KeyMetadata],
    }
    let service = keystore::open(global)?;
    let keys = service.list_keys()?;
    let mut damaged = keys.damaged;
    match format {
        Format::Json => output::json(&Keys { keys: &keys.items })?,
        Format::Table => {
            let aliases = service.list_aliases(None)?;
            damaged.extend(aliases.damaged);
            let row = |key: &KeyMetadata| {
                [
                    key.key_id.to_string(),
                    key.key_state.as_str().to_owned(),
                    key.key_manager.as_str().to_owned(),
                    rfc3339_text(key.creation_date),
                    names_of(key, &aliases.items),
                    key.description.as_str().to_owned(),
                ]
            };
            output::table(
                [
                    "KEY ID",
                    "STATE",
                    "MANAGER",
                    "CREATED",
                    "ALIASES",
                    "DESCRIPTION",
                ],
                keys.items.iter().map(row),
            )?;
        }
    }
    if damaged.is_empty() {
        Ok(())
    } else {
        Err(CliError::Damaged(damaged))
    }
}

fn describe(global: &Global, key: &KeyRef, format: Format) -> Result<(), CliError> {
    let service = keystore::open(global)?;
    let key = service.describe_key(key)?;
    if format == Format::Json {
        return print_json(&key);
    }
    let aliases = service.list_aliases(Some(&key.key_id.into()))?.items;
    let tags: Vec<String> = key.tags.iter().map(|(k, v)| format!("{k}={v}")).collect();
    let material = key.current_key_material_id.map(|id| id.to_string());
    output::fields([
        ("KeyId", key.key_id.to_string()),
        ("KeyState", key.key_state.as_str().to_owned()),
        ("Aliases", names_of(&key, &aliases)),
        ("Description", key.description.as_str().to_owned()),
        ("Tags", tags.join(", ")),
        ("CreationDate", rfc3339_text(key.creation_date)),
        ("KeyManager", key.key_manager.as_str().to_owned()),
        ("Origin", key.origin.as_str().to_owned()),
        ("KeyUsage", key.key_usage.to_owned()),
        ("KeySpec", key.key_spec.to_owned()),
        ("CurrentKeyMaterialId", material.unwrap_or_default()),
    ])
}

fn print_json(key: &KeyMetadata) -> Result<(), CliError> {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Described<'a> {
        key_metadata: &'a KeyMetadata,
    }
    output::json(&Described { key_metadata: key })
}

fn names_of(key: &KeyMetadata, aliases: &[AliasListEntry]) -> String {
    let of_key = aliases
        .iter()
        .filter(|alias| alias.target_key_id == key.key_id);
    let names: Vec<&str> = of_key.map(|alias| alias.alias_name.as_str()).collect();
    names.join(", ")
}

fn tag(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('=') {
        Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
        None => Err("a tag looks like KEY=VALUE"),
    }
}
