//! The one door to keys: one method an operation, named as AWS KMS names it.
//!
//! `access` asks the key's policy · `keys` · `aliases` · `policies` · `grants` · `data_keys` · `deletion` · `material` · `rotation` · `tags` · `crypto`: the operations, by what they
//! are about · `usage` data keys, counted · `due` what is done because its time has come. Each goes through `change` or `read` here:
//! what was done or refused is written down before anybody learns of it.
//!
//! Every method sees what other processes have changed since the last one: records are read anew whenever their files
//! are not the same any more. Lock order: the key directory's lock first, then a cache's, never the other way round.

mod access;
mod aliases;
mod backup;
mod crypto;
mod data_keys;
mod deletion;
mod due;
pub mod erasure;
mod grants;
mod keys;
mod material;
mod policies;
mod rotation;
mod tags;
mod usage;

use usage::Pending;

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use self::access::Access;
use super::audit::identity::Identity;
use super::audit::{self, AuditEvent, AuditVerification, BackupInfo, Filter, Recorder};
use super::create;
use super::error::KmsError;
use super::event::{Event, Refusal};
use super::journal;
use super::key::KeyRef;
use super::policy::{Permission, Request};
use super::record::KeyRecord;
use super::root::{NewProtection, PassphraseSource};
use super::state::{KeyState, Operation};
use super::storage::Lock;
use super::store::{KeyStore, Stored};
use super::transaction::{self, Transaction};
use super::verify::{self, Verification};
use crate::clock::Clock;
use crate::format::keystore::Protection;
use crate::ids::{KeyId, KeyStoreId, MaterialId};

/// What could be listed, and what could not.
#[derive(Debug)]
pub struct Listing<T> {
    /// The readable items.
    pub items: Vec<T>,
    /// One error for each unreadable one.
    pub damaged: Vec<KmsError>,
}

/// The key service over one key directory.
pub struct KeyService {
    store: KeyStore,
    clock: Arc<dyn Clock>,
    recorder: Recorder,
    pending: Pending,
    access: Access,
    look_again: due::LookAgain,
}

impl KeyService {
    fn new(store: KeyStore, clock: Arc<dyn Clock>, recorder: Recorder) -> Result<Self, KmsError> {
        let access = Access::of_this_process(store.dir())?;
        Ok(Self {
            store,
            clock,
            recorder,
            pending: Pending::default(),
            access,
            look_again: due::LookAgain::default(),
        })
    }

    /// Opens the key directory at `dir`.
    ///
    /// # Errors
    /// [`KmsError::NoStore`] where there is none; all that is about the key directory and its passphrase.
    pub fn open(
        dir: &Path,
        passphrases: &dyn PassphraseSource,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, KmsError> {
        let recorder = Recorder::new(Identity::of_process(), Arc::clone(&clock));
        let store = create::open(dir, passphrases, &recorder)?;
        Self::new(store, clock, recorder)
    }

    /// Opens the key directory at `dir`; where there is none, makes it, with its default key. Says whether it did.
    ///
    /// # Errors
    /// All that is about the key directory and its passphrase.
    pub fn open_or_create(
        dir: &Path,
        protection: NewProtection,
        passphrases: &dyn PassphraseSource,
        clock: Arc<dyn Clock>,
    ) -> Result<(Self, bool), KmsError> {
        let recorder = Recorder::new(Identity::of_process(), Arc::clone(&clock));
        let (store, made) = create::open_or_create(dir, protection, passphrases, &recorder)?;
        Ok((Self::new(store, clock, recorder)?, made))
    }

    /// As whom the audit log names the caller, from here on; else it is whoever runs the process.
    #[must_use]
    pub fn acting_as(mut self, identity: Identity) -> Self {
        self.recorder = Recorder::new(identity, Arc::clone(&self.clock));
        self
    }

    /// Reads the whole audit log and says whether it is whole. Changes nothing, and is not written down.
    #[must_use]
    pub fn verify_audit(&self) -> AuditVerification {
        audit::verify(&self.store)
    }

    #[cfg(test)]
    pub(super) const fn store(&self) -> &KeyStore {
        &self.store
    }

    /// The id of the key directory.
    #[must_use]
    pub const fn store_id(&self) -> KeyStoreId {
        self.store.id()
    }

    /// What protects the key directory's root key.
    ///
    /// # Errors
    /// Where the store file cannot be read.
    pub fn protection(&self) -> Result<Protection, KmsError> {
        self.store.protection()
    }

    /// Where the key directory lies.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.store.dir()
    }

    /// The key that `key` stands for at the moment.
    ///
    /// # Errors
    /// [`KmsError::NotFoundException`] for an alias that is not there; an id is not looked up.
    pub fn resolve(&self, key: &KeyRef) -> Result<KeyId, KmsError> {
        match key {
            KeyRef::Id(id) => Ok(*id),
            KeyRef::Alias(alias) => Ok(self.store.alias(alias)?.value.target_key_id),
        }
    }

    /// Reads every record anew and says which are damaged.
    ///
    /// # Errors
    /// Where the key directory itself cannot be read.
    pub fn verify(&self) -> Result<Verification, KmsError> {
        verify::verify(&self.store)
    }

