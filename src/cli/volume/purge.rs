//! `cmkfs volume purge`: shows what no key can open any more, asks, and removes it.

use std::path::{Path, PathBuf};

use clap::Args;
use indicatif::{HumanBytes, HumanCount};
use serde::Serialize;

use super::ciphertext_of;
use super::info::columns;
use crate::cli::args::Global;
use crate::cli::message::CliError;
use crate::cli::output::{self, Format, OutputArgs};
use crate::cli::progress::Progress;
use crate::cli::{confirm, keystore};
use crate::ids::{KeyId, MaterialId};
use crate::volume::census::Tally;
use crate::volume::purge::{Include, Paths, Purge, Report};

/// So many paths are shown to people.
const SHOWN: usize = 10;

/// The arguments of `cmkfs volume purge`.
#[derive(Debug, Clone, Args)]
pub struct PurgeArgs {
    /// The directory with the encrypted files; the volume must not be mounted.
    #[arg(value_name = "CIPHERDIR")]
    pub ciphertext: PathBuf,
    /// Remove files under deleted imported key material, too, although it could be imported again.
    #[arg(long)]
    pub include_pending_import: bool,
    /// Remove files under keys that are not there, too, although the audit log does not say that they were deleted. A lost
    /// key could still come back from a backup.
    #[arg(long)]
    pub include_unknown_keys: bool,
    /// Only show what would be removed.
    #[arg(long)]
    pub dry_run: bool,
    /// Remove it without asking.
    #[arg(short, long)]
    pub yes: bool,
    /// How to print the result.
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Purged<'a> {
    dry_run: bool,
    materials: Vec<PurgedMaterial>,
    nameless: u64,
    kept: u64,
    kept_paths: &'a [PathBuf],
    damaged: u64,
    failed: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct PurgedMaterial {
    key_id: KeyId,
    key_material_id: MaterialId,
    #[serde(flatten)]
    tally: Tally,
}

/// Runs `cmkfs volume purge`.
///
/// # Errors
/// Where the volume is mounted or nothing in it lives; [`CliError::Unconfirmed`]; [`CliError::Unremoved`] for what could
/// not be removed.
pub fn run(global: &Global, args: &PurgeArgs) -> Result<(), CliError> {
    let directory = ciphertext_of(&args.ciphertext)?;
    let keys = keystore::open(global)?;
    let include = Include {
        pending_import: args.include_pending_import,
        unknown_keys: args.include_unknown_keys,
    };
    let purge = Purge::new(&directory, &keys, include)?;
    let plan = {
        let progress = Progress::counter(global, "Looking for what no key can open");
        purge.plan(&mut |seen| {
            if progress.is_shown() {
                progress.say(format!("{} objects", HumanCount(seen)));
            }
        })?
    };
    let table = args.output.output == Format::Table;
    tell_of_the_rest(global, &directory, &plan);
    if plan.objects() == 0 {
        return match args.output.output {
            Format::Json => print_json(&plan, args.dry_run),
            Format::Table => output::done(global, "Nothing to purge: keys can open all of it"),
        };
    }
    let sum = format!(
        "{} objects ({})",
        HumanCount(plan.objects()),
        HumanBytes(plan.bytes())
    );
    if table {
        print(&plan)?;
    }
    if args.dry_run {
        return match args.output.output {
            Format::Json => print_json(&plan, true),
            Format::Table => output::done(global, &format!("Would remove {sum}")),
        };
    }
    confirm::ask(&format!("Remove {sum} for good?"), args.yes)?;
    let done = {
        let progress = Progress::bar(global, "Removing", plan.objects());
        purge.remove(&plan, &mut |done| progress.set(done))?
    };
    if table {
        let removed = HumanCount(done.objects());
        output::done(
            global,
            &format!("Removed {removed} objects ({})", HumanBytes(done.bytes())),
        )?;
    } else {
        print_json(&done, false)?;
    }
    if done.failed.is_empty() {
        Ok(())
    } else {
        Err(CliError::Unremoved(done.failed))
    }
}

/// What stays although one might expect it to go.
fn tell_of_the_rest(global: &Global, directory: &Path, plan: &Report) {
    let list = |paths: &mut dyn Iterator<Item = &PathBuf>, count: u64| {
        let mut text = String::new();
        for path in paths.take(SHOWN) {
            text += &format!("\n  {}", directory.join(path).display());
        }
        if count > SHOWN as u64 {
            text += &format!("\n  and {} more", count - SHOWN as u64);
        }
        text
    };
    let Paths { count, first } = &plan.kept;
    if *count > 0 {
        let paths = list(&mut first.iter(), *count);
        output::note(
            global,
            &format!("kept, because a key may still open it, in directories none can:{paths}"),
        );
    }
    if plan.damaged.count > 0 {
        let mut paths = plan.damaged.paths.iter().map(|(path, _)| path);
        let paths = list(&mut paths, plan.damaged.count);
        output::note(global, &format!("kept, because it cannot be read:{paths}"));
    }
    for (key, why) in &plan.unclear {
        output::note(
            global,
            &format!("kept, because key {key} cannot be read: {why}"),
        );
    }
}

fn print(plan: &Report) -> Result<(), CliError> {
    let rows = plan.removed.iter().map(|((key, material), tally)| {
        let [files, directories, symlinks, bytes] = columns(tally);
        let (key, material) = (key.to_string(), material.to_string());
        [key, material, files, directories, symlinks, bytes]
    });
    output::table(
        [
            "KEY ID",
            "MATERIAL",
            "FILES",
            "DIRECTORIES",
            "SYMLINKS",
            "BYTES",
        ],
        rows,
    )?;
    if plan.nameless > 0 {
        let text = "empty files, pipes and the like whose names no key can read";
        output::line(&format!("and {} {text}", plan.nameless))?;
    }
    Ok(())
}

fn print_json(report: &Report, dry_run: bool) -> Result<(), CliError> {
    let materials = report.removed.iter();
    let materials = materials.map(|((key, material), tally)| PurgedMaterial {
        key_id: *key,
        key_material_id: *material,
        tally: *tally,
    });
    output::json(&Purged {
        dry_run,
        materials: materials.collect(),
        nameless: report.nameless,
        kept: report.kept.count,
        kept_paths: &report.kept.first,
        damaged: report.damaged.count,
        failed: report.failed.len() as u64,
    })
}
