//! Small secrets encrypted directly under a key: Encrypt, Decrypt, ReEncrypt.

use zeroize::Zeroizing;

use super::KeyService;
use crate::format::ciphertext::{Ciphertext, MAX_PLAINTEXT, TextContext};
use crate::kms::error::{InvalidCiphertext, KmsError};
use crate::kms::event::Event;
use crate::kms::key::KeyRef;
use crate::kms::policy::{Context, Request};
use crate::kms::state::Operation;

impl KeyService {
    /// Encrypt: 1 to 4,096 bytes under the current material of `key`.
    ///
    /// # Errors
    /// [`KmsError::ValidationException`] for more or none, [`KmsError::NotFoundException`],
    /// [`KmsError::DisabledException`], [`KmsError::KMSInvalidStateException`].
    pub fn encrypt(
        &self,
        key: &KeyRef,
        plaintext: &[u8],
        context: &TextContext,
    ) -> Result<Vec<u8>, KmsError> {
        let event = with_context(
            Event::reading("Encrypt").asked(key),
            "encryptionContext",
            context,
        );
        self.read(event, |event| {
            self.encrypt_under(event, key, Operation::Encrypt, plaintext, context)
        })
    }

    /// Decrypt: what [`Self::encrypt`] made. The ciphertext names its key; where `key` is given too, it must be that one.
    ///
    /// # Errors
    /// [`KmsError::InvalidCiphertextException`], [`KmsError::IncorrectKeyException`], [`KmsError::NotFoundException`],
    /// [`KmsError::DisabledException`], [`KmsError::KMSInvalidStateException`].
    pub fn decrypt(
        &self,
        key: Option<&KeyRef>,
        ciphertext: &[u8],
        context: &TextContext,
    ) -> Result<Zeroizing<Vec<u8>>, KmsError> {
        let event = with_context(Event::reading("Decrypt"), "encryptionContext", context);
        let event = match key {
            Some(key) => event.asked(key),
            None => event,
        };
        self.read(event, |event| {
            self.decrypt_with(event, key, Operation::Decrypt, ciphertext, context)
        })
    }

    /// ReEncrypt: decrypts, and encrypts under `destination`; the plaintext is seen by nobody.
    ///
    /// # Errors
    /// As [`Self::decrypt`] and [`Self::encrypt`].
    pub fn re_encrypt(
        &self,
        ciphertext: &[u8],
        source_context: &TextContext,
        destination: &KeyRef,
        destination_context: &TextContext,
    ) -> Result<Vec<u8>, KmsError> {
        let event = Event::reading("ReEncrypt").with("destinationKeyId", destination.name());
        let event = with_context(event, "sourceEncryptionContext", source_context);
        let event = with_context(event, "destinationEncryptionContext", destination_context);
        self.read(event, |event| {
            let operation = Operation::ReEncrypt;
            let plaintext =
                self.decrypt_with(event, None, operation, ciphertext, source_context)?;
            if let Ok(source) = Ciphertext::decode(ciphertext) {
                event.source(source.header.key_id(), source.header.material_id());
            }
            self.encrypt_under(
                event,
                destination,
                operation,
                &plaintext,
                destination_context,
            )
        })
    }

    fn encrypt_under(
        &self,
        event: &mut Event,
        key: &KeyRef,
        operation: Operation,
        plaintext: &[u8],
        context: &TextContext,
    ) -> Result<Vec<u8>, KmsError> {
        check_context(context)?;
        // AWS: ReEncrypt is allowed by two permissions, one for each side.
        let action = match operation {
            Operation::ReEncrypt => "ReEncryptTo",
            _ => "Encrypt",
        };
        let request = Request::new(action).with_context(Context::Text(&context.0));
        let (key, permission) = self.admit_request(event, key, operation, &request)?;
        if plaintext.is_empty() || plaintext.len() > MAX_PLAINTEXT {
            return Err(KmsError::ValidationException(format!(
                "1 to {MAX_PLAINTEXT} bytes can be encrypted directly, not {}; larger things belong into a volume",
                plaintext.len()
            )));
        }
        let usable = self.usable(&key.value, &permission, operation, None)?;
        event.material(usable.material_id());
        Ok(usable.encrypt(plaintext, context).encode())
    }

    fn decrypt_with(
        &self,
        event: &mut Event,
        key: Option<&KeyRef>,
        operation: Operation,
        ciphertext: &[u8],
        context: &TextContext,
    ) -> Result<Zeroizing<Vec<u8>>, KmsError> {
        check_context(context)?;
        let ciphertext = Ciphertext::decode(ciphertext).map_err(|error| {
            KmsError::InvalidCiphertextException(InvalidCiphertext::Format(error))
        })?;
        let named = ciphertext.header.key_id();
        event.about(named);
        if let Some(asked) = key
            && self.resolve(asked)? != named
        {
            return Err(KmsError::IncorrectKeyException {
                asked: asked.clone(),
                named,
            });
        }
        let action = match operation {
            Operation::ReEncrypt => "ReEncryptFrom",
            _ => "Decrypt",
        };
        let request = Request::new(action).with_context(Context::Text(&context.0));
        let (record, permission) = self.admit_request(event, &named.into(), operation, &request)?;
        let material = ciphertext.header.material_id();
        event.material(material);
        self.usable(&record.value, &permission, operation, Some(material))?
            .decrypt(&ciphertext, context)
    }
}

/// Most bytes of an encryption context, names and values: AWS's limit.
const MAX_CONTEXT: usize = 8192;

fn context_len(context: &TextContext) -> usize {
    let pairs = context.0.iter();
    pairs.map(|(name, value)| name.len() + value.len()).sum()
}

fn check_context(context: &TextContext) -> Result<(), KmsError> {
    match context_len(context) {
        0..=MAX_CONTEXT => Ok(()),
        length => Err(KmsError::ValidationException(format!(
            "the encryption context has at most {MAX_CONTEXT} bytes, not {length}"
        ))),
    }
}

fn with_context(event: Event, name: &str, context: &TextContext) -> Event {
    // One that is too long is refused; the log need not hold it.
    if context.0.is_empty() || context_len(context) > MAX_CONTEXT {
        return event;
    }
    let pairs = context.0.iter();
    let pairs: serde_json::Map<_, _> = pairs
        .map(|(name, value)| (name.clone(), value.clone().into()))
        .collect();
    event.with(name, pairs)
}
