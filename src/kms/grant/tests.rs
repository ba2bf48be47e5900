//! Tests of grants: whom, what, with which context, and what can be passed on.

use super::*;
use crate::format::envelope::{EncryptionContext, ObjectKind};
use crate::ids::{ObjectId, VolumeId};
use GrantOperation::{CreateGrant, Decrypt, DescribeKey, Encrypt, RetireGrant};

fn caller(uid: u32, user: &str) -> Caller {
    Caller {
        uid,
        user: Some(user.to_owned()),
        groups: vec![],
    }
}

fn pairs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    pairs.iter().map(owned).collect()
}

fn request(operations: &[GrantOperation], constraints: Option<Constraints>) -> CreateGrantRequest {
    CreateGrantRequest {
        grantee_principal: "user:alice".parse().unwrap(),
        retiring_principal: Some("user:rita".parse().unwrap()),
        operations: operations.iter().copied().collect(),
        constraints,
        name: None,
    }
}

fn grant(operations: &[GrantOperation], constraints: Option<Constraints>) -> Grant {
    let issuer = caller(0, "root");
    Grant::new(request(operations, constraints), &issuer, Timestamp(0)).unwrap()
}

#[test]
fn constraints_are_about_encryption_contexts_and_nothing_else() {
    let context = EncryptionContext {
        volume: VolumeId([0x11; 16]),
        object: ObjectId([0x22; 16]),
        kind: ObjectKind::File,
    };
    let volume = ("volume", "11111111-1111-1111-1111-111111111111");
    let object = ("object", "22222222-2222-2222-2222-222222222222");
    let subset = |of: &[_]| Some(Constraints::EncryptionContextSubset(pairs(of)));
    let equals = |of: &[_]| Some(Constraints::EncryptionContextEquals(pairs(of)));
    for (constraints, expected) in [
        (None, true),
        (subset(&[volume]), true),
        (subset(&[volume, ("kind", "file")]), true),
        (subset(&[volume, ("kind", "symlink")]), false),
        (subset(&[("Volume", volume.1)]), false),
        (subset(&[("team", "a")]), false),
        (equals(&[volume]), false),
        (equals(&[volume, object, ("kind", "file")]), true),
        (equals(&[volume, object, ("kind", "directory")]), false),
        (equals(&[volume, object, ("team", "a")]), false),
    ] {
        let grant = grant(&[Decrypt, DescribeKey], constraints);
        let ask = |action, context| {
            let request = Request::new(action).with_context(context);
            grant.permits(&caller(5, "alice"), &request)
        };
        assert_eq!(
            ask("Decrypt", Context::Object(&context)),
            expected,
            "{grant:?}"
        );
        assert!(ask("DescribeKey", Context::None));
        assert!(!ask("Encrypt", Context::Object(&context)));
        let unconstrained = grant.constraints.is_none();
        assert_eq!(ask("Decrypt", Context::None), unconstrained, "{grant:?}");
    }
}

#[test]
fn a_grant_is_retired_by_its_retiring_principal_or_by_a_grantee_who_may() {
    let (alice, rita) = (caller(5, "alice"), caller(6, "rita"));
    for (operations, by_grantee) in [(&[Decrypt][..], false), (&[Decrypt, RetireGrant], true)] {
        let (this, other) = (grant(operations, None), grant(operations, None));
        let asked = Request {
            grant: Some(&this.grant_id),
            ..Request::new("RetireGrant")
        };
        assert!(this.permits(&rita, &asked));
        assert_eq!(this.permits(&alice, &asked), by_grantee);
        assert!(!other.permits(&rita, &asked) && !other.permits(&alice, &asked));
        assert!(!this.permits(&rita, &Request::new("RetireGrant")));
        assert!(!this.permits(&rita, &Request::new("Decrypt")));
        let revoke = Request {
            action: "RevokeGrant",
            ..asked
        };
        assert!(!this.permits(&rita, &revoke));
    }
}

