//! `cmkfs key enable` and `cmkfs key disable`, and what every command has in common that mounts have to obey.

use clap::Args;
use serde::Serialize;

use crate::cli::args::Global;
use crate::cli::keystore;
use crate::cli::message::CliError;
use crate::cli::obey::{self, Obedience, ObeyArgs, Unanswered};
use crate::cli::output::{self, Format, OutputArgs};
use crate::ids::KeyId;
use crate::kms::key::KeyRef;
use crate::kms::{KeyService, KmsError};
use crate::mount::control::protocol::Obeyed;

/// The arguments of a command that mounts have to obey.
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
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Switched {
        key_id: KeyId,
    }
    let service = keystore::open(global)?;
    let (key_id, obedience) = obey::change_key(&service, args.obey, &args.key, |key| make(&service, key))?;
    let text = format!("{done} key {key_id}");
    report(global, args.output, &text, &Switched { key_id }, obedience)
}

/// Prints what was changed, and what each mount did about it.
///
/// # Errors
/// [`CliError::Unanswered`] where a mount has not said that it obeys.
pub(super) fn report(
    global: &Global,
    format: OutputArgs,
    text: &str,
    changed: &impl Serialize,
    obedience: Obedience,
) -> Result<(), CliError> {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Report<'a, T> {
        #[serde(flatten)]
        changed: &'a T,
        mounts: &'a [Obeyed],
        unanswered: &'a [Unanswered],
    }
    match format.output {
        Format::Json => {
            output::json(&Report {
                changed,
                mounts: &obedience.mounts,
                unanswered: &obedience.unanswered,
            })?;
            obedience.check()
        }
        Format::Table => {
            output::done(global, text)?;
            obedience.report(global)
        }
    }
}
