//! What people and programs are told of a CMK, in AWS's field names: DescribeKey with GetKeyRotationStatus.

use serde::{Serialize, Serializer};

use super::key::{
    Description, ExpirationModel, KeyManager, Origin, Tags, rfc3339, rfc3339_optional,
};
use super::record::KeyRecord;
use super::state::KeyState;
use crate::clock::Timestamp;
use crate::ids::{KeyId, MaterialId};

/// What is known of a CMK: AWS's KeyMetadata, and the answer to GetKeyRotationStatus.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct KeyMetadata {
    /// The key's id.
    pub key_id: KeyId,
    /// When it was made.
    #[serde(serialize_with = "rfc3339")]
    pub creation_date: Timestamp,
    /// Whether the state is Enabled.
    pub enabled: bool,
    /// Text for people.
    pub description: Description,
    /// Always ENCRYPT_DECRYPT.
    pub key_usage: &'static str,
    /// Always SYMMETRIC_DEFAULT: 256 bits for authenticated encryption.
    pub key_spec: &'static str,
    /// The key's state.
    pub key_state: KeyState,
    /// When it will be deleted; only while that is pending.
    #[serde(
        serialize_with = "rfc3339_optional",
        skip_serializing_if = "Option::is_none"
    )]
    pub deletion_date: Option<Timestamp>,
    /// How long that was made to wait, in days.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pending_deletion_window_in_days: Option<u16>,
    /// Who looks after it.
    pub key_manager: KeyManager,
    /// Where its material comes from.
    pub origin: Origin,
    /// The material that new data keys are wrapped under.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current_key_material_id: Option<MaterialId>,
    /// Whether its imported material expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiration_model: Option<ExpirationModel>,
    /// When the first of it does.
    #[serde(
        serialize_with = "rfc3339_optional",
        skip_serializing_if = "Option::is_none"
    )]
    pub valid_to: Option<Timestamp>,
    /// Whether it is rotated by itself.
    pub key_rotation_enabled: bool,
    /// How often, in days.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotation_period_in_days: Option<u16>,
    /// When the next time is.
    #[serde(
        serialize_with = "rfc3339_optional",
        skip_serializing_if = "Option::is_none"
    )]
    pub next_rotation_date: Option<Timestamp>,
    /// Tags.
    #[serde(serialize_with = "tag_list")]
    pub tags: Tags,
}

impl KeyMetadata {
    /// What `record` means at the moment `now`.
    pub(super) fn new(record: &KeyRecord, now: Timestamp) -> Self {
        let key_state = record.state(now);
        let deletion = record
            .deletion
            .filter(|_| key_state == KeyState::PendingDeletion);
        let rotation = record
            .schedule()
            .filter(|_| key_state != KeyState::PendingDeletion);
        Self {
            key_id: record.key_id,
            creation_date: record.creation_date,
            enabled: key_state == KeyState::Enabled,
            description: record.description.clone(),
            key_usage: "ENCRYPT_DECRYPT",
            key_spec: "SYMMETRIC_DEFAULT",
            key_state,
            deletion_date: deletion.map(|deletion| deletion.deletion_date),
            pending_deletion_window_in_days: deletion
                .map(|deletion| deletion.pending_window_in_days),
            key_manager: record.key_manager,
            origin: record.origin,
            current_key_material_id: record.current_key_material_id,
            expiration_model: record.expiration_model(),
            valid_to: record.valid_to(),
            key_rotation_enabled: rotation.is_some(),
            rotation_period_in_days: rotation.map(|schedule| schedule.rotation_period_in_days),
            next_rotation_date: rotation.map(|schedule| schedule.next_rotation_date),
            tags: record.tags.clone(),
        }
    }
}

/// What GetKeyRotationStatus answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct KeyRotationStatus {
    /// The key.
    pub key_id: KeyId,
    /// Whether it is rotated by itself.
    pub key_rotation_enabled: bool,
    /// How often, in days.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rotation_period_in_days: Option<u16>,
    /// When the next time is.
    #[serde(
        serialize_with = "rfc3339_optional",
        skip_serializing_if = "Option::is_none"
    )]
    pub next_rotation_date: Option<Timestamp>,
}

impl KeyRotationStatus {
    pub(super) const fn of(key: &KeyMetadata) -> Self {
        Self {
            key_id: key.key_id,
            key_rotation_enabled: key.key_rotation_enabled,
            rotation_period_in_days: key.rotation_period_in_days,
            next_rotation_date: key.next_rotation_date,
        }
    }
}

fn tag_list<S: Serializer>(tags: &Tags, serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Tag<'a> {
        tag_key: &'a str,
        tag_value: &'a str,
    }
    serializer.collect_seq(
        tags.iter()
            .map(|(tag_key, tag_value)| Tag { tag_key, tag_value }),
    )
}
