//! `cmkfs rekey`: new data keys, by encrypting content anew.

use std::path::PathBuf;

use clap::Args;

use super::args::Global;
use super::message::CliError;
use super::output;
use super::output::{Format, OutputArgs};
use super::progress::Progress;
use super::target::{self, Interrupt, Target};
use crate::fs::ROOT_NODE;
use crate::mount::control::protocol::{Failed, Request, Response};
use crate::volume::rekey;

/// The arguments of `cmkfs rekey`.
#[derive(Debug, Clone, Args)]
pub struct RekeyArgs {
    /// A volume, mounted or not, or a directory of a mounted one.
    #[arg(value_name = "CIPHERDIR|DIR")]
    pub path: PathBuf,
    /// How to print the result.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Runs `cmkfs rekey`.
///
/// # Errors
/// Why nothing was done; [`CliError::Incomplete`] where something is left.
pub fn run(global: &Global, args: &RekeyArgs) -> Result<(), CliError> {
    let interrupt = Interrupt::take()?;
    let bar = Progress::counter(global, "Rekeying");
    let report = match Target::find(global, &args.path)? {
        Target::Online {
            entry, directory, ..
        } => match target::ask(&entry, &Request::Rekey { directory }, &bar, &interrupt)? {
            Response::Rekeyed(report) => report,
            _ => return Err(CliError::Refused(Failed::another_answer())),
        },
        Target::Offline(volume) => {
            let mut progress = |at| target::show(&bar, at, &interrupt);
            let report = rekey::rekey(&volume, ROOT_NODE, &mut progress)?;
            target::close(&volume, &args.path)?;
            report
        }
    };
    drop(bar);
    match args.output.output {
        Format::Json => output::json(&report)?,
        Format::Table => {
            output::line(&format!("{} files and symlinks rekeyed", report.rekeyed))?;
            let kept = output::count(
                report.directories_kept,
                "directory keeps its data key",
                "directories keep their data keys",
            );
            output::line(&format!("{kept}, and with it the names of files"))?;
        }
    }
    if report.is_complete() {
        return Ok(());
    }
    let mut reasons = target::failures(&report.failures, "rekeyed");
    if report.missed {
        reasons.push("objects were renamed too quickly for all of them to be met".to_owned());
    }
    if report.interrupted {
        reasons.push("it was interrupted; the next rekey starts anew".to_owned());
    }
    Err(CliError::Incomplete {
        what: "rekey",
        reasons,
    })
}
