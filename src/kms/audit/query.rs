//! Reading the audit log: who did what with which key, when.

use std::collections::HashSet;

use serde_json::Value;

use super::log;
use super::verify::{self, AuditVerification};
use crate::clock::Timestamp;
use crate::ids::{KeyId, MaterialId};
use crate::kms::key::KeyRef;
use crate::kms::store::KeyStore;

/// Which events are wanted: those that fit everything that is given.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// About this key: asked for by this name, or found to be it.
    pub key: Option<KeyRef>,
    /// Of this name, in AWS's spelling; case does not matter.
    pub event: Option<String>,
    /// Asked for by this user: name or number.
    pub user: Option<String>,
    /// Not before.
    pub since: Option<Timestamp>,
    /// Not after.
    pub until: Option<Timestamp>,
    /// Refused ones only.
    pub errors: bool,
}

/// One event of the log.
#[derive(Debug, Clone)]
pub struct AuditEvent {
    /// The line as it stands in the log.
    pub text: String,
    fields: Value,
}

impl AuditEvent {
    fn parse(line: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(line).ok()?.trim_end().to_owned();
        let fields: Value = serde_json::from_str(&text).ok()?;
        fields.is_object().then_some(Self { text, fields })
    }

    /// What stands at a place, as `userIdentity/uid`; nothing where that is empty.
    #[must_use]
    pub fn field(&self, place: &str) -> Option<&Value> {
        let mut value = &self.fields;
        for name in place.split('/') {
            value = match name.parse::<usize>() {
                Ok(number) => value.get(number)?,
                Err(_) => value.get(name)?,
            };
        }
        Some(value)
    }

    /// The text that stands at a place.
    #[must_use]
    pub fn text_of(&self, place: &str) -> Option<&str> {
        self.field(place)?.as_str()
    }

    /// The key that it was about.
    #[must_use]
    pub fn key(&self) -> Option<KeyId> {
        let arn = self.text_of("resources/0/ARN")?;
        arn.rsplit_once("key/")?.1.parse().ok()
    }

    /// Who asked for it.
    #[must_use]
    pub fn user(&self) -> String {
        match self.text_of("userIdentity/userName") {
            Some(name) => name.to_owned(),
            None => self
                .field("userIdentity/uid")
                .map_or_else(String::new, ToString::to_string),
        }
    }

    /// When it was asked for; of events that were counted, the last.
    #[must_use]
    pub fn time(&self) -> Option<Timestamp> {
        let moment: jiff::Timestamp = self.text_of("eventTime")?.parse().ok()?;
        Some(Timestamp(moment.as_millisecond()))
    }
}

impl Filter {
    fn fits(&self, event: &AuditEvent, key: Option<KeyId>) -> bool {
        let is = |place, text: &str| event.text_of(place) == Some(text);
        let by_key = self.key.as_ref().is_none_or(|asked| {
            let asked = match asked {
                KeyRef::Id(id) => id.to_string(),
                KeyRef::Alias(alias) => alias.to_string(),
            };
            (key.is_some() && event.key() == key)
                || is("requestParameters/keyId", &asked)
                || is("requestParameters/destinationKeyId", &asked)
                || key.is_some_and(|key| is("additionalEventData/sourceKeyId", &key.to_string()))
                || is("requestParameters/aliasName", &asked)
        });
        let by_name = self.event.as_ref().is_none_or(|name| {
            event
                .text_of("eventName")
                .is_some_and(|found| found.eq_ignore_ascii_case(name))
        });
        let by_user = self.user.as_ref().is_none_or(|user| {
            let uid = event.field("userIdentity/uid").and_then(Value::as_u64);
            is("userIdentity/userName", user)
                || is("userIdentity/loginUserName", user)
                || is("userIdentity/sudoUserName", user)
                || uid.is_some_and(|uid| uid.to_string() == *user)
        });
        let time = event.time();
        by_key
            && by_name
            && by_user
            && self
                .since
                .is_none_or(|since| time.is_none_or(|time| time >= since))
            && self
                .until
                .is_none_or(|until| time.is_none_or(|time| time <= until))
            && (!self.errors || event.field("errorCode").is_some())
    }
}

