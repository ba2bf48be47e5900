//! What an erasure is shown by: attempts to unwrap data keys, and what the audit log says.

use std::collections::BTreeSet;
use std::convert::Infallible;

use super::report::{Attempt, EventInLog, KnownBackup, Outcome};
use crate::ids::{KeyId, MaterialId};
use crate::kms::audit::{AuditEvent, Filter};
use crate::kms::{KeyService, KmsError};
use crate::volume::probe::Probe;

/// Tries to unwrap a data key.
#[must_use]
pub fn attempt(keys: &KeyService, probe: &Probe) -> Outcome {
    match probe.attempt(keys) {
        Ok(()) => Outcome {
            decrypts: true,
            error_code: None,
            error_message: None,
        },
        Err(error) => Outcome {
            decrypts: false,
            error_code: Some(error.code().to_owned()),
            error_message: Some(error.to_string()),
        },
    }
}

/// Tries every probe for the first time.
#[must_use]
pub fn attempts(keys: &KeyService, probes: &[Probe]) -> Vec<Attempt> {
    let tried = |probe: &Probe| Attempt {
        probe: probe.write(),
        before: attempt(keys, probe),
        after: None,
    };
    probes.iter().map(tried).collect()
}

/// What the audit log says of a key that an erasure has to do with.
#[derive(Debug, Default)]
pub struct History {
    /// The events that were done, refused ones left out, in the order of the log.
    pub events: Vec<Remembered>,
    /// What is wrong with the log, if anything is.
    pub damage: Option<String>,
}

/// An event, and what its name alone does not say.
#[derive(Debug)]
pub struct Remembered {
    /// The event.
    pub event: EventInLog,
    /// Of EraseKey: the digest of its report.
    pub report_sha256: Option<String>,
}

/// Imports, one of these.
pub const IMPORT: &str = "ImportKeyMaterial";
/// A key was deleted, on its day.
pub const DELETE_KEY: &str = "DeleteKey";
/// A key is to be deleted.
pub const SCHEDULE: &str = "ScheduleKeyDeletion";
/// A report was made.
pub const ERASE: &str = "EraseKey";
/// A material was deleted.
pub const DELETE_MATERIAL: [&str; 2] = ["DeleteImportedKeyMaterial", "DeleteExpiredKeyMaterial"];
/// A material came about, or came back.
const MATERIAL: [&str; 4] = ["CreateKey", IMPORT, "RotateKey", "RotateKeyOnDemand"];

impl History {
    /// Reads the audit log.
    #[must_use]
    pub fn read(keys: &KeyService, key: KeyId) -> Self {
        let mut history = Self::default();
        let filter = Filter {
            key: Some(key.into()),
            ..Filter::default()
        };
        let found = keys.audit_events(&filter, |event| {
            history.add(key, &event);
            Ok::<(), Infallible>(())
        });
        let Ok(found) = found;
        history.damage = found.damage.map(|damage| damage.to_string());
        history
    }

    fn add(&mut self, key: KeyId, event: &AuditEvent) {
        let name = event.text_of("eventName").unwrap_or_default();
        let is_wanted = [DELETE_KEY, SCHEDULE, ERASE].contains(&name)
            || DELETE_MATERIAL.contains(&name)
            || MATERIAL.contains(&name);
        if !is_wanted || event.key() != Some(key) || event.field("errorCode").is_some() {
            return;
        }
        let text = |place| event.text_of(place).map(str::to_owned);
        self.events.push(Remembered {
            event: EventInLog {
                event_id: text("eventID").unwrap_or_default(),
                event_name: name.to_owned(),
                event_time: text("eventTime").unwrap_or_default(),
                user: event.user(),
                key_material_id: text("additionalEventData/keyMaterialId"),
                chain_value: text("chainValue").unwrap_or_default(),
            },
            report_sha256: text("additionalEventData/reportSha256"),
        });
    }

    /// The events of these names, the oldest first.
    pub fn named<'a>(
        &'a self,
        names: &'a [&str],
    ) -> impl DoubleEndedIterator<Item = &'a EventInLog> {
        let events = self.events.iter().map(|remembered| &remembered.event);
        events.filter(|event| names.contains(&event.event_name.as_str()))
    }

    /// Whether a report with this digest was written down.
    #[must_use]
    pub fn has_report(&self, digest: &str) -> bool {
        self.report(digest).is_some()
    }

    /// The event of the report with this digest.
    #[must_use]
    pub fn report(&self, digest: &str) -> Option<&EventInLog> {
        let found = self.events.iter().find(|remembered| {
            remembered.event.event_name == ERASE
                && remembered.report_sha256.as_deref() == Some(digest)
        });
        found.map(|remembered| &remembered.event)
    }

    /// The key's deletion, if it came to that.
    #[must_use]
    pub fn deletion(&self) -> Option<&EventInLog> {
        self.named(&[DELETE_KEY]).next_back()
    }

    /// Every material that the key ever had, as far as the log goes back.
    #[must_use]
    pub fn materials(&self) -> Vec<MaterialId> {
        let ids = self.named(&MATERIAL).filter_map(|event| {
            let text = event.key_material_id.as_deref()?;
            text.parse().ok()
        });
        ids.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// What the log says of the destruction of the key's materials: each one's last, or what the key waits for.
    #[must_use]
    pub fn destruction(&self) -> Vec<EventInLog> {
        let mut found: Vec<EventInLog> = Vec::new();
        for event in self.named(&DELETE_MATERIAL) {
            found.retain(|before| before.key_material_id != event.key_material_id);
            found.push(event.clone());
        }
        found.extend(self.named(&[SCHEDULE]).next_back().cloned());
        found.extend(self.deletion().cloned());
        found
    }
}

/// The backups that are known to hold one of the materials.
#[must_use]
pub fn backups(keys: &KeyService, materials: &[MaterialId]) -> Vec<KnownBackup> {
    let of = |material: &MaterialId| {
        let material = *material;
        let known = keys.known_backups_of(material).into_iter();
        known.map(move |backup| KnownBackup {
            key_material_id: material,
            backup_id: backup.backup_id,
            creation_date: backup.creation_date,
            path: backup.path,
        })
    };
    materials.iter().flat_map(of).collect()
}

/// Whether an error says that the key is not there.
#[must_use]
pub const fn is_not_found(error: &KmsError) -> bool {
    matches!(error, KmsError::NotFoundException { .. })
}
