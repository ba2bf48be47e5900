//! `cmkfs volume verify`: whether everything that is stored is as it was written, and what to do where it is not.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use indicatif::{HumanBytes, HumanCount};
use serde::Serialize;

use crate::cli::args::Global;
use crate::cli::keystore;
use crate::cli::message::CliError;
use crate::cli::output::{self, Format, OutputArgs, count, printable};
use crate::cli::progress::Progress;
use crate::cli::target::{self, INTERRUPTED, Interrupt, Target};
use crate::format::layout::PAGE;
use crate::fs::ROOT_NODE;
use crate::mount::control::client::{self, AskError, Interim};
use crate::mount::control::protocol::{Failed, Request, Response};
use crate::mount::control::registry::Entry;
use crate::volume::VolumeError;
use crate::volume::lock::holder;
use crate::volume::verify::{self, Event, Finding, Mode, Report, Status, What};

/// The arguments of `cmkfs volume verify`.
#[derive(Debug, Clone, Args)]
pub struct VerifyArgs {
    /// A volume, mounted or not, or a directory of a mounted one.
    #[arg(value_name = "CIPHERDIR|DIR")]
    pub path: PathBuf,
    /// Heal what heals without guessing: what processes that died have left half made or half removed, lost headers of empty
    /// directories, files that were never sealed. The volume must not be mounted. Nothing is removed that holds user data.
    #[arg(long)]
    pub repair: bool,
    /// How to print the result.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// A finding, and what to do about it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Advised<'a> {
    #[serde(flatten)]
    finding: &'a Finding,
    /// The bytes of the file that it is about: the first, and the one behind the last.
    bytes: Option<(u64, u64)>,
    what_to_do: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Verified<'a> {
    sound: bool,
    complete: bool,
    #[serde(flatten)]
    report: &'a Report,
    // In the place of the report's own.
    findings: Vec<Advised<'a>>,
}

/// Runs `cmkfs volume verify`.
///
/// # Errors
/// Why nothing could be verified; [`CliError::Unsound`], [`CliError::Unverified`].
pub fn run(global: &Global, args: &VerifyArgs) -> Result<(), CliError> {
    let interrupt = Interrupt::take()?;
    let bar = Progress::counter(global, "Verifying");
    let report = match Target::mounted(global, &args.path)? {
        Some(Target::Online {
            entry, directory, ..
        }) => {
            if args.repair {
                return Err(VolumeError::InUse {
                    path: args.path.clone(),
                    pid: holder(&args.path).or(Some(entry.process_id)),
                }
                .into());
            }
            online(&entry, directory, &bar, &interrupt)?
        }
        Some(Target::Offline(_)) | None => offline(global, args, &bar, &interrupt)?,
    };
    drop(bar);
    match args.output.output {
        Format::Json => print_json(&report)?,
        Format::Table => print(&report)?,
    }
    conclude(&report)
}

fn online(
    entry: &Entry,
    directory: u64,
    bar: &Progress,
    interrupt: &Interrupt,
) -> Result<Report, CliError> {
    let mut findings = Report::default();
    let mut hear = |said: Interim| {
        match said {
            Interim::Progress(at) => say(bar, at.done, at.what),
            Interim::Finding(finding) => findings.add(finding),
        }
        if interrupt.is_requested() {
            bar.suspend(|| eprintln!("Interrupted: the mount stops."));
            std::process::exit(INTERRUPTED);
        }
    };
    let request = Request::Verify { directory };
    let answer = client::ask_and_hear(entry, &request, None, &mut hear);
    match answer {
        Ok(Response::Verified(report)) => Ok(Report {
            findings: findings.findings,
            findings_omitted: findings.findings_omitted,
            ..report
        }),
        Ok(_) => Err(CliError::Refused(Failed::another_answer())),
        Err(AskError::Failed(failed)) => Err(CliError::Refused(failed)),
        Err(source) => Err(CliError::Unheard {
            process_id: entry.process_id,
            source,
        }),
    }
}

