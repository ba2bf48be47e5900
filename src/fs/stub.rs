//! Signatures of the core, for the transport to be written against; the implementation replaces this file.
#![allow(missing_docs, unused_variables, clippy::todo)]
use std::ffi::OsStr;

use super::*;
use crate::ids::{KeyId, VolumeId};
use super::lease::Leases;

pub struct FileSystem {}

impl FileSystem {
    pub fn volume_id(&self) -> VolumeId { todo!() }
    pub fn read_only(&self) -> bool { todo!() }
    /// The leases; `mount::revoke` revokes and restores them.
    pub fn leases(&self) -> &Leases { todo!() }
    /// Every inode known to the transport whose data key is wrapped under the CMK (files, directories, symlinks), for invalidation.
    pub fn nodes_under(&self, key: KeyId) -> Vec<NodeId> { todo!() }
    /// Writes the clean seal of files closed or quiet since; called by a background thread every few seconds.
    pub fn seal_idle(&self) { todo!() }
    /// Seals everything; the last call before the process ends.
    pub fn shutdown(&self) -> FsResult<()> { todo!() }
    /// Somebody has this file open for writing (the kernel may hold dirty pages: flush before `seek`).
    pub fn has_writers(&self, node: NodeId) -> bool { todo!() }

    pub fn lookup(&self, parent: NodeId, name: &OsStr) -> FsResult<Attributes> { todo!() }
    pub fn forget(&self, node: NodeId, lookups: u64) { todo!() }
    pub fn attributes(&self, node: NodeId, handle: Option<HandleId>) -> FsResult<Attributes> { todo!() }
    pub fn set_attributes(&self, caller: Caller, node: NodeId, handle: Option<HandleId>, changes: &SetAttributes) -> FsResult<Attributes> { todo!() }
    pub fn read_link(&self, node: NodeId) -> FsResult<Vec<u8>> { todo!() }
    pub fn make_node(&self, caller: Caller, parent: NodeId, name: &OsStr, mode: NewMode, kind: NodeType) -> FsResult<Attributes> { todo!() }
    pub fn make_directory(&self, caller: Caller, parent: NodeId, name: &OsStr, mode: NewMode) -> FsResult<Attributes> { todo!() }
    pub fn remove_file(&self, parent: NodeId, name: &OsStr) -> FsResult<()> { todo!() }
    pub fn remove_directory(&self, parent: NodeId, name: &OsStr) -> FsResult<()> { todo!() }
    pub fn make_symlink(&self, caller: Caller, parent: NodeId, name: &OsStr, target: &OsStr) -> FsResult<Attributes> { todo!() }
    pub fn rename(&self, parent: NodeId, name: &OsStr, new_parent: NodeId, new_name: &OsStr, mode: RenameMode) -> FsResult<()> { todo!() }
    pub fn link(&self, node: NodeId, new_parent: NodeId, new_name: &OsStr) -> FsResult<Attributes> { todo!() }

    pub fn open(&self, caller: Caller, node: NodeId, flags: OpenFlags) -> FsResult<Opened> { todo!() }
    pub fn create(&self, caller: Caller, parent: NodeId, name: &OsStr, mode: NewMode, flags: OpenFlags) -> FsResult<(Attributes, Opened)> { todo!() }
    /// Fills `buffer` from `offset`; fewer bytes only at the end of the file.
    pub fn read(&self, handle: HandleId, offset: u64, buffer: &mut [u8]) -> FsResult<usize> { todo!() }
    /// Writes all of `data`.
    pub fn write(&self, handle: HandleId, offset: u64, data: &[u8]) -> FsResult<()> { todo!() }
    /// close(2) was called on a descriptor of this handle: reports a write error that nobody has heard of yet.
    pub fn flush(&self, handle: HandleId) -> FsResult<()> { todo!() }
    pub fn release(&self, handle: HandleId) { todo!() }
    pub fn sync(&self, handle: HandleId, data_only: bool) -> FsResult<()> { todo!() }
    pub fn allocate(&self, handle: HandleId, mode: AllocateMode, offset: u64, length: u64) -> FsResult<()> { todo!() }
    pub fn seek(&self, handle: HandleId, offset: u64, what: Seek) -> FsResult<u64> { todo!() }

    pub fn open_directory(&self, node: NodeId) -> FsResult<HandleId> { todo!() }
    pub fn read_directory(&self, handle: HandleId, offset: u64, receive: &mut dyn FnMut(DirectoryEntry<'_>) -> Fill) -> FsResult<()> { todo!() }
    pub fn read_directory_plus(&self, handle: HandleId, offset: u64, receive: &mut dyn FnMut(DirectoryEntry<'_>) -> Fill) -> FsResult<()> { todo!() }
    pub fn release_directory(&self, handle: HandleId) { todo!() }
    pub fn sync_directory(&self, handle: HandleId) -> FsResult<()> { todo!() }
    pub fn statistics(&self) -> FsResult<FilesystemStatistics> { todo!() }

    pub fn get_xattr(&self, node: NodeId, name: &OsStr) -> FsResult<Vec<u8>> { todo!() }
    pub fn set_xattr(&self, caller: Caller, node: NodeId, name: &OsStr, value: &[u8], mode: XattrMode) -> FsResult<()> { todo!() }
    /// Names, each followed by a zero byte.
    pub fn list_xattrs(&self, node: NodeId) -> FsResult<Vec<u8>> { todo!() }
    pub fn remove_xattr(&self, node: NodeId, name: &OsStr) -> FsResult<()> { todo!() }
}
