//! Does what is due because its time has come: deletions, expiries, automatic rotations. Nobody asks for it; each is an
//! operation of its own, of the service itself, in the audit log.

use parking_lot::Mutex;

use super::KeyService;
use super::aliases::aliases;
use crate::clock::Timestamp;
use crate::crypto::kdf::material_id;
use crate::ids::{KeyId, MaterialId};
use crate::kms::due::Due;
use crate::kms::error::KmsError;
use crate::kms::event::Event;
use crate::kms::record::{KeyRecord, Missing};
use crate::kms::rotation::RotationType;
use crate::kms::store::Stored;
use crate::kms::transaction::Transaction;
use crate::secret::Secret;

/// After so many milliseconds every record is looked at anew, for what other processes have changed. What must hold at
/// once does not wait for that: whether a material has expired is seen at each use.
const AT_THE_LATEST: i64 = 60_000;

/// Until when nothing is due.
#[derive(Debug, Default)]
pub(super) struct LookAgain(Mutex<Option<Looked>>);

#[derive(Debug, Clone, Copy)]
struct Looked {
    at: Timestamp,
    next: Timestamp,
}

impl LookAgain {
    /// Records were changed.
    pub(super) fn at_once(&self) {
        *self.0.lock() = None;
    }

    fn is_time(&self, now: Timestamp) -> bool {
        // A clock that was set back counts too.
        self.0
            .lock()
            .is_none_or(|looked| now < looked.at || looked.next <= now)
    }

    fn looked(&self, at: Timestamp, next: Option<Timestamp>) {
        let latest = Timestamp(at.0.saturating_add(AT_THE_LATEST));
        let next = next.map_or(latest, |next| next.min(latest));
        *self.0.lock() = Some(Looked { at, next });
    }
}

impl KeyService {
    /// Does what is due. Costs nothing while nothing is; a running mount calls it several times a second, and every
    /// operation before it begins. What fails is logged, keeps nobody from their own operation, and is tried again.
    pub fn run_due(&self) {
        let now = self.clock.now();
        if !self.look_again.is_time(now) {
            return;
        }
        let next = match self.do_all_due(now) {
            Ok(next) => next,
            Err(error) => {
                log::warn!(
                    "cannot see which keys are due to be deleted, rotated or expire: {error}"
                );
                None
            }
        };
        self.look_again.looked(now, next);
    }

    /// Does what is due of every key, and says when the next thing is.
    fn do_all_due(&self, now: Timestamp) -> Result<Option<Timestamp>, KmsError> {
        let mut next: Option<Timestamp> = None;
        for id in self.store.key_ids()?.0 {
            // A damaged record is told of by whoever asks for the key.
            while let Ok(key) = self.store.key(id) {
                let Some(due) = key.value.due(now) else {
                    let of_key = key.value.next_due();
                    next = next.into_iter().chain(of_key).min();
                    break;
                };
                if let Err(error) = self.do_due(id, due, now) {
                    log::warn!("key {id} has something due that cannot be done now: {error}");
                    break;
                }
            }
        }
        Ok(next)
    }

    fn do_due(&self, id: KeyId, due: Due, now: Timestamp) -> Result<(), KmsError> {
        let name = match due {
            Due::Deletion => "DeleteKey",
            Due::Expiry(_) => "DeleteExpiredKeyMaterial",
            Due::Rotation => "RotateKey",
        };
        let mut event = Event::new(name).by_itself().asked(&id.into());
        if due != Due::Rotation {
            event = event.restricting();
        }
        event.about(id);
        let mut change = Transaction::begin(&self.store, &self.recorder, event)?;
        let old = match self.store.key(id) {
            Ok(old) if old.value.due(now) == Some(due) => old,
            // Another process has done it meanwhile.
            Ok(_) | Err(KmsError::NotFoundException { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        match due {
            Due::Deletion => self.delete(&mut change, &old.value)?,
            Due::Expiry(material) => {
                let record = old.value.without_material(material, Missing::Expired);
                change.event.material(material);
                change.destroy_material(id, material);
                change.put_key(Some(&old), &record)?;
            }
            Due::Rotation => {
                self.rotate(&mut change, &old, RotationType::Automatic)?;
            }
        }
        change.commit()
    }

    /// Removes a key with all that belongs to it.
    fn delete(&self, change: &mut Transaction<'_>, key: &KeyRecord) -> Result<(), KmsError> {
        for material in &key.materials {
            change.destroy_material(key.key_id, material.key_material_id);
        }
        for alias in aliases(&self.store, Some(key.key_id))?.items {
            change.remove_alias(&alias.alias_name)?;
        }
        change.remove_key(key.key_id);
        Ok(())
    }

    /// Gives a key a new generated material, and returns its id.
    pub(super) fn rotate(
        &self,
        change: &mut Transaction<'_>,
        old: &Stored<KeyRecord>,
        rotation_type: RotationType,
    ) -> Result<MaterialId, KmsError> {
        let key = old.value.key_id;
        let material = Secret::random()?;
        let id = material_id(&key, &material);
        change.event.material(id);
        change.event.note("rotationType", rotation_type.as_str());
        change.put_material(key, id, &material);
        let now = self.clock.now();
        change.put_key(Some(old), &old.value.rotated(now, id, rotation_type))?;
        Ok(id)
    }
}
