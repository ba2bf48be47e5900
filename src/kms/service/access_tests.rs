//! Tests of policies and grants through the service: every operation asks, and what is put takes effect at once.

use std::collections::BTreeSet;

use super::super::tests::{Never, context, fresh, reopen};
use super::super::*;
use crate::format::ciphertext::TextContext;
use crate::kms::alias::AliasName;
use crate::kms::caller::Caller;
use crate::kms::deletion::PendingWindow;
use crate::kms::error::KeyUnavailable;
use crate::kms::grant::{Constraints, CreateGrantRequest, GrantId, GrantOperation, MAX_GRANTS};
use crate::kms::import::{ImportRequest, ImportedMaterial};
use crate::kms::key::{CreateKeyRequest, Description, Tags};
use crate::kms::policy::Denial;
use crate::kms::rotation::{IncludeKeyMaterial, RotationPeriod};

const NOBODY: u32 = 65_534;

fn user(uid: u32) -> Caller {
    Caller {
        uid,
        user: None,
        groups: vec![],
    }
}

fn new_key(service: &KeyService) -> KeyId {
    let request = CreateKeyRequest::default();
    service.create_key(request).unwrap().key_id
}

fn alias(name: &str) -> AliasName {
    name.parse().unwrap()
}

/// The owner may do everything but `denied`.
fn all_but(denied: &str) -> String {
    let owner = Caller::current().uid;
    format!(
        r#"{{"Statement":[
            {{"Sid":"owner","Effect":"Allow","Principal":{{"User":{owner}}},"Action":"kms:*","Resource":"*"}},
            {{"Sid":"not this","Effect":"Deny","Principal":"*","Action":"{denied}","Resource":"*"}}]}}"#
    )
}

fn grant_to(uid: u32, operations: &[GrantOperation]) -> CreateGrantRequest {
    CreateGrantRequest {
        grantee_principal: format!("user:{uid}").parse().unwrap(),
        retiring_principal: None,
        operations: operations.iter().copied().collect(),
        constraints: None,
        name: None,
    }
}

/// The action that was denied, and why.
fn denied<T>(result: Result<T, KmsError>) -> Option<(&'static str, Denial)> {
    match result {
        Err(KmsError::AccessDeniedException { action, why, .. }) => Some((action, why)),
        _ => None,
    }
}

type Call = Box<dyn Fn(&KeyService) -> Result<(), KmsError>>;

