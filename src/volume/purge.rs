//! Removes from a volume that nobody has mounted what no key can open any more: files and symlinks under a CMK or
//! material that is gone for good, and directories under such where nothing is left in them. What a key can still open
//! stays, also where it lies in a directory whose names nobody can read any more; it is reported then.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, Mode, OFlags};
use rustix::io::Errno;

use super::census::{Damaged, Tally};
use super::fate::{Fate, Fates};
use super::lock::VolumeLock;
use super::walk::{self, Found, Object, Place, Visitor};
use super::{Access, VolumeError, check_store, decode_volume_file, open_volume_file};
use crate::format::envelope::{Envelope, ObjectKind};
use crate::format::names::{
    BackingName, DIRECTORY_FILE, LINKS_DIRECTORY, LONG_NAME_SUFFIX, TEMPORARY_PREFIX,
};
use crate::ids::{KeyId, MaterialId, ObjectId};
use crate::kms::KmsError;
use crate::kms::service::KeyService;

/// So many paths are kept of each list; all of it is counted.
const PATHS: usize = 1000;

/// Paths relative to the backing directory: counted, and the first thousand of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Paths {
    /// How many.
    pub count: u64,
    /// The first of them.
    pub first: Vec<PathBuf>,
}

impl Paths {
    fn add(&mut self, path: &Path) {
        self.count += 1;
        if self.first.len() < PATHS {
            self.first.push(path.to_owned());
        }
    }
}

/// What a purge would remove, or has removed.
#[derive(Debug, Default)]
pub struct Report {
    /// Objects that no key can open, by CMK and material.
    pub removed: BTreeMap<(KeyId, MaterialId), Tally>,
    /// Objects without a data key (empty files, pipes) whose names no key can read.
    pub nameless: u64,
    /// What a key may still open, in a directory whose names no key can read: such directories stay, too.
    pub kept: Paths,
    /// What cannot be read; it stays.
    pub damaged: Damaged,
    /// Keys of which nothing can be told, and why; what is under them stays.
    pub unclear: BTreeMap<KeyId, KmsError>,
    /// What could not be removed, and why.
    pub failed: Vec<(PathBuf, io::Error)>,
}

impl Report {
    /// All objects.
    #[must_use]
    pub fn objects(&self) -> u64 {
        self.nameless + self.removed.values().map(Tally::objects).sum::<u64>()
    }

    /// All bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.removed.values().map(|tally| tally.bytes).sum()
    }
}

/// What counts as gone besides what is under a key that was deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Include {
    /// Material that was imported and deleted, and could be imported again.
    pub pending_import: bool,
    /// Keys that are not there, and of which the audit log does not say that they were deleted.
    pub unknown_keys: bool,
}

/// A purge of one volume. Holds the volume's lock: nobody mounts it meanwhile.
pub struct Purge<'a> {
    directory: PathBuf,
    root: OwnedFd,
    keys: &'a KeyService,
    include: Include,
    _lock: VolumeLock,
}

impl std::fmt::Debug for Purge<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Purge")
            .field("directory", &self.directory)
            .field("include", &self.include)
            .finish_non_exhaustive()
    }
}

impl<'a> Purge<'a> {
    /// Takes the lock of the volume in `directory`.
    ///
    /// # Errors
    /// [`VolumeError::InUse`] where it is mounted, [`VolumeError::WrongKeyStore`], and [`VolumeError::Dead`] where nothing
    /// in it can be opened any more.
    pub fn new(
        directory: &Path,
        keys: &'a KeyService,
        include: Include,
    ) -> Result<Self, VolumeError> {
        let file = open_volume_file(directory)?;
        let lock = VolumeLock::take(&file, directory, Access::ReadWrite)?;
        let volume = decode_volume_file(&file, directory)?;
        check_store(&volume, directory, keys)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(directory, flags, Mode::empty())
            .map_err(|errno| VolumeError::io("open", directory)(errno.into()))?;
        let purge = Self {
            directory: directory.to_owned(),
            root,
            keys,
            include,
            _lock: lock,
        };
        let mut fates = Fates::new(keys, include.unknown_keys)?;
        let header = walk::read_header(
            purge.root.as_fd(),
            &own(DIRECTORY_FILE),
            ObjectKind::Directory,
        );
        let root_envelope = header.ok().flatten().map(|header| *header.envelope());
        for envelope in [Some(*volume.envelope()), root_envelope]
            .into_iter()
            .flatten()
        {
            if purge.is_dead(&mut fates, &envelope) {
                return Err(VolumeError::Dead {
                    path: directory.to_owned(),
                    key: envelope.key_id(),
                });
            }
        }
        Ok(purge)
    }

