//! The report of an erasure: what was done, by whom, with which evidence, and what remains. Its fields are those of the
//! certificate of NIST SP 800-88 Rev. 1, appendix G, as far as a program knows them.
//!
//! The digest covers everything else in it, in a canonical form: JSON without white space, names in the order of their
//! bytes. It is written into the audit log, so that a changed report shows.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::medium::{Medium, Swap};
use crate::cli::message::CliError;
use crate::cli::obey::Obedience;
use crate::crypto::chain::fingerprint;
use crate::ids::{KeyId, KeyStoreId, MaterialId, VolumeId};
use crate::volume::census::Tally;
use crate::volume::probe::WrittenProbe;

/// The version of the report's form.
pub const VERSION: u32 = 1;
/// Where the digest stands.
const DIGEST: &str = "ReportSha256";
/// No report comes near this, in bytes.
const MAX_LENGTH: u64 = 256 << 20;

/// What an erasure has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Status {
    /// It was begun, and nobody knows how far it came.
    InProgress,
    /// The key cannot be used, and its materials will be destroyed on a day that is named.
    Scheduled,
    /// The materials are destroyed.
    Erased,
}

impl Status {
    /// As it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InProgress => "IN_PROGRESS",
            Self::Scheduled => "SCHEDULED",
            Self::Erased => "ERASED",
        }
    }
}

/// The report.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Report {
    /// The version of this form.
    pub report_version: u32,
    /// What the erasure has come to.
    pub status: Status,
    /// What was done, in the words of NIST SP 800-88.
    pub sanitization: Sanitization,
    /// Who did it.
    pub performed_by: Person,
    /// When it was begun, in RFC 3339.
    pub started_at: String,
    /// When it was done.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub completed_at: Option<String>,
    /// The key store.
    pub key_store_id: KeyStoreId,
    /// What the key directory lies on.
    pub key_directory: Medium,
    /// The key.
    pub key_id: KeyId,
    /// What was known of it before: its metadata, with AWS's names. Nothing where it had been deleted before.
    pub key_metadata: Option<Value>,
    /// The names that stood for it.
    pub aliases: Vec<String>,
    /// Its state when all was done; nothing where it is deleted.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub key_state: Option<String>,
    /// When its materials will be destroyed, where they wait for that.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub deletion_date: Option<String>,
    /// Its materials.
    pub materials: Vec<Material>,
    /// The volumes that were looked at.
    pub volumes: Vec<Volume>,
    /// Attempts to unwrap a data key.
    pub attempts: Vec<Attempt>,
    /// What each mount did.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub mounts: Option<Obedience>,
    /// Nothing of an unfinished change is left aside in the key directory.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub leftovers: Option<Vec<String>>,
    /// What the audit log says of the destruction.
    pub audit_events: Vec<EventInLog>,
    /// Backups that hold materials of the key.
    pub backups: Vec<KnownBackup>,
    /// Imports: whoever imported it has, or had, the original.
    pub imports: Vec<EventInLog>,
    /// Swap areas that are in use.
    pub swap: Vec<Swap>,
    /// What may bring something back.
    pub warnings: Vec<String>,
    /// What nobody has looked at.
    pub not_checked: Vec<String>,
}

/// What was done, in the words of NIST SP 800-88.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Sanitization {
    /// The guideline.
    pub guideline: String,
    /// Clear, Purge or Destroy.
    pub method: String,
    /// How.
    pub technique: String,
    /// What that means here.
    pub details: String,
    /// The program.
    pub tool: String,
    /// Its version.
    pub tool_version: String,
    /// How it was verified.
    pub verification_method: String,
    /// What came of that.
    pub verification_result: String,
}

/// Who did it, and on which machine.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Person {
    /// As in the audit log.
    pub user_identity: Value,
    /// The machine's name.
    pub host_name: String,
}

/// A material of the key.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Material {
    /// Its id.
    pub key_material_id: MaterialId,
    /// Its file.
    pub path: String,
    /// How long the file was before; nothing where it was not there.
    pub bytes_before: Option<u64>,
    /// So many bytes were overwritten before the file was removed and its directory synced.
    pub bytes_overwritten: u64,
    /// Whether the file was gone when all was done.
    pub is_gone: bool,
}

