//! A key's whole life, with a clock that is set by hand.

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

#[test]
fn a_key_pending_deletion_is_unusable_and_says_when_it_goes() {
    let life = Life::new();
    let key = life.key();
    let wrapped = life.wrap(&key);
    let scheduled = life.service.schedule_key_deletion(&key, days(8)).unwrap();
    assert_eq!(scheduled.deletion_date, START.plus_days(8));
    assert_eq!(scheduled.pending_window_in_days, 8);
    let described = life.describe(&key);
    assert_eq!(described.key_state, KeyState::PendingDeletion);
    assert_eq!(described.deletion_date, Some(START.plus_days(8)));
    assert_eq!(described.pending_deletion_window_in_days, Some(8));
    assert_eq!(life.refused(&wrapped), KeyUnavailable::PendingDeletion);
    let again = life.service.schedule_key_deletion(&key, days(8));
    assert_eq!(invalid(again), InvalidState::PendingDeletion);
}

#[test]
fn a_cancelled_deletion_leaves_a_disabled_key_that_opens_everything_again() {
    let life = Life::new();
    let key = life.key();
    let wrapped = life.wrap(&key);
    let none = life.service.cancel_key_deletion(&key);
    assert_eq!(invalid(none), InvalidState::NotPendingDeletion);
    life.service.schedule_key_deletion(&key, days(7)).unwrap();
    life.at(Timestamp(START.plus_days(7).0 - 1));
    life.service.cancel_key_deletion(&key).unwrap();
    assert_eq!(life.refused(&wrapped), KeyUnavailable::Disabled);
    let described = life.describe(&key);
    assert_eq!(described.key_state, KeyState::Disabled);
    assert_eq!(described.deletion_date, None);
    life.days(100);
    life.service.enable_key(&key).unwrap();
    life.assert_opens(&wrapped);
}

#[test]
fn a_key_goes_with_materials_and_aliases_at_the_next_touch_after_its_date() {
    let life = Life::new();
    let (key, other) = (life.key(), life.key());
    for name in ["alias/a", "alias/b"] {
        life.service.create_alias(&alias(name), &key).unwrap();
    }
    let kept = alias("alias/kept");
    life.service.create_alias(&kept, &other).unwrap();
    let wrapped = life.wrap(&key);
    life.service.schedule_key_deletion(&key, days(7)).unwrap();
    life.at(Timestamp(START.plus_days(7).0 - 1));
    life.another().run_due();
    assert_eq!(life.state(&key), KeyState::PendingDeletion);
    life.days(7);
    // Whoever comes first: here a command that is about something else.
    life.another().describe_key(&other).unwrap();
    assert!(!life.files_of(&other).is_empty());
    let there = names_in(life.dir.path(), "keys");
    assert_eq!(there.len(), 2, "{there:?}");
    assert_eq!(names_in(life.dir.path(), "aliases").len(), 2);
    assert!(matches!(
        life.service.describe_key(&key),
        Err(KmsError::NotFoundException { .. })
    ));
    assert_eq!(life.refused(&wrapped), KeyUnavailable::NoMaterial);
    assert!(life.service.verify().unwrap().damaged.is_empty());
    let KeyRef::Id(id) = other else {
        unreachable!()
    };
    assert_eq!(life.service.resolve(&KeyRef::Alias(kept)).unwrap(), id);
    let free = life.service.create_alias(&alias("alias/a"), &other);
    free.unwrap();
}

#[test]
fn an_open_service_does_what_is_due_when_the_clock_says_so() {
    let life = Life::new();
    let key = life.key();
    life.service.schedule_key_deletion(&key, days(7)).unwrap();
    life.service.run_due();
    life.days(7);
    assert!(!life.files_of(&key).is_empty());
    life.service.run_due();
    assert!(life.files_of(&key).is_empty());
}

#[test]
fn what_another_process_schedules_is_done_by_an_open_service_too() {
    let life = Life::new();
    let key = life.key();
    life.service.run_due();
    life.another().schedule_key_deletion(&key, days(7)).unwrap();
    life.days(7);
    life.service.run_due();
    assert!(life.files_of(&key).is_empty());
}