    /// Says what would be removed, and removes nothing. `progress` is told how many objects have been looked at.
    ///
    /// # Errors
    /// Where the volume or the keys cannot be read at all.
    pub fn plan(&self, progress: &mut dyn FnMut(u64)) -> Result<Report, VolumeError> {
        self.run(None, progress)
    }

    /// Removes what `plan` speaks of, as far as it still is so: a key that has come back meanwhile keeps what is under it.
    /// `progress` is told how many objects have been removed.
    ///
    /// # Errors
    /// As [`Self::plan`], and where the backing filesystem cannot be synced. What cannot be removed is in the report.
    pub fn remove(
        &self,
        plan: &Report,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Report, VolumeError> {
        let report = self.run(Some(plan), progress)?;
        rustix::fs::syncfs(&self.root)
            .map_err(|errno| VolumeError::io("sync", &self.directory)(errno.into()))?;
        Ok(report)
    }

    fn run(
        &self,
        plan: Option<&Report>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Report, VolumeError> {
        let mut purger = Purger {
            purge: self,
            fates: Fates::new(self.keys, self.include.unknown_keys)?,
            plan,
            report: Report::default(),
            frames: Vec::new(),
            seen: 0,
            progress,
        };
        walk::walk(&self.directory, &mut purger)?;
        let Purger {
            mut report, fates, ..
        } = purger;
        report.unclear = fates.unclear;
        Ok(report)
    }

    fn is_dead(&self, fates: &mut Fates<'_>, envelope: &Envelope) -> bool {
        let from = if self.include.pending_import {
            Fate::Reimportable
        } else {
            Fate::Gone
        };
        fates.of(envelope.key_id(), envelope.material_id()) >= from
    }
}

impl Report {
    fn fail(&mut self, path: &Path, errno: Errno) {
        self.failed.push((path.to_owned(), errno.into()));
    }
}

/// A directory that is being walked.
struct Frame {
    /// What it is, where no key can open it any more.
    dead: Option<Object>,
    /// How many things stay in it.
    left: u64,
}

struct Purger<'a> {
    purge: &'a Purge<'a>,
    fates: Fates<'a>,
    /// Only what this speaks of is removed; without it nothing is, and all of it is counted.
    plan: Option<&'a Report>,
    report: Report,
    frames: Vec<Frame>,
    seen: u64,
    progress: &'a mut dyn FnMut(u64),
}

impl Purger<'_> {
    fn is_dead(&mut self, object: &Object) -> bool {
        let planned = self
            .plan
            .is_none_or(|plan| plan.removed.contains_key(&object.material()));
        planned && self.purge.is_dead(&mut self.fates, &object.envelope)
    }

    /// Something stays in the directory that is being walked.
    fn stays(&mut self, path: &Path) {
        if let Some(frame) = self.frames.last_mut() {
            frame.left += 1;
            if frame.dead.is_some() {
                self.report.kept.add(path);
            }
        }
    }

    /// Removes the entry at `place`, or only says that it would be. Whether it is gone.
    fn remove(&mut self, place: &Place<'_>, directory: bool) -> bool {
        if self.plan.is_none() {
            return true;
        }
        let removed = if directory {
            remove_directory(place.parent, place.name)
        } else {
            unlink(place.parent, place.name)
        };
        if let Err(errno) = removed {
            self.report.fail(place.path, errno);
            return false;
        }
        if BackingName::classify(place.name.to_bytes()) == BackingName::Long {
            let mut name = place.name.to_bytes().to_vec();
            name.extend_from_slice(LONG_NAME_SUFFIX.as_bytes());
            // Alone it means nothing, so nothing is lost where it stays.
            let _ = unlink(place.parent, &CString::new(name).unwrap_or_default());
        }
        true
    }

