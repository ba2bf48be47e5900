//! Every key operation, cut short at every file operation: the store is in the old or the new state, the audit log is
//! whole and tells which, and the next operation works.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::deletion::PendingWindow;
use super::error::KmsError;
use super::event::Event;
use super::import::{ImportRequest, ImportType, ImportedMaterial};
use super::key::{CreateKeyRequest, KeyRef, Origin};
use super::rotation::RotationPeriod;
use super::service::KeyService;
use super::service::tests::{context, create, reopen};
use super::storage;
use super::storage::fault::{Fault, inject};
use crate::ids::KeyId;
use crate::secret::Secret;

/// A key service on a fresh key directory in memory: no disk has to be waited for thousands of times.
fn fresh() -> (tempfile::TempDir, KeyService) {
    let memory = Path::new("/dev/shm");
    let dir = if memory.is_dir() {
        tempfile::tempdir_in(memory)
    } else {
        tempfile::tempdir()
    };
    let dir = dir.unwrap();
    let service = create(dir.path());
    (dir, service)
}

/// What the records say, and which materials there are.
fn state(service: &KeyService) -> BTreeMap<String, String> {
    let mut state = BTreeMap::new();
    let keys = service.store().key_ids().unwrap();
    assert!(keys.1.is_empty());
    for id in keys.0 {
        let record = service.store().key(id).unwrap();
        let materials = service.store().material_files(id).unwrap();
        let text = format!("{:?} {materials:?}", record.value);
        state.insert(id.to_string(), text);
    }
    for name in service.store().alias_files().unwrap() {
        let alias = service.store().alias_file(&name).unwrap().unwrap();
        state.insert(name, format!("{:?}", alias.value));
    }
    state
}

/// How often the audit log says that `name` was done.
fn times_done(dir: &Path, name: &str) -> usize {
    let log = fs::read_to_string(dir.join("audit/log")).unwrap();
    let lines = log.lines().filter(|line| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        line["eventName"] == name && line.get("errorCode").is_none()
    });
    lines.count()
}

fn assert_nothing_lies_about(dir: &Path, case: &str) {
    assert!(!dir.join("journal").exists(), "{case}");
    let staged = storage::all_names(&dir.join(".staged")).unwrap();
    assert!(staged.is_empty(), "{case}: {staged:?}");
}

struct Case {
    name: &'static str,
    prepare: fn(&KeyService) -> KeyId,
    run: fn(&KeyService, KeyId) -> Result<(), KmsError>,
}

fn new_key(service: &KeyService) -> KeyId {
    let request = CreateKeyRequest {
        alias: Some("alias/a".parse().unwrap()),
        ..CreateKeyRequest::default()
    };
    service.create_key(request).unwrap().key_id
}

/// A key with imported material.
fn imported_key(service: &KeyService) -> KeyId {
    let request = CreateKeyRequest {
        origin: Origin::External,
        ..CreateKeyRequest::default()
    };
    let id = service.create_key(request).unwrap().key_id;
    import(service, id, None).unwrap();
    id
}

/// Imports the one material that these tests know, or a new one.
fn import(
    service: &KeyService,
    id: KeyId,
    import_type: Option<ImportType>,
) -> Result<(), KmsError> {
    let mut bytes = match import_type {
        None => std::array::from_fn(|at| (at as u8).wrapping_mul(167) ^ 5),
        Some(_) => *Secret::<32>::random()?.expose(),
    };
    let request = ImportRequest {
        material: ImportedMaterial::take(&mut bytes)?,
        valid_to: None,
        import_type,
    };
    service.import_key_material(&id.into(), &request).map(drop)
}

