//! `cmkfs key rotate`, `enable-rotation`, `disable-rotation` and `list-rotations`.

use clap::Args;
use serde::Serialize;

use crate::cli::args::Global;
use crate::cli::keystore;
use crate::cli::message::CliError;
use crate::cli::output::{self, Format, OutputArgs};
use crate::kms::key::{ExpirationModel, KeyRef, rfc3339_text};
use crate::kms::rotation::{
    ImportState, IncludeKeyMaterial, RotationPeriod, RotationType, RotationsListEntry,
};

/// The arguments of `cmkfs key enable-rotation`.
#[derive(Debug, Args)]
pub struct EnableArgs {
    /// Key id or alias/NAME.
    key: KeyRef,
    /// Days between two rotations, 90 to 2560.
    #[arg(
        long,
        value_name = "DAYS",
        default_value = "365",
        allow_negative_numbers = true
    )]
    period_days: RotationPeriod,
}

/// The arguments of `cmkfs key list-rotations`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Key id or alias/NAME.
    key: KeyRef,
    /// Every material: the first one too, and one that waits to be rotated to.
    #[arg(long)]
    all: bool,
    /// How to print them.
    #[command(flatten)]
    output: OutputArgs,
}

/// Runs `cmkfs key enable-rotation`.
pub(super) fn enable(global: &Global, args: &EnableArgs) -> Result<(), CliError> {
    let service = keystore::open(global)?;
    let id = service.enable_key_rotation(&args.key, args.period_days)?;
    let days = args.period_days.days();
    output::done(
        global,
        &format!("Enabled rotation of key {id} every {days} days"),
    )
}

/// Runs `cmkfs key disable-rotation`.
pub(super) fn disable(global: &Global, key: &KeyRef) -> Result<(), CliError> {
    let id = keystore::open(global)?.disable_key_rotation(key)?;
    output::done(global, &format!("Disabled rotation of key {id}"))
}

/// Runs `cmkfs key get-rotation-status`.
pub(super) fn status(global: &Global, key: &KeyRef, format: Format) -> Result<(), CliError> {
    let status = keystore::open(global)?.get_key_rotation_status(key)?;
    if format == Format::Json {
        return output::json(&status);
    }
    let days = status.rotation_period_in_days;
    let next = status.next_rotation_date;
    output::fields([
        ("KeyId", status.key_id.to_string()),
        (
            "KeyRotationEnabled",
            status.key_rotation_enabled.to_string(),
        ),
        (
            "RotationPeriodInDays",
            days.map(|days| days.to_string()).unwrap_or_default(),
        ),
        (
            "NextRotationDate",
            next.map(rfc3339_text).unwrap_or_default(),
        ),
    ])
}

/// Runs `cmkfs key rotate`.
pub(super) fn rotate(global: &Global, key: &KeyRef) -> Result<(), CliError> {
    let (id, material) = keystore::open(global)?.rotate_key_on_demand(key)?;
    output::done(
        global,
        &format!("Rotated key {id}: its current key material is {material}"),
    )
}

/// Runs `cmkfs key list-rotations`.
pub(super) fn list(global: &Global, args: &ListArgs) -> Result<(), CliError> {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Rotations {
        rotations: Vec<RotationsListEntry>,
    }
    let include = if args.all {
        IncludeKeyMaterial::AllKeyMaterial
    } else {
        IncludeKeyMaterial::RotationsOnly
    };
    let rotations = keystore::open(global)?.list_key_rotations(&args.key, include)?;
    match args.output.output {
        Format::Json => output::json(&Rotations { rotations }),
        Format::Table => output::table(
            [
                "ROTATED",
                "TYPE",
                "KEY MATERIAL ID",
                "STATE",
                "IMPORT",
                "EXPIRATION",
                "VALID TO",
            ],
            rotations.iter().map(row),
        ),
    }
}

fn row(entry: &RotationsListEntry) -> [String; 7] {
    let date = |moment: Option<_>| moment.map(rfc3339_text).unwrap_or_default();
    let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
    [
        date(entry.rotation_date),
        text(entry.rotation_type.map(RotationType::as_str)),
        entry.key_material_id.to_string(),
        entry.key_material_state.as_str().to_owned(),
        text(entry.import_state.map(ImportState::as_str)),
        text(entry.expiration_model.map(ExpirationModel::as_str)),
        date(entry.valid_to),
    ]
}
