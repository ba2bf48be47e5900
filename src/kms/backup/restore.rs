//! Bringing a backup back: what is missing or damaged is added, what is there stays as it is, and what was destroyed on
//! purpose stays destroyed unless it is asked for.

use std::collections::HashSet;

use serde::Serialize;
use serde_json::Value;

use super::{Backup, Record, key_of, material_of};
use crate::ids::{KeyId, MaterialId};
use crate::kms::audit::{self, AuditEvent, Filter};
use crate::kms::error::KmsError;
use crate::kms::record::KeyRecord;
use crate::kms::seal::RecordKind;
use crate::kms::state::KeyState;
use crate::kms::store::{self, KeyStore};
use crate::kms::transaction::Transaction;

/// What came back, and what did not.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Restored {
    /// Keys whose record came back.
    pub keys: Vec<KeyId>,
    /// Materials that came back.
    pub key_materials: Vec<MaterialId>,
    /// Aliases that came back.
    pub aliases: Vec<String>,
    /// Records that were there, and stayed as they were.
    pub kept: usize,
    /// Keys that were deleted since, and stay so.
    pub deleted_keys: Vec<KeyId>,
    /// Materials that were destroyed since, and stay so.
    pub deleted_key_materials: Vec<MaterialId>,
    /// Aliases that were deleted since, or whose key is not there, and stay so.
    pub deleted_aliases: Vec<String>,
}

/// What was removed on purpose, as the audit log tells.
#[derive(Default)]
pub(super) struct Removed {
    keys: HashSet<String>,
    materials: HashSet<String>,
    aliases: HashSet<String>,
}

impl Removed {
    fn read(store: &KeyStore) -> Result<Self, KmsError> {
        let mut removed = Self::default();
        audit::query::read_aside(store, |event| removed.add(&event));
        let read = audit::query::read(store, &Filter::default(), |event| {
            removed.add(&event);
            Ok::<(), std::convert::Infallible>(())
        });
        match read {
            // Who can tell what the missing lines said.
            Ok(found) => found.damage.map_or(Ok(removed), Err),
            Err(never) => match never {},
        }
    }

    fn add(&mut self, event: &AuditEvent) {
        if event.field("errorCode").is_some() {
            return;
        }
        let ids = |name| {
            let ids = event.field(&format!("additionalEventData/{name}"));
            let ids = ids.and_then(Value::as_array).into_iter().flatten();
            ids.filter_map(Value::as_str).map(str::to_owned)
        };
        self.keys.extend(ids("deletedKeyIds"));
        self.materials.extend(ids("destroyedKeyMaterialIds"));
        self.aliases.extend(ids("deletedAliases"));
    }
}

/// Collects what a backup adds to a key directory that is there.
pub(in crate::kms) fn restore(
    store: &KeyStore,
    change: &mut Transaction<'_>,
    backup: &Backup,
    include_deleted: bool,
) -> Result<Restored, KmsError> {
    let removed = if include_deleted {
        Removed::default()
    } else {
        Removed::read(store)?
    };
    let mut result = Restored::default();
    let (mut there, mut coming) = (HashSet::new(), HashSet::new());
    for (key, materials) in backup.keys() {
        match store.key(key) {
            Ok(current) => {
                there.insert(key);
                result.kept += 1;
                let mut replaces = false;
                for id in materials {
                    let place = store::material_place(key, id);
                    let is_there =
                        matches!(store.unsealed(RecordKind::Material, &place), Ok(Some(_)));
                    // The record knows best: what was destroyed may have been imported again, and the log begun anew.
                    let known = current.value.material(id);
                    let was_destroyed = match known {
                        Some(known) => known.missing.is_some(),
                        None => removed.materials.contains(&id.to_string()),
                    };
                    if is_there {
                        result.kept += 1;
                    } else if was_destroyed && !include_deleted {
                        result.deleted_key_materials.push(id);
                    } else if known.is_some() || include_deleted {
                        put(change, backup, &place, 0);
                        result.key_materials.push(id);
                        replaces |= include_deleted;
                    }
                }
                // Its record says that the material is not there; the backup's says that it is.
                if replaces {
                    put(change, backup, &store::key_place(key), current.counter);
                    result.keys.push(key);
                }
            }
            Err(KmsError::NotFoundException { .. }) if removed.keys.contains(&key.to_string()) => {
                result.deleted_keys.push(key);
            }
            Err(KmsError::NotFoundException { .. } | KmsError::Damaged { .. }) => {
                coming.insert(key);
                result.keys.push(key);
                for id in materials {
                    if removed.materials.contains(&id.to_string()) {
                        result.deleted_key_materials.push(id);
                    } else {
                        put(change, backup, &store::material_place(key, id), 0);
                        result.key_materials.push(id);
                    }
                }
                put_back(change, backup, &store::key_place(key))?;
            }
            Err(error) => return Err(error),
        }
    }
    for record in &backup.records {
        if record.kind == RecordKind::Alias {
            let target = |key: &KeyId| there.contains(key) || coming.contains(key);
            alias(store, change, record, &removed, target, &mut result);
        }
    }
    Ok(result)
}

fn alias(
    store: &KeyStore,
    change: &mut Transaction<'_>,
    record: &Record,
    removed: &Removed,
    is_key_there: impl Fn(&KeyId) -> bool,
    result: &mut Restored,
) {
    let value: Value = serde_json::from_slice(&record.payload).unwrap_or_default();
    let text = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default();
    let name = text("AliasName").to_owned();
    if matches!(
        store.unsealed(RecordKind::Alias, &record.place),
        Ok(Some(_))
    ) {
        result.kept += 1;
        return;
    }
    let target = text("TargetKeyId").parse().ok();
    if removed.aliases.contains(&record.place) || !target.as_ref().is_some_and(is_key_there) {
        result.deleted_aliases.push(name);
        return;
    }
    change.put_record(record.kind, &record.place, record.counter, &record.payload);
    result.aliases.push(name);
}

fn put(change: &mut Transaction<'_>, backup: &Backup, place: &str, after: u64) {
    for record in backup.records.iter().filter(|record| record.place == place) {
        let counter = record.counter.max(after.saturating_add(1));
        change.put_record(record.kind, place, counter, &record.payload);
    }
}

/// The record of a key that is not there. One that waited for its deletion comes back disabled, as after a cancelled
/// deletion: its day may be past, and it would go again at the next touch.
fn put_back(change: &mut Transaction<'_>, backup: &Backup, place: &str) -> Result<(), KmsError> {
    for record in backup.records.iter().filter(|record| record.place == place) {
        let key: KeyRecord = serde_json::from_slice(&record.payload)
            .map_err(|error| KmsError::damaged(place, error))?;
        if key.key_state != KeyState::PendingDeletion {
            change.put_record(record.kind, place, record.counter, &record.payload);
            continue;
        }
        let key = KeyRecord {
            key_state: KeyState::Disabled,
            deletion: None,
            ..key
        };
        change.put_key(None, &key)?;
    }
    Ok(())
}

/// The keys and materials of a backup, all of which come back into a new key directory.
pub(in crate::kms) fn everything(backup: &Backup) -> Restored {
    let mut result = Restored::default();
    for record in &backup.records {
        match record.kind {
            RecordKind::Key => result.keys.extend(key_of(&record.place)),
            RecordKind::Material => result.key_materials.extend(material_of(&record.place)),
            _ => {
                let value: Value = serde_json::from_slice(&record.payload).unwrap_or_default();
                let name = value.get("AliasName").and_then(Value::as_str);
                result.aliases.extend(name.map(str::to_owned));
            }
        }
    }
    result
}
