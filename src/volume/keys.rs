//! The embedded key service as the filesystem's port to keys: translates, decides nothing.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::crypto::envelope::DataKey;
use crate::format::envelope::{EncryptionContext, Envelope};
use crate::format::header::KeyBinding;
use crate::fs::keys::{KeyPort, KeyUnavailable};
use crate::ids::{KeyId, VolumeId};
use crate::kms::alias::AliasName;
use crate::kms::error::{self, KmsError};
use crate::kms::key::KeyRef;
use crate::kms::service::KeyService;

/// The key service as the port of one volume.
pub struct ServicePort {
    service: Arc<KeyService>,
    /// The volume, from its first request on: no key can be in use before.
    volume: OnceLock<VolumeId>,
}

impl ServicePort {
    /// The port to `service`.
    #[must_use]
    pub const fn new(service: Arc<KeyService>) -> Self {
        Self {
            service,
            volume: OnceLock::new(),
        }
    }
}

/// A directory's binding to what people call a key: an alias is resolved each time something is wrapped.
#[must_use]
pub fn binding_of(key: &KeyRef) -> KeyBinding {
    match key {
        KeyRef::Id(id) => KeyBinding::Key(*id),
        KeyRef::Alias(alias) => KeyBinding::Alias(alias.to_string()),
    }
}

/// The same complaint again is held back so long: while a log cannot be written, every file that is opened meets it.
const QUIET: Duration = Duration::from_secs(60);

/// Complaints that are not repeated at once.
struct Complaints(Mutex<Option<(String, Instant)>>);

static COMPLAINTS: Complaints = Complaints(Mutex::new(None));

impl Complaints {
    /// Whether it is time to say it.
    fn is_news(&self, text: &str, now: Instant) -> bool {
        let mut last = self.0.lock();
        let said = last.as_ref().is_some_and(|(said, at)| {
            said == text && now.saturating_duration_since(*at) < QUIET
        });
        if !said {
            *last = Some((text.to_owned(), now));
        }
        !said
    }

    fn complain(&self, text: &str) {
        if self.is_news(text, Instant::now()) {
            log::error!("{text}");
        }
    }
}

/// What the filesystem is told; what it is not told goes into the log.
fn unavailable(error: &KmsError) -> KeyUnavailable {
    match error.availability() {
        error::KeyUnavailable::Disabled => KeyUnavailable::Disabled,
        error::KeyUnavailable::PendingDeletion => KeyUnavailable::PendingDeletion,
        error::KeyUnavailable::NoMaterial => KeyUnavailable::NoMaterial,
        error::KeyUnavailable::Expired => KeyUnavailable::Expired,
        error::KeyUnavailable::Rejected => KeyUnavailable::Rejected,
        error::KeyUnavailable::Denied => KeyUnavailable::Denied,
        error::KeyUnavailable::Other => {
            COMPLAINTS.complain(&error.to_string());
            KeyUnavailable::Store
        }
    }
}

/// The key that a binding names.
fn key_of(binding: &KeyBinding) -> Result<KeyRef, KeyUnavailable> {
    Ok(match binding {
        KeyBinding::Key(id) => KeyRef::Id(*id),
        // The header that holds it is authentic, so this is an alias as it once was.
        KeyBinding::Alias(alias) => KeyRef::Alias(
            alias
                .parse::<AliasName>()
                .map_err(|_| KeyUnavailable::NoMaterial)?,
        ),
    })
}

impl KeyPort for ServicePort {
    fn generate_data_key(
        &self,
        binding: &KeyBinding,
        context: &EncryptionContext,
    ) -> Result<(DataKey, Envelope), KeyUnavailable> {
        self.volume.get_or_init(|| context.volume);
        self.service
            .generate_data_key(&key_of(binding)?, context)
            .map_err(|error| unavailable(&error))
    }

    fn unwrap_data_key(
        &self,
        envelope: &Envelope,
        context: &EncryptionContext,
    ) -> Result<DataKey, KeyUnavailable> {
        self.volume.get_or_init(|| context.volume);
        self.service
            .decrypt_data_key(envelope, context)
            .map_err(|error| unavailable(&error))
    }

    fn rewrap_data_key(
        &self,
        binding: &KeyBinding,
        envelope: &Envelope,
        context: &EncryptionContext,
    ) -> Result<Option<Envelope>, KeyUnavailable> {
        self.volume.get_or_init(|| context.volume);
        self.service
            .re_encrypt_data_key(&key_of(binding)?, envelope, context)
            .map_err(|error| unavailable(&error))
    }

    fn check(&self, key: &KeyId) -> Result<(), KeyUnavailable> {
        self.service
            .key_status_for(*key, self.volume.get().copied())
            .map_err(|error| unavailable(&error))
    }
}