/// Every operation on a key, by its action, in an order in which they could be done.
fn every_operation(
    service: &KeyService,
    id: KeyId,
    grant: &GrantId,
    old: KeyId,
) -> Vec<(&'static str, Call)> {
    let key = KeyRef::Id(id);
    let encrypt = |key: KeyId| {
        let ciphertext = service.encrypt(&key.into(), b"secret", &TextContext::default());
        ciphertext.unwrap()
    };
    let (from, to) = (encrypt(id), encrypt(old));
    let secret = from.clone();
    let call = |action, call: fn(&KeyService, &KeyRef) -> Result<(), KmsError>| {
        let key = key.clone();
        let call: Call = Box::new(move |service| call(service, &key));
        (action, call)
    };
    let (to_retire, to_revoke) = (grant.clone(), grant.clone());
    let (by, of) = (key.clone(), key.clone());
    vec![
        call("GenerateDataKey", |s, k| {
            s.generate_data_key(k, &context()).map(drop)
        }),
        call("Decrypt", |s, k| {
            let id = s.resolve(k)?;
            s.key_status(id)
        }),
        call("Encrypt", |s, k| {
            s.encrypt(k, b"secret", &TextContext::default()).map(drop)
        }),
        (
            "Decrypt",
            Box::new(move |s| s.decrypt(None, &secret, &TextContext::default()).map(drop)),
        ),
        (
            "ReEncryptFrom",
            Box::new(move |s| {
                let context = TextContext::default();
                s.re_encrypt(&from, &context, &old.into(), &context)
                    .map(drop)
            }),
        ),
        (
            "ReEncryptTo",
            Box::new(move |s| {
                let context = TextContext::default();
                s.re_encrypt(&to, &context, &id.into(), &context).map(drop)
            }),
        ),
        call("TagResource", |s, k| {
            let tags = Tags::new([("team".to_owned(), "a".to_owned())])?;
            s.tag_resource(k, &tags).map(drop)
        }),
        call("UntagResource", |s, k| {
            s.untag_resource(k, &["team".to_owned()]).map(drop)
        }),
        call("UpdateKeyDescription", |s, k| {
            s.update_key_description(k, &Description::default())
                .map(drop)
        }),
        call("EnableKeyRotation", |s, k| {
            s.enable_key_rotation(k, RotationPeriod::new(365)?)
                .map(drop)
        }),
        call("DisableKeyRotation", |s, k| {
            s.disable_key_rotation(k).map(drop)
        }),
        call("RotateKeyOnDemand", |s, k| {
            s.rotate_key_on_demand(k).map(drop)
        }),
        call("ListKeyRotations", |s, k| {
            s.list_key_rotations(k, IncludeKeyMaterial::default())
                .map(drop)
        }),
        call("ImportKeyMaterial", |s, k| {
            let mut bytes = [0; 32];
            getrandom::fill(&mut bytes)?;
            let request = ImportRequest {
                material: ImportedMaterial::take(&mut bytes)?,
                valid_to: None,
                import_type: None,
            };
            s.import_key_material(k, &request).map(drop)
        }),
        call("DeleteImportedKeyMaterial", |s, k| {
            s.delete_imported_key_material(k, None).map(drop)
        }),
        call("ScheduleKeyDeletion", |s, k| {
            s.schedule_key_deletion(k, PendingWindow::default())
                .map(drop)
        }),
        call("CancelKeyDeletion", |s, k| {
            s.cancel_key_deletion(k).map(drop)
        }),
        call("DescribeKey", |s, k| s.describe_key(k).map(drop)),
        call("EnableKey", |s, k| s.enable_key(k).map(drop)),
        call("DisableKey", |s, k| s.disable_key(k).map(drop)),
        call("CreateAlias", |s, k| {
            s.create_alias(&alias("alias/new"), k).map(drop)
        }),
        call("UpdateAlias", |s, k| {
            s.update_alias(&alias("alias/there"), k).map(drop)
        }),
        // The key that loses the alias has a say as well.
        (
            "UpdateAlias",
            Box::new(move |s| s.update_alias(&alias("alias/there"), &old.into()).map(drop)),
        ),
        call("DeleteAlias", |s, _| s.delete_alias(&alias("alias/there"))),
        call("ListAliases", |s, k| s.list_aliases(Some(k)).map(drop)),
        call("GetKeyPolicy", |s, k| s.get_key_policy(k).map(drop)),
        call("PutKeyPolicy", |s, k| {
            s.put_key_policy(k, &all_but("kms:ReplicateKey"), false)
                .map(drop)
        }),
        call("CreateGrant", |s, k| {
            s.create_grant(k, grant_to(NOBODY, &[GrantOperation::Decrypt]))
                .map(drop)
        }),
        call("ListGrants", |s, k| s.list_grants(k).map(drop)),
        (
            "RetireGrant",
            Box::new(move |s| s.retire_grant(&by, &to_retire).map(drop)),
        ),
        (
            "RevokeGrant",
            Box::new(move |s| s.revoke_grant(&of, &to_revoke).map(drop)),
        ),
    ]
}