const CASES: [Case; 16] = [
    Case {
        name: "ScheduleKeyDeletion",
        prepare: new_key,
        run: |service, id| {
            let window = PendingWindow::default();
            service.schedule_key_deletion(&id.into(), window).map(drop)
        },
    },
    Case {
        name: "CancelKeyDeletion",
        prepare: |service| {
            let id = new_key(service);
            let window = PendingWindow::default();
            service.schedule_key_deletion(&id.into(), window).unwrap();
            id
        },
        run: |service, id| service.cancel_key_deletion(&id.into()).map(drop),
    },
    Case {
        name: "RotateKeyOnDemand",
        prepare: new_key,
        run: |service, id| service.rotate_key_on_demand(&id.into()).map(drop),
    },
    Case {
        name: "EnableKeyRotation",
        prepare: new_key,
        run: |service, id| {
            let period = RotationPeriod::YEAR;
            service.enable_key_rotation(&id.into(), period).map(drop)
        },
    },
    Case {
        name: "ImportKeyMaterial",
        prepare: |service| {
            let id = imported_key(service);
            let deleted = service.delete_imported_key_material(&id.into(), None);
            deleted.unwrap();
            id
        },
        run: |service, id| import(service, id, None),
    },
    Case {
        name: "ImportKeyMaterial",
        prepare: imported_key,
        run: |service, id| import(service, id, Some(ImportType::NewKeyMaterial)),
    },
    Case {
        name: "DeleteImportedKeyMaterial",
        prepare: imported_key,
        run: |service, id| {
            let deleted = service.delete_imported_key_material(&id.into(), None);
            deleted.map(drop)
        },
    },
    Case {
        name: "RotateKeyOnDemand",
        prepare: |service| {
            let id = imported_key(service);
            import(service, id, Some(ImportType::NewKeyMaterial)).unwrap();
            id
        },
        run: |service, id| service.rotate_key_on_demand(&id.into()).map(drop),
    },
    Case {
        name: "DisableKey",
        prepare: new_key,
        run: |service, id| service.disable_key(&id.into()).map(drop),
    },
    Case {
        name: "EnableKey",
        prepare: |service| {
            let id = new_key(service);
            service.disable_key(&id.into()).unwrap()
        },
        run: |service, id| service.enable_key(&id.into()).map(drop),
    },
    Case {
        name: "CreateKey",
        prepare: new_key,
        run: |service, _| {
            let request = CreateKeyRequest {
                alias: Some("alias/b".parse().unwrap()),
                ..CreateKeyRequest::default()
            };
            service.create_key(request).map(drop)
        },
    },
    Case {
        name: "CreateAlias",
        prepare: new_key,
        run: |service, id| {
            let alias = "alias/b".parse().unwrap();
            service.create_alias(&alias, &id.into()).map(drop)
        },
    },
    Case {
        name: "UpdateAlias",
        prepare: |service| {
            new_key(service);
            let request = CreateKeyRequest::default();
            service.create_key(request).unwrap().key_id
        },
        run: |service, id| {
            let alias = "alias/a".parse().unwrap();
            service.update_alias(&alias, &id.into()).map(drop)
        },
    },
    Case {
        name: "DeleteAlias",
        prepare: new_key,
        run: |service, _| service.delete_alias(&"alias/a".parse().unwrap()),
    },
    // What deletion is made of, and more than any other operation does at once.
    Case {
        name: "DeleteKey",
        prepare: new_key,
        run: |service, id| {
            service.change(Event::new("DeleteKey"), |change| {
                let key = service.store().key(id)?;
                for material in &key.value.materials {
                    change.destroy_material(id, material.key_material_id);
                }
                change.remove_alias(&"alias/a".parse()?)?;
                change.remove_key(id);
                Ok(())
            })
        },
    },
    Case {
        name: "ExchangeMaterial",
        prepare: new_key,
        run: |service, id| {
            service.change(Event::new("ExchangeMaterial"), |change| {
                let old = service.store().key(id)?;
                let material = Secret::random()?;
                let mut record = old.value.clone();
                let new = crate::crypto::kdf::material_id(&id, &material);
                let gone = record.materials[0].key_material_id;
                record.materials[0].key_material_id = new;
                record.current_key_material_id = Some(new);
                change.put_material(id, new, &material);
                change.put_key(Some(&old), &record)?;
                change.destroy_material(id, gone);
                Ok(())
            })
        },
    },
];

/// Runs a case with a fault after each number of file operations, and says how many there were.
fn at_every_step(case: &Case, fault: Fault) -> u32 {
    for n in 0.. {
        let label = format!("{} with {fault:?} after {n}", case.name);
        let (dir, service) = fresh();
        let id = (case.prepare)(&service);
        let before = state(&service);
        let done_before = times_done(dir.path(), case.name);
        let (result, happened) = inject(n, fault, || (case.run)(&service, id));
        if !happened {
            result.unwrap();
            assert_nothing_lies_about(dir.path(), &label);
            return n;
        }
        // Another process comes, or the same goes on.
        for service in [&reopen(dir.path()), &service] {
            let default = KeyRef::Alias("alias/cmkfs/default".parse().unwrap());
            service.describe_key(&default).expect(&label);
            assert_nothing_lies_about(dir.path(), &label);
            let after = state(service);
            let done = times_done(dir.path(), case.name) - done_before;
            assert_eq!(done, usize::from(after != before), "{label}");
            match &result {
                Ok(()) => assert_ne!(after, before, "{label}"),
                Err(KmsError::Unfinished(_)) => {}
                // Whoever was told that it failed must find nothing changed.
                Err(_) if fault != Fault::Killed => assert_eq!(after, before, "{label}"),
                Err(_) => {}
            }
            let audit = service.verify_audit();
            assert!(audit.damage.is_none(), "{label}: {:?}", audit.damage);
            assert!(!audit.unfinished, "{label}");
            let whole = service.verify().unwrap();
            assert!(whole.damaged.is_empty(), "{label}: {:?}", whole.damaged);
            service
                .generate_data_key(&default, &context())
                .expect(&label);
        }
        make_and_remove_a_key(&service);
    }
    unreachable!()
}

