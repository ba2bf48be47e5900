//! `cmkfs key import` and `cmkfs key delete-imported-key-material`.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, ValueEnum};

use super::switch::report;
use crate::cli::args::Global;
use crate::cli::message::CliError;
use crate::cli::obey::{self, ObeyArgs};
use crate::cli::output::OutputArgs;
use crate::cli::{keystore, raw};
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::ids::MaterialId;
use crate::kms::import::{ImportRequest, ImportType, ImportedMaterial, KeyMaterialChange};
use crate::kms::key::KeyRef;

/// More than any key material: enough to say how long a wrong file is, or that it is no key material at all.
const MAX_READ: usize = 4096;

/// The arguments of `cmkfs key import`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// Key id or alias/NAME of a key with origin EXTERNAL.
    key: KeyRef,
    /// File with exactly 32 random bytes, or "-" for standard input. Keep the original: cmkfs never gives it back.
    #[arg(long, value_name = "FILE|-")]
    material: PathBuf,
    /// When it expires, at most 365 days ahead: a time like 2030-01-31T12:00:00Z, or how long from now, like 30d or 12h.
    /// Without it: never.
    #[arg(long, value_name = "TIME")]
    valid_to: Option<ValidTo>,
    /// Whether it is the key's first material or one to rotate to, or one that it had before.
    ///
    /// Without it: the first one is new, any other is taken for one that the key had before.
    #[arg(
        long,
        value_enum,
        ignore_case = true,
        value_name = "NEW_KEY_MATERIAL|EXISTING_KEY_MATERIAL"
    )]
    import_type: Option<ImportTypeArg>,
    /// How long mounts may take.
    #[command(flatten)]
    obey: ObeyArgs,
    /// How to print what was imported.
    #[command(flatten)]
    output: OutputArgs,
}

/// The arguments of `cmkfs key delete-imported-key-material`.
#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// Key id or alias/NAME of a key with origin EXTERNAL.
    key: KeyRef,
    /// Which of its materials. Without it: the current one.
    #[arg(long, value_name = "ID")]
    material_id: Option<MaterialId>,
    /// How long mounts may take.
    #[command(flatten)]
    obey: ObeyArgs,
    /// How to print what was deleted.
    #[command(flatten)]
    output: OutputArgs,
}

/// AWS's ImportType.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum ImportTypeArg {
    /// The key's first material, or one to rotate to.
    #[value(name = "NEW_KEY_MATERIAL")]
    New,
    /// A material that the key had before.
    #[value(name = "EXISTING_KEY_MATERIAL")]
    Existing,
}

impl From<ImportTypeArg> for ImportType {
    fn from(import_type: ImportTypeArg) -> Self {
        match import_type {
            ImportTypeArg::New => Self::NewKeyMaterial,
            ImportTypeArg::Existing => Self::ExistingKeyMaterial,
        }
    }
}

/// When imported material expires, as it was typed.
#[derive(Debug, Clone, Copy)]
enum ValidTo {
    /// A moment.
    At(Timestamp),
    /// So many milliseconds from now.
    In(i64),
}

impl ValidTo {
    const fn after(self, now: Timestamp) -> Timestamp {
        match self {
            Self::At(moment) => moment,
            Self::In(millis) => Timestamp(now.0.saturating_add(millis)),
        }
    }
}

impl FromStr for ValidTo {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(moment) = text.parse::<jiff::Timestamp>() {
            return Ok(Self::At(Timestamp(moment.as_millisecond())));
        }
        text.parse::<jiff::Span>()
            .and_then(|span| span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()))
            .ok()
            .and_then(|duration| i64::try_from(duration.as_millis()).ok())
            .map(Self::In)
            .ok_or("give a time like 2030-01-31T12:00:00Z, or a duration like 30d or 12h")
    }
}

/// Runs `cmkfs key import`.
pub(super) fn import(global: &Global, args: &ImportArgs) -> Result<(), CliError> {
    let service = keystore::open(global)?;
    let mut bytes = raw::read(&args.material, MAX_READ)?;
    let request = ImportRequest {
        material: ImportedMaterial::take(&mut bytes)?,
        valid_to: args.valid_to.map(|end| end.after(SystemClock.now())),
        import_type: args.import_type.map(ImportType::from),
    };
    let (imported, obedience) = obey::change_key(&service, args.obey, &args.key, |key| {
        service.import_key_material(key, &request)
    })?;
    let text = sentence("Imported", &imported);
    report(global, args.output, &text, &imported, obedience)
}

/// Runs `cmkfs key delete-imported-key-material`.
pub(super) fn delete(global: &Global, args: &DeleteArgs) -> Result<(), CliError> {
    let service = keystore::open(global)?;
    let (deleted, obedience) = obey::change_key(&service, args.obey, &args.key, |key| {
        service.delete_imported_key_material(key, args.material_id)
    })?;
    let text = sentence("Deleted", &deleted);
    report(global, args.output, &text, &deleted, obedience)
}

fn sentence(verb: &str, change: &KeyMaterialChange) -> String {
    let (key, state) = (change.key_id, change.key_state.phrase());
    match change.key_material_id {
        Some(id) => format!("{verb} key material {id} of key {key}, which is {state} now"),
        None => format!("Key {key} has no key material; it is {state}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expiry_is_a_time_or_a_duration() {
        let now = Timestamp(1_700_000_000_000);
        let read = |text: &str| text.parse::<ValidTo>().map(|end| end.after(now));
        let day = 86_400_000;
        for (text, expected) in [
            ("2023-11-14T22:13:20Z", now.0),
            ("2023-11-14T23:13:20+01:00", now.0),
            ("30d", now.0 + 30 * day),
            ("12h", now.0 + day / 2),
            ("2w", now.0 + 14 * day),
            ("1d 12h", now.0 + day + day / 2),
        ] {
            assert_eq!(read(text), Ok(Timestamp(expected)), "{text}");
        }
        for bad in ["", "30", "tomorrow", "2023-11-14", "1y", "1mo", "d"] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