#[test]
fn every_operation_is_refused_where_the_policy_denies_it_and_only_there() {
    const OPERATIONS: usize = 31;
    let walk = |forbid: bool, state: KeyState| {
        let (_dir, service) = fresh();
        let (id, old) = (new_key(&service), new_key(&service));
        service
            .create_alias(&alias("alias/there"), &id.into())
            .unwrap();
        let request = grant_to(NOBODY, &[GrantOperation::Decrypt]);
        let grant = service.create_grant(&id.into(), request).unwrap();
        let mut reached = Vec::new();
        for (action, call) in every_operation(&service, id, &grant, old) {
            if action != "CancelKeyDeletion" {
                let _ = service.cancel_key_deletion(&id.into());
                service.enable_key(&id.into()).unwrap();
            }
            if state == KeyState::Disabled && action != "CancelKeyDeletion" {
                service.disable_key(&id.into()).unwrap();
            }
            let policy = all_but(&format!("kms:{action}"));
            if forbid {
                service.put_key_policy(&id.into(), &policy, true).unwrap();
            }
            let result = call(&service);
            if forbid {
                let why = Denial::Statement("\"not this\"".to_owned());
                assert_eq!(denied(result), Some((action, why)), "{action}");
                // Only PutKeyPolicy itself can end what denies PutKeyPolicy: a new world for the rest.
                if action == "PutKeyPolicy" {
                    let record = service.store.key(id).unwrap();
                    let event = Event::new("PutKeyPolicy");
                    let mut change =
                        Transaction::begin(&service.store, &service.recorder, event).unwrap();
                    let without = KeyRecord {
                        policy: None,
                        ..record.value.clone()
                    };
                    change.put_key(Some(&record), &without).unwrap();
                    change.commit().unwrap();
                } else {
                    let open = all_but("kms:ReplicateKey");
                    service.put_key_policy(&id.into(), &open, false).unwrap();
                }
            } else {
                assert!(denied(result).is_none(), "{action}");
            }
            reached.push(action);
        }
        reached.len()
    };
    assert_eq!(walk(true, KeyState::Enabled), OPERATIONS);
    // The policy is asked before the state: who may not learn it does not.
    assert_eq!(walk(true, KeyState::Disabled), OPERATIONS);
    assert_eq!(walk(false, KeyState::Enabled), OPERATIONS);
}

#[test]
fn the_owner_and_root_may_do_everything_with_a_key_without_policy_and_others_nothing() {
    let (_dir, service) = fresh();
    let id = new_key(&service);
    let owner = Caller::current().uid;
    let shown = service.get_key_policy(&id.into()).unwrap();
    assert!(shown.as_str().contains(&owner.to_string()), "{shown:?}");
    let service = service.with_caller(user(0));
    service.key_status(id).unwrap();
    let service = service.with_caller(user(NOBODY));
    let why = Some(("Decrypt", Denial::NothingAllows));
    assert_eq!(denied(service.key_status(id)), why);
    assert!(denied(service.get_key_policy(&id.into())).is_some());
    let error = service.disable_key(&id.into()).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "uid {NOBODY} is not authorized to perform kms:DisableKey on key {id}: no statement of its key policy and no grant allows it"
        )
    );
}

#[test]
fn a_policy_takes_effect_at_once_in_every_open_service_and_so_does_its_end() {
    let (dir, service) = fresh();
    let other = reopen(dir.path());
    let id = new_key(&service);
    let context = context();
    let (_, envelope) = service.generate_data_key(&id.into(), &context).unwrap();
    let open = service.get_key_policy(&id.into()).unwrap();
    for _ in 0..20 {
        service.decrypt_data_key(&envelope, &context).unwrap();
        service.key_status(id).unwrap();
        other
            .put_key_policy(&id.into(), &all_but("kms:Decrypt"), false)
            .unwrap();
        for refused in [
            service.key_status(id),
            service.decrypt_data_key(&envelope, &context).map(drop),
        ] {
            assert_eq!(refused.unwrap_err().availability(), KeyUnavailable::Denied);
        }
        service.generate_data_key(&id.into(), &context).unwrap();
        other
            .put_key_policy(&id.into(), open.as_str(), false)
            .unwrap();
    }
    assert_eq!(other.get_key_policy(&id.into()).unwrap(), open);
}

