//! Rotation by date and on demand.

use super::*;

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
fn the_rotation_status_is_asked_for_by_its_own_name() {
    let life = Life::new();
    let key = life.key();
    assert!(
        !life
            .service
            .get_key_rotation_status(&key)
            .unwrap()
            .key_rotation_enabled
    );
    life.service.enable_key_rotation(&key, period(100)).unwrap();
    let status = life.service.get_key_rotation_status(&key).unwrap();
    assert_eq!(status.rotation_period_in_days, Some(100));
    assert_eq!(status.next_rotation_date, Some(START.plus_days(100)));
    let log = std::fs::read_to_string(life.dir.path().join("audit/log")).unwrap();
    assert_eq!(log.matches("\"GetKeyRotationStatus\"").count(), 2);
}
