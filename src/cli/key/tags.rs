//! `cmkfs key tag`, `cmkfs key untag` and `cmkfs key update-description`.

use clap::Args;

use crate::cli::args::Global;
use crate::cli::keystore;
use crate::cli::message::CliError;
use crate::cli::output;
use crate::kms::key::{Description, KeyRef, Tags};

/// The arguments of `cmkfs key tag`.
#[derive(Debug, Args)]
pub struct TagArgs {
    /// Key id or alias/NAME.
    key: KeyRef,
    /// The tags; the value of one that is there is replaced.
    #[arg(value_name = "KEY=VALUE", required = true, value_parser = pair)]
    tags: Vec<(String, String)>,
}

/// The arguments of `cmkfs key untag`.
#[derive(Debug, Args)]
pub struct UntagArgs {
    /// Key id or alias/NAME.
    key: KeyRef,
    /// The keys of the tags to remove; they need not be there.
    #[arg(value_name = "TAG-KEY", required = true)]
    tag_keys: Vec<String>,
}

/// The arguments of `cmkfs key update-description`.
#[derive(Debug, Args)]
pub struct DescriptionArgs {
    /// Key id or alias/NAME.
    key: KeyRef,
    /// Text for people, up to 8,192 characters.
    #[arg(value_name = "TEXT")]
    description: String,
}

/// Runs `cmkfs key tag`.
pub(super) fn tag(global: &Global, args: TagArgs) -> Result<(), CliError> {
    let tags = Tags::new(args.tags)?;
    let id = keystore::open(global)?.tag_resource(&args.key, &tags)?;
    output::done(global, &format!("Tagged key {id}"))
}

/// Runs `cmkfs key untag`.
pub(super) fn untag(global: &Global, args: &UntagArgs) -> Result<(), CliError> {
    let id = keystore::open(global)?.untag_resource(&args.key, &args.tag_keys)?;
    output::done(global, &format!("Untagged key {id}"))
}

/// Runs `cmkfs key update-description`.
pub(super) fn describe(global: &Global, args: DescriptionArgs) -> Result<(), CliError> {
    let description = Description::new(args.description)?;
    let id = keystore::open(global)?.update_key_description(&args.key, &description)?;
    output::done(global, &format!("Updated the description of key {id}"))
}

/// Reads KEY=VALUE.
pub(super) fn pair(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('=') {
        Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
        None => Err("it looks like KEY=VALUE"),
    }
}
