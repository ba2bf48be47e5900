//! New data keys: the content of a file or symlink is encrypted anew, aside, and takes the place of the old. Directories keep
//! their data keys, because all the names in one cannot be exchanged at once.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::fs::{OFlags, Stat, XattrFlags};
use rustix::io::Errno;

use super::FileSystem;
use super::replace::times_of;
use super::walk::{Entry, Maintenance};
use crate::crypto::object::ObjectKeys;
use crate::crypto::{symlink, xattr};
use crate::format::envelope::ObjectKind;
use crate::format::xattr::{Storage, is_stored_name, stored_name};
use crate::fs::backing::At;
use crate::fs::directory::temporary_name;
use crate::fs::error::{Damage, FsError, FsResult};
use crate::fs::file::{OpenFile, Side};
use crate::fs::inodes::{BackingId, Inode};
use crate::fs::object::Object;
use crate::fs::types::{FileKind, Rekeyed};

/// So often a file is copied that is written to while it is copied.
const ATTEMPTS: u32 = 5;

impl Maintenance<'_> {
    /// Gives a file or symlink a new data key, under what its directory is bound to, by encrypting its content anew. At
    /// every moment its name leads to the old backing object or to the new one, whole.
    ///
    /// # Errors
    /// Its key refused; EBADMSG where it was tampered with; ENOSPC and what else the backing says; EINTR once `go_on`, which
    /// is asked now and then while a file is copied, says no. It is then as it was.
    pub fn rekey(&self, entry: &Entry<'_>, go_on: &mut dyn FnMut() -> bool) -> FsResult<Rekeyed> {
        match entry.kind() {
            FileKind::File => self.filesystem.rekey_file(entry.inode()?, go_on),
            FileKind::Symlink => self.filesystem.rekey_symlink(entry.inode()?, &[]),
            FileKind::Directory
            | FileKind::Fifo
            | FileKind::Socket
            | FileKind::CharDevice
            | FileKind::BlockDevice => Ok(Rekeyed::Nothing),
        }
    }

    /// As [`Maintenance::rekey`], for a symlink of several names: all of them.
    ///
    /// # Errors
    /// As [`Maintenance::rekey`].
    pub fn rekey_links(&self, entries: &[Entry<'_>]) -> FsResult<Rekeyed> {
        match entries.first() {
            Some(first) => self.filesystem.rekey_symlink(first.inode()?, entries),
            None => Ok(Rekeyed::Nothing),
        }
    }
}