#[test]
fn only_part_of_a_grant_can_be_passed_on() {
    let a = [("volume", "x")];
    let ab = [("volume", "x"), ("kind", "file")];
    let b = [("volume", "y")];
    let subset = |of: &[_]| Some(Constraints::EncryptionContextSubset(pairs(of)));
    let equals = |of: &[_]| Some(Constraints::EncryptionContextEquals(pairs(of)));
    for (own, new, expected) in [
        (None, None, true),
        (None, subset(&a), true),
        (subset(&a), None, false),
        (subset(&a), subset(&a), true),
        (subset(&a), subset(&ab), true),
        (subset(&ab), subset(&a), false),
        (subset(&a), subset(&b), false),
        (subset(&a), equals(&ab), true),
        (equals(&ab), equals(&ab), true),
        (equals(&ab), equals(&a), false),
        (equals(&ab), subset(&ab), false),
    ] {
        let own = grant(&[CreateGrant, Decrypt], own);
        assert_eq!(
            own.passes_on(&request(&[Decrypt], new.clone())),
            expected,
            "{own:?} {new:?}"
        );
        assert!(!own.passes_on(&request(&[Decrypt, Encrypt], new)));
    }
}

#[test]
fn a_grant_needs_operations_and_somebody_known() {
    let root = |operations: &[_], constraints| CreateGrantRequest {
        grantee_principal: "user:root".parse().unwrap(),
        retiring_principal: None,
        ..request(operations, constraints)
    };
    root(&[Decrypt], None).check().unwrap();
    let long = "x".repeat(MAX_CONSTRAINT_TEXT + 1);
    let many: Vec<String> = (0..=MAX_CONSTRAINT_PAIRS).map(|i| i.to_string()).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|name| (&**name, "x")).collect();
    let subset = |of: &[_]| Some(Constraints::EncryptionContextSubset(pairs(of)));
    for bad in [
        root(&[], None),
        request(&[Decrypt], None),
        CreateGrantRequest {
            grantee_principal: Principal::Everyone,
            ..root(&[Decrypt], None)
        },
        CreateGrantRequest {
            retiring_principal: Some("group:no-such-group-here".parse().unwrap()),
            ..root(&[Decrypt], None)
        },
        root(&[Decrypt], subset(&[])),
        root(&[Decrypt], subset(&[("", "x")])),
        root(&[Decrypt], subset(&[("x", "\n")])),
        root(&[Decrypt], subset(&[("x", &long)])),
        root(&[Decrypt], subset(&many)),
    ] {
        assert!(bad.check().is_err(), "{bad:?}");
    }
}

#[test]
fn ids_and_names_have_one_form() {
    let id = GrantId::random().unwrap();
    assert_eq!(id.to_string().parse::<GrantId>().unwrap(), id);
    for bad in ["", "ab", &"AB".repeat(32), &"zz".repeat(32)] {
        assert!(bad.parse::<GrantId>().is_err(), "{bad}");
    }
    assert!("backup-job:1/2_3".parse::<GrantName>().is_ok());
    assert!("x".repeat(256).parse::<GrantName>().is_ok());
    for bad in ["", "a b", "ä", &"x".repeat(257)] {
        assert!(bad.parse::<GrantName>().is_err(), "{bad}");
    }
    for operation in GRANT_OPERATIONS {
        assert_eq!(
            operation.as_str().parse::<GrantOperation>().unwrap(),
            operation
        );
    }
    assert!("PutKeyPolicy".parse::<GrantOperation>().is_err());
}

#[test]
fn a_stored_grant_reads_back() {
    let subset = Constraints::EncryptionContextSubset(pairs(&[("kind", "file")]));
    for grant in [
        grant(&[Decrypt], None),
        grant(&[Decrypt, RetireGrant], Some(subset)),
    ] {
        let text = serde_json::to_string(&grant).unwrap();
        assert_eq!(
            serde_json::from_str::<Grant>(&text).unwrap(),
            grant,
            "{text}"
        );
    }
}
