//! What is written down of an operation: CloudTrail's record of a KMS call, filled in as the operation goes along.
//!
//! Facts: AWS CloudTrail, "CloudTrail record contents" and "Logging AWS KMS API calls". Never holds a secret.

use serde_json::{Map, Value};

use super::error::KmsError;
use super::key::KeyRef;
use crate::ids::{KeyId, MaterialId};

/// An operation under way.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// AWS's name of the operation.
    pub(super) name: &'static str,
    /// It changes nothing.
    pub(super) read_only: bool,
    /// It is about data, not about the key itself.
    pub(super) data: bool,
    /// Nobody asked for it: cmkfs did it by itself.
    pub(super) by_itself: bool,
    /// It only ever takes something away: to be possible on a full disk, too.
    pub(super) restricting: bool,
    /// Why it was not done, if it was not.
    pub(super) refused: Option<Refusal>,
    /// What was asked for.
    pub(super) request: Map<String, Value>,
    /// The key it was about, once that is known.
    pub(super) key: Option<KeyId>,
    /// What else is worth knowing of it.
    pub(super) additional: Map<String, Value>,
}

/// Why an operation was not done.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Refusal {
    /// AWS's exception, or a word of our own.
    pub code: &'static str,
    /// The same in a sentence.
    pub message: String,
}

impl From<&KmsError> for Refusal {
    fn from(error: &KmsError) -> Self {
        Self {
            code: error.code(),
            message: error.to_string(),
        }
    }
}

impl Event {
    /// An operation that may change something.
    pub(super) fn new(name: &'static str) -> Self {
        Self {
            name,
            read_only: false,
            data: false,
            by_itself: false,
            restricting: false,
            refused: None,
            request: Map::new(),
            key: None,
            additional: Map::new(),
        }
    }

    /// An operation that changes nothing.
    pub(super) fn reading(name: &'static str) -> Self {
        Self {
            read_only: true,
            ..Self::new(name)
        }
    }

    /// An operation with data keys.
    pub(super) fn of_data(name: &'static str) -> Self {
        Self {
            data: true,
            ..Self::reading(name)
        }
    }

    /// Nobody asked for it: cmkfs does it by itself.
    pub(super) fn by_itself(self) -> Self {
        Self {
            by_itself: true,
            ..self
        }
    }

    /// It only ever takes a right away, so it is to be possible on a full disk, too: room is kept for it.
    pub(super) fn restricting(self) -> Self {
        Self {
            restricting: true,
            ..self
        }
    }

    /// The key as it was asked for.
    pub(super) fn asked(self, key: &KeyRef) -> Self {
        let text = match key {
            KeyRef::Id(id) => id.to_string(),
            KeyRef::Alias(alias) => alias.to_string(),
        };
        self.with("keyId", text)
    }

    /// A parameter of the request, in AWS's spelling (camelCase).
    pub(super) fn with(mut self, parameter: &str, value: impl Into<Value>) -> Self {
        self.request.insert(parameter.to_owned(), value.into());
        self
    }

    /// The key that it turned out to be about.
    pub(super) fn about(&mut self, key: KeyId) {
        self.key = Some(key);
    }

    /// The material that it turned out to be about.
    pub(super) fn material(&mut self, material: MaterialId) {
        self.note("keyMaterialId", material.to_string());
    }

    /// ReEncrypt: what the ciphertext was under before.
    pub(super) fn source(&mut self, key: KeyId, material: MaterialId) {
        self.note("sourceKeyId", key.to_string());
        self.note("sourceKeyMaterialId", material.to_string());
    }

    /// A further fact (additionalEventData).
    pub(super) fn note(&mut self, name: &str, value: impl Into<Value>) {
        self.additional.insert(name.to_owned(), value.into());
    }
}
