//! Conditions: a statement holds only while all of its conditions do. Operators and keys as AWS defines them; those that are
//! not here are refused.
//!
//! Facts: AWS IAM, "Condition operators", "Conditions with multiple context keys or values", "Multivalued context keys";
//! AWS KMS, "Condition keys".

use std::borrow::Cow;

use super::json::{OneOrMany, Pairs, Scalar};
use super::pattern;
use super::request::{Found, Request};
use crate::clock::Timestamp;

/// What a condition is about.
#[derive(Debug, Clone, PartialEq, Eq)]
enum ConditionKey {
    /// `kms:EncryptionContext:NAME`.
    EncryptionContext(String),
    /// `kms:EncryptionContextKeys`, which has many values.
    EncryptionContextKeys,
    /// `aws:CurrentTime`.
    CurrentTime,
    /// `kms:BypassPolicyLockoutSafetyCheck`.
    BypassPolicyLockoutSafetyCheck,
}

/// How a value of the request is compared with one of the condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Equals,
    EqualsIgnoreCase,
    Like,
}

/// The comparison, with the values to compare with. One of them is enough.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    Text(Comparison, Vec<String>),
    Date(DateOrder, Vec<Timestamp>),
    Bool(Vec<bool>),
    Null(Vec<bool>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DateOrder {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// Which of a key's many values a test is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Set {
    All,
    Any,
}

/// One condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Condition {
    key: ConditionKey,
    set: Option<Set>,
    negated: bool,
    if_exists: bool,
    test: Test,
}

impl Condition {
    /// Reads a Condition element.
    pub(super) fn parse_all(element: Pairs<Pairs<OneOrMany<Scalar>>>) -> Result<Vec<Self>, String> {
        let mut conditions = Vec::new();
        for (operator, keys) in element.0 {
            for (key, values) in keys.0 {
                let values = values.0.into_iter().map(|value| value.0).collect();
                let condition = Self::parse(&operator, &key, values)
                    .map_err(|why| format!("condition {operator} on {key}: {why}"))?;
                conditions.push(condition);
            }
        }
        Ok(conditions)
    }

    fn parse(operator: &str, key: &str, values: Vec<String>) -> Result<Self, String> {
        let key = ConditionKey::parse(key)?;
        let (set, name) = match operator.split_once(':') {
            Some(("ForAllValues", name)) => (Some(Set::All), name),
            Some(("ForAnyValue", name)) => (Some(Set::Any), name),
            _ => (None, operator),
        };
        let (if_exists, name) = match name.strip_suffix("IfExists") {
            Some(name) => (true, name),
            None => (false, name),
        };
        if values.iter().any(|value| value.contains("${")) {
            return Err("policy variables are not supported".to_owned());
        }
        let (negated, test) = Test::parse(name, values)?;
        let fits = match (&key, &test) {
            (_, Test::Null(_)) => set.is_none() && !if_exists,
            (ConditionKey::EncryptionContext(_), Test::Text(..))
            | (ConditionKey::CurrentTime, Test::Date(..))
            | (ConditionKey::BypassPolicyLockoutSafetyCheck, Test::Bool(_)) => set.is_none(),
            (ConditionKey::EncryptionContextKeys, Test::Text(..)) => {
                if set.is_none() {
                    return Err("it has many values: say ForAllValues: or ForAnyValue:".to_owned());
                }
                true
            }
            _ => false,
        };
        if !fits {
            return Err("the operator does not fit the key".to_owned());
        }
        Ok(Self {
            key,
            set,
            negated,
            if_exists,
            test,
        })
    }

    /// Whether it holds; nothing where that depends on what the request does not know.
    pub(super) fn holds(&self, request: &Request<'_>, now: Timestamp) -> Option<bool> {
        let value = match &self.key {
            ConditionKey::EncryptionContextKeys => return Some(self.holds_for_names(request)),
            ConditionKey::EncryptionContext(name) => match request.context.find(name) {
                Found::Value(value) => Found::Value(Fact::Text(value)),
                Found::Absent => Found::Absent,
                Found::Unknown => Found::Unknown,
            },
            ConditionKey::CurrentTime => Found::Value(Fact::Time(now)),
            ConditionKey::BypassPolicyLockoutSafetyCheck => {
                match request.bypass_policy_lockout_safety_check {
                    Some(value) => Found::Value(Fact::Bool(value)),
                    None => Found::Absent,
                }
            }
        };
        if let Test::Null(wanted) = &self.test {
            // Which value it has may be unknown; that it has one is not.
            return Some(wanted.contains(&(value == Found::Absent)));
        }
        match value {
            Found::Value(fact) => Some(self.test.holds(&fact) != self.negated),
            // AWS: a negated test of what is not there holds.
            Found::Absent => Some(self.if_exists || self.negated),
            Found::Unknown => None,
        }
    }

    /// Whether it is about a name that the request's encryption context has in more than one spelling.
    pub(super) fn is_ambiguous(&self, request: &Request<'_>) -> bool {
        matches!(&self.key, ConditionKey::EncryptionContext(name) if request.context.is_ambiguous(name))
    }

