//! Imported key material: ImportKeyMaterial, DeleteImportedKeyMaterial.

use super::KeyService;
use crate::crypto::kdf::material_id;
use crate::ids::MaterialId;
use crate::kms::error::KmsError;
use crate::kms::event::Event;
use crate::kms::import::{ImportRequest, KeyMaterialChange, check_valid_to};
use crate::kms::key::{KeyRef, rfc3339_text};
use crate::kms::record::Missing;
use crate::kms::state::Operation;

impl KeyService {
    /// ImportKeyMaterial: into a key of origin EXTERNAL, its first material, one that it had before, or one to rotate to.
    ///
    /// # Errors
    /// [`KmsError::NotFoundException`], [`KmsError::UnsupportedOperationException`] for a key with generated material,
    /// [`KmsError::IncorrectKeyMaterialException`], [`KmsError::KMSInvalidStateException`],
    /// [`KmsError::ValidationException`] for an expiry in the past or more than a year ahead.
    pub fn import_key_material(
        &self,
        key: &KeyRef,
        request: &ImportRequest,
    ) -> Result<KeyMaterialChange, KmsError> {
        let mut event = Event::new("ImportKeyMaterial").asked(key);
        if let Some(import_type) = request.import_type {
            event = event.with("importType", import_type.as_str());
        }
        event = match request.valid_to {
            Some(end) => event
                .with("expirationModel", "KEY_MATERIAL_EXPIRES")
                .with("validTo", rfc3339_text(end)),
            None => event.with("expirationModel", "KEY_MATERIAL_DOES_NOT_EXPIRE"),
        };
        self.change(event, |change| {
            let old = self.admit(&mut change.event, key, Operation::ImportKeyMaterial)?;
            let now = self.clock.now();
            check_valid_to(now, request.valid_to)?;
            let key = old.value.key_id;
            let id = material_id(&key, request.material.secret());
            change.event.material(id);
            let import_type = request
                .import_type
                .unwrap_or_else(|| old.value.expected_import());
            let record = old
                .value
                .with_imported(now, id, request.valid_to, import_type)?;
            change.put_material(key, id, request.material.secret());
            change.put_key(Some(&old), &record)?;
            Ok(KeyMaterialChange {
                key_id: key,
                key_material_id: Some(id),
                key_state: record.key_state,
            })
        })
    }

    /// DeleteImportedKeyMaterial: at once, without waiting. Of the current material where none is named; one that is not
    /// there any more stays so.
    ///
    /// # Errors
    /// [`KmsError::NotFoundException`], [`KmsError::UnsupportedOperationException`] for a key with generated material,
    /// [`KmsError::IncorrectKeyMaterialException`] where the key never had the material.
    pub fn delete_imported_key_material(
        &self,
        key: &KeyRef,
        material: Option<MaterialId>,
    ) -> Result<KeyMaterialChange, KmsError> {
        let mut event = Event::new("DeleteImportedKeyMaterial")
            .asked(key)
            .restricting();
        if let Some(id) = material {
            event = event.with("keyMaterialId", id.to_string());
        }
        self.change(event, |change| {
            let operation = Operation::DeleteImportedKeyMaterial;
            let old = self.admit(&mut change.event, key, operation)?;
            let key_id = old.value.key_id;
            let id = material.or(old.value.current_key_material_id);
            let mut key_state = old.value.state(self.clock.now());
            if let Some(id) = id {
                change.event.material(id);
                let Some(known) = old.value.material(id) else {
                    return Err(KmsError::IncorrectKeyMaterialException {
                        key: key_id,
                        why: "it never had a material of this id",
                    });
                };
                if known.missing.is_none() {
                    let record = old.value.without_material(id, Missing::Deleted);
                    key_state = record.key_state;
                    change.destroy_material(key_id, id);
                    change.put_key(Some(&old), &record)?;
                }
            }
            Ok(KeyMaterialChange {
                key_id,
                key_material_id: id,
                key_state,
            })
        })
    }
}
