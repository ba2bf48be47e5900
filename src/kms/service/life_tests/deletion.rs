//! Scheduled deletion: what waits, what goes, what comes back.

use super::*;

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
