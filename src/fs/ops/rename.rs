//! Renaming and linking, inside one key binding.

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::sync::Arc;

use crate::sync::MutexGuard;
use rustix::fs::{RenameFlags, Stat};
use rustix::io::Errno;

use super::{FileSystem, kind_of};
use crate::fs::backing::At;
use crate::fs::directory::{EntryName, check_empty, temporary_name};
use crate::fs::error::FsResult;
use crate::fs::inodes::{BackingId, Inode, Place};
use crate::fs::types::{Attributes, FileKind, NodeId, RenameMode};

/// One end of a rename.
struct End {
    parent: Arc<Inode>,
    directory: Arc<std::os::fd::OwnedFd>,
    entry: EntryName,
}

impl End {
    fn at(&self) -> At<'_> {
        At::Name(self.directory.as_fd(), &self.entry.object)
    }

    fn place(&self) -> Place {
        Place {
            parent: Some(Arc::clone(&self.parent)),
            name: self.entry.object.clone(),
            pin: None,
        }
    }
}

impl FileSystem {
    fn end(&self, parent: &Arc<Inode>, name: &OsStr) -> FsResult<End> {
        let parent = Arc::clone(parent);
        let entry = parent.entry_name(&self.core, name)?;
        let directory = parent.descriptor(&self.core)?;
        Ok(End {
            parent,
            directory,
            entry,
        })
    }

    /// What is created in a directory stays under its binding: nothing is moved or linked across bindings.
    fn same_binding(&self, a: &Inode, b: &Inode) -> FsResult<()> {
        if a.node == b.node || a.header(&self.core)?.binding == b.header(&self.core)?.binding {
            Ok(())
        } else {
            Err(Errno::XDEV.into())
        }
    }

    /// A directory that is bound as the one it moves into keeps its contents where they belong.
    fn is_bound_like(&self, moved: &Stat, to: &Inode) -> FsResult<bool> {
        if kind_of(moved) != FileKind::Directory {
            return Ok(false);
        }
        let Some(moved) = self.inodes.find(BackingId::of(moved)) else {
            return Ok(false);
        };
        // Where its header cannot be had, what counts is where it comes from.
        let binding = &to.header(&self.core)?.binding;
        let is_alike = moved
            .header(&self.core)
            .is_ok_and(|header| header.binding == *binding);
        self.inodes.let_go(moved);
        Ok(is_alike)
    }

