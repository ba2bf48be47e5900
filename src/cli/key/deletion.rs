//! `cmkfs key schedule-deletion` and `cmkfs key cancel-deletion`.

use clap::Args;

use super::switch::report;
use crate::cli::args::Global;
use crate::cli::keystore;
use crate::cli::message::CliError;
use crate::cli::obey::{self, ObeyArgs};
use crate::cli::output::{self, OutputArgs};
use crate::kms::deletion::PendingWindow;
use crate::kms::key::{KeyRef, rfc3339_text};

/// The arguments of `cmkfs key schedule-deletion`.
#[derive(Debug, Args)]
pub struct ScheduleArgs {
    /// Key id or alias/NAME.
    key: KeyRef,
    /// Days until then, 7 to 30.
    #[arg(
        long,
        value_name = "DAYS",
        default_value = "30",
        allow_negative_numbers = true
    )]
    pending_window_days: PendingWindow,
    /// How long mounts may take.
    #[command(flatten)]
    obey: ObeyArgs,
    /// How to print what is scheduled.
    #[command(flatten)]
    output: OutputArgs,
}

/// Runs `cmkfs key schedule-deletion`.
pub(super) fn schedule(global: &Global, args: &ScheduleArgs) -> Result<(), CliError> {
    let service = keystore::open(global)?;
    let (scheduled, obedience) = obey::change_key(&service, args.obey, &args.key, |key| {
        service.schedule_key_deletion(key, args.pending_window_days)
    })?;
    let text = format!(
        "Scheduled key {} for deletion on {}; `cmkfs key cancel-deletion` keeps it until then",
        scheduled.key_id,
        rfc3339_text(scheduled.deletion_date)
    );
    report(global, args.output, &text, &scheduled, obedience)
}

/// Runs `cmkfs key cancel-deletion`.
pub(super) fn cancel(global: &Global, key: &KeyRef) -> Result<(), CliError> {
    let id = keystore::open(global)?.cancel_key_deletion(key)?;
    output::done(
        global,
        &format!("Cancelled the deletion of key {id}; it is disabled now"),
    )
}
