//! A key's whole life, with a clock that is set by hand: `deletion` · `imported` material · `rotation` · `small` secrets.
//! Here is what they share.

mod deletion;
mod imported;
mod rotation;
mod small;

use std::path::Path;

use super::tests::{Never, context};
use super::*;
use crate::clock::{ManualClock, Timestamp};
use crate::crypto::envelope::DataKey;
use crate::format::ciphertext::TextContext;
use crate::format::envelope::{EncryptionContext, Envelope};
use crate::ids::MaterialId;
use crate::kms::alias::AliasName;
use crate::kms::deletion::PendingWindow;
use crate::kms::error::KeyUnavailable;
use crate::kms::import::{ImportRequest, ImportType, ImportedMaterial, KeyMaterialChange};
use crate::kms::key::{CreateKeyRequest, Description, ExpirationModel, Origin, Tags};
use crate::kms::metadata::KeyMetadata;
use crate::kms::rotation::{
    ImportState, IncludeKeyMaterial, KeyMaterialState, RotationPeriod, RotationType,
    RotationsListEntry,
};
use crate::kms::state::{InvalidState, Unsupported};
use crate::kms::storage;

const START: Timestamp = Timestamp(1_700_000_000_000);

/// A key directory whose present is set by hand.
struct Life {
    dir: tempfile::TempDir,
    clock: Arc<ManualClock>,
    service: KeyService,
}

/// A data key that was wrapped under a key.
struct Wrapped {
    data_key: DataKey,
    envelope: Envelope,
    context: EncryptionContext,
}

impl Life {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(START));
        let protection = NewProtection::RootKeyFile;
        let made = KeyService::open_or_create(
            dir.path(),
            protection,
            &Never,
            Arc::<ManualClock>::clone(&clock),
        );
        let service = made.unwrap().0;
        Self {
            dir,
            clock,
            service,
        }
    }

    fn days(&self, days: u16) {
        self.clock.set(START.plus_days(days));
    }

    fn at(&self, moment: Timestamp) {
        self.clock.set(moment);
    }

    /// As another process would, at the same moment.
    fn another(&self) -> KeyService {
        KeyService::open(
            self.dir.path(),
            &Never,
            Arc::<ManualClock>::clone(&self.clock),
        )
        .unwrap()
    }

    fn key(&self) -> KeyRef {
        let request = CreateKeyRequest::default();
        self.service.create_key(request).unwrap().key_id.into()
    }

    /// A key of origin EXTERNAL, still without material.
    fn external(&self) -> KeyRef {
        let request = CreateKeyRequest {
            origin: Origin::External,
            ..CreateKeyRequest::default()
        };
        self.service.create_key(request).unwrap().key_id.into()
    }

    fn import(&self, key: &KeyRef, seed: u8) -> Result<KeyMaterialChange, KmsError> {
        self.import_as(key, seed, None, None)
    }

    fn import_until(&self, key: &KeyRef, seed: u8, valid_to: Timestamp) -> MaterialId {
        let imported = self.import_as(key, seed, Some(valid_to), None);
        imported.unwrap().key_material_id.unwrap()
    }

    fn import_new(&self, key: &KeyRef, seed: u8) -> Result<KeyMaterialChange, KmsError> {
        self.import_as(key, seed, None, Some(ImportType::NewKeyMaterial))
    }

    fn import_as(
        &self,
        key: &KeyRef,
        seed: u8,
        valid_to: Option<Timestamp>,
        import_type: Option<ImportType>,
    ) -> Result<KeyMaterialChange, KmsError> {
        let request = ImportRequest {
            material: material(seed),
            valid_to,
            import_type,
        };
        self.service.import_key_material(key, &request)
    }

    fn delete_material(&self, key: &KeyRef, id: Option<MaterialId>) -> KeyState {
        let deleted = self.service.delete_imported_key_material(key, id);
        deleted.unwrap().key_state
    }

    fn materials(&self, key: &KeyRef) -> Vec<RotationsListEntry> {
        let all = IncludeKeyMaterial::AllKeyMaterial;
        self.service.list_key_rotations(key, all).unwrap()
    }

    fn rotations(&self, key: &KeyRef) -> Vec<RotationsListEntry> {
        let rotations = IncludeKeyMaterial::RotationsOnly;
        self.service.list_key_rotations(key, rotations).unwrap()
    }

    fn describe(&self, key: &KeyRef) -> KeyMetadata {
        self.service.describe_key(key).unwrap()
    }

    fn state(&self, key: &KeyRef) -> KeyState {
        self.describe(key).key_state
    }

    fn wrap(&self, key: &KeyRef) -> Wrapped {
        let context = context();
        let (data_key, envelope) = self.service.generate_data_key(key, &context).unwrap();
        Wrapped {
            data_key,
            envelope,
            context,
        }
    }

    fn unwrap(&self, wrapped: &Wrapped) -> Result<DataKey, KmsError> {
        self.service
            .decrypt_data_key(&wrapped.envelope, &wrapped.context)
    }

    /// Why neither what was wrapped nor the key's status is to be had, which must be for the same reason.
    fn refused(&self, wrapped: &Wrapped) -> KeyUnavailable {
        let why = self.unwrap(wrapped).unwrap_err().availability();
        let status = self.service.key_status(wrapped.envelope.key_id());
        assert_eq!(status.unwrap_err().availability(), why);
        why
    }

    fn assert_opens(&self, wrapped: &Wrapped) {
        assert_eq!(self.unwrap(wrapped).unwrap(), wrapped.data_key);
        self.service.key_status(wrapped.envelope.key_id()).unwrap();
    }

    fn files_of(&self, key: &KeyRef) -> Vec<String> {
        let KeyRef::Id(id) = key else {
            panic!("an id is wanted")
        };
        storage::names(&self.dir.path().join("keys").join(id.to_string())).unwrap()
    }
}

