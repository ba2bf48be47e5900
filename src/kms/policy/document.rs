//! A key policy's document: read once, kept word by word.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::action::ActionPattern;
use super::condition::Condition;
use super::json::{OneOrMany, Pairs, Scalar};
use super::principal::{Name, Principal};

/// Most bytes of a policy.
pub const MAX_POLICY: usize = 32 * 1024;

/// What a statement does where it applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Effect {
    /// Allows, unless another statement denies.
    Allow,
    /// Denies, whatever else allows.
    Deny,
}

/// One statement of a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Statement {
    /// How people find it: its Sid, or else its place, from 1.
    pub name: String,
    pub effect: Effect,
    pub principals: Vec<Principal>,
    pub actions: Vec<ActionPattern>,
    pub conditions: Vec<Condition>,
}

/// A key policy that was read and found to say nothing unknown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Policy {
    text: String,
    pub(super) statements: Vec<Statement>,
}

/// Text that is no key policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct MalformedPolicy(pub(in crate::kms) String);

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Document {
    version: Option<Version>,
    #[serde(rename = "Id")]
    _id: Option<String>,
    statement: OneOrMany<Sentence>,
}

#[derive(Deserialize)]
enum Version {
    #[serde(rename = "2012-10-17")]
    Current,
    #[serde(rename = "2008-10-17")]
    Old,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Sentence {
    sid: Option<String>,
    effect: Effect,
    principal: OneOrMany<Who>,
    action: OneOrMany<String>,
    resource: OneOrMany<String>,
    #[serde(default)]
    condition: Pairs<Pairs<OneOrMany<Scalar>>>,
}

/// `"*"`, or users and groups.
#[derive(Deserialize)]
#[serde(untagged)]
enum Who {
    Text(String),
    Named(Pairs<OneOrMany<Scalar>>),
}

impl Policy {
    /// Reads a policy. Whether its users and groups exist is not looked up.
    ///
    /// # Errors
    /// What it says that is not understood.
    pub fn parse(text: impl Into<String>) -> Result<Self, MalformedPolicy> {
        let text = text.into();
        if text.len() > MAX_POLICY {
            return Err(MalformedPolicy(format!(
                "a key policy has at most {MAX_POLICY} bytes, not {}",
                text.len()
            )));
        }
        let document: Document =
            serde_json::from_str(&text).map_err(|error| MalformedPolicy(error.to_string()))?;
        // Both mean the same here: what they differ in, policy variables, is refused.
        match document.version {
            None | Some(Version::Current | Version::Old) => {}
        }
        let mut statements: Vec<Statement> = Vec::new();
        for (at, sentence) in document.statement.0.into_iter().enumerate() {
            let name = match &sentence.sid {
                Some(sid) if !sid.is_empty() => format!("{sid:?}"),
                _ => format!("number {}", at + 1),
            };
            if statements.iter().any(|known| known.name == name) {
                return Err(MalformedPolicy(format!(
                    "two statements have the Sid {name}"
                )));
            }
            let statement = Statement::read(name.clone(), sentence)
                .map_err(|why| MalformedPolicy(format!("statement {name}: {why}")))?;
            statements.push(statement);
        }
        Ok(Self { text, statements })
    }

    /// The policy of a key that was given none: `owner`, whose key directory it is, and root may do everything.
    #[must_use]
    pub fn default_for(owner: u32) -> Self {
        let users = if owner == 0 {
            "0".to_owned()
        } else {
            format!("[{owner}, 0]")
        };
        let text = format!(
            r#"{{
  "Version": "2012-10-17",
  "Id": "cmkfs-default",
  "Statement": [
    {{
      "Sid": "The owner of the key directory and root may do everything",
      "Effect": "Allow",
      "Principal": {{ "User": {users} }},
      "Action": "kms:*",
      "Resource": "*"
    }}
  ]
}}"#
        );
        // A test reads it. Should it ever not be readable, it allows nothing.
        Self::parse(text.as_str()).unwrap_or(Self {
            text,
            statements: Vec::new(),
        })
    }

    /// The document, as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Fails where it names users or groups that this machine does not have.
    ///
    /// # Errors
    /// The first of them.
    pub(in crate::kms) fn check_principals(&self) -> Result<(), MalformedPolicy> {
        for statement in &self.statements {
            for principal in &statement.principals {
                principal.check_known().map_err(|why| {
                    MalformedPolicy(format!("statement {}: {why}", statement.name))
                })?;
            }
        }
        Ok(())
    }
}