    /// Long names are two files in the backing directory; whoever makes or removes one is alone with it.
    pub(super) fn lock_long_names(&self, entry: &EntryName) -> Option<MutexGuard<'_, ()>> {
        entry.long.as_ref().map(|_| self.sealer.long_names.lock())
    }

    /// Renames.
    ///
    /// # Errors
    /// What rename(2) says; EXDEV between directories of different key bindings; a directory's key refused.
    pub fn rename(
        &self,
        parent: NodeId,
        name: &OsStr,
        new_parent: NodeId,
        new_name: &OsStr,
        mode: RenameMode,
    ) -> FsResult<()> {
        self.core.writable()?;
        let (old, new) = (self.inodes.get(parent)?, self.inodes.get(new_parent)?);
        let _bound = (old.directory.keep_binding(), new.directory.keep_binding());
        let (from, to) = (self.end(&old, name)?, self.end(&new, new_name)?);
        let _tree = self.tree.read();
        let _names = self
            .lock_long_names(&from.entry)
            .or_else(|| self.lock_long_names(&to.entry));
        let moved = self.core.backing.stat(from.at())?;
        if let Err(error) = self.same_binding(&from.parent, &to.parent)
            && (mode == RenameMode::Exchange || !self.is_bound_like(&moved, &to.parent)?)
        {
            return Err(error);
        }
        let target = match self.core.backing.stat(to.at()) {
            Ok(stat) => Some(stat),
            Err(Errno::NOENT) => None,
            Err(error) => return Err(error.into()),
        };
        match (mode, target) {
            (RenameMode::NoReplace, Some(_)) => Err(Errno::EXIST.into()),
            // Two names of one object: nothing is to be done, says POSIX.
            (_, Some(target)) if BackingId::of(&target) == BackingId::of(&moved) => Ok(()),
            (RenameMode::Exchange, None) => Err(Errno::NOENT.into()),
            (RenameMode::Exchange, Some(target)) => self.exchange(&from, &moved, &to, &target),
            (RenameMode::Replace, Some(target)) => self.replace(&from, &moved, &to, &target),
            (RenameMode::Replace | RenameMode::NoReplace, None) => {
                to.entry.write_long(&self.core, &to.directory)?;
                let done = self.moved(&from, &moved, &to, RenameFlags::NOREPLACE);
                if done.is_err() {
                    self.drop_unused_long_name(&to.entry, to.directory.as_fd());
                }
                done?;
                from.entry.remove_long(&self.core, &from.directory);
                Ok(())
            }
        }
    }

    fn replace(&self, from: &End, moved: &Stat, to: &End, target: &Stat) -> FsResult<()> {
        match (kind_of(moved), kind_of(target)) {
            (FileKind::Directory, FileKind::Directory) => {
                check_empty(&self.core, to.directory.as_fd(), &to.entry.object)?;
                // First swapped, so that neither name is without a directory at any moment; then the replaced one, now
                // under the old name, is moved aside like any directory that is removed.
                self.exchange(from, moved, to, target)?;
                let aside = temporary_name();
                let directory = from.directory.as_fd();
                let moved_aside =
                    self.detached(&from.parent, target, directory, &from.entry.object, || {
                        let aside = (directory, aside.as_c_str());
                        self.core.backing.rename(
                            (directory, &from.entry.object),
                            aside,
                            RenameFlags::empty(),
                        )
                    });
                if let Err(error) = moved_aside {
                    let _ = self.exchange(from, target, to, moved);
                    return Err(error);
                }
                self.remove_aside(directory, &aside);
            }
            (FileKind::Directory, _) => return Err(Errno::NOTDIR.into()),
            (_, FileKind::Directory) => return Err(Errno::ISDIR.into()),
            (_, _) => {
                let side = self.side_file_of(target, to.at());
                let rename = || self.moved(from, moved, to, RenameFlags::empty());
                let mut failed = None;
                self.detached(
                    &to.parent,
                    target,
                    to.directory.as_fd(),
                    &to.entry.object,
                    || {
                        rename().map_err(|error| {
                            let errno = error.errno();
                            failed = Some(error);
                            errno
                        })
                    },
                )
                .map_err(|error| failed.take().unwrap_or(error))?;
                if let Some(side) = side {
                    self.remove_side_file_with(&[to.directory.as_fd()], &side);
                }
            }
        }
        from.entry.remove_long(&self.core, &from.directory);
        Ok(())
    }

    /// Renames in the backing directory, and tells the inode where it lies now.
    fn moved(&self, from: &End, moved: &Stat, to: &End, flags: RenameFlags) -> FsResult<()> {
        let rename = || {
            let (source, target) = (from.directory.as_fd(), to.directory.as_fd());
            self.core.backing.rename(
                (source, &from.entry.object),
                (target, &to.entry.object),
                flags,
            )
        };
        let Some(inode) = self.inodes.find(BackingId::of(moved)) else {
            rename()?;
            self.note_new_name(&to.parent, &to.entry.object);
            return Ok(());
        };
        let old = {
            let mut place = inode.place.write();
            rename()?;
            std::mem::replace(&mut *place, to.place())
        };
        self.note_new_name(&to.parent, &to.entry.object);
        self.let_go_of(old, inode);
        Ok(())
    }

    fn exchange(&self, from: &End, moved: &Stat, to: &End, target: &Stat) -> FsResult<()> {
        let (a, b) = (
            self.inodes.find(BackingId::of(moved)),
            self.inodes.find(BackingId::of(target)),
        );
        let rename = || {
            let (source, other) = (from.directory.as_fd(), to.directory.as_fd());
            self.core.backing.rename(
                (source, &from.entry.object),
                (other, &to.entry.object),
                RenameFlags::EXCHANGE,
            )
        };
        // Both places are held while it happens, the lower number first.
        let mut ends: Vec<(&Arc<Inode>, Place)> = Vec::new();
        ends.extend(a.as_ref().map(|inode| (inode, to.place())));
        ends.extend(b.as_ref().map(|inode| (inode, from.place())));
        ends.sort_by_key(|(inode, _)| inode.node);
        let mut guards: Vec<_> = ends.iter().map(|(inode, _)| inode.place.write()).collect();
        rename()?;
        let places = ends.into_iter().map(|(_, place)| place);
        let old: Vec<_> = guards
            .iter_mut()
            .zip(places)
            .map(|(guard, place)| std::mem::replace(&mut **guard, place))
            .collect();
        drop(guards);
        drop(old);
        for end in [from, to] {
            self.note_new_name(&end.parent, &end.entry.object);
        }
        for inode in [a, b].into_iter().flatten() {
            self.inodes.let_go(inode);
        }
        Ok(())
    }

    /// Lets go of a place that was left, and of the inode that left it.
    fn let_go_of(&self, old: Place, inode: Arc<Inode>) {
        let parent = old.parent;
        self.inodes.let_go(inode);
        if let Some(parent) = parent {
            self.inodes.let_go(parent);
        }
    }

    /// Gives an object another name.
    ///
    /// # Errors
    /// What link(2) says; EXDEV between directories of different key bindings; a directory's key refused.
    pub fn link(&self, node: NodeId, new_parent: NodeId, new_name: &OsStr) -> FsResult<Attributes> {
        self.core.writable()?;
        let inode = self.inodes.get(node)?;
        let new = self.inodes.get(new_parent)?;
        let _bound = new.directory.keep_binding();
        let to = self.end(&new, new_name)?;
        let _tree = self.tree.read();
        if let Some(parent) = inode.parent() {
            self.same_binding(&parent, &to.parent)?;
        }
        let _names = self.lock_long_names(&to.entry);
        to.entry.write_long(&self.core, &to.directory)?;
        let linked = inode.at(&self.core, |at| {
            self.core.backing.link(at, &to.directory, &to.entry.object)
        });
        if let Err(error) = linked {
            self.drop_unused_long_name(&to.entry, to.directory.as_fd());
            return Err(error);
        }
        self.note_new_name(&to.parent, &to.entry.object);
        self.look_up_entry(&to.parent, &to.entry)
    }
}
