//! The census of a volume: how many objects and bytes each material of each CMK guards. Taken without any key, without
//! the volume's lock, on a mounted volume as well as on one that is not (see [`walk`](super::walk)).
//!
//! On a volume nobody changes meanwhile, [`Census::remaining`] of nothing and [`Census::is_complete`] together prove that
//! a material is not needed there any more.

use std::collections::BTreeMap;
use std::ops::{AddAssign, ControlFlow};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::walk::{self, Found, Object, Place, Unread, Visitor};
use super::{VolumeError, read_volume_file};
use crate::format::envelope::ObjectKind;
use crate::format::volume::VolumeFile;
use crate::ids::{KeyId, KeyStoreId, MaterialId, VolumeId};

/// So many paths of what could not be read are kept; all of it is counted.
const PATHS: usize = 1000;

/// Objects, by kind, and what they hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Tally {
    /// Files that have a data key.
    pub files: u64,
    /// Directories, the root among them.
    pub directories: u64,
    /// Symlinks.
    pub symlinks: u64,
    /// The volume's own key: 1 or 0.
    pub volume_keys: u64,
    /// Plaintext bytes of files and symlink targets, as far as backing lengths tell.
    pub bytes: u64,
}

impl Tally {
    /// All objects, the volume key among them.
    #[must_use]
    pub const fn objects(&self) -> u64 {
        self.files + self.directories + self.symlinks + self.volume_keys
    }

    /// Nothing at all.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.objects() == 0
    }

    /// Counts one object.
    pub fn count(&mut self, object: &Object) {
        *match object.kind {
            ObjectKind::File => &mut self.files,
            ObjectKind::Directory => &mut self.directories,
            ObjectKind::Symlink => &mut self.symlinks,
            ObjectKind::Volume => &mut self.volume_keys,
        } += 1;
        self.bytes += object.bytes;
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.files += other.files;
        self.directories += other.directories;
        self.symlinks += other.symlinks;
        self.volume_keys += other.volume_keys;
        self.bytes += other.bytes;
    }
}

/// What could not be read: counted, and the first thousand with their paths.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Damaged {
    /// How many.
    pub count: u64,
    /// Paths relative to the backing directory, encrypted names, and why.
    pub paths: Vec<(PathBuf, Unread)>,
}

impl Damaged {
    /// Counts one.
    pub fn add(&mut self, path: &Path, why: Unread) {
        self.count += 1;
        if self.paths.len() < PATHS {
            self.paths.push((path.to_owned(), why));
        }
    }
}

/// What a volume holds, by the keys that guard it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Census {
    /// The volume.
    pub volume: VolumeId,
    /// The key store it was made with.
    pub key_store: KeyStoreId,
    /// Objects by CMK and material. Hard-linked objects count once.
    pub by_material: BTreeMap<(KeyId, MaterialId), Tally>,
    /// Objects without a data key: empty files that were never written, pipes, sockets, devices.
    pub keyless: u64,
    /// Entries under names that are not of cmkfs's making.
    pub foreign: u64,
    /// Objects whose key cannot be told.
    pub damaged: Damaged,
}

impl Census {
    /// Takes the census of the volume in `directory`. `progress` is told the sum so far, with every object.
    ///
    /// # Errors
    /// [`VolumeError::NotAVolume`], a damaged volume file, or what the operating system says of the directory itself.
    pub fn take(directory: &Path, progress: &mut dyn FnMut(&Tally)) -> Result<Self, VolumeError> {
        let mut counter = Counter::new(&read_volume_file(directory)?, progress);
        walk::walk(directory, &mut counter)?;
        Ok(counter.census)
    }
    /// Of a volume nothing of which has been looked at but its volume file.
    fn of(volume: &VolumeFile) -> Self {
        let envelope = volume.envelope();
        let volume_key = Tally {
            volume_keys: 1,
            ..Tally::default()
        };
        Self {
            volume: volume.volume_id(),
            key_store: volume.key_store_id(),
            by_material: [((envelope.key_id(), envelope.material_id()), volume_key)].into(),
            keyless: 0,
            foreign: 0,
            damaged: Damaged::default(),
        }
    }

