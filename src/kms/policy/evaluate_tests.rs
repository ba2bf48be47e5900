//! Tests of the answer: who, what, when, and what beats what.

use proptest::prelude::*;

use super::*;
use crate::format::envelope::{EncryptionContext, ObjectKind};
use crate::ids::{ObjectId, VolumeId};
use crate::kms::caller::CallerGroup;
use crate::kms::grant::{Constraints, CreateGrantRequest, GrantOperation};
use crate::kms::policy::Context;
use crate::kms::policy::action::ACTIONS;

const NOW: Timestamp = Timestamp(1_700_000_000_000);

fn caller(uid: u32, user: Option<&str>, groups: &[(u32, &str)]) -> Caller {
    let group = |(gid, name): &(u32, &str)| CallerGroup {
        gid: *gid,
        name: Some((*name).to_owned()),
    };
    Caller {
        uid,
        user: user.map(str::to_owned),
        groups: groups.iter().map(group).collect(),
    }
}

fn alice() -> Caller {
    caller(1000, Some("alice"), &[(1000, "alice"), (50, "staff")])
}

fn bob() -> Caller {
    caller(1001, Some("bob"), &[(1001, "bob")])
}

fn statement(sid: usize, effect: &str, principal: &str, action: &str, condition: &str) -> String {
    format!(
        r#"{{"Sid":"{sid}","Effect":"{effect}","Principal":{principal},"Action":"{action}","Resource":"*","Condition":{condition}}}"#
    )
}

/// Effect, principal, action and condition of a statement.
type Written<'a> = (&'a str, &'a str, &'a str, &'a str);
type Answer = Result<(), Denial>;