/// A volume that was looked at.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Volume {
    /// Its id.
    pub volume_id: VolumeId,
    /// What it lies on, and where.
    pub medium: Medium,
    /// Where it is mounted.
    pub mountpoints: Vec<String>,
    /// What each material guarded.
    pub lost: Vec<Lost>,
    /// All that the key guarded.
    pub lost_in_all: Tally,
    /// What other keys guard.
    pub stays: Tally,
    /// What other keys guard, and nobody can find by its name: a directory above it is under the key.
    pub nameless: Tally,
    /// The other keys.
    pub other_keys: Vec<KeyId>,
    /// The directories where the key's part begins.
    pub bindings: Vec<Bound>,
    /// The volume cannot be mounted, or nothing in it be found: its own key or its root directory is under the key.
    pub is_whole: bool,
    /// Objects whose key could not be told.
    pub damaged: u64,
}

/// A directory that is under the key, while the one above it is not.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Bound {
    /// Its path in the volume; relative to the backing directory, in encrypted names, where names cannot be read.
    pub path: String,
    /// What it is bound to: a key id or an alias. Nothing where that cannot be read.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub binding: Option<String>,
}

/// What a material guarded in a volume.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Lost {
    /// The material.
    pub key_material_id: MaterialId,
    /// What it guarded.
    #[serde(flatten)]
    pub tally: Tally,
}

/// An attempt to unwrap a data key.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Attempt {
    /// What was tried.
    pub probe: WrittenProbe,
    /// Before.
    pub before: Outcome,
    /// After.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub after: Option<Outcome>,
}

/// What came of an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Outcome {
    /// It was unwrapped.
    pub decrypts: bool,
    /// Why not: the exception.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error_code: Option<String>,
    /// Why not, for people.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error_message: Option<String>,
}

/// An event in the audit log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct EventInLog {
    /// Its id.
    #[serde(rename = "EventID")]
    pub event_id: String,
    /// AWS's name of the operation.
    pub event_name: String,
    /// When.
    pub event_time: String,
    /// Who asked for it.
    pub user: String,
    /// The material, where it is about one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub key_material_id: Option<String>,
    /// Its link in the chain.
    pub chain_value: String,
}

/// A backup that the audit log knows of.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct KnownBackup {
    /// The material.
    pub key_material_id: MaterialId,
    /// The backup.
    pub backup_id: String,
    /// When it was made.
    pub creation_date: String,
    /// Where it was written to.
    pub path: String,
}

impl Bound {
    /// In words.
    #[must_use]
    pub fn phrase(&self) -> String {
        match &self.binding {
            Some(binding) => format!("{} is bound to {binding}", self.path),
            None => format!("{} is under the key", self.path),
        }
    }
}

impl Report {
    /// The text of the report, and its digest.
    ///
    /// # Errors
    /// None that happens: it is all text and numbers.
    pub fn seal(&self) -> Result<(Vec<u8>, String), CliError> {
        let failed = |error: serde_json::Error| CliError::Output(error.into());
        let mut value = serde_json::to_value(self).map_err(failed)?;
        let digest = digest_of(&value).map_err(failed)?;
        if let Value::Object(fields) = &mut value {
            fields.insert(DIGEST.to_owned(), digest.clone().into());
        }
        let mut text = serde_json::to_vec_pretty(&value).map_err(failed)?;
        text.push(b'\n');
        Ok((text, digest))
    }
}

/// The digest of a report without its digest.
fn digest_of(report: &Value) -> serde_json::Result<String> {
    let bytes = serde_json::to_vec(report)?;
    Ok(hex::encode(fingerprint(&bytes)))
}

/// A report that was read.
#[derive(Debug)]
pub struct ReadReport {
    /// What it says.
    pub report: Report,
    /// The digest of what it says now.
    pub digest: String,
    /// Whether that is the one that stands in it.
    pub is_unchanged: bool,
}

