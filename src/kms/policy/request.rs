//! What is asked of a policy: one operation on one key, and what is known of it.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::format::envelope::EncryptionContext;
use crate::ids::VolumeId;
use crate::kms::grant::GrantId;

/// The encryption context of a request: names and values.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Context<'a> {
    /// The operation has none.
    #[default]
    None,
    /// That of a file's data key.
    Object(&'a EncryptionContext),
    /// Some object of this volume, or of any; which one is not known.
    SomeObject(Option<VolumeId>),
    /// What the caller says.
    Text(&'a BTreeMap<String, String>),
}

/// What is known of a value.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<T> {
    /// This one.
    Value(T),
    /// The request has none.
    Absent,
    /// It depends on what is not known here.
    Unknown,
}

/// The names in the encryption context of every data key.
pub const OBJECT_KEYS: [&str; 3] = ["volume", "object", "kind"];

impl<'a> Context<'a> {
    /// The names: those of all objects are the same.
    pub(in crate::kms) fn names(&self) -> Vec<&'a str> {
        match self {
            Self::None => Vec::new(),
            Self::Object(_) | Self::SomeObject(_) => OBJECT_KEYS.to_vec(),
            Self::Text(pairs) => pairs.keys().map(String::as_str).collect(),
        }
    }

    /// The value of a name that [`Self::names`] has; nothing where it is not known.
    fn value(&self, name: &str) -> Option<Cow<'a, str>> {
        match (self, name) {
            (Self::Object(context), "volume") => Some(context.volume.to_string().into()),
            (Self::Object(context), "object") => Some(context.object.to_string().into()),
            (Self::Object(context), "kind") => Some(context.kind.as_str().into()),
            (Self::SomeObject(Some(volume)), "volume") => Some(volume.to_string().into()),
            (Self::Text(pairs), name) => pairs.get(name).map(|value| value.as_str().into()),
            _ => None,
        }
    }

    /// Whether it has this pair, as far as it is known.
    pub(in crate::kms) fn may_have(&self, name: &str, value: &str) -> bool {
        self.names().contains(&name) && self.value(name).is_none_or(|found| found == value)
    }

    /// The value of a name in any case, as AWS's condition keys are.
    pub(super) fn find(&self, name: &str) -> Found<Cow<'a, str>> {
        match self.names_like(name).next() {
            None => Found::Absent,
            Some(known) => self.value(known).map_or(Found::Unknown, Found::Value),
        }
    }

    /// Whether it has several such names, so that the caller could choose which of them is looked at.
    pub(super) fn is_ambiguous(&self, name: &str) -> bool {
        self.names_like(name).nth(1).is_some()
    }

    fn names_like(&self, name: &str) -> impl Iterator<Item = &'a str> {
        let names = self.names().into_iter();
        names.filter(move |known| known.eq_ignore_ascii_case(name))
    }
}

/// One operation on one key.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// AWS's name of the operation.
    pub action: &'static str,
    /// Its encryption context.
    pub context: Context<'a>,
    /// The grant that it is about.
    pub grant: Option<&'a GrantId>,
    /// Whether PutKeyPolicy is to skip the check against locking oneself out.
    pub bypass_policy_lockout_safety_check: Option<bool>,
}

impl<'a> Request<'a> {
    /// An operation of which nothing else is known.
    #[must_use]
    pub const fn new(action: &'static str) -> Self {
        Self {
            action,
            context: Context::None,
            grant: None,
            bypass_policy_lockout_safety_check: None,
        }
    }

    /// The same with this encryption context.
    #[must_use]
    pub const fn with_context(self, context: Context<'a>) -> Self {
        Self { context, ..self }
    }
}
