//! Rewrap: every data key of a volume, or of one directory in it, under the current material of the CMK that its directory
//! is bound to now, or under another CMK. Envelopes only; data stays as it is.
//!
//! What is right already is left alone, so a rewrap that was interrupted is taken up by doing it again. At the end stands
//! a count of what lies on the disk, after a sync.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::sweep::{self, Failures, Progress, is_gone};
use super::walk::{self, Found, Place};
use super::{Volume, VolumeError, decode_volume_file, regular, volume_context};
use crate::crypto::header::{seal_volume, verify_volume};
use crate::crypto::object::ObjectKeys;
use crate::format::envelope::ObjectKind;
use crate::format::header::KeyBinding;
use crate::format::names::VOLUME_FILE;
use crate::fs::{
    Entry, FsError, FsResult, Maintenance, NodeId, ROOT_NODE, Rewrapped, WrappedUnder,
};
use crate::ids::{KeyId, MaterialId, ObjectId};

/// So many times everything is gone through where users' renames make objects pass by.
const PASSES: u32 = 5;

/// What one material of a CMK guards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Guarded {
    /// The CMK.
    pub key_id: KeyId,
    /// The material.
    pub key_material_id: MaterialId,
    /// Objects under it before.
    pub objects_before: u64,
    /// Objects under it now.
    pub objects: u64,
    /// Whether this is what objects are to be under.
    pub current: bool,
}

/// What was done, and what is so now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Report {
    /// Data keys wrapped anew.
    pub rewrapped: u64,
    /// The materials in use before or now, as counted on the disk.
    pub materials: Vec<Guarded>,
    /// What could not be rewrapped.
    pub failures: Failures,
    /// Objects whose key cannot be told.
    pub unreadable: u64,
    /// Users renamed objects too quickly for every one to be met.
    pub missed: bool,
    /// It was broken off. Nothing was counted then.
    pub interrupted: bool,
}

impl Default for Report {
    /// Of a rewrap that was broken off before it began.
    fn default() -> Self {
        Self {
            rewrapped: 0,
            materials: Vec::new(),
            failures: Failures::default(),
            unreadable: 0,
            missed: false,
            interrupted: true,
        }
    }
}

impl Report {
    /// Objects that are not wrapped as they are to be.
    #[must_use]
    pub fn remaining(&self) -> u64 {
        let old = self.materials.iter().filter(|guarded| !guarded.current);
        old.map(|guarded| guarded.objects).sum()
    }

    /// Everything is wrapped as it is to be, and that is proven.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        let trouble = self.failures.count > 0 || self.unreadable > 0;
        !trouble && !self.missed && !self.interrupted && self.remaining() == 0
    }
}