#[test]
fn the_default_key_is_never_deleted() {
    let life = Life::new();
    let default = KeyRef::Alias(AliasName::default_key());
    let refused = life.service.schedule_key_deletion(&default, days(7));
    assert_eq!(unsupported(refused), Unsupported::Managed);
    life.service.disable_key(&default).unwrap();
    life.service.enable_key(&default).unwrap();
}

#[test]
fn an_alias_leads_away_from_a_key_pending_deletion_and_never_to_it() {
    let life = Life::new();
    let (doomed, other) = (life.key(), life.key());
    let (from, to) = (alias("alias/from"), alias("alias/to"));
    life.service.create_alias(&from, &doomed).unwrap();
    life.service.create_alias(&to, &other).unwrap();
    life.service
        .schedule_key_deletion(&doomed, days(7))
        .unwrap();
    for refused in [
        life.service.update_alias(&to, &doomed),
        life.service.create_alias(&alias("alias/new"), &doomed),
    ] {
        assert_eq!(invalid(refused), InvalidState::PendingDeletion);
    }
    life.service.update_alias(&from, &other).unwrap();
    life.days(7);
    assert_eq!(
        life.service.list_aliases(Some(&other)).unwrap().items.len(),
        2
    );
}

#[test]
fn many_processes_at_once_delete_a_key_once() {
    let life = Life::new();
    let key = life.key();
    life.service.schedule_key_deletion(&key, days(7)).unwrap();
    life.days(7);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| life.another().list_keys().unwrap());
        }
    });
    assert!(life.files_of(&key).is_empty());
    assert!(life.service.verify().unwrap().damaged.is_empty());
}

#[test]
fn a_key_of_origin_external_waits_for_its_material() {
    let life = Life::new();
    let key = life.external();
    assert_eq!(life.state(&key), KeyState::PendingImport);
    assert_eq!(life.describe(&key).origin, Origin::External);
    let refused = life.service.generate_data_key(&key, &context());
    assert_eq!(
        refused.unwrap_err().availability(),
        KeyUnavailable::NoMaterial
    );
    assert_eq!(
        invalid(life.service.enable_key(&key)),
        InvalidState::PendingImport
    );
    assert_eq!(life.delete_material(&key, None), KeyState::PendingImport);
    let imported = life.import(&key, 1).unwrap();
    assert_eq!(imported.key_state, KeyState::Enabled);
    let described = life.describe(&key);
    assert_eq!(described.current_key_material_id, imported.key_material_id);
    let model = ExpirationModel::KeyMaterialDoesNotExpire;
    assert_eq!(described.expiration_model, Some(model));
    life.assert_opens(&life.wrap(&key));
    let generated = life.key();
    assert_eq!(
        unsupported(life.import(&generated, 1)),
        Unsupported::Generated
    );
    let delete = life.service.delete_imported_key_material(&generated, None);
    assert_eq!(unsupported(delete), Unsupported::Generated);
}

#[test]
fn deleted_material_goes_at_once_and_only_the_same_brings_it_back() {
    let life = Life::new();
    let key = life.external();
    life.import(&key, 1).unwrap();
    let wrapped = life.wrap(&key);
    assert_eq!(life.files_of(&key).len(), 2);
    assert_eq!(life.delete_material(&key, None), KeyState::PendingImport);
    assert_eq!(life.files_of(&key), ["key"]);
    assert_eq!(life.refused(&wrapped), KeyUnavailable::NoMaterial);
    assert!(life.service.verify().unwrap().damaged.is_empty());
    assert_eq!(life.delete_material(&key, None), KeyState::PendingImport);
    incorrect(life.import(&key, 2));
    assert_eq!(life.state(&key), KeyState::PendingImport);
    assert_eq!(life.import(&key, 1).unwrap().key_state, KeyState::Enabled);
    life.assert_opens(&wrapped);
    // A material's id is bound to its key: the same bytes are another material elsewhere.
    let other = life.external();
    let id = life.import(&other, 1).unwrap().key_material_id;
    assert_ne!(id, life.describe(&key).current_key_material_id);
    incorrect(life.service.delete_imported_key_material(&key, id));
}

