//! Changes of several files, whole or not at all, and never without their line in the audit log.
//!
//! What is new is written aside. Then one file, the journal, says what is to be done and written down: with it the change
//! is decided. Then it is done, step by step, each of which may be done again; then the journal goes. Whoever takes the
//! lock next finishes a journal that it finds, and throws away what lies aside without one.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::audit::{AuditLog, Batch};
use super::error::KmsError;
use super::seal::RecordKind;
use super::storage;
use super::store::{self, KEYS, KeyStore};
use crate::ids::KeyId;

/// What is to be done and written down; there only while it is.
pub(super) const JOURNAL: &str = "journal";
/// Where new files lie until the change is decided.
pub(super) const STAGED: &str = ".staged";
/// Room for the steps of restoring many thousands of keys.
const MAX_JOURNAL: u64 = 64 << 20;

/// A change of the store that is wanted. Places are relative to the key directory.
pub(super) enum Change {
    /// A record or material, new or in the place of an old one.
    Put { place: String, sealed: Vec<u8> },
    /// A material that is never to be read again: overwritten, then removed. It need not be there.
    Destroy { place: String },
    /// A key's directory with what is left in it.
    RemoveKey { key: KeyId },
    /// An alias.
    Remove { place: String },
}

/// A path below the key directory: whatever a journal says, nothing outside is moved or destroyed.
#[derive(Debug, Serialize, Deserialize)]
#[serde(try_from = "String")]
struct Place(String);

impl TryFrom<String> for Place {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let mut parts = Path::new(&text).components();
        let is_below = !text.is_empty() && parts.all(|part| matches!(part, Component::Normal(_)));
        if is_below {
            Ok(Self(text))
        } else {
            Err(format!("{text:?} is no place in a key directory"))
        }
    }
}

impl AsRef<Path> for Place {
    fn as_ref(&self) -> &Path {
        self.0.as_ref()
    }
}