    /// What is under a CMK, or under one material of it.
    #[must_use]
    pub fn remaining(&self, key: KeyId, material: Option<MaterialId>) -> Tally {
        let mut sum = Tally::default();
        for ((_, found), tally) in self.of_key(key) {
            if material.is_none_or(|material| material == *found) {
                sum += *tally;
            }
        }
        sum
    }

    /// The materials of a CMK that guard something here.
    pub fn of_key(&self, key: KeyId) -> impl Iterator<Item = (&(KeyId, MaterialId), &Tally)> {
        self.by_material
            .iter()
            .filter(move |((found, _), _)| *found == key)
    }

    /// The CMKs that guard something here, in the order of their ids.
    pub fn keys(&self) -> impl Iterator<Item = KeyId> {
        let mut last = None;
        let keys = self.by_material.keys().map(|(key, _)| *key);
        keys.filter(move |key| last.replace(*key) != Some(*key))
    }

    /// All objects whose key can be told.
    #[must_use]
    pub fn total(&self) -> Tally {
        let mut sum = Tally::default();
        self.by_material.values().for_each(|tally| sum += *tally);
        sum
    }

    /// The key of every object could be told.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.damaged.count == 0
    }
}

/// Counts what a walk finds.
pub(super) struct Counter<'a> {
    sum: Tally,
    pub(super) census: Census,
    progress: &'a mut dyn FnMut(&Tally),
}

impl<'a> Counter<'a> {
    pub(super) fn new(volume: &VolumeFile, progress: &'a mut dyn FnMut(&Tally)) -> Self {
        let census = Census::of(volume);
        Self {
            sum: census.total(),
            census,
            progress,
        }
    }
}

impl Visitor for Counter<'_> {
    fn found(&mut self, place: &Place<'_>, found: &Found) -> ControlFlow<()> {
        match found {
            Found::Object(object) if object.again => {}
            Found::Object(object) => {
                let tally = self.census.by_material.entry(object.material());
                tally.or_default().count(object);
                self.sum.count(object);
                (self.progress)(&self.sum);
            }
            Found::Keyless => self.census.keyless += 1,
            Found::Foreign => self.census.foreign += 1,
            Found::Unread(why) | Found::UnreadDirectory(why) => {
                self.census.damaged.add(place.path, why.clone())
            }
        }
        ControlFlow::Continue(())
    }
}

/// Tells `each` of every object in the volume in `directory` that is under a CMK, or under one material of it: its path
/// relative to the backing directory (empty for the root), and what it is. Hard-linked objects come once. `Break` ends
/// it. The volume file is no part of this: its path is known.
///
/// # Errors
/// As [`Census::take`].
pub fn find(
    directory: &Path,
    key: KeyId,
    material: Option<MaterialId>,
    each: &mut dyn FnMut(&Path, &Object) -> ControlFlow<()>,
) -> Result<(), VolumeError> {
    let mut finder = Finder {
        key,
        material,
        each,
    };
    walk::walk(directory, &mut finder)
}

struct Finder<'a> {
    key: KeyId,
    material: Option<MaterialId>,
    each: &'a mut dyn FnMut(&Path, &Object) -> ControlFlow<()>,
}

impl Visitor for Finder<'_> {
    fn found(&mut self, place: &Place<'_>, found: &Found) -> ControlFlow<()> {
        let Found::Object(object) = found else {
            return ControlFlow::Continue(());
        };
        let (key, material) = object.material();
        let wanted = key == self.key && self.material.is_none_or(|wanted| wanted == material);
        if wanted && !object.again {
            (self.each)(place.path, object)
        } else {
            ControlFlow::Continue(())
        }
    }
}
