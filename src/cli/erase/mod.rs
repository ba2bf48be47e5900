//! `cmkfs erase`: shows what goes with a key, asks, destroys its materials, and writes a report with the evidence.
//!
//! `target` the key, from what is known of it to its destruction · [`radius`] what goes · [`evidence`] attempts to decrypt,
//! and the audit log · [`medium`] what may keep old copies · [`report`] the report · [`text`] the same for people ·
//! [`verify`] whether a report still holds.

pub mod evidence;
pub mod medium;
pub mod radius;
pub mod report;
mod target;
pub mod text;
pub mod verify;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use self::evidence::DELETE_KEY;
use self::report::{Report, ReportFile, Status};
use self::target::Target;
use super::args::Global;
use super::message::CliError;
use super::obey::{self, Obedience, ObeyArgs};
use super::output::{self, Format, OutputArgs};
use super::{confirm, keystore};
use crate::clock::{Clock, SystemClock};
use crate::ids::KeyId;
use crate::kms::deletion::PendingWindow;
use crate::kms::key::{KeyRef, rfc3339_text};
use crate::kms::service::erasure::Erasure;
use crate::sys::process::raise_descriptor_limit;

/// The arguments of `cmkfs erase`.
#[derive(Debug, Clone, Args)]
pub struct EraseArgs {
    /// Key id or alias/NAME.
    #[arg(required_unless_present = "verify")]
    key: Option<KeyRef>,
    /// Count what is under the key in this volume, too; may be given several times. Mounted volumes are counted anyway.
    #[arg(long = "volume", value_name = "CIPHERDIR")]
    volumes: Vec<PathBuf>,
    /// Where to write the report; beside it comes the same as text. Without it: erase-KEYID-TIME.json, here.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Do not ask; --key-id has to say which key is meant.
    #[arg(short, long, requires = "key_id")]
    yes: bool,
    /// The id of the key that is to be erased, with --yes.
    #[arg(long, value_name = "ID", requires = "yes")]
    key_id: Option<KeyId>,
    /// Days until a generated key is destroyed, 7 to 30. Imported material is destroyed at once.
    #[arg(long, value_name = "DAYS", allow_negative_numbers = true)]
    pending_window_days: Option<PendingWindow>,
    /// Check a report against the audit log, the key directory and the volumes, instead of erasing anything.
    #[arg(long, value_name = "REPORT", conflicts_with_all = ["key", "volumes", "report", "yes", "key_id", "pending_window_days"])]
    verify: Option<PathBuf>,
    /// How long mounts may take.
    #[command(flatten)]
    obey: ObeyArgs,
    /// How to print what was done.
    #[command(flatten)]
    output: OutputArgs,
}

/// Runs `cmkfs erase`.
///
/// # Errors
/// Why nothing was erased; or, after it was, [`CliError::NotErased`] and [`CliError::Unanswered`]. Of a report that does not
/// hold, [`CliError::ReportFails`].
pub fn run(global: &Global, args: &EraseArgs) -> Result<(), CliError> {
    // A walk holds one descriptor for each level of directories.
    raise_descriptor_limit();
    match (&args.verify, &args.key) {
        (Some(report), _) => verify::run(global, report, args.output.output),
        (None, Some(key)) => erase(global, args, key),
        // Not to be typed: clap asks for one of them.
        (None, None) => Ok(()),
    }
}

fn erase(global: &Global, args: &EraseArgs, key: &KeyRef) -> Result<(), CliError> {
    let keys = keystore::open(global)?;
    let target = Target::find(&keys, key)?;
    target.check(args)?;
    let patience = Duration::from_secs(args.obey.timeout);
    let volumes = radius::look(global, &keys, target.key, &args.volumes, patience)?;
    let mut report = target.report(&keys, &volumes)?;
    show(global, args, &report)?;
    confirm(args, &target)?;

    report.attempts = evidence::attempts(&keys, &target.probes(&keys, volumes.probes));
    let path = match &args.report {
        Some(path) => path.clone(),
        None => PathBuf::from(default_name(target.key)),
    };
    check_place(&path, &report)?;
    let file = ReportFile::begin(path, &report, |digest| target.history.has_report(digest))?;
    let window = args.pending_window_days.unwrap_or_default();
    let destroy = || Ok(target.destroy(&keys, window)?);
    let obedience = match obey::change(&keys, args.obey, target.key, destroy) {
        Ok(((), obedience)) => obedience,
        Err(error) => {
            if target.is_untouched(&keys, &report) {
                file.discard();
            }
            return Err(error);
        }
    };
    let problems = target.finish(&keys, &mut report, obedience)?;
    let (json, digest) = report.seal()?;
    let text = text::render(&report, &digest);
    file.write(&json, &text)?;
    // Last: with this line in the log the report is one.
    keys.record_erasure(Erasure {
        key: target.key,
        materials: &target.materials,
        status: report.status.as_str(),
        report_sha256: &digest,
    })?;
    match args.output.output {
        Format::Json => output::line(String::from_utf8_lossy(&json).trim_end())?,
        Format::Table => summary(global, &report, &file)?,
    }
    if !problems.is_empty() {
        return Err(CliError::NotErased(problems));
    }
    report.mounts.map_or(Ok(()), Obedience::check)
}

