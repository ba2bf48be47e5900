//! Tests of the key service as a whole.

use super::*;
use crate::crypto::passphrase::Passphrase;
use crate::format::envelope::{EncryptionContext, Envelope};
use crate::kms::alias::AliasName;
use crate::kms::key::{CreateKeyRequest, Description, KeyManager, Tags};

/// A key directory without passphrase must not ask for one.
pub(in crate::kms) struct Never;

impl PassphraseSource for Never {
    fn existing(&self, _: &Path) -> Result<Passphrase, KmsError> {
        panic!("asked for a passphrase")
    }
    fn chosen(&self, _: &Path) -> Result<Passphrase, KmsError> {
        panic!("asked for a passphrase")
    }
}

/// Somebody who knows a passphrase.
pub(in crate::kms) struct Says(pub &'static str);

impl PassphraseSource for Says {
    fn existing(&self, _: &Path) -> Result<Passphrase, KmsError> {
        Ok(Passphrase::new(self.0.as_bytes().to_vec().into()))
    }
    fn chosen(&self, dir: &Path) -> Result<Passphrase, KmsError> {
        self.existing(dir)
    }
}

use super::super::error::KeyUnavailable;
use crate::clock::{ManualClock, Timestamp};
use crate::crypto::passphrase::Argon2Params;
use crate::format::envelope::ObjectKind;
use crate::ids::{ObjectId, VolumeId};
use std::fs;
use tempfile::TempDir;

/// A key service on a fresh key directory.
pub(in crate::kms) fn fresh() -> (TempDir, KeyService) {
    let dir = tempfile::tempdir().unwrap();
    let service = create(dir.path());
    (dir, service)
}

pub(super) fn clock() -> Arc<dyn Clock> {
    Arc::new(ManualClock::new(Timestamp(1_700_000_000_000)))
}

pub(in crate::kms) fn create(dir: &Path) -> KeyService {
    KeyService::open_or_create(dir, NewProtection::RootKeyFile, &Never, clock())
        .unwrap()
        .0
}

/// As another process would.
pub(in crate::kms) fn reopen(dir: &Path) -> KeyService {
    KeyService::open(dir, &Never, clock()).unwrap()
}

pub(in crate::kms) fn context() -> EncryptionContext {
    EncryptionContext {
        volume: VolumeId::random(),
        object: ObjectId::random(),
        kind: ObjectKind::File,
    }
}

fn new_key(service: &KeyService) -> KeyId {
    let request = CreateKeyRequest::default();
    service.create_key(request).unwrap().key_id
}

fn alias(name: &str) -> AliasName {
    name.parse().unwrap()
}

fn unavailable<T>(result: Result<T, KmsError>) -> Option<KeyUnavailable> {
    result.err().map(|error| error.availability())
}

#[test]
fn a_new_key_directory_has_the_default_key_behind_its_alias() {
    let (_dir, service) = fresh();
    let default = KeyRef::Alias(AliasName::default_key());
    let key = service.describe_key(&default).unwrap();
    assert_eq!(key.key_manager, KeyManager::Cmkfs);
    assert!(key.enabled);
    assert_eq!(service.list_keys().unwrap().items, [key]);
    let context = context();
    let (data_key, envelope) = service.generate_data_key(&default, &context).unwrap();
    assert_eq!(
        service.decrypt_data_key(&envelope, &context).unwrap(),
        data_key
    );
}

#[test]
fn what_is_asked_for_is_what_is_described_after_reopening() {
    let (dir, service) = fresh();
    let request = CreateKeyRequest {
        description: Description::new("for photos".into()).unwrap(),
        tags: Tags::new([("team".into(), "a".into())]).unwrap(),
        alias: Some(alias("alias/photos")),
        ..CreateKeyRequest::default()
    };
    let made = service.create_key(request).unwrap();
    assert_eq!(made.key_manager, KeyManager::Customer);
    let other = reopen(dir.path());
    assert_eq!(other.store_id(), service.store_id());
    let found = other
        .describe_key(&"alias/photos".parse().unwrap())
        .unwrap();
    assert_eq!(found, made);
    assert_eq!(found.creation_date, Timestamp(1_700_000_000_000));
    let json = serde_json::to_value(&found).unwrap();
    assert_eq!(json["CreationDate"], "2023-11-14T22:13:20.000Z");
    assert_eq!(json["Tags"][0]["TagKey"], "team");
}

#[test]
fn an_open_service_sees_what_others_change_at_once() {
    let (dir, service) = fresh();
    let other = reopen(dir.path());
    let id = new_key(&service);
    let context = context();
    let (data_key, envelope) = service.generate_data_key(&id.into(), &context).unwrap();
    // Fast, again and again: the same inode numbers, sizes and clock ticks come up.
    for _ in 0..100 {
        assert_eq!(
            service.decrypt_data_key(&envelope, &context).unwrap(),
            data_key
        );
        service.key_status(id).unwrap();
        other.disable_key(&id.into()).unwrap();
        let refused = Some(KeyUnavailable::Disabled);
        assert_eq!(unavailable(service.key_status(id)), refused);
        let decrypted = service.decrypt_data_key(&envelope, &context);
        assert_eq!(unavailable(decrypted), refused);
        let generated = service.generate_data_key(&id.into(), &context);
        assert_eq!(unavailable(generated), refused);
        other.enable_key(&id.into()).unwrap();
    }
}

#[test]
fn an_alias_is_resolved_at_the_moment_of_wrapping() {
    let (dir, service) = fresh();
    let other = reopen(dir.path());
    let (one, two) = (new_key(&service), new_key(&service));
    let name = alias("alias/a");
    service.create_alias(&name, &one.into()).unwrap();
    let by_alias = KeyRef::Alias(name.clone());
    let context = context();
    let wrapped_by = || {
        let (_, envelope) = service.generate_data_key(&by_alias, &context).unwrap();
        envelope.key_id()
    };
    assert_eq!(wrapped_by(), one);
    other.update_alias(&name, &two.into()).unwrap();
    assert_eq!(wrapped_by(), two);
    other.delete_alias(&name).unwrap();
    let refused = service.generate_data_key(&by_alias, &context);
    assert_eq!(unavailable(refused), Some(KeyUnavailable::NoMaterial));
}

#[test]
fn envelopes_are_rejected_in_another_context_and_under_another_key() {
    let (_dir, service) = fresh();
    let (one, two) = (new_key(&service), new_key(&service));
    let context = context();
    let (_, envelope) = service.generate_data_key(&one.into(), &context).unwrap();
    let rejected = Some(KeyUnavailable::Rejected);
    let elsewhere = super::tests::context();
    let moved = service.decrypt_data_key(&envelope, &elsewhere);
    assert_eq!(unavailable(moved), rejected);
    let (_, other) = service.generate_data_key(&two.into(), &context).unwrap();
    let mixed = Envelope::new(
        two,
        envelope.material_id(),
        other.nonce,
        other.ciphertext,
        other.tag,
        other.commitment,
    );
    assert_eq!(
        unavailable(service.decrypt_data_key(&mixed, &context)),
        rejected
    );
    let unknown = Envelope::new(
        KeyId::random(),
        envelope.material_id(),
        envelope.nonce,
        envelope.ciphertext,
        envelope.tag,
        envelope.commitment,
    );
    let missing = service.decrypt_data_key(&unknown, &context);
    assert_eq!(unavailable(missing), Some(KeyUnavailable::NoMaterial));
}

#[test]
fn aliases_keep_awss_rules() {
    let (_dir, service) = fresh();
    let (one, two) = (new_key(&service), new_key(&service));
    let name = alias("alias/a");
    let by_alias = KeyRef::Alias(name.clone());
    service.create_alias(&name, &one.into()).unwrap();
    let again = service.create_alias(&name, &two.into());
    assert!(matches!(again, Err(KmsError::AlreadyExistsException { target, .. }) if target == one));
    let gone = service.create_alias(&alias("alias/b"), &KeyId::random().into());
    assert!(matches!(gone, Err(KmsError::NotFoundException { .. })));
    let none = service.update_alias(&alias("alias/b"), &one.into());
    assert!(matches!(none, Err(KmsError::NotFoundException { .. })));
    for reserved in ["alias/cmkfs/default", "alias/cmkfs/x"] {
        let reserved = alias(reserved);
        let refused = [
            service.create_alias(&reserved, &one.into()).map(drop),
            service.update_alias(&reserved, &one.into()).map(drop),
            service.delete_alias(&reserved),
        ];
        for result in refused {
            assert!(matches!(
                result,
                Err(KmsError::InvalidAliasNameException { .. })
            ));
        }
    }
    assert_eq!(service.update_alias(&name, &two.into()).unwrap(), two);
    assert_eq!(service.describe_key(&by_alias).unwrap().key_id, two);
    let listed = service.list_aliases(Some(&two.into())).unwrap().items;
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].alias_name, name);
    assert!(
        service
            .list_aliases(Some(&one.into()))
            .unwrap()
            .items
            .is_empty()
    );
    service.delete_alias(&name).unwrap();
    let missing = service.delete_alias(&name);
    assert!(matches!(missing, Err(KmsError::NotFoundException { .. })));
    assert!(service.describe_key(&two.into()).is_ok());
}

