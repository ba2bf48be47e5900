//! The records of a key directory, typed: where each lies, how it is read while others change it, how it is changed.
//!
//! Decides nothing about keys. docs/KEYSTORE.md is the twin of this file, of `create` and of `format::keystore`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use super::alias::{AliasName, AliasRecord};
use super::cache::Cache;
use super::error::KmsError;
use super::key::{KeyRecord, KeyRef};
use super::root::STORE;
use super::seal::{RecordKind, Sealer, Unsealed};
use super::storage::{self, UNFINISHED};
use crate::crypto::envelope::WrappingKey;
use crate::crypto::kdf::{alias_digest, material_id};
use crate::format::keystore::{Protection, StoreFile};
use crate::ids::{KeyId, KeyStoreId, MaterialId};
use crate::secret::Secret;

pub(super) const KEYS: &str = "keys";
pub(super) const ALIASES: &str = "aliases";
pub(super) const KEY: &str = "key";

/// A record and how often it was written.
pub(super) struct Stored<T> {
    pub counter: u64,
    pub value: T,
}

/// An open key directory.
pub(super) struct KeyStore {
    dir: PathBuf,
    pub(super) sealer: Sealer,
    store: Cache<(), StoreFile>,
    keys: Cache<KeyId, Stored<KeyRecord>>,
    materials: Cache<(KeyId, MaterialId), WrappingKey>,
    aliases: Cache<String, Stored<AliasRecord>>,
}

impl KeyStore {
    pub(super) fn new(dir: &Path, sealer: Sealer) -> Self {
        Self {
            dir: dir.to_owned(),
            sealer,
            store: Cache::default(),
            keys: Cache::default(),
            materials: Cache::default(),
            aliases: Cache::default(),
        }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) const fn id(&self) -> KeyStoreId {
        self.sealer.store()
    }

    /// Whether the key directory is still there, and still the one that was opened.
    pub(super) fn check(&self) -> Result<(), KmsError> {
        self.protection().map(drop)
    }

    /// What protects the root key, once [`Self::check`] is content.
    pub(super) fn protection(&self) -> Result<Protection, KmsError> {
        let path = self.dir.join(STORE);
        let found = self
            .store
            .get(&(), &path, |bytes| parse_store(&path, bytes))?;
        match found {
            Some(file) if file.store_id() == self.id() => Ok(file.protection()),
            Some(file) => Err(KmsError::WrongStore {
                dir: self.dir.clone(),
                expected: self.id(),
                found: file.store_id(),
            }),
            None => Err(KmsError::NoStore {
                dir: self.dir.clone(),
            }),
        }
    }

    /// The record of a key.
    pub(super) fn key(&self, id: KeyId) -> Result<Arc<Stored<KeyRecord>>, KmsError> {
        self.check()?;
        let place = key_place(id);
        let path = self.dir.join(&place);
        let found = self.keys.get(&id, &path, |bytes| {
            // A changed record may end the use of its materials: none of them stays in memory unasked.
            self.forget_materials(id);
            let stored: Stored<KeyRecord> = self.parse(RecordKind::Key, &place, bytes)?;
            // Whoever works on it would change another key, or one material again and again.
            match stored.value.contradiction(id) {
                None => Ok(stored),
                Some(why) => Err(KmsError::damaged(&path, why)),
            }
        });
        match found {
            Ok(Some(record)) => Ok(record),
            Ok(None) => {
                self.forget_materials(id);
                Err(
                    match storage::stat(&self.dir.join(KEYS).join(id.to_string()))? {
                        Some(_) => KmsError::damaged(path, "it is missing"),
                        None => KmsError::NotFoundException {
                            key: KeyRef::Id(id),
                            dir: self.dir.clone(),
                        },
                    },
                )
            }
            Err(error) => {
                self.forget_materials(id);
                Err(error)
            }
        }
    }

    /// How often the record in a place was written, and what it says, whatever that is.
    pub(super) fn unsealed(
        &self,
        kind: RecordKind,
        place: &str,
    ) -> Result<Option<Unsealed>, KmsError> {
        let path = self.dir.join(place);
        let Some(snapshot) = storage::read(&path)? else {
            return Ok(None);
        };
        match self.sealer.open(kind, place, &snapshot.bytes) {
            Ok(unsealed) => Ok(Some(unsealed)),
            Err(error) => Err(KmsError::damaged(path, error)),
        }
    }

