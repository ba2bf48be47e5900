//! Tests of backups: what goes in comes back, and nothing else does.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::clock::{ManualClock, Timestamp};
use crate::kms::event::Event;
use crate::kms::key::{CreateKeyRequest, KeyRef};
use crate::kms::root::NewProtection;
use crate::kms::service::KeyService;
use crate::kms::service::tests::{Never, context, fresh};

const CHEAP: Argon2Params = Argon2Params::CHEAP_AND_INSECURE;

fn phrase(text: &str) -> Passphrase {
    Passphrase::new(text.as_bytes().to_vec().into())
}

fn read(path: &Path) -> Result<Backup, KmsError> {
    Backup::read(path, || Ok(phrase("far away")))
}

fn back_up(service: &KeyService, dir: &Path) -> PathBuf {
    let path = dir.join("backup.cmkfs");
    service
        .backup(&path, true, CHEAP, &phrase("far away"))
        .unwrap();
    path
}

fn new_key(service: &KeyService, alias: &str) -> KeyId {
    let request = CreateKeyRequest {
        alias: Some(alias.parse().unwrap()),
        ..CreateKeyRequest::default()
    };
    service.create_key(request).unwrap().key_id
}

fn delete(service: &KeyService, id: KeyId, alias: &str) {
    service
        .change(Event::new("DeleteKey"), |change| {
            for material in &service.store().key(id)?.value.materials {
                change.destroy_material(id, material.key_material_id);
            }
            change.remove_alias(&alias.parse()?)?;
            change.remove_key(id);
            Ok(())
        })
        .unwrap();
}

#[test]
fn a_backup_makes_the_same_key_directory_elsewhere() {
    let (dir, service) = fresh();
    let id = new_key(&service, "alias/a");
    let context = context();
    let (data_key, envelope) = service.generate_data_key(&id.into(), &context).unwrap();
    service.disable_key(&id.into()).unwrap();
    let path = back_up(&service, dir.path());
    let elsewhere = tempfile::tempdir().unwrap();
    let (restored, told) = KeyService::create_from(
        &elsewhere.path().join("keys"),
        &read(&path).unwrap(),
        NewProtection::RootKeyFile,
        &Never,
        Arc::new(ManualClock::new(Timestamp(1_700_000_000_000))),
    )
    .unwrap();
    assert_eq!(
        (
            told.keys.len(),
            told.key_materials.len(),
            told.aliases.len()
        ),
        (2, 2, 2)
    );
    assert_eq!(restored.store_id(), service.store_id());
    let described = |service: &KeyService| service.list_keys().unwrap().items;
    assert_eq!(described(&restored), described(&service));
    let aliases = |service: &KeyService| service.list_aliases(None).unwrap().items;
    assert_eq!(aliases(&restored), aliases(&service));
    assert!(
        restored.decrypt_data_key(&envelope, &context).is_err(),
        "still disabled"
    );
    restored.enable_key(&id.into()).unwrap();
    let opened = restored.decrypt_data_key(&envelope, &context).unwrap();
    assert_eq!(opened, data_key);
    assert!(restored.verify().unwrap().damaged.is_empty());
    assert!(restored.verify_audit().damage.is_none());
    let again = fs::read(elsewhere.path().join("keys/root.key")).unwrap();
    assert_ne!(again, fs::read(dir.path().join("root.key")).unwrap());
}

