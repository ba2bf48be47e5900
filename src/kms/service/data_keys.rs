//! What the files of a volume need: GenerateDataKey, Decrypt, and whether the latter may be used.

use super::KeyService;
use super::usage::Use;
use crate::crypto::envelope::DataKey;
use crate::format::envelope::{EncryptionContext, Envelope};
use crate::ids::{KeyId, MaterialId, VolumeId};
use crate::kms::error::{InvalidCiphertext, KmsError};
use crate::kms::key::KeyRef;
use crate::kms::material::UsableKey;
use crate::kms::policy::{Context, Permission, Request};
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
            let request = Request::new(of.operation).with_context(Context::Object(context));
            let permission = self.authorize(&key.value, &request)?;
            let usable = self.usable(&key.value, &permission, Operation::GenerateDataKey, None)?;
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
            let request = Request::new(of.operation).with_context(Context::Object(context));
            let permission = self.authorize(&key.value, &request)?;
            let material = envelope.material_id();
            let usable =
                self.usable(&key.value, &permission, Operation::Decrypt, Some(material))?;
            of.material = Some(material);
            usable.unwrap(envelope, context)
        })
    }

    /// ReEncrypt: wraps the data key of the object that `context` names anew, under the current material of `key`; `None`
    /// where that wraps it already. Allowed by two permissions, as at AWS: ReEncryptFrom of the key it is under, and
    /// ReEncryptTo of the one it is to be under.
    ///
    /// # Errors
    /// Whatever [`KmsError::availability`] sorts, of the key it was under or of the one it is to be under.
    pub fn re_encrypt_data_key(
        &self,
        key: &KeyRef,
        envelope: &Envelope,
        context: &EncryptionContext,
    ) -> Result<Option<Envelope>, KmsError> {
        let source = (envelope.key_id(), envelope.material_id());
        if let Ok(id) = self.resolve(key)
            && let Ok(destination) = self.store.key(id)
            && source.0 == id
            && Some(source.1) == destination.value.current_key_material_id
        {
            self.key_status_for(id, Some(context.volume))?;
            return Ok(None);
        }
        let mut of = Use::new("ReEncrypt", key.clone(), context);
        of.source = Some(source);
        self.with_data_key(of, |of| {
            let operation = Operation::ReEncrypt;
            let about = Context::Object(context);
            let id = self.resolve(key)?;
            of.key = Some(id);
            let from = self.store.key(source.0)?;
            let request = Request::new("ReEncryptFrom").with_context(about);
            let permission = self.authorize(&from.value, &request)?;
            let usable = self.usable(&from.value, &permission, operation, Some(source.1))?;
            let data_key = usable.unwrap(envelope, context)?;
            let to = self.store.key(id)?;
            let request = Request::new("ReEncryptTo").with_context(about);
            let permission = self.authorize(&to.value, &request)?;
            let usable = self.usable(&to.value, &permission, operation, None)?;
            let envelope = usable.wrap(&data_key, context);
            of.material = Some(envelope.material_id());
            Ok(Some(envelope))
        })
    }

    /// Whether Decrypt may be used now: what a running mount asks of each of its keys, a few times a second. Costs
    /// two stat calls and one for each material when nothing changed, and misses no change, whoever made it: another
    /// process, or somebody who put another key directory in the place of this one.
    ///
    /// # Errors
    /// Whatever [`KmsError::availability`] sorts.
    pub fn key_status(&self, key: KeyId) -> Result<(), KmsError> {
        self.key_status_for(key, None)
    }

    /// The same for the data keys of one volume, which a policy may single out. Where a policy tells the objects of a
    /// volume apart, this says whether any of them could be decrypted.
    ///
    /// # Errors
    /// Whatever [`KmsError::availability`] sorts.
    pub fn key_status_for(&self, key: KeyId, volume: Option<VolumeId>) -> Result<(), KmsError> {
        let record = self.store.key(key)?;
        let request = Request::new("Decrypt").with_context(Context::SomeObject(volume));
        // A thread that had read the old record may have loaded a material just after the change was noticed.
        self.authorize(&record.value, &request)
            .and_then(|_| self.check_state(&record, Operation::Decrypt))
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
        permission: &Permission,
        operation: Operation,
        named: Option<MaterialId>,
    ) -> Result<UsableKey, KmsError> {
        UsableKey::admit(key, permission, self.clock.now(), operation, || {
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