    /// The wrapping key of one material. The caller has checked that the key may be used.
    pub(super) fn material(
        &self,
        key: KeyId,
        material: MaterialId,
    ) -> Result<Arc<WrappingKey>, KmsError> {
        let place = material_place(key, material);
        let path = self.dir.join(&place);
        let read = || {
            self.materials.get(&(key, material), &path, |bytes| {
                self.parse_material(key, material, &place, bytes)
            })
        };
        // One that was opened just before it was destroyed reads as damaged: it is not in its place any more.
        let found = match read() {
            Err(KmsError::Damaged { .. }) => read(),
            found => found,
        };
        found?.ok_or(KmsError::NoMaterial { key, path })
    }

    fn parse_material(
        &self,
        key: KeyId,
        material: MaterialId,
        place: &str,
        bytes: &[u8],
    ) -> Result<WrappingKey, KmsError> {
        let damaged = |why: &dyn std::fmt::Display| KmsError::damaged(self.dir.join(place), why);
        let mut unsealed = self
            .sealer
            .open(RecordKind::Material, place, bytes)
            .map_err(|error| damaged(&error))?;
        let bytes = <&mut [u8; 32]>::try_from(unsealed.payload.as_mut_slice())
            .map_err(|_| damaged(&"a material has 32 bytes"))?;
        let secret = Secret::take(bytes);
        if material_id(&key, &secret) != material {
            return Err(damaged(&"it holds another material"));
        }
        Ok(WrappingKey::new(key, material, &secret))
    }

    /// Drops what is held of a key's materials; they zeroize as soon as no operation under way uses them.
    pub(super) fn forget_materials(&self, key: KeyId) {
        self.materials.forget(|(of, _)| *of == key);
    }

    /// The record of an alias.
    pub(super) fn alias(&self, alias: &AliasName) -> Result<Arc<Stored<AliasRecord>>, KmsError> {
        self.alias_file(&alias_file_name(alias))?
            .ok_or_else(|| self.no_alias(alias))
    }

    /// The record in one of the files that [`Self::alias_files`] names.
    pub(super) fn alias_file(
        &self,
        name: &str,
    ) -> Result<Option<Arc<Stored<AliasRecord>>>, KmsError> {
        self.check()?;
        let place = format!("{ALIASES}/{name}");
        self.aliases
            .get(&name.to_owned(), &self.dir.join(&place), |bytes| {
                let stored: Stored<AliasRecord> = self.parse(RecordKind::Alias, &place, bytes)?;
                if alias_file_name(&stored.value.alias_name) == name {
                    Ok(stored)
                } else {
                    let why = "it is the record of another alias";
                    Err(KmsError::damaged(self.dir.join(&place), why))
                }
            })
    }

    /// The keys that lie here, readable or not, and what lies among them without being one.
    pub(super) fn key_ids(&self) -> Result<(Vec<KeyId>, Vec<KmsError>), KmsError> {
        self.check()?;
        let dir = self.dir.join(KEYS);
        let (mut ids, mut strange) = (Vec::new(), Vec::new());
        for name in storage::names(&dir)? {
            match name.parse() {
                Ok(id) => ids.push(id),
                Err(_) => strange.push(KmsError::damaged(
                    dir.join(name),
                    "it bears no key id as its name",
                )),
            }
        }
        Ok((ids, strange))
    }

    /// The names of the material files of a key, listed in its record or not.
    pub(super) fn material_files(&self, key: KeyId) -> Result<Vec<String>, KmsError> {
        let mut names = storage::names(&self.dir.join(KEYS).join(key.to_string()))?;
        names.retain(|name| name != KEY);
        Ok(names)
    }

    /// Where a material file of a key lies.
    pub(super) fn material_path(&self, key: KeyId, name: &str) -> PathBuf {
        self.dir.join(KEYS).join(key.to_string()).join(name)
    }

    /// Where an alias file lies.
    pub(super) fn alias_path(&self, name: &str) -> PathBuf {
        self.dir.join(ALIASES).join(name)
    }

    /// The files that hold aliases.
    pub(super) fn alias_files(&self) -> Result<Vec<String>, KmsError> {
        self.check()?;
        storage::names(&self.dir.join(ALIASES))
    }

