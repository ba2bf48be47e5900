//! Tests of conditions: AWS's truth tables.

use super::*;
use crate::format::envelope::{EncryptionContext, ObjectKind};
use crate::ids::{ObjectId, VolumeId};
use crate::kms::policy::request::Context;

const NOW: Timestamp = Timestamp(1_700_000_000_000);

fn conditions(json: &str) -> Result<Vec<Condition>, String> {
    let element = serde_json::from_str(json).map_err(|error| error.to_string())?;
    Condition::parse_all(element)
}

fn object() -> EncryptionContext {
    EncryptionContext {
        volume: VolumeId([0x11; 16]),
        object: ObjectId([0x22; 16]),
        kind: ObjectKind::File,
    }
}

/// Whether all of them hold for a file, for an operation without context, and for some object of an unknown volume.
fn hold(json: &str) -> [Option<bool>; 3] {
    let conditions = conditions(json).unwrap();
    let object = object();
    let contexts = [
        Context::Object(&object),
        Context::None,
        Context::SomeObject(None),
    ];
    contexts.map(|context| {
        let request = Request::new("Decrypt").with_context(context);
        let mut all = Some(true);
        for condition in &conditions {
            match condition.holds(&request, NOW) {
                Some(true) => {}
                Some(false) => return Some(false),
                None => all = None,
            }
        }
        all
    })
}

#[test]
fn awss_truth_tables_hold() {
    const YES: Option<bool> = Some(true);
    const NO: Option<bool> = Some(false);
    let table = [
        (
            r#"{"StringEquals":{"kms:EncryptionContext:kind":"file"}}"#,
            [YES, NO, None],
        ),
        (
            r#"{"StringEquals":{"KMS:encryptioncontext:KIND":["symlink","file"]}}"#,
            [YES, NO, None],
        ),
        (
            r#"{"StringEquals":{"kms:EncryptionContext:kind":"FILE"}}"#,
            [NO, NO, None],
        ),
        (
            r#"{"StringEqualsIgnoreCase":{"kms:EncryptionContext:kind":"FILE"}}"#,
            [YES, NO, None],
        ),
        (
            r#"{"StringNotEqualsIgnoreCase":{"kms:EncryptionContext:kind":"FILE"}}"#,
            [NO, YES, None],
        ),
        (
            r#"{"StringEquals":{"kms:EncryptionContext:kind":"f*"}}"#,
            [NO, NO, None],
        ),
        (
            r#"{"StringLike":{"kms:EncryptionContext:kind":"f*"}}"#,
            [YES, NO, None],
        ),
        (
            r#"{"StringNotLike":{"kms:EncryptionContext:kind":["s*","d*"]}}"#,
            [YES, YES, None],
        ),
        (
            r#"{"StringNotEquals":{"kms:EncryptionContext:kind":["symlink","file"]}}"#,
            [NO, YES, None],
        ),
        (
            r#"{"StringEqualsIfExists":{"kms:EncryptionContext:kind":"symlink"}}"#,
            [NO, YES, None],
        ),
        (
            r#"{"StringEquals":{"kms:EncryptionContext:team":"a"}}"#,
            [NO, NO, NO],
        ),
        (
            r#"{"StringEqualsIfExists":{"kms:EncryptionContext:team":"a"}}"#,
            [YES, YES, YES],
        ),
        (
            r#"{"StringEquals":{"kms:EncryptionContext:volume":"11111111-1111-1111-1111-111111111111"}}"#,
            [YES, NO, None],
        ),
        (
            r#"{"StringEquals":{"kms:EncryptionContext:object":"22222222-2222-2222-2222-222222222222"}}"#,
            [YES, NO, None],
        ),
        (
            r#"{"Null":{"kms:EncryptionContext:kind":"true"}}"#,
            [NO, YES, NO],
        ),
        (
            r#"{"Null":{"kms:EncryptionContext:kind":false}}"#,
            [YES, NO, YES],
        ),
        (
            r#"{"Null":{"kms:EncryptionContextKeys":"true"}}"#,
            [NO, YES, NO],
        ),
        (
            r#"{"ForAnyValue:StringEquals":{"kms:EncryptionContextKeys":"kind"}}"#,
            [YES, NO, YES],
        ),
        (
            r#"{"ForAnyValue:StringEquals":{"kms:EncryptionContextKeys":"Kind"}}"#,
            [NO, NO, NO],
        ),
        (
            r#"{"ForAllValues:StringEquals":{"kms:EncryptionContextKeys":["kind","volume"]}}"#,
            [NO, YES, NO],
        ),
        (
            r#"{"ForAllValues:StringLike":{"kms:EncryptionContextKeys":["*"]}}"#,
            [YES, YES, YES],
        ),
        (
            r#"{"ForAllValues:StringNotEquals":{"kms:EncryptionContextKeys":"team"}}"#,
            [YES, YES, YES],
        ),
        (
            r#"{"ForAnyValue:StringNotEquals":{"kms:EncryptionContextKeys":"kind"}}"#,
            [YES, NO, YES],
        ),
        (
            r#"{"DateLessThan":{"aws:CurrentTime":"2023-11-14T22:13:20Z"}}"#,
            [NO; 3],
        ),
        (
            r#"{"DateLessThanEquals":{"aws:CurrentTime":"2023-11-14T23:13:20+01:00"}}"#,
            [YES; 3],
        ),
        (
            r#"{"DateGreaterThan":{"aws:CurrentTime":"2023-11-14"}}"#,
            [YES; 3],
        ),
        (
            r#"{"DateGreaterThan":{"aws:CurrentTime":"2023-11-15"}}"#,
            [NO; 3],
        ),
        (
            r#"{"DateGreaterThanEquals":{"aws:CurrentTime":1700000000}}"#,
            [YES; 3],
        ),
        (
            r#"{"DateEquals":{"aws:CurrentTime":"1700000000"}}"#,
            [YES; 3],
        ),
        (
            r#"{"DateNotEquals":{"aws:CurrentTime":"1700000000"}}"#,
            [NO; 3],
        ),
        (
            r#"{"Bool":{"kms:BypassPolicyLockoutSafetyCheck":"true"}}"#,
            [NO; 3],
        ),
        (
            r#"{"BoolIfExists":{"kms:BypassPolicyLockoutSafetyCheck":true}}"#,
            [YES; 3],
        ),
        // All conditions together.
        (
            r#"{"StringEquals":{"kms:EncryptionContext:kind":"file","kms:EncryptionContext:team":"a"}}"#,
            [NO, NO, NO],
        ),
        (
            r#"{"StringEquals":{"kms:EncryptionContext:kind":"file"},"DateGreaterThan":{"aws:CurrentTime":"2000-01-01"}}"#,
            [YES, NO, None],
        ),
        ("{}", [YES; 3]),
    ];
    for (json, expected) in table {
        assert_eq!(hold(json), expected, "{json}");
    }
}