    /// Removes the target of a long symlink that is gone, where this was its last name.
    fn remove_side_file(&mut self, symlink: &Object) {
        if self.plan.is_none() || !symlink.last || symlink.kind != ObjectKind::Symlink {
            return;
        }
        let side = own(&format!("{LINKS_DIRECTORY}/{}", symlink.id));
        let root = self.purge.root.as_fd();
        // Nobody has authenticated the id: it may be another's.
        let is_its_own = walk::read_side_file(root, &side)
            .is_ok_and(|record| record.is_some_and(|record| record.envelope == symlink.envelope));
        if is_its_own && let Err(errno) = unlink(root, &side) {
            self.report.fail(Path::new(&*side.to_string_lossy()), errno);
        }
    }

    fn count(&mut self, object: &Object) {
        if !object.again {
            let tally = self.report.removed.entry(object.material());
            tally.or_default().count(object);
        }
    }

    fn has_seen_one(&mut self) {
        self.seen += 1;
        let done = match self.plan {
            Some(_) => self.report.objects(),
            None => self.seen,
        };
        (self.progress)(done);
    }
}

impl Visitor for Purger<'_> {
    fn found(&mut self, place: &Place<'_>, found: &Found) -> ControlFlow<()> {
        let in_dead = self.frames.last().is_some_and(|frame| frame.dead.is_some());
        match found {
            Found::Object(object) if object.kind == ObjectKind::Directory => {
                let dead = self.is_dead(object).then_some(*object);
                self.frames.push(Frame { dead, left: 0 });
            }
            Found::Object(object) => {
                if self.is_dead(object) && self.remove(place, false) {
                    self.remove_side_file(object);
                    self.count(object);
                } else {
                    self.stays(place.path);
                }
            }
            Found::Keyless => {
                if in_dead && self.remove(place, false) {
                    self.report.nameless += 1;
                } else {
                    self.stays(place.path);
                }
            }
            Found::Foreign => self.stays(place.path),
            Found::Unread(why) => {
                self.report.damaged.add(place.path, why.clone());
                self.stays(place.path);
            }
            Found::UnreadDirectory(why) => {
                self.report.damaged.add(place.path, why.clone());
                self.frames.push(Frame {
                    dead: None,
                    left: 0,
                });
            }
        }
        self.has_seen_one();
        ControlFlow::Continue(())
    }

    fn left(&mut self, place: &Place<'_>) -> ControlFlow<()> {
        let Some(frame) = self.frames.pop() else {
            return ControlFlow::Break(());
        };
        match frame.dead {
            Some(object) if frame.left == 0 && self.remove(place, true) => {
                self.count(&object);
                self.has_seen_one();
            }
            _ => self.stays(place.path),
        }
        ControlFlow::Continue(())
    }
}

fn open_directory(parent: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

fn unlink(parent: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    rustix::fs::unlinkat(parent, name, AtFlags::empty())
}

/// Removes a directory in which nothing but cmkfs's own is left: aside first, as rmdir does, so that none is ever found
/// without its header.
fn remove_directory(parent: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    let aside = own(&format!("{TEMPORARY_PREFIX}{}", ObjectId::random()));
    rustix::fs::renameat(parent, name, parent, &aside)?;
    match clear(parent, &aside) {
        Ok(()) => Ok(()),
        Err(errno) => {
            // Something is in it that should not be: it is not ours to hide.
            let _ = rustix::fs::renameat(parent, &aside, parent, name);
            Err(errno)
        }
    }
}

fn clear(parent: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    let directory = open_directory(parent, name)?;
    for entry in Dir::read_from(&directory)? {
        let entry = entry?;
        match BackingName::classify(entry.file_name().to_bytes()) {
            BackingName::Reserved => unlink(directory.as_fd(), entry.file_name())?,
            BackingName::Temporary => match unlink(directory.as_fd(), entry.file_name()) {
                Err(Errno::ISDIR) => clear(directory.as_fd(), entry.file_name())?,
                removed => removed?,
            },
            BackingName::Inline(_) | BackingName::Long | BackingName::Foreign => {}
        }
    }
    rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)
}

/// One of cmkfs's own names.
fn own(name: &str) -> CString {
    // Constants and hyphenated ids: no zero byte.
    CString::new(name).unwrap_or_default()
}
