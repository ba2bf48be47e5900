//! `cmkfs key list` and `cmkfs key describe`.

use serde::Serialize;

use crate::cli::args::Global;
use crate::cli::keystore;
use crate::cli::message::CliError;
use crate::cli::output::{self, Format};
use crate::kms::KmsError;
use crate::kms::alias::AliasListEntry;
use crate::kms::key::{ExpirationModel, KeyRef, rfc3339_text};
use crate::kms::metadata::KeyMetadata;

/// Runs `cmkfs key list`.
pub(super) fn list(global: &Global, format: Format) -> Result<(), CliError> {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Keys<'a> {
        keys: &'a [KeyMetadata],
    }
    let service = keystore::open(global)?;
    let keys = service.list_keys()?;
    let mut damaged = keys.damaged;
    match format {
        Format::Json => output::json(&Keys { keys: &keys.items })?,
        Format::Table => {
            let aliases = service.list_aliases(None)?;
            damaged.extend(aliases.damaged);
            let row = |key: &KeyMetadata| {
                [
                    key.key_id.to_string(),
                    key.key_state.as_str().to_owned(),
                    key.key_manager.as_str().to_owned(),
                    rfc3339_text(key.creation_date),
                    names_of(key, &aliases.items),
                    key.description.as_str().to_owned(),
                ]
            };
            output::table(
                [
                    "KEY ID",
                    "STATE",
                    "MANAGER",
                    "CREATED",
                    "ALIASES",
                    "DESCRIPTION",
                ],
                keys.items.iter().map(row),
            )?;
        }
    }
    if damaged.is_empty() {
        Ok(())
    } else {
        Err(CliError::Damaged(damaged))
    }
}

/// Runs `cmkfs key describe`.
pub(super) fn describe(global: &Global, key: &KeyRef, format: Format) -> Result<(), CliError> {
    let service = keystore::open(global)?;
    let key = service.describe_key(key)?;
    if format == Format::Json {
        return print_json(&key);
    }
    let aliases = match service.list_aliases(Some(&key.key_id.into())) {
        Ok(aliases) => aliases.items,
        // Whoever may not list them is shown the rest.
        Err(KmsError::AccessDeniedException { .. }) => Vec::new(),
        Err(error) => return Err(error.into()),
    };
    let tags: Vec<String> = key.tags.iter().map(|(k, v)| format!("{k}={v}")).collect();
    let date = |moment: Option<_>| moment.map(rfc3339_text).unwrap_or_default();
    let days = |days: Option<u16>| days.map(|days| days.to_string()).unwrap_or_default();
    let material = key.current_key_material_id.map(|id| id.to_string());
    let expiration = key.expiration_model.map(ExpirationModel::as_str);
    output::fields([
        ("KeyId", key.key_id.to_string()),
        ("KeyState", key.key_state.as_str().to_owned()),
        ("Aliases", names_of(&key, &aliases)),
        ("Description", key.description.as_str().to_owned()),
        ("Tags", tags.join(", ")),
        ("CreationDate", rfc3339_text(key.creation_date)),
        ("DeletionDate", date(key.deletion_date)),
        (
            "PendingDeletionWindowInDays",
            days(key.pending_deletion_window_in_days),
        ),
        ("KeyManager", key.key_manager.as_str().to_owned()),
        ("Origin", key.origin.as_str().to_owned()),
        ("KeyUsage", key.key_usage.to_owned()),
        ("KeySpec", key.key_spec.to_owned()),
        ("CurrentKeyMaterialId", material.unwrap_or_default()),
        ("ExpirationModel", expiration.unwrap_or_default().to_owned()),
        ("ValidTo", date(key.valid_to)),
        ("KeyRotationEnabled", key.key_rotation_enabled.to_string()),
        ("RotationPeriodInDays", days(key.rotation_period_in_days)),
        ("NextRotationDate", date(key.next_rotation_date)),
    ])
}

/// Prints the metadata as AWS's tools do.
pub(super) fn print_json(key: &KeyMetadata) -> Result<(), CliError> {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Described<'a> {
        key_metadata: &'a KeyMetadata,
    }
    output::json(&Described { key_metadata: key })
}

fn names_of(key: &KeyMetadata, aliases: &[AliasListEntry]) -> String {
    let of_key = aliases
        .iter()
        .filter(|alias| alias.target_key_id == key.key_id);
    let names: Vec<&str> = of_key.map(|alias| alias.alias_name.as_str()).collect();
    names.join(", ")
}
