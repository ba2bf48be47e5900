//! The words of a CMK: how it is named, who looks after it, its tags and description.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize, Serializer};

use super::alias::{AliasName, PREFIX};
use super::error::KmsError;
pub use super::metadata::KeyMetadata;
pub(super) use super::record::KeyRecord;
use crate::clock::Timestamp;
use crate::ids::KeyId;

/// Most characters of a description.
pub const MAX_DESCRIPTION: usize = 8192;
/// Most tags of a key.
pub const MAX_TAGS: usize = 50;
/// Most characters of a tag's key.
pub const MAX_TAG_KEY: usize = 128;
/// Most characters of a tag's value.
pub const MAX_TAG_VALUE: usize = 256;

/// A key as people name it: by id or by alias.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum KeyRef {
    /// The key itself.
    Id(KeyId),
    /// Whatever key the alias stands for at the moment.
    Alias(AliasName),
}

impl FromStr for KeyRef {
    type Err = KmsError;

    fn from_str(text: &str) -> Result<Self, KmsError> {
        if text.starts_with(PREFIX) {
            return text.parse().map(Self::Alias);
        }
        text.parse().map(Self::Id).map_err(|_| {
            KmsError::ValidationException(format!(
                "{text:?} is neither a key id (a lower-case UUID) nor alias/NAME"
            ))
        })
    }
}

impl KeyRef {
    /// The id or alias alone.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Id(id) => id.to_string(),
            Self::Alias(alias) => alias.to_string(),
        }
    }
}

impl fmt::Display for KeyRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "key {id}"),
            Self::Alias(alias) => alias.fmt(f),
        }
    }
}

impl From<KeyId> for KeyRef {
    fn from(id: KeyId) -> Self {
        Self::Id(id)
    }
}

/// Who looks after a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum KeyManager {
    /// Whoever made it.
    Customer,
    /// cmkfs: the default key.
    Cmkfs,
}

impl KeyManager {
    /// The name as it is shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Customer => "CUSTOMER",
            Self::Cmkfs => "CMKFS",
        }
    }
}

/// Where a key's material comes from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Origin {
    /// Made by cmkfs.
    #[default]
    Cmkfs,
    /// Imported by whoever owns it.
    External,
}

impl Origin {
    /// The name as it is shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cmkfs => "CMKFS",
            Self::External => "EXTERNAL",
        }
    }
}

/// Whether imported material expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ExpirationModel {
    /// At its ValidTo.
    KeyMaterialExpires,
    /// Never.
    KeyMaterialDoesNotExpire,
}

impl ExpirationModel {
    /// The name as it is shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::KeyMaterialExpires => "KEY_MATERIAL_EXPIRES",
            Self::KeyMaterialDoesNotExpire => "KEY_MATERIAL_DOES_NOT_EXPIRE",
        }
    }
}

/// Tags, by key: text about a CMK that cmkfs itself does not interpret.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tags(BTreeMap<String, String>);

impl Tags {
    /// Checks lengths, number and uniqueness.
    ///
    /// # Errors
    /// [`KmsError::TagException`], [`KmsError::LimitExceededException`].
    pub fn new(tags: impl IntoIterator<Item = (String, String)>) -> Result<Self, KmsError> {
        let mut checked = BTreeMap::new();
        for (key, value) in tags {
            let length = key.chars().count();
            if length == 0 || length > MAX_TAG_KEY || value.chars().count() > MAX_TAG_VALUE {
                return Err(KmsError::TagException(format!(
                    "tag {key:?}: a tag's key has 1 to {MAX_TAG_KEY} characters, its value at most {MAX_TAG_VALUE}"
                )));
            }
            if checked.contains_key(&key) {
                return Err(KmsError::TagException(format!(
                    "tag {key:?} is given twice"
                )));
            }
            checked.insert(key, value);
        }
        if checked.len() > MAX_TAGS {
            return Err(KmsError::LimitExceededException {
                what: format!("{} tags of a key", checked.len()),
                limit: MAX_TAGS,
            });
        }
        Ok(Self(checked))
    }

    /// With `more` added; a value of the same key is replaced.
    ///
    /// # Errors
    /// [`KmsError::LimitExceededException`].
    pub fn with(&self, more: &Self) -> Result<Self, KmsError> {
        let mut tags = self.0.clone();
        tags.extend(more.0.clone());
        Self::new(tags)
    }

    /// Without those that have one of these keys; they need not be there.
    #[must_use]
    pub fn without(&self, keys: &[String]) -> Self {
        let mut tags = self.0.clone();
        tags.retain(|key, _| !keys.contains(key));
        Self(tags)
    }

    /// The tags in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (&**key, &**value))
    }
}

/// A description of at most 8,192 characters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Description(String);

impl Description {
    /// Checks the length.
    ///
    /// # Errors
    /// [`KmsError::ValidationException`] for more than 8,192 characters.
    pub fn new(text: String) -> Result<Self, KmsError> {
        if text.chars().count() > MAX_DESCRIPTION {
            return Err(KmsError::ValidationException(format!(
                "a description has at most {MAX_DESCRIPTION} characters"
            )));
        }
        Ok(Self(text))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What CreateKey is asked for.
#[derive(Debug, Clone, Default)]
pub struct CreateKeyRequest {
    /// Text for people.
    pub description: Description,
    /// Tags.
    pub tags: Tags,
    /// An alias to make with it.
    pub alias: Option<AliasName>,
    /// Where its material is to come from.
    pub origin: Origin,
}

/// Writes a moment as AWS's tools do: RFC 3339, in UTC.
#[must_use]
pub fn rfc3339_text(moment: Timestamp) -> String {
    // Only moments beyond the year 9999 have no such text.
    jiff::Timestamp::from_millisecond(moment.0).map_or_else(
        |_| format!("{} ms", moment.0),
        |moment| format!("{moment:.3}"),
    )
}

pub(super) fn rfc3339<S: Serializer>(moment: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&rfc3339_text(*moment))
}

pub(super) fn rfc3339_optional<S: Serializer>(
    moment: &Option<Timestamp>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match moment {
        Some(moment) => rfc3339(moment, serializer),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_named_by_id_or_alias_and_nothing_else() {
        let id = KeyId::random();
        assert_eq!(id.to_string().parse::<KeyRef>().unwrap(), KeyRef::Id(id));
        assert!(matches!("alias/a".parse(), Ok(KeyRef::Alias(_))));
        for bad in ["", "a", "../x", "alias/", "alias/a b"] {
            assert!(bad.parse::<KeyRef>().is_err(), "{bad}");
        }
    }

    #[test]
    fn tags_and_descriptions_keep_awss_limits() {
        let tags = |n: usize| Tags::new((0..n).map(|i| (i.to_string(), String::new())));
        assert!(tags(50).is_ok());
        assert!(matches!(
            tags(51),
            Err(KmsError::LimitExceededException { .. })
        ));
        let tag = |k: usize, v: usize| Tags::new([("ä".repeat(k), "ä".repeat(v))]);
        assert!(tag(128, 256).is_ok());
        for (k, v) in [(0, 1), (129, 1), (1, 257)] {
            assert!(matches!(tag(k, v), Err(KmsError::TagException(_))));
        }
        assert!(Tags::new([("a".into(), "1".into()), ("a".into(), "2".into())]).is_err());
        assert!(Description::new("ä".repeat(8192)).is_ok());
        assert!(Description::new("a".repeat(8193)).is_err());
    }
}