#[test]
fn a_key_has_at_most_fifty_aliases_and_a_failed_create_makes_no_key() {
    let (_dir, service) = fresh();
    let (full, spare) = (new_key(&service), new_key(&service));
    for i in 0..50 {
        let name = alias(&format!("alias/a{i}"));
        service.create_alias(&name, &full.into()).unwrap();
    }
    let spare_name = alias("alias/spare");
    service.create_alias(&spare_name, &spare.into()).unwrap();
    for result in [
        service.create_alias(&alias("alias/one-more"), &full.into()),
        service.update_alias(&spare_name, &full.into()),
    ] {
        assert!(matches!(
            result,
            Err(KmsError::LimitExceededException { limit: 50, .. })
        ));
    }
    // Pointing one of the fifty where it points already adds none.
    service
        .update_alias(&alias("alias/a0"), &full.into())
        .unwrap();
    let taken = CreateKeyRequest {
        alias: Some(alias("alias/a0")),
        ..CreateKeyRequest::default()
    };
    assert!(service.create_key(taken).is_err());
    assert_eq!(service.list_keys().unwrap().items.len(), 3);
}

#[test]
fn a_passphrase_opens_what_it_closed_and_nothing_else_does() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("keys");
    let cheap = NewProtection::Passphrase(Argon2Params::CHEAP_AND_INSECURE);
    let make = |says| KeyService::open_or_create(&dir, cheap, &Says(says), clock());
    assert!(matches!(make(""), Err(KmsError::NoPassphrase { .. })));
    assert!(!dir.exists());
    let (service, made) = make("open sesame").unwrap();
    assert!(made);
    assert!(!dir.join("root.key").exists());
    assert_eq!(service.protection().unwrap(), Protection::Passphrase);
    let (again, made) = make("open sesame").unwrap();
    assert!(!made);
    assert_eq!(again.store_id(), service.store_id());
    assert!(matches!(
        make("sesame"),
        Err(KmsError::WrongPassphrase { .. })
    ));
}