/// One step of a change that is decided.
#[derive(Debug, Serialize, Deserialize)]
enum Step {
    /// What lies aside comes into its place.
    Move {
        from: Place,
        to: Place,
    },
    Destroy {
        place: Place,
    },
    RemoveKey {
        key: KeyId,
    },
    Remove {
        place: Place,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Journal {
    audit: Batch,
    steps: Vec<Step>,
}

/// Decides and does `changes`, and writes `audit` down. Nothing is changed where it fails, except with
/// [`KmsError::Unfinished`]. Runs under the lock, after [`finish`].
pub(super) fn commit(
    store: &KeyStore,
    changes: &[Change],
    log: &mut AuditLog<'_>,
    audit: Batch,
) -> Result<(), KmsError> {
    let decided = decide(store, changes, log, audit);
    let journal = decided.map_err(|error| match take_back(store) {
        Ok(()) => error,
        // It may be decided all the same.
        Err(_) => KmsError::Unfinished(error.into()),
    })?;
    log.write(&journal.audit)
        .and_then(|()| perform(store, &journal))
        .map_err(|error| KmsError::Unfinished(error.into()))
}

/// Finishes what somebody has decided and not done, and throws away what was never decided.
pub(super) fn finish(store: &KeyStore) -> Result<(), KmsError> {
    if let Some(journal) = read(store)? {
        log::info!(
            "finishing what another process began in {}",
            store.dir().display()
        );
        let mut log = AuditLog::open(store.dir(), &store.sealer)?;
        log.write(&journal.audit)?;
        perform(store, &journal)?;
    }
    throw_away_staged(store)
}

/// As [`finish`], where the audit log that the journal belongs to is to be given up. Returns the lines that are not
/// written there any more.
pub(super) fn finish_without_log(store: &KeyStore) -> Result<String, KmsError> {
    let mut lines = String::new();
    if let Some(journal) = read(store)? {
        perform(store, &journal)?;
        lines = journal.audit.into_lines();
    }
    throw_away_staged(store)?;
    Ok(lines)
}

fn read(store: &KeyStore) -> Result<Option<Journal>, KmsError> {
    let path = store.dir().join(JOURNAL);
    if let Some(snapshot) = storage::read_up_to(&path, MAX_JOURNAL)? {
        let unsealed = store
            .sealer
            .open(RecordKind::Journal, JOURNAL, &snapshot.bytes)
            .map_err(|error| KmsError::damaged(&path, error))?;
        return serde_json::from_slice(&unsealed.payload)
            .map(Some)
            .map_err(|error| {
                KmsError::damaged(
                    &path,
                    format!("it says what this version of cmkfs does not know: {error}"),
                )
            });
    }
    Ok(None)
}

/// Whether something is left to be finished.
pub(super) fn is_unfinished(dir: &Path) -> Result<bool, KmsError> {
    Ok(storage::stat(&dir.join(JOURNAL))?.is_some())
}

fn decide(
    store: &KeyStore,
    changes: &[Change],
    log: &AuditLog<'_>,
    audit: Batch,
) -> Result<Journal, KmsError> {
    let steps = stage(store, changes)?;
    // From here on the line must not fail for lack of space.
    log.reserve(&audit)?;
    let journal = Journal { audit, steps };
    let sealed = store::seal(&store.sealer, RecordKind::Journal, JOURNAL, 1, &journal)?;
    // What nobody could read again could not be finished.
    if sealed.len() as u64 > MAX_JOURNAL {
        return Err(KmsError::ValidationException(
            "this changes more records than can be changed at once".to_owned(),
        ));
    }
    storage::replace(store.dir(), JOURNAL, &sealed)?;
    Ok(journal)
}

/// Writes what is new aside, and says what is to be done with it.
fn stage(store: &KeyStore, changes: &[Change]) -> Result<Vec<Step>, KmsError> {
    let (dir, staged) = (store.dir(), store.dir().join(STAGED));
    if storage::stat(&staged)?.is_none() {
        storage::make_dir(&staged)?;
    }
    let mut steps = Vec::new();
    let mut new_keys = BTreeSet::new();
    for (number, change) in changes.iter().enumerate() {
        steps.push(match change {
            Change::Put { place, sealed } => {
                let path = Path::new(place);
                let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
                    return Err(KmsError::damaged(path, "it is no place of a record"));
                };
                if storage::stat(&dir.join(parent))?.is_some() {
                    let from = format!("{STAGED}/{number}");
                    storage::create(&dir.join(&from), sealed)?;
                    Step::Move {
                        from: Place(from),
                        to: Place(place.clone()),
                    }
                } else {
                    // A new key is a directory that comes into its place with all that is in it.
                    let from = format!("{STAGED}/{}", name_of(parent));
                    let aside = dir.join(&from);
                    let is_first = new_keys.insert(aside.clone());
                    if is_first {
                        storage::make_dir(&aside)?;
                    }
                    storage::create(&aside.join(name), sealed)?;
                    if !is_first {
                        continue;
                    }
                    let to = parent.to_string_lossy().into_owned();
                    Step::Move {
                        from: Place(from),
                        to: Place(to),
                    }
                }
            }
            Change::Destroy { place } => Step::Destroy {
                place: Place(place.clone()),
            },
            Change::RemoveKey { key } => Step::RemoveKey { key: *key },
            Change::Remove { place } => Step::Remove {
                place: Place(place.clone()),
            },
        });
    }
    for new_key in &new_keys {
        storage::sync(new_key)?;
    }
    storage::sync(&staged)?;
    Ok(steps)
}

fn name_of(path: &Path) -> String {
    path.file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

fn take_back(store: &KeyStore) -> Result<(), KmsError> {
    storage::discard(&store.dir().join(JOURNAL))?;
    storage::sync(store.dir())?;
    throw_away_staged(store)
}

fn throw_away_staged(store: &KeyStore) -> Result<(), KmsError> {
    let staged = store.dir().join(STAGED);
    for name in storage::all_names(&staged)? {
        // There may be a material among it.
        storage::destroy(&staged.join(name))?;
    }
    Ok(())
}

/// Does what is decided, as often as need be.
fn perform(store: &KeyStore, journal: &Journal) -> Result<(), KmsError> {
    let dir = store.dir();
    let mut touched = BTreeSet::new();
    for step in &journal.steps {
        apply(dir, step, &mut touched)?;
    }
    for directory in touched {
        storage::sync(&directory)?;
    }
    storage::discard(&dir.join(JOURNAL))?;
    storage::sync(dir)
}

fn apply(dir: &Path, step: &Step, touched: &mut BTreeSet<PathBuf>) -> Result<(), KmsError> {
    let mut touch = |path: &Path| touched.extend(path.parent().map(Path::to_owned));
    match step {
        Step::Move { from, to } => {
            let (from, to) = (dir.join(from), dir.join(to));
            // What does not lie aside any more was moved before.
            if storage::stat(&from)?.is_some() {
                storage::rename(&from, &to)?;
            }
            touch(&to);
            touch(&from);
            Ok(())
        }
        Step::Destroy { place } => {
            // Out of its place first: who reads it there, without a lock, finds it whole or not at all.
            let path = dir.join(place);
            let aside = dir.join(STAGED).join(format!("gone-{}", name_of(&path)));
            if storage::stat(&path)?.is_some() {
                storage::rename(&path, &aside)?;
            }
            // Now, because the directory may go with a later step; it may have gone when this is done again.
            if let Some(parent) = path.parent()
                && storage::stat(parent)?.is_some()
            {
                storage::sync(parent)?;
            }
            storage::destroy(&aside)
        }
        Step::RemoveKey { key } => {
            // Out of sight at once, so that nobody sees a key without its record.
            let path = dir.join(KEYS).join(key.to_string());
            let aside = dir.join(STAGED).join(key.to_string());
            if storage::stat(&path)?.is_some() {
                storage::rename(&path, &aside)?;
            }
            touch(&path);
            storage::sync(&dir.join(KEYS))?;
            storage::destroy(&aside)
        }
        Step::Remove { place } => {
            let path = dir.join(place);
            storage::discard(&path)?;
            touch(&path);
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_step_reaches_out_of_the_key_directory() {
        let reads = |place: &str| {
            let step = serde_json::json!({ "Destroy": { "place": place } });
            serde_json::from_value::<Step>(step).is_ok()
        };
        assert!(reads("keys/a/b") && reads(".staged/1"));
        for place in [
            "",
            "/etc/passwd",
            "..",
            "../keys",
            "keys/../../other",
            "./keys",
        ] {
            assert!(!reads(place), "{place}");
        }
    }
}