#[test]
fn a_policy_that_locks_its_author_out_or_cannot_be_read_changes_nothing() {
    let (_dir, service) = fresh();
    let id = new_key(&service);
    let before = service.get_key_policy(&id.into()).unwrap();
    let somebody_else = format!(
        r#"{{"Statement":{{"Effect":"Allow","Principal":{{"User":{NOBODY}}},"Action":"*","Resource":"*"}}}}"#
    );
    let unknown_user = somebody_else.replace(&NOBODY.to_string(), r#"[0, "no-such-user-here"]"#);
    for bad in [
        all_but("kms:PutKeyPolicy"),
        all_but("kms:*"),
        somebody_else.clone(),
        unknown_user,
        "{}".to_owned(),
        String::new(),
    ] {
        let refused = service.put_key_policy(&id.into(), &bad, false);
        assert!(
            matches!(refused, Err(KmsError::MalformedPolicyDocumentException(_))),
            "{bad}: {refused:?}"
        );
        assert_eq!(service.get_key_policy(&id.into()).unwrap(), before);
    }
    service
        .put_key_policy(&id.into(), &somebody_else, true)
        .unwrap();
    assert!(denied(service.put_key_policy(&id.into(), before.as_str(), true)).is_some());
    let service = service.with_caller(user(NOBODY));
    assert_eq!(
        service.get_key_policy(&id.into()).unwrap().as_str(),
        somebody_else
    );
}

#[test]
fn who_may_skip_the_lockout_check_can_be_restricted() {
    let (_dir, service) = fresh();
    let id = new_key(&service);
    let guarded = all_but("kms:PutKeyPolicy").replace(
        r#""Resource":"*"}]"#,
        r#""Resource":"*","Condition":{"Bool":{"kms:BypassPolicyLockoutSafetyCheck":"true"}}}]"#,
    );
    assert!(guarded.contains("Bypass"), "{guarded}");
    service.put_key_policy(&id.into(), &guarded, false).unwrap();
    assert!(denied(service.put_key_policy(&id.into(), &guarded, true)).is_some());
    service.put_key_policy(&id.into(), &guarded, false).unwrap();
}

#[test]
fn the_default_key_cannot_be_given_a_policy() {
    let (_dir, service) = fresh();
    let default = KeyRef::Alias(AliasName::default_key());
    let refused = service.put_key_policy(&default, &all_but("kms:ReplicateKey"), false);
    assert!(matches!(
        refused,
        Err(KmsError::UnsupportedOperationException { .. })
    ));
    service.get_key_policy(&default).unwrap();
}

#[test]
fn a_grant_opens_what_it_says_until_it_is_revoked_or_retired() {
    let (dir, service) = fresh();
    let id = new_key(&service);
    let key = KeyRef::Id(id);
    let context = context();
    let (_, envelope) = service.generate_data_key(&key, &context).unwrap();
    let grantee = reopen(dir.path()).with_caller(user(NOBODY));
    let decrypt = || grantee.decrypt_data_key(&envelope, &context);
    assert!(denied(decrypt()).is_some());

    let request = CreateGrantRequest {
        constraints: Some(Constraints::EncryptionContextSubset(
            [("volume".to_owned(), context.volume.to_string())].into(),
        )),
        ..grant_to(NOBODY, &[GrantOperation::Decrypt])
    };
    let grant = service.create_grant(&key, request).unwrap();
    decrypt().unwrap();
    grantee.key_status(id).unwrap();
    let elsewhere = super::super::tests::context();
    assert!(denied(grantee.decrypt_data_key(&envelope, &elsewhere)).is_some());
    assert!(denied(grantee.generate_data_key(&key, &context)).is_some());
    assert!(denied(grantee.revoke_grant(&key, &grant)).is_some());
    assert!(denied(grantee.retire_grant(&key, &grant)).is_some());
    assert_eq!(service.revoke_grant(&key, &grant).unwrap(), id);
    assert!(denied(decrypt()).is_some());
    assert!(denied(grantee.key_status(id)).is_some());

    let all = [GrantOperation::Decrypt, GrantOperation::RetireGrant];
    let grant = service.create_grant(&key, grant_to(NOBODY, &all)).unwrap();
    decrypt().unwrap();
    grantee.retire_grant(&key, &grant).unwrap();
    assert!(denied(decrypt()).is_some());
    assert!(service.list_grants(&key).unwrap().is_empty());
    for gone in [
        service.revoke_grant(&key, &grant),
        service.retire_grant(&key, &grant),
    ] {
        assert!(matches!(
            gone,
            Err(KmsError::InvalidGrantIdException { .. })
        ));
    }
}

#[test]
fn a_grant_of_create_grant_passes_on_no_more_than_it_allows() {
    use GrantOperation::{CreateGrant, Decrypt, Encrypt};
    let (_dir, service) = fresh();
    let key = KeyRef::Id(new_key(&service));
    let first = grant_to(NOBODY, &[CreateGrant, Decrypt]);
    let by = service.create_grant(&key, first).unwrap();
    let service = service.with_caller(user(NOBODY));
    service.create_grant(&key, grant_to(7, &[Decrypt])).unwrap();
    let too_much = service.create_grant(&key, grant_to(7, &[Decrypt, Encrypt]));
    assert_eq!(
        denied(too_much),
        Some(("CreateGrant", Denial::BeyondGrant(by)))
    );
}

#[test]
fn the_same_request_of_the_same_name_makes_one_grant() {
    let (_dir, service) = fresh();
    let key = KeyRef::Id(new_key(&service));
    let named = CreateGrantRequest {
        name: Some("nightly".parse().unwrap()),
        ..grant_to(NOBODY, &[GrantOperation::Decrypt])
    };
    let first = service.create_grant(&key, named.clone()).unwrap();
    assert_eq!(service.create_grant(&key, named.clone()).unwrap(), first);
    let another = CreateGrantRequest {
        operations: BTreeSet::from([GrantOperation::Encrypt]),
        ..named
    };
    assert_ne!(service.create_grant(&key, another).unwrap(), first);
    let nameless = grant_to(NOBODY, &[GrantOperation::Decrypt]);
    for _ in 0..2 {
        service.create_grant(&key, nameless.clone()).unwrap();
    }
    let ids: BTreeSet<GrantId> = service
        .list_grants(&key)
        .unwrap()
        .into_iter()
        .map(|grant| grant.grant_id)
        .collect();
    assert_eq!(ids.len(), 4);
    for _ in ids.len()..MAX_GRANTS {
        service.create_grant(&key, nameless.clone()).unwrap();
    }
    assert!(matches!(
        service.create_grant(&key, nameless),
        Err(KmsError::LimitExceededException { .. })
    ));
}

#[test]
fn no_grant_is_made_for_a_disabled_key_but_it_can_be_taken_back() {
    let (_dir, service) = fresh();
    let key = KeyRef::Id(new_key(&service));
    let request = grant_to(NOBODY, &[GrantOperation::Decrypt]);
    let grant = service.create_grant(&key, request.clone()).unwrap();
    service.disable_key(&key).unwrap();
    let refused = service.create_grant(&key, request);
    assert!(matches!(refused, Err(KmsError::DisabledException { .. })));
    assert_eq!(service.list_grants(&key).unwrap().len(), 1);
    service.revoke_grant(&key, &grant).unwrap();
}

#[test]
fn time_alone_ends_what_a_policy_allows_for_a_time() {
    use crate::clock::{ManualClock, Timestamp};
    let (dir, service) = fresh();
    let id = new_key(&service);
    let until = all_but("kms:Decrypt").replace(
        r#""Resource":"*"}]"#,
        r#""Resource":"*","Condition":{"DateGreaterThan":{"aws:CurrentTime":"2030-01-01"}}}]"#,
    );
    assert!(until.contains("2030"), "{until}");
    service.put_key_policy(&id.into(), &until, false).unwrap();
    let clock = Arc::new(ManualClock::new(Timestamp(1_893_456_000_000)));
    let later =
        KeyService::open(dir.path(), &Never, Arc::<ManualClock>::clone(&clock) as _).unwrap();
    later.key_status(id).unwrap();
    clock.set(Timestamp(1_893_456_000_001));
    assert!(denied(later.key_status(id)).is_some());
}

#[test]
fn the_largest_policy_and_the_largest_grants_fit_into_a_record_and_the_log() {
    use crate::kms::grant::{GRANT_OPERATIONS, MAX_CONSTRAINT_PAIRS, MAX_CONSTRAINT_TEXT};
    use crate::kms::key::{MAX_DESCRIPTION, MAX_TAGS};
    use crate::kms::policy::document::MAX_POLICY;
    let (dir, service) = fresh();
    // Each of these characters takes twice the room in JSON, the others six times.
    let quotes = "\"".repeat(MAX_CONSTRAINT_TEXT - 1);
    let tag = |i: usize| (format!("{i:\u{1}>128}"), "\u{1}".repeat(256));
    let request = CreateKeyRequest {
        description: Description::new("\u{1}".repeat(MAX_DESCRIPTION)).unwrap(),
        tags: Tags::new((0..MAX_TAGS).map(tag)).unwrap(),
        ..CreateKeyRequest::default()
    };
    let key = KeyRef::Id(service.create_key(request).unwrap().key_id);
    let policy = all_but("kms:ReplicateKey");
    let policy = policy.clone() + &"\n".repeat(MAX_POLICY - policy.len());
    service.put_key_policy(&key, &policy, false).unwrap();
    let pair = |i: usize| (format!("{i}{quotes}"), format!("{i}{quotes}"));
    let grant = CreateGrantRequest {
        retiring_principal: Some("user:4294967295".parse().unwrap()),
        constraints: Some(Constraints::EncryptionContextEquals(
            (0..MAX_CONSTRAINT_PAIRS).map(pair).collect(),
        )),
        ..grant_to(NOBODY, &GRANT_OPERATIONS)
    };
    for _ in 0..MAX_GRANTS {
        service.create_grant(&key, grant.clone()).unwrap();
    }
    let other = reopen(dir.path());
    assert_eq!(other.list_grants(&key).unwrap().len(), MAX_GRANTS);
    assert_eq!(other.get_key_policy(&key).unwrap().as_str(), policy);
    assert!(other.verify().unwrap().damaged.is_empty());
    assert!(other.verify_audit().damage.is_none());
}

#[test]
fn a_refusal_is_written_down_with_who_and_what() {
    let (dir, service) = fresh();
    let id = new_key(&service);
    let service = service.with_caller(user(NOBODY));
    assert!(denied(service.disable_key(&id.into())).is_some());
    let log = std::fs::read_to_string(dir.path().join("audit/log")).unwrap();
    let line: serde_json::Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
    assert_eq!(line["eventName"], "DisableKey");
    assert_eq!(line["errorCode"], "AccessDeniedException");
    let message = line["errorMessage"].as_str().unwrap();
    assert!(
        message.contains(&format!("uid {NOBODY} is not authorized")),
        "{message}"
    );
}

/// What a mount's path pays for a policy; printed, because machines differ.
#[test]
fn asking_a_large_policy_takes_no_system_call_and_little_time() {
    let (_dir, service) = fresh();
    let id = new_key(&service);
    let statement = |sid: usize| {
        format!(
            r#"{{"Sid":"{sid}","Effect":"Deny","Principal":{{"User":[{}]}},"Action":["kms:Decrypt","kms:*crypt"],"Resource":"*"}}"#,
            100_000 + sid
        )
    };
    let mut statements: Vec<String> = (0..200).map(statement).collect();
    statements
        .push(r#"{"Effect":"Allow","Principal":"*","Action":"kms:*","Resource":"*"}"#.to_owned());
    let policy = format!(r#"{{"Statement":[{}]}}"#, statements.join(","));
    for (name, policy) in [("a large policy", Some(&policy)), ("no policy", None)] {
        if let Some(policy) = policy {
            service.put_key_policy(&id.into(), policy, false).unwrap();
        }
        let record = service.store.key(if policy.is_some() {
            id
        } else {
            new_key(&service)
        });
        let record = record.unwrap();
        let start = std::time::Instant::now();
        for _ in 0..1000 {
            service
                .authorize(&record.value, &Request::new("Decrypt"))
                .unwrap();
        }
        println!("{name}: {:?} a question", start.elapsed() / 1000);
    }
}

#[test]
fn a_data_key_is_re_encrypted_with_the_permissions_of_both_sides_and_no_others() {
    let (_dir, service) = fresh();
    let (from, to) = (new_key(&service), new_key(&service));
    let context = crate::kms::service::tests::context();
    let (_, envelope) = service.generate_data_key(&from.into(), &context).unwrap();
    let put = |key: KeyId, action| {
        let policy = all_but(action);
        service.put_key_policy(&key.into(), &policy, false).unwrap();
    };
    let attempt = || denied(service.re_encrypt_data_key(&to.into(), &envelope, &context));
    put(from, "kms:Decrypt");
    put(to, "kms:GenerateDataKey");
    assert!(attempt().is_none());
    put(from, "kms:ReEncryptFrom");
    assert_eq!(attempt().map(|(action, _)| action), Some("ReEncryptFrom"));
    put(from, "kms:ReEncryptTo");
    assert!(attempt().is_none());
    put(to, "kms:ReEncryptTo");
    assert_eq!(attempt().map(|(action, _)| action), Some("ReEncryptTo"));
}
