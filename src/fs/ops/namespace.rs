//! Names: looking them up, making what they name, removing it.

use std::ffi::{CStr, OsStr};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use rustix::fs::{FileType, OFlags, Stat};
use rustix::io::Errno;

use super::{FileSystem, kind_of};
use crate::format::names::BackingName;
use crate::fs::backing::At;
use crate::fs::directory::{EntryName, check_empty, temporary_name, write_header};
use crate::fs::error::FsResult;
use crate::fs::inodes::{BackingId, Inode};
use crate::fs::types::{Attributes, Caller, FileKind, NewMode, NodeId, NodeType};
use crate::sys::identity;

impl FileSystem {
    /// Finds `name` in a directory, and counts one lookup.
    ///
    /// # Errors
    /// ENOENT, ENAMETOOLONG; the directory's key refused.
    pub fn lookup(&self, parent: NodeId, name: &OsStr) -> FsResult<Attributes> {
        let parent = self.inodes.get(parent)?;
        let entry = parent.entry_name(&self.core, name)?;
        let _tree = self.tree.read();
        self.look_up_entry(&parent, &entry)
    }

    /// The transport forgets so many lookups of a node.
    pub fn forget(&self, node: NodeId, lookups: u64) {
        self.inodes.forget(node, lookups);
        self.give_up_removed(node);
    }

    pub(super) fn look_up_entry(
        &self,
        parent: &Arc<Inode>,
        entry: &EntryName,
    ) -> FsResult<Attributes> {
        let directory = parent.descriptor(&self.core)?;
        self.look_up_in(parent, directory.as_fd(), &entry.object)
    }

    pub(super) fn look_up_in(
        &self,
        parent: &Arc<Inode>,
        directory: BorrowedFd<'_>,
        name: &CStr,
    ) -> FsResult<Attributes> {
        let (inode, attributes) = self.find_in(parent, directory, name)?;
        if let Err(error) = self.check_found(parent, &inode) {
            self.inodes.forget(inode.node, 1);
            return Err(error);
        }
        Ok(attributes)
    }

    /// Fails if a CMK is withdrawn that guards what was found. The directory's is asked once more: it may have been withdrawn
    /// since the name was encrypted, and a withdrawal drops only the names of what was found before it.
    pub(super) fn check_found(&self, parent: &Arc<Inode>, found: &Arc<Inode>) -> FsResult<()> {
        if self.leases().any_revoked() {
            parent.check_key(&self.core)?;
        }
        self.check_own_key(found)
    }

    /// Finds a backing name, and counts one lookup, whatever the key of what is found.
    pub(super) fn find_in(
        &self,
        parent: &Arc<Inode>,
        directory: BorrowedFd<'_>,
        name: &CStr,
    ) -> FsResult<(Arc<Inode>, Attributes)> {
        let at = At::Name(directory, name);
        let stat = self.core.backing.stat(at)?;
        let kind = kind_of(&stat);
        let size = self.size_at(kind, &stat, at)?;
        let inode = self.inodes.look_up(&stat, kind, parent, name.to_owned());
        // What a failed write has left past the end of an open file is none of it.
        let size = self.open_file(&inode).map_or(size, |file| file.size());
        let attributes = self.attributes_of(inode.node, kind, &stat, size);
        Ok((inode, attributes))
    }

    /// Makes a regular file, named pipe, socket or device.
    ///
    /// # Errors
    /// EEXIST and what mknod(2) says; the directory's key refused.
    pub fn make_node(
        &self,
        caller: Caller,
        parent: NodeId,
        name: &OsStr,
        mode: NewMode,
        node: NodeType,
    ) -> FsResult<Attributes> {
        let file_type = match node.kind {
            FileKind::File => FileType::RegularFile,
            FileKind::Fifo => FileType::Fifo,
            FileKind::Socket => FileType::Socket,
            FileKind::CharDevice => FileType::CharacterDevice,
            FileKind::BlockDevice => FileType::BlockDevice,
            FileKind::Directory | FileKind::Symlink => return Err(Errno::INVAL.into()),
        };
        self.make_entry(caller, parent, name, |directory, entry, parent| {
            let permissions = self.permissions_in(parent, mode);
            Ok(self.core.backing.make_node(
                directory,
                entry,
                file_type,
                permissions,
                node.device.into(),
            )?)
        })
    }

