//! Backups of a key directory: every record of it in one file, sealed under a passphrase of its own.
//!
//! A backup holds what the records say, not the sealed files: it opens without the key directory's root key. `restore`
//! brings it back.

pub(super) mod restore;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use zeroize::Zeroizing;

pub use restore::Restored;

use super::error::KmsError;
use super::seal::{RecordKind, Unsealed};
use super::storage;
use super::store::{self, KEYS, KeyStore};
use crate::crypto::aead::AeadKey;
use crate::crypto::chain::fingerprint;
use crate::crypto::kdf::{Kdf, Purpose, material_id};
use crate::crypto::passphrase::{Argon2Params, Passphrase};
use crate::crypto::random;
use crate::format::backup::{AAD_LEN, BackupHeader, Entry, HEADER_LEN};
use crate::ids::{BackupId, KeyId, KeyStoreId, MaterialId};
use crate::secret::Secret;

/// A hundred thousand keys fit.
const MAX_BACKUP: u64 = 1 << 30;

/// One record, unsealed.
pub(super) struct Record {
    pub kind: RecordKind,
    pub counter: u64,
    pub place: String,
    pub payload: Zeroizing<Vec<u8>>,
}

/// What a backup holds.
pub struct Backup {
    id: BackupId,
    store: KeyStoreId,
    pub(super) records: Vec<Record>,
}

impl std::fmt::Debug for Backup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backup")
            .field("id", &self.id)
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

impl Backup {
    /// Reads every record of a key directory; what cannot be read is left out and said. Runs under the lock.
    pub(super) fn of(store: &KeyStore) -> Result<(Self, Vec<KmsError>), KmsError> {
        let (keys, mut damaged) = store.key_ids()?;
        let mut records = Vec::new();
        let mut take = |kind, place: String| match store.unsealed(kind, &place) {
            Ok(Some(Unsealed { counter, payload })) => records.push(Record {
                kind,
                counter,
                place,
                payload,
            }),
            Ok(None) => damaged.push(KmsError::damaged(store.dir().join(place), "it is missing")),
            Err(error) => damaged.push(error),
        };
        for key in keys {
            take(RecordKind::Key, store::key_place(key));
            for name in store.material_files(key)? {
                take(RecordKind::Material, format!("{KEYS}/{key}/{name}"));
            }
        }
        for name in store.alias_files()? {
            take(RecordKind::Alias, store::alias_file_place(&name));
        }
        let backup = Self {
            id: BackupId::random(),
            store: store.id(),
            records,
        };
        Ok((backup, damaged))
    }

    /// The backup's id.
    #[must_use]
    pub const fn id(&self) -> BackupId {
        self.id
    }

    /// The key directory it was made of.
    #[must_use]
    pub const fn store_id(&self) -> KeyStoreId {
        self.store
    }

    /// The keys in it, each with its materials.
    pub(super) fn keys(&self) -> Vec<(KeyId, Vec<MaterialId>)> {
        let mut keys: Vec<(KeyId, Vec<MaterialId>)> = Vec::new();
        for record in &self.records {
            match (record.kind, key_of(&record.place), keys.last_mut()) {
                (RecordKind::Key, Some(key), _) => keys.push((key, Vec::new())),
                (RecordKind::Material, Some(of), Some((key, materials))) if *key == of => {
                    materials.extend(material_of(&record.place));
                }
                _ => {}
            }
        }
        keys
    }

    /// The same for the audit log.
    pub(super) fn keys_in_words(&self) -> Value {
        let keys = self.keys();
        keys.iter()
            .map(|(key, materials)| json!({ "keyId": key, "keyMaterialIds": materials }))
            .collect()
    }

    /// Seals it under a passphrase.
    pub(super) fn seal(
        &self,
        params: Argon2Params,
        passphrase: &Passphrase,
    ) -> Result<Vec<u8>, KmsError> {
        let entries = || {
            self.records.iter().map(|record| Entry {
                kind: record.kind as u8,
                counter: record.counter,
                place: &record.place,
                payload: &record.payload,
            })
        };
        let length: usize = entries().map(|entry| entry.encoded_len()).sum();
        let mut header = BackupHeader::new(self.id, self.store, length as u64);
        header.memory_kib = params.memory_kib();
        header.passes = params.passes();
        header.lanes = params.lanes();
        getrandom::fill(&mut header.salt)?;
        header.nonce = random::nonce();
        // In one piece, so that growing leaves no copy of a material behind; it is encrypted in place.
        let mut bytes = Zeroizing::new(Vec::with_capacity(HEADER_LEN + length + 16));
        bytes.extend_from_slice(&header.encode());
        for entry in entries() {
            entry.append_to(&mut bytes);
        }
        let key = stretch(params, passphrase, &header.salt)?;
        let (head, payload) = bytes.split_at_mut(HEADER_LEN);
        let tag = key.seal(&header.nonce, &head[..AAD_LEN], payload);
        bytes.extend_from_slice(&tag);
        Ok(std::mem::take(&mut *bytes))
    }

    /// Reads and opens the backup in `path`; `passphrase` is asked only for what can be one.
    ///
    /// # Errors
    /// [`KmsError::Damaged`], [`KmsError::WrongPassphrase`] (which cannot be told from an edited file); whatever
    /// `passphrase` says.
    pub fn read(
        path: &Path,
        passphrase: impl FnOnce() -> Result<Passphrase, KmsError>,
    ) -> Result<Self, KmsError> {
        let snapshot = storage::read_up_to(path, MAX_BACKUP)?.ok_or_else(|| KmsError::Io {
            action: "read",
            path: path.to_owned(),
            source: std::io::ErrorKind::NotFound.into(),
        })?;
        Self::open(path, &snapshot.bytes, passphrase)
    }

