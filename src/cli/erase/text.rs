//! The report as text, for people. Says the same as the JSON, and no more.

use std::fmt::Write;

use indicatif::{HumanBytes, HumanCount};

use super::report::{Attempt, EventInLog, Outcome, Report, Status, Volume};
use crate::cli::output::printable;
use crate::volume::census::Tally;

/// The report as text.
#[must_use]
pub fn render(report: &Report, digest: &str) -> String {
    let mut text = Text::default();
    text.head(report);
    text.key(report);
    text.volumes(&report.volumes);
    text.attempts(&report.attempts);
    text.mounts(report);
    text.events("Audit log", &report.audit_events);
    text.remains(report);
    text.section("Digest");
    text.field("SHA-256", digest);
    text.0
}

#[derive(Default)]
struct Text(String);

impl Text {
    fn line(&mut self, line: &str) {
        // Names of files and users must not drive a terminal.
        self.0.push_str(&printable(line));
        self.0.push('\n');
    }

    fn section(&mut self, title: &str) {
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "\n{title}");
    }

    fn field(&mut self, name: &str, value: impl AsRef<str>) {
        if !value.as_ref().is_empty() {
            self.line(&format!("  {name:<20} {}", value.as_ref()));
        }
    }

    fn list<T: AsRef<str>>(&mut self, title: &str, items: &[T]) {
        if !items.is_empty() {
            self.section(title);
        }
        for item in items {
            self.line(&format!("  - {}", item.as_ref()));
        }
    }

    fn head(&mut self, report: &Report) {
        let what = &report.sanitization;
        self.line(&format!("Erasure of key {}", report.key_id));
        self.line(&match (report.status, &report.deletion_date) {
            (Status::InProgress, _) => "Begun, and not known to be finished.".to_owned(),
            (Status::Erased, _) => "Its materials are destroyed.".to_owned(),
            (Status::Scheduled, date) => format!(
                "It cannot be used, and its materials will be destroyed on {}.",
                date.as_deref().unwrap_or("its day")
            ),
        });
        self.section("What was done");
        self.field("Status", report.status.as_str());
        self.field("Guideline", &what.guideline);
        self.field("Method", &what.method);
        self.field("Technique", &what.technique);
        self.field("Details", &what.details);
        self.field("Tool", format!("{} {}", what.tool, what.tool_version));
        self.field("Verification", &what.verification_method);
        self.field("Result", &what.verification_result);
        let identity = &report.performed_by.user_identity;
        let name = identity["userName"].as_str().unwrap_or_default();
        self.field(
            "Performed by",
            format!(
                "{name} (uid {}) on {}",
                identity["uid"], report.performed_by.host_name
            ),
        );
        self.field("Started", &report.started_at);
        self.field(
            "Completed",
            report.completed_at.as_deref().unwrap_or("not known"),
        );
    }

    fn key(&mut self, report: &Report) {
        self.section("Key");
        self.field("KeyId", report.key_id.to_string());
        let metadata = report.key_metadata.as_ref();
        let of = |name: &str| {
            let value = metadata.and_then(|metadata| metadata[name].as_str());
            value.unwrap_or_default().to_owned()
        };
        self.field("Aliases", report.aliases.join(", "));
        self.field("Description", of("Description"));
        self.field("Origin", of("Origin"));
        self.field("CreationDate", of("CreationDate"));
        self.field("State before", of("KeyState"));
        self.field(
            "State after",
            report.key_state.as_deref().unwrap_or("deleted"),
        );
        self.field(
            "DeletionDate",
            report.deletion_date.as_deref().unwrap_or_default(),
        );
        self.field("Key store", report.key_store_id.to_string());
        self.field("Key directory", &report.key_directory.path);
        self.field(
            "Filesystem",
            format!(
                "{} ({})",
                report.key_directory.filesystem, report.key_directory.source
            ),
        );
        self.section("Materials");
        for material in &report.materials {
            let what = match (material.is_gone, material.bytes_before) {
                (true, Some(_)) => format!(
                    "{} bytes overwritten, removed, directory synced",
                    material.bytes_overwritten
                ),
                (true, None) => "was gone before".to_owned(),
                (false, _) if report.status == Status::Scheduled => "waits for its day".to_owned(),
                (false, _) => "is still there".to_owned(),
            };
            self.line(&format!("  {}  {what}", material.key_material_id));
        }
    }

    fn volumes(&mut self, volumes: &[Volume]) {
        self.section("Volumes");
        for volume in volumes {
            self.line(&format!(
                "  {} (volume {}, on {}{})",
                volume.medium.path,
                volume.volume_id,
                volume.medium.filesystem,
                mounted(&volume.mountpoints)
            ));
            self.line(&format!(
                "    lost            {}",
                counted(&volume.lost_in_all)
            ));
            for lost in &volume.lost {
                let (id, tally) = (lost.key_material_id, counted(&lost.tally));
                self.line(&format!("      {id}  {tally}"));
            }
            self.line(&format!("    stays           {}", counted(&volume.stays)));
            self.line(&format!(
                "    loses its name  {}",
                counted(&volume.nameless)
            ));
            for bound in &volume.bindings {
                self.line(&format!("    {}", bound.phrase()));
            }
            if volume.is_whole {
                self.line(
                    "    its own key or its root directory is under the key: the whole volume goes",
                );
            }
            if volume.damaged > 0 {
                self.line(&format!(
                    "    {} objects cannot be read: their keys are not known",
                    volume.damaged
                ));
            }
        }
    }

    fn attempts(&mut self, attempts: &[Attempt]) {
        self.section("Attempts to unwrap a data key");
        for attempt in attempts {
            let probe = &attempt.probe;
            let path = probe.path.as_deref().unwrap_or("(made to be tried)");
            let after = attempt
                .after
                .as_ref()
                .map_or_else(|| "not tried".to_owned(), outcome);
            self.line(&format!(
                "  {path}: before {}, after {after}",
                outcome(&attempt.before)
            ));
        }
    }

    fn mounts(&mut self, report: &Report) {
        let Some(mounts) = &report.mounts else {
            return;
        };
        self.section("Mounts");
        for obeyed in &mounts.mounts {
            self.line(&format!("  {}", crate::cli::obey::line(obeyed)));
        }
        for unanswered in &mounts.unanswered {
            self.line(&format!("  {unanswered}"));
        }
    }

    fn events(&mut self, title: &str, events: &[EventInLog]) {
        if !events.is_empty() {
            self.section(title);
        }
        for event in events {
            self.line(&format!(
                "  {}  {} by {}  {}",
                event.event_time, event.event_name, event.user, event.event_id
            ));
        }
    }

    fn remains(&mut self, report: &Report) {
        let backups: Vec<_> = report
            .backups
            .iter()
            .map(|backup| {
                format!(
                    "{} of {} holds material {}",
                    backup.path, backup.creation_date, backup.key_material_id
                )
            })
            .collect();
        self.list("Known backups", &backups);
        self.events("Imports (the originals are their owners')", &report.imports);
        self.list("Warnings", &report.warnings);
        self.list("Not checked", &report.not_checked);
    }
}