#[test]
fn importing_into_a_disabled_key_enables_it() {
    let life = Life::new();
    let key = life.external();
    life.import(&key, 1).unwrap();
    life.service.disable_key(&key).unwrap();
    assert_eq!(life.import(&key, 1).unwrap().key_state, KeyState::Enabled);
}

#[test]
fn material_deleted_while_its_key_waits_for_deletion_is_still_missing_afterwards() {
    let life = Life::new();
    let key = life.external();
    life.import(&key, 1).unwrap();
    let wrapped = life.wrap(&key);
    life.service.schedule_key_deletion(&key, days(7)).unwrap();
    assert_eq!(invalid(life.import(&key, 1)), InvalidState::PendingDeletion);
    assert_eq!(life.delete_material(&key, None), KeyState::PendingDeletion);
    assert_eq!(life.state(&key), KeyState::PendingDeletion);
    life.service.cancel_key_deletion(&key).unwrap();
    assert_eq!(life.state(&key), KeyState::Disabled);
    let enabled = life.service.enable_key(&key);
    assert_eq!(invalid(enabled), InvalidState::PendingImport);
    assert_eq!(life.state(&key), KeyState::Disabled);
    assert_eq!(life.import(&key, 1).unwrap().key_state, KeyState::Enabled);
    life.assert_opens(&wrapped);
}

#[test]
fn expired_material_is_refused_by_the_clock_before_anybody_has_destroyed_it() {
    let life = Life::new();
    let key = life.external();
    let end = START.plus_days(3);
    life.import_until(&key, 1, end);
    let described = life.describe(&key);
    assert_eq!(described.valid_to, Some(end));
    let model = ExpirationModel::KeyMaterialExpires;
    assert_eq!(described.expiration_model, Some(model));
    let wrapped = life.wrap(&key);
    life.at(Timestamp(end.0 - 1));
    life.assert_opens(&wrapped);
    life.at(end);
    // Neither of these touches what is due.
    assert_eq!(life.refused(&wrapped), KeyUnavailable::Expired);
    let generated = life.service.generate_data_key(&key, &context());
    assert_eq!(
        generated.unwrap_err().availability(),
        KeyUnavailable::Expired
    );
    assert_eq!(life.files_of(&key).len(), 2);
}

#[test]
fn expired_material_is_destroyed_at_the_next_touch_and_stays_expired() {
    let life = Life::new();
    let key = life.external();
    let id = life.import_until(&key, 1, START.plus_days(3));
    let wrapped = life.wrap(&key);
    life.days(3);
    life.another().list_keys().unwrap();
    assert_eq!(life.files_of(&key), ["key"]);
    assert_eq!(life.state(&key), KeyState::PendingImport);
    assert_eq!(life.refused(&wrapped), KeyUnavailable::Expired);
    let known = &life.materials(&key)[0];
    assert_eq!(known.key_material_id, id);
    assert_eq!(known.import_state, Some(ImportState::PendingImport));
    assert_eq!(known.valid_to, None);
    incorrect(life.import(&key, 2));
    life.import_until(&key, 1, START.plus_days(5));
    life.assert_opens(&wrapped);
    life.delete_material(&key, None);
    assert_eq!(life.refused(&wrapped), KeyUnavailable::NoMaterial);
}

#[test]
fn importing_the_same_material_again_changes_its_expiry() {
    let life = Life::new();
    let key = life.external();
    life.import_until(&key, 1, START.plus_days(3));
    life.days(1);
    let past = life.import_as(&key, 1, Some(START), None);
    assert!(matches!(past, Err(KmsError::ValidationException(_))));
    let far = life.import_as(&key, 1, Some(START.plus_days(367)), None);
    assert!(matches!(far, Err(KmsError::ValidationException(_))));
    life.import(&key, 1).unwrap();
    assert_eq!(life.describe(&key).valid_to, None);
    life.days(400);
    assert_eq!(life.state(&key), KeyState::Enabled);
}

