//! Who uses a key without a lock, while others destroy its material and bring it back, is told what is so: never of damage.

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cmkfs::ids::KeyId;
use cmkfs::kms::KmsError;
use cmkfs::kms::import::{ImportRequest, ImportedMaterial};
use cmkfs::kms::key::{CreateKeyRequest, KeyRef, Origin};
use cmkfs::kms::service::KeyService;
use support::key_service;

fn import(service: &KeyService, key: KeyId, mut bytes: [u8; 32]) {
    let request = ImportRequest {
        material: ImportedMaterial::take(&mut bytes).unwrap(),
        valid_to: None,
        import_type: None,
    };
    service.import_key_material(&key.into(), &request).unwrap();
}

#[test]
fn whoever_reads_a_material_while_it_is_destroyed_finds_it_whole_or_gone() {
    let dir = tempfile::tempdir().unwrap();
    let service = key_service(dir.path());
    let request = CreateKeyRequest {
        origin: Origin::External,
        ..CreateKeyRequest::default()
    };
    let id = service.create_key(request).unwrap().key_id;
    let mut material = [0; 32];
    getrandom::fill(&mut material).unwrap();
    import(&service, id, material);
    let over = &AtomicBool::new(false);
    let (used, refused) = std::thread::scope(|scope| {
        let dir = dir.path();
        let reader = scope.spawn(move || {
            let other = key_service(dir);
            let (mut used, mut refused) = (0, 0);
            while !over.load(Ordering::Relaxed) {
                match other.encrypt(&KeyRef::Id(id), b"text", &Default::default()) {
                    Ok(_) => used += 1,
                    Err(
                        KmsError::KMSInvalidStateException { .. } | KmsError::NoMaterial { .. },
                    ) => {
                        refused += 1;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            (used, refused)
        });
        let until = Instant::now() + Duration::from_secs(3);
        while Instant::now() < until && !reader.is_finished() {
            service
                .delete_imported_key_material(&id.into(), None)
                .unwrap();
            import(&service, id, material);
        }
        over.store(true, Ordering::Relaxed);
        reader.join().unwrap()
    });
    assert!(used > 0 && refused > 0, "{used} and {refused}");
    assert!(service.verify().unwrap().damaged.is_empty());
}