fn make_and_remove_a_key(service: &KeyService) {
    let request = CreateKeyRequest::default();
    let id = service.create_key(request).unwrap().key_id;
    service
        .change(Event::new("Undo"), |change| {
            let key = service.store().key(id)?;
            for material in &key.value.materials {
                change.destroy_material(id, material.key_material_id);
            }
            change.remove_key(id);
            Ok(())
        })
        .unwrap();
}

#[test]
fn an_operation_that_is_killed_at_any_step_is_done_or_not_and_the_audit_log_says_which() {
    for case in &CASES {
        let steps = at_every_step(case, Fault::Killed);
        assert!(steps > 8, "{}: {steps} steps", case.name);
    }
}

#[test]
fn an_operation_whose_disk_is_full_or_broken_at_any_step_is_done_or_not() {
    for case in &CASES {
        for errno in [libc::ENOSPC, libc::EIO] {
            at_every_step(case, Fault::Once(errno));
        }
    }
}

#[test]
fn a_refused_operation_and_a_listing_killed_at_any_step_leave_a_whole_audit_log() {
    for fault in [Fault::Killed, Fault::Once(libc::EIO)] {
        for n in 0..100 {
            let (dir, service) = fresh();
            let nothing = KeyRef::Id(KeyId::random());
            let (results, happened) = inject(n, fault, || {
                (service.disable_key(&nothing), service.list_keys())
            });
            if !happened {
                assert!(n > 4);
                assert_eq!(results.0.unwrap_err().code(), "NotFoundException");
                results.1.unwrap();
                break;
            }
            let failed = [
                results.0.unwrap_err().code() == "NotRecorded",
                results.1.is_err(),
            ];
            assert!(failed.contains(&true), "{n}");
            let service = reopen(dir.path());
            service.list_keys().unwrap();
            let audit = service.verify_audit();
            assert!(audit.damage.is_none(), "{n}: {:?}", audit.damage);
        }
    }
}

#[test]
fn a_key_can_be_disabled_on_a_full_disk_and_not_be_made() {
    let (dir, service) = fresh();
    let id = new_key(&service);
    let reserve = dir.path().join("audit/reserve");
    assert!(reserve.exists());
    // The first attempt finds no room; the second one has what was kept.
    let mut disabled = 0;
    for n in 0..30 {
        let (result, happened) = inject(n, Fault::Once(libc::ENOSPC), || {
            service.disable_key(&id.into())
        });
        if !happened {
            break;
        }
        disabled += usize::from(result.is_ok());
        service.enable_key(&id.into()).unwrap();
        assert!(reserve.exists());
        let request = CreateKeyRequest::default();
        let (made, _) = inject(n, Fault::Once(libc::ENOSPC), || service.create_key(request));
        assert!(n > 10 || made.is_err(), "{n}");
    }
    assert!(disabled > 5, "{disabled}");
}

#[test]
fn nothing_of_a_material_stays_aside_in_any_case() {
    // What was staged and never came into its place is overwritten: a hard link shows what became of the bytes.
    let (dir, service) = fresh();
    let mut seen = 0;
    for n in 0..12 {
        let request = CreateKeyRequest::default();
        let (result, _) = inject(n, Fault::Killed, || service.create_key(request));
        assert!(result.is_err());
        let staged = dir.path().join(".staged");
        for aside in storage::all_names(&staged).unwrap() {
            for name in storage::all_names(&staged.join(aside.clone())).unwrap() {
                let link = dir.path().join(format!(".witness{n}{}", name.display()));
                fs::hard_link(staged.join(&aside).join(name), &link).unwrap();
            }
        }
        let journal = dir.path().join("journal").exists();
        reopen(dir.path()).list_keys().unwrap();
        for name in storage::all_names(dir.path()).unwrap() {
            if name.to_string_lossy().starts_with(".witness") && !journal {
                let bytes = fs::read(dir.path().join(&name)).unwrap();
                assert!(bytes.iter().all(|byte| *byte == 0), "{n}");
                seen += usize::from(!bytes.is_empty());
            }
            if name.to_string_lossy().starts_with(".witness") {
                fs::remove_file(dir.path().join(name)).unwrap();
            }
        }
    }
    assert!(seen > 2, "{seen}");
}

#[test]
fn a_journal_that_was_tampered_with_is_refused_and_named() {
    let (dir, service) = fresh();
    let id = new_key(&service);
    let path = dir.path().join("journal");
    for n in 0..40 {
        let (_, _) = inject(n, Fault::Killed, || service.disable_key(&id.into()));
        if path.exists() {
            break;
        }
    }
    let whole = fs::read(&path).unwrap();
    for at in (0..whole.len()).step_by(7) {
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        fs::write(&path, flipped).unwrap();
        let refused = service.enable_key(&id.into());
        assert!(
            matches!(&refused, Err(KmsError::Damaged { path: named, .. }) if *named == path),
            "{refused:?}"
        );
    }
    fs::write(&path, whole).unwrap();
    service.describe_key(&id.into()).unwrap();
    assert!(!path.exists());
    let record = service.store().key(id).unwrap();
    assert_eq!(record.value.key_state, super::state::KeyState::Disabled);
}
