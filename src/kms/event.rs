//! What is written down of an operation: CloudTrail's record of a KMS call, filled in as the operation goes along.
//!
//! Facts: AWS CloudTrail, "CloudTrail record contents" and "Logging AWS KMS API calls". Never holds a secret.

use serde_json::{Map, Value};

use super::key::KeyRef;
use crate::ids::{KeyId, MaterialId};

/// An operation under way.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// AWS's name of the operation.
    pub(super) name: &'static str,
    /// It changes nothing.
    pub(super) read_only: bool,
    /// Nobody asked for it: cmkfs did it by itself.
    pub(super) by_itself: bool,
    /// It only ever takes something away: to be possible on a full disk, too.
    pub(super) restricting: bool,
    /// What was asked for.
    pub(super) request: Map<String, Value>,
    /// The key it was about, once that is known.
    pub(super) key: Option<KeyId>,
    /// What else is worth knowing of it.
    pub(super) additional: Map<String, Value>,
}

impl Event {
    /// An operation that may change something.
    pub(super) fn new(name: &'static str) -> Self {
        Self {
            name,
            read_only: false,
            by_itself: false,
            restricting: false,
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

    /// A further fact (additionalEventData).
    pub(super) fn note(&mut self, name: &str, value: impl Into<Value>) {
        self.additional.insert(name.to_owned(), value.into());
    }
}
