//! The blast radius: which volumes are looked at, and what each of them loses with the key.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, HumanCount};

use super::medium::Medium;
use super::report::{Bound, Lost, Volume};
use crate::cli::args::Global;
use crate::cli::message::CliError;
use crate::cli::output;
use crate::cli::progress::Progress;
use crate::cli::volume::ciphertext_of;
use crate::ids::KeyId;
use crate::kms::KeyService;
use crate::mount::control::client;
use crate::mount::control::protocol::{Request, Response};
use crate::volume::VolumeError;
use crate::volume::census::Tally;
use crate::volume::info::Info;
use crate::volume::probe::Probe;
use crate::volume::radius::Radius;

/// How long a mount may take at most to say what it serves.
const PATIENCE: Duration = Duration::from_secs(10);
/// Characters of a bar.
const BAR: u64 = 20;

/// What was found out about volumes.
#[derive(Debug, Default)]
pub struct Volumes {
    /// What each loses.
    pub volumes: Vec<Volume>,
    /// One wrapped data key for each material and volume.
    pub probes: Vec<Probe>,
    /// Mounts and volumes that could not be looked at.
    pub not_checked: Vec<String>,
}

/// The volumes that are named, and those of the mounts that use the key directory.
///
/// # Errors
/// Where a volume that was named cannot be looked at, or belongs to another key directory.
pub fn look(
    global: &Global,
    keys: &KeyService,
    key: KeyId,
    named: &[PathBuf],
    patience: Duration,
) -> Result<Volumes, CliError> {
    let mut found = Volumes::default();
    let mut directories: BTreeMap<PathBuf, Vec<String>> = BTreeMap::new();
    for directory in named {
        directories.entry(ciphertext_of(directory)?).or_default();
    }
    let mounted = mounted(keys.dir(), patience, &mut found.not_checked);
    for (directory, mountpoint) in &mounted {
        let mountpoints = directories.entry(directory.clone()).or_default();
        mountpoints.push(mountpoint.clone());
    }
    let is_named: Vec<_> = named
        .iter()
        .filter_map(|directory| ciphertext_of(directory).ok())
        .collect();
    for (directory, mountpoints) in directories {
        match measure(global, keys, key, &directory) {
            Ok(radius) => {
                let mut volume = describe(&directory, mountpoints, &radius);
                if !radius.lost().is_empty() {
                    volume.bindings = bindings(keys, key, &directory);
                }
                found.volumes.push(volume);
                found.probes.extend(radius.probes);
            }
            Err(error) if is_named.contains(&directory) => return Err(error.into()),
            // Mounted where this process cannot see it, in another mount namespace.
            Err(error) => found.not_checked.push(format!(
                "the volume mounted on {}: {error}",
                mountpoints.join(", ")
            )),
        }
    }
    found.not_checked.push(
        "volumes that are neither mounted nor named with --volume are not counted".to_owned(),
    );
    Ok(found)
}

fn measure(
    global: &Global,
    keys: &KeyService,
    key: KeyId,
    directory: &Path,
) -> Result<Radius, VolumeError> {
    let progress = Progress::counter(global, "Looking at what is under the key");
    let radius = Radius::of(directory, key, &mut |sum| {
        if progress.is_shown() {
            let (objects, bytes) = (HumanCount(sum.objects()), HumanBytes(sum.bytes));
            progress.say(format!("{objects} objects, {bytes}"));
        }
    })?;
    if radius.key_store == keys.store_id() {
        return Ok(radius);
    }
    Err(VolumeError::WrongKeyStore {
        path: directory.to_owned(),
        expected: radius.key_store,
        found: keys.store_id(),
        keys: keys.dir().to_owned(),
    })
}

/// The backing directories and mountpoints of the mounts that use the key directory.
fn mounted(
    keys: &Path,
    patience: Duration,
    not_checked: &mut Vec<String>,
) -> Vec<(PathBuf, String)> {
    let asked = match client::ask_all(
        keys,
        &Request::Status,
        Instant::now() + patience.min(PATIENCE),
    ) {
        Ok(asked) => asked,
        Err(error) => {
            not_checked.push(format!("running mounts cannot be listed: {error}"));
            return Vec::new();
        }
    };
    let mut found = Vec::new();
    for asked in asked {
        match asked.result {
            Ok(Response::Status(status)) => {
                let directory = PathBuf::from(&status.ciphertext);
                let directory = directory.canonicalize().unwrap_or(directory);
                found.push((directory, status.mountpoint));
            }
            Ok(_) => {}
            Err(error) => not_checked.push(format!(
                "what process {} has mounted: {error}",
                asked.process_id
            )),
        }
    }
    found
}

