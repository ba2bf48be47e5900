//! What is stored of a CMK, and what follows from it at a given moment. Changes nothing by itself; knows no file.
//!
//! Its materials lie in files of their own, so that erasing one touches nothing else.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::grant::Grant;
use super::key::{Description, ExpirationModel, KeyManager, Origin, Tags};
use super::policy::Policy;
use super::rotation::RotationType;
use super::state::{InvalidState, KeyKind, KeyState, Operation, StateError, transition};
use crate::clock::Timestamp;
use crate::crypto::kdf::material_id;
use crate::ids::{KeyId, MaterialId};
use crate::secret::Secret;

/// The stored record of a CMK. What was added after the first key directories were written has a default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(super) struct KeyRecord {
    pub key_id: KeyId,
    pub creation_date: Timestamp,
    /// As it was last written; [`Self::state`] says what it is now.
    pub key_state: KeyState,
    pub description: Description,
    pub key_manager: KeyManager,
    pub origin: Origin,
    pub tags: Tags,
    pub current_key_material_id: Option<MaterialId>,
    /// Oldest first.
    pub materials: Vec<MaterialRecord>,
    /// Imported to become current with the next rotation; nothing is wrapped under it yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending_key_material_id: Option<MaterialId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion: Option<Deletion>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<Schedule>,
    /// None: that of the key directory's owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Policy>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grants: Vec<Grant>,
}

/// When a key is to be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(super) struct Deletion {
    pub deletion_date: Timestamp,
    pub pending_window_in_days: u16,
}

/// When a key is to be rotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(super) struct Schedule {
    pub rotation_period_in_days: u16,
    pub next_rotation_date: Timestamp,
}

/// What the key's record says of one material. It outlives the material, so that only the same can be imported again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(super) struct MaterialRecord {
    pub key_material_id: MaterialId,
    pub creation_date: Timestamp,
    /// How it became current; the first material was from the beginning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<Rotated>,
    /// When it expires; imported material only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_to: Option<Timestamp>,
    /// Why it is not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<Missing>,
}

/// How a material became current.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(super) struct Rotated {
    pub rotation_date: Timestamp,
    pub rotation_type: RotationType,
}

/// Why an imported material is not there. Whoever holds files under it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Missing {
    /// Somebody deleted it.
    Deleted,
    /// Its time was over.
    Expired,
}

impl MaterialRecord {
    /// A material that is there.
    pub(super) const fn new(
        id: MaterialId,
        now: Timestamp,
        rotation: Option<Rotated>,
        valid_to: Option<Timestamp>,
    ) -> Self {
        Self {
            key_material_id: id,
            creation_date: now,
            rotation,
            valid_to,
            missing: None,
        }
    }

    /// Whether its file is there but its time is over.
    pub(super) fn is_past(&self, now: Timestamp) -> bool {
        self.missing.is_none() && self.valid_to.is_some_and(|end| end <= now)
    }

    /// Why it cannot be used at this moment, if so.
    pub(super) fn missing(&self, now: Timestamp) -> Option<Missing> {
        if self.is_past(now) {
            Some(Missing::Expired)
        } else {
            self.missing
        }
    }
}