#[test]
fn a_disabled_key_loses_expired_material_too() {
    let life = Life::new();
    let key = life.external();
    life.import_until(&key, 1, START.plus_days(3));
    life.service.disable_key(&key).unwrap();
    life.days(3);
    assert_eq!(life.state(&key), KeyState::PendingImport);
    assert_eq!(
        invalid(life.service.enable_key(&key)),
        InvalidState::Expired
    );
    assert_eq!(life.files_of(&key), ["key"]);
}

#[test]
fn imported_material_is_rotated_to_once_it_is_there_and_all_of_it_is_needed() {
    let life = Life::new();
    let key = life.external();
    let one = life.import(&key, 1).unwrap().key_material_id.unwrap();
    let under_one = life.wrap(&key);
    let rotate = || life.service.rotate_key_on_demand(&key);
    assert_eq!(invalid(rotate()), InvalidState::NoNewMaterial);
    incorrect(life.import_new(&key, 1));
    let two = life.import_new(&key, 2).unwrap().key_material_id.unwrap();
    assert_eq!(
        invalid(life.import_new(&key, 3)),
        InvalidState::RotationPending
    );
    assert_eq!(life.describe(&key).current_key_material_id, Some(one));
    let states = || -> Vec<_> {
        let all = life.materials(&key);
        all.iter().map(|entry| entry.key_material_state).collect()
    };
    use KeyMaterialState::{Current, NonCurrent, PendingRotation};
    assert_eq!(states(), [Current, PendingRotation]);
    assert!(life.rotations(&key).is_empty());
    life.days(1);
    assert_eq!(rotate().unwrap().1, two);
    assert_eq!(states(), [NonCurrent, Current]);
    let rotated = life.rotations(&key);
    assert_eq!(rotated.len(), 1);
    assert_eq!(rotated[0].rotation_type, Some(RotationType::OnDemand));
    assert_eq!(rotated[0].rotation_date, Some(START.plus_days(1)));
    assert_eq!(invalid(rotate()), InvalidState::NoNewMaterial);
    let under_two = life.wrap(&key);
    assert_eq!(under_two.envelope.material_id(), two);
    life.assert_opens(&under_one);

    for lost in [one, two] {
        assert_eq!(
            life.delete_material(&key, Some(lost)),
            KeyState::PendingImport
        );
        for wrapped in [&under_one, &under_two] {
            assert_eq!(life.refused(wrapped), KeyUnavailable::NoMaterial);
        }
        assert_eq!(invalid(rotate()), InvalidState::PendingImport);
        let seed = if lost == one { 1 } else { 2 };
        let existing = Some(ImportType::ExistingKeyMaterial);
        life.import_as(&key, seed, None, existing).unwrap();
        life.assert_opens(&under_one);
        life.assert_opens(&under_two);
    }
    // With both gone, one alone brings nothing back.
    life.delete_material(&key, Some(one));
    life.delete_material(&key, Some(two));
    assert_eq!(
        life.import(&key, 2).unwrap().key_state,
        KeyState::PendingImport
    );
    assert_eq!(life.refused(&under_two), KeyUnavailable::NoMaterial);
    assert_eq!(life.import(&key, 1).unwrap().key_state, KeyState::Enabled);
    life.assert_opens(&under_two);
}

