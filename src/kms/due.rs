//! What time alone does to a key: deletion at the end of its waiting, expiry of imported material, automatic rotation.
//! Pure: says what is due and when the next thing will be.

use super::record::{KeyRecord, Missing};
use super::state::KeyState;
use crate::clock::Timestamp;
use crate::ids::MaterialId;

/// Something whose time has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// The key is to go.
    Deletion,
    /// This material is to go.
    Expiry(MaterialId),
    /// The key is to get a new material.
    Rotation,
}

impl KeyRecord {
    /// What is to be done first at the moment `now`.
    pub(super) fn due(&self, now: Timestamp) -> Option<Due> {
        if self.deletion_date().is_some_and(|date| date <= now) {
            return Some(Due::Deletion);
        }
        if let Some(material) = self.materials.iter().find(|material| material.is_past(now)) {
            return Some(Due::Expiry(material.key_material_id));
        }
        let rotation = self.rotation_date().is_some_and(|date| date <= now);
        rotation.then_some(Due::Rotation)
    }

    /// When something will be due, unless the record changes.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        let there = self
            .materials
            .iter()
            .filter(|material| material.missing.is_none());
        there
            .filter_map(|material| material.valid_to)
            .chain(self.deletion_date())
            .chain(self.rotation_date())
            .min()
    }

    /// The record without the material `id`. What is left of it is remembered, unless nothing was ever wrapped under it.
    pub(super) fn without_material(&self, id: MaterialId, why: Missing) -> Self {
        let mut record = self.clone();
        if self.pending_key_material_id == Some(id) {
            record.pending_key_material_id = None;
            record
                .materials
                .retain(|material| material.key_material_id != id);
            return record;
        }
        if let Some(material) = record.material_mut(id) {
            material.missing = Some(why);
            material.valid_to = None;
            if self.key_state != KeyState::PendingDeletion {
                record.key_state = KeyState::PendingImport;
            }
        }
        record
    }

    fn deletion_date(&self) -> Option<Timestamp> {
        self.deletion
            .filter(|_| self.key_state == KeyState::PendingDeletion)
            .map(|deletion| deletion.deletion_date)
    }

    /// A disabled key is rotated once it is enabled again.
    fn rotation_date(&self) -> Option<Timestamp> {
        self.schedule()
            .filter(|_| self.key_state == KeyState::Enabled)
            .map(|schedule| schedule.next_rotation_date)
    }
}
