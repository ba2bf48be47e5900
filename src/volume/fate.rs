//! Whether what a material wraps can be opened again some day: asked before anything is removed for good.

use std::collections::{BTreeMap, HashSet};

use crate::ids::{KeyId, MaterialId};
use crate::kms::KmsError;
use crate::kms::alias::AliasName;
use crate::kms::key::KeyRef;
use crate::kms::rotation::{ImportState, IncludeKeyMaterial, RotationsListEntry};
use crate::kms::service::KeyService;

/// What is to be expected of a material.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// It opens what it wraps, or may do so again: enabled, disabled, pending deletion; or nobody can tell.
    Alive,
    /// It is deleted, and its owner can import it again.
    Reimportable,
    /// It is deleted for good.
    Gone,
}

/// Fates that were asked for, each once, so that all of one piece of work goes by the same answers.
pub struct Fates<'a> {
    keys: &'a KeyService,
    /// Keys that the audit log says were deleted.
    deleted: HashSet<KeyId>,
    /// A key that is not there counts as deleted, whatever the audit log says.
    unknown_is_gone: bool,
    known: BTreeMap<(KeyId, MaterialId), Fate>,
    /// Keys of which nothing can be told, and why: everything under them counts as alive.
    pub unclear: BTreeMap<KeyId, KmsError>,
}

impl std::fmt::Debug for Fates<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fates")
            .field("known", &self.known)
            .finish_non_exhaustive()
    }
}

impl<'a> Fates<'a> {
    /// Asks this key service. A key that is not there was deleted where its audit log says so: a header may be forged and
    /// name any key, and a key may have been lost and come back from a backup. `unknown_is_gone` takes all others for
    /// deleted, too.
    ///
    /// # Errors
    /// Where the default key is not to be had, which cannot be deleted: then the absence of another says nothing.
    pub fn new(keys: &'a KeyService, unknown_is_gone: bool) -> Result<Self, KmsError> {
        keys.describe_key(&KeyRef::Alias(AliasName::default_key()))?;
        Ok(Self {
            keys,
            deleted: keys.deleted_keys(),
            unknown_is_gone,
            known: BTreeMap::new(),
            unclear: BTreeMap::new(),
        })
    }

    /// The fate of a material.
    pub fn of(&mut self, key: KeyId, material: MaterialId) -> Fate {
        if let Some(fate) = self.known.get(&(key, material)) {
            return *fate;
        }
        let found = self
            .keys
            .list_key_rotations(&KeyRef::Id(key), IncludeKeyMaterial::AllKeyMaterial);
        let fate = match found {
            Ok(materials) => of_known(&materials, material),
            Err(KmsError::NotFoundException { .. })
                if self.unknown_is_gone || self.deleted.contains(&key) =>
            {
                Fate::Gone
            }
            Err(error) => {
                self.unclear.insert(key, error);
                Fate::Alive
            }
        };
        self.known.insert((key, material), fate);
        fate
    }
}

/// A key that is there: as long as it is, its generated material is, and imported material can be imported again. Each
/// material has its own fate: where one is missing the key is unusable, but only what is under that one is lost.
fn of_known(materials: &[RotationsListEntry], material: MaterialId) -> Fate {
    let known = materials.iter().find(|of| of.key_material_id == material);
    match known.and_then(|known| known.import_state) {
        Some(ImportState::PendingImport) => Fate::Reimportable,
        Some(ImportState::Imported) | None => Fate::Alive,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::clock::{ManualClock, Timestamp};
    use crate::crypto::passphrase::Passphrase;
    use crate::kms::deletion::PendingWindow;
    use crate::kms::import::{ImportRequest, ImportType, ImportedMaterial};
    use crate::kms::key::{CreateKeyRequest, Origin};
    use crate::kms::root::{NewProtection, PassphraseSource};

    struct Never;

    impl PassphraseSource for Never {
        fn existing(&self, _: &Path) -> Result<Passphrase, KmsError> {
            unreachable!("it has a root key file")
        }
        fn chosen(&self, _: &Path) -> Result<Passphrase, KmsError> {
            unreachable!("it has a root key file")
        }
    }

    const DAY: i64 = 86_400_000;

    fn fresh() -> (tempfile::TempDir, Arc<ManualClock>, KeyService) {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(Timestamp(1_700_000_000_000)));
        let of = NewProtection::RootKeyFile;
        let (keys, _) =
            KeyService::open_or_create(dir.path(), of, &Never, Arc::clone(&clock) as _).unwrap();
        (dir, clock, keys)
    }

    fn import(keys: &KeyService, key: &KeyRef, seed: u8, import_type: ImportType) -> MaterialId {
        let mut bytes: [u8; 32] = std::array::from_fn(|at| (at as u8).wrapping_mul(167) ^ seed);
        let request = ImportRequest {
            material: ImportedMaterial::take(&mut bytes).unwrap(),
            valid_to: None,
            import_type: Some(import_type),
        };
        let imported = keys.import_key_material(key, &request).unwrap();
        imported.key_material_id.unwrap()
    }

    #[test]
    fn each_material_of_an_imported_key_has_its_own_fate() {
        let (_dir, _clock, keys) = fresh();
        let request = CreateKeyRequest {
            origin: Origin::External,
            ..CreateKeyRequest::default()
        };
        let id = keys.create_key(request).unwrap().key_id;
        let key = KeyRef::Id(id);
        let first = import(&keys, &key, 1, ImportType::NewKeyMaterial);
        let second = import(&keys, &key, 2, ImportType::NewKeyMaterial);
        keys.rotate_key_on_demand(&key).unwrap();
        keys.delete_imported_key_material(&key, Some(first))
            .unwrap();
        let mut fates = Fates::new(&keys, true).unwrap();
        assert_eq!(fates.of(id, first), Fate::Reimportable);
        assert_eq!(fates.of(id, second), Fate::Alive);
        // What the key never had cannot be told.
        assert_eq!(fates.of(id, MaterialId([7; 32])), Fate::Alive);
    }

    #[test]
    fn a_key_is_gone_only_where_the_log_tells_of_its_deletion() {
        let (dir, clock, keys) = fresh();
        let created = keys.create_key(CreateKeyRequest::default()).unwrap();
        let (id, material) = (created.key_id, created.current_key_material_id.unwrap());
        let forged = KeyId::random();
        keys.schedule_key_deletion(&id.into(), PendingWindow::new(7).unwrap())
            .unwrap();
        assert_eq!(
            Fates::new(&keys, false).unwrap().of(id, material),
            Fate::Alive
        );
        clock.set(Timestamp(1_700_000_000_000 + 7 * DAY));
        keys.run_due();
        let mut fates = Fates::new(&keys, false).unwrap();
        assert_eq!(fates.of(id, material), Fate::Gone);
        assert_eq!(fates.of(forged, material), Fate::Alive);
        assert!(fates.unclear.contains_key(&forged));
        assert_eq!(
            Fates::new(&keys, true).unwrap().of(forged, material),
            Fate::Gone
        );
        // A log that was changed proves nothing.
        let log = dir.path().join("audit/log");
        let text = std::fs::read_to_string(&log).unwrap();
        std::fs::write(&log, text.replacen("CreateKey", "CreateQey", 1)).unwrap();
        assert!(keys.deleted_keys().is_empty());
    }
}
