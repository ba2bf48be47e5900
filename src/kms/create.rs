//! Making a key directory, once, however many processes try and wherever one of them dies.
//!
//! `store` is written last: it is the commit point. Until then the marker `creating` says that what lies there was never
//! in use and can be thrown away. Without the marker nothing is ever thrown away: keys without a store file are a
//! damaged key directory, not an unfinished one.

use std::path::Path;

use super::alias::{AliasName, AliasRecord};
use super::audit::{self, AUDIT, Recorder};
use super::backup::Backup;
use super::error::KmsError;
use super::event::Event;
use super::journal::{self, JOURNAL, STAGED};
use super::key::{Description, KeyManager, KeyRecord, Tags};
use super::reserve;
use super::root::{self, NewProtection, PassphraseSource, Protector, ROOT_KEY, STORE, Unlocked};
use super::seal::Sealer;
use super::storage::{self, Lock};
use super::store::{self, ALIASES, KEYS, KeyStore};
use super::transaction;
use crate::clock::Timestamp;
use crate::crypto::passphrase::Passphrase;
use crate::ids::KeyStoreId;
use crate::secret::Secret;

const CREATING: &str = "creating";
/// The folder of a key directory where running mounts can be reached. This module only knows that it belongs there.
pub const MOUNTS: &str = "mounts";

/// Opens the key directory at `dir`.
///
/// Finishes what a process that died left unfinished, and starts an audit log where the first version made none.
pub(super) fn open(
    dir: &Path,
    passphrases: &dyn PassphraseSource,
    recorder: &Recorder,
) -> Result<KeyStore, KmsError> {
    let Some(file) = store::read_store_file(dir)? else {
        return Err(if started(dir)? || !keys_without_store(dir)? {
            KmsError::NoStore {
                dir: dir.to_owned(),
            }
        } else {
            lost_store_file(dir)
        });
    };
    storage::check_private(dir)?;
    if started(dir)? {
        // The maker died between its last two steps. Were the marker to stay, a store file lost later on would look
        // like a creation that never ended.
        let _lock = Lock::exclusive(dir)?;
        storage::discard(&dir.join(CREATING))?;
        storage::sync(dir)?;
    }
    let unlocked = root::unlock(dir, &file, passphrases)?;
    let store = KeyStore::new(dir, Sealer::new(file.store_id(), &unlocked.root_key));
    if !file.has_audit_log() {
        start_audit_log(&store, &unlocked, recorder)?;
    }
    if journal::is_unfinished(dir)? {
        match transaction::take_turn(&store) {
            Ok(_) => {}
            // What cannot be finished can still be looked at; whoever wants to change something is told.
            Err(error) => log::warn!("{error}"),
        }
    }
    Ok(store)
}

fn start_audit_log(
    store: &KeyStore,
    unlocked: &Unlocked,
    recorder: &Recorder,
) -> Result<(), KmsError> {
    let dir = store.dir();
    let _lock = Lock::exclusive(dir)?;
    let Some(file) = store::read_store_file(dir)?.filter(|file| !file.has_audit_log()) else {
        return store.check();
    };
    storage::discard(&dir.join(AUDIT))?;
    audit::make(dir, &store.sealer)?;
    let event = Event::new("CreateAuditLog").by_itself();
    transaction::record(store, recorder, [&event])?;
    reserve::refill(dir);
    // Last: from here on the log must be there.
    let file = unlocked.seal_into(file.with_audit_log());
    storage::replace(dir, STORE, &file.encode())
}

/// Opens the key directory at `dir`, or makes it if there is none. Also says whether it was made here.
pub(super) fn open_or_create(
    dir: &Path,
    protection: NewProtection,
    passphrases: &dyn PassphraseSource,
    recorder: &Recorder,
) -> Result<(KeyStore, bool), KmsError> {
    match open(dir, passphrases, recorder) {
        Err(KmsError::NoStore { .. }) => {}
        opened => return Ok((opened?, false)),
    }
    match create(
        dir,
        protection,
        passphrases,
        recorder,
        &Contents::DefaultKey,
    )? {
        Created::Here(store) => Ok((*store, true)),
        Created::Meanwhile(protector) => {
            let opened = open_made_meanwhile(dir, protector, passphrases, recorder)?;
            Ok((opened, false))
        }
    }
}

