//! The one door to keys: one method an operation, named as AWS KMS names it.
//!
//! Every method sees what other processes have changed since the last one: records are read anew whenever their files
//! are not the same any more. Lock order: the key directory's lock first, then a cache's, never the other way round.

use std::path::Path;
use std::sync::Arc;

use super::alias::{self, AliasListEntry, AliasName, AliasRecord};
use super::create;
use super::error::KmsError;
use super::key::{CreateKeyRequest, KeyManager, KeyMetadata, KeyRecord, KeyRef};
use super::material::UsableKey;
use super::root::{NewProtection, PassphraseSource};
use super::state::{self, KeyState, Operation};
use super::store::{KeyStore, Stored};
use super::verify::{self, Verification};
use crate::clock::Clock;
use crate::crypto::envelope::DataKey;
use crate::format::envelope::{EncryptionContext, Envelope};
use crate::format::keystore::Protection;
use crate::ids::{KeyId, KeyStoreId};
use crate::secret::Secret;

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
}

impl KeyService {
    /// Opens the key directory at `dir`.
    ///
    /// # Errors
    /// [`KmsError::NoStore`] where there is none; all that is about the key directory and its passphrase.
    pub fn open(
        dir: &Path,
        passphrases: &dyn PassphraseSource,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, KmsError> {
        let store = create::open(dir, passphrases)?;
        Ok(Self { store, clock })
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
        let (store, made) = create::open_or_create(dir, protection, passphrases, &clock)?;
        Ok((Self { store, clock }, made))
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

    /// CreateKey, together with CreateAlias where an alias is asked for.
    ///
    /// # Errors
    /// As [`Self::create_alias`]; nothing is made then.
    pub fn create_key(&self, request: CreateKeyRequest) -> Result<KeyMetadata, KmsError> {
        let change = self.store.change()?;
        if let Some(alias) = &request.alias {
            self.check_new_alias(alias)?;
        }
        let material = Secret::random()?;
        let now = self.clock.now();
        let record = KeyRecord::new(
            now,
            KeyManager::Customer,
            request.description,
            request.tags,
            &material,
        );
        change.add_key(&record, &material)?;
        if let Some(alias_name) = request.alias {
            change.put_alias(
                None,
                &AliasRecord {
                    alias_name,
                    target_key_id: record.key_id,
                    creation_date: now,
                    last_updated_date: now,
                },
            )?;
        }
        Ok(KeyMetadata::from(&record))
    }

    /// DescribeKey.
    ///
    /// # Errors
    /// [`KmsError::NotFoundException`], [`KmsError::Damaged`].
    pub fn describe_key(&self, key: &KeyRef) -> Result<KeyMetadata, KmsError> {
        let key = self.allowed(self.resolve(key)?, Operation::DescribeKey)?;
        Ok(KeyMetadata::from(&key.value))
    }

    /// ListKeys, with their metadata, oldest first. A damaged key hides no other.
    ///
    /// # Errors
    /// Where the key directory itself cannot be read.
    pub fn list_keys(&self) -> Result<Listing<KeyMetadata>, KmsError> {
        let (ids, mut damaged) = self.store.key_ids()?;
        let mut items = Vec::new();
        for id in ids {
            match self.allowed(id, Operation::List) {
                Ok(key) => items.push(KeyMetadata::from(&key.value)),
                Err(KmsError::NotFoundException { .. }) => {}
                Err(error) => damaged.push(error),
            }
        }
        items.sort_by_key(|key| (key.creation_date, key.key_id));
        Ok(Listing { items, damaged })
    }

    /// EnableKey. Returns the key's id.
    ///
    /// # Errors
    /// [`KmsError::NotFoundException`], [`KmsError::KMSInvalidStateException`].
    pub fn enable_key(&self, key: &KeyRef) -> Result<KeyId, KmsError> {
        self.change_state(key, Operation::EnableKey)
    }

    /// DisableKey. Returns the key's id.
    ///
    /// # Errors
    /// [`KmsError::NotFoundException`], [`KmsError::KMSInvalidStateException`].
    pub fn disable_key(&self, key: &KeyRef) -> Result<KeyId, KmsError> {
        self.change_state(key, Operation::DisableKey)
    }

    /// CreateAlias. Returns the id of the key that the alias now stands for.
    ///
    /// # Errors
    /// [`KmsError::AlreadyExistsException`], [`KmsError::NotFoundException`], [`KmsError::InvalidAliasNameException`]
    /// for a reserved name, [`KmsError::LimitExceededException`], [`KmsError::KMSInvalidStateException`].
    pub fn create_alias(&self, alias: &AliasName, key: &KeyRef) -> Result<KeyId, KmsError> {
        let change = self.store.change()?;
        self.check_new_alias(alias)?;
        let target = self.allowed(self.resolve(key)?, Operation::CreateAlias)?;
        let target_key_id = target.value.key_id;
        self.check_room_for_alias(target_key_id)?;
        let now = self.clock.now();
        let record = AliasRecord {
            alias_name: alias.clone(),
            target_key_id,
            creation_date: now,
            last_updated_date: now,
        };
        change.put_alias(None, &record)?;
        Ok(target_key_id)
    }

    /// UpdateAlias: the alias stands for another key from now on. Returns that key's id.
    ///
    /// # Errors
    /// As [`Self::create_alias`], and [`KmsError::NotFoundException`] where there is no such alias.
    pub fn update_alias(&self, alias: &AliasName, key: &KeyRef) -> Result<KeyId, KmsError> {
        let change = self.store.change()?;
        refuse_reserved(alias)?;
        let old = self.store.alias(alias)?;
        let target = self.allowed(self.resolve(key)?, Operation::UpdateAlias)?;
        let target_key_id = target.value.key_id;
        if old.value.target_key_id != target_key_id {
            self.check_room_for_alias(target_key_id)?;
        }
        let record = AliasRecord {
            target_key_id,
            last_updated_date: self.clock.now(),
            ..old.value.clone()
        };
        change.put_alias(Some(&old), &record)?;
        Ok(target_key_id)
    }

    /// DeleteAlias; the key itself stays. A damaged alias can be deleted too, so that it can be made anew.
    ///
    /// # Errors
    /// [`KmsError::NotFoundException`], [`KmsError::InvalidAliasNameException`] for a reserved name.
    pub fn delete_alias(&self, alias: &AliasName) -> Result<(), KmsError> {
        let change = self.store.change()?;
        refuse_reserved(alias)?;
        if let Ok(old) = self.store.alias(alias)
            && let Ok(key) = self.store.key(old.value.target_key_id)
        {
            check_state(&key, Operation::DeleteAlias)?;
        }
        change.remove_alias(alias)
    }

    /// ListAliases, of one key or of all, by name. A damaged alias hides no other.
    ///
    /// # Errors
    /// [`KmsError::NotFoundException`] for the key; where the key directory itself cannot be read.
    pub fn list_aliases(&self, of: Option<&KeyRef>) -> Result<Listing<AliasListEntry>, KmsError> {
        let of = match of {
            Some(key) => Some(
                self.allowed(self.resolve(key)?, Operation::List)?
                    .value
                    .key_id,
            ),
            None => None,
        };
        let (mut items, mut damaged) = (Vec::new(), Vec::new());
        for name in self.store.alias_files()? {
            match self.store.alias_file(&name) {
                Ok(Some(alias)) if of.is_none_or(|of| of == alias.value.target_key_id) => {
                    items.push(AliasListEntry::from(&alias.value));
                }
                Ok(_) => {}
                Err(error) => damaged.push(error),
            }
        }
        items.sort_by(|a, b| a.alias_name.cmp(&b.alias_name));
        Ok(Listing { items, damaged })
    }

    /// GenerateDataKey: a new data key for the object that `context` names, and the same wrapped under `key`.
    ///
    /// # Errors
    /// Whatever [`KmsError::availability`] sorts.
    pub fn generate_data_key(
        &self,
        key: &KeyRef,
        context: &EncryptionContext,
    ) -> Result<(DataKey, Envelope), KmsError> {
        let key = self.store.key(self.resolve(key)?)?;
        let usable = self.usable(&key.value, Operation::GenerateDataKey, None)?;
        let data_key = DataKey::random()?;
        let envelope = usable.wrap(&data_key, context);
        Ok((data_key, envelope))
    }

    /// Decrypt: unwraps the data key of the object that `context` names. Costs three stat calls when nothing changed.
    ///
    /// # Errors
    /// Whatever [`KmsError::availability`] sorts.
    pub fn decrypt_data_key(
        &self,
        envelope: &Envelope,
        context: &EncryptionContext,
    ) -> Result<DataKey, KmsError> {
        let key = self.store.key(envelope.key_id())?;
        self.usable(&key.value, Operation::Decrypt, Some(envelope))?
            .unwrap(envelope, context)
    }

    /// ReEncrypt: wraps the data key of the object that `context` names anew, under the current material of `key`; `None`
    /// where that wraps it already.
    ///
    /// # Errors
    /// Whatever [`KmsError::availability`] sorts, of the key it was under or of the one it is to be under.
    pub fn re_encrypt_data_key(
        &self,
        key: &KeyRef,
        envelope: &Envelope,
        context: &EncryptionContext,
    ) -> Result<Option<Envelope>, KmsError> {
        let key = self.store.key(self.resolve(key)?)?;
        let usable = self.usable(&key.value, Operation::Encrypt, None)?;
        if key.value.key_id == envelope.key_id()
            && key.value.current_key_material_id == Some(envelope.material_id())
        {
            return Ok(None);
        }
        let old = self.store.key(envelope.key_id())?;
        let data_key = self
            .usable(&old.value, Operation::Decrypt, Some(envelope))?
            .unwrap(envelope, context)?;
        Ok(Some(usable.wrap(&data_key, context)))
    }

    /// Whether Decrypt may be used now: what a running mount asks of each of its keys, a few times a second. Costs
    /// two stat calls and one for each material when nothing changed, and misses no change, whoever made it: another
    /// process, or somebody who put another key directory in the place of this one.
    ///
    /// # Errors
    /// Whatever [`KmsError::availability`] sorts.
    pub fn key_status(&self, key: KeyId) -> Result<(), KmsError> {
        let record = self.store.key(key)?;
        // A thread that had read the old record may have loaded a material just after the change was noticed.
        check_state(&record, Operation::Decrypt)
            .inspect_err(|_| self.store.forget_materials(key))?;
        for material in &record.value.materials {
            self.store.material(key, material.key_material_id)?;
        }
        Ok(())
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

    fn change_state(&self, key: &KeyRef, operation: Operation) -> Result<KeyId, KmsError> {
        let change = self.store.change()?;
        let old = self.store.key(self.resolve(key)?)?;
        let key_state = check_state(&old, operation)?;
        if key_state != old.value.key_state {
            let record = KeyRecord {
                key_state,
                ..old.value.clone()
            };
            change.replace_key(&old, &record)?;
        }
        Ok(old.value.key_id)
    }

    /// The key's record, once its state allows the operation.
    fn allowed(
        &self,
        key: KeyId,
        operation: Operation,
    ) -> Result<Arc<Stored<KeyRecord>>, KmsError> {
        let key = self.store.key(key)?;
        check_state(&key, operation)?;
        Ok(key)
    }

    /// The material that `envelope` names, or else the current one.
    fn usable(
        &self,
        key: &KeyRecord,
        operation: Operation,
        envelope: Option<&Envelope>,
    ) -> Result<UsableKey, KmsError> {
        UsableKey::admit(key, operation, || {
            let id = match envelope {
                None => key.current_key_material_id,
                Some(envelope) => {
                    let named = envelope.material_id();
                    let mut known = key.materials.iter().map(|of| of.key_material_id);
                    Some(
                        known
                            .find(|id| *id == named)
                            .ok_or(KmsError::InvalidCiphertextException { key: key.key_id })?,
                    )
                }
            };
            match id {
                Some(id) => self.store.material(key.key_id, id),
                None => Err(KmsError::KMSInvalidStateException {
                    key: key.key_id,
                    state: KeyState::PendingImport,
                }),
            }
        })
    }

    fn check_new_alias(&self, alias: &AliasName) -> Result<(), KmsError> {
        refuse_reserved(alias)?;
        match self.store.alias(alias) {
            Ok(old) => Err(KmsError::AlreadyExistsException {
                alias: alias.clone(),
                target: old.value.target_key_id,
            }),
            Err(KmsError::NotFoundException { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn check_room_for_alias(&self, key: KeyId) -> Result<(), KmsError> {
        if self.list_aliases(Some(&KeyRef::Id(key)))?.items.len() < alias::MAX_PER_KEY {
            return Ok(());
        }
        Err(KmsError::LimitExceededException {
            what: format!("aliases of key {key}"),
            limit: alias::MAX_PER_KEY,
        })
    }
}

fn check_state(key: &Stored<KeyRecord>, operation: Operation) -> Result<KeyState, KmsError> {
    state::transition(key.value.key_state, operation)
        .map_err(|error| KmsError::from_state(key.value.key_id, error))
}

fn refuse_reserved(alias: &AliasName) -> Result<(), KmsError> {
    if alias.is_reserved() {
        return Err(KmsError::InvalidAliasNameException {
            alias: alias.to_string(),
            why: "aliases that begin with \"alias/cmkfs/\" are reserved",
        });
    }
    Ok(())
}

#[cfg(test)]
#[path = "service_tests.rs"]
pub(super) mod tests;