    /// Hands the events of the audit log that fit to `each`, the oldest first, until that fails; holds one at a time.
    /// Says whether the log is whole. Is not written down.
    ///
    /// # Errors
    /// Those of `each`.
    pub fn audit_events<E>(
        &self,
        filter: &Filter,
        each: impl FnMut(AuditEvent) -> Result<(), E>,
    ) -> Result<AuditVerification, E> {
        audit::query::read(&self.store, filter, each)
    }

    /// The backups that hold a material, as far as the audit log says.
    #[must_use]
    pub fn known_backups_of(&self, material: MaterialId) -> Vec<BackupInfo> {
        audit::query::backups_of(&self.store, material)
    }

    /// The keys that were deleted, as far as the audit log says; none where it is damaged. Is not written down.
    #[must_use]
    pub fn deleted_keys(&self) -> HashSet<KeyId> {
        audit::query::deleted_keys(&self.store)
    }

    /// Moves an audit log that is damaged aside and begins a new one, which says so. Returns where the old one went.
    ///
    /// # Errors
    /// [`KmsError::ValidationException`] where the log is whole.
    pub fn restart_audit(&self) -> Result<String, KmsError> {
        self.store.check()?;
        // The lock alone: what is unfinished cannot be written into a damaged log.
        let _lock = Lock::exclusive(self.store.dir())?;
        let found = self.verify_audit();
        let Some(damage) = found.damage else {
            return Err(KmsError::ValidationException(
                "the audit log is whole: there is no reason to begin a new one".to_owned(),
            ));
        };
        let lines = journal::finish_without_log(&self.store)?;
        let aside = audit::restart(self.store.dir(), &self.store.sealer)?;
        let mut event = Event::new("RestartAuditLog");
        event.note("damage", damage.to_string());
        event.note("wholeEvents", found.events);
        event.note("movedTo", aside.clone());
        // What was decided for the old log and could not be written there any more.
        let lines = lines.lines().map(serde_json::from_str);
        let unwritten: Vec<serde_json::Value> = lines.filter_map(Result::ok).collect();
        if !unwritten.is_empty() {
            event.note("unwrittenEvents", unwritten);
        }
        transaction::record(&self.store, &self.recorder, [&event])?;
        Ok(aside)
    }

    /// Runs an operation that may change the store: `operation` collects what is to change, which is then done whole or
    /// not at all. Nothing is changed where it fails.
    pub(super) fn change<T>(
        &self,
        event: Event,
        operation: impl FnOnce(&mut Transaction<'_>) -> Result<T, KmsError>,
    ) -> Result<T, KmsError> {
        self.run_due();
        let mut transaction = Transaction::begin(&self.store, &self.recorder, event)?;
        match operation(&mut transaction) {
            Ok(result) => {
                transaction.commit()?;
                self.look_again.at_once();
                Ok(result)
            }
            Err(error) => Err(transaction.refuse(error)),
        }
    }

    /// Runs an operation that changes nothing.
    fn read<T>(
        &self,
        mut event: Event,
        operation: impl FnOnce(&mut Event) -> Result<T, KmsError>,
    ) -> Result<T, KmsError> {
        self.run_due();
        let result = operation(&mut event);
        event.refused = result.as_ref().err().map(Refusal::from);
        let recorded = match transaction::take_turn(&self.store) {
            Ok(_lock) => transaction::record(&self.store, &self.recorder, [&event]),
            // There is nothing left that it could be written to, and nothing to protect.
            Err(KmsError::NoStore { .. } | KmsError::WrongStore { .. }) if result.is_err() => {
                Ok(())
            }
            Err(error) => Err(KmsError::NotRecorded(error.into())),
        };
        recorded.and(result)
    }

    /// The key that is asked for, once its policy and then its state allow the operation. The event is about it from here on, refused or not.
    fn admit(
        &self,
        event: &mut Event,
        key: &KeyRef,
        operation: Operation,
    ) -> Result<Arc<Stored<KeyRecord>>, KmsError> {
        let request = Request::new(event.name);
        let (key, _) = self.admit_request(event, key, operation, &request)?;
        Ok(key)
    }

    /// The same where more than the operation's name counts. Says also what allows it.
    fn admit_request(
        &self,
        event: &mut Event,
        key: &KeyRef,
        operation: Operation,
        request: &Request<'_>,
    ) -> Result<(Arc<Stored<KeyRecord>>, Permission), KmsError> {
        let id = self.resolve(key)?;
        event.about(id);
        let key = self.store.key(id)?;
        let permission = self.authorize(&key.value, request)?;
        self.check_state(&key, operation)?;
        Ok((key, permission))
    }

    /// The state the key is in after `operation`, where its state at this moment allows it.
    fn check_state(
        &self,
        key: &Stored<KeyRecord>,
        operation: Operation,
    ) -> Result<KeyState, KmsError> {
        let after = key.value.after(operation, self.clock.now());
        after.map_err(|error| KmsError::from_state(key.value.key_id, operation, error))
    }
}

#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod life_tests;
#[cfg(test)]
pub(super) mod tests;