    /// Reads everything anew from now on.
    pub(super) fn forget_all(&self) {
        self.store.forget(|()| true);
        self.keys.forget(|_| true);
        self.materials.forget(|_| true);
        self.aliases.forget(|_| true);
    }

    fn parse<T: DeserializeOwned>(
        &self,
        kind: RecordKind,
        place: &str,
        bytes: &[u8],
    ) -> Result<Stored<T>, KmsError> {
        let unsealed = self
            .sealer
            .open(kind, place, bytes)
            .map_err(|error| KmsError::damaged(self.dir.join(place), error))?;
        // Sealed here, so nobody edited it: it was written by a version that knows more.
        let value = serde_json::from_slice(&unsealed.payload).map_err(|error| {
            KmsError::damaged(
                self.dir.join(place),
                format!("it says what this version of cmkfs does not know: {error}"),
            )
        })?;
        Ok(Stored {
            counter: unsealed.counter,
            value,
        })
    }

    pub(super) fn no_alias(&self, alias: &AliasName) -> KmsError {
        KmsError::NotFoundException {
            key: KeyRef::Alias(alias.clone()),
            dir: self.dir.clone(),
        }
    }
}

/// Writes a key that was not there before: made aside and renamed into place, so it is there whole or not at all.
pub(super) fn write_new_key(
    dir: &Path,
    sealer: &Sealer,
    key: &KeyRecord,
    material: &Secret<32>,
) -> Result<(), KmsError> {
    let keys = dir.join(KEYS);
    let unfinished = keys.join(UNFINISHED);
    storage::discard(&unfinished)?;
    storage::make_dir(&unfinished)?;
    if let Some(id) = key.current_key_material_id {
        let place = material_place(key.key_id, id);
        let sealed = sealer.seal(RecordKind::Material, &place, 1, material.expose());
        storage::create(&unfinished.join(id.to_string()), &sealed)?;
    }
    let sealed = seal(sealer, RecordKind::Key, &key_place(key.key_id), 1, key)?;
    storage::create(&unfinished.join(KEY), &sealed)?;
    storage::sync(&unfinished)?;
    let path = keys.join(key.key_id.to_string());
    std::fs::rename(&unfinished, &path).map_err(KmsError::io("create", path))?;
    storage::sync(&keys)
}

/// Writes an alias.
pub(super) fn write_alias(
    dir: &Path,
    sealer: &Sealer,
    counter: u64,
    alias: &AliasRecord,
) -> Result<(), KmsError> {
    let name = alias_file_name(&alias.alias_name);
    let place = format!("{ALIASES}/{name}");
    let sealed = seal(sealer, RecordKind::Alias, &place, counter, alias)?;
    storage::replace(&dir.join(ALIASES), &name, &sealed)
}

/// The store file of the key directory at `dir`, if there is one.
pub(super) fn read_store_file(dir: &Path) -> Result<Option<StoreFile>, KmsError> {
    let path = dir.join(STORE);
    let snapshot = storage::read(&path)?;
    snapshot
        .map(|snapshot| parse_store(&path, &snapshot.bytes))
        .transpose()
}

fn parse_store(path: &Path, bytes: &[u8]) -> Result<StoreFile, KmsError> {
    StoreFile::decode(bytes).map_err(|error| KmsError::damaged(path, error))
}

pub(super) fn seal(
    sealer: &Sealer,
    kind: RecordKind,
    place: &str,
    counter: u64,
    value: &impl Serialize,
) -> Result<Vec<u8>, KmsError> {
    let payload = serde_json::to_vec(value)
        .map(Zeroizing::new)
        .map_err(|error| KmsError::ValidationException(error.to_string()))?;
    Ok(sealer.seal(kind, place, counter, &payload))
}

pub(super) fn key_place(key: KeyId) -> String {
    format!("{KEYS}/{key}/{KEY}")
}

pub(super) fn material_place(key: KeyId, material: MaterialId) -> String {
    format!("{KEYS}/{key}/{material}")
}

/// Where the alias lies whose file bears this name.
pub(super) fn alias_file_place(name: &str) -> String {
    format!("{ALIASES}/{name}")
}

pub(super) fn alias_place(alias: &AliasName) -> String {
    format!("{ALIASES}/{}", alias_file_name(alias))
}

fn alias_file_name(alias: &AliasName) -> String {
    hex::encode(alias_digest(alias.as_str()))
}
