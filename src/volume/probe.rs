//! A wrapped data key that somebody tries to unwrap, to see whether its CMK still does that: before an erasure and after.
//! It is the object's envelope with its encryption context, so it can be tried where the volume is out of reach, too.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::walk::Object;
use crate::format::envelope::{EncryptionContext, Envelope, ObjectKind};
use crate::ids::{KeyId, MaterialId, ObjectId, VolumeId};
use crate::kms::KmsError;
use crate::kms::key::KeyRef;
use crate::kms::service::KeyService;

/// A wrapped data key, and what it belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// Where it was found, relative to the backing directory; none where it was made to be tried.
    pub path: Option<PathBuf>,
    context: EncryptionContext,
    envelope: Envelope,
}

/// A probe as it is written down: envelopes are stored in the clear, and open nothing without their CMK.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct WrittenProbe {
    /// Where it was found, relative to the backing directory; none where it was made to be tried.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub path: Option<String>,
    /// The volume.
    pub volume_id: VolumeId,
    /// The object.
    pub object_id: ObjectId,
    /// What it is: 1 file, 2 directory, 3 symlink, 4 the volume itself, as in the encryption context.
    pub object_kind: u8,
    /// The material.
    pub key_material_id: MaterialId,
    /// The envelope, in hexadecimal digits.
    pub envelope: String,
}

impl Probe {
    /// The wrapped data key of an object.
    #[must_use]
    pub const fn new(volume: VolumeId, path: PathBuf, object: &Object) -> Self {
        Self {
            path: Some(path),
            context: EncryptionContext {
                volume,
                object: object.id,
                kind: object.kind,
            },
            envelope: object.envelope,
        }
    }

    /// A new data key under the CMK's current material, of no object: for a CMK that guards nothing that is known.
    ///
    /// # Errors
    /// As [`KeyService::generate_data_key`].
    pub fn make(keys: &KeyService, key: KeyId) -> Result<Self, KmsError> {
        let context = EncryptionContext {
            volume: VolumeId::random(),
            object: ObjectId::random(),
            kind: ObjectKind::File,
        };
        let (_, envelope) = keys.generate_data_key(&KeyRef::Id(key), &context)?;
        Ok(Self {
            path: None,
            context,
            envelope,
        })
    }

    /// The material that wraps it.
    #[must_use]
    pub const fn material(&self) -> MaterialId {
        self.envelope.material_id()
    }

    /// Tries to unwrap it. The data key is wiped at once.
    ///
    /// # Errors
    /// Why it cannot be unwrapped.
    pub fn attempt(&self, keys: &KeyService) -> Result<(), KmsError> {
        keys.decrypt_data_key(&self.envelope, &self.context)
            .map(drop)
    }

    /// As it is written down.
    #[must_use]
    pub fn write(&self) -> WrittenProbe {
        let bytes = self.envelope.encode();
        let path = self.path.as_ref();
        WrittenProbe {
            path: path.map(|path| path.to_string_lossy().into_owned()),
            volume_id: self.context.volume,
            object_id: self.context.object,
            object_kind: self.context.kind as u8,
            key_material_id: self.material(),
            envelope: hex::encode(bytes),
        }
    }

    /// As it was written down; `None` for what was never one.
    #[must_use]
    pub fn read(written: &WrittenProbe) -> Option<Self> {
        let kind = [
            ObjectKind::File,
            ObjectKind::Directory,
            ObjectKind::Symlink,
            ObjectKind::Volume,
        ]
        .into_iter()
        .find(|kind| *kind as u8 == written.object_kind)?;
        let envelope = Envelope::decode(&hex::decode(&written.envelope).ok()?).ok()?;
        (envelope.material_id() == written.key_material_id).then_some(Self {
            path: written.path.as_ref().map(PathBuf::from),
            context: EncryptionContext {
                volume: written.volume_id,
                object: written.object_id,
                kind,
            },
            envelope,
        })
    }
}