impl Statement {
    fn read(name: String, sentence: Sentence) -> Result<Self, String> {
        if sentence.resource.0.iter().any(|resource| resource != "*") {
            return Err("its Resource must be \"*\", which is the key itself".to_owned());
        }
        let mut principals = Vec::new();
        for who in sentence.principal.0 {
            who.read_into(&mut principals)?;
        }
        let actions = sentence.action.0.iter();
        Ok(Self {
            name,
            effect: sentence.effect,
            principals,
            actions: actions
                .map(|action| ActionPattern::parse(action))
                .collect::<Result<_, _>>()?,
            conditions: Condition::parse_all(sentence.condition)?,
        })
    }
}

impl Who {
    fn read_into(self, principals: &mut Vec<Principal>) -> Result<(), String> {
        let kinds = match self {
            Self::Text(text) if text == "*" => {
                principals.push(Principal::Everyone);
                return Ok(());
            }
            Self::Text(text) => {
                return Err(format!(
                    "principal {text:?}: it is \"*\", {{\"User\": NAME}} or {{\"Group\": NAME}}"
                ));
            }
            Self::Named(kinds) => kinds,
        };
        if kinds.0.is_empty() {
            return Err("its Principal names nobody".to_owned());
        }
        for (kind, names) in kinds.0 {
            let make = match kind.as_str() {
                "User" => Principal::User,
                "Group" => Principal::Group,
                _ => {
                    return Err(format!(
                        "principals of the kind {kind:?} are not supported: User and Group are"
                    ));
                }
            };
            for Scalar(name) in names.0 {
                principals.push(match name.as_str() {
                    "*" => Principal::Everyone,
                    _ => make(Name::parse(&name)?),
                });
            }
        }
        Ok(())
    }
}

impl TryFrom<String> for Policy {
    type Error = MalformedPolicy;

    fn try_from(text: String) -> Result<Self, MalformedPolicy> {
        Self::parse(text)
    }
}

impl From<Policy> for String {
    fn from(policy: Policy) -> Self {
        policy.text
    }
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Policy").field(&self.text).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A statement that is whole, with some of its members changed or, where null, left out.
    fn with(members: serde_json::Value) -> String {
        let mut statement = serde_json::json!({
            "Effect": "Allow", "Principal": "*", "Action": "kms:*", "Resource": "*"
        });
        for (name, value) in members.as_object().unwrap() {
            if value.is_null() {
                statement.as_object_mut().unwrap().remove(name);
            } else {
                statement[name] = value.clone();
            }
        }
        serde_json::json!({ "Statement": statement }).to_string()
    }

