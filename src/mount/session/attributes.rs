//! Answers about attributes, extended ones too, and about the filesystem as a whole.

use std::ffi::OsStr;

use rustix::io::Errno;

use super::convert;
use super::service::Answer;
use crate::fs::{
    Attributes, Caller, FileTime, FilesystemStatistics, FsResult, HandleId, NodeId, ROOT_NODE,
    SetAttributes,
};

/// Largest value or list of extended attributes (`XATTR_SIZE_MAX`).
const XATTR_MAX: usize = 65536;

/// The answer to a question for an extended attribute's value, or the list of names.
#[derive(Debug, PartialEq, Eq)]
pub enum Xattr {
    /// How many bytes there are: all that was asked.
    Size(u32),
    /// The bytes.
    Value(Vec<u8>),
}

impl Answer<'_> {
    /// GETATTR.
    ///
    /// # Errors
    /// The errno to answer with.
    pub fn getattr(&self, node: NodeId, handle: Option<HandleId>) -> Result<Attributes, Errno> {
        let asked = self.service.fs.attributes(node, handle);
        self.shown(node, asked)
    }

    /// What is remembered of the root stands in for what cannot be had.
    fn shown(&self, node: NodeId, asked: FsResult<Attributes>) -> Result<Attributes, Errno> {
        let shown = if node == ROOT_NODE {
            self.remember_root(asked)
        } else {
            asked
        };
        self.result(node, shown)
    }

    /// SETATTR. `kill_privileges`: setuid and setgid go with a change of size.
    ///
    /// # Errors
    /// The errno to answer with.
    pub fn setattr(
        &self,
        caller: Caller,
        node: NodeId,
        handle: Option<HandleId>,
        changes: &SetAttributes,
        kill_privileges: bool,
    ) -> Result<Attributes, Errno> {
        let killed = if kill_privileges && changes.size.is_some() {
            self.kill_privileges(caller, node, handle)
        } else {
            Ok(())
        };
        let fs = &self.service.fs;
        let set = || fs.set_attributes(caller, node, handle, changes);
        // A change that failed is never answered with what is remembered of the root.
        let attributes = self.result(node, killed.and_then(|()| set()))?;
        self.shown(node, Ok(attributes))
    }

    /// SYNCFS: all that was written is on the device.
    ///
    /// # Errors
    /// The errno to answer with.
    pub fn syncfs(&self, node: NodeId) -> Result<(), Errno> {
        self.result(node, self.service.fs.sync_all())
    }

    /// STATFS.
    ///
    /// # Errors
    /// The errno to answer with.
    pub fn statfs(&self, node: NodeId) -> Result<FilesystemStatistics, Errno> {
        self.result(node, self.service.fs.statistics())
    }

    /// STATX: attributes, and when the file was made, where that is known.
    ///
    /// # Errors
    /// The errno to answer with.
    pub fn statx(
        &self,
        node: NodeId,
        handle: Option<HandleId>,
    ) -> Result<(Attributes, Option<FileTime>), Errno> {
        let attributes = self.getattr(node, handle)?;
        // Where what is remembered of the root had to do, there is none.
        Ok((attributes, self.service.fs.birth_time(node).ok().flatten()))
    }

    /// SETXATTR. `kill_setgid`: an access list of somebody who is not in the file's group takes setgid away.
    ///
    /// # Errors
    /// The errno to answer with.
    pub fn setxattr(
        &self,
        caller: Caller,
        node: NodeId,
        (name, value): (&OsStr, &[u8]),
        flags: u32,
        kill_setgid: bool,
    ) -> Result<(), Errno> {
        let mode = convert::xattr_mode(flags);
        let fs = &self.service.fs;
        self.result(node, fs.set_xattr(caller, node, name, value, mode))?;
        self.service.labels.see(name);
        if kill_setgid {
            self.result(node, self.kill_setgid(caller, node))?;
        }
        self.carries(value.len());
        Ok(())
    }

    /// GETXATTR; with `size` 0 it asks for the length.
    ///
    /// # Errors
    /// The errno to answer with; ERANGE where the value is longer than `size`.
    pub fn getxattr(&self, node: NodeId, name: &OsStr, size: u32) -> Result<Xattr, Errno> {
        let found = self.service.fs.get_xattr(node, name);
        self.xattr(node, self.service.labels.answer(name, found), size)
    }

    /// LISTXATTR; with `size` 0 it asks for the length.
    ///
    /// # Errors
    /// The errno to answer with; ERANGE where the list is longer than `size`.
    pub fn listxattr(&self, node: NodeId, size: u32) -> Result<Xattr, Errno> {
        self.xattr(node, self.service.fs.list_xattrs(node), size)
    }

    fn xattr(&self, node: NodeId, result: FsResult<Vec<u8>>, size: u32) -> Result<Xattr, Errno> {
        let value = self.result(node, result)?;
        if value.len() > XATTR_MAX {
            return Err(self.refused(Errno::TOOBIG));
        }
        match u32::try_from(value.len()) {
            Ok(length) if size == 0 => Ok(Xattr::Size(length)),
            Ok(length) if length <= size => {
                self.carries(value.len());
                Ok(Xattr::Value(value))
            }
            Ok(_) | Err(_) => Err(self.refused(Errno::RANGE)),
        }
    }

    /// REMOVEXATTR.
    ///
    /// # Errors
    /// The errno to answer with.
    pub fn removexattr(&self, node: NodeId, name: &OsStr) -> Result<(), Errno> {
        self.result(node, self.service.fs.remove_xattr(node, name))
    }
}
