//! Tests that tamper with every file of a key directory: each must be noticed, named, and confined to the one key.

use std::fs;
use std::path::{Path, PathBuf};

use super::error::KmsError;
use super::key::{CreateKeyRequest, KeyRef};
use super::service::KeyService;
use super::service::tests::{Never, context, fresh, reopen};
use crate::clock::SystemClock;
use crate::ids::KeyId;

struct Victim {
    dir: tempfile::TempDir,
    service: KeyService,
    /// The key whose files are tampered with, behind `alias/victim`.
    id: KeyId,
    other: KeyId,
}

fn victim() -> Victim {
    let (dir, service) = fresh();
    let make = |alias: &str| {
        let request = CreateKeyRequest {
            alias: Some(alias.parse().unwrap()),
            ..CreateKeyRequest::default()
        };
        service.create_key(request).unwrap().key_id
    };
    let (id, other) = (make("alias/victim"), make("alias/other"));
    Victim {
        dir,
        service,
        id,
        other,
    }
}

fn only_file_except(dir: &Path, except: &str) -> PathBuf {
    let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let mut files = files.filter(|entry| entry.file_name() != except);
    let file = files.next().unwrap().path();
    assert!(files.next().is_none());
    file
}

impl Victim {
    fn key_file(&self, id: KeyId) -> PathBuf {
        self.dir
            .path()
            .join("keys")
            .join(id.to_string())
            .join("key")
    }

    fn material_file(&self, id: KeyId) -> PathBuf {
        only_file_except(self.key_file(id).parent().unwrap(), "key")
    }

    fn alias_file(&self, alias: &str) -> PathBuf {
        let digest = crate::crypto::kdf::alias_digest(alias);
        let name = hex::encode(digest);
        self.dir.path().join("aliases").join(name)
    }

    fn by_alias(&self) -> KeyRef {
        "alias/victim".parse().unwrap()
    }

    /// The victim is refused with an error that names `path`, in a service that was open and in a new one; the other
    /// key works, and listing shows it.
    fn assert_confined(&self, path: &Path, case: &str) {
        for service in [&self.service, &reopen(self.dir.path())] {
            let refused = match service.generate_data_key(&self.by_alias(), &context()) {
                Err(KmsError::Damaged { path, .. } | KmsError::NoMaterial { path, .. }) => path,
                other => panic!("{case}: {other:?}"),
            };
            assert_eq!(refused, path, "{case}");
            let other = self.other.into();
            service.generate_data_key(&other, &context()).expect(case);
            let listed = service.list_keys().unwrap();
            assert!(listed.items.iter().any(|key| key.key_id == self.other));
            let found = service.verify().unwrap();
            let named = found.damaged.iter().any(|error| {
                matches!(error, KmsError::Damaged { path: named, .. } | KmsError::NoMaterial { path: named, .. } if named == path)
            });
            assert!(named, "{case}: verify says {:?}", found.damaged);
        }
    }

    fn assert_whole(&self) {
        for service in [&self.service, &reopen(self.dir.path())] {
            let by_alias = self.by_alias();
            service.generate_data_key(&by_alias, &context()).unwrap();
            assert!(service.verify().unwrap().damaged.is_empty());
        }
    }
}

#[test]
fn every_flipped_byte_is_noticed_and_confined() {
    let victim = victim();
    for path in [
        victim.key_file(victim.id),
        victim.material_file(victim.id),
        victim.alias_file("alias/victim"),
    ] {
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << (at % 8);
            fs::write(&path, flipped).unwrap();
            victim.assert_confined(&path, &format!("{} byte {at}", path.display()));
        }
        fs::write(&path, whole).unwrap();
        victim.assert_whole();
    }
}

#[test]
fn every_truncation_and_extension_is_noticed_and_confined() {
    let victim = victim();
    for path in [
        victim.key_file(victim.id),
        victim.material_file(victim.id),
        victim.alias_file("alias/victim"),
    ] {
        let whole = fs::read(&path).unwrap();
        for len in 0..whole.len() {
            fs::write(&path, &whole[..len]).unwrap();
            victim.assert_confined(&path, &format!("{} cut to {len}", path.display()));
        }
        fs::write(&path, [&whole[..], b"\0"].concat()).unwrap();
        victim.assert_confined(&path, "extended");
        fs::write(&path, vec![0; 2 << 20]).unwrap();
        victim.assert_confined(&path, "huge");
        fs::write(&path, whole).unwrap();
        victim.assert_whole();
    }
}