/// Makes a key directory out of a backup, where there is none yet. It is the same one to every volume.
pub(super) fn create_from(
    dir: &Path,
    backup: &Backup,
    event: Event,
    protection: NewProtection,
    passphrases: &dyn PassphraseSource,
    recorder: &Recorder,
) -> Result<KeyStore, KmsError> {
    let contents = Contents::Of(backup, event);
    match create(dir, protection, passphrases, recorder, &contents)? {
        Created::Here(store) => Ok(*store),
        Created::Meanwhile(_) => Err(KmsError::ValidationException(format!(
            "another process has just made a key directory at {}: try again to add to it",
            dir.display()
        ))),
    }
}

/// What a new key directory holds.
enum Contents<'a> {
    DefaultKey,
    /// What a backup holds, and how that is written down.
    Of(&'a Backup, Event),
}

enum Created {
    Here(Box<KeyStore>),
    /// Somebody else was faster; what was to protect it.
    Meanwhile(Protector),
}

fn create(
    dir: &Path,
    protection: NewProtection,
    passphrases: &dyn PassphraseSource,
    recorder: &Recorder,
    contents: &Contents<'_>,
) -> Result<Created, KmsError> {
    if storage::stat(dir)?.is_some() {
        refuse_foreign(dir)?;
        // An empty directory holds nothing that anybody could have read yet.
        if storage::is_empty(dir)? {
            storage::make_private(dir)?;
        }
        storage::check_private(dir)?;
    }
    // Asked for before the lock is taken: nobody waits for somebody else's typing.
    let protector = match protection {
        NewProtection::RootKeyFile => Protector::File(Secret::random()?),
        NewProtection::Passphrase(params) => {
            let passphrase = passphrases.chosen(dir)?;
            if passphrase.is_empty() {
                return Err(KmsError::NoPassphrase {
                    why: "it is empty".to_owned(),
                });
            }
            Protector::Passphrase(params, passphrase)
        }
    };
    // Only now, so that a question left unanswered leaves nothing behind.
    storage::make_dir_all(dir)?;
    storage::check_private(dir)?;
    let lock = Lock::exclusive(dir)?;
    if storage::stat(&dir.join(STORE))?.is_some() {
        drop(lock);
        return Ok(Created::Meanwhile(protector));
    }
    if started(dir)? {
        for leftover in [KEYS, ALIASES, AUDIT, STAGED, ROOT_KEY] {
            // There may be materials of a backup among it, and what opens them.
            storage::destroy(&dir.join(leftover))?;
        }
    } else if keys_without_store(dir)? {
        return Err(lost_store_file(dir));
    }
    make(dir, &protector, recorder, contents).map(|store| Created::Here(store.into()))
}

fn make(
    dir: &Path,
    protector: &Protector,
    recorder: &Recorder,
    contents: &Contents<'_>,
) -> Result<KeyStore, KmsError> {
    storage::replace(dir, CREATING, b"")?;
    let id = match contents {
        Contents::DefaultKey => KeyStoreId::random(),
        Contents::Of(backup, _) => backup.store_id(),
    };
    let (file, root_key) = root::make(id, protector)?;
    let sealer = Sealer::new(file.store_id(), &root_key);
    if let Protector::File(secret) = protector {
        storage::replace(dir, ROOT_KEY, secret.expose())?;
    }
    for part in [KEYS, ALIASES, STAGED] {
        storage::make_dir(&dir.join(part))?;
    }
    audit::make(dir, &sealer)?;
    let store = KeyStore::new(dir, sealer);
    let events = match contents {
        Contents::DefaultKey => make_default_key(&store, recorder.now())?.to_vec(),
        Contents::Of(backup, event) => {
            write_records(&store, backup)?;
            vec![Event::new("CreateKeyStore"), event.clone()]
        }
    };
    transaction::record(&store, recorder, &events)?;
    reserve::refill(dir);
    storage::replace(dir, STORE, &file.encode())?;
    storage::discard(&dir.join(CREATING))?;
    storage::sync(dir)?;
    Ok(store)
}