#[test]
fn what_is_lost_or_damaged_comes_back_and_what_is_there_stays() {
    let (dir, service) = fresh();
    let (lost, hurt, changed) = (
        new_key(&service, "alias/lost"),
        new_key(&service, "alias/hurt"),
        new_key(&service, "alias/changed"),
    );
    let path = back_up(&service, dir.path());
    fs::remove_dir_all(dir.path().join("keys").join(lost.to_string())).unwrap();
    fs::write(dir.path().join(store::key_place(hurt)), "junk").unwrap();
    service.disable_key(&changed.into()).unwrap();
    service
        .update_alias(&"alias/changed".parse().unwrap(), &changed.into())
        .unwrap();
    let told = service.restore(&read(&path).unwrap(), false).unwrap();
    assert_eq!(told.keys.len(), 2);
    assert!(told.keys.contains(&lost) && told.keys.contains(&hurt));
    assert!(told.deleted_keys.is_empty() && told.aliases.is_empty());
    for id in [lost, hurt] {
        service.generate_data_key(&id.into(), &context()).unwrap();
    }
    assert!(!service.describe_key(&changed.into()).unwrap().enabled);
    assert!(service.verify().unwrap().damaged.is_empty());
    let nothing = service.restore(&read(&path).unwrap(), true).unwrap();
    assert!(nothing.keys.is_empty() && nothing.key_materials.is_empty());
}

#[test]
fn a_key_that_waited_for_its_deletion_comes_back_disabled() {
    let (dir, service) = fresh();
    let id = new_key(&service, "alias/a");
    let window = crate::kms::deletion::PendingWindow::default();
    service.schedule_key_deletion(&id.into(), window).unwrap();
    let path = back_up(&service, dir.path());
    delete(&service, id, "alias/a");
    let told = service.restore(&read(&path).unwrap(), true).unwrap();
    assert_eq!(told.keys, [id]);
    let key = service.describe_key(&id.into()).unwrap();
    assert_eq!(key.key_state, crate::kms::state::KeyState::Disabled);
    service.enable_key(&id.into()).unwrap();
    assert!(service.verify().unwrap().damaged.is_empty());
}

#[test]
fn what_was_deleted_since_stays_deleted_unless_it_is_asked_for() {
    let (dir, service) = fresh();
    let id = new_key(&service, "alias/a");
    let other = new_key(&service, "alias/b");
    let context = context();
    let (data_key, envelope) = service.generate_data_key(&id.into(), &context).unwrap();
    let path = back_up(&service, dir.path());
    delete(&service, id, "alias/a");
    service.delete_alias(&"alias/b".parse().unwrap()).unwrap();
    let backup = read(&path).unwrap();
    let told = service.restore(&backup, false).unwrap();
    assert_eq!(told.deleted_keys, [id]);
    assert_eq!(told.deleted_aliases.len(), 2);
    assert!(told.keys.is_empty() && told.key_materials.is_empty() && told.aliases.is_empty());
    assert!(service.decrypt_data_key(&envelope, &context).is_err());
    let told = service.restore(&backup, true).unwrap();
    assert_eq!(told.keys, [id]);
    assert_eq!(told.aliases.len(), 2);
    let opened = service.decrypt_data_key(&envelope, &context).unwrap();
    assert_eq!(opened, data_key);
    let by_alias: KeyRef = "alias/b".parse().unwrap();
    assert_eq!(service.describe_key(&by_alias).unwrap().key_id, other);
}

#[test]
fn the_audit_log_remembers_which_backups_hold_a_material() {
    let (dir, service) = fresh();
    let id = new_key(&service, "alias/a");
    let material = service
        .describe_key(&id.into())
        .unwrap()
        .current_key_material_id;
    let material = material.unwrap();
    assert!(service.known_backups_of(material).is_empty());
    let path = back_up(&service, dir.path());
    let known = service.known_backups_of(material);
    assert_eq!(known.len(), 1);
    assert_eq!(known[0].path, path.to_str().unwrap());
    assert_eq!(known[0].sha256, sha256_text(&fs::read(&path).unwrap()));
    assert_eq!(known[0].backup_id, read(&path).unwrap().id().to_string());
    let later = new_key(&service, "alias/later");
    let later = service.describe_key(&later.into()).unwrap();
    assert!(
        service
            .known_backups_of(later.current_key_material_id.unwrap())
            .is_empty()
    );
}