#[test]
fn material_that_waits_to_be_rotated_to_can_be_lost_without_harm() {
    let life = Life::new();
    let key = life.external();
    life.import(&key, 1).unwrap();
    let wrapped = life.wrap(&key);
    let new = ImportType::NewKeyMaterial;
    let two = life.import_new(&key, 2).unwrap().key_material_id;
    assert_eq!(life.delete_material(&key, two), KeyState::Enabled);
    assert_eq!(life.materials(&key).len(), 1);
    let end = START.plus_days(3);
    life.import_as(&key, 3, Some(end), Some(new)).unwrap();
    assert_eq!(life.describe(&key).valid_to, None);
    life.days(3);
    assert_eq!(life.state(&key), KeyState::Enabled);
    let rotated = life.service.rotate_key_on_demand(&key);
    assert_eq!(invalid(rotated), InvalidState::NoNewMaterial);
    life.assert_opens(&wrapped);
    assert_eq!(life.files_of(&key).len(), 2);
    // And it enables nothing that was switched off.
    life.service.disable_key(&key).unwrap();
    assert_eq!(
        life.import_new(&key, 4).unwrap().key_state,
        KeyState::Disabled
    );
}

#[test]
fn rotation_on_demand_keeps_old_material_for_decrypting_and_the_schedule() {
    let life = Life::new();
    let key = life.key();
    life.service.enable_key_rotation(&key, period(100)).unwrap();
    let next = life.describe(&key).next_rotation_date;
    assert_eq!(next, Some(START.plus_days(100)));
    let mut all = vec![life.wrap(&key)];
    for day in 1..=25 {
        life.days(day);
        let (id, material) = life.service.rotate_key_on_demand(&key).unwrap();
        assert_eq!(KeyRef::Id(id), key);
        all.push(life.wrap(&key));
        assert_eq!(all[usize::from(day)].envelope.material_id(), material);
    }
    let refused = life.service.rotate_key_on_demand(&key);
    assert!(matches!(
        refused,
        Err(KmsError::LimitExceededException { limit: 25, .. })
    ));
    assert_eq!(life.describe(&key).next_rotation_date, next);
    all.iter().for_each(|wrapped| life.assert_opens(wrapped));
    let rotations = life.rotations(&key);
    assert_eq!(rotations.len(), 25);
    assert!(rotations.iter().all(|entry| entry.import_state.is_none()));
    assert_eq!(life.materials(&key).len(), 26);
    // Rotations by date are not counted.
    life.days(100);
    life.service.run_due();
    assert_eq!(life.rotations(&key).len(), 26);
    assert!(life.service.verify().unwrap().damaged.is_empty());
}

#[test]
fn a_due_rotation_is_done_by_whoever_touches_the_store() {
    let life = Life::new();
    let key = life.key();
    let wrapped = life.wrap(&key);
    assert!(!life.describe(&key).key_rotation_enabled);
    life.service.enable_key_rotation(&key, period(90)).unwrap();
    let described = life.describe(&key);
    assert!(described.key_rotation_enabled);
    assert_eq!(described.rotation_period_in_days, Some(90));
    life.at(Timestamp(START.plus_days(90).0 - 1));
    life.another().list_aliases(None).unwrap();
    assert!(life.rotations(&key).is_empty());
    life.days(90);
    life.another().list_aliases(None).unwrap();
    let rotations = life.rotations(&key);
    assert_eq!(rotations.len(), 1);
    assert_eq!(rotations[0].rotation_type, Some(RotationType::Automatic));
    assert_eq!(rotations[0].key_material_state, KeyMaterialState::Current);
    assert_eq!(
        life.describe(&key).next_rotation_date,
        Some(START.plus_days(180))
    );
    life.assert_opens(&wrapped);
    assert_ne!(
        life.wrap(&key).envelope.material_id(),
        wrapped.envelope.material_id()
    );
    life.service.disable_key_rotation(&key).unwrap();
    life.days(1000);
    assert_eq!(life.rotations(&key).len(), 1);
    assert_eq!(life.describe(&key).next_rotation_date, None);
}

#[test]
fn a_disabled_key_is_caught_up_once_when_it_is_enabled_again() {
    let life = Life::new();
    let key = life.key();
    life.service.enable_key_rotation(&key, period(90)).unwrap();
    life.service.disable_key(&key).unwrap();
    life.days(1000);
    life.service.run_due();
    assert!(life.rotations(&key).is_empty());
    life.service.enable_key(&key).unwrap();
    assert_eq!(life.rotations(&key).len(), 1);
    assert_eq!(
        life.describe(&key).next_rotation_date,
        Some(START.plus_days(1090))
    );
    life.service.run_due();
    assert_eq!(life.rotations(&key).len(), 1);
}