/// Writes all that a backup holds. Nobody reads it before the store file is there.
fn write_records(store: &KeyStore, backup: &Backup) -> Result<(), KmsError> {
    let dir = store.dir();
    for record in &backup.records {
        let path = dir.join(&record.place);
        let Some(parent) = path.parent() else {
            continue;
        };
        if storage::stat(parent)?.is_none() {
            storage::make_dir(parent)?;
        }
        let sealer = &store.sealer;
        let sealed = sealer.seal(record.kind, &record.place, record.counter, &record.payload);
        storage::create(&path, &sealed)?;
        storage::sync(parent)?;
    }
    storage::sync(&dir.join(KEYS))
}

/// Makes the default key and its alias. Returns what the audit log begins with.
fn make_default_key(store: &KeyStore, now: Timestamp) -> Result<[Event; 3], KmsError> {
    let (dir, sealer) = (store.dir(), &store.sealer);
    let material = Secret::random()?;
    let description = Description::new("The key that is used where none is named".to_owned())?;
    let key = KeyRecord::new(
        now,
        KeyManager::Cmkfs,
        description,
        Tags::default(),
        Some(&material),
    );
    store::write_new_key(dir, sealer, &key, &material)?;
    let alias = AliasRecord {
        alias_name: AliasName::default_key(),
        target_key_id: key.key_id,
        creation_date: now,
        last_updated_date: now,
    };
    store::write_alias(dir, sealer, 1, &alias)?;
    let mut of_key = Event::new("CreateKey").by_itself();
    of_key.about(key.key_id);
    if let Some(id) = key.current_key_material_id {
        of_key.material(id);
    }
    let mut of_alias = Event::new("CreateAlias")
        .by_itself()
        .with("aliasName", alias.alias_name.as_str());
    of_alias.about(key.key_id);
    Ok([Event::new("CreateKeyStore"), of_key, of_alias])
}

/// Another process made the key directory while this one asked for a passphrase: the same passphrase must open it.
fn open_made_meanwhile(
    dir: &Path,
    protector: Protector,
    passphrases: &dyn PassphraseSource,
    recorder: &Recorder,
) -> Result<KeyStore, KmsError> {
    struct Given(parking_lot::Mutex<Option<Passphrase>>);
    impl PassphraseSource for Given {
        fn existing(&self, _: &Path) -> Result<Passphrase, KmsError> {
            self.0.lock().take().ok_or_else(|| KmsError::NoPassphrase {
                why: "it was used already".to_owned(),
            })
        }
        fn chosen(&self, dir: &Path) -> Result<Passphrase, KmsError> {
            self.existing(dir)
        }
    }
    match protector {
        Protector::File(_) => open(dir, passphrases, recorder),
        Protector::Passphrase(_, passphrase) => {
            let given = Given(parking_lot::Mutex::new(Some(passphrase)));
            open(dir, &given, recorder)
        }
    }
}

fn started(dir: &Path) -> Result<bool, KmsError> {
    Ok(storage::stat(&dir.join(CREATING))?.is_some())
}

