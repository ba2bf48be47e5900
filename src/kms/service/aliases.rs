//! Names for keys: CreateAlias, UpdateAlias, DeleteAlias, ListAliases.

use super::{KeyService, Listing};
use crate::ids::KeyId;
use crate::kms::alias::{self, AliasListEntry, AliasName, AliasRecord};
use crate::kms::error::KmsError;
use crate::kms::event::Event;
use crate::kms::key::KeyRef;
use crate::kms::policy::Request;
use crate::kms::state::Operation;
use crate::kms::store::KeyStore;

impl KeyService {
    /// CreateAlias. Returns the id of the key that the alias now stands for.
    ///
    /// # Errors
    /// [`KmsError::AlreadyExistsException`], [`KmsError::NotFoundException`], [`KmsError::InvalidAliasNameException`]
    /// for a reserved name, [`KmsError::LimitExceededException`], [`KmsError::KMSInvalidStateException`].
    pub fn create_alias(&self, alias: &AliasName, key: &KeyRef) -> Result<KeyId, KmsError> {
        let event = Event::new("CreateAlias")
            .asked(key)
            .with("aliasName", alias.as_str());
        self.change(event, |change| {
            check_new_alias(&self.store, alias)?;
            let target = self.admit(&mut change.event, key, Operation::CreateAlias)?;
            let target_key_id = target.value.key_id;
            self.check_room_for_alias(target_key_id)?;
            let now = self.clock.now();
            change.put_alias(
                None,
                &AliasRecord {
                    alias_name: alias.clone(),
                    target_key_id,
                    creation_date: now,
                    last_updated_date: now,
                },
            )?;
            Ok(target_key_id)
        })
    }

    /// UpdateAlias: the alias stands for another key from now on. Returns that key's id.
    ///
    /// # Errors
    /// As [`Self::create_alias`], and [`KmsError::NotFoundException`] where there is no such alias.
    pub fn update_alias(&self, alias: &AliasName, key: &KeyRef) -> Result<KeyId, KmsError> {
        let event = Event::new("UpdateAlias")
            .asked(key)
            .with("aliasName", alias.as_str());
        self.change(event, |change| {
            refuse_reserved(alias)?;
            let old = self.store.alias(alias)?;
            let target = self.admit(&mut change.event, key, Operation::UpdateAlias)?;
            // The key that loses it has a say as well, if it can be read.
            if let Ok(loser) = self.store.key(old.value.target_key_id) {
                self.authorize(&loser.value, &Request::new(change.event.name))?;
            }
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
        })
    }

    /// DeleteAlias; the key itself stays. A damaged alias can be deleted too, so that it can be made anew.
    ///
    /// # Errors
    /// [`KmsError::NotFoundException`], [`KmsError::InvalidAliasNameException`] for a reserved name.
    pub fn delete_alias(&self, alias: &AliasName) -> Result<(), KmsError> {
        let event = Event::new("DeleteAlias").with("aliasName", alias.as_str());
        self.change(event, |change| {
            refuse_reserved(alias)?;
            if let Ok(old) = self.store.alias(alias)
                && let Ok(key) = self.store.key(old.value.target_key_id)
            {
                change.event.about(key.value.key_id);
                self.authorize(&key.value, &Request::new(change.event.name))?;
                self.check_state(&key, Operation::DeleteAlias)?;
            }
            change.remove_alias(alias)
        })
    }

    /// ListAliases, of one key or of all, by name. A damaged alias hides no other.
    ///
    /// # Errors
    /// [`KmsError::NotFoundException`] for the key; where the key directory itself cannot be read.
    pub fn list_aliases(&self, of: Option<&KeyRef>) -> Result<Listing<AliasListEntry>, KmsError> {
        let event = Event::reading("ListAliases");
        let event = match of {
            Some(key) => event.asked(key),
            None => event,
        };
        self.read(event, |event| {
            let of = match of {
                Some(key) => Some(self.admit(event, key, Operation::List)?.value.key_id),
                None => None,
            };
            aliases(&self.store, of)
        })
    }

    fn check_room_for_alias(&self, key: KeyId) -> Result<(), KmsError> {
        if aliases(&self.store, Some(key))?.items.len() < alias::MAX_PER_KEY {
            return Ok(());
        }
        Err(KmsError::LimitExceededException {
            what: format!("aliases of key {key}"),
            limit: alias::MAX_PER_KEY,
        })
    }
}

pub(super) fn aliases(
    store: &KeyStore,
    of: Option<KeyId>,
) -> Result<Listing<AliasListEntry>, KmsError> {
    let (mut items, mut damaged) = (Vec::new(), Vec::new());
    for name in store.alias_files()? {
        match store.alias_file(&name) {
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

/// Fails unless the alias can be made.
pub(super) fn check_new_alias(store: &KeyStore, alias: &AliasName) -> Result<(), KmsError> {
    refuse_reserved(alias)?;
    match store.alias(alias) {
        Ok(old) => Err(KmsError::AlreadyExistsException {
            alias: alias.clone(),
            target: old.value.target_key_id,
        }),
        Err(KmsError::NotFoundException { .. }) => Ok(()),
        Err(error) => Err(error),
    }
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
