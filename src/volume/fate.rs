//! Whether what a material wraps can be opened again some day: asked before anything is removed for good.

use std::collections::{BTreeMap, HashSet};

use crate::ids::{KeyId, MaterialId};
use crate::kms::KmsError;
use crate::kms::alias::AliasName;
use crate::kms::key::KeyRef;
use crate::kms::rotation::{ImportState, IncludeKeyMaterial, RotationsListEntry};
use crate::kms::service::KeyService;

/// What is to be expected of a material.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// It opens what it wraps, or may do so again: enabled, disabled, pending deletion; or nobody can tell.
    Alive,
    /// It is deleted, and its owner can import it again.
    Reimportable,
    /// It is deleted for good.
    Gone,
}

/// Fates that were asked for, each once, so that all of one piece of work goes by the same answers.
pub struct Fates<'a> {
    keys: &'a KeyService,
    /// Keys that the audit log says were deleted.
    deleted: HashSet<KeyId>,
    /// A key that is not there counts as deleted, whatever the audit log says.
    unknown_is_gone: bool,
    known: BTreeMap<(KeyId, MaterialId), Fate>,
    /// Keys of which nothing can be told, and why: everything under them counts as alive.
    pub unclear: BTreeMap<KeyId, KmsError>,
}

impl std::fmt::Debug for Fates<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fates")
            .field("known", &self.known)
            .finish_non_exhaustive()
    }
}

impl<'a> Fates<'a> {
    /// Asks this key service. A key that is not there was deleted where its audit log says so: a header may be forged and
    /// name any key, and a key may have been lost and come back from a backup. `unknown_is_gone` takes all others for
    /// deleted, too.
    ///
    /// # Errors
    /// Where the default key is not to be had, which cannot be deleted: then the absence of another says nothing.
    pub fn new(keys: &'a KeyService, unknown_is_gone: bool) -> Result<Self, KmsError> {
        keys.describe_key(&KeyRef::Alias(AliasName::default_key()))?;
        Ok(Self {
            keys,
            deleted: keys.deleted_keys(),
            unknown_is_gone,
            known: BTreeMap::new(),
            unclear: BTreeMap::new(),
        })
    }

    /// The fate of a material.
    pub fn of(&mut self, key: KeyId, material: MaterialId) -> Fate {
        if let Some(fate) = self.known.get(&(key, material)) {
            return *fate;
        }
        let found = self
            .keys
            .list_key_rotations(&KeyRef::Id(key), IncludeKeyMaterial::AllKeyMaterial);
        let fate = match found {
            Ok(materials) => of_known(&materials, material),
            Err(KmsError::NotFoundException { .. })
                if self.unknown_is_gone || self.deleted.contains(&key) =>
            {
                Fate::Gone
            }
            Err(error) => {
                self.unclear.insert(key, error);
                Fate::Alive
            }
        };
        self.known.insert((key, material), fate);
        fate
    }
}

/// A key that is there: as long as it is, its generated material is, and imported material can be imported again. Each
/// material has its own fate: where one is missing the key is unusable, but only what is under that one is lost.
fn of_known(materials: &[RotationsListEntry], material: MaterialId) -> Fate {
    let known = materials.iter().find(|of| of.key_material_id == material);
    match known.and_then(|known| known.import_state) {
        Some(ImportState::PendingImport) => Fate::Reimportable,
        Some(ImportState::Imported) | None => Fate::Alive,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_key_without_material_is_not_alive_and_that_can_come_back() {
        for state in [
            KeyState::Enabled,
            KeyState::Disabled,
            KeyState::PendingDeletion,
        ] {
            assert_eq!(of_known(state), Fate::Alive, "{state:?}");
        }
        let fate = of_known(KeyState::PendingImport);
        assert_eq!(fate, Fate::Reimportable);
        assert!(Fate::Alive < fate && fate < Fate::Gone);
    }
}
