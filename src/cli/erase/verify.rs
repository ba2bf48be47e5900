//! `cmkfs erase --verify`: whether what a report says is what the audit log, the key directory, the volumes and the mounts
//! say today.

use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::evidence::{self, DELETE_MATERIAL, History, IMPORT, is_not_found};
use super::report::{self, ReadReport, Report, Status, VERSION};
use crate::cli::args::Global;
use crate::cli::keystore;
use crate::cli::message::CliError;
use crate::cli::output::{self, Format};
use crate::cli::progress::Progress;
use crate::ids::KeyId;
use crate::kms::KeyService;
use crate::kms::key::rfc3339_text;
use crate::kms::metadata::KeyMetadata;
use crate::kms::state::KeyState;
use crate::mount::control::client;
use crate::mount::control::protocol::{LeaseState, Request, Response};
use crate::volume::probe::Probe;
use crate::volume::radius::Radius;

/// How long a mount may take to say which keys it holds.
const PATIENCE: Duration = Duration::from_secs(10);

/// What came of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum Verdict {
    /// It holds.
    Ok,
    /// It will be decided on a day to come.
    Pending,
    /// It could not be looked at.
    NotChecked,
    /// It does not hold.
    Failed,
}

impl Verdict {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Pending => "pending",
            Self::NotChecked => "not checked",
            Self::Failed => "FAILED",
        }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Check {
    check: &'static str,
    result: Verdict,
    details: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Checked {
    key_id: KeyId,
    status: Status,
    /// FAILED if any check is; else PENDING if any is.
    result: Verdict,
    checks: Vec<Check>,
}

impl Checked {
    fn add(&mut self, check: &'static str, result: Verdict, details: impl Into<String>) {
        self.result = match (self.result, result) {
            (Verdict::Failed, _) | (_, Verdict::Failed) => Verdict::Failed,
            (Verdict::Pending, _) | (_, Verdict::Pending) => Verdict::Pending,
            _ => Verdict::Ok,
        };
        self.checks.push(Check {
            check,
            result,
            details: details.into(),
        });
    }

    fn add_if(&mut self, check: &'static str, holds: bool, details: impl Into<String>) {
        let result = if holds { Verdict::Ok } else { Verdict::Failed };
        self.add(check, result, details);
    }
}

/// Checks a report.
///
/// # Errors
/// [`CliError::ReportFails`] where something does not hold; where the report or the key directory cannot be read.
pub fn run(global: &Global, path: &Path, format: Format) -> Result<(), CliError> {
    let read = report::read(path)?;
    let keys = keystore::open(global)?;
    let report = &read.report;
    let mut checked = Checked {
        key_id: report.key_id,
        status: report.status,
        result: Verdict::Ok,
        checks: Vec::new(),
    };
    checked.add_if(
        "Report",
        read.is_unchanged && report.report_version == VERSION,
        if read.is_unchanged {
            "unchanged since its digest was made"
        } else {
            "it was changed: its digest is another"
        },
    );
    checked.add_if(
        "Key directory",
        report.key_store_id == keys.store_id(),
        format!("{} is key store {}", keys.dir().display(), keys.store_id()),
    );
    if report.key_store_id == keys.store_id() {
        let history = History::read(&keys, report.key_id);
        check_log(&mut checked, &read, &history);
        check_key(&mut checked, report, &history, &keys)?;
        check_materials(&mut checked, report, &history, &keys)?;
        check_probes(&mut checked, report, &keys);
        check_volumes(global, &mut checked, report, &keys);
        check_mounts(&mut checked, report, &keys);
    }
    match format {
        Format::Json => output::json(&checked)?,
        Format::Table => print(&checked)?,
    }
    if checked.result == Verdict::Failed {
        Err(CliError::ReportFails(path.to_owned()))
    } else {
        Ok(())
    }
}

fn print(checked: &Checked) -> Result<(), CliError> {
    output::table(
        ["CHECK", "RESULT", "DETAILS"],
        checked.checks.iter().map(|check| {
            [
                check.check.to_owned(),
                check.result.as_str().to_owned(),
                check.details.clone(),
            ]
        }),
    )?;
    output::line(match checked.result {
        Verdict::Ok | Verdict::NotChecked => "The report holds, as far as was checked.",
        Verdict::Pending => "The report holds. The materials are not destroyed yet.",
        Verdict::Failed => "The report does not hold.",
    })
}

fn check_log(checked: &mut Checked, read: &ReadReport, history: &History) {
    checked.add_if(
        "Audit log",
        history.damage.is_none(),
        history.damage.as_deref().unwrap_or("its chain is whole"),
    );
    match history.report(&read.digest) {
        Some(found) => checked.add(
            "Report in the log",
            Verdict::Ok,
            format!("{} by {}", found.event_time, found.user),
        ),
        None => checked.add(
            "Report in the log",
            Verdict::Failed,
            "the log knows no report with this content",
        ),
    }
    let listed = &read.report.audit_events;
    let missing = listed.iter().filter(|event| {
        let mut events = history.events.iter();
        !events.any(|found| found.event == **event)
    });
    let missing: Vec<_> = missing.map(|event| event.event_id.as_str()).collect();
    checked.add_if(
        "Events",
        missing.is_empty(),
        if missing.is_empty() {
            format!("{} events stand in the log as in the report", listed.len())
        } else {
            format!("not in the log as in the report: {}", missing.join(", "))
        },
    );
}

/// Whether the key's state is what the report promises.
fn check_key(
    checked: &mut Checked,
    report: &Report,
    history: &History,
    keys: &KeyService,
) -> Result<(), CliError> {
    let metadata = match keys.describe_key(&report.key_id.into()) {
        Ok(metadata) => Some(metadata),
        Err(error) if is_not_found(&error) => None,
        Err(error) => return Err(error.into()),
    };
    let (result, details) = match (report.status, metadata) {
        (Status::InProgress, _) => (
            Verdict::Failed,
            "the erasure was not finished; run `cmkfs erase` again".to_owned(),
        ),
        (_, None) => match history.deletion() {
            Some(event) => (Verdict::Ok, format!("deleted on {}", event.event_time)),
            None => (
                Verdict::Failed,
                "it is not there, and the log does not say why".to_owned(),
            ),
        },
        (Status::Erased, Some(key)) => (
            match key.key_state {
                KeyState::PendingImport | KeyState::PendingDeletion => Verdict::Ok,
                KeyState::Enabled | KeyState::Disabled => Verdict::Failed,
            },
            format!("its state is {}", key.key_state.as_str()),
        ),
        (Status::Scheduled, Some(key)) => scheduled(report, &key),
    };
    checked.add("Key", result, details);
    Ok(())
}

fn scheduled(report: &Report, key: &KeyMetadata) -> (Verdict, String) {
    let date = key.deletion_date.map(rfc3339_text);
    match (key.key_state, date) {
        (KeyState::PendingDeletion, Some(date)) if Some(&date) == report.deletion_date.as_ref() => {
            (
                Verdict::Pending,
                format!("its materials are destroyed on {date}"),
            )
        }
        (KeyState::PendingDeletion, date) => (
            Verdict::Failed,
            format!(
                "it was scheduled anew, for {}",
                date.as_deref().unwrap_or("a day that is not known")
            ),
        ),
        (state, _) => (
            Verdict::Failed,
            format!(
                "its deletion was cancelled: its state is {}",
                state.as_str()
            ),
        ),
    }
}

fn check_materials(
    checked: &mut Checked,
    report: &Report,
    history: &History,
    keys: &KeyService,
) -> Result<(), CliError> {
    let mut there = Vec::new();
    for material in &report.materials {
        let file = keys.material_file(report.key_id, material.key_material_id)?;
        if file.bytes.is_some() {
            there.push(material.key_material_id.to_string());
        }
    }
    let is_deleted = history.deletion().is_some();
    let (result, details) = match (there.is_empty(), report.status) {
        (true, _) => (
            Verdict::Ok,
            format!("none of {} is there", report.materials.len()),
        ),
        (false, Status::Scheduled) if !is_deleted => {
            (Verdict::Pending, "they wait for their day".to_owned())
        }
        (false, _) => (
            Verdict::Failed,
            format!("there again: {}", there.join(", ")),
        ),
    };
    checked.add("Materials", result, details);
    let again = imported_again(report, history);
    checked.add_if(
        "Imports",
        again.is_empty(),
        if again.is_empty() {
            "nothing was imported since".to_owned()
        } else {
            again.join("; ")
        },
    );
    let leftovers = keys.leftovers()?;
    checked.add_if(
        "Leftovers",
        leftovers.is_empty(),
        if leftovers.is_empty() {
            "no unfinished change has left anything aside".to_owned()
        } else {
            let paths: Vec<_> = leftovers
                .iter()
                .map(|path| path.display().to_string())
                .collect();
            format!("left aside: {}", paths.join(", "))
        },
    );
    Ok(())
}

/// Imports of a destroyed material after the destruction that the report speaks of.
fn imported_again(report: &Report, history: &History) -> Vec<String> {
    let destroyed = report
        .audit_events
        .iter()
        .filter(|event| DELETE_MATERIAL.contains(&event.event_name.as_str()));
    let mut found = Vec::new();
    for event in destroyed {
        let after = history
            .events
            .iter()
            .map(|remembered| &remembered.event)
            .skip_while(|later| later.event_id != event.event_id);
        let again = after.filter(|later| {
            later.event_name == IMPORT && later.key_material_id == event.key_material_id
        });
        found.extend(
            again.map(|import| {
                format!("imported again on {} by {}", import.event_time, import.user)
            }),
        );
    }
    found
}

fn check_probes(checked: &mut Checked, report: &Report, keys: &KeyService) {
    let read = |attempt: &report::Attempt| Probe::read(&attempt.probe);
    let probes: Vec<_> = report.attempts.iter().filter_map(read).collect();
    let outcomes: Vec<_> = probes
        .iter()
        .map(|probe| evidence::attempt(keys, probe))
        .collect();
    let unwrapped = outcomes.iter().filter(|outcome| outcome.decrypts).count();
    let codes: std::collections::BTreeSet<_> = outcomes
        .iter()
        .filter_map(|outcome| outcome.error_code.as_deref())
        .collect();
    let codes: Vec<_> = codes.into_iter().collect();
    match (report.attempts.len(), probes.len()) {
        (0, _) => checked.add("Attempts", Verdict::NotChecked, "the report has none"),
        (all, read) if read < all => {
            checked.add(
                "Attempts",
                Verdict::Failed,
                "the report holds envelopes that are none",
            );
        }
        (all, _) => checked.add_if(
            "Attempts",
            unwrapped == 0,
            if unwrapped == 0 {
                format!("{all} data keys are not unwrapped: {}", codes.join(", "))
            } else {
                format!("{unwrapped} of {all} data keys are unwrapped")
            },
        ),
    }
}

fn check_volumes(global: &Global, checked: &mut Checked, report: &Report, keys: &KeyService) {
    for volume in &report.volumes {
        let path = Path::new(&volume.medium.path);
        let progress = Progress::counter(global, "Looking at what is under the key");
        let radius = Radius::of(path, report.key_id, &mut |_| {});
        drop(progress);
        let radius = match radius {
            Ok(radius) if radius.volume == volume.volume_id => radius,
            Ok(_) => {
                let details = format!("{} is another volume now", volume.medium.path);
                checked.add("Volume", Verdict::NotChecked, details);
                continue;
            }
            Err(error) => {
                checked.add("Volume", Verdict::NotChecked, error.to_string());
                continue;
            }
        };
        let unwrapped = radius
            .probes
            .iter()
            .filter(|probe| probe.attempt(keys).is_ok());
        let unwrapped = unwrapped.count();
        let objects = radius.lost().objects();
        checked.add_if(
            "Volume",
            unwrapped == 0,
            if unwrapped == 0 {
                format!(
                    "{}: {objects} objects are under the key, and are not opened",
                    volume.medium.path
                )
            } else {
                format!("{}: objects under the key are opened", volume.medium.path)
            },
        );
    }
}

fn check_mounts(checked: &mut Checked, report: &Report, keys: &KeyService) {
    let deadline = Instant::now() + PATIENCE;
    let asked = match client::ask_all(keys.dir(), &Request::Status, deadline) {
        Ok(asked) => asked,
        Err(error) => {
            let details = format!("running mounts cannot be listed: {error}");
            return checked.add("Mounts", Verdict::NotChecked, details);
        }
    };
    let (mut quiet, mut holding, mut silent) = (0, Vec::new(), Vec::new());
    for asked in asked {
        match asked.result {
            Ok(Response::Status(status)) => {
                let mut keys = status.keys.iter();
                let holds = keys.any(|key| {
                    let in_use = key.lease == LeaseState::Held || key.data_keys > 0;
                    key.key_id == report.key_id && in_use
                });
                if holds {
                    holding.push(status.mountpoint);
                } else {
                    quiet += 1;
                }
            }
            Ok(_) | Err(_) => silent.push(asked.process_id.to_string()),
        }
    }
    if !holding.is_empty() {
        let details = format!("data keys are held in {}", holding.join(", "));
        checked.add("Mounts", Verdict::Failed, details);
    } else if !silent.is_empty() {
        let details = format!("no answer from process {}", silent.join(", "));
        checked.add("Mounts", Verdict::NotChecked, details);
    } else {
        let details = format!("{quiet} mounts hold no data key of it");
        checked.add("Mounts", Verdict::Ok, details);
    }
}
