//! The key that is erased: what is known of it before, its destruction, and what is found afterwards.

use std::collections::BTreeSet;

use super::EraseArgs;
use super::evidence::{self, History, IMPORT, is_not_found};
use super::medium::{Medium, swap_warnings, swaps};
use super::radius::Volumes;
use super::report::{Attempt, Material, Person, Report, Sanitization, Status, VERSION};
use crate::cli::message::CliError;
use crate::cli::obey::Obedience;
use crate::clock::{Clock, SystemClock};
use crate::ids::{KeyId, MaterialId};
use crate::kms::audit::identity::Identity;
use crate::kms::deletion::PendingWindow;
use crate::kms::key::{KeyManager, KeyRef, Origin, rfc3339_text};
use crate::kms::metadata::KeyMetadata;
use crate::kms::rotation::IncludeKeyMaterial;
use crate::kms::state::{KeyState, Unsupported};
use crate::kms::{KeyService, KmsError};
use crate::volume::probe::Probe;

/// The key that is to be erased.
pub(super) struct Target {
    pub(super) key: KeyId,
    /// Nothing where the key was deleted before.
    pub(super) metadata: Option<KeyMetadata>,
    pub(super) materials: Vec<MaterialId>,
    pub(super) history: History,
}

impl Target {
    pub(super) fn find(keys: &KeyService, key: &KeyRef) -> Result<Self, CliError> {
        let metadata = match (keys.describe_key(key), key) {
            (Ok(metadata), _) => metadata,
            (Err(error), KeyRef::Id(id)) if is_not_found(&error) => {
                // One that was deleted is erased already; one that was never there is a mistake.
                let history = History::read(keys, *id);
                if history.deletion().is_none() {
                    return Err(error.into());
                }
                return Ok(Self {
                    key: *id,
                    metadata: None,
                    materials: history.materials(),
                    history,
                });
            }
            (Err(error), _) => return Err(error.into()),
        };
        let id = metadata.key_id;
        let all = IncludeKeyMaterial::AllKeyMaterial;
        let materials = keys.list_key_rotations(&id.into(), all)?;
        Ok(Self {
            key: id,
            metadata: Some(metadata),
            materials: materials
                .into_iter()
                .map(|material| material.key_material_id)
                .collect(),
            history: History::read(keys, id),
        })
    }

    pub(super) fn is_imported(&self) -> bool {
        let metadata = self.metadata.as_ref();
        metadata.is_some_and(|key| key.origin == Origin::External)
    }

    /// What can be refused before anything was looked at.
    pub(super) fn check(&self, args: &EraseArgs) -> Result<(), CliError> {
        let managed = |key: &KeyMetadata| key.key_manager == KeyManager::Cmkfs;
        if self.metadata.as_ref().is_some_and(managed) {
            return Err(KmsError::UnsupportedOperationException {
                key: self.key,
                operation: "EraseKey",
                why: Unsupported::Managed,
            }
            .into());
        }
        if self.is_imported() && args.pending_window_days.is_some() {
            return Err(KmsError::ValidationException(
                "imported material is destroyed at once: there is nothing to wait for".to_owned(),
            )
            .into());
        }
        Ok(())
    }