/// Rewraps everything from `top` (a directory, or the root for the whole volume with its volume key) down. With `to`, every
/// directory there is bound to that as well. `progress` is told of every object; `Break` ends it, and what is done stays.
///
/// # Errors
/// Where nothing was done: EBUSY beside another rewrap or rekey, EROFS, the directory itself damaged or its key, or the
/// one that `to` names, refused.
pub fn rewrap(
    volume: &Volume,
    top: NodeId,
    to: Option<&KeyBinding>,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Report, VolumeError> {
    let failed = |source: FsError| VolumeError::Filesystem {
        path: volume.backing_path(top),
        source,
    };
    let maintenance = volume.maintain().map_err(failed)?;
    let Some(before) = Count::take(volume, top, progress)? else {
        return Ok(Report::default());
    };
    let mut pass = Pass {
        maintenance: &maintenance,
        to,
        progress,
        at: Progress {
            done: 0,
            total: before.total(),
        },
        rewrapped: 0,
        changed: false,
        missed: false,
        current: BTreeSet::new(),
        failures: Failures::default(),
        links: HashMap::new(),
    };
    // First, and alone: where the keys are refused they are refused at once.
    let entry = maintenance.top(top).map_err(failed)?;
    let done = maintenance.rewrap(&entry, to).map_err(failed)?;
    pass.note(done);
    if top == ROOT_NODE {
        let binding = maintenance.binding(&entry).map_err(failed)?;
        pass.note(rewrap_volume_file(volume, &binding)?);
        maintenance.clear_side_files().map_err(failed)?;
    }
    let (mut after, mut interrupted) = (before.clone(), true);
    for _ in 0..PASSES {
        interrupted = pass.run(top).map_err(failed)?.is_break();
        maintenance.sync().map_err(failed)?;
        if interrupted {
            break;
        }
        match Count::take(volume, top, pass.progress)? {
            Some(count) => after = count,
            None => {
                interrupted = true;
                break;
            }
        }
        let again = pass.missed || (pass.changed && after.remains_outside(&pass.current));
        if !again {
            break;
        }
    }
    Ok(Report {
        rewrapped: pass.rewrapped,
        // Who has broken it off does not wait for another count.
        materials: if interrupted {
            Vec::new()
        } else {
            before.compared_with(&after, &pass.current)
        },
        failures: pass.failures,
        unreadable: after.unread,
        missed: pass.missed,
        interrupted,
    })
}

struct Pass<'a, 'f> {
    maintenance: &'a Maintenance<'f>,
    to: Option<&'a KeyBinding>,
    progress: &'a mut dyn FnMut(Progress) -> ControlFlow<()>,
    at: Progress,
    rewrapped: u64,
    /// Something was rewrapped in this pass.
    changed: bool,
    /// Something passed by, in this pass.
    missed: bool,
    /// What objects are to be under, as this pass saw it.
    current: BTreeSet<WrappedUnder>,
    failures: Failures,
    /// Symlinks of several names, by inode number.
    links: HashMap<NodeId, Vec<Entry<'f>>>,
}

impl Pass<'_, '_> {
    fn run(&mut self, top: NodeId) -> FsResult<ControlFlow<()>> {
        self.at.done = 0;
        (self.changed, self.missed) = (false, false);
        self.failures = Failures::default();
        self.current.clear();
        // The directory is bound already: what was made under its old binding is there to be seen now.
        self.maintenance.wait_for_others();
        let maintenance = self.maintenance;
        let entry = maintenance.top(top)?;
        if self.visit_all(top, entry).is_break() {
            return Ok(ControlFlow::Break(()));
        }
        for (_, entries) in std::mem::take(&mut self.links) {
            self.rewrap_links(&entries, top);
        }
        Ok(ControlFlow::Continue(()))
    }

    fn visit_all(&mut self, top: NodeId, entry: Entry<'_>) -> ControlFlow<()> {
        let maintenance = self.maintenance;
        sweep::Visitor::visit(self, &entry)?;
        sweep::below(maintenance, entry, self)?;
        match sweep::moved(maintenance, top, self) {
            ControlFlow::Continue(all) => self.missed |= !all,
            ControlFlow::Break(()) => return ControlFlow::Break(()),
        }
        // Who has a file open that has no name, any more or yet, is not to lose it with the old key.
        for entry in maintenance.nameless() {
            if entry.is_within(top) {
                sweep::Visitor::visit(self, &entry)?;
            }
        }
        // One that had none yet may have got one in between.
        match sweep::moved(maintenance, top, self) {
            ControlFlow::Continue(all) => self.missed |= !all,
            ControlFlow::Break(()) => return ControlFlow::Break(()),
        }
        ControlFlow::Continue(())
    }

    fn rewrap_links(&mut self, entries: &[Entry<'_>], top: NodeId) {
        let Some(first) = entries.first() else { return };
        if (entries.len() as u64) < first.links() && top != ROOT_NODE {
            let why = "this symlink has names outside of the directory: only a rewrap of the whole volume reaches them";
            self.failures.add(&first.backing_path(), why);
            return;
        }
        match self.maintenance.rewrap_links(entries, self.to) {
            Ok(done) => self.note(done),
            Err(error) => self.failures.add(&first.backing_path(), error),
        }
    }

    fn note(&mut self, done: Rewrapped) {
        match done {
            Rewrapped::Nothing => {}
            Rewrapped::Missed => self.missed = true,
            Rewrapped::Already(under) => {
                self.current.insert(under);
            }
            Rewrapped::Now { to, .. } => {
                self.current.insert(to);
                self.rewrapped += 1;
                self.changed = true;
            }
        }
    }
}

impl sweep::Visitor for Pass<'_, '_> {
    fn visit(&mut self, entry: &Entry<'_>) -> ControlFlow<()> {
        match self.maintenance.rewrap(entry, self.to) {
            Ok(Rewrapped::Missed) if entry.links() > 1 => match self.maintenance.keep(entry) {
                Ok(kept) => self.links.entry(entry.node()).or_default().push(kept),
                Err(_) => self.missed = true,
            },
            Ok(done) => self.note(done),
            Err(error) if is_gone(&error) => self.missed = true,
            Err(error) => self.failures.add(&entry.backing_path(), error),
        }
        self.at.done += 1;
        self.at.total = self.at.total.max(self.at.done);
        (self.progress)(self.at)
    }

    fn failed(&mut self, path: &Path, error: &FsError) {
        self.failures.add(path, error);
    }
}

/// Rewraps the volume key: the volume file, which bears the volume's lock and therefore stays the same file, is written in
/// place, within one sector.
fn rewrap_volume_file(volume: &Volume, binding: &KeyBinding) -> Result<Rewrapped, VolumeError> {
    let filesystem = |source: FsError| VolumeError::Filesystem {
        path: PathBuf::from(VOLUME_FILE),
        source,
    };
    let directory = volume.backing_root().map_err(filesystem)?;
    let path = directory.join(VOLUME_FILE);
    let file = regular(&path, true).map_err(VolumeError::io("open", &path))?;
    let old = decode_volume_file(&file, &directory)?;
    let context = volume_context(volume.volume_id());
    let keys = volume.keys();
    let from = WrappedUnder::of(old.envelope());
    let rewrap = || -> FsResult<_> {
        let envelope = keys.rewrap_data_key(binding, old.envelope(), &context)?;
        match envelope {
            None => Ok(None),
            Some(envelope) => Ok(Some((envelope, keys.unwrap_data_key(&envelope, &context)?))),
        }
    };
    let Some((envelope, data_key)) = rewrap().map_err(filesystem)? else {
        return Ok(Rewrapped::Already(from));
    };
    let keys = ObjectKeys::new(&data_key, ObjectKind::Volume);
    verify_volume(&keys, &old).map_err(|_| filesystem(Errno::BADMSG.into()))?;
    let new = seal_volume(
        &keys,
        old.volume_id(),
        old.key_store_id(),
        old.features(),
        envelope,
    );
    std::os::unix::fs::FileExt::write_all_at(&file, &new.encode(), 0)
        .map_err(VolumeError::io("write", &path))?;
    Ok(Rewrapped::Now {
        from,
        to: WrappedUnder::of(&envelope),
    })
}

/// Objects by what wraps them, as it stands in the backing directory.
#[derive(Debug, Clone, Default)]
pub(super) struct Count {
    counted: u64,
    by_material: BTreeMap<WrappedUnder, u64>,
    unread: u64,
    /// Path of the directory it is about (empty: the root), and what was met in it.
    top: PathBuf,
    met: HashSet<ObjectId>,
}

impl Count {
    /// Counts; `None` where `progress` breaks it off.
    pub(super) fn take(
        volume: &Volume,
        top: NodeId,
        progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Option<Self>, VolumeError> {
        let directory = volume
            .backing_root()
            .map_err(|source| VolumeError::Filesystem {
                path: PathBuf::new(),
                source,
            })?;
        let mut count = Self {
            top: volume.backing_path(top),
            ..Self::default()
        };
        if top == ROOT_NODE {
            let file = super::read_volume_file(&directory)?;
            count
                .by_material
                .insert(WrappedUnder::of(file.envelope()), 1);
        }
        let mut counter = Counter {
            count: &mut count,
            progress,
            is_broken_off: false,
        };
        walk::walk(&directory, &mut counter)?;
        let is_broken_off = counter.is_broken_off;
        Ok((!is_broken_off).then_some(count))
    }

    pub(super) fn total(&self) -> u64 {
        self.by_material.values().sum()
    }

    fn remains_outside(&self, current: &BTreeSet<WrappedUnder>) -> bool {
        self.by_material
            .keys()
            .any(|under| !current.contains(under))
    }

    fn compared_with(&self, after: &Self, current: &BTreeSet<WrappedUnder>) -> Vec<Guarded> {
        let all: BTreeSet<_> = [self, after]
            .iter()
            .flat_map(|count| count.by_material.keys())
            .collect();
        let objects = |count: &Self, under| count.by_material.get(under).copied().unwrap_or(0);
        all.into_iter()
            .map(|under| Guarded {
                key_id: under.key,
                key_material_id: under.material,
                objects_before: objects(self, under),
                objects: objects(after, under),
                current: current.contains(under),
            })
            .collect()
    }
}

struct Counter<'a> {
    count: &'a mut Count,
    progress: &'a mut dyn FnMut(Progress) -> ControlFlow<()>,
    is_broken_off: bool,
}

impl walk::Visitor for Counter<'_> {
    fn found(&mut self, place: &Place<'_>, found: &Found) -> ControlFlow<()> {
        let count = &mut *self.count;
        if place.path.starts_with(&count.top) {
            match found {
                Found::Object(object) => {
                    // Its first name may have been outside of the directory.
                    let is_whole = count.top.as_os_str().is_empty();
                    if (is_whole && !object.again) || (!is_whole && count.met.insert(object.id)) {
                        let under = WrappedUnder::of(&object.envelope);
                        *count.by_material.entry(under).or_default() += 1;
                    }
                }
                Found::Keyless | Found::Foreign => {}
                Found::Unread(_) | Found::UnreadDirectory(_) => count.unread += 1,
            }
        }
        count.counted += 1;
        let so_far = Progress {
            done: count.counted,
            total: 0,
        };
        let flow = (self.progress)(so_far);
        self.is_broken_off = flow.is_break();
        flow
    }
}
