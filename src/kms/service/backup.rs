//! Keys in one file, and back: BackupKeys, RestoreKeys. AWS has no such operations: there, keys never leave.

use std::path::Path;
use std::sync::Arc;

use super::KeyService;
use crate::clock::Clock;
use crate::crypto::passphrase::{Argon2Params, Passphrase};
use crate::kms::audit::Recorder;
use crate::kms::audit::identity::Identity;
use crate::kms::backup::{Aside, Backup, Restored, Written, restore, sha256_text};
use crate::kms::create;
use crate::kms::error::KmsError;
use crate::kms::event::Event;
use crate::kms::root::{NewProtection, PassphraseSource};
use crate::kms::transaction;

impl KeyService {
    /// BackupKeys: writes every key with its materials, and every alias, into the file at `path`, sealed under
    /// `passphrase`. Records that are damaged are left out and said. The audit log remembers what is in it before the file
    /// has its name.
    ///
    /// # Errors
    /// [`KmsError::Io`] with [`std::io::ErrorKind::AlreadyExists`] where the file is there and not to be replaced.
    pub fn backup(
        &self,
        path: &Path,
        replace: bool,
        params: Argon2Params,
        passphrase: &Passphrase,
    ) -> Result<Written, KmsError> {
        let shown = path.to_string_lossy().into_owned();
        let event = Event::reading("BackupKeys").with("path", shown);
        self.run_due();
        let made = self.write_aside(path, replace, params, passphrase);
        let (aside, written) = self.change(event, |change| {
            let (backup, aside, written) = made?;
            change.event.note("backupId", backup.id().to_string());
            change.event.note("sha256", written.sha256.clone());
            change.event.note("keys", backup.keys_in_words());
            Ok((aside, written))
        })?;
        aside.finish(replace)?;
        Ok(written)
    }

    /// Reads all under the lock, so that it fits together. Stretching the passphrase and writing take their time, on a
    /// medium that may hang: nobody waits for that.
    fn write_aside(
        &self,
        path: &Path,
        replace: bool,
        params: Argon2Params,
        passphrase: &Passphrase,
    ) -> Result<(Backup, Aside, Written), KmsError> {
        if !replace && path.symlink_metadata().is_ok() {
            let exists = std::io::ErrorKind::AlreadyExists.into();
            return Err(KmsError::io("create", path)(exists));
        }
        let (backup, damaged) = {
            let _lock = transaction::take_turn(&self.store)?;
            Backup::of(&self.store)?
        };
        let bytes = backup.seal(params, passphrase)?;
        let keys = backup.keys();
        let written = Written {
            backup_id: backup.id(),
            path: path.to_owned(),
            sha256: sha256_text(&bytes),
            keys: keys.len(),
            key_materials: keys.iter().map(|(_, materials)| materials.len()).sum(),
            damaged,
        };
        let aside = Aside::write(path, backup.id(), &bytes)?;
        Ok((backup, aside, written))
    }

    /// RestoreKeys: adds what is missing or damaged here and in `backup`. What is there stays as it is; what was deleted
    /// since stays so, unless `include_deleted`.
    ///
    /// # Errors
    /// [`KmsError::WrongStore`] for the backup of another key directory.
    pub fn restore(&self, backup: &Backup, include_deleted: bool) -> Result<Restored, KmsError> {
        let event = restore_event(backup).with("includeDeleted", include_deleted);
        self.change(event, |change| {
            if backup.store_id() != self.store.id() {
                return Err(KmsError::WrongStore {
                    dir: self.store.dir().to_owned(),
                    expected: backup.store_id(),
                    found: self.store.id(),
                });
            }
            let restored = restore::restore(&self.store, change, backup, include_deleted)?;
            change.event.note("keyIds", words(&restored.keys));
            change
                .event
                .note("keyMaterialIds", words(&restored.key_materials));
            change.event.note("aliasNames", restored.aliases.clone());
            Ok(restored)
        })
    }

    /// RestoreKeys into a key directory that is not there yet. Volumes take it for the one that was backed up.
    ///
    /// # Errors
    /// As [`Self::open_or_create`].
    pub fn create_from(
        dir: &Path,
        backup: &Backup,
        protection: NewProtection,
        passphrases: &dyn PassphraseSource,
        clock: Arc<dyn Clock>,
    ) -> Result<(Self, Restored), KmsError> {
        let recorder = Recorder::new(Identity::of_process(), Arc::clone(&clock));
        let restored = restore::everything(backup);
        let mut event = restore_event(backup);
        event.note("keys", backup.keys_in_words());
        let store = create::create_from(dir, backup, event, protection, passphrases, &recorder)?;
        Ok((Self::new(store, clock, recorder)?, restored))
    }
}

fn restore_event(backup: &Backup) -> Event {
    Event::new("RestoreKeys").with("backupId", backup.id().to_string())
}

fn words<T: ToString>(ids: &[T]) -> Vec<String> {
    ids.iter().map(ToString::to_string).collect()
}