impl KeyRecord {
    /// What it says that the record of `id` cannot, if anything.
    pub(super) fn contradiction(&self, id: KeyId) -> Option<&'static str> {
        let mut known = HashSet::new();
        if self.key_id != id {
            Some("it is the record of another key")
        } else if !self
            .materials
            .iter()
            .all(|material| known.insert(material.key_material_id))
        {
            Some("it names a material twice")
        } else {
            None
        }
    }

    /// The record of a new key with its first material; an imported one is yet to come.
    pub(super) fn new(
        now: Timestamp,
        key_manager: KeyManager,
        description: Description,
        tags: Tags,
        material: Option<&Secret<32>>,
    ) -> Self {
        let key_id = KeyId::random();
        let first = material.map(|material| material_id(&key_id, material));
        Self {
            key_id,
            creation_date: now,
            key_state: match first {
                Some(_) => KeyState::Enabled,
                None => KeyState::PendingImport,
            },
            description,
            key_manager,
            origin: match first {
                Some(_) => Origin::Cmkfs,
                None => Origin::External,
            },
            tags,
            current_key_material_id: first,
            materials: first
                .map(|id| MaterialRecord::new(id, now, None, None))
                .into_iter()
                .collect(),
            pending_key_material_id: None,
            deletion: None,
            rotation: None,
            policy: None,
            grants: Vec::new(),
        }
    }

    /// What decides what the key can do at all.
    pub(super) const fn kind(&self) -> KeyKind {
        KeyKind {
            origin: self.origin,
            key_manager: self.key_manager,
        }
    }

    /// The state at this moment: whether a material has expired is the clock's to say, whoever has touched the store.
    pub(super) fn state(&self, now: Timestamp) -> KeyState {
        match self.key_state {
            KeyState::Enabled | KeyState::Disabled
                if self.permanent().any(|material| material.is_past(now)) =>
            {
                KeyState::PendingImport
            }
            state => state,
        }
    }

    /// The state after `operation`, as the table has it.
    ///
    /// # Errors
    /// Why the table forbids it at this moment.
    pub(super) fn after(
        &self,
        operation: Operation,
        now: Timestamp,
    ) -> Result<KeyState, StateError> {
        transition(self.kind(), self.state(now), operation).map_err(|error| match error {
            StateError::InvalidState(InvalidState::PendingImport) => {
                StateError::InvalidState(self.why_pending_import(now))
            }
            error => error,
        })
    }

    /// What to say where materials are wanting.
    pub(super) fn why_pending_import(&self, now: Timestamp) -> InvalidState {
        match self.missing(now) {
            Some(Missing::Expired) => InvalidState::Expired,
            Some(Missing::Deleted) | None => InvalidState::PendingImport,
        }
    }

    /// The materials under which something may be wrapped: the key is usable only with all of them.
    pub(super) fn permanent(&self) -> impl Iterator<Item = &MaterialRecord> {
        self.materials
            .iter()
            .filter(|material| Some(material.key_material_id) != self.pending_key_material_id)
    }

    /// Whether every permanent material is there, and one at least.
    pub(super) fn is_complete(&self, now: Timestamp) -> bool {
        self.current_key_material_id.is_some() && self.missing(now).is_none()
    }

    /// Why permanent materials are wanting, if they are.
    fn missing(&self, now: Timestamp) -> Option<Missing> {
        let mut all = self
            .permanent()
            .filter_map(|material| material.missing(now));
        let first = all.next()?;
        Some(if all.any(|why| why == Missing::Expired) {
            Missing::Expired
        } else {
            first
        })
    }

    /// What is known of a material.
    pub(super) fn material(&self, id: MaterialId) -> Option<&MaterialRecord> {
        self.materials
            .iter()
            .find(|material| material.key_material_id == id)
    }

    /// The same, to change it.
    pub(super) fn material_mut(&mut self, id: MaterialId) -> Option<&mut MaterialRecord> {
        self.materials
            .iter_mut()
            .find(|material| material.key_material_id == id)
    }

    /// The next moment at which a permanent material expires.
    pub(super) fn valid_to(&self) -> Option<Timestamp> {
        self.permanent()
            .filter(|material| material.missing.is_none())
            .filter_map(|material| material.valid_to)
            .min()
    }

    /// Whether the materials that are there expire; nothing where there are none, or none is imported.
    pub(super) fn expiration_model(&self) -> Option<ExpirationModel> {
        let imported = self.origin == Origin::External;
        let there = self.permanent().any(|material| material.missing.is_none());
        (imported && there).then(|| match self.valid_to() {
            Some(_) => ExpirationModel::KeyMaterialExpires,
            None => ExpirationModel::KeyMaterialDoesNotExpire,
        })
    }
}