/// Reads a report.
///
/// # Errors
/// Where the file cannot be read, or holds no report.
pub fn read(path: &Path) -> Result<ReadReport, CliError> {
    let failed = |source| CliError::Io {
        action: "read",
        path: path.to_owned(),
        source,
    };
    let file = File::open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.len() > MAX_LENGTH {
        return Err(failed(io::Error::other("it is too long for a report")));
    }
    let text = io::read_to_string(file).map_err(failed)?;
    parse(&text).map_err(|error| CliError::NoReport(path.to_owned(), error.to_string()))
}

/// Reads a report's text.
///
/// # Errors
/// Where it is none.
pub fn parse(text: &str) -> serde_json::Result<ReadReport> {
    let mut value: Value = serde_json::from_str(text)?;
    let stated = match &mut value {
        Value::Object(fields) => fields.remove(DIGEST),
        _ => None,
    };
    let digest = digest_of(&value)?;
    let is_unchanged = stated.as_ref().and_then(Value::as_str) == Some(digest.as_str());
    let report: Report = serde_json::from_value(value)?;
    Ok(ReadReport {
        report,
        digest,
        is_unchanged,
    })
}

/// The files of a report: JSON, and beside it the same as text.
#[derive(Debug)]
pub struct ReportFile {
    /// The JSON.
    pub path: PathBuf,
}

impl ReportFile {
    /// Takes the place of the report, by writing down that the erasure has begun: should that not be possible, nothing is
    /// destroyed. A file that is there already is not touched, unless it is the report of an erasure of the same key that
    /// was not finished: one that was begun, or one whose digest `is_recorded` does not know.
    ///
    /// # Errors
    /// [`CliError::ReportExists`], [`CliError::Io`].
    pub fn begin(
        path: PathBuf,
        report: &Report,
        is_recorded: impl Fn(&str) -> bool,
    ) -> Result<Self, CliError> {
        let file = Self { path };
        let is_unfinished = read(&file.path).is_ok_and(|found| {
            let is_finished =
                found.report.status != Status::InProgress && is_recorded(&found.digest);
            found.report.key_id == report.key_id && found.is_unchanged && !is_finished
        });
        for taken in [file.path.clone(), file.text_path()] {
            if !is_unfinished && std::fs::symlink_metadata(&taken).is_ok() {
                return Err(CliError::ReportExists(taken));
            }
        }
        // In this order, so that text is never there without the JSON that says whose it is.
        file.replace(&file.path, &report.seal()?.0)?;
        let begun = "The erasure has begun. How far it came is not known.\n";
        file.replace(&file.text_path(), begun.as_bytes())?;
        Ok(file)
    }

    /// Writes the report, JSON and text, in the place of what was there.
    ///
    /// # Errors
    /// [`CliError::Io`].
    pub fn write(&self, json: &[u8], text: &str) -> Result<(), CliError> {
        self.replace(&self.text_path(), text.as_bytes())?;
        self.replace(&self.path, json)
    }

    /// Takes the files away again: nothing was destroyed.
    pub fn discard(&self) {
        for path in [&self.path, &self.text_path()] {
            if let Err(error) = std::fs::remove_file(path) {
                log::warn!("cannot remove {}: {error}", path.display());
            }
        }
    }

    /// Where the text is.
    #[must_use]
    pub fn text_path(&self) -> PathBuf {
        if self
            .path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            return self.path.with_extension("txt");
        }
        let mut path = self.path.as_os_str().to_owned();
        path.push(".txt");
        path.into()
    }

    /// Whole or not at all, and durable.
    fn replace(&self, path: &Path, bytes: &[u8]) -> Result<(), CliError> {
        let mut aside = path.as_os_str().to_owned();
        aside.push(".new");
        let write = || {
            match std::fs::remove_file(&aside) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
            let mut options = OpenOptions::new();
            options.write(true).create_new(true).mode(0o600);
            let mut file = options.open(&aside)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            std::fs::rename(&aside, path)?;
            let parent = path
                .parent()
                .filter(|parent| !parent.as_os_str().is_empty());
            File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
        };
        write().map_err(|source| CliError::Io {
            action: "write the report to",
            path: path.to_owned(),
            source,
        })
    }
}