fn mounted(mountpoints: &[String]) -> String {
    if mountpoints.is_empty() {
        String::new()
    } else {
        format!(", mounted on {}", mountpoints.join(", "))
    }
}

fn outcome(outcome: &Outcome) -> String {
    match &outcome.error_code {
        _ if outcome.decrypts => "it decrypts".to_owned(),
        Some(code) => code.clone(),
        None => "it does not decrypt".to_owned(),
    }
}

/// What a tally counts, in words.
pub fn counted(tally: &Tally) -> String {
    let mut parts = Vec::new();
    let mut add = |count: u64, one: &str, many: &str| match count {
        0 => {}
        1 => parts.push(format!("1 {one}")),
        _ => parts.push(format!("{} {many}", HumanCount(count))),
    };
    add(tally.files, "file", "files");
    add(tally.directories, "directory", "directories");
    add(tally.symlinks, "symlink", "symlinks");
    if tally.volume_keys > 0 {
        parts.push("the volume key".to_owned());
    }
    if parts.is_empty() {
        return "nothing".to_owned();
    }
    format!("{} ({})", parts.join(", "), HumanBytes(tally.bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_is_told_in_words() {
        assert_eq!(counted(&Tally::default()), "nothing");
        let tally = Tally {
            files: 1,
            directories: 2000,
            symlinks: 0,
            volume_keys: 1,
            bytes: 4096,
        };
        assert_eq!(
            counted(&tally),
            "1 file, 2,000 directories, the volume key (4.00 KiB)"
        );
    }
}