    fn open(
        path: &Path,
        bytes: &[u8],
        passphrase: impl FnOnce() -> Result<Passphrase, KmsError>,
    ) -> Result<Self, KmsError> {
        let damaged = |why: String| KmsError::damaged(path, why);
        let (header, ciphertext, tag) =
            BackupHeader::split(bytes).map_err(|error| damaged(error.to_string()))?;
        // The limits come before the question: a hostile file is refused without anybody typing.
        let params = Argon2Params::new(header.memory_kib, header.passes, header.lanes)
            .map_err(|error| damaged(error.to_string()))?;
        let wrong = || KmsError::WrongPassphrase {
            dir: path.to_owned(),
        };
        let key = stretch(params, &passphrase()?, &header.salt)?;
        let mut payload = Zeroizing::new(ciphertext.to_vec());
        key.open(
            &header.nonce,
            &header.encode()[..AAD_LEN],
            &mut payload,
            &tag,
        )
        .map_err(|_| wrong())?;
        let mut records = Vec::new();
        let mut rest = &payload[..];
        while !rest.is_empty() {
            let entry = Entry::take_from(&mut rest).map_err(|error| damaged(error.to_string()))?;
            let record = check(&entry).ok_or_else(|| {
                damaged(format!(
                    "this version of cmkfs does not know what {:?} in it is",
                    entry.place
                ))
            })?;
            records.push(record);
        }
        Ok(Self {
            id: header.backup_id(),
            store: header.store_id(),
            records,
        })
    }
}

/// Takes a record only where it can be one and belongs in its place: nothing is ever written elsewhere.
fn check(entry: &Entry<'_>) -> Option<Record> {
    let text = |name: &str| {
        let value: Value = serde_json::from_slice(entry.payload).ok()?;
        Some(value.get(name)?.as_str()?.to_owned())
    };
    let (kind, place) = match entry.kind {
        1 => {
            let key: KeyId = text("KeyId")?.parse().ok()?;
            (RecordKind::Key, store::key_place(key))
        }
        2 => {
            let key = key_of(entry.place)?;
            let mut bytes = <[u8; 32]>::try_from(entry.payload).ok()?;
            let id = material_id(&key, &Secret::take(&mut bytes));
            (RecordKind::Material, store::material_place(key, id))
        }
        3 => {
            let alias = text("AliasName")?.parse().ok()?;
            (RecordKind::Alias, store::alias_place(&alias))
        }
        _ => return None,
    };
    (place == entry.place).then(|| Record {
        kind,
        counter: entry.counter,
        place,
        payload: entry.payload.to_vec().into(),
    })
}

fn key_of(place: &str) -> Option<KeyId> {
    let mut parts = place.strip_prefix(KEYS)?.split('/');
    parts.nth(1)?.parse().ok()
}

fn material_of(place: &str) -> Option<MaterialId> {
    place.rsplit_once('/')?.1.parse().ok()
}

fn stretch(
    params: Argon2Params,
    passphrase: &Passphrase,
    salt: &[u8; 16],
) -> Result<AeadKey, KmsError> {
    if passphrase.is_empty() {
        return Err(KmsError::NoPassphrase {
            why: "it is empty".to_owned(),
        });
    }
    let stretched = params.stretch(passphrase, salt);
    let secret = stretched.map_err(|error| KmsError::NoPassphrase {
        why: error.to_string(),
    })?;
    Ok(AeadKey::new(&Kdf::new(&secret).derive(Purpose::Backup)))
}

/// A backup that was written.
#[derive(Debug, serde::Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Written {
    /// The backup's id.
    pub backup_id: BackupId,
    /// Where it lies.
    pub path: PathBuf,
    /// SHA-256 of the file, in hexadecimal.
    pub sha256: String,
    /// Keys in it.
    pub keys: usize,
    /// Materials in it.
    pub key_materials: usize,
    /// What could not be read, and is not in it.
    #[serde(skip)]
    pub damaged: Vec<KmsError>,
}

/// A file that is written aside, whole and durable, and gets its name at the end.
pub(super) struct Aside {
    aside: PathBuf,
    path: PathBuf,
}

impl Aside {
    /// Writes `bytes` beside `path`, for their owner only.
    pub(super) fn write(path: &Path, id: BackupId, bytes: &[u8]) -> Result<Self, KmsError> {
        let Some(name) = path.file_name() else {
            let why = format!("{} names no file", path.display());
            return Err(KmsError::ValidationException(why));
        };
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{id}.unfinished"));
        let this = Self {
            aside: path.with_file_name(hidden),
            path: path.to_owned(),
        };
        storage::create(&this.aside, bytes)?;
        Ok(this)
    }

    /// Gives it its name; an existing file makes room only if it may be replaced.
    pub(super) fn finish(self, replace: bool) -> Result<(), KmsError> {
        if replace {
            storage::rename(&self.aside, &self.path)?;
        } else {
            storage::rename_to_free(&self.aside, &self.path)?;
        }
        match self
            .path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
        {
            Some(parent) => storage::sync(parent),
            None => storage::sync(Path::new(".")),
        }
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        // Gone already, if it got its name by a rename.
        let _ = storage::discard(&self.aside);
    }
}

pub(super) fn sha256_text(bytes: &[u8]) -> String {
    hex::encode(fingerprint(bytes))
}