impl FileSystem {
    fn rekey_symlink(&self, inode: &Arc<Inode>, names: &[Entry<'_>]) -> FsResult<Rekeyed> {
        if inode.place.read().pin.is_some() {
            return Ok(Rekeyed::Nothing);
        }
        let ring = &self.core.ring;
        let (old, new, key) = {
            let _tree = self.tree.read();
            let (record, _) = self.read_record(inode)?;
            let object =
                Object::existing(ring, record.object, ObjectKind::Symlink, record.envelope);
            let target = {
                let keys = object.keys(ring)?;
                symlink::open(&keys, record.clone()).map_err(|_| Self::tampered_link())?
            };
            let new = Object::create(ring, ObjectKind::Symlink, &self.binding_over(inode)?)?;
            let keys = new.keys(ring)?;
            let sealed = symlink::seal(&keys, new.id(), *new.envelope(), &target);
            drop(keys);
            (record, sealed, new.key())
        };
        // Not known until it is done.
        *inode.key.lock() = None;
        if !self.replace_symlink(inode, names, &old, &new)? {
            return Ok(Rekeyed::Missed);
        }
        *inode.key.lock() = Some(key);
        Ok(Rekeyed::Now)
    }

    fn rekey_file(&self, inode: &Arc<Inode>, go_on: &mut dyn FnMut() -> bool) -> FsResult<Rekeyed> {
        let (is_pinned, is_unnamed) = {
            let place = inode.place.read();
            (place.pin.is_some(), place.is_unnamed())
        };
        if is_pinned && !is_unnamed {
            // Without a name there is nothing of it that could be read after a remount.
            return Ok(Rekeyed::Nothing);
        }
        let held = self.hold(inode, true)?;
        if is_unnamed && held.file().existing_object().is_some() {
            return Ok(Rekeyed::Unnamed);
        }
        for _ in 0..ATTEMPTS {
            match self.try_rekey(inode, held.file(), go_on)? {
                Rekeyed::Missed => {}
                done => {
                    inode.note_key(held.file());
                    return Ok(done);
                }
            }
        }
        Ok(Rekeyed::Busy)
    }

    /// `Missed` where it was changed or renamed meanwhile.
    fn try_rekey(
        &self,
        inode: &Arc<Inode>,
        file: &OpenFile,
        go_on: &mut dyn FnMut() -> bool,
    ) -> FsResult<Rekeyed> {
        let backing = &self.core.backing;
        let stat = file.with_descriptor(|fd| backing.stat(At::Fd(fd)))?;
        if stat.st_nlink > 1 {
            return Ok(Rekeyed::Linked);
        }
        let parent = {
            let place = inode.place.read();
            place.parent.clone().filter(|_| place.pin.is_none())
        };
        let (Some(parent), true) = (parent, file.existing_object().is_some()) else {
            return Ok(Rekeyed::Nothing);
        };
        let directory = parent.descriptor(&self.core)?;
        let aside = temporary_name();
        // Not to be told from outside: neither from the directory's times, nor by whoever may read the old file only.
        let opened = {
            let _tree = self.tree.write();
            let before = backing.stat(At::Fd(directory.as_fd()))?;
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
            let opened = backing.open(&directory, &aside, flags, 0o600)?;
            self.restore_time(directory.as_fd(), &before);
            opened
        };
        let work = || -> FsResult<Rekeyed> {
            let binding = || self.binding_over(inode);
            let Some((copy, change)) = file.copy(&self.core, opened, &binding, go_on)? else {
                return Ok(Rekeyed::Nothing);
            };
            let (Some(old), Some(new)) = (file.existing_object(), copy.existing_object()) else {
                return Ok(Rekeyed::Nothing);
            };
            let known = file.with_descriptor(|fd| self.attributes_behind(fd))?;
            copy.with_descriptor(|fd| Ok(self.give_attributes(&known, fd, &old, &new)))??;
            copy.sync(&self.core, false)?;
            copy.seal_copy(&self.core)?;
            let _tree = self.tree.write();
            let from = At::Name(directory.as_fd(), &aside);
            let replaced = file.replace_by(&self.core, &copy, change, |new, old| {
                self.publish(inode, from, &stat, &known, &new, &old)
            })?;
            Ok(if replaced {
                Rekeyed::Now
            } else {
                Rekeyed::Missed
            })
        };
        let done = work();
        if !matches!(done, Ok(Rekeyed::Now)) {
            let _tree = self.tree.write();
            if let Ok(before) = backing.stat(At::Fd(directory.as_fd())) {
                let _ = backing.remove(&directory, &aside);
                self.restore_time(directory.as_fd(), &before);
            }
        }
        match done {
            // The directory that it was in has gone meanwhile.
            Err(FsError::Os(Errno::NOENT)) => Ok(Rekeyed::Missed),
            done => done,
        }
    }

    /// Renames the copy over the file. The tree and the file are held.
    fn publish(
        &self,
        inode: &Inode,
        from: At<'_>,
        first: &Stat,
        known: &Behind,
        new: &Side<'_>,
        old: &Side<'_>,
    ) -> FsResult<bool> {
        let backing = &self.core.backing;
        let stat = backing.stat(At::Fd(old.fd))?;
        // Held too: whoever is at work by this place is done, or comes after.
        let place = inode.place.write();
        let (Some(parent), None, At::Name(aside_in, aside)) = (&place.parent, &place.pin, from)
        else {
            return Ok(false);
        };
        let directory = parent.descriptor(&self.core)?;
        let there = backing.stat(At::Name(directory.as_fd(), &place.name))?;
        if stat.st_nlink != 1 || BackingId::of(&there) != inode.backing() {
            return Ok(false);
        }
        let behind = self.attributes_behind(old.fd)?;
        if behind != *known {
            self.give_attributes(&behind, new.fd, old.object, new.object)?;
        }
        let mut times = times_of(&stat);
        times.last_access = times_of(first).last_access;
        backing.set_times(At::Fd(new.fd), &times)?;
        let before = (
            backing.stat(At::Fd(aside_in))?,
            backing.stat(At::Fd(directory.as_fd()))?,
        );
        // Before: once it is renamed nothing may fail, or all that have it open would go on with a file without a name.
        let published = BackingId::of(&backing.stat(At::Fd(new.fd))?);
        backing.rename(
            (aside_in, aside),
            (directory.as_fd(), &place.name),
            rustix::fs::RenameFlags::empty(),
        )?;
        self.restore_time(aside_in, &before.0);
        self.restore_time(directory.as_fd(), &before.1);
        // What is synced in it from now on is not to be found under the old file after a power cut.
        parent.directory.synced.store(false, Ordering::Release);
        self.inodes.replace_backing(inode, published);
        Ok(true)
    }

    /// All that is to be the same of another backing file.
    fn attributes_behind(&self, fd: BorrowedFd<'_>) -> Result<Behind, Errno> {
        let backing = &self.core.backing;
        let stat = backing.stat(At::Fd(fd))?;
        let mut xattrs = Vec::new();
        for name in self.xattrs_behind(fd)? {
            xattrs.push((name.clone(), backing.get_xattr(At::Fd(fd), &name)?));
        }
        xattrs.sort();
        Ok(Behind {
            owner: (stat.st_uid, stat.st_gid),
            mode: stat.st_mode & 0o7777,
            xattrs,
        })
    }

    fn xattrs_behind(&self, fd: BorrowedFd<'_>) -> Result<Vec<std::ffi::CString>, Errno> {
        let list = match self.core.backing.list_xattrs(At::Fd(fd)) {
            Err(Errno::OPNOTSUPP) => Vec::new(),
            listed => listed?,
        };
        Ok(list
            .split(|byte| *byte == 0)
            .filter(|name| !name.is_empty())
            .filter_map(|name| std::ffi::CString::new(name).ok())
            .collect())
    }

    /// Gives a copy what its original has: owner, mode, ACLs, attributes, these under its own data key.
    fn give_attributes(
        &self,
        behind: &Behind,
        to: BorrowedFd<'_>,
        old: &Object,
        new: &Object,
    ) -> FsResult<()> {
        let (backing, ring) = (&self.core.backing, &self.core.ring);
        let (uid, gid) = behind.owner;
        // What its directory has bequeathed to the copy, and what an earlier attempt has given it.
        for name in self.xattrs_behind(to)? {
            let _ = backing.remove_xattr(At::Fd(to), &name);
        }
        backing.set_owner(At::Fd(to), Some(uid), Some(gid))?;
        backing.set_mode(At::Fd(to), behind.mode)?;
        let (old, new) = (old.keys(ring)?, new.keys(ring)?);
        for (name, value) in &behind.xattrs {
            let (name, value) = if is_stored_name(name.to_bytes()) {
                reseal(&old, &new, value)?
            } else {
                (name.clone(), value.clone())
            };
            let set = backing.set_xattr(At::Fd(to), &name, &value, XattrFlags::empty());
            // A label that the system has given it already, and that is not ours to give.
            if set.is_err() && backing.get_xattr(At::Fd(to), &name).as_ref() != Ok(&value) {
                set?;
            }
        }
        Ok(())
    }
}

/// What a backing file has besides its content.
#[derive(Debug, PartialEq, Eq)]
struct Behind {
    owner: (u32, u32),
    mode: u32,
    /// As they are stored, by name.
    xattrs: Vec<(std::ffi::CString, Vec<u8>)>,
}

/// An encrypted attribute under another data key.
fn reseal(
    old: &ObjectKeys,
    new: &ObjectKeys,
    value: &[u8],
) -> FsResult<(std::ffi::CString, Vec<u8>)> {
    let tampered = || {
        FsError::from(Damage::Authentication {
            what: "an extended attribute",
        })
    };
    let (name, value) = xattr::open(old, value).map_err(|_| tampered())?;
    let Storage::Encrypted(namespace) = Storage::of(&name) else {
        return Err(tampered());
    };
    let stored = stored_name(namespace, &xattr::digest(new, &name));
    let stored = std::ffi::CString::new(stored).map_err(|_| tampered())?;
    Ok((stored, xattr::seal(new, &name, &value)))
}
