//! Going through all objects of a volume that may be in use meanwhile, for what works on each of them: [`rewrap`](super::rewrap).
//!
//! A walk meets an object by its name, and whoever renames at the same time may take it past the walk. So while a walk is
//! under way, every new name of an object that was there is remembered, and the walk looks there as well.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::fmt;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use crate::sync::MutexGuard;
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::{FileSystem, kind_of};
use crate::format::header::KeyBinding;
use crate::format::names::{BackingName, LINKS_DIRECTORY};
use crate::fs::backing::At;
use crate::fs::directory::{header_aside, own_name};
use crate::fs::error::FsResult;
use crate::fs::inodes::{Inode, Place};
use crate::fs::types::{FileKind, NodeId};

/// A name that an object got while a walk was under way.
pub type NewName = (Arc<Inode>, CString);

/// Such names, by their directory's number: each once, however often objects are renamed there and back.
pub type NewNames = HashMap<(NodeId, CString), Arc<Inode>>;

/// The right to work on all objects of a volume: one at a time has it. Operations of users go on meanwhile.
pub struct Maintenance<'a> {
    pub(super) filesystem: &'a FileSystem,
    _turn: MutexGuard<'a, ()>,
}

impl fmt::Debug for Maintenance<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Maintenance")
    }
}

/// An object that a walk has met. While this lives the filesystem remembers it.
pub struct Entry<'a> {
    filesystem: &'a FileSystem,
    /// Given up by nobody but `drop`.
    inode: Option<Arc<Inode>>,
    node: NodeId,
    kind: FileKind,
    /// Where it was met: the directory and its name there.
    pub(super) name: Option<NewName>,
    links: u64,
}

impl fmt::Debug for Entry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("node", &self.node())
            .finish_non_exhaustive()
    }
}

impl Entry<'_> {
    /// Its inode number.
    #[must_use]
    pub const fn node(&self) -> NodeId {
        self.node
    }

    /// What it is.
    #[must_use]
    pub const fn kind(&self) -> FileKind {
        self.kind
    }

    pub(super) fn inode(&self) -> FsResult<&Arc<Inode>> {
        Ok(self.inode.as_ref().ok_or(Errno::STALE)?)
    }

    /// How many names it had when it was met.
    #[must_use]
    pub const fn links(&self) -> u64 {
        self.links
    }

    /// Where it lies in the backing directory, for messages.
    #[must_use]
    pub fn backing_path(&self) -> PathBuf {
        self.filesystem.backing_path(self.node)
    }

    /// Whether this is `top` or lies below it.
    #[must_use]
    pub fn is_within(&self, top: NodeId) -> bool {
        let mut next = self.inode.clone();
        while let Some(inode) = next {
            if inode.node == top {
                return true;
            }
            next = inode.parent();
        }
        false
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        let inodes = &self.filesystem.inodes;
        if let Some(inode) = self.inode.take() {
            inodes.release(inode);
        }
        if let Some((parent, _)) = self.name.take() {
            inodes.let_go(parent);
        }
    }
}

impl FileSystem {
    /// A path to the backing directory that is good for as long as this filesystem lives, wherever that is moved to.
    ///
    /// # Errors
    /// What the backing says.
    pub fn backing_root(&self) -> FsResult<PathBuf> {
        let root = self.inodes.root().descriptor(&self.core)?;
        // The dot makes it the directory itself and not a symlink to it.
        Ok(format!("/proc/self/fd/{}/.", root.as_raw_fd()).into())
    }