#[test]
fn a_known_volume_settles_what_is_about_the_volume() {
    let json = r#"{"StringEquals":{"kms:EncryptionContext:volume":"11111111-1111-1111-1111-111111111111"}}"#;
    let condition = &conditions(json).unwrap()[0];
    for (volume, expected) in [(0x11, true), (0x12, false)] {
        let context = Context::SomeObject(Some(VolumeId([volume; 16])));
        let request = Request::new("Decrypt").with_context(context);
        assert_eq!(condition.holds(&request, NOW), Some(expected));
    }
}

#[test]
fn the_lockout_flag_is_a_fact_of_put_key_policy_alone() {
    let json = r#"{"Bool":{"kms:BypassPolicyLockoutSafetyCheck":"true"}}"#;
    let condition = &conditions(json).unwrap()[0];
    for (flag, expected) in [(None, false), (Some(false), false), (Some(true), true)] {
        let request = Request {
            bypass_policy_lockout_safety_check: flag,
            ..Request::new("PutKeyPolicy")
        };
        assert_eq!(condition.holds(&request, NOW), Some(expected));
    }
}

#[test]
fn what_is_not_supported_is_refused() {
    for bad in [
        r#"{"StringEqual":{"kms:EncryptionContext:kind":"file"}}"#,
        r#"{"stringequals":{"kms:EncryptionContext:kind":"file"}}"#,
        r#"{"ForEachValue:StringEquals":{"kms:EncryptionContextKeys":"kind"}}"#,
        r#"{"StringEquals":{"kms:ViaService":"x"}}"#,
        r#"{"StringEquals":{"kms:EncryptionContext:":"x"}}"#,
        r#"{"StringEquals":{"aws:username":"alice"}}"#,
        r#"{"StringEquals":{"kms:EncryptionContext:kind":"${aws:username}"}}"#,
        r#"{"StringEquals":{"kms:EncryptionContextKeys":"kind"}}"#,
        r#"{"ForAnyValue:StringEquals":{"kms:EncryptionContext:kind":"file"}}"#,
        r#"{"StringEquals":{"aws:CurrentTime":"2030-01-01"}}"#,
        r#"{"DateLessThan":{"kms:EncryptionContext:kind":"2030-01-01"}}"#,
        r#"{"DateLessThan":{"aws:CurrentTime":"tomorrow"}}"#,
        r#"{"DateLessThan":{"aws:CurrentTime":"2030-01-01T00:00:00"}}"#,
        r#"{"DateLessThan":{"aws:CurrentTime":"99999999999999999999"}}"#,
        r#"{"DateLessThan":{"aws:CurrentTime":9223372036854775807}}"#,
        r#"{"Bool":{"kms:BypassPolicyLockoutSafetyCheck":"yes"}}"#,
        r#"{"NullIfExists":{"kms:EncryptionContext:kind":"true"}}"#,
        r#"{"Null":{"kms:EncryptionContext:kind":"maybe"}}"#,
        r#"{"StringEquals":{"kms:EncryptionContext:kind":[]}}"#,
        r#"{"StringEquals":{"kms:EncryptionContext:kind":null}}"#,
        r#"{"StringEquals":"file"}"#,
        r#"{"StringEquals":{"kms:EncryptionContext:kind":"a"},"StringEquals":{"kms:EncryptionContext:kind":"b"}}"#,
        r#"{"StringEquals":{"kms:EncryptionContext:kind":"a","kms:EncryptionContext:kind":"b"}}"#,
    ] {
        assert!(conditions(bad).is_err(), "{bad}");
    }
}