    /// Makes something at `name`, as the caller's: `make` does it, under the backing name.
    pub(super) fn make_entry(
        &self,
        caller: Caller,
        parent: NodeId,
        name: &OsStr,
        make: impl FnOnce(BorrowedFd<'_>, &CStr, &Arc<Inode>) -> FsResult<()>,
    ) -> FsResult<Attributes> {
        self.core.writable()?;
        let parent = self.inodes.get(parent)?;
        let _bound = parent.directory.keep_binding();
        let entry = parent.entry_name(&self.core, name)?;
        let directory = parent.descriptor(&self.core)?;
        identity::assume(caller.uid, caller.gid);
        let _tree = self.tree.read();
        let _names = self.lock_long_names(&entry);
        entry.write_long(&self.core, &directory)?;
        if let Err(error) = make(directory.as_fd(), &entry.object, &parent) {
            self.drop_unused_long_name(&entry, directory.as_fd());
            return Err(error);
        }
        self.look_up_entry(&parent, &entry)
    }

    /// Removes the kept name of an entry that was not made, unless it is another's.
    pub(super) fn drop_unused_long_name(&self, entry: &EntryName, directory: BorrowedFd<'_>) {
        if entry.long.is_some()
            && self
                .core
                .backing
                .stat(At::Name(directory, &entry.object))
                .err()
                == Some(Errno::NOENT)
        {
            entry.remove_long(&self.core, directory);
        }
    }

    /// Permission bits of something new in `parent`: the umask counts only where no default ACL takes its place.
    pub(super) fn permissions_in(&self, parent: &Inode, mode: NewMode) -> u32 {
        let inherited = parent.directory.default_acl.get(|| {
            let read = |at: At<'_>| self.core.backing.get_xattr(at, c"system.posix_acl_default");
            parent.at(&self.core, read).is_ok()
        });
        mode.permissions
            & if inherited {
                0o7777
            } else {
                !mode.umask & 0o7777
            }
    }

    /// Makes a directory: aside, with its header, then renamed into place, so that none ever appears without one.
    ///
    /// # Errors
    /// EEXIST and what mkdir(2) says; the directory's key refused.
    pub fn make_directory(
        &self,
        caller: Caller,
        parent: NodeId,
        name: &OsStr,
        mode: NewMode,
    ) -> FsResult<Attributes> {
        let mut made = None;
        let attributes = self.make_entry(caller, parent, name, |directory, entry, parent| {
            if self.core.backing.stat(At::Name(directory, entry)).is_ok() {
                return Err(Errno::EXIST.into());
            }
            let aside = temporary_name();
            let permissions = self.permissions_in(parent, mode);
            // Its owner must be able to write the header whatever the mode; the bits too many go before it appears.
            self.core
                .backing
                .make_directory(directory, &aside, permissions | 0o700)?;
            let finish = || {
                let fd = self.core.backing.open(
                    directory,
                    &aside,
                    OFlags::RDONLY | OFlags::DIRECTORY,
                    0,
                )?;
                let header = write_header(&self.core, &fd, &parent.header(&self.core)?.binding)?;
                if permissions & 0o700 != 0o700 {
                    let stat = self.core.backing.stat(At::Fd(fd.as_fd()))?;
                    let surplus = 0o700 & !permissions;
                    self.core.backing.set_mode(
                        At::Name(directory, &aside),
                        stat.st_mode & 0o7777 & !surplus,
                    )?;
                }
                let no_replace = rustix::fs::RenameFlags::NOREPLACE;
                self.core
                    .backing
                    .rename((directory, &aside), (directory, entry), no_replace)?;
                Ok(header)
            };
            match finish() {
                Ok(header) => {
                    made = Some(header);
                    Ok(())
                }
                Err(error) => {
                    self.remove_aside(directory, &aside);
                    Err(error)
                }
            }
        })?;
        if let (Some(header), Ok(inode)) = (made, self.inodes.get(attributes.node)) {
            *inode.key.lock() = Some(header.object.key());
            inode.directory.install_header(header);
        }
        Ok(attributes)
    }

    /// Removes a name of anything but a directory.
    ///
    /// # Errors
    /// ENOENT, EISDIR; the directory's key refused.
    pub fn remove_file(&self, parent: NodeId, name: &OsStr) -> FsResult<()> {
        self.core.writable()?;
        let parent = self.inodes.get(parent)?;
        let entry = parent.entry_name(&self.core, name)?;
        let directory = parent.descriptor(&self.core)?;
        let _tree = self.tree.read();
        let _names = self.lock_long_names(&entry);
        let at = At::Name(directory.as_fd(), &entry.object);
        let stat = self.core.backing.stat(at)?;
        let side = self.side_file_of(&stat, at);
        self.detached(&parent, &stat, directory.as_fd(), &entry.object, || {
            self.core.backing.remove(&directory, &entry.object)
        })?;
        entry.remove_long(&self.core, &directory);
        if let Some(side) = side {
            self.remove_side_file_with(&[directory.as_fd()], &side);
        }
        Ok(())
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// ENOENT, ENOTDIR, ENOTEMPTY; the directory's key refused.
    pub fn remove_directory(&self, parent: NodeId, name: &OsStr) -> FsResult<()> {
        self.core.writable()?;
        let parent = self.inodes.get(parent)?;
        let entry = parent.entry_name(&self.core, name)?;
        let directory = parent.descriptor(&self.core)?;
        let _tree = self.tree.read();
        let _names = self.lock_long_names(&entry);
        let stat = self
            .core
            .backing
            .stat(At::Name(directory.as_fd(), &entry.object))?;
        if kind_of(&stat) != FileKind::Directory {
            return Err(Errno::NOTDIR.into());
        }
        check_empty(&self.core, directory.as_fd(), &entry.object)?;
        // Moved aside first: the name goes at once and for good, and what is left can be cleared away at leisure.
        let aside = temporary_name();
        self.detached(&parent, &stat, directory.as_fd(), &entry.object, || {
            let to = (directory.as_fd(), aside.as_c_str());
            self.core.backing.rename(
                (directory.as_fd(), &entry.object),
                to,
                rustix::fs::RenameFlags::empty(),
            )
        })?;
        entry.remove_long(&self.core, &directory);
        self.remove_aside(directory.as_fd(), &aside);
        Ok(())
    }

    /// Takes a name from an object by `remove`. If the transport knows the object under that name, it is pinned, so that
    /// it can be reached, and its number not be given to another, while somebody still has it.
    pub(super) fn detached(
        &self,
        parent: &Arc<Inode>,
        stat: &Stat,
        directory: BorrowedFd<'_>,
        name: &CStr,
        remove: impl FnOnce() -> Result<(), Errno>,
    ) -> FsResult<()> {
        let losing = self.losing(stat, At::Name(directory, name));
        self.taken_from(parent, stat, directory, name, remove)?;
        if let Some(losing) = losing {
            self.lost(losing);
        }
        Ok(())
    }

    fn taken_from(
        &self,
        parent: &Arc<Inode>,
        stat: &Stat,
        directory: BorrowedFd<'_>,
        name: &CStr,
        remove: impl FnOnce() -> Result<(), Errno>,
    ) -> FsResult<()> {
        let Some(inode) = self.inodes.find(BackingId::of(stat)) else {
            return Ok(remove()?);
        };
        {
            let mut place = inode.place.write();
            let here = place
                .parent
                .as_ref()
                .is_some_and(|known| Arc::ptr_eq(known, parent))
                && *place.name == *name;
            if here && place.pin.is_none() {
                let pin = self.core.backing.open(directory, name, OFlags::PATH, 0)?;
                remove()?;
                place.pin = Some(Arc::new(pin));
            } else {
                remove()?;
            }
        }
        if let Some(open) = inode.directory.descriptor() {
            self.core.descriptors.let_go(&open);
        }
        self.inodes.let_go(inode);
        Ok(())
    }

    /// Clears away what lies aside: a file or symlink that was being made; a directory, with cmkfs's own files in it, what
    /// was left half made, and itself. What cannot be removed stays aside, invisible, and goes with its parent.
    pub(super) fn remove_aside(&self, directory: BorrowedFd<'_>, name: &CStr) {
        let clear = || -> FsResult<()> {
            let at = At::Name(directory, name);
            if kind_of(&self.core.backing.stat(at)?) != FileKind::Directory {
                return Ok(self.core.backing.remove(directory, name)?);
            }
            let listing =
                self.core
                    .backing
                    .open(directory, name, OFlags::RDONLY | OFlags::DIRECTORY, 0)?;
            let inside =
                self.core
                    .backing
                    .open(&listing, c".", OFlags::PATH | OFlags::DIRECTORY, 0)?;
            for entry in rustix::fs::Dir::new(listing)? {
                let entry = entry?;
                match BackingName::classify(entry.file_name().to_bytes()) {
                    BackingName::Temporary => {
                        match self.core.backing.remove(&inside, entry.file_name()) {
                            Err(Errno::ISDIR) => {
                                self.remove_aside(inside.as_fd(), entry.file_name())
                            }
                            removed => removed?,
                        }
                    }
                    BackingName::Reserved => {
                        self.core.backing.remove(&inside, entry.file_name())?
                    }
                    BackingName::Inline(_) | BackingName::Long | BackingName::Foreign => {}
                }
            }
            Ok(self.core.backing.remove_directory(directory, name)?)
        };
        if let Err(error) = clear() {
            log::debug!("a removed directory could not be cleared away: {error}");
        }
    }
}