    /// The report before anything was done.
    pub(super) fn report(&self, keys: &KeyService, volumes: &Volumes) -> Result<Report, CliError> {
        let directory = keys.dir().canonicalize();
        let directory = directory.unwrap_or_else(|_| keys.dir().to_owned());
        let materials = self.materials.iter().map(|material| {
            let file = keys.material_file(self.key, *material)?;
            Ok(Material {
                key_material_id: *material,
                path: file.path.to_string_lossy().into_owned(),
                bytes_before: file.bytes,
                bytes_overwritten: 0,
                is_gone: file.bytes.is_none(),
            })
        });
        let materials = materials.collect::<Result<_, KmsError>>()?;
        let aliases = match &self.metadata {
            Some(key) => keys.list_aliases(Some(&key.key_id.into()))?.items,
            None => Vec::new(),
        };
        let json = |error: serde_json::Error| CliError::Output(error.into());
        let metadata = self.metadata.as_ref().map(serde_json::to_value);
        let identity = serde_json::to_value(Identity::of_process()).map_err(json)?;
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let mut report = Report {
            report_version: VERSION,
            status: Status::InProgress,
            sanitization: self.sanitization(),
            performed_by: Person {
                user_identity: identity,
                host_name: host.trim().to_owned(),
            },
            started_at: rfc3339_text(SystemClock.now()),
            completed_at: None,
            key_store_id: keys.store_id(),
            key_directory: Medium::of(&directory),
            key_id: self.key,
            key_metadata: metadata.transpose().map_err(json)?,
            aliases: aliases
                .into_iter()
                .map(|alias| alias.alias_name.to_string())
                .collect(),
            key_state: None,
            deletion_date: None,
            materials,
            volumes: volumes.volumes.clone(),
            attempts: Vec::new(),
            mounts: None,
            leftovers: None,
            audit_events: Vec::new(),
            backups: evidence::backups(keys, &self.materials),
            imports: self.history.named(&[IMPORT]).cloned().collect(),
            swap: swaps(),
            warnings: Vec::new(),
            not_checked: volumes.not_checked.clone(),
        };
        report.warnings = self.warnings(&report);
        report.not_checked.extend([
            "copies of the key directory that were not made with `cmkfs keys backup` are not known"
                .to_owned(),
            "what the medium, its firmware, its snapshots or its backups keep was not looked at"
                .to_owned(),
        ]);
        Ok(report)
    }

    fn sanitization(&self) -> Sanitization {
        let details = if self.metadata.is_none() || self.is_imported() {
            "The key materials, which wrap the data keys of all that is under the key, are overwritten with zeros and removed, and their directory is synced. The encrypted data itself is not touched."
        } else {
            "The key is withdrawn: no data key under it is unwrapped any more. Its materials are overwritten with zeros and removed on the day of its deletion. The encrypted data itself is not touched."
        };
        Sanitization {
            guideline: "NIST SP 800-88 Rev. 1".to_owned(),
            method: "Purge".to_owned(),
            technique: "Cryptographic Erase".to_owned(),
            details: details.to_owned(),
            tool: "cmkfs".to_owned(),
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            verification_method: "Attempts to unwrap data keys before and after, one for each material and volume; a look at the files of the materials and at the answers of all mounts".to_owned(),
            verification_result: String::new(),
        }
    }

    fn warnings(&self, report: &Report) -> Vec<String> {
        let mut warnings = report.key_directory.warnings();
        warnings.extend(swap_warnings(&report.swap));
        let count = |number: usize, what: &str| {
            if number == 0 {
                None
            } else {
                Some(format!("{number} {what}"))
            }
        };
        let backups: BTreeSet<_> = report
            .backups
            .iter()
            .map(|backup| &backup.backup_id)
            .collect();
        warnings.extend(count(
            backups.len(),
            "backups are known that hold material of the key: whoever has one and its passphrase can restore it",
        ));
        if self.is_imported() {
            warnings.push(
                "the material was imported: whoever keeps the original can import it again; `cmkfs key schedule-deletion` removes the key it could be imported into"
                    .to_owned(),
            );
        }
        if let Some(damage) = &self.history.damage {
            warnings.push(format!("the audit log is not whole: {damage}"));
        }
        for volume in report.volumes.iter().filter(|volume| volume.damaged > 0) {
            warnings.push(format!(
                "{}: {} objects could not be read, and may be under the key",
                volume.medium.path, volume.damaged
            ));
        }
        warnings
    }

    /// Data keys to try: those that were found, and a new one where the current material has none.
    pub(super) fn probes(&self, keys: &KeyService, mut found: Vec<Probe>) -> Vec<Probe> {
        let Some(current) = self
            .metadata
            .as_ref()
            .and_then(|key| key.current_key_material_id)
        else {
            return found;
        };
        if !found.iter().any(|probe| probe.material() == current)
            && let Ok(made) = Probe::make(keys, self.key)
        {
            found.push(made);
        }
        found
    }