fn days(days: u16) -> PendingWindow {
    PendingWindow::new(days).unwrap()
}

fn invalid<T: std::fmt::Debug>(result: Result<T, KmsError>) -> InvalidState {
    match result {
        Err(KmsError::KMSInvalidStateException { why, .. }) => why,
        other => panic!("{other:?}"),
    }
}

fn unsupported<T: std::fmt::Debug>(result: Result<T, KmsError>) -> Unsupported {
    match result {
        Err(KmsError::UnsupportedOperationException { why, .. }) => why,
        other => panic!("{other:?}"),
    }
}

fn alias(name: &str) -> AliasName {
    name.parse().unwrap()
}

/// Somebody's own 32 bytes, one set for each seed.
fn material(seed: u8) -> ImportedMaterial {
    let mut bytes: [u8; 32] =
        std::array::from_fn(|at| (at as u8).wrapping_mul(167).wrapping_add(seed) ^ (at as u8 >> 1));
    ImportedMaterial::take(&mut bytes).unwrap()
}

fn incorrect<T: std::fmt::Debug>(result: Result<T, KmsError>) {
    assert!(
        matches!(result, Err(KmsError::IncorrectKeyMaterialException { .. })),
        "{result:?}"
    );
}

fn period(days: u16) -> RotationPeriod {
    RotationPeriod::new(days).unwrap()
}

/// What the audit log says was done by the service itself: name and key.
fn done_by_itself(life: &Life) -> Vec<(String, String)> {
    let log = std::fs::read_to_string(life.dir.path().join("audit/log")).unwrap();
    let lines = log
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    lines
        .filter(|line| line["eventType"] == "CmkfsServiceEvent" && line.get("errorCode").is_none())
        // Making the key directory is about no key that was asked for.
        .filter(|line| line["requestParameters"].get("keyId").is_some())
        .map(|line| {
            (
                text(&line["eventName"]),
                text(&line["requestParameters"]["keyId"]),
            )
        })
        .collect()
}

fn names_in(dir: &Path, part: &str) -> Vec<String> {
    storage::names(&dir.join(part)).unwrap()
}
