//! `cmkfs rewrap`: wraps data keys anew, and proves what is left under which material.

use std::path::PathBuf;

use clap::Args;

use super::args::Global;
use super::message::CliError;
use super::output;
use super::output::{Format, OutputArgs};
use super::progress::Progress;
use super::target::{self, Interrupt, Target};
use crate::fs::ROOT_NODE;
use crate::kms::key::KeyRef;
use crate::mount::control::protocol::{Failed, Request, Response};
use crate::volume::keys::binding_of;
use crate::volume::rewrap;

/// The arguments of `cmkfs rewrap`.
#[derive(Debug, Clone, Args)]
pub struct RewrapArgs {
    /// A volume, mounted or not, or a directory of a mounted one.
    #[arg(value_name = "CIPHERDIR|DIR")]
    pub path: PathBuf,
    /// Bind every directory to this key (id or alias/NAME) and wrap everything under it. Without it, everything goes under
    /// the current material of the key that its directory is bound to.
    #[arg(long, value_name = "KEY")]
    pub to: Option<KeyRef>,
    /// How to print the result.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Runs `cmkfs rewrap`.
///
/// # Errors
/// Why nothing was done; [`CliError::Incomplete`] where something is left.
pub fn run(global: &Global, args: &RewrapArgs) -> Result<(), CliError> {
    let interrupt = Interrupt::take()?;
    let bar = Progress::counter(global, "Rewrapping");
    let report = match Target::find(global, &args.path)? {
        Target::Online {
            entry, directory, ..
        } => {
            let to = args.to.as_ref().map(ToString::to_string);
            let request = Request::Rewrap { directory, to };
            match target::ask(&entry, &request, &bar, &interrupt)? {
                Response::Rewrapped(report) => report,
                _ => return Err(CliError::Refused(Failed::another_answer())),
            }
        }
        Target::Offline(volume) => {
            let to = args.to.as_ref().map(binding_of);
            let mut progress = |at| target::show(&bar, at, &interrupt);
            let report = rewrap::rewrap(&volume, ROOT_NODE, to.as_ref(), &mut progress)?;
            target::close(&volume, &args.path)?;
            report
        }
    };
    drop(bar);
    match args.output.output {
        Format::Json => output::json(&report)?,
        Format::Table => lines(&report)
            .iter()
            .try_for_each(|text| output::line(text))?,
    }
    if report.is_complete() {
        Ok(())
    } else {
        Err(CliError::Incomplete {
            what: "rewrap",
            reasons: reasons(&report),
        })
    }
}

fn lines(report: &rewrap::Report) -> Vec<String> {
    let mut lines = vec![format!("{} data keys wrapped anew", report.rewrapped)];
    for guarded in &report.materials {
        let (key, material) = (guarded.key_id, guarded.key_material_id);
        lines.push(if guarded.current {
            format!(
                "{} objects are under material {material} of key {key}",
                guarded.objects
            )
        } else {
            format!(
                "{} objects remain under material {material} of key {key}",
                guarded.objects
            )
        });
    }
    if report.is_complete() {
        lines.push("0 objects remain under any other material".to_owned());
    }
    lines
}

fn reasons(report: &rewrap::Report) -> Vec<String> {
    let mut reasons = target::failures(&report.failures, "rewrapped");
    if report.unreadable > 0 {
        reasons.push(format!(
            "{} objects cannot be read, so that nobody knows what they are under",
            report.unreadable
        ));
    }
    if report.missed {
        reasons.push("objects were renamed too quickly for all of them to be met".to_owned());
    }
    if report.interrupted {
        reasons.push("it was interrupted".to_owned());
    }
    if report.remaining() > 0 {
        reasons.push(format!("{} objects remain", report.remaining()));
    }
    reasons
}