    /// Begins work on all objects.
    ///
    /// # Errors
    /// EROFS; EBUSY where somebody else is at such work.
    pub fn maintain(&self) -> FsResult<Maintenance<'_>> {
        self.core.writable()?;
        self.inspect()
    }

    /// As [`FileSystem::maintain`], for who only looks: it is had where nothing may change, too.
    ///
    /// # Errors
    /// EBUSY where somebody else is at such work.
    pub fn inspect(&self) -> FsResult<Maintenance<'_>> {
        let turn = self.maintenance.try_lock().ok_or(Errno::BUSY)?;
        *self.new_names.lock() = Some(NewNames::new());
        Ok(Maintenance {
            filesystem: self,
            _turn: turn,
        })
    }

    /// An object that was there has a name that it had not before.
    pub(super) fn note_new_name(&self, parent: &Arc<Inode>, name: &CStr) {
        if let Some(names) = &mut *self.new_names.lock() {
            names.insert((parent.node, name.to_owned()), Arc::clone(parent));
        }
    }
}

impl Drop for Maintenance<'_> {
    fn drop(&mut self) {
        let names = self.filesystem.new_names.lock().take();
        for parent in names.unwrap_or_default().into_values() {
            self.filesystem.inodes.let_go(parent);
        }
    }
}

impl<'a> Maintenance<'a> {
    /// The directory to begin with.
    ///
    /// # Errors
    /// ESTALE where the transport does not know it; ENOTDIR.
    pub fn top(&self, node: NodeId) -> FsResult<Entry<'a>> {
        let inode = self.filesystem.inodes.hold(node)?;
        let entry = self.entry_of(inode, None, 1);
        if entry.kind() != FileKind::Directory {
            return Err(Errno::NOTDIR.into());
        }
        Ok(entry)
    }

    fn entry_of(&self, inode: Arc<Inode>, name: Option<NewName>, links: u64) -> Entry<'a> {
        Entry {
            filesystem: self.filesystem,
            node: inode.node,
            kind: inode.kind,
            inode: Some(inode),
            name,
            links,
        }
    }

    /// The backing names of the objects in a directory. What a process that died left there half made is cleared away.
    ///
    /// # Errors
    /// What the backing says.
    pub fn names(&self, directory: &Entry<'_>) -> FsResult<Vec<CString>> {
        let fd = directory.inode()?.descriptor(&self.filesystem.core)?;
        let (mut names, mut leftovers) = (Vec::new(), false);
        self.filesystem
            .each_name(&fd, |name| match BackingName::classify(name.to_bytes()) {
                BackingName::Inline(_) | BackingName::Long => names.push(name.to_owned()),
                BackingName::Temporary => leftovers |= is_leftover(name),
                BackingName::Reserved | BackingName::Foreign => {}
            })?;
        if leftovers {
            self.filesystem.clear_leftovers(&fd)?;
        }
        Ok(names)
    }

    /// The object of this backing name; `None` where it has gone.
    ///
    /// # Errors
    /// What the backing says.
    pub fn entry(&self, directory: &Entry<'_>, name: &CStr) -> FsResult<Option<Entry<'a>>> {
        self.meet(directory.inode()?, name)
    }

    fn meet(&self, parent: &Arc<Inode>, name: &CStr) -> FsResult<Option<Entry<'a>>> {
        let fs = self.filesystem;
        let directory = match parent.descriptor(&fs.core) {
            Err(error) if is_gone(error.errno()) => return Ok(None),
            found => found?,
        };
        let _tree = fs.tree.write();
        let stat = match fs.core.backing.stat(At::Name(directory.as_fd(), name)) {
            Err(error) if is_gone(error) => return Ok(None),
            found => found?,
        };
        let inode = fs
            .inodes
            .look_up(&stat, kind_of(&stat), parent, name.to_owned());
        let name = Some((Arc::clone(parent), name.to_owned()));
        Ok(Some(self.entry_of(inode, name, stat.st_nlink)))
    }

    /// The same object once more, to be kept.
    ///
    /// # Errors
    /// None, as long as `entry` lives.
    pub fn keep(&self, entry: &Entry<'_>) -> FsResult<Entry<'a>> {
        let inode = self.filesystem.inodes.hold(entry.node)?;
        Ok(self.entry_of(inode, entry.name.clone(), entry.links))
    }

    /// What a directory is bound to.
    ///
    /// # Errors
    /// Its key refused; EBADMSG where its header was tampered with.
    pub fn binding(&self, directory: &Entry<'_>) -> FsResult<KeyBinding> {
        let header = directory.inode()?.header(&self.filesystem.core)?;
        Ok(header.binding.clone())
    }

    /// Objects that were renamed or linked since this was last asked.
    pub fn moved(&self) -> Vec<Entry<'a>> {
        let names = self.filesystem.new_names.lock().replace(NewNames::new());
        let mut moved = Vec::new();
        for ((_, name), parent) in names.unwrap_or_default() {
            // One that cannot be met now has been renamed again, or is gone.
            if let Ok(Some(entry)) = self.meet(&parent, &name) {
                moved.push(entry);
            }
            self.filesystem.inodes.let_go(parent);
        }
        moved
    }

    /// Files that are open and have no name, any more or yet.
    #[must_use]
    pub fn nameless(&self) -> Vec<Entry<'a>> {
        self.files_at(|place| place.pin.is_some())
    }

    /// Files that are open, were made without a name, and have got none.
    #[must_use]
    pub fn unnamed(&self) -> Vec<Entry<'a>> {
        self.files_at(Place::is_unnamed)
    }

    fn files_at(&self, is_there: impl Fn(&Place) -> bool) -> Vec<Entry<'a>> {
        let inodes = &self.filesystem.inodes;
        let all = inodes.all();
        all.iter()
            .filter(|inode| inode.kind == FileKind::File && is_there(&inode.place.read()))
            .filter_map(|inode| inodes.hold(inode.node).ok())
            .map(|inode| self.entry_of(inode, None, 0))
            .collect()
    }

    /// Waits for the operations on names that began before: what they made was made before what comes after this.
    pub fn wait_for_others(&self) {
        drop(self.filesystem.tree.write());
    }

    /// Puts everything on the disk.
    ///
    /// # Errors
    /// What the backing says.
    pub fn sync(&self) -> FsResult<()> {
        self.filesystem.sync_backing()
    }
}