fn keys_without_store(dir: &Path) -> Result<bool, KmsError> {
    for part in [ROOT_KEY, KEYS, ALIASES] {
        if storage::stat(&dir.join(part))?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

fn lost_store_file(dir: &Path) -> KmsError {
    KmsError::damaged(
        dir.join(STORE),
        "it is missing, and the keys beside it cannot be read without it",
    )
}

/// A mistyped path must not put keys among somebody's documents.
fn refuse_foreign(dir: &Path) -> Result<(), KmsError> {
    const OURS: [&str; 9] = [
        STORE,
        ROOT_KEY,
        KEYS,
        ALIASES,
        AUDIT,
        JOURNAL,
        storage::LOCK,
        CREATING,
        MOUNTS,
    ];
    // A directory that every fresh ext filesystem has.
    const HARMLESS: &str = "lost+found";
    for entry in storage::names(dir)? {
        if !OURS.contains(&entry.as_str()) && entry != HARMLESS {
            return Err(KmsError::NotAKeyDirectory {
                dir: dir.to_owned(),
                entry,
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::kms::audit::identity::Identity;
    use crate::kms::service::tests::Never;
    use std::fs;
    use std::sync::Arc;

    fn recorder() -> Recorder {
        Recorder::new(Identity::named("somebody", 1000), Arc::new(SystemClock))
    }

    fn create(dir: &Path) -> Result<(KeyStore, bool), KmsError> {
        open_or_create(dir, NewProtection::RootKeyFile, &Never, &recorder())
    }

    #[test]
    fn a_creation_cut_short_anywhere_is_made_anew() {
        // Each prefix of the steps, in the order they become durable.
        let steps: [&[&str]; 6] = [
            &[],
            &[CREATING],
            &[CREATING, ROOT_KEY],
            &[CREATING, ROOT_KEY, KEYS],
            &[CREATING, ROOT_KEY, KEYS, ALIASES],
            &[CREATING, ROOT_KEY, KEYS, ALIASES, STAGED, AUDIT],
        ];
        for there in steps {
            let dir = tempfile::tempdir().unwrap();
            storage::make_private(dir.path()).unwrap();
            for name in there {
                match *name {
                    CREATING => fs::write(dir.path().join(CREATING), "").unwrap(),
                    ROOT_KEY => fs::write(dir.path().join(ROOT_KEY), "half").unwrap(),
                    part => fs::create_dir_all(dir.path().join(part).join(".new")).unwrap(),
                }
            }
            assert!(matches!(
                open(dir.path(), &Never, &recorder()),
                Err(KmsError::NoStore { .. })
            ));
            assert!(create(dir.path()).unwrap().1, "{there:?}");
            let (store, made) = create(dir.path()).unwrap();
            assert!(!made);
            assert_eq!(store.key_ids().unwrap().0.len(), 1, "{there:?}");
            assert!(!dir.path().join(CREATING).exists());
        }
    }

    #[test]
    fn a_marker_left_beside_the_store_goes_and_takes_nothing_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let id = create(dir.path()).unwrap().0.id();
        fs::write(dir.path().join(CREATING), "").unwrap();
        assert_eq!(open(dir.path(), &Never, &recorder()).unwrap().id(), id);
        assert!(!dir.path().join(CREATING).exists());
    }

    #[test]
    fn keys_whose_store_file_is_lost_are_never_thrown_away() {
        let dir = tempfile::tempdir().unwrap();
        create(dir.path()).unwrap();
        fs::remove_file(dir.path().join(STORE)).unwrap();
        let before = storage::names(&dir.path().join(KEYS)).unwrap();
        for result in [
            create(dir.path()).map(|_| ()),
            open(dir.path(), &Never, &recorder()).map(|_| ()),
        ] {
            let Err(KmsError::Damaged { path, .. }) = result else {
                panic!("not refused");
            };
            assert_eq!(path, dir.path().join(STORE));
        }
        assert_eq!(storage::names(&dir.path().join(KEYS)).unwrap(), before);
    }

    #[test]
    fn an_empty_directory_is_made_private_and_used_another_one_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let open_to_all = fs::Permissions::from_mode(0o777);
        fs::set_permissions(dir.path(), open_to_all.clone()).unwrap();
        create(dir.path()).unwrap();
        let mode = fs::metadata(dir.path()).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o700);

        let planted = tempfile::tempdir().unwrap();
        fs::set_permissions(planted.path(), open_to_all).unwrap();
        fs::write(planted.path().join(storage::LOCK), "").unwrap();
        let refused = create(planted.path());
        assert!(matches!(refused, Err(KmsError::Permissions { .. })));
    }

    #[test]
    fn somebodys_documents_are_no_key_directory() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("letter.txt"), "").unwrap();
        let refused = create(dir.path());
        assert!(matches!(refused, Err(KmsError::NotAKeyDirectory { .. })));
        assert_eq!(storage::names(dir.path()).unwrap(), ["letter.txt"]);
    }
}
