//! What a volume loses with one of its CMKs: what is under it, and what is under other CMKs but cannot be named any more,
//! because a directory above it is lost. Taken without any key, as a [census](super::census).
//!
//! Names of a directory's entries are encrypted under that directory's data key. What lies in a lost directory keeps its
//! content, and nobody can find it by its name.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use super::census::Tally;
use super::probe::Probe;
use super::walk::{self, Found, Object, Place, Visitor};
use super::{VolumeError, read_volume_file};
use crate::format::envelope::ObjectKind;
use crate::format::names::VOLUME_FILE;
use crate::ids::{KeyId, KeyStoreId, MaterialId, ObjectId, VolumeId};

/// What a volume loses with a CMK.
#[derive(Debug, Clone)]
pub struct Radius {
    /// The volume.
    pub volume: VolumeId,
    /// The key store it was made with.
    pub key_store: KeyStoreId,
    /// What each material of the CMK guards.
    pub by_material: BTreeMap<MaterialId, Tally>,
    /// What other CMKs guard, and can still be found.
    pub stays: Tally,
    /// What other CMKs guard, and nobody can find: a directory above it is lost.
    pub nameless: Tally,
    /// The other CMKs.
    pub other_keys: BTreeSet<KeyId>,
    /// The volume's own key is under the CMK: without it the volume cannot be mounted.
    pub volume_key: bool,
    /// The root directory is under the CMK.
    pub root: bool,
    /// Objects whose key cannot be told.
    pub damaged: u64,
    /// One wrapped data key for each material.
    pub probes: Vec<Probe>,
}

impl Radius {
    /// Looks at the volume in `directory`. `progress` is told the sum of all objects so far, with every one.
    ///
    /// # Errors
    /// [`VolumeError::NotAVolume`], a damaged volume file, or what the operating system says of the directory itself.
    pub fn of(
        directory: &Path,
        key: KeyId,
        progress: &mut dyn FnMut(&Tally),
    ) -> Result<Self, VolumeError> {
        let volume = read_volume_file(directory)?;
        let mut measure = Measure {
            key,
            radius: Self {
                volume: volume.volume_id(),
                key_store: volume.key_store_id(),
                by_material: BTreeMap::new(),
                stays: Tally::default(),
                nameless: Tally::default(),
                other_keys: BTreeSet::new(),
                volume_key: volume.envelope().key_id() == key,
                root: false,
                damaged: 0,
                probes: Vec::new(),
            },
            lost_from: None,
            nameless: HashMap::new(),
            sum: Tally::default(),
            progress,
        };
        let volume_key = Object {
            kind: ObjectKind::Volume,
            id: ObjectId(volume.volume_id().0),
            envelope: *volume.envelope(),
            bytes: 0,
            again: false,
            last: true,
        };
        measure.count(Path::new(VOLUME_FILE), &volume_key);
        walk::walk(directory, &mut measure)?;
        let Measure {
            mut radius,
            nameless,
            ..
        } = measure;
        nameless
            .into_values()
            .for_each(|tally| radius.nameless += tally);
        Ok(radius)
    }

    /// All that is under the CMK.
    #[must_use]
    pub fn lost(&self) -> Tally {
        let mut sum = Tally::default();
        self.by_material.values().for_each(|tally| sum += *tally);
        sum
    }

    /// All objects whose key can be told.
    #[must_use]
    pub fn total(&self) -> Tally {
        let mut sum = self.lost();
        sum += self.stays;
        sum += self.nameless;
        sum
    }

    /// The volume cannot be mounted, or nothing in it be found, without the CMK: everything in it goes.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.volume_key || self.root
    }
}

struct Measure<'a> {
    key: KeyId,
    radius: Radius,
    /// How deep the uppermost lost directory above lies.
    lost_from: Option<usize>,
    /// What was found in lost directories under other CMKs, and may have another name elsewhere. Directories have none.
    nameless: HashMap<ObjectId, Tally>,
    sum: Tally,
    progress: &'a mut dyn FnMut(&Tally),
}

impl Measure<'_> {
    fn count(&mut self, path: &Path, object: &Object) {
        let (key, material) = object.material();
        let radius = &mut self.radius;
        if key == self.key {
            if !radius.by_material.contains_key(&material) {
                radius
                    .probes
                    .push(Probe::new(radius.volume, path.to_owned(), object));
            }
            radius
                .by_material
                .entry(material)
                .or_default()
                .count(object);
        } else {
            radius.other_keys.insert(key);
            let tally = match (self.lost_from, object.kind) {
                (None, _) => &mut radius.stays,
                (Some(_), ObjectKind::Directory) => &mut radius.nameless,
                (Some(_), _) => self.nameless.entry(object.id).or_default(),
            };
            tally.count(object);
        }
        self.sum.count(object);
        (self.progress)(&self.sum);
    }

    /// Another name of an object that was counted: one that is not lost is enough to find it.
    fn find_again(&mut self, object: &Object) {
        if self.lost_from.is_none()
            && let Some(tally) = self.nameless.remove(&object.id)
        {
            self.radius.stays += tally;
        }
    }
}

impl Visitor for Measure<'_> {
    fn found(&mut self, place: &Place<'_>, found: &Found) -> ControlFlow<()> {
        match found {
            Found::Object(object) if object.again => self.find_again(object),
            Found::Object(object) => {
                let path = if object.kind == ObjectKind::Directory {
                    place.path.join(crate::format::names::DIRECTORY_FILE)
                } else {
                    PathBuf::from(place.path)
                };
                self.count(&path, object);
                let is_lost = object.envelope.key_id() == self.key;
                if object.kind == ObjectKind::Directory && is_lost {
                    self.radius.root |= place.depth == 0;
                    self.lost_from.get_or_insert(place.depth);
                }
            }
            Found::Keyless | Found::Foreign => {}
            Found::Unread(_) | Found::UnreadDirectory(_) => self.radius.damaged += 1,
        }
        ControlFlow::Continue(())
    }

    fn left(&mut self, place: &Place<'_>) -> ControlFlow<()> {
        if self.lost_from == Some(place.depth) {
            self.lost_from = None;
        }
        ControlFlow::Continue(())
    }
}