#[test]
fn a_key_pending_deletion_is_not_rotated() {
    let life = Life::new();
    let key = life.key();
    life.service.enable_key_rotation(&key, period(90)).unwrap();
    life.days(80);
    life.service.schedule_key_deletion(&key, days(30)).unwrap();
    assert!(!life.describe(&key).key_rotation_enabled);
    life.days(100);
    life.service.run_due();
    assert!(life.rotations(&key).is_empty());
    life.service.cancel_key_deletion(&key).unwrap();
    assert!(life.describe(&key).key_rotation_enabled);
    assert!(life.rotations(&key).is_empty());
    life.service.enable_key(&key).unwrap();
    assert_eq!(life.rotations(&key).len(), 1);
}

#[test]
fn the_default_key_is_rotated_every_year_by_itself() {
    let life = Life::new();
    let default = KeyRef::Alias(AliasName::default_key());
    let described = life.describe(&default);
    assert!(described.key_rotation_enabled);
    assert_eq!(described.rotation_period_in_days, Some(365));
    let rotation = life.service.enable_key_rotation(&default, period(90));
    assert_eq!(unsupported(rotation), Unsupported::Managed);
    let rotation = life.service.disable_key_rotation(&default);
    assert_eq!(unsupported(rotation), Unsupported::Managed);
    for year in 1..=3 {
        life.days(365 * year);
        life.service.run_due();
        assert_eq!(life.rotations(&default).len(), usize::from(year));
    }
}

#[test]
fn imported_material_is_never_rotated_by_date() {
    let life = Life::new();
    let key = life.external();
    life.import(&key, 1).unwrap();
    for result in [
        life.service.enable_key_rotation(&key, period(90)),
        life.service.disable_key_rotation(&key),
    ] {
        assert_eq!(unsupported(result), Unsupported::Imported);
    }
}

#[test]
fn enabling_rotation_again_keeps_the_schedule_unless_the_period_changes() {
    let life = Life::new();
    let key = life.key();
    life.service.enable_key_rotation(&key, period(100)).unwrap();
    life.days(10);
    life.service.enable_key_rotation(&key, period(100)).unwrap();
    assert_eq!(
        life.describe(&key).next_rotation_date,
        Some(START.plus_days(100))
    );
    life.service.enable_key_rotation(&key, period(200)).unwrap();
    assert_eq!(
        life.describe(&key).next_rotation_date,
        Some(START.plus_days(210))
    );
}

#[test]
fn tags_and_description_change_while_the_key_is_not_pending_deletion() {
    let life = Life::new();
    let key = life.key();
    let tags = |pairs: &[(&str, &str)]| {
        let pairs = pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        Tags::new(pairs).unwrap()
    };
    life.service
        .tag_resource(&key, &tags(&[("a", "1"), ("b", "2")]))
        .unwrap();
    life.service
        .tag_resource(&key, &tags(&[("b", "3")]))
        .unwrap();
    life.service
        .untag_resource(&key, &["a".to_owned(), "z".to_owned()])
        .unwrap();
    assert_eq!(life.describe(&key).tags, tags(&[("b", "3")]));
    let many = Tags::new((0..50).map(|i| (i.to_string(), String::new()))).unwrap();
    let refused = life.service.tag_resource(&key, &many);
    assert!(matches!(
        refused,
        Err(KmsError::LimitExceededException { limit: 50, .. })
    ));
    let text = Description::new("new".to_owned()).unwrap();
    life.service.update_key_description(&key, &text).unwrap();
    assert_eq!(life.describe(&key).description, text);
    life.service.schedule_key_deletion(&key, days(7)).unwrap();
    for refused in [
        life.service.tag_resource(&key, &tags(&[("c", "")])),
        life.service.untag_resource(&key, &["b".to_owned()]),
        life.service.update_key_description(&key, &text),
    ] {
        assert_eq!(invalid(refused), InvalidState::PendingDeletion);
    }
}