impl FileSystem {
    pub(super) fn each_name(
        &self,
        directory: &OwnedFd,
        mut each: impl FnMut(&CStr),
    ) -> FsResult<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let listing = self.core.backing.open(directory, c".", flags, 0)?;
        for entry in rustix::fs::Dir::new(listing)? {
            each(entry?.file_name());
        }
        Ok(())
    }

    /// Clears away what is half made: nobody is making anything while the tree is held.
    fn clear_leftovers(&self, directory: &OwnedFd) -> FsResult<()> {
        let _tree = self.tree.write();
        let mut leftovers = Vec::new();
        self.each_name(directory, |name| {
            if is_leftover(name) {
                leftovers.push(name.to_owned());
            }
        })?;
        for name in leftovers {
            self.remove_aside(directory.as_fd(), &name);
        }
        Ok(())
    }

    /// As [`Maintenance::names`] does with any other directory.
    pub(super) fn clear_side_files(&self) -> FsResult<()> {
        let root = self.inodes.root().descriptor(&self.core)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        match self
            .core
            .backing
            .open(&root, &own_name(LINKS_DIRECTORY), flags, 0)
        {
            Err(Errno::NOENT) => Ok(()),
            opened => self.clear_leftovers(&opened?),
        }
    }
}

/// Half made. What a binding has left is not: attributes are told by it, and the next binding clears it away.
fn is_leftover(name: &CStr) -> bool {
    BackingName::classify(name.to_bytes()) == BackingName::Temporary && *name != *header_aside()
}

/// Gone, or in the place of a directory that is gone.
pub(super) const fn is_gone(errno: Errno) -> bool {
    matches!(errno, Errno::NOENT | Errno::NOTDIR | Errno::STALE)
}
