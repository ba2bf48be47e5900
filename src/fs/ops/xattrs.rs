//! Extended attributes: `user.*` and `trusted.*` encrypted, what the kernel itself reads in the clear.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use super::FileSystem;
use crate::crypto::xattr;
use crate::format::xattr::{Storage, is_stored_name, stored_name};
use crate::fs::backing::At;
use crate::fs::error::{Damage, FsError, FsResult};
use crate::fs::inodes::Inode;
use crate::fs::object::{Keys, Object};
use crate::fs::types::{Caller, FileKind, NodeId, XattrMode};

/// The kernel's limit of a list of names, in bytes.
const LIST_MAX: usize = 64 * 1024;

impl FileSystem {
    /// The value of an attribute.
    ///
    /// # Errors
    /// ENODATA; its key refused; EBADMSG where it was tampered with.
    pub fn get_xattr(&self, node: NodeId, name: &OsStr) -> FsResult<Vec<u8>> {
        let inode = self.inodes.get(node)?;
        self.check_key_of(&inode)?;
        let _tree = self.tree.read();
        match Storage::of(name.as_bytes()) {
            Storage::Unsupported => Err(Errno::OPNOTSUPP.into()),
            Storage::Clear => {
                let name = c_string(name.as_bytes())?;
                self.on_backing(&inode, |at| self.core.backing.get_xattr(at, &name))
            }
            Storage::Encrypted(namespace) => self.with_keys(&inode, |keys| {
                let Some(keys) = keys else {
                    return Err(Errno::NODATA.into());
                };
                let stored = c_string(stored_name(
                    namespace,
                    &xattr::digest(keys, name.as_bytes()),
                ))?;
                let bytes =
                    self.on_backing(&inode, |at| self.core.backing.get_xattr(at, &stored))?;
                match xattr::open(keys, &bytes) {
                    Ok((found, value)) if found == name.as_bytes() => Ok(value),
                    _ => Err(tampered()),
                }
            }),
        }
    }