#[test]
fn keys_open_to_others_are_refused() {
    use std::os::unix::fs::PermissionsExt;
    let (dir, _service) = fresh();
    for (name, private) in [("root.key", 0o600), ("", 0o700)] {
        let path = dir.path().join(name);
        for bits in [0o040, 0o004, 0o020, 0o002] {
            fs::set_permissions(&path, fs::Permissions::from_mode(private | bits)).unwrap();
            let refused = KeyService::open(dir.path(), &Never, clock());
            assert!(matches!(refused, Err(KmsError::Permissions { .. })));
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(private)).unwrap();
        reopen(dir.path());
    }
}

#[test]
fn a_key_directory_that_goes_away_or_is_replaced_is_noticed_and_so_is_its_return() {
    let parent = tempfile::tempdir().unwrap();
    let (here, aside, other) = (
        parent.path().join("keys"),
        parent.path().join("aside"),
        parent.path().join("other"),
    );
    let service = create(&here);
    create(&other);
    let id = new_key(&service);
    service.key_status(id).unwrap();
    fs::rename(&here, &aside).unwrap();
    assert_eq!(
        unavailable(service.key_status(id)),
        Some(KeyUnavailable::NoMaterial)
    );
    assert!(service.create_key(CreateKeyRequest::default()).is_err());
    assert!(!here.exists());
    fs::rename(&other, &here).unwrap();
    assert!(matches!(
        service.key_status(id),
        Err(KmsError::WrongStore { .. })
    ));
    fs::rename(&here, &other).unwrap();
    fs::rename(&aside, &here).unwrap();
    service.key_status(id).unwrap();
}

#[test]
fn threads_share_one_service() {
    let (dir, service) = fresh();
    let id = new_key(&service);
    let other = reopen(dir.path());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let context = context();
                for _ in 0..50 {
                    let (data_key, envelope) =
                        service.generate_data_key(&id.into(), &context).unwrap();
                    assert_eq!(
                        service.decrypt_data_key(&envelope, &context).unwrap(),
                        data_key
                    );
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..20 {
                new_key(&other);
                // Writes nothing that the readers could stumble over.
                other.enable_key(&id.into()).unwrap();
            }
        });
    });
    assert_eq!(service.list_keys().unwrap().items.len(), 22);
}