    pub(super) fn destroy(&self, keys: &KeyService, window: PendingWindow) -> Result<(), KmsError> {
        let Some(metadata) = &self.metadata else {
            return Ok(());
        };
        let key = KeyRef::Id(self.key);
        if self.is_imported() {
            for material in &self.materials {
                keys.delete_imported_key_material(&key, Some(*material))?;
            }
        } else if metadata.key_state != KeyState::PendingDeletion {
            keys.schedule_key_deletion(&key, window)?;
        }
        Ok(())
    }

    /// Whether all is as it was before.
    pub(super) fn is_untouched(&self, keys: &KeyService, report: &Report) -> bool {
        let same = |before: &Material| {
            let file = keys.material_file(self.key, before.key_material_id);
            file.is_ok_and(|file| file.bytes == before.bytes_before)
        };
        let state = keys.describe_key(&self.key.into()).map(|key| key.key_state);
        let before = self.metadata.as_ref().map(|key| key.key_state);
        report.materials.iter().all(same) && state.ok() == before
    }

    /// Completes the report: tries everything again, and says what does not hold.
    pub(super) fn finish(
        &self,
        keys: &KeyService,
        report: &mut Report,
        obedience: Obedience,
    ) -> Result<Vec<String>, CliError> {
        let mut problems = Vec::new();
        let after = match keys.describe_key(&self.key.into()) {
            Ok(metadata) => Some(metadata),
            Err(error) if is_not_found(&error) => None,
            Err(error) => return Err(error.into()),
        };
        report.key_state = after.as_ref().map(|key| key.key_state.as_str().to_owned());
        let deletion = after.as_ref().and_then(|key| key.deletion_date);
        report.deletion_date = deletion.map(rfc3339_text);
        report.status = if after.is_some() && !self.is_imported() {
            Status::Scheduled
        } else {
            Status::Erased
        };
        for material in &mut report.materials {
            let file = keys.material_file(self.key, material.key_material_id)?;
            material.is_gone = file.bytes.is_none();
            if let (true, Some(bytes)) = (material.is_gone, material.bytes_before) {
                material.bytes_overwritten = bytes;
            }
            if report.status == Status::Erased && !material.is_gone {
                problems.push(format!("{} is still there", material.path));
            }
        }
        let probes = report
            .attempts
            .iter()
            .map(|attempt| Probe::read(&attempt.probe));
        let probes: Vec<_> = probes.collect();
        for (attempt, probe) in report.attempts.iter_mut().zip(&probes) {
            attempt.after = probe.as_ref().map(|probe| evidence::attempt(keys, probe));
            if attempt.after.as_ref().is_some_and(|after| after.decrypts) {
                problems.push(format!(
                    "a data key of object {} can still be unwrapped",
                    attempt.probe.object_id
                ));
            }
        }
        let leftovers = keys.leftovers()?;
        let leftovers: Vec<_> = leftovers
            .iter()
            .map(|path| path.to_string_lossy().into_owned())
            .collect();
        let aside = leftovers.iter().map(|path| format!("{path} is left aside"));
        problems.extend(aside);
        report.leftovers = Some(leftovers);
        let history = History::read(keys, self.key);
        report.audit_events = history.destruction();
        report.sanitization.verification_result = result(&report.attempts, &problems);
        let refused_before = report
            .attempts
            .iter()
            .filter(|attempt| !attempt.before.decrypts);
        if refused_before.count() > 0 && self.metadata.is_some() {
            report.warnings.push(
                "the key did not unwrap all data keys before, so that it does not now says less: see the attempts".to_owned(),
            );
        }
        for unanswered in &obedience.unanswered {
            report.warnings.push(format!(
                "{unanswered}; what it has in memory it may still serve until it ends"
            ));
        }
        report.mounts = Some(obedience);
        report.completed_at = Some(rfc3339_text(SystemClock.now()));
        Ok(problems)
    }
}

fn result(attempts: &[Attempt], problems: &[String]) -> String {
    let refused = attempts.iter().filter(|attempt| {
        let after = attempt.after.as_ref();
        attempt.before.decrypts && after.is_some_and(|after| !after.decrypts)
    });
    let refused = refused.count();
    let all = attempts.len();
    let summary = format!("{refused} of {all} data keys were unwrapped before and are not after");
    if problems.is_empty() {
        summary
    } else {
        format!("{summary}; FAILED: {}", problems.join("; "))
    }
}