#[test]
fn a_wrong_passphrase_and_every_change_of_the_file_are_refused() {
    let (dir, service) = fresh();
    let path = back_up(&service, dir.path());
    let wrong = Backup::read(&path, || Ok(phrase("far awaz")));
    assert!(matches!(wrong, Err(KmsError::WrongPassphrase { .. })));
    let whole = fs::read(&path).unwrap();
    for at in 0..whole.len() {
        // Not the cost: that would take long before it fails.
        if (44..56).contains(&at) {
            continue;
        }
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        let refused = Backup::open(&path, &flipped, || Ok(phrase("far away"))).unwrap_err();
        let expected = matches!(
            refused,
            KmsError::Damaged { .. } | KmsError::WrongPassphrase { .. }
        );
        assert!(expected, "byte {at}: {refused}");
        let cut = Backup::open(&path, &whole[..at], || panic!("asked for nothing"));
        assert!(matches!(cut, Err(KmsError::Damaged { .. })), "cut to {at}");
    }
    let mut costly = whole;
    costly[44..48].copy_from_slice(&u32::MAX.to_le_bytes());
    let refused = Backup::open(&path, &costly, || panic!("asked for nothing"));
    assert!(matches!(refused, Err(KmsError::Damaged { .. })));
}

#[test]
fn a_backup_of_another_key_directory_is_refused() {
    let ((dir, mine), (_other, theirs)) = (fresh(), fresh());
    let path = back_up(&mine, dir.path());
    let refused = theirs.restore(&read(&path).unwrap(), true);
    assert!(matches!(refused, Err(KmsError::WrongStore { .. })));
}

#[test]
fn an_existing_file_is_kept_unless_it_may_be_replaced_and_nothing_lies_beside_it() {
    let (dir, service) = fresh();
    let out = tempfile::tempdir().unwrap();
    let path = out.path().join("b");
    fs::write(&path, "mine").unwrap();
    let refused = service
        .backup(&path, false, CHEAP, &phrase("x"))
        .unwrap_err();
    assert!(refused.to_string().contains("exists"), "{refused}");
    assert_eq!(fs::read(&path).unwrap(), b"mine");
    assert!(service.backup(&path, true, CHEAP, &phrase("")).is_err());
    assert_eq!(fs::read(&path).unwrap(), b"mine");
    service.backup(&path, true, CHEAP, &phrase("x")).unwrap();
    assert_ne!(fs::read(&path).unwrap(), b"mine");
    service
        .backup(&out.path().join("c"), false, CHEAP, &phrase("x"))
        .unwrap();
    assert_eq!(storage::all_names(out.path()).unwrap().len(), 2);
    drop(dir);
}

#[test]
fn a_damaged_key_is_left_out_and_said_and_keeps_no_other_from_being_saved() {
    let (dir, service) = fresh();
    let id = new_key(&service, "alias/a");
    fs::write(dir.path().join(store::key_place(id)), "junk").unwrap();
    let path = dir.path().join("backup.cmkfs");
    let written = service
        .backup(&path, false, CHEAP, &phrase("far away"))
        .unwrap();
    assert_eq!((written.keys, written.damaged.len()), (1, 1));
    assert_eq!(read(&path).unwrap().keys().len(), 1);
}

/// Sealed by somebody who knows the passphrase, and hostile all the same.
fn forged(records: Vec<(u8, String, Vec<u8>)>) -> Result<Backup, KmsError> {
    let mut payload = Vec::new();
    for (kind, place, bytes) in &records {
        let entry = Entry {
            kind: *kind,
            counter: 1,
            place,
            payload: bytes,
        };
        entry.append_to(&mut payload);
    }
    let mut header = BackupHeader::new(
        BackupId::random(),
        KeyStoreId::random(),
        payload.len() as u64,
    );
    (header.memory_kib, header.passes, header.lanes) = (8, 1, 1);
    let key = stretch(CHEAP, &phrase("far away"), &header.salt).unwrap();
    let tag = key.seal(&header.nonce, &header.encode()[..AAD_LEN], &mut payload);
    let bytes = [&header.encode()[..], &payload, &tag].concat();
    Backup::open(Path::new("b"), &bytes, || Ok(phrase("far away")))
}

