//! Wrapping data keys anew: the envelope of an object is replaced, under another CMK or another material of the same, and
//! what its data key guards stays as it is.

use std::sync::Arc;

use super::FileSystem;
use super::walk::{Entry, Maintenance};
use crate::crypto::symlink;
use crate::format::envelope::ObjectKind;
use crate::format::header::KeyBinding;
use crate::fs::error::FsResult;
use crate::fs::inodes::Inode;
use crate::fs::object::Object;
use crate::fs::types::{FileKind, Rewrapped, WrappedUnder};

impl Maintenance<'_> {
    /// Wraps an object's data key anew: under the current material of `to`, or else of what its directory is bound to. A
    /// directory is bound to `to` from then on. At every moment the stored object is the old one or the new one.
    ///
    /// A symlink of several names is another backing object afterwards: see [`Maintenance::rewrap_links`].
    ///
    /// # Errors
    /// Either CMK refused; EBADMSG where the object was tampered with; what the backing says.
    pub fn rewrap(&self, entry: &Entry<'_>, to: Option<&KeyBinding>) -> FsResult<Rewrapped> {
        let (fs, inode) = (self.filesystem, entry.inode()?);
        match entry.kind() {
            FileKind::Directory => inode.rewrap_header(&fs.core, to),
            FileKind::File => fs.rewrap_file(inode, to),
            FileKind::Symlink => fs.rewrap_symlink(inode, &[], to),
            FileKind::Fifo | FileKind::Socket | FileKind::CharDevice | FileKind::BlockDevice => {
                Ok(Rewrapped::Nothing)
            }
        }
    }

    /// As [`Maintenance::rewrap`], for a symlink of several names, which `entries` gives, all of them. They go on naming one
    /// symlink.
    ///
    /// # Errors
    /// As [`Maintenance::rewrap`].
    pub fn rewrap_links(
        &self,
        entries: &[Entry<'_>],
        to: Option<&KeyBinding>,
    ) -> FsResult<Rewrapped> {
        match entries.first() {
            Some(first) => self.filesystem.rewrap_symlink(first.inode()?, entries, to),
            None => Ok(Rewrapped::Nothing),
        }
    }

    /// Clears away what a process that died left half made where symlinks keep their long targets.
    ///
    /// # Errors
    /// What the backing says.
    pub fn clear_side_files(&self) -> FsResult<()> {
        self.filesystem.clear_side_files()
    }
}

impl FileSystem {
    fn rewrap_file(&self, inode: &Arc<Inode>, to: Option<&KeyBinding>) -> FsResult<Rewrapped> {
        let held = self.hold(inode, true)?;
        // Who began to change its attributes while it was closed, by its name, is done then; from here on it is by the open
        // file, which keeps them and the attributes that a new header keeps apart.
        drop(self.tree.write());
        let binding = || to.map_or_else(|| self.binding_over(inode), |to| Ok(to.clone()));
        let rewrapped = held.file().rewrap(&self.core, &binding)?;
        inode.note_key(held.file());
        Ok(rewrapped)
    }

    fn rewrap_symlink(
        &self,
        inode: &Arc<Inode>,
        names: &[Entry<'_>],
        to: Option<&KeyBinding>,
    ) -> FsResult<Rewrapped> {
        if inode.place.read().pin.is_some() {
            // Without a name there is nothing of it that could be read after a remount.
            return Ok(Rewrapped::Nothing);
        }
        let ring = &self.core.ring;
        let (old, new) = {
            let _tree = self.tree.read();
            let (record, _) = self.read_record(inode)?;
            let object =
                Object::existing(ring, record.object, ObjectKind::Symlink, record.envelope);
            let target = {
                let keys = object.keys(ring)?;
                symlink::open(&keys, record.clone()).map_err(|_| Self::tampered_link())?
            };
            let binding = to.map_or_else(|| self.binding_over(inode), |to| Ok(to.clone()))?;
            let Some(new) = object.rewrapped(ring, &binding)? else {
                *inode.key.lock() = Some(object.key());
                return Ok(Rewrapped::Already(WrappedUnder::of(object.envelope())));
            };
            let keys = new.keys(ring)?;
            let sealed = symlink::seal(&keys, new.id(), *new.envelope(), &target);
            (record, sealed)
        };
        let (from, to) = (
            WrappedUnder::of(&old.envelope),
            WrappedUnder::of(&new.envelope),
        );
        // Not known until it is done.
        *inode.key.lock() = None;
        if !self.replace_symlink(inode, names, &old, &new)? {
            return Ok(Rewrapped::Missed);
        }
        *inode.key.lock() = Some(to.key);
        Ok(Rewrapped::Now { from, to })
    }
}