/// Hands the events that fit to `each`, in the order they were written, until that fails. Holds one of them at a time.
/// Events that are not where they belong are shown, too; what was returned says that something is wrong.
pub(in crate::kms) fn read<E>(
    store: &KeyStore,
    filter: &Filter,
    mut each: impl FnMut(AuditEvent) -> Result<(), E>,
) -> Result<AuditVerification, E> {
    let key = match &filter.key {
        Some(KeyRef::Id(id)) => Some(*id),
        Some(KeyRef::Alias(alias)) => store
            .alias(alias)
            .ok()
            .map(|alias| alias.value.target_key_id),
        None => None,
    };
    verify::read(store, |line| match AuditEvent::parse(line) {
        Some(event) if filter.fits(&event, key) => each(event),
        _ => Ok(()),
    })
}

/// The same of the logs that were moved aside, the oldest first. They are damaged, so who could change them may have
/// made up what they say; what they remember is better than nothing where it errs on the safe side.
pub(in crate::kms) fn read_aside(store: &KeyStore, mut each: impl FnMut(AuditEvent)) {
    for folder in log::asides(store.dir()) {
        let _ = verify::read_in(store, &folder, |line| {
            if let Some(event) = AuditEvent::parse(line) {
                each(event);
            }
            Ok::<(), std::convert::Infallible>(())
        });
    }
}

/// The keys that were deleted, as far as a log that is whole says; what a damaged one says is not believed.
pub(in crate::kms) fn deleted_keys(store: &KeyStore) -> HashSet<KeyId> {
    let filter = Filter {
        event: Some("DeleteKey".to_owned()),
        ..Filter::default()
    };
    let mut deleted = HashSet::new();
    let read = read(store, &filter, |event| {
        if event.field("errorCode").is_none() {
            deleted.extend(event.key());
        }
        Ok::<(), std::convert::Infallible>(())
    });
    match read {
        Ok(found) if found.damage.is_none() => deleted,
        _ => HashSet::new(),
    }
}

/// What the audit log remembers of a backup.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct BackupInfo {
    /// The backup's own id.
    pub backup_id: String,
    /// When it was made.
    pub creation_date: String,
    /// Where it was written to, as it was typed.
    pub path: String,
    /// SHA-256 of the file, in hexadecimal.
    pub sha256: String,
}

/// The backups that hold a material, as far as this log and those before it say.
pub(in crate::kms) fn backups_of(store: &KeyStore, material: MaterialId) -> Vec<BackupInfo> {
    let wanted = material.to_string();
    let mut found = Vec::new();
    let mut take = |event: &AuditEvent| {
        if event.text_of("eventName") == Some("BackupKeys") && holds(event, &wanted) {
            let text = |place| event.text_of(place).unwrap_or_default().to_owned();
            found.push(BackupInfo {
                backup_id: text("additionalEventData/backupId"),
                creation_date: text("eventTime"),
                path: text("requestParameters/path"),
                sha256: text("additionalEventData/sha256"),
            });
        }
    };
    read_aside(store, |event| take(&event));
    let _ = read(store, &Filter::default(), |event| {
        take(&event);
        Ok::<(), std::convert::Infallible>(())
    });
    found
}

/// Whether the backup that an event speaks of was made and holds a material.
fn holds(event: &AuditEvent, material: &str) -> bool {
    let keys = event.field("additionalEventData/keys");
    let mut materials = keys
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|key| key.get("keyMaterialIds")?.as_array())
        .flatten()
        .filter_map(Value::as_str);
    event.field("errorCode").is_none() && materials.any(|id| id == material)
}