#[test]
fn nothing_of_a_backup_is_written_outside_of_its_place() {
    let id = KeyId::random();
    let json = format!("{{\"KeyId\":\"{id}\"}}").into_bytes();
    assert!(forged(vec![(1, store::key_place(id), json.clone())]).is_ok());
    for place in ["../x", "/etc/passwd", "store", "keys/../store", "journal"] {
        for kind in [1, 2, 3, 4, 5] {
            assert!(
                forged(vec![(kind, place.into(), json.clone())]).is_err(),
                "{place}"
            );
        }
    }
    let other = store::key_place(KeyId::random());
    assert!(forged(vec![(1, other, json)]).is_err());
    let material = format!("keys/{id}/{}", "a".repeat(64));
    assert!(forged(vec![(2, material, vec![7; 32])]).is_err());
}

proptest! {
    #[test]
    fn no_records_panic(
        records in proptest::collection::vec((0..6_u8, "[a-z/.{}\":]{0,60}", proptest::collection::vec(any::<u8>(), 0..80)), 0..4),
    ) {
        prop_assert_eq!(forged(records.clone()).is_ok(), records.is_empty());
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let opened = Backup::open(Path::new("b"), &bytes, || Ok(phrase("x")));
        prop_assert!(opened.is_err());
    }
}

fn damage_the_log_and_begin_anew(dir: &Path, service: &KeyService) {
    let log = dir.join("audit/log");
    let length = fs::metadata(&log).unwrap().len();
    let file = fs::OpenOptions::new().write(true).open(log).unwrap();
    file.set_len(length - 10).unwrap();
    service.restart_audit().unwrap();
}

#[test]
fn logs_that_were_moved_aside_still_tell_of_backups_and_of_what_was_deleted() {
    let (dir, service) = fresh();
    let id = new_key(&service, "alias/a");
    let key = service.describe_key(&id.into()).unwrap();
    let material = key.current_key_material_id.unwrap();
    let path = back_up(&service, dir.path());
    delete(&service, id, "alias/a");
    new_key(&service, "alias/last");
    for _ in 0..2 {
        damage_the_log_and_begin_anew(dir.path(), &service);
    }
    assert_eq!(service.known_backups_of(material).len(), 1);
    let restored = service.restore(&read(&path).unwrap(), false).unwrap();
    assert_eq!(restored.deleted_keys, [id]);
    assert!(restored.keys.is_empty());
}

#[test]
fn the_record_says_whether_a_material_was_destroyed_and_not_an_older_line_of_the_log() {
    use crate::kms::import::{ImportRequest, ImportedMaterial};
    let (dir, service) = fresh();
    let request = CreateKeyRequest {
        origin: crate::kms::key::Origin::External,
        ..CreateKeyRequest::default()
    };
    let id = service.create_key(request).unwrap().key_id;
    let import = || {
        let mut bytes: [u8; 32] = std::array::from_fn(|at| (at as u8).wrapping_mul(167) ^ 3);
        let request = ImportRequest {
            material: ImportedMaterial::take(&mut bytes).unwrap(),
            valid_to: None,
            import_type: None,
        };
        let imported = service.import_key_material(&id.into(), &request).unwrap();
        imported.key_material_id.unwrap()
    };
    let material = import();
    let path = back_up(&service, dir.path());
    service
        .delete_imported_key_material(&id.into(), None)
        .unwrap();
    let backup = read(&path).unwrap();
    let restored = service.restore(&backup, false).unwrap();
    assert_eq!(restored.deleted_key_materials, [material]);
    import();
    let file = dir.path().join(format!("keys/{id}/{material}"));
    fs::remove_file(&file).unwrap();
    let restored = service.restore(&backup, false).unwrap();
    assert_eq!(restored.key_materials, [material]);
    assert!(file.exists());
}
