//! What the files of a volume need: GenerateDataKey, Decrypt, and whether the latter may be used.

use super::KeyService;
use super::usage::Use;
use crate::crypto::envelope::DataKey;
use crate::format::envelope::{EncryptionContext, Envelope};
use crate::ids::{KeyId, MaterialId};
use crate::kms::error::{InvalidCiphertext, KmsError};
use crate::kms::key::KeyRef;
use crate::kms::material::UsableKey;
use crate::kms::record::KeyRecord;
use crate::kms::state::{InvalidState, Operation};

impl KeyService {
    /// GenerateDataKey: a new data key for the object that `context` names, and the same wrapped under `key`.
    ///
    /// # Errors
    /// Whatever [`KmsError::availability`] sorts.
    pub fn generate_data_key(
        &self,
        key: &KeyRef,
        context: &EncryptionContext,
    ) -> Result<(DataKey, Envelope), KmsError> {
        let of = Use::new("GenerateDataKey", key.clone(), context);
        self.with_data_key(of, |of| {
            let id = self.resolve(key)?;
            of.key = Some(id);
            let key = self.store.key(id)?;
            let usable = self.usable(&key.value, Operation::GenerateDataKey, None)?;
            let data_key = DataKey::random()?;
            let envelope = usable.wrap(&data_key, context);
            of.material = Some(envelope.material_id());
            Ok((data_key, envelope))
        })
    }

    /// Decrypt: unwraps the data key of the object that `context` names. Costs three stat calls when nothing changed.
    ///
    /// # Errors
    /// Whatever [`KmsError::availability`] sorts.
    pub fn decrypt_data_key(
        &self,
        envelope: &Envelope,
        context: &EncryptionContext,
    ) -> Result<DataKey, KmsError> {
        let id = envelope.key_id();
        let of = Use::new("Decrypt", id.into(), context);
        self.with_data_key(of, |of| {
            of.key = Some(id);
            let key = self.store.key(id)?;
            let material = envelope.material_id();
            let usable = self.usable(&key.value, Operation::Decrypt, Some(material))?;
            of.material = Some(material);
            usable.unwrap(envelope, context)
        })
    }

    /// Whether Decrypt may be used now: what a running mount asks of each of its keys, a few times a second. Costs
    /// two stat calls and one for each material when nothing changed, and misses no change, whoever made it: another
    /// process, or somebody who put another key directory in the place of this one.
    ///
    /// # Errors
    /// Whatever [`KmsError::availability`] sorts.
    pub fn key_status(&self, key: KeyId) -> Result<(), KmsError> {
        let record = self.store.key(key)?;
        // A thread that had read the old record may have loaded a material just after the change was noticed.
        self.check_state(&record, Operation::Decrypt)
            .inspect_err(|_| self.store.forget_materials(key))?;
        for material in record.value.permanent() {
            self.store.material(key, material.key_material_id)?;
        }
        Ok(())
    }

    /// The material of this id, or else the current one.
    pub(super) fn usable(
        &self,
        key: &KeyRecord,
        operation: Operation,
        named: Option<MaterialId>,
    ) -> Result<UsableKey, KmsError> {
        UsableKey::admit(key, self.clock.now(), operation, || {
            let id = match named {
                None => key.current_key_material_id,
                Some(named) => {
                    let mut known = key.permanent().map(|of| of.key_material_id);
                    Some(known.find(|id| *id == named).ok_or(
                        KmsError::InvalidCiphertextException(InvalidCiphertext::Rejected {
                            key: key.key_id,
                        }),
                    )?)
                }
            };
            match id {
                Some(id) => self.store.material(key.key_id, id),
                None => Err(KmsError::KMSInvalidStateException {
                    key: key.key_id,
                    why: InvalidState::PendingImport,
                }),
            }
        })
    }
}
