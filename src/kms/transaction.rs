//! The right to change records, and the only way to do so: what is to change is collected, and done by
//! [`Transaction::commit`], whole or not at all, together with the audit record of the operation.
//!
//! Reads inside a transaction see the store as it was before it.

use super::alias::{AliasName, AliasRecord};
use super::error::KmsError;
use super::event::Event;
use super::key::KeyRecord;
use super::seal::RecordKind;
use super::storage::{self, Lock};
use super::store::{self, ALIASES, KEY, KEYS, KeyStore, Stored};
use crate::ids::{KeyId, MaterialId};
use crate::secret::Secret;

/// One change of the store. Places are relative to the key directory.
enum Step {
    /// A record or material, new or in the place of an old one.
    Put { place: String, sealed: Vec<u8> },
    /// A material that is never to be read again: overwritten, then removed. It need not be there.
    Destroy { place: String },
    /// A key's directory with what is left in it.
    RemoveKey { key: KeyId },
    /// An alias.
    Remove { place: String },
}

/// A change of the store in the making.
pub(super) struct Transaction<'a> {
    store: &'a KeyStore,
    _lock: Lock,
    /// What will be written down of it.
    pub event: Event,
    steps: Vec<Step>,
}

impl<'a> Transaction<'a> {
    /// Takes the right to change records; waits for whoever has it.
    pub(super) fn begin(store: &'a KeyStore, event: Event) -> Result<Self, KmsError> {
        // Without this the lock file would be made anew in whatever has taken the directory's place.
        store.check()?;
        let lock = Lock::exclusive(store.dir())?;
        store.check()?;
        Ok(Self {
            store,
            _lock: lock,
            event,
            steps: Vec::new(),
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
        self.steps.push(Step::Put { place, sealed });
        Ok(())
    }

    /// Writes a material of a key.
    pub(super) fn put_material(&mut self, key: KeyId, id: MaterialId, material: &Secret<32>) {
        let place = store::material_place(key, id);
        let sealer = &self.store.sealer;
        let sealed = sealer.seal(RecordKind::Material, &place, 1, material.expose());
        self.steps.push(Step::Put { place, sealed });
    }

    /// Destroys a material: overwrites and removes its file.
    pub(super) fn destroy_material(&mut self, key: KeyId, id: MaterialId) {
        let place = store::material_place(key, id);
        self.steps.push(Step::Destroy { place });
    }

    /// Removes a key's record and whatever lies beside it. Its materials are to be destroyed before.
    pub(super) fn remove_key(&mut self, key: KeyId) {
        self.steps.push(Step::RemoveKey { key });
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
        self.steps.push(Step::Put { place, sealed });
        Ok(())
    }

    /// Removes an alias, readable or not.
    pub(super) fn remove_alias(&mut self, alias: &AliasName) -> Result<(), KmsError> {
        let place = store::alias_place(alias);
        if storage::stat(&self.store.dir().join(&place))?.is_none() {
            return Err(self.store.no_alias(alias));
        }
        self.steps.push(Step::Remove { place });
        Ok(())
    }

    /// Does what was collected, and writes the event down. Durable on return.
    pub(super) fn commit(self) -> Result<(), KmsError> {
        for step in &self.steps {
            self.apply(step)?;
        }
        log::debug!("{:?}", self.event);
        Ok(())
    }

    fn apply(&self, step: &Step) -> Result<(), KmsError> {
        let dir = self.store.dir();
        match step {
            Step::Put { place, sealed } => {
                let path = dir.join(place);
                let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
                    return Err(KmsError::damaged(path, "it is no place of a record"));
                };
                if storage::stat(parent)?.is_none() {
                    storage::make_dir(parent)?;
                    storage::sync(&dir.join(KEYS))?;
                }
                storage::replace(parent, &name.to_string_lossy(), sealed)
            }
            Step::Destroy { place } => storage::destroy(&dir.join(place)),
            Step::RemoveKey { key } => {
                let keys = dir.join(KEYS);
                let path = keys.join(key.to_string());
                storage::discard(&path.join(KEY))?;
                storage::discard(&path)?;
                storage::sync(&keys)
            }
            Step::Remove { place } => {
                storage::discard(&dir.join(place))?;
                storage::sync(&dir.join(ALIASES))
            }
        }
    }
}
