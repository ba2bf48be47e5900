//! Aliases: names for keys, resources of their own. Facts: AWS KMS, CreateAlias.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::error::KmsError;
use super::key::rfc3339;
use crate::clock::Timestamp;
use crate::ids::KeyId;

/// What every alias begins with.
pub const PREFIX: &str = "alias/";
/// Aliases that only cmkfs itself makes begin with this.
pub const RESERVED_PREFIX: &str = "alias/cmkfs/";
/// The alias of the key that is used where none is named.
pub const DEFAULT: &str = "alias/cmkfs/default";
/// Most characters after `alias/`.
pub const MAX_LEN: usize = 256;
/// Most aliases a key can have.
pub const MAX_PER_KEY: usize = 50;

/// A well-formed alias name: `alias/` and 1–256 of `[a-zA-Z0-9/_-]`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AliasName(String);

impl AliasName {
    /// `alias/cmkfs/default`.
    #[must_use]
    pub fn default_key() -> Self {
        Self(DEFAULT.to_owned())
    }

    /// The whole name, `alias/` included.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether only cmkfs itself may make, move or delete it.
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        self.0.starts_with(RESERVED_PREFIX)
    }
}

impl FromStr for AliasName {
    type Err = KmsError;

    fn from_str(text: &str) -> Result<Self, KmsError> {
        let error = |why| {
            Err(KmsError::InvalidAliasNameException {
                alias: text.chars().take(PREFIX.len() + MAX_LEN).collect(),
                why,
            })
        };
        let Some(name) = text.strip_prefix(PREFIX) else {
            return error("an alias begins with \"alias/\"");
        };
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"/_-".contains(&byte);
        match name.len() {
            0 => error("nothing follows \"alias/\""),
            _ if !name.bytes().all(allowed) => {
                error("only letters, digits, \"/\", \"_\" and \"-\" are allowed")
            }
            1..=MAX_LEN => Ok(Self(text.to_owned())),
            _ => error("it is longer than 256 characters"),
        }
    }
}

impl fmt::Display for AliasName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for AliasName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for AliasName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The stored record of an alias.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(super) struct AliasRecord {
    pub alias_name: AliasName,
    pub target_key_id: KeyId,
    pub creation_date: Timestamp,
    pub last_updated_date: Timestamp,
}

/// What is known of an alias: AWS's AliasListEntry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct AliasListEntry {
    /// The alias.
    pub alias_name: AliasName,
    /// The key it stands for.
    pub target_key_id: KeyId,
    /// When it was made.
    #[serde(serialize_with = "rfc3339")]
    pub creation_date: Timestamp,
    /// When it was last pointed at a key.
    #[serde(serialize_with = "rfc3339")]
    pub last_updated_date: Timestamp,
}

impl From<&AliasRecord> for AliasListEntry {
    fn from(record: &AliasRecord) -> Self {
        Self {
            alias_name: record.alias_name.clone(),
            target_key_id: record.target_key_id,
            creation_date: record.creation_date,
            last_updated_date: record.last_updated_date,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn length_counts_after_the_prefix() {
        assert!(
            format!("alias/{}", "a".repeat(256))
                .parse::<AliasName>()
                .is_ok()
        );
        assert!(
            format!("alias/{}", "a".repeat(257))
                .parse::<AliasName>()
                .is_err()
        );
        for bad in [
            "alias/",
            "alias",
            "",
            "a",
            "Alias/a",
            "alias/a b",
            "alias/ä",
            "alias/a.b",
        ] {
            assert!(
                matches!(
                    bad.parse::<AliasName>(),
                    Err(KmsError::InvalidAliasNameException { .. })
                ),
                "{bad}"
            );
        }
        assert!("alias/cmkfs/x".parse::<AliasName>().unwrap().is_reserved());
        assert!(!"alias/cmkfs".parse::<AliasName>().unwrap().is_reserved());
        assert_eq!(
            DEFAULT.parse::<AliasName>().unwrap(),
            AliasName::default_key()
        );
    }

    proptest! {
        #[test]
        #[cfg_attr(miri, ignore = "too much for an interpreter")]
        fn every_allowed_name_parses_to_itself(name in "alias/[a-zA-Z0-9/_-]{1,256}") {
            let alias: AliasName = name.parse().unwrap();
            prop_assert_eq!(alias.as_str(), &name);
        }

        #[test]
        #[cfg_attr(miri, ignore = "too much for an interpreter")]
        fn no_text_panics_and_what_parses_is_allowed(text in "\\PC{0,40}") {
            if let Ok(alias) = text.parse::<AliasName>() {
                prop_assert!(alias.as_str().bytes().all(|b| b.is_ascii_alphanumeric() || b"/_-".contains(&b)));
            }
        }
    }
}
