//! Imported material: given, deleted, expired, given again.

use super::*;

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
