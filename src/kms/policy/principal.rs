//! Who a statement or a grant is about: a user or group of this machine, by name or number, or everyone.

use std::fmt;
use std::str::FromStr;

use nix::unistd::{Group, User};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::kms::caller::{self, Caller};
use crate::kms::error::KmsError;

/// Most bytes of a name: what Linux allows of a login name.
const MAX_NAME: usize = 256;

/// A user or group, as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Name {
    /// The number.
    Id(u32),
    /// The name.
    Text(String),
}

/// Somebody. Its text is `*`, `user:NAME` or `group:NAME`; NAME may be a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// Whoever it is.
    Everyone,
    /// A user.
    User(Name),
    /// Whoever is in a group.
    Group(Name),
}

impl Name {
    /// Reads a name or a number.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return text
                .parse()
                .map(Self::Id)
                .map_err(|_| format!("principal {text:?}: the number is too large"));
        }
        let strange = |c: char| c.is_control() || c.is_whitespace() || "*?:,".contains(c);
        if text.is_empty() || text.len() > MAX_NAME || text.contains(strange) {
            return Err(format!(
                "principal {text:?}: a name has 1 to {MAX_NAME} characters, without spaces, wildcards, colons and commas"
            ));
        }
        Ok(Self::Text(text.to_owned()))
    }

    /// Whether it is the one of this id and name; not known where there is no name to compare.
    fn is(&self, id: u32, name: Option<&str>) -> Option<bool> {
        match self {
            Self::Id(wanted) => Some(*wanted == id),
            Self::Text(wanted) => name.map(|name| name == wanted),
        }
    }
}

impl Principal {
    /// Whether the caller is meant. Nothing where that cannot be known, because a user or group of the caller has no name (or
    /// the name service does not answer): then it must count against the caller.
    pub(in crate::kms) fn is(&self, caller: &Caller) -> Option<bool> {
        match self {
            Self::Everyone => Some(true),
            Self::User(name) => name.is(caller.uid, caller.user.as_deref()),
            Self::Group(name) => {
                let mut known = Some(false);
                for group in &caller.groups {
                    match name.is(group.gid, group.name.as_deref()) {
                        Some(true) => return Some(true),
                        Some(false) => {}
                        None => known = None,
                    }
                }
                known
            }
        }
    }

    /// Fails where this machine has no such user or group now: a mistyped name would deny nobody. A second name of the same
    /// number would never be recognized, so it is refused as well.
    pub(in crate::kms) fn check_known(&self) -> Result<(), String> {
        let (kind, text, id, name) = match self {
            Self::User(Name::Text(text)) => {
                let id = User::from_name(text).ok().flatten().map(|user| user.uid);
                let name = id.and_then(caller::user_name);
                ("user", text, id.map(|id| id.as_raw()), name)
            }
            Self::Group(Name::Text(text)) => {
                let id = Group::from_name(text).ok().flatten().map(|group| group.gid);
                let name = id.and_then(caller::group_name);
                ("group", text, id.map(|id| id.as_raw()), name)
            }
            Self::Everyone | Self::User(Name::Id(_)) | Self::Group(Name::Id(_)) => return Ok(()),
        };
        match (id, name) {
            (Some(_), Some(name)) if name == *text => Ok(()),
            (Some(id), Some(name)) => Err(format!(
                "principal {text:?}: {kind} {id} goes by the name {name:?}"
            )),
            _ => Err(format!("principal {text:?}: there is no such {kind}")),
        }
    }
}

impl From<&Caller> for Principal {
    fn from(caller: &Caller) -> Self {
        Self::User(Name::Id(caller.uid))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Text(text) => text.fmt(f),
        }
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everyone => f.write_str("*"),
            Self::User(name) => write!(f, "user:{name}"),
            Self::Group(name) => write!(f, "group:{name}"),
        }
    }
}

impl FromStr for Principal {
    type Err = KmsError;

    fn from_str(text: &str) -> Result<Self, KmsError> {
        let parsed = match text.split_once(':') {
            Some(("user", name)) => Name::parse(name).map(Self::User),
            Some(("group", name)) => Name::parse(name).map(Self::Group),
            _ if text == "*" => Ok(Self::Everyone),
            _ => Err(format!(
                "principal {text:?}: a principal is user:NAME or group:NAME, where NAME may be a number"
            )),
        };
        parsed.map_err(KmsError::ValidationException)
    }
}

impl Serialize for Principal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Principal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kms::caller::CallerGroup;

    fn alice() -> Caller {
        let group = |gid, name: Option<&str>| CallerGroup {
            gid,
            name: name.map(str::to_owned),
        };
        Caller {
            uid: 1000,
            user: Some("alice".to_owned()),
            groups: vec![group(1000, Some("alice")), group(50, Some("staff"))],
        }
    }

    fn is(text: &str, caller: &Caller) -> Option<bool> {
        text.parse::<Principal>().unwrap().is(caller)
    }

    #[test]
    fn a_caller_is_recognized_by_name_number_and_every_group() {
        for (text, expected) in [
            ("*", true),
            ("user:alice", true),
            ("user:1000", true),
            ("user:bob", false),
            ("user:0", false),
            ("group:staff", true),
            ("group:50", true),
            ("group:wheel", false),
            ("group:alice", true),
            ("user:staff", false),
        ] {
            assert_eq!(is(text, &alice()), Some(expected), "{text}");
        }
    }

    #[test]
    fn a_missing_name_leaves_open_who_it_is() {
        let mut caller = alice();
        caller.user = None;
        caller.groups[0].name = None;
        assert_eq!(is("user:alice", &caller), None);
        assert_eq!(is("user:1000", &caller), Some(true));
        assert_eq!(is("user:1", &caller), Some(false));
        assert_eq!(is("group:wheel", &caller), None);
        assert_eq!(is("group:staff", &caller), Some(true));
    }

    #[test]
    fn text_round_trips_and_nonsense_is_refused() {
        for text in [
            "*",
            "user:alice",
            "user:0",
            "group:staff",
            "group:4294967295",
        ] {
            assert_eq!(text.parse::<Principal>().unwrap().to_string(), text);
        }
        for bad in [
            "",
            "alice",
            "user:",
            "user:a b",
            "user:al*",
            "group:4294967296",
            "role:x",
            "user:a:b",
        ] {
            assert!(bad.parse::<Principal>().is_err(), "{bad}");
        }
    }

    #[test]
    fn only_users_and_groups_of_this_machine_are_known() {
        let check = |text: &str| text.parse::<Principal>().unwrap().check_known();
        for known in ["*", "user:root", "group:root", "user:12345678"] {
            check(known).unwrap();
        }
        for unknown in ["user:no-such-user-here", "group:no-such-group-here"] {
            assert!(check(unknown).is_err(), "{unknown}");
        }
    }
}
