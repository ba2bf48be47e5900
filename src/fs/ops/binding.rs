//! Binding an empty directory to another CMK: from then on its names, and what is created in it, are under that.
//!
//! The directory gets a new data key, because whoever kept its old header could read its names under the old CMK. The new
//! header takes the old one's place in one rename, so after a crash there is one or the other. Encrypted attributes of the
//! directory are under its data key: they are sealed anew before, under their new stored names, and the old ones removed
//! after. Meanwhile one of the two headers lies in `cmkfs.tmp.cmkfs.dir`; while it does, attributes that do not open are
//! what an interrupted binding has left.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use rustix::fs::{OFlags, RenameFlags, XattrFlags};
use rustix::io::Errno;

use super::FileSystem;
use crate::crypto::object::ObjectKeys;
use crate::crypto::xattr;
use crate::format::header::KeyBinding;
use crate::format::names::DIRECTORY_FILE;
use crate::format::xattr::{Storage, is_stored_name, stored_name};
use crate::fs::backing::At;
use crate::fs::directory::{
    check_empty, header_aside, own_name, remove_if_there, write_header_aside,
};
use crate::fs::error::{Damage, FsResult};
use crate::fs::inodes::Inode;
use crate::fs::types::{FileKind, NodeId, ROOT_NODE};
use crate::sys::identity;

/// An encrypted attribute.
struct Attribute {
    stored: CString,
    name: Vec<u8>,
    value: Vec<u8>,
}

impl FileSystem {
    /// Binds an empty directory: it gets a new data key under the CMK that `binding` names now, and what is created in it
    /// from then on is wrapped under the CMK that `binding` names then. Its attributes stay.
    ///
    /// # Errors
    /// ENOTDIR; ENOTEMPTY, also where a file is open that was made in it without a name; EROFS, ENOENT where it is removed; ENOSPC where its attributes find no room a second time; the
    /// new key refused, or the old one. Nothing has changed then.
    pub fn bind(&self, node: NodeId, binding: &KeyBinding) -> FsResult<()> {
        self.core.writable()?;
        let inode = self.inodes.get(node)?;
        if inode.kind != FileKind::Directory {
            return Err(Errno::NOTDIR.into());
        }
        // Whoever makes an entry or sets an attribute has finished, or begins after this with the new keys.
        let _alone = inode.directory.binding.write();
        let old = inode.header(&self.core)?;
        let directory = inode.descriptor(&self.core)?;
        let directory = directory.as_fd();
        if node != ROOT_NODE && inode.place.read().pin.is_some() {
            return Err(Errno::NOENT.into());
        }
        check_empty(&self.core, directory, c".")?;
        // Its data key may be there already, and it may get a name in here.
        if self.has_unnamed(&inode) {
            return Err(Errno::NOTEMPTY.into());
        }
        let attributes = {
            let keys = old.object.keys(&self.core.ring)?;
            self.encrypted_attributes(&inode, directory, &keys)?
        };
        let backing = &self.core.backing;
        let stored = own_name(DIRECTORY_FILE);
        let owner = backing.stat(At::Name(directory, &stored))?;
        identity::assume(owner.st_uid, owner.st_gid);
        let aside = header_aside();
        remove_if_there(&self.core, directory, &aside)?;
        let header = write_header_aside(&self.core, directory, binding)?;
        let mut sealed = Vec::new();
        let mut replace = || -> FsResult<()> {
            {
                let keys = header.object.keys(&self.core.ring)?;
                for Attribute { name, value, .. } in &attributes {
                    let new = stored_attribute(&keys, name)?;
                    let bytes = xattr::seal(&keys, name, value);
                    sealed.push(new.clone());
                    self.on_backing(&inode, |at| {
                        backing.set_xattr(at, &new, &bytes, XattrFlags::empty())
                    })?;
                }
            }
            // The old header stays aside for as long as attributes may be left that only its key opens.
            let (from, to) = ((directory, &*aside), (directory, &*stored));
            let flags = if attributes.is_empty() {
                RenameFlags::empty()
            } else {
                RenameFlags::EXCHANGE
            };
            Ok(backing.rename(from, to, flags)?)
        };
        if let Err(error) = replace() {
            self.remove_attributes(&inode, &sealed);
            let _ = backing.remove(directory, &aside);
            return Err(error);
        }
        *inode.key.lock() = Some(header.object.key());
        inode.directory.replace_header(header);
        if !attributes.is_empty() {
            let old: Vec<_> = attributes.into_iter().map(|each| each.stored).collect();
            if self.remove_attributes(&inode, &old) {
                let _ = backing.remove(directory, &aside);
            }
        }
        let listing = backing.reopen(directory, OFlags::RDONLY | OFlags::DIRECTORY)?;
        Ok(backing.sync(listing, false)?)
    }

