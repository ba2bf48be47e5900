//! Attributes: reading and changing them.

use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::fs::{Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};

use super::FileSystem;
use crate::fs::backing::At;
use crate::fs::error::FsResult;
use crate::fs::inodes::Inode;
use crate::fs::types::{
    Attributes, Caller, FileKind, FileTime, FilesystemStatistics, HandleId, NodeId, SetAttributes,
    SetTime,
};

impl FileSystem {
    /// An inode's attributes.
    ///
    /// # Errors
    /// Its key refused: what cannot be read does not show its size and times either. The root always answers.
    pub fn attributes(&self, node: NodeId, _handle: Option<HandleId>) -> FsResult<Attributes> {
        let inode = self.inodes.get(node)?;
        self.check_attributes_of(&inode)?;
        self.stat(&inode)
    }

    /// Fails if an inode's attributes may not be seen or changed. Those of a directory may as long as the directory above
    /// may be used, or it itself.
    fn check_attributes_of(&self, inode: &Arc<Inode>) -> FsResult<()> {
        let is_seen_from_above = inode.kind == FileKind::Directory
            && inode
                .parent()
                .is_some_and(|parent| parent.check_key(&self.core).is_ok());
        if is_seen_from_above {
            return Ok(());
        }
        self.check_key_of(inode)
    }

    /// Fails if the keys that guard an inode may not be used: its own and, unless it is in use already, those of the
    /// directory in which it was found. The root has nothing to hide.
    pub(super) fn check_key_of(&self, inode: &Arc<Inode>) -> FsResult<()> {
        let Some(parent) = inode.parent() else {
            return Ok(());
        };
        if let Some(header) = inode.directory.known_header() {
            header.object.keys(&self.core.ring)?;
            return Ok(());
        }
        let (file, is_open) = {
            let slot = inode.file.lock();
            (slot.file.clone(), slot.handles > 0)
        };
        match file.filter(|file| file.key().is_some()) {
            Some(file) if is_open => file.check_key(&self.core),
            _ => {
                parent.check_key(&self.core)?;
                self.check_own_key(inode)
            }
        }
    }

    pub(super) fn stat(&self, inode: &Arc<Inode>) -> FsResult<Attributes> {
        let open = self.open_file(inode);
        let (stat, size) = if let Some(file) = open {
            let stat = file.with_descriptor(|fd| self.core.backing.stat(At::Fd(fd)))?;
            (stat, file.size())
        } else {
            let mut size = Ok(0);
            let stat = inode.at(&self.core, |at| {
                let stat = self.core.backing.stat(at)?;
                size = self.size_at(inode.kind, &stat, at);
                Ok(stat)
            })?;
            (stat, size?)
        };
        Ok(self.attributes_of(inode.node, inode.kind, &stat, size))
    }

    /// When an inode's backing object was made; `None` where the backing filesystem does not say. Who replaces one backing
    /// object by another (rekey, a rewrap of a symlink) makes it anew.
    ///
    /// # Errors
    /// Its key refused, as for [`FileSystem::attributes`].
    pub fn birth_time(&self, node: NodeId) -> FsResult<Option<FileTime>> {
        let inode = self.inodes.get(node)?;
        self.check_attributes_of(&inode)?;
        let born = self.on_backing(&inode, |at| self.core.backing.birth_time(at))?;
        Ok(born.map(|time| FileTime {
            seconds: time.tv_sec,
            nanoseconds: time.tv_nsec,
        }))
    }

    /// Changes attributes, and says what they are then.
    ///
    /// # Errors
    /// What chmod(2), chown(2), truncate(2) and utimensat(2) say; its key refused.
    pub fn set_attributes(
        &self,
        caller: Caller,
        node: NodeId,
        handle: Option<HandleId>,
        changes: &SetAttributes,
    ) -> FsResult<Attributes> {
        self.core.writable()?;
        let inode = self.inodes.get(node)?;
        self.check_attributes_of(&inode)?;
        if let Some(size) = changes.size {
            self.truncate(caller, &inode, handle, size)?;
        }
        let _tree = self.tree.read();
        let backing = &self.core.backing;
        // Owner before mode: a change of owner clears the setuid and setgid bits that the mode may ask for.
        if changes.uid.is_some() || changes.gid.is_some() {
            self.on_backing(&inode, |at| backing.set_owner(at, changes.uid, changes.gid))?;
        }
        if let Some(permissions) = changes.permissions
            && inode.kind != FileKind::Symlink
        {
            self.on_backing(&inode, |at| backing.set_mode(at, permissions.into()))?;
        }
        if changes.atime.is_some() || changes.mtime.is_some() {
            let times = Timestamps {
                last_access: timespec(changes.atime),
                last_modification: timespec(changes.mtime),
            };
            self.on_backing(&inode, |at| backing.set_times(at, &times))?;
        }
        self.stat(&inode)
    }

    /// Runs `call` on an inode's backing object: by its open file where there is one, else by its place.
    pub(super) fn on_backing<T>(
        &self,
        inode: &Arc<Inode>,
        call: impl FnOnce(At<'_>) -> Result<T, rustix::io::Errno>,
    ) -> FsResult<T> {
        match self.open_file(inode) {
            Some(file) => file.with_descriptor(|fd| call(At::Fd(fd))),
            None => inode.at(&self.core, call),
        }
    }

    /// Figures of the backing filesystem.
    ///
    /// # Errors
    /// What statvfs(3) says.
    pub fn statistics(&self) -> FsResult<FilesystemStatistics> {
        let root = self.inodes.root().descriptor(&self.core)?;
        let stat = self.core.backing.statvfs(root.as_fd())?;
        Ok(FilesystemStatistics {
            blocks: stat.f_blocks,
            blocks_free: stat.f_bfree,
            blocks_available: stat.f_bavail,
            files: stat.f_files,
            files_free: stat.f_ffree,
            block_size: u32::try_from(stat.f_bsize).unwrap_or(4096),
            name_max: crate::format::names::NAME_MAX as u32,
            fragment_size: u32::try_from(stat.f_frsize).unwrap_or(4096),
        })
    }
}

fn timespec(time: Option<SetTime>) -> Timespec {
    match time {
        None => Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        Some(SetTime::Now) => Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_NOW,
        },
        Some(SetTime::At(time)) => Timespec {
            tv_sec: time.seconds,
            tv_nsec: time.nanoseconds.into(),
        },
    }
}
