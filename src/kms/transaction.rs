//! The right to change records, and the only way to do so: what is to change is collected, and done by
//! [`Transaction::commit`], whole or not at all, together with the audit record of the operation.
//!
//! Reads inside a transaction see the store as it was before it.

use super::alias::{AliasName, AliasRecord};
use super::audit::{AuditLog, Batch, Recorder};
use super::error::KmsError;
use super::event::{Event, Refusal};
use super::journal::{self, Change};
use super::key::KeyRecord;
use super::reserve;
use super::seal::RecordKind;
use super::storage::{self, Lock};
use super::store::{self, KeyStore, Stored};
use crate::ids::{KeyId, MaterialId};
use crate::secret::Secret;

/// A change of the store in the making.
pub(super) struct Transaction<'a> {
    store: &'a KeyStore,
    recorder: &'a Recorder,
    _lock: Lock,
    /// What will be written down of it.
    pub event: Event,
    changes: Vec<Change>,
}

impl<'a> Transaction<'a> {
    /// Takes the right to change records; waits for whoever has it, and finishes what somebody left unfinished.
    pub(super) fn begin(
        store: &'a KeyStore,
        recorder: &'a Recorder,
        event: Event,
    ) -> Result<Self, KmsError> {
        Ok(Self {
            store,
            recorder,
            _lock: take_turn(store)?,
            event,
            changes: Vec::new(),
        })
    }

    /// Writes the record of a key, in the place of `old` if there is one.
    pub(super) fn put_key(
        &mut self,
        old: Option<&Stored<KeyRecord>>,
        new: &KeyRecord,
    ) -> Result<(), KmsError> {
        let place = store::key_place(new.key_id);
        let counter = old.map_or(1, |old| old.counter.saturating_add(1));
        let sealed = store::seal(&self.store.sealer, RecordKind::Key, &place, counter, new)?;
        self.changes.push(Change::Put { place, sealed });
        Ok(())
    }

    /// Writes a material of a key.
    pub(super) fn put_material(&mut self, key: KeyId, id: MaterialId, material: &Secret<32>) {
        let place = store::material_place(key, id);
        let sealer = &self.store.sealer;
        let sealed = sealer.seal(RecordKind::Material, &place, 1, material.expose());
        self.changes.push(Change::Put { place, sealed });
    }

    /// Writes a record as a backup has it.
    pub(super) fn put_record(
        &mut self,
        kind: RecordKind,
        place: &str,
        counter: u64,
        payload: &[u8],
    ) {
        let sealed = self.store.sealer.seal(kind, place, counter, payload);
        let place = place.to_owned();
        self.changes.push(Change::Put { place, sealed });
    }

    /// Destroys a material: overwrites and removes its file.
    pub(super) fn destroy_material(&mut self, key: KeyId, id: MaterialId) {
        let place = store::material_place(key, id);
        self.changes.push(Change::Destroy { place });
    }

    /// Removes a key's record and whatever lies beside it. Its materials are to be destroyed before.
    pub(super) fn remove_key(&mut self, key: KeyId) {
        self.changes.push(Change::RemoveKey { key });
    }

    /// Writes an alias, in the place of `old` if there is one.
    pub(super) fn put_alias(
        &mut self,
        old: Option<&Stored<AliasRecord>>,
        new: &AliasRecord,
    ) -> Result<(), KmsError> {
        let place = store::alias_place(&new.alias_name);
        let counter = old.map_or(1, |old| old.counter.saturating_add(1));
        let sealed = store::seal(&self.store.sealer, RecordKind::Alias, &place, counter, new)?;
        self.changes.push(Change::Put { place, sealed });
        Ok(())
    }

    /// Removes an alias, readable or not.
    pub(super) fn remove_alias(&mut self, alias: &AliasName) -> Result<(), KmsError> {
        let place = store::alias_place(alias);
        if storage::stat(&self.store.dir().join(&place))?.is_none() {
            return Err(self.store.no_alias(alias));
        }
        self.changes.push(Change::Remove { place });
        Ok(())
    }