    #[test]
    fn what_awss_examples_look_like_is_read_and_kept_word_by_word() {
        let text = r#"{
            "Version": "2012-10-17",
            "Id": "key-consolepolicy-3",
            "Statement": [
                { "Sid": "Enable", "Effect": "Allow", "Principal": {"User": "alice"}, "Action": "kms:*", "Resource": "*" },
                { "Sid": "Use", "Effect": "Allow", "Principal": {"User": ["bob", 1000, "1001"], "Group": "staff"},
                  "Action": ["kms:Encrypt", "kms:Decrypt", "kms:ReEncrypt*", "kms:GenerateDataKey*", "kms:DescribeKey"],
                  "Resource": ["*"], "Condition": {"Bool": {"kms:BypassPolicyLockoutSafetyCheck": "false"}} }
            ]
        }"#;
        let policy = Policy::parse(text).unwrap();
        assert_eq!(policy.as_str(), text);
        let [first, second] = &policy.statements[..] else {
            panic!("{policy:?}");
        };
        assert_eq!(
            (first.name.as_str(), second.name.as_str()),
            ("\"Enable\"", "\"Use\"")
        );
        let principals: Vec<String> = second.principals.iter().map(ToString::to_string).collect();
        assert_eq!(
            principals,
            ["user:bob", "user:1000", "user:1001", "group:staff"]
        );
        assert_eq!((second.actions.len(), second.conditions.len()), (5, 1));
        let stored = serde_json::to_string(&policy).unwrap();
        assert_eq!(serde_json::from_str::<Policy>(&stored).unwrap(), policy);
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        use serde_json::json;
        Policy::parse(with(json!({}))).unwrap();
        for bad in [
            json!({"Effect": "allow"}),
            json!({"Effect": null}),
            json!({"Principal": null}),
            json!({"Principal": "alice"}),
            json!({"Principal": {}}),
            json!({"Principal": {"AWS": "*"}}),
            json!({"Principal": {"User": []}}),
            json!({"Principal": {"User": "al*"}}),
            json!({"Principal": {"User": -1}}),
            json!({"Principal": {"User": 4_294_967_296_u64}}),
            json!({"Principal": {"User": 1.5}}),
            json!({"NotPrincipal": "*"}),
            json!({"NotAction": "kms:Decrypt"}),
            json!({"NotResource": "*"}),
            json!({"Action": null}),
            json!({"Action": []}),
            json!({"Action": "kms:Decypt"}),
            json!({"Resource": null}),
            json!({"Resource": "arn:aws:kms:x"}),
            json!({"Condition": {"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}}),
            json!({"Comment": "x"}),
            json!({"Sid": 1}),
        ] {
            assert!(Policy::parse(with(bad.clone())).is_err(), "{bad}");
        }
        let good = with(json!({}));
        for bad in [
            "",
            "{}",
            "[]",
            "null",
            r#"{"Statement": []}"#,
            &good.replace(
                r#"{"Statement""#,
                r#"{"Version": "2030-01-01", "Statement""#,
            ),
            &good.replace(r#"{"Statement""#, r#"{"Comment": 1, "Statement""#),
            &good.replace(r#""Effect""#, r#""Effect": "Deny", "Effect""#),
            &format!("{good} x"),
        ] {
            assert!(Policy::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn statements_have_names_of_their_own() {
        let statement =
            r#"{"Sid":"a","Effect":"Allow","Principal":"*","Action":"*","Resource":"*"}"#;
        let twice = format!(r#"{{"Statement":[{statement},{statement}]}}"#);
        assert!(Policy::parse(twice).is_err());
    }

    #[test]
    fn a_policy_has_at_most_thirty_two_kibibytes() {
        let good = with(serde_json::json!({}));
        let padded = |len: usize| good.clone() + &" ".repeat(len - good.len());
        assert!(Policy::parse(padded(MAX_POLICY)).is_ok());
        assert!(Policy::parse(padded(MAX_POLICY + 1)).is_err());
        // Deep or odd text is an error like any other.
        for bad in [
            "[".repeat(30_000),
            "{\"a\":".repeat(5_000),
            "\u{0}".to_owned(),
        ] {
            assert!(Policy::parse(bad).is_err());
        }
    }

    #[test]
    fn the_default_policy_is_a_policy() {
        for (owner, users) in [(0, 1), (1000, 2)] {
            let policy = Policy::default_for(owner);
            assert_eq!(policy.statements.len(), 1);
            assert_eq!(policy.statements[0].principals.len(), users);
            assert_eq!(Policy::parse(policy.as_str()).unwrap(), policy);
        }
    }
}
