//! Reads every record of a key directory, trusting nothing that was read before. Changes nothing.

use super::error::KmsError;
use super::record::MaterialRecord;
use super::store::KeyStore;
use crate::ids::KeyId;

/// What was read, and what could not be.
#[derive(Debug, Default)]
pub struct Verification {
    /// Keys whose record is whole.
    pub keys: usize,
    /// Materials that are whole.
    pub materials: usize,
    /// Aliases that are whole.
    pub aliases: usize,
    /// Everything that is not as it should be.
    pub damaged: Vec<KmsError>,
}

/// Reads everything.
pub(super) fn verify(store: &KeyStore) -> Result<Verification, KmsError> {
    store.forget_all();
    let (ids, damaged) = store.key_ids()?;
    let mut report = Verification {
        damaged,
        ..Verification::default()
    };
    for &id in &ids {
        verify_key(store, id, &mut report)?;
    }
    for name in store.alias_files()? {
        match store.alias_file(&name) {
            Ok(Some(alias)) if ids.contains(&alias.value.target_key_id) => report.aliases += 1,
            Ok(Some(alias)) => report.damaged.push(KmsError::damaged(
                store.alias_path(&name),
                format!(
                    "{} stands for key {}, which is not there",
                    alias.value.alias_name, alias.value.target_key_id
                ),
            )),
            // Deleted by somebody since it was listed.
            Ok(None) => {}
            Err(error) => report.damaged.push(error),
        }
    }
    Ok(report)
}

fn verify_key(store: &KeyStore, id: KeyId, report: &mut Verification) -> Result<(), KmsError> {
    let key = match store.key(id) {
        Ok(key) => key,
        Err(KmsError::NotFoundException { .. }) => return Ok(()),
        Err(error) => {
            report.damaged.push(error);
            return Ok(());
        }
    };
    report.keys += 1;
    let there = |material: &&MaterialRecord| material.missing.is_none();
    for material in key.value.materials.iter().filter(there) {
        match store.material(id, material.key_material_id) {
            Ok(_) => report.materials += 1,
            Err(error) => report.damaged.push(error),
        }
    }
    // Nothing of it stays in memory: the key may be disabled.
    store.forget_materials(id);
    for name in store.material_files(id)? {
        let listed = |of: &MaterialRecord| of.key_material_id.to_string() == name;
        if !key.value.materials.iter().filter(there).any(listed) {
            report.damaged.push(KmsError::damaged(
                store.material_path(id, &name),
                "it does not belong to this key",
            ));
        }
    }
    Ok(())
}