fn policy(statements: &[Written<'_>]) -> Policy {
    let statements: Vec<String> = statements
        .iter()
        .enumerate()
        .map(|(sid, (effect, who, what, when))| statement(sid, effect, who, what, when))
        .collect();
    Policy::parse(format!(r#"{{"Statement":[{}]}}"#, statements.join(","))).unwrap()
}

fn ask(policy: &Policy, caller: &Caller, action: &'static str) -> Result<Permission, Denial> {
    evaluate(policy, &[], caller, &Request::new(action), NOW)
}

fn grant(to: &str, operations: &[GrantOperation], constraints: Option<Constraints>) -> Grant {
    let request = CreateGrantRequest {
        grantee_principal: to.parse().unwrap(),
        retiring_principal: None,
        operations: operations.iter().copied().collect(),
        constraints,
        name: None,
    };
    Grant::new(request, &bob(), NOW).unwrap()
}

#[test]
fn the_default_policy_lets_the_owner_and_root_do_everything_and_nobody_else_anything() {
    let policy = Policy::default_for(1000);
    let root = caller(0, Some("root"), &[(0, "root")]);
    for action in ACTIONS {
        assert!(ask(&policy, &alice(), action).is_ok(), "{action}");
        assert!(ask(&policy, &root, action).is_ok(), "{action}");
        assert_eq!(ask(&policy, &bob(), action), Err(Denial::NothingAllows));
    }
}

#[test]
fn who_what_and_effect_decide_as_in_the_table() {
    const ALICE: &str = r#"{"User":"alice"}"#;
    const STAFF: &str = r#"{"Group":["staff",7]}"#;
    const ANY: &str = r#""*""#;
    const ALWAYS: &str = "{}";
    const PAST: &str = r#"{"DateLessThan":{"aws:CurrentTime":"2020-01-01"}}"#;
    let denied = |sid: &str| Err(Denial::Statement(format!("{sid:?}")));
    type Row<'a> = (&'a [Written<'a>], &'static str, Answer, Answer);
    let table: [Row<'_>; 9] = [
        (
            &[("Allow", ALICE, "kms:*", ALWAYS)],
            "Decrypt",
            Ok(()),
            Err(Denial::NothingAllows),
        ),
        (
            &[("Allow", ALICE, "kms:De*", ALWAYS)],
            "Encrypt",
            Err(Denial::NothingAllows),
            Err(Denial::NothingAllows),
        ),
        (
            &[("Allow", STAFF, "kms:Decrypt", ALWAYS)],
            "Decrypt",
            Ok(()),
            Err(Denial::NothingAllows),
        ),
        (
            &[("Allow", ANY, "*", ALWAYS)],
            "PutKeyPolicy",
            Ok(()),
            Ok(()),
        ),
        (
            &[("Allow", ANY, "*", PAST)],
            "PutKeyPolicy",
            Err(Denial::NothingAllows),
            Err(Denial::NothingAllows),
        ),
        (
            &[("Deny", ANY, "*", ALWAYS)],
            "Decrypt",
            denied("0"),
            denied("0"),
        ),
        // The order does not count.
        (
            &[
                ("Allow", ANY, "*", ALWAYS),
                ("Deny", ALICE, "kms:Decrypt", ALWAYS),
            ],
            "Decrypt",
            denied("1"),
            Ok(()),
        ),
        (
            &[
                ("Deny", ALICE, "kms:Decrypt", ALWAYS),
                ("Allow", ANY, "*", ALWAYS),
            ],
            "Decrypt",
            denied("0"),
            Ok(()),
        ),
        (
            &[
                ("Deny", ALICE, "kms:Decrypt", PAST),
                ("Allow", ANY, "*", ALWAYS),
            ],
            "Decrypt",
            Ok(()),
            Ok(()),
        ),
    ];
    for (statements, action, for_alice, for_bob) in table {
        let policy = policy(statements);
        for (caller, expected) in [(alice(), for_alice), (bob(), for_bob)] {
            let answer = ask(&policy, &caller, action).map(drop);
            assert_eq!(answer, expected, "{statements:?} {action} {caller}");
        }
    }
}

#[test]
fn a_name_that_cannot_be_found_out_counts_against_the_caller() {
    let nameless = caller(1000, None, &[]);
    let named = policy(&[("Allow", r#"{"User":"alice"}"#, "*", "{}")]);
    assert_eq!(
        ask(&named, &nameless, "Decrypt"),
        Err(Denial::NothingAllows)
    );
    let except = policy(&[
        ("Allow", r#""*""#, "*", "{}"),
        ("Deny", r#"{"User":"mallory"}"#, "*", "{}"),
    ]);
    assert!(matches!(
        ask(&except, &nameless, "Decrypt"),
        Err(Denial::Statement(_))
    ));
    assert!(ask(&except, &alice(), "Decrypt").is_ok());
    let by_number = policy(&[("Allow", r#"{"User":1000}"#, "*", "{}")]);
    assert!(ask(&by_number, &nameless, "Decrypt").is_ok());
}

#[test]
fn a_grant_allows_what_no_statement_denies() {
    let nobody = policy(&[("Allow", r#"{"User":"carol"}"#, "*", "{}")]);
    let decrypt = grant("user:alice", &[GrantOperation::Decrypt], None);
    let ask = |policy: &Policy, caller: &Caller, action| {
        let grants = std::slice::from_ref(&decrypt);
        evaluate(policy, grants, caller, &Request::new(action), NOW)
    };
    let allowed = ask(&nobody, &alice(), "Decrypt").unwrap();
    assert_eq!(allowed.grant(), Some(&decrypt.grant_id));
    assert_eq!(
        ask(&nobody, &alice(), "Encrypt"),
        Err(Denial::NothingAllows)
    );
    assert_eq!(
        ask(&nobody, &alice(), "PutKeyPolicy"),
        Err(Denial::NothingAllows)
    );
    assert_eq!(ask(&nobody, &bob(), "Decrypt"), Err(Denial::NothingAllows));
    let denies = policy(&[("Deny", r#"{"Group":"staff"}"#, "kms:Decrypt", "{}")]);
    assert!(matches!(
        ask(&denies, &alice(), "Decrypt"),
        Err(Denial::Statement(_))
    ));
    let allows = policy(&[("Allow", r#""*""#, "kms:Decrypt", "{}")]);
    assert_eq!(ask(&allows, &alice(), "Decrypt").unwrap().grant(), None);
}

#[test]
fn what_depends_on_an_unknown_object_is_answered_for_the_most_favourable_one() {
    const FILES: &str = r#"{"StringEquals":{"kms:EncryptionContext:kind":"file"}}"#;
    let object = |kind| EncryptionContext {
        volume: VolumeId([1; 16]),
        object: ObjectId([2; 16]),
        kind,
    };
    let (file, link) = (object(ObjectKind::File), object(ObjectKind::Symlink));
    let contexts = [
        Context::Object(&file),
        Context::Object(&link),
        Context::SomeObject(None),
    ];
    let ask = |policy: &Policy| {
        contexts.map(|context| {
            let request = Request::new("Decrypt").with_context(context);
            evaluate(policy, &[], &alice(), &request, NOW).is_ok()
        })
    };
    let only = policy(&[("Allow", r#""*""#, "*", FILES)]);
    assert_eq!(ask(&only), [true, false, true]);
    let all_but = policy(&[
        ("Allow", r#""*""#, "*", "{}"),
        ("Deny", r#""*""#, "*", FILES),
    ]);
    assert_eq!(ask(&all_but), [false, true, true]);
    let none = policy(&[
        ("Allow", r#""*""#, "*", FILES),
        ("Deny", r#""*""#, "*", "{}"),
    ]);
    assert_eq!(ask(&none), [false, false, false]);
}

#[test]
fn what_a_caller_says_is_a_context_like_any_other_and_cannot_be_said_twice() {
    const TEAM_A: &str = r#"{"StringEquals":{"kms:EncryptionContext:team":"a"}}"#;
    let only = policy(&[("Allow", r#""*""#, "*", TEAM_A)]);
    let all_but = policy(&[
        ("Allow", r#""*""#, "*", "{}"),
        ("Deny", r#""*""#, "*", TEAM_A),
    ]);
    let open = policy(&[("Allow", r#""*""#, "*", "{}")]);
    let ask = |policy: &Policy, pairs: &[(&str, &str)]| {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let pairs = pairs.iter().map(owned).collect();
        let request = Request::new("Encrypt").with_context(Context::Text(&pairs));
        evaluate(policy, &[], &alice(), &request, NOW).map(drop)
    };
    let denied = || Err(Denial::Statement("\"1\"".to_owned()));
    for team in ["team", "Team"] {
        assert_eq!(ask(&only, &[(team, "a")]), Ok(()));
        assert_eq!(ask(&only, &[(team, "b")]), Err(Denial::NothingAllows));
        assert_eq!(ask(&all_but, &[(team, "a"), ("x", "y")]), denied());
        assert_eq!(ask(&all_but, &[(team, "b")]), Ok(()));
    }
    assert_eq!(ask(&only, &[]), Err(Denial::NothingAllows));
    let twice = [("Team", "b"), ("team", "a")];
    for policy in [&only, &all_but] {
        assert_eq!(ask(policy, &twice), Err(Denial::AmbiguousContext));
    }
    assert_eq!(ask(&open, &twice), Ok(()));
}

fn any_statement() -> impl Strategy<Value = (bool, u8, u8, u8)> {
    (any::<bool>(), 0..6_u8, 0..6_u8, 0..4_u8)
}

fn written((allow, who, what, when): (bool, u8, u8, u8), sid: usize) -> String {
    let effect = if allow { "Allow" } else { "Deny" };
    let who = [
        r#""*""#,
        r#"{"User":"alice"}"#,
        r#"{"User":1001}"#,
        r#"{"Group":"staff"}"#,
        r#"{"Group":[7,"bob"],"User":"carol"}"#,
        r#"{"User":["alice","bob"]}"#,
    ][usize::from(who)];
    let what = [
        "*",
        "kms:*",
        "kms:Decrypt",
        "kms:*crypt",
        "kms:D*",
        "kms:PutKeyPolicy",
    ][usize::from(what)];
    let when = [
        "{}",
        r#"{"DateGreaterThan":{"aws:CurrentTime":"2020-01-01"}}"#,
        r#"{"DateLessThan":{"aws:CurrentTime":"2020-01-01"}}"#,
        r#"{"Null":{"kms:EncryptionContext:kind":"true"}}"#,
    ][usize::from(when)];
    statement(sid, effect, who, what, when)
}

proptest! {
    /// The rule in one line: no statement denies, and one allows.
    #[test]
    fn any_policy_is_answered_as_its_statements_one_by_one(
        statements in prop::collection::vec(any_statement(), 1..6),
        by_alice in any::<bool>(),
        action in prop::sample::select(&ACTIONS[..]),
    ) {
        let caller = if by_alice { alice() } else { bob() };
        let parse = |statements: &[(bool, u8, u8, u8)]| {
            let texts: Vec<String> = statements.iter().enumerate().map(|(sid, s)| written(*s, sid)).collect();
            Policy::parse(format!(r#"{{"Statement":[{}]}}"#, texts.join(","))).unwrap()
        };
        let answers: Vec<_> = statements.iter().map(|one| ask(&parse(&[*one]), &caller, action)).collect();
        let denied = answers.iter().any(|answer| matches!(answer, Err(Denial::Statement(_))));
        let allowed = answers.iter().any(Result::is_ok);
        let answer = ask(&parse(&statements), &caller, action);
        prop_assert_eq!(answer.is_ok(), allowed && !denied);
        prop_assert_eq!(matches!(answer, Err(Denial::Statement(_))), denied);

        // A grant adds what no statement denies, and takes nothing away.
        let all = grant("user:alice", &crate::kms::grant::GRANT_OPERATIONS, None);
        let with = evaluate(&parse(&statements), std::slice::from_ref(&all), &caller, &Request::new(action), NOW);
        let can_grant = action != "RetireGrant" && action.parse::<GrantOperation>().is_ok();
        prop_assert_eq!(with.is_ok(), !denied && (allowed || (by_alice && can_grant)));
    }

    /// Whatever it is given, the parser answers.
    #[test]
    #[cfg_attr(miri, ignore = "too much for an interpreter")]
    fn no_text_upsets_the_parser(text in ".{0,200}") {
        let _ = Policy::parse(text);
    }
}