#[test]
fn a_record_in_the_place_of_another_is_noticed_and_confined() {
    let victim = victim();
    let places = [
        (victim.key_file(victim.id), victim.key_file(victim.other)),
        (
            victim.material_file(victim.id),
            victim.material_file(victim.other),
        ),
        (
            victim.alias_file("alias/victim"),
            victim.alias_file("alias/other"),
        ),
        (victim.key_file(victim.id), victim.material_file(victim.id)),
    ];
    for (path, from) in places {
        let whole = fs::read(&path).unwrap();
        fs::copy(&from, &path).unwrap();
        victim.assert_confined(&path, &from.display().to_string());
        fs::write(&path, whole).unwrap();
    }
    victim.assert_whole();
}

#[test]
fn a_record_from_another_key_directory_is_noticed_and_named_as_such() {
    let (mine, theirs) = (victim(), victim());
    let path = mine.key_file(mine.id);
    let whole = fs::read(&path).unwrap();
    fs::copy(theirs.key_file(theirs.id), &path).unwrap();
    mine.assert_confined(&path, "another store");
    let error = mine.service.describe_key(&mine.id.into()).unwrap_err();
    let store = theirs.service.store_id().to_string();
    assert!(error.to_string().contains(&store), "{error}");
    fs::write(&path, whole).unwrap();
    mine.assert_whole();
}

#[test]
fn missing_files_are_noticed_and_named() {
    let victim = victim();
    for path in [victim.material_file(victim.id), victim.key_file(victim.id)] {
        let whole = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        victim.assert_confined(&path, "missing");
        fs::write(&path, whole).unwrap();
    }
    victim.assert_whole();
}

#[test]
fn every_byte_of_the_store_file_and_root_key_counts() {
    let victim = victim();
    for name in ["store", "root.key"] {
        let path = victim.dir.path().join(name);
        let whole = fs::read(&path).unwrap();
        let refused = |case: String| {
            let clock = std::sync::Arc::new(SystemClock);
            match KeyService::open(victim.dir.path(), &Never, clock) {
                Err(KmsError::Damaged { path, .. }) => {
                    assert!(path.starts_with(victim.dir.path()), "{case}");
                }
                Err(error) => panic!("{case}: {error}"),
                Ok(_) => panic!("{case}: opened"),
            }
        };
        for at in 0..whole.len() {
            // The protection byte flipped to "passphrase" asks for one.
            let bit = if (name, at) == ("store", 10) { 0x80 } else { 1 };
            let mut flipped = whole.clone();
            flipped[at] ^= bit;
            fs::write(&path, flipped).unwrap();
            refused(format!("{name} byte {at}"));
            fs::write(&path, &whole[..at]).unwrap();
            refused(format!("{name} cut to {at}"));
        }
        fs::write(&path, whole).unwrap();
        victim.assert_whole();
    }
}

#[test]
fn a_damaged_alias_can_be_deleted_and_made_anew() {
    let victim = victim();
    fs::write(victim.alias_file("alias/victim"), "junk").unwrap();
    let alias = "alias/victim".parse().unwrap();
    let taken = victim.service.create_alias(&alias, &victim.id.into());
    assert!(matches!(taken, Err(KmsError::Damaged { .. })));
    victim.service.delete_alias(&alias).unwrap();
    victim
        .service
        .create_alias(&alias, &victim.id.into())
        .unwrap();
    victim.assert_whole();
}

#[test]
fn strangers_and_leftovers_among_the_keys_hide_nothing() {
    let victim = victim();
    let keys = victim.dir.path().join("keys");
    fs::create_dir_all(keys.join(".new/half")).unwrap();
    fs::write(victim.dir.path().join("aliases/.new"), "half").unwrap();
    fs::write(keys.join(victim.id.to_string()).join(".new"), "half").unwrap();
    victim.assert_whole();
    victim.service.disable_key(&victim.id.into()).unwrap();
    victim.service.enable_key(&victim.id.into()).unwrap();
    let request = CreateKeyRequest::default();
    victim.service.create_key(request).unwrap();
    victim.assert_whole();
    fs::write(keys.join("notes.txt"), "").unwrap();
    let listed = victim.service.list_keys().unwrap();
    assert_eq!(listed.items.len(), 4);
    assert!(matches!(
        &listed.damaged[..],
        [KmsError::Damaged { path, .. }] if *path == keys.join("notes.txt")
    ));
}