/// Shows what goes, before anything is asked.
fn show(global: &Global, args: &EraseArgs, report: &Report) -> Result<(), CliError> {
    if global.quiet || args.output.output == Format::Json {
        return Ok(());
    }
    let metadata = report.key_metadata.as_ref();
    let of = |name: &str| {
        metadata
            .and_then(|key| key[name].as_str())
            .unwrap_or("deleted")
    };
    output::line(&format!(
        "Key {}{}: {}, origin {}, key materials: {}",
        report.key_id,
        if report.aliases.is_empty() {
            String::new()
        } else {
            format!(" ({})", report.aliases.join(", "))
        },
        of("KeyState"),
        of("Origin"),
        report.materials.len()
    ))?;
    radius::print(&report.volumes)?;
    for backup in &report.backups {
        output::line(&format!(
            "Backup {} of {} holds material {}",
            backup.path, backup.creation_date, backup.key_material_id
        ))?;
    }
    for import in &report.imports {
        output::line(&format!(
            "Imported on {} by {}: the original is its owner's",
            import.event_time, import.user
        ))?;
    }
    for text in report
        .not_checked
        .iter()
        .take(report.not_checked.len().saturating_sub(2))
    {
        output::note(global, &format!("note: {text}"));
    }
    for text in &report.warnings {
        output::note(global, &format!("warning: {text}"));
    }
    Ok(())
}

/// Goes on only where the key's id was given: typed, or with --key-id.
fn confirm(args: &EraseArgs, target: &Target) -> Result<(), CliError> {
    let wanted = target.key.to_string();
    let not_confirmed = || CliError::NotConfirmed { key: target.key };
    if args.yes {
        let is_it = args.key_id == Some(target.key);
        return if is_it { Ok(()) } else { Err(not_confirmed()) };
    }
    let what = if target.is_imported() || target.metadata.is_none() {
        "Its materials are destroyed at once".to_owned()
    } else {
        let days = args.pending_window_days.unwrap_or_default().days();
        format!(
            "It cannot be used from now on, and is destroyed in {days} days; until then `cmkfs key cancel-deletion` keeps it"
        )
    };
    let prompt = format!("{what}.\nType the key's id to go on: ");
    let typed = confirm::answer(&prompt).map_err(|_| not_confirmed())?;
    if typed == wanted {
        Ok(())
    } else {
        Err(not_confirmed())
    }
}

/// A report that lies in what is erased would go with it.
fn check_place(path: &Path, report: &Report) -> Result<(), CliError> {
    let folder = absolute(path);
    let folder = folder.parent().unwrap_or(Path::new("/"));
    // Where it cannot be found, it cannot be written to either.
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let erased = report
        .volumes
        .iter()
        .filter(|volume| !volume.lost_in_all.is_empty());
    let mut places = erased.flat_map(|volume| volume.mountpoints.iter());
    if places.any(|mountpoint| folder.starts_with(mountpoint)) {
        return Err(CliError::ReportInside(path.to_owned()));
    }
    Ok(())
}

fn default_name(key: KeyId) -> String {
    let now = rfc3339_text(SystemClock.now());
    let time: String = now.chars().filter(|c| !matches!(c, '-' | ':')).collect();
    format!("erase-{key}-{time}.json")
}

fn summary(global: &Global, report: &Report, file: &ReportFile) -> Result<(), CliError> {
    let key = report.key_id;
    let count = report.materials.len();
    let before = report
        .materials
        .iter()
        .filter(|material| material.bytes_before.is_none());
    let before = before.count();
    let done = match (report.status, &report.deletion_date) {
        (Status::Erased, _) if report.key_state.is_none() => {
            let day = report
                .audit_events
                .iter()
                .rfind(|event| event.event_name == DELETE_KEY);
            let day = day.map_or("before", |event| event.event_time.as_str());
            format!("Key {key} was deleted already: {day}")
        }
        (Status::Erased, _) if count == 0 => {
            format!("Key {key} never had any key material: there was nothing to destroy")
        }
        (Status::Erased, _) if before == count => {
            format!("The key materials of {key} ({count}) were destroyed already")
        }
        (Status::Erased, _) => format!(
            "Erased key {key}: {} of {count} key materials overwritten, removed, and their directory synced",
            count - before
        ),
        (_, date) => format!(
            "Key {key} cannot be used from now on, and is destroyed on {}; `cmkfs key cancel-deletion {key}` keeps it until then",
            date.as_deref().unwrap_or("its day")
        ),
    };
    output::done(global, &done)?;
    for obeyed in report.mounts.iter().flat_map(|mounts| &mounts.mounts) {
        output::done(global, &obey::line(obeyed))?;
    }
    output::done(
        global,
        &format!("Verified: {}", report.sanitization.verification_result),
    )?;
    output::line(&format!("Report: {}", absolute(&file.path).display()))
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
