//! `cmkfs volume info`: which directory is bound to which key, and what each key and material guards.

use std::path::PathBuf;

use clap::Args;
use indicatif::{HumanBytes, HumanCount};
use serde::Serialize;

use super::ciphertext_of;
use crate::cli::args::Global;
use crate::cli::keystore;
use crate::cli::message::CliError;
use crate::cli::output::{self, Format, OutputArgs};
use crate::cli::progress::Progress;
use crate::format::header;
use crate::ids::{KeyId, KeyStoreId, MaterialId, VolumeId};
use crate::kms::KeyService;
use crate::kms::alias::{AliasListEntry, AliasName};
use crate::kms::key::KeyRef;
use crate::kms::state::KeyState;
use crate::volume::census::{Census, Tally};
use crate::volume::info::{Bound, Info};

/// The arguments of `cmkfs volume info`.
#[derive(Debug, Clone, Args)]
pub struct InfoArgs {
    /// The directory with the encrypted files, or a directory of the mounted volume.
    #[arg(value_name = "CIPHERDIR")]
    pub ciphertext: PathBuf,
    /// How to print it.
    #[command(flatten)]
    pub output: OutputArgs,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct VolumeInfo {
    volume_id: VolumeId,
    key_store_id: KeyStoreId,
    format_version: u16,
    /// Where the root's key can be used.
    root_binding: Option<String>,
    keys: Vec<KeyInfo>,
    bindings: Vec<BindingInfo>,
    /// Objects that have no data key: empty files, pipes, devices.
    keyless: u64,
    foreign: u64,
    damaged: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct KeyInfo {
    key_id: KeyId,
    /// None where the key directory has no such key, or cannot tell.
    key_state: Option<KeyState>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    aliases: Vec<AliasName>,
    materials: Vec<MaterialInfo>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct MaterialInfo {
    key_material_id: MaterialId,
    #[serde(flatten)]
    tally: Tally,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct BindingInfo {
    /// None where names above it cannot be read.
    path: Option<PathBuf>,
    backing_path: PathBuf,
    key_id: KeyId,
    /// None where its key is refused.
    binding: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

/// Runs `cmkfs volume info`.
///
/// # Errors
/// Where there is no volume or no key directory; [`CliError::DamagedObjects`] after all else was shown.
pub fn run(global: &Global, args: &InfoArgs) -> Result<(), CliError> {
    let directory = ciphertext_of(&args.ciphertext)?;
    let keys = keystore::open(global)?;
    let info = {
        let progress = Progress::counter(global, "Counting");
        Info::of(&directory, &keys, &mut |sum| {
            if progress.is_shown() {
                let (objects, bytes) = (HumanCount(sum.objects()), HumanBytes(sum.bytes));
                progress.say(format!("{objects} objects, {bytes}"));
            }
        })?
    };
    if let Some(error) = &info.unauthenticated {
        output::note(global, &format!("not authenticated: {error}"));
    }
    let shown = VolumeInfo::new(&info, &keys)?;
    match args.output.output {
        Format::Json => output::json(&shown)?,
        Format::Table => print(&shown)?,
    }
    if info.census.is_complete() {
        Ok(())
    } else {
        Err(CliError::DamagedObjects(info.census.damaged))
    }
}

impl VolumeInfo {
    fn new(info: &Info, keys: &KeyService) -> Result<Self, CliError> {
        let census = &info.census;
        let bindings: Vec<_> = info.bindings.iter().map(BindingInfo::from).collect();
        let root = bindings.first().and_then(|root| root.binding.clone());
        let aliases = keys.list_aliases(None)?.items;
        let keys = census
            .keys()
            .map(|key| KeyInfo::new(key, census, keys, &aliases));
        Ok(Self {
            volume_id: census.volume,
            key_store_id: census.key_store,
            format_version: header::VERSION,
            root_binding: root,
            keys: keys.collect(),
            bindings,
            keyless: census.keyless,
            foreign: census.foreign,
            damaged: census.damaged.count,
        })
    }
}

impl KeyInfo {
    fn new(key: KeyId, census: &Census, keys: &KeyService, aliases: &[AliasListEntry]) -> Self {
        let described = if census.key_store == keys.store_id() {
            let described = keys.describe_key(&KeyRef::Id(key));
            described.map_err(|error| error.to_string())
        } else {
            Err("it belongs to another key store".to_owned())
        };
        let (key_state, problem) = match described {
            Ok(found) => (Some(found.key_state), None),
            Err(problem) => (None, Some(problem)),
        };
        let aliases = aliases.iter().filter(|alias| alias.target_key_id == key);
        let materials = census
            .of_key(key)
            .map(|((_, material), tally)| MaterialInfo {
                key_material_id: *material,
                tally: *tally,
            });
        Self {
            key_id: key,
            key_state,
            problem,
            aliases: aliases.map(|alias| alias.alias_name.clone()).collect(),
            materials: materials.collect(),
        }
    }

    fn state(&self) -> String {
        let state = self.key_state.map(KeyState::as_str);
        state.unwrap_or("not found").to_owned()
    }
}

impl From<&Bound> for BindingInfo {
    fn from(bound: &Bound) -> Self {
        let (binding, problem) = match &bound.binding {
            Ok(binding) => (Some(binding.to_string()), None),
            Err(refusal) => (None, Some(refusal.to_string())),
        };
        Self {
            path: bound.path.clone(),
            backing_path: bound.backing_path.clone(),
            key_id: bound.key,
            binding,
            problem,
        }
    }
}

fn print(info: &VolumeInfo) -> Result<(), CliError> {
    let refused = || "(its key is refused)".to_owned();
    output::fields([
        ("VolumeId", info.volume_id.to_string()),
        ("KeyStoreId", info.key_store_id.to_string()),
        ("FormatVersion", info.format_version.to_string()),
        (
            "RootBinding",
            info.root_binding.clone().unwrap_or_else(refused),
        ),
        ("Keyless", info.keyless.to_string()),
        ("Foreign", info.foreign.to_string()),
        ("Damaged", info.damaged.to_string()),
    ])?;
    output::line("")?;
    let rows = info.keys.iter().flat_map(|key| {
        key.materials.iter().map(|material| {
            let aliases: Vec<_> = key.aliases.iter().map(AliasName::as_str).collect();
            let [files, directories, symlinks, bytes] = columns(&material.tally);
            let id = material.key_material_id.to_string();
            [
                key.key_id.to_string(),
                key.state(),
                aliases.join(", "),
                id,
                files,
                directories,
                symlinks,
                bytes,
            ]
        })
    });
    output::table(
        [
            "KEY ID",
            "STATE",
            "ALIASES",
            "MATERIAL",
            "FILES",
            "DIRECTORIES",
            "SYMLINKS",
            "BYTES",
        ],
        rows,
    )?;
    output::line("")?;
    let rows = info.bindings.iter().map(|bound| {
        let path = bound.path.as_ref().map(|path| path.display().to_string());
        let hidden = || format!("({})", bound.backing_path.display());
        [
            path.unwrap_or_else(hidden),
            bound.binding.clone().unwrap_or_else(refused),
            bound.key_id.to_string(),
            bound.problem.clone().unwrap_or_default(),
        ]
    });
    output::table(["PATH", "BINDING", "KEY ID", "PROBLEM"], rows)
}

/// Files, directories, symlinks and bytes, for a table.
pub(super) fn columns(tally: &Tally) -> [String; 4] {
    [
        tally.files.to_string(),
        tally.directories.to_string(),
        tally.symlinks.to_string(),
        tally.bytes.to_string(),
    ]
}
