//! `cmkfs key enable` and `cmkfs key disable`.

use clap::Args;

use crate::cli::args::Global;
use crate::cli::keystore;
use crate::cli::message::CliError;
use crate::cli::obey::{self, ObeyArgs};
use crate::cli::output::{self, Format, OutputArgs};
use crate::ids::KeyId;
use crate::kms::key::KeyRef;
use crate::kms::{KeyService, KmsError};

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

/// Runs `cmkfs key enable`.
pub(super) fn enable(global: &Global, args: &SwitchArgs) -> Result<(), CliError> {
    switch(global, args, "Enabled", KeyService::enable_key)
}

/// Runs `cmkfs key disable`.
pub(super) fn disable(global: &Global, args: &SwitchArgs) -> Result<(), CliError> {
    switch(global, args, "Disabled", KeyService::disable_key)
}

fn switch(
    global: &Global,
    args: &SwitchArgs,
    done: &str,
    make: fn(&KeyService, &KeyRef) -> Result<KeyId, KmsError>,
) -> Result<(), CliError> {
    let service = keystore::open(global)?;
    let key = match service.resolve(&args.key) {
        Ok(key) => key,
        // The operation itself says so, and writes it down.
        Err(_) => make(&service, &args.key)?,
    };
    let make = || Ok(make(&service, &key.into())?);
    let (key, obedience) = obey::change(&service, args.obey, key, make)?;
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