fn offline(
    global: &Global,
    args: &VerifyArgs,
    bar: &Progress,
    interrupt: &Interrupt,
) -> Result<Report, CliError> {
    let mode = if args.repair {
        Mode::Repair
    } else {
        Mode::Offline
    };
    let keys = Arc::new(keystore::open(global)?);
    let volume = match verify::open(&args.path, &keys, mode) {
        Ok(volume) => volume,
        Err(Ok(report)) => return Ok(*report),
        Err(Err(error)) => return Err(error.into()),
    };
    let mut watch = |event: Event<'_>| {
        if let Event::Progress(totals) = event
            && bar.is_shown()
        {
            let bytes = format!("objects, {} bytes", totals.bytes);
            say(bar, totals.objects(), bytes);
        }
        if interrupt.is_requested() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    let report = verify::verify(&volume, ROOT_NODE, mode, &mut watch)?;
    target::close(&volume, &args.path)?;
    Ok(report)
}

fn say(bar: &Progress, objects: u64, what: String) {
    bar.set(objects);
    bar.say(format!("{} {what}", HumanCount(objects)));
}

/// The bytes of a file that blocks hold.
fn bytes_of(finding: &Finding) -> Option<(u64, u64)> {
    let (first, last) = finding.blocks?;
    Some((first * PAGE, (last + 1) * PAGE))
}

const fn advice(finding: &Finding) -> &'static str {
    const RESTORE: &str = "bring it back from a backup of the volume, or remove it";
    const REPAIR: &str = "`cmkfs volume verify --repair` heals it, with the volume not mounted";
    match (finding.status, finding.what) {
        (Status::Repaired, _) => "nothing: it is healed",
        (Status::Repairable, _) => REPAIR,
        (Status::Foreign, _) => "nothing: it is left alone",
        (Status::NotSealed, _) => {
            "nothing: the next mount that writes to it seals it, and so does `cmkfs volume verify --repair`"
        }
        (_, What::Unsealed) => {
            "see what else is said of the file; as long as it is damaged it cannot be sealed"
        }
        (_, What::VolumeFile) => {
            "bring cmkfs.volume back from a backup of the volume: without it nothing can be opened"
        }
        (_, What::DirectoryHeader | What::DirectoryHeaderMissing) => {
            "bring this directory's cmkfs.dir back from a backup of the volume: without it the names in the directory cannot be read"
        }
        (_, What::Length) => {
            "the file was cut or extended outside of cmkfs: bring it back from a backup of the volume"
        }
        (_, What::Block | What::BlockMissing) => {
            "all other blocks can still be read; bring the file back from a backup of the volume"
        }
        (_, What::Name) => {
            "the object was renamed or moved outside of cmkfs, or the directory's cmkfs.dir is another's: give it back its name in the backing directory, from a backup of the volume"
        }
        (_, What::LongNameMissing) => {
            "bring the file of the same name that ends with .name back from a backup of the volume"
        }
        (_, What::Envelope | What::FileHeader | What::Symlink | What::SideFile) => RESTORE,
        (_, What::Attribute) => "set the attribute again, or bring the file back from a backup",
        (_, What::Key) => {
            "`cmkfs key list` shows the state of every key; verify again when the key can be used"
        }
        (_, What::Unreadable) => {
            "see to it that it can be read: the owner of the backing directory, or root, may have to run this"
        }
        (
            _,
            What::Leftover
            | What::UnfinishedBinding
            | What::OrphanedName
            | What::OrphanedSideFile
            | What::OrphanedJournal
            | What::ForeignName,
        ) => "look into it, and move it away by hand",
    }
}