#[test]
fn a_small_secret_opens_under_its_own_key_and_context_whatever_was_rotated_since() {
    let life = Life::new();
    let (key, other) = (life.key(), life.key());
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let context = TextContext([pair("a", "b")].into());
    let none = TextContext::default();
    let blob = life.service.encrypt(&key, b"secret", &context).unwrap();
    assert!(!blob.windows(6).any(|window| window == b"secret"));
    life.service.rotate_key_on_demand(&key).unwrap();
    let open = |key: Option<&KeyRef>, context| life.service.decrypt(key, &blob, context);
    assert_eq!(&**open(None, &context).unwrap(), b"secret");
    assert_eq!(&**open(Some(&key), &context).unwrap(), b"secret");
    assert!(matches!(
        open(Some(&other), &context),
        Err(KmsError::IncorrectKeyException { .. })
    ));
    assert!(matches!(
        open(None, &none),
        Err(KmsError::InvalidCiphertextException(_))
    ));
    let moved = life
        .service
        .re_encrypt(&blob, &context, &other, &none)
        .unwrap();
    let opened = life.service.decrypt(Some(&other), &moved, &none);
    assert_eq!(&**opened.unwrap(), b"secret");
    for length in [0, 4097] {
        let refused = life.service.encrypt(&key, &vec![1; length], &none);
        assert!(matches!(refused, Err(KmsError::ValidationException(_))));
    }
    let longest = life.service.encrypt(&key, &[1; 4096], &none).unwrap();
    assert_eq!(
        life.service.decrypt(None, &longest, &none).unwrap().len(),
        4096
    );
    let junk = life.service.decrypt(None, b"junk", &none);
    assert!(matches!(junk, Err(KmsError::InvalidCiphertextException(_))));
    life.service.disable_key(&key).unwrap();
    assert!(matches!(
        open(None, &context),
        Err(KmsError::DisabledException { .. })
    ));
    let refused = life.service.re_encrypt(&blob, &context, &other, &none);
    assert!(matches!(refused, Err(KmsError::DisabledException { .. })));
}

#[test]
fn what_time_brings_about_is_in_the_audit_log_once_each_and_as_nobodys_deed() {
    let life = Life::new();
    let (doomed, rotated, expiring) = (life.key(), life.key(), life.external());
    let before = done_by_itself(&life).len();
    life.service
        .schedule_key_deletion(&doomed, days(30))
        .unwrap();
    life.service
        .enable_key_rotation(&rotated, period(90))
        .unwrap();
    life.import_until(&expiring, 1, START.plus_days(20));
    life.days(100);
    life.another().run_due();
    life.service.run_due();
    let mut done = done_by_itself(&life).split_off(before);
    done.sort();
    let expected = [
        ("DeleteExpiredKeyMaterial", &expiring),
        ("DeleteKey", &doomed),
        ("RotateKey", &rotated),
    ];
    assert_eq!(
        done,
        expected.map(|(name, key)| (name.to_owned(), key.name()))
    );
    assert!(life.service.verify_audit().damage.is_none());
}

/// What no key material and no secret may ever do.
#[test]
fn neither_material_nor_secret_nor_ciphertext_is_in_the_audit_log() {
    let life = Life::new();
    let key = life.external();
    life.import(&key, 1).unwrap();
    let context = TextContext([("purpose".to_owned(), "shown".to_owned())].into());
    let secret = b"a secret that nobody may read";
    let stored = life.service.encrypt(&key, secret, &context).unwrap();
    life.service.decrypt(None, &stored, &context).unwrap();
    let log = std::fs::read(life.dir.path().join("audit/log")).unwrap();
    let holds = |bytes: &[u8]| log.windows(bytes.len()).any(|window| window == bytes);
    assert!(holds(b"shown") && holds(b"ImportKeyMaterial"));
    assert!(!holds(secret));
    assert!(!holds(&stored[72..]));
    assert!(!holds(material(1).secret().expose()));
}
