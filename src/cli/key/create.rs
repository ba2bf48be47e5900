//! `cmkfs key create`.

use clap::{Args, ValueEnum};

use super::show::print_json;
use super::tags::pair;
use crate::cli::args::Global;
use crate::cli::keystore;
use crate::cli::message::CliError;
use crate::cli::output::{self, Format, OutputArgs};
use crate::kms::alias::AliasName;
use crate::kms::key::{CreateKeyRequest, Description, Origin, Tags};

/// Where the key's material is to come from, in AWS's spelling.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum OriginArg {
    /// Made by cmkfs.
    #[value(name = "CMKFS")]
    Cmkfs,
    /// Imported with `cmkfs key import`.
    #[value(name = "EXTERNAL")]
    External,
}

impl From<OriginArg> for Origin {
    fn from(origin: OriginArg) -> Self {
        match origin {
            OriginArg::Cmkfs => Self::Cmkfs,
            OriginArg::External => Self::External,
        }
    }
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
    /// Where its material comes from: made by cmkfs, or imported with `cmkfs key import`.
    #[arg(
        long,
        value_enum,
        ignore_case = true,
        value_name = "CMKFS|EXTERNAL",
        default_value_t = OriginArg::Cmkfs
    )]
    origin: OriginArg,
    /// A tag; may be given up to 50 times.
    #[arg(long = "tag", value_name = "KEY=VALUE", value_parser = pair)]
    tags: Vec<(String, String)>,
    /// How to print the new key.
    #[command(flatten)]
    output: OutputArgs,
}

/// Runs `cmkfs key create`.
pub(super) fn run(global: &Global, args: CreateArgs) -> Result<(), CliError> {
    let request = CreateKeyRequest {
        description: Description::new(args.description)?,
        tags: Tags::new(args.tags)?,
        alias: args.alias.clone(),
        origin: args.origin.into(),
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