const fn heading(status: Status) -> &'static str {
    match status {
        Status::Damaged => "damaged",
        Status::NotVerified => "not verified",
        Status::NotSealed => "not sealed",
        Status::Repairable => "can be repaired",
        Status::Repaired => "repaired",
        Status::NotRepaired => "not repaired",
        Status::Foreign => "foreign",
    }
}

fn print_json(report: &Report) -> Result<(), CliError> {
    let advised = |finding| Advised {
        finding,
        bytes: bytes_of(finding),
        what_to_do: advice(finding),
    };
    let findings = report.findings.iter().map(advised).collect();
    let rest = Report {
        findings: Vec::new(),
        ..report.clone()
    };
    output::json(&Verified {
        sound: report.is_sound(),
        complete: report.is_complete(),
        report: &rest,
        findings,
    })
}

fn print(report: &Report) -> Result<(), CliError> {
    for finding in &report.findings {
        let named = finding.path.as_ref().unwrap_or(&finding.backing_path);
        let head = heading(finding.status);
        let (named, reason) = (printable(named), printable(&finding.reason));
        output::line(&format!("{head}: {named}: {reason}"))?;
        if let (Some((first, last)), Some((start, end))) = (finding.blocks, bytes_of(finding)) {
            output::line(&format!(
                "  blocks {first} to {last}, bytes {start} to {}",
                end - 1
            ))?;
        }
        if finding.path.is_some() {
            let backing = printable(&finding.backing_path);
            output::line(&format!("  in the backing directory: {backing}"))?;
        }
        if let Some(object) = finding.object_id {
            output::line(&format!("  object: {object}"))?;
        }
        if let Some(key) = finding
            .key_id
            .filter(|_| finding.status == Status::NotVerified)
        {
            output::line(&format!("  key: {key}"))?;
        }
        output::line(&format!("  to do: {}", advice(finding)))?;
    }
    if report.findings_omitted > 0 {
        let more = HumanCount(report.findings_omitted);
        output::line(&format!("and {more} more findings"))?;
    }
    let totals = &report.totals;
    output::line(&format!(
        "Verified {}, {}, {}, {}: {} in {}, {}, {}",
        count(totals.files, "file", "files"),
        count(totals.directories, "directory", "directories"),
        count(totals.symlinks, "symlink", "symlinks"),
        count(totals.specials, "special file", "special files"),
        HumanBytes(totals.bytes),
        count(totals.blocks, "block", "blocks"),
        count(totals.names, "name", "names"),
        count(totals.attributes, "attribute", "attributes"),
    ))?;
    let counts = [
        (report.damaged, Status::Damaged),
        (report.not_verified, Status::NotVerified),
        (report.not_sealed, Status::NotSealed),
        (report.repairable, Status::Repairable),
        (report.repaired, Status::Repaired),
        (report.not_repaired, Status::NotRepaired),
        (report.foreign, Status::Foreign),
    ];
    for (number, status) in counts.into_iter().filter(|(number, _)| *number > 0) {
        output::line(&format!("{}: {}", heading(status), HumanCount(number)))?;
    }
    if report.is_sound() && report.is_complete() {
        output::line("Sound: everything is as it was written")?;
    }
    Ok(())
}

fn conclude(report: &Report) -> Result<(), CliError> {
    if !report.is_sound() {
        return Err(CliError::Unsound {
            damaged: report.damaged,
        });
    }
    if report.is_complete() {
        return Ok(());
    }
    let mut reasons = Vec::new();
    if report.not_verified > 0 {
        reasons.push(count(
            report.not_verified,
            "thing could not be verified",
            "things could not be verified",
        ));
    }
    if report.not_repaired > 0 {
        reasons.push(count(
            report.not_repaired,
            "thing could not be repaired",
            "things could not be repaired",
        ));
    }
    if report.missed {
        reasons.push("objects were renamed too quickly for all of them to be met".to_owned());
    }
    if report.interrupted {
        reasons.push("it was interrupted".to_owned());
    }
    Err(CliError::Unverified(reasons))
}
