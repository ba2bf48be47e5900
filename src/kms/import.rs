//! Imported key material (AWS's ImportKeyMaterial, DeleteImportedKeyMaterial): what may be imported into which key. Knows
//! no file.

use serde::Serialize;
use zeroize::Zeroize;

use super::error::KmsError;
use super::key::rfc3339_text;
use super::record::{KeyRecord, MaterialRecord};
use super::state::{InvalidState, KeyState};
use crate::clock::Timestamp;
use crate::ids::{KeyId, MaterialId};
use crate::secret::Secret;

/// Most days from an import to the expiry of what was imported.
pub const MAX_VALID_DAYS: u16 = 365;
/// Among 32 random bytes there are practically always more different ones.
const FEWEST_DIFFERENT: usize = 12;

/// 32 bytes from outside that are to become key material.
#[derive(Debug)]
pub struct ImportedMaterial(Secret<32>);

impl ImportedMaterial {
    /// Takes exactly 32 bytes, and wipes the caller's copy of them. Refuses what cannot be random: text, one byte again
    /// and again, counting. That it is random is for its owner to know.
    ///
    /// # Errors
    /// [`KmsError::ValidationException`].
    pub fn take(bytes: &mut [u8]) -> Result<Self, KmsError> {
        let refused = |why: String| {
            Err(KmsError::ValidationException(format!(
                "this cannot be key material: {why}"
            )))
        };
        let length = bytes.len();
        let Ok(exact) = <&mut [u8; 32]>::try_from(&mut *bytes) else {
            bytes.zeroize();
            return refused(format!("32 bytes are wanted, not {length}"));
        };
        let secret = Secret::take(exact);
        match not_random(secret.expose()) {
            Some(why) => refused(why.to_owned()),
            None => Ok(Self(secret)),
        }
    }

    pub(super) const fn secret(&self) -> &Secret<32> {
        &self.0
    }
}

fn not_random(bytes: &[u8; 32]) -> Option<&'static str> {
    let mut seen = [false; 256];
    bytes
        .iter()
        .for_each(|byte| seen[usize::from(*byte)] = true);
    let different = seen.iter().filter(|seen| **seen).count();
    seen.zeroize();
    let step = bytes[1].wrapping_sub(bytes[0]);
    if different < FEWEST_DIFFERENT {
        Some("the same few bytes come again and again; it has to be random")
    } else if bytes
        .windows(2)
        .all(|two| two[1].wrapping_sub(two[0]) == step)
    {
        Some("it only counts; it has to be random")
    } else if bytes.iter().all(u8::is_ascii) {
        Some("it is text; 32 random bytes are wanted, as they are")
    } else {
        None
    }
}

/// Which material is imported: AWS's ImportType.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImportType {
    /// The key's first, or one to rotate to.
    NewKeyMaterial,
    /// One that was imported before.
    ExistingKeyMaterial,
}

impl ImportType {
    /// The name as it is shown.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NewKeyMaterial => "NEW_KEY_MATERIAL",
            Self::ExistingKeyMaterial => "EXISTING_KEY_MATERIAL",
        }
    }
}

/// What ImportKeyMaterial is asked for.
#[derive(Debug)]
pub struct ImportRequest {
    /// The material.
    pub material: ImportedMaterial,
    /// When it expires; without, never.
    pub valid_to: Option<Timestamp>,
    /// Which it is; without, the first one is new and any other an existing one.
    pub import_type: Option<ImportType>,
}

/// What became of an import or of a deletion: AWS's answer to both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct KeyMaterialChange {
    /// The key.
    pub key_id: KeyId,
    /// The material; none where a key without any was to lose it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_material_id: Option<MaterialId>,
    /// The key's state from now on.
    pub key_state: KeyState,
}

/// An expiry lies in the future, and not too far.
pub(super) fn check_valid_to(now: Timestamp, valid_to: Option<Timestamp>) -> Result<(), KmsError> {
    let Some(end) = valid_to else {
        return Ok(());
    };
    if now < end && end <= now.plus_days(MAX_VALID_DAYS) {
        return Ok(());
    }
    Err(KmsError::ValidationException(format!(
        "imported material expires in the future, at most {MAX_VALID_DAYS} days from now, not on {}",
        rfc3339_text(end)
    )))
}

impl KeyRecord {
    /// What is imported where nothing is said.
    pub(super) fn expected_import(&self) -> ImportType {
        if self.materials.is_empty() {
            ImportType::NewKeyMaterial
        } else {
            ImportType::ExistingKeyMaterial
        }
    }

    /// The record with the material `id` there. The state allows it.
    ///
    /// # Errors
    /// [`KmsError::IncorrectKeyMaterialException`], and [`KmsError::KMSInvalidStateException`] where a new material
    /// waits to be rotated to already.
    pub(super) fn with_imported(
        &self,
        now: Timestamp,
        id: MaterialId,
        valid_to: Option<Timestamp>,
        import_type: ImportType,
    ) -> Result<Self, KmsError> {
        let incorrect = |why| KmsError::IncorrectKeyMaterialException {
            key: self.key_id,
            why,
        };
        let mut record = self.clone();
        record.key_state = self.state(now);
        match (import_type, record.material_mut(id)) {
            (ImportType::ExistingKeyMaterial, Some(known)) => {
                known.missing = None;
                known.valid_to = valid_to;
            }
            (ImportType::ExistingKeyMaterial, None) => {
                return Err(incorrect(
                    "only what was imported before can be imported again",
                ));
            }
            (ImportType::NewKeyMaterial, Some(_)) => {
                return Err(incorrect("it was imported before, so it is not new"));
            }
            (ImportType::NewKeyMaterial, None) => {
                if self.pending_key_material_id.is_some() {
                    return Err(KmsError::KMSInvalidStateException {
                        key: self.key_id,
                        why: InvalidState::RotationPending,
                    });
                }
                let material = MaterialRecord::new(id, now, None, valid_to);
                record.materials.push(material);
                if self.current_key_material_id.is_none() {
                    record.current_key_material_id = Some(id);
                } else {
                    record.pending_key_material_id = Some(id);
                }
            }
        }
        // What waits to be rotated to brings nothing back.
        if record.pending_key_material_id != Some(id) && record.is_complete(now) {
            record.key_state = KeyState::Enabled;
        }
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_random_is_no_key_material() {
        let bad: [&[u8]; 8] = [
            b"",
            &[1; 31],
            &[1; 33],
            &[0; 32],
            &[0xff; 32],
            &std::array::from_fn::<u8, 32, _>(|at| at as u8),
            &std::array::from_fn::<u8, 32, _>(|at| (at % 5) as u8),
            b"0123456789abcdeffedcba9876543210",
        ];
        for bytes in bad {
            let mut copy = bytes.to_vec();
            assert!(ImportedMaterial::take(&mut copy).is_err(), "{bytes:?}");
            assert!(copy.iter().all(|byte| *byte == 0), "{bytes:?} is wiped");
        }
        for _ in 0..1000 {
            let mut bytes = *Secret::<32>::random().unwrap().expose();
            assert!(ImportedMaterial::take(&mut bytes).is_ok());
        }
    }

    #[test]
    fn an_expiry_lies_at_most_a_year_ahead() {
        let now = Timestamp(1_700_000_000_000);
        let at = |end| check_valid_to(now, Some(end));
        assert!(check_valid_to(now, None).is_ok());
        assert!(at(now).is_err());
        assert!(at(Timestamp(now.0 + 1)).is_ok());
        assert!(at(now.plus_days(365)).is_ok());
        assert!(at(Timestamp(now.plus_days(365).0 + 1)).is_err());
    }
}
