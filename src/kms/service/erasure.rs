//! What an erasure asks of the key directory: whether anything of a material is left, and its own line in the audit log.
//! The destruction itself is DeleteImportedKeyMaterial, or DeleteKey on its day.

use std::path::PathBuf;

use super::KeyService;
use crate::ids::{KeyId, MaterialId};
use crate::kms::error::KmsError;
use crate::kms::event::Event;
use crate::kms::{journal, storage, store};

/// The file of a material.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaterialFile {
    /// Where it belongs.
    pub path: PathBuf,
    /// How long it is; nothing where it is not there.
    pub bytes: Option<u64>,
}

/// What is written down of an erasure.
#[derive(Debug, Clone, Copy)]
pub struct Erasure<'a> {
    /// The key.
    pub key: KeyId,
    /// The materials it is about.
    pub materials: &'a [MaterialId],
    /// What became of them, as the report says it.
    pub status: &'a str,
    /// SHA-256 of the report's content, in hexadecimal digits.
    pub report_sha256: &'a str,
}

impl KeyService {
    /// The file of a material, whether it is there or not.
    ///
    /// # Errors
    /// Where it cannot be looked at.
    pub fn material_file(
        &self,
        key: KeyId,
        material: MaterialId,
    ) -> Result<MaterialFile, KmsError> {
        let path = self.dir().join(store::material_place(key, material));
        let bytes = match std::fs::symlink_metadata(&path) {
            Ok(found) => Some(found.len()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(KmsError::io("look at", path)(error)),
        };
        Ok(MaterialFile { path, bytes })
    }

    /// Whatever a change that was not finished has left aside in the key directory. There may be material among it.
    ///
    /// # Errors
    /// Where the key directory cannot be listed.
    pub fn leftovers(&self) -> Result<Vec<PathBuf>, KmsError> {
        let mut found = Vec::new();
        let staged = self.dir().join(journal::STAGED);
        for name in storage::all_names(&staged)? {
            found.push(staged.join(name));
        }
        if journal::is_unfinished(self.dir())? {
            found.push(self.dir().join(journal::JOURNAL));
        }
        Ok(found)
    }

    /// EraseKey: writes down that a report of an erasure was made, with its digest, so that a changed report shows. There
    /// is no such operation at AWS. Does nothing to the key, which need not be there any more.
    ///
    /// # Errors
    /// Where it cannot be written down.
    pub fn record_erasure(&self, erasure: Erasure<'_>) -> Result<(), KmsError> {
        let mut event = Event::new("EraseKey")
            .asked(&erasure.key.into())
            .with("status", erasure.status)
            .restricting();
        event.about(erasure.key);
        let materials: Vec<_> = erasure.materials.iter().map(ToString::to_string).collect();
        event.note("keyMaterialIds", materials);
        event.note("reportSha256", erasure.report_sha256);
        self.change(event, |_| Ok(()))
    }
}