    /// The key binding of a directory: what is created in it is wrapped under that.
    ///
    /// # Errors
    /// ENOTDIR; its key refused.
    pub fn binding(&self, node: NodeId) -> FsResult<KeyBinding> {
        let inode = self.inodes.get(node)?;
        if inode.kind != FileKind::Directory {
            return Err(Errno::NOTDIR.into());
        }
        Ok(inode.header(&self.core)?.binding.clone())
    }

    /// Whether a binding of this directory was interrupted: attributes that do not open are its leftovers then.
    pub(super) fn was_being_bound(&self, inode: &Arc<Inode>) -> bool {
        let aside = header_aside();
        inode.kind == FileKind::Directory
            && inode.descriptor(&self.core).is_ok_and(|directory| {
                let at = At::Name(directory.as_fd(), &aside);
                self.core.backing.stat(at).is_ok()
            })
    }

    /// The directory's encrypted attributes. Clears away what an interrupted binding has left.
    fn encrypted_attributes(
        &self,
        inode: &Arc<Inode>,
        directory: BorrowedFd<'_>,
        keys: &ObjectKeys,
    ) -> FsResult<Vec<Attribute>> {
        let backing = &self.core.backing;
        let listed = match self.on_backing(inode, |at| backing.list_xattrs(at)) {
            Err(error) if error.errno() == Errno::OPNOTSUPP => Vec::new(),
            listed => listed?,
        };
        let interrupted = backing.stat(At::Name(directory, &header_aside())).is_ok();
        let (mut attributes, mut leftovers) = (Vec::new(), Vec::new());
        for stored in listed.split(|byte| *byte == 0) {
            if !is_stored_name(stored) {
                continue;
            }
            let stored = CString::new(stored).map_err(|_| Errno::INVAL)?;
            let bytes = self.on_backing(inode, |at| backing.get_xattr(at, &stored))?;
            match xattr::open(keys, &bytes) {
                Ok((name, value)) if stored_attribute(keys, &name)? == stored => {
                    attributes.push(Attribute {
                        stored,
                        name,
                        value,
                    });
                }
                _ if interrupted => leftovers.push(stored),
                _ => {
                    return Err(Damage::Authentication {
                        what: "an extended attribute",
                    }
                    .into());
                }
            }
        }
        self.remove_attributes(inode, &leftovers);
        Ok(attributes)
    }

    /// Removes stored attributes; says whether all are gone.
    fn remove_attributes(&self, inode: &Arc<Inode>, stored: &[CString]) -> bool {
        let remove = |name: &CStr| {
            let removed = self.on_backing(inode, |at| self.core.backing.remove_xattr(at, name));
            match removed {
                Err(error) => error.errno() == Errno::NODATA,
                Ok(()) => true,
            }
        };
        stored.iter().filter(|name| !remove(name)).count() == 0
    }
}

/// The name under which an encrypted attribute is stored.
fn stored_attribute(keys: &ObjectKeys, name: &[u8]) -> FsResult<CString> {
    let Storage::Encrypted(namespace) = Storage::of(name) else {
        return Err(Errno::INVAL.into());
    };
    let stored = stored_name(namespace, &xattr::digest(keys, name));
    CString::new(stored).map_err(|_| Errno::INVAL.into())
}