    fn holds_for_names(&self, request: &Request<'_>) -> bool {
        let names = request.context.names();
        if let Test::Null(wanted) = &self.test {
            return wanted.contains(&names.is_empty());
        }
        if names.is_empty() && self.if_exists {
            return true;
        }
        let holds =
            |name: &&str| self.test.holds(&Fact::Text(Cow::Borrowed(*name))) != self.negated;
        match self.set {
            Some(Set::Any) => names.iter().any(holds),
            // AWS: holds where there are no values.
            Some(Set::All) | None => names.iter().all(holds),
        }
    }
}

/// What the request says of a key.
#[derive(Debug, PartialEq, Eq)]
enum Fact<'a> {
    Text(Cow<'a, str>),
    Time(Timestamp),
    Bool(bool),
}

impl ConditionKey {
    fn parse(text: &str) -> Result<Self, String> {
        const CONTEXT: &str = "kms:encryptioncontext:";
        let lower = text.to_ascii_lowercase();
        match lower.as_str() {
            "kms:encryptioncontextkeys" => Ok(Self::EncryptionContextKeys),
            "aws:currenttime" => Ok(Self::CurrentTime),
            "kms:bypasspolicylockoutsafetycheck" => Ok(Self::BypassPolicyLockoutSafetyCheck),
            _ => match lower.strip_prefix(CONTEXT) {
                Some(name) if !name.is_empty() => Ok(Self::EncryptionContext(name.to_owned())),
                _ => Err("this key is not supported".to_owned()),
            },
        }
    }
}

impl Test {
    /// The test that an operator names, and whether it is turned round.
    fn parse(operator: &str, values: Vec<String>) -> Result<(bool, Self), String> {
        let on_text = |comparison, negated| Ok((negated, Self::Text(comparison, values.clone())));
        let on_date = |order, negated| {
            let dates: Result<_, String> = values.iter().map(|value| date(value)).collect();
            Ok((negated, Self::Date(order, dates?)))
        };
        let bools = || {
            values
                .iter()
                .map(|value| boolean(value))
                .collect::<Result<_, _>>()
        };
        match operator {
            "StringEquals" => on_text(Comparison::Equals, false),
            "StringNotEquals" => on_text(Comparison::Equals, true),
            "StringEqualsIgnoreCase" => on_text(Comparison::EqualsIgnoreCase, false),
            "StringNotEqualsIgnoreCase" => on_text(Comparison::EqualsIgnoreCase, true),
            "StringLike" => on_text(Comparison::Like, false),
            "StringNotLike" => on_text(Comparison::Like, true),
            "DateEquals" => on_date(DateOrder::Equal, false),
            "DateNotEquals" => on_date(DateOrder::Equal, true),
            "DateLessThan" => on_date(DateOrder::Less, false),
            "DateLessThanEquals" => on_date(DateOrder::LessOrEqual, false),
            "DateGreaterThan" => on_date(DateOrder::Greater, false),
            "DateGreaterThanEquals" => on_date(DateOrder::GreaterOrEqual, false),
            "Bool" => Ok((false, Self::Bool(bools()?))),
            "Null" => Ok((false, Self::Null(bools()?))),
            _ => Err("this operator is not supported".to_owned()),
        }
    }

    fn holds(&self, fact: &Fact<'_>) -> bool {
        match (self, fact) {
            (Self::Text(comparison, values), Fact::Text(found)) => {
                values.iter().any(|value| match comparison {
                    Comparison::Equals => value == found,
                    Comparison::EqualsIgnoreCase => value.to_lowercase() == found.to_lowercase(),
                    Comparison::Like => pattern::matches(value, found),
                })
            }
            (Self::Date(order, values), Fact::Time(now)) => {
                values.iter().any(|value| match order {
                    DateOrder::Equal => now == value,
                    DateOrder::Less => now < value,
                    DateOrder::LessOrEqual => now <= value,
                    DateOrder::Greater => now > value,
                    DateOrder::GreaterOrEqual => now >= value,
                })
            }
            (Self::Bool(values), Fact::Bool(found)) => values.contains(found),
            // Parsing lets no test meet a fact of another type, and Null is answered before.
            _ => false,
        }
    }
}

/// A date as AWS takes it: ISO 8601 with its time zone, a day alone (its beginning, UTC), or seconds since 1970.
fn date(text: &str) -> Result<Timestamp, String> {
    let wrong = || {
        format!(
            "{text:?} is no date; one looks like 2030-01-31T12:00:00Z, 2030-01-31, or seconds since 1970"
        )
    };
    if let Ok(seconds) = text.parse::<i64>() {
        return seconds.checked_mul(1000).map(Timestamp).ok_or_else(wrong);
    }
    if let Ok(moment) = text.parse::<jiff::Timestamp>() {
        return Ok(Timestamp(moment.as_millisecond()));
    }
    // A moment without time zone would be a day to jiff, too: the rest must not be dropped.
    let day = (text.len() == "2030-01-31".len()).then(|| text.parse::<jiff::civil::Date>());
    day.and_then(Result::ok)
        .and_then(|day| day.to_zoned(jiff::tz::TimeZone::UTC).ok())
        .map(|day| Timestamp(day.timestamp().as_millisecond()))
        .ok_or_else(wrong)
}

fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(format!("{text:?} is neither \"true\" nor \"false\"")),
    }
}

#[cfg(test)]
#[path = "condition_tests.rs"]
mod tests;