    /// Sets an attribute.
    ///
    /// # Errors
    /// EEXIST or ENODATA as the mode says, ENOSPC where the backing has no room; its key refused.
    pub fn set_xattr(
        &self,
        caller: Caller,
        node: NodeId,
        name: &OsStr,
        value: &[u8],
        mode: XattrMode,
    ) -> FsResult<()> {
        self.core.writable()?;
        let inode = self.inodes.get(node)?;
        self.check_key_of(&inode)?;
        let _tree = self.tree.read();
        let flags = match mode {
            XattrMode::Set => XattrFlags::empty(),
            XattrMode::Create => XattrFlags::CREATE,
            XattrMode::Replace => XattrFlags::REPLACE,
        };
        match Storage::of(name.as_bytes()) {
            Storage::Unsupported => Err(Errno::OPNOTSUPP.into()),
            Storage::Clear => {
                let stored = c_string(name.as_bytes())?;
                self.on_backing(&inode, |at| {
                    self.core.backing.set_xattr(at, &stored, value, flags)
                })?;
                self.acl_changed(&inode, name);
                if name.as_bytes() == b"system.posix_acl_access" {
                    self.drop_setgid_unless_member(&inode, caller)?;
                }
                Ok(())
            }
            Storage::Encrypted(namespace) => {
                let _bound = inode.directory.keep_binding();
                let set = |at: At<'_>, object: &Object| {
                    let keys = object.keys(&self.core.ring)?;
                    let digest = xattr::digest(&keys, name.as_bytes());
                    let stored = c_string(stored_name(namespace, &digest))?;
                    let sealed = xattr::seal(&keys, name.as_bytes(), value);
                    Ok(self.core.backing.set_xattr(at, &stored, &sealed, flags)?)
                };
                match inode.kind {
                    FileKind::File => self.with_key_on_disk(&inode, set),
                    FileKind::Directory => {
                        let directory = inode.descriptor(&self.core)?;
                        set(At::Fd(directory.as_fd()), &inode.header(&self.core)?.object)
                    }
                    FileKind::Symlink
                    | FileKind::Fifo
                    | FileKind::Socket
                    | FileKind::CharDevice
                    | FileKind::BlockDevice => Err(Errno::OPNOTSUPP.into()),
                }
            }
        }
    }

    /// Runs `set` on a file whose data key is on the disk, and stays there meanwhile: the backing filesystem makes attributes
    /// durable in its own time, and one that has outlived its key could not be read, nor told from damage.
    fn with_key_on_disk(
        &self,
        inode: &Arc<Inode>,
        set: impl Fn(At<'_>, &Object) -> FsResult<()>,
    ) -> FsResult<()> {
        let open = self.hold(inode, true)?;
        let file = open.file();
        loop {
            file.object(&self.core, &|| self.binding_over(inode))?;
            let list = |fd: BorrowedFd<'_>| self.core.backing.list_xattrs(At::Fd(fd));
            let stored = file.with_descriptor(list)?;
            // The first of them has put it there.
            if !stored.split(|byte| *byte == 0).any(is_stored_name) {
                file.sync(&self.core, true)?;
            }
            if let Some(done) = file.while_stored(|fd, object| set(At::Fd(fd), object)) {
                return done;
            }
            // Cut to nothing meanwhile, its key with it.
        }
    }

    /// The names of all attributes, each followed by a zero byte.
    ///
    /// # Errors
    /// Its key refused; EBADMSG where one was tampered with.
    pub fn list_xattrs(&self, node: NodeId) -> FsResult<Vec<u8>> {
        let inode = self.inodes.get(node)?;
        let _bound = inode.directory.keep_binding();
        self.check_key_of(&inode)?;
        let _tree = self.tree.read();
        let stored = match self.on_backing(&inode, |at| self.core.backing.list_xattrs(at)) {
            Err(FsError::Os(Errno::OPNOTSUPP)) => Vec::new(),
            listed => listed?,
        };
        let mut names = Vec::new();
        for name in stored
            .split(|byte| *byte == 0)
            .filter(|name| !name.is_empty())
        {
            if is_stored_name(name) {
                match self.plain_xattr_name(&inode, name) {
                    Ok(plain) => {
                        names.extend(plain);
                        names.push(0);
                    }
                    // Removed since it was listed.
                    Err(FsError::Os(Errno::NODATA)) => {}
                    Err(FsError::Damaged(_)) if self.was_being_bound(&inode) => {}
                    Err(error) => return Err(error),
                }
            } else if Storage::of(name) == Storage::Clear {
                names.extend_from_slice(name);
                names.push(0);
            }
        }
        if names.len() > LIST_MAX {
            return Err(Errno::TOOBIG.into());
        }
        Ok(names)
    }

    pub(super) fn plain_xattr_name(&self, inode: &Arc<Inode>, stored: &[u8]) -> FsResult<Vec<u8>> {
        self.with_keys(inode, |keys| {
            let keys = keys.ok_or_else(tampered)?;
            let name = c_string(stored)?;
            let bytes = self.on_backing(inode, |at| self.core.backing.get_xattr(at, &name))?;
            let (name, _) = xattr::open(keys, &bytes).map_err(|_| tampered())?;
            match Storage::of(&name) {
                Storage::Encrypted(namespace)
                    if stored_name(namespace, &xattr::digest(keys, &name)).as_bytes() == stored =>
                {
                    Ok(name)
                }
                _ => Err(tampered()),
            }
        })
    }

    /// Removes an attribute.
    ///
    /// # Errors
    /// ENODATA; its key refused.
    pub fn remove_xattr(&self, node: NodeId, name: &OsStr) -> FsResult<()> {
        self.core.writable()?;
        let inode = self.inodes.get(node)?;
        self.check_key_of(&inode)?;
        let _tree = self.tree.read();
        match Storage::of(name.as_bytes()) {
            Storage::Unsupported => Err(Errno::OPNOTSUPP.into()),
            Storage::Clear => {
                let stored = c_string(name.as_bytes())?;
                self.on_backing(&inode, |at| self.core.backing.remove_xattr(at, &stored))?;
                self.acl_changed(&inode, name);
                Ok(())
            }
            Storage::Encrypted(namespace) => self.with_keys(&inode, |keys| {
                let Some(keys) = keys else {
                    return Err(Errno::NODATA.into());
                };
                let stored = c_string(stored_name(
                    namespace,
                    &xattr::digest(keys, name.as_bytes()),
                ))?;
                self.on_backing(&inode, |at| self.core.backing.remove_xattr(at, &stored))
            }),
        }
    }

    /// Runs `work` with the keys of an inode's data key; `None` where it has none.
    fn with_keys<T>(
        &self,
        inode: &Arc<Inode>,
        work: impl FnOnce(Option<&Keys<'_>>) -> FsResult<T>,
    ) -> FsResult<T> {
        let _bound = inode.directory.keep_binding();
        match self.object_of(inode)? {
            Some(object) => work(Some(&object.keys(&self.core.ring)?)),
            None => work(None),
        }
    }

    fn object_of(&self, inode: &Arc<Inode>) -> FsResult<Option<Arc<Object>>> {
        Ok(match inode.kind {
            FileKind::Directory => Some(Arc::clone(&inode.header(&self.core)?.object)),
            FileKind::File => self.hold(inode, false)?.file().existing_object(),
            FileKind::Symlink
            | FileKind::Fifo
            | FileKind::Socket
            | FileKind::CharDevice
            | FileKind::BlockDevice => None,
        })
    }

    fn acl_changed(&self, inode: &Inode, name: &OsStr) {
        if name.as_bytes() == b"system.posix_acl_default" {
            inode.directory.default_acl.forget();
        }
    }

    /// Setting an access ACL takes the setgid bit away from whom the file's group does not include, as chmod(2) does. The
    /// backing filesystem cannot tell: to it, we are root.
    fn drop_setgid_unless_member(&self, inode: &Arc<Inode>, caller: Caller) -> FsResult<()> {
        let backing = &self.core.backing;
        let stat = self.on_backing(inode, |at| backing.stat(at))?;
        let mode = stat.st_mode & 0o7777;
        if caller.uid == 0 || mode & 0o2000 == 0 || caller.gid == stat.st_gid {
            return Ok(());
        }
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", caller.pid)).unwrap_or_default();
        let groups = status
            .lines()
            .find_map(|line| line.strip_prefix("Groups:"))
            .unwrap_or_default();
        if groups
            .split_whitespace()
            .any(|group| group.parse() == Ok(stat.st_gid))
        {
            return Ok(());
        }
        self.on_backing(inode, |at| backing.set_mode(at, mode & !0o2000))
    }
}

fn tampered() -> FsError {
    Damage::Authentication {
        what: "an extended attribute",
    }
    .into()
}

fn c_string(name: impl Into<Vec<u8>>) -> FsResult<CString> {
    CString::new(name).map_err(|_| Errno::INVAL.into())
}