fn describe(directory: &Path, mountpoints: Vec<String>, radius: &Radius) -> Volume {
    let directory = directory
        .canonicalize()
        .unwrap_or_else(|_| directory.to_owned());
    Volume {
        volume_id: radius.volume,
        medium: Medium::of(&directory),
        mountpoints,
        lost: radius
            .by_material
            .iter()
            .map(|(material, tally)| Lost {
                key_material_id: *material,
                tally: *tally,
            })
            .collect(),
        lost_in_all: radius.lost(),
        stays: radius.stays,
        nameless: radius.nameless,
        other_keys: radius.other_keys.iter().copied().collect(),
        bindings: Vec::new(),
        is_whole: radius.is_whole(),
        damaged: radius.damaged,
    }
}

/// The directories where the key's part of a volume begins. What cannot be told is left out: it is no part of the count.
fn bindings(keys: &KeyService, key: KeyId, directory: &Path) -> Vec<Bound> {
    let info = match Info::of(directory, keys, &mut |_| {}) {
        Ok(info) => info,
        Err(error) => {
            log::warn!("bindings cannot be shown: {error}");
            return Vec::new();
        }
    };
    let bound = info.bindings.into_iter().filter(|bound| bound.key == key);
    bound
        .map(|bound| Bound {
            path: match bound.path {
                Some(path) => path.to_string_lossy().into_owned(),
                None => bound.backing_path.to_string_lossy().into_owned(),
            },
            binding: bound.binding.ok().map(|binding| binding.to_string()),
        })
        .collect()
}

/// Shows what each volume loses.
///
/// # Errors
/// [`CliError::Output`].
pub fn print(volumes: &[Volume]) -> Result<(), CliError> {
    if volumes.is_empty() {
        return output::line(
            "No volume is mounted or named: what is under the key is not counted.",
        );
    }
    let rows = volumes.iter().map(|volume| {
        let Volume {
            lost_in_all: lost,
            stays,
            nameless,
            ..
        } = volume;
        let mut total = *lost;
        total += *stays;
        total += *nameless;
        [
            volume.medium.path.clone(),
            HumanCount(lost.objects()).to_string(),
            HumanBytes(lost.bytes).to_string(),
            bar(lost, &total),
            share(stays),
            share(nameless),
        ]
    });
    output::table(
        [
            "VOLUME",
            "LOST",
            "BYTES",
            "SHARE OF THE VOLUME",
            "STAYS",
            "LOSES ITS NAME",
        ],
        rows,
    )?;
    for volume in volumes {
        for bound in &volume.bindings {
            output::line(&format!("{}: {}", volume.medium.path, bound.phrase()))?;
        }
    }
    for volume in volumes.iter().filter(|volume| volume.is_whole) {
        output::line(&format!(
            "{}: its own key or its root directory is under this key, so the whole volume goes",
            volume.medium.path
        ))?;
    }
    Ok(())
}

fn share(tally: &Tally) -> String {
    format!(
        "{} ({})",
        HumanCount(tally.objects()),
        HumanBytes(tally.bytes)
    )
}

/// The share of the bytes that are lost; of the objects where there are no bytes.
fn bar(lost: &Tally, total: &Tally) -> String {
    let (part, whole) = if total.bytes > 0 {
        (lost.bytes, total.bytes)
    } else {
        (lost.objects(), total.objects())
    };
    let of = |length: u64| {
        let share = u128::from(part) * u128::from(length) / u128::from(whole.max(1));
        u64::try_from(share).unwrap_or(length)
    };
    // What is lost at all is seen, and what is left, too.
    let filled = match of(BAR) {
        0 if part > 0 => 1,
        BAR if part < whole => BAR - 1,
        filled => filled,
    };
    let (filled, percent) = (filled as usize, of(100));
    let empty = BAR as usize - filled;
    format!(
        "[{}{}] {percent:>3} %",
        "#".repeat(filled),
        "-".repeat(empty)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_shows_the_share_and_hides_neither_a_little_loss_nor_a_little_rest() {
        let bytes = |bytes| Tally {
            files: 1,
            bytes,
            ..Tally::default()
        };
        let shown = |part, whole| bar(&bytes(part), &bytes(whole));
        assert_eq!(shown(50, 100), "[##########----------]  50 %");
        assert_eq!(shown(0, 100), "[--------------------]   0 %");
        assert_eq!(shown(1, 1000), "[#-------------------]   0 %");
        assert_eq!(shown(999, 1000), "[###################-]  99 %");
        assert_eq!(shown(7, 7), "[####################] 100 %");
        assert_eq!(shown(u64::MAX, u64::MAX), "[####################] 100 %");
        assert_eq!(shown(0, 0), "[####################] 100 %");
    }
}