    /// Does what was collected, and writes the event down: both or neither. Durable on return.
    ///
    /// # Errors
    /// Nothing was changed, except with [`KmsError::Unfinished`].
    pub(super) fn commit(mut self) -> Result<(), KmsError> {
        self.note_what_goes();
        let result = self.attempt();
        let result = match result {
            Err(error) if error.is_full() && self.event.restricting => {
                reserve::release(self.store.dir())?;
                self.attempt()
            }
            // Decided, so what is kept for such a day may be used for it whatever it is.
            Err(KmsError::Unfinished(error)) if error.is_full() => finish(self.store)
                .map_err(|error| KmsError::Unfinished(error.into())),
            result => result,
        };
        if result.is_ok() {
            reserve::refill(self.store.dir());
        }
        result
    }

    /// So that a backup does not bring it back unasked.
    fn note_what_goes(&mut self) {
        let (mut keys, mut materials, mut aliases) = (Vec::new(), Vec::new(), Vec::new());
        for change in &self.changes {
            match change {
                Change::Put { .. } => {}
                Change::RemoveKey { key } => keys.push(key.to_string()),
                Change::Remove { place } => aliases.push(place.clone()),
                Change::Destroy { place } => {
                    materials.extend(place.rsplit('/').next().map(str::to_owned));
                }
            }
        }
        for (name, gone) in [
            ("deletedKeyIds", keys),
            ("destroyedKeyMaterialIds", materials),
            ("deletedAliases", aliases),
        ] {
            if !gone.is_empty() {
                self.event.note(name, gone);
            }
        }
    }

    fn attempt(&self) -> Result<(), KmsError> {
        let mut log = AuditLog::open(self.store.dir(), &self.store.sealer)
            .map_err(|error| KmsError::NotRecorded(error.into()))?;
        let audit = log.prepare(self.recorder, [&self.event]);
        if self.changes.is_empty() {
            return write(&mut log, &audit);
        }
        journal::commit(self.store, &self.changes, &mut log, audit)
    }

    /// Writes down that the operation was refused with `error`, which is what is left to say; nothing is changed.
    pub(super) fn refuse(mut self, error: KmsError) -> KmsError {
        self.event.refused = Some(Refusal::from(&error));
        match record(self.store, self.recorder, [&self.event]) {
            Ok(()) => error,
            Err(unwritten) => unwritten,
        }
    }
}

/// Takes the lock, and finishes what its last holder left unfinished.
pub(super) fn take_turn(store: &KeyStore) -> Result<Lock, KmsError> {
    // Without this the lock file would be made anew in whatever has taken the directory's place.
    store.check()?;
    let lock = Lock::exclusive(store.dir())?;
    store.check()?;
    finish(store)?;
    Ok(lock)
}

/// Finishes what was decided, with the room that is kept if there is no other.
fn finish(store: &KeyStore) -> Result<(), KmsError> {
    match journal::finish(store) {
        Err(error) if error.is_full() => {
            reserve::release(store.dir())?;
            journal::finish(store)
        }
        finished => finished,
    }
}

/// Writes events down under the lock.
pub(super) fn record<'e>(
    store: &KeyStore,
    recorder: &Recorder,
    events: impl IntoIterator<Item = &'e Event>,
) -> Result<(), KmsError> {
    let mut log = AuditLog::open(store.dir(), &store.sealer)
        .map_err(|error| KmsError::NotRecorded(error.into()))?;
    let audit = log.prepare(recorder, events);
    write(&mut log, &audit)
}

fn write(log: &mut AuditLog<'_>, audit: &Batch) -> Result<(), KmsError> {
    log.reserve(audit)
        .and_then(|()| log.write(audit))
        .map_err(|error| KmsError::NotRecorded(error.into()))
}
