//! Answers about names: finding, making, removing, renaming.

use std::ffi::OsStr;

use rustix::io::Errno;

use super::convert;
use super::service::Answer;
use crate::fs::{Attributes, Caller, NodeId, NodeType};

impl Answer<'_> {
    /// LOOKUP. `None` where there is no such name, which the kernel may remember too.
    ///
    /// # Errors
    /// The errno to answer with.
    pub fn lookup(&self, parent: NodeId, name: &OsStr) -> Result<Option<Attributes>, Errno> {
        match self.service.fs.lookup(parent, name) {
            Err(error) if error.errno() == Errno::NOENT => Ok(None),
            result => self.result(parent, result.map(Some)),
        }
    }

    /// READLINK.
    ///
    /// # Errors
    /// The errno to answer with.
    pub fn readlink(&self, node: NodeId) -> Result<Vec<u8>, Errno> {
        let target = self.result(node, self.service.fs.read_link(node))?;
        self.carries(target.len());
        Ok(target)
    }

    /// MKNOD.
    ///
    /// # Errors
    /// The errno to answer with.
    pub fn mknod(
        &self,
        caller: Caller,
        parent: NodeId,
        name: &OsStr,
        (mode, umask): (u32, u32),
        device: u32,
    ) -> Result<Attributes, Errno> {
        let kind = convert::node_kind(mode).ok_or_else(|| self.refused(Errno::INVAL))?;
        let node = NodeType { kind, device };
        let mode = convert::new_mode(mode, umask);
        let fs = &self.service.fs;
        self.result(parent, fs.make_node(caller, parent, name, mode, node))
    }

    /// MKDIR.
    ///
    /// # Errors
    /// The errno to answer with.
    pub fn mkdir(
        &self,
        caller: Caller,
        parent: NodeId,
        name: &OsStr,
        (mode, umask): (u32, u32),
    ) -> Result<Attributes, Errno> {
        let mode = convert::new_mode(mode, umask);
        let fs = &self.service.fs;
        self.result(parent, fs.make_directory(caller, parent, name, mode))
    }

    /// SYMLINK.
    ///
    /// # Errors
    /// The errno to answer with.
    pub fn symlink(
        &self,
        caller: Caller,
        parent: NodeId,
        name: &OsStr,
        target: &OsStr,
    ) -> Result<Attributes, Errno> {
        let fs = &self.service.fs;
        self.result(parent, fs.make_symlink(caller, parent, name, target))
    }

    /// UNLINK.
    ///
    /// # Errors
    /// The errno to answer with.
    pub fn unlink(&self, parent: NodeId, name: &OsStr) -> Result<(), Errno> {
        self.result(parent, self.service.fs.remove_file(parent, name))
    }

    /// RMDIR.
    ///
    /// # Errors
    /// The errno to answer with.
    pub fn rmdir(&self, parent: NodeId, name: &OsStr) -> Result<(), Errno> {
        self.result(parent, self.service.fs.remove_directory(parent, name))
    }

    /// RENAME and RENAME2.
    ///
    /// # Errors
    /// The errno to answer with.
    pub fn rename(
        &self,
        (parent, name): (NodeId, &OsStr),
        (new_parent, new_name): (NodeId, &OsStr),
        flags: u32,
    ) -> Result<(), Errno> {
        let mode = convert::rename_mode(flags).ok_or_else(|| self.refused(Errno::INVAL))?;
        let fs = &self.service.fs;
        self.result(parent, fs.rename(parent, name, new_parent, new_name, mode))
    }

    /// LINK.
    ///
    /// # Errors
    /// The errno to answer with.
    pub fn link(
        &self,
        node: NodeId,
        new_parent: NodeId,
        new_name: &OsStr,
    ) -> Result<Attributes, Errno> {
        self.result(node, self.service.fs.link(node, new_parent, new_name))
    }
}
