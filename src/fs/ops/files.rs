//! Open files: opening, reading, writing, letting go.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::FileSystem;
use crate::fs::backing::At;
use crate::fs::error::FsResult;
use crate::fs::file::{FileSlot, OpenFile};
use crate::fs::inodes::Inode;
use crate::fs::types::{
    AllocateMode, Attributes, Caller, FileKind, HandleId, NewMode, NodeId, OpenFlags, Opened, Seek,
};
use crate::sys::identity;

/// A handle on an open file.
#[derive(Debug)]
pub struct FileHandle {
    inode: Arc<Inode>,
    file: Arc<OpenFile>,
    writes: bool,
    /// Counted among the inode's writers: also one that only cuts the file as it is opened.
    counts_as_writer: bool,
}

impl FileSystem {
    /// Opens a file.
    ///
    /// # Errors
    /// EROFS; its directory's or its own key refused; EBADMSG where its header or length was tampered with.
    pub fn open(&self, caller: Caller, node: NodeId, flags: OpenFlags) -> FsResult<Opened> {
        if flags.write || flags.truncate {
            self.core.writable()?;
        }
        let inode = self.inodes.get(node)?;
        let file = self.acquire(&inode, flags.write || flags.truncate)?;
        inode.forget_listing();
        let handle = FileHandle {
            inode,
            file,
            writes: flags.write,
            counts_as_writer: flags.write || flags.truncate,
        };
        let handle = self.admit(handle, caller, flags)?;
        // The kernel is the only one who changes what it has cached, so that is always true. What a revoked key takes
        // away is taken from its cache as well.
        Ok(Opened {
            handle,
            keep_cache: true,
        })
    }

    /// Counts an opened file in, and truncates it if asked.
    fn admit(&self, handle: FileHandle, caller: Caller, flags: OpenFlags) -> FsResult<HandleId> {
        let ready = || {
            if let Some(parent) = handle.inode.parent() {
                parent.check_key(&self.core)?;
            }
            handle.file.check_key(&self.core)?;
            if flags.truncate {
                self.strip_privileges(&handle.inode, caller)?;
                handle
                    .file
                    .truncate(&self.core, &|| self.binding_over(&handle.inode), 0)?;
            }
            Ok(())
        };
        if let Err(error) = ready() {
            self.release_file(&handle);
            return Err(error);
        }
        handle.inode.note_key(&handle.file);
        Ok(self.files.insert(handle))
    }

    /// The open file of an inode, opened if it is not; counts a handle.
    fn acquire(&self, inode: &Arc<Inode>, write: bool) -> FsResult<Arc<OpenFile>> {
        if inode.kind != FileKind::File {
            return Err(if inode.kind == FileKind::Directory {
                Errno::ISDIR
            } else {
                Errno::INVAL
            }
            .into());
        }
        let mut slot = inode.file.lock();
        let file = match &slot.file {
            Some(file) => {
                if write {
                    file.upgrade(|| self.open_backing(inode, true))?;
                }
                Arc::clone(file)
            }
            None => self.open_slot(inode, &mut slot, write)?,
        };
        slot.handles += 1;
        slot.writers += u32::from(write);
        Ok(file)
    }

    fn open_slot(
        &self,
        inode: &Arc<Inode>,
        slot: &mut FileSlot,
        write: bool,
    ) -> FsResult<Arc<OpenFile>> {
        // For writing if at all possible, even if this time it is only read: blocks are rewritten by reading them, and a
        // later writer shares the descriptor.
        let (fd, writable) = match self.core.read_only {
            true => (self.open_backing(inode, false)?, false),
            false => match self.open_backing(inode, true) {
                Ok(fd) => (fd, true),
                Err(error) if write => return Err(error),
                Err(_) => (self.open_backing(inode, false)?, false),
            },
        };
        let file = OpenFile::open(&self.core, fd, writable)?;
        slot.file = Some(Arc::clone(&file));
        Ok(file)
    }

    pub(super) fn open_backing(&self, inode: &Inode, write: bool) -> FsResult<OwnedFd> {
        let flags = if write { OFlags::RDWR } else { OFlags::RDONLY };
        inode.at(&self.core, |at| {
            let open = || match at {
                At::Name(directory, name) => self.core.backing.open(directory, name, flags, 0),
                At::Fd(fd) => self.core.backing.reopen(fd, flags),
            };
            match open() {
                Err(Errno::ACCESS) => self.open_as_owner(at, open),
                opened => opened,
            }
        })
    }

    /// The daemon of an ordinary user needs to read what its user may only write, and the like: the kernel has already
    /// decided that the user may. As the owner it may lift the permission bits for a moment.
    fn open_as_owner(
        &self,
        at: At<'_>,
        open: impl Fn() -> Result<OwnedFd, Errno>,
    ) -> Result<OwnedFd, Errno> {
        let stat = self.core.backing.stat(at)?;
        let mode = stat.st_mode & 0o7777;
        if stat.st_uid != rustix::process::geteuid().as_raw() || self.core.read_only {
            return Err(Errno::ACCESS);
        }
        self.core.backing.set_mode(at, mode | 0o600)?;
        let opened = open();
        self.core.backing.set_mode(at, mode)?;
        opened
    }

    /// Makes a file and opens it.
    ///
    /// # Errors
    /// EEXIST and what open(2) says; the directory's key refused.
    pub fn create(
        &self,
        caller: Caller,
        parent: NodeId,
        name: &OsStr,
        mode: NewMode,
        flags: OpenFlags,
    ) -> FsResult<(Attributes, Opened)> {
        let mut created = None;
        let attributes = self.make_entry(caller, parent, name, |directory, entry, parent| {
            let permissions = self.permissions_in(parent, mode);
            let open = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
            created = Some(
                self.core
                    .backing
                    .open(directory, entry, open, permissions)?,
            );
            Ok(())
        })?;
        let inode = self.inodes.get(attributes.node)?;
        let opened = self.open_created(inode, created.ok_or(Errno::IO)?, flags);
        Ok((attributes, opened))
    }

    /// Opens a file that was made this moment, by the descriptor that it was made with, unless somebody else has opened it
    /// since.
    pub(super) fn open_created(
        &self,
        inode: Arc<Inode>,
        created: OwnedFd,
        flags: OpenFlags,
    ) -> Opened {
        let file = {
            let mut slot = inode.file.lock();
            slot.handles += 1;
            slot.writers += u32::from(flags.write);
            let made = || OpenFile::created(created);
            Arc::clone(slot.file.get_or_insert_with(made))
        };
        let handle = self.files.insert(FileHandle {
            inode,
            file,
            writes: flags.write,
            counts_as_writer: flags.write,
        });
        Opened {
            handle,
            keep_cache: true,
        }
    }

    /// Fills `buffer` from `offset`; fewer bytes only at the end of the file.
    ///
    /// # Errors
    /// EBADMSG for what was tampered with; its key refused.
    pub fn read(&self, handle: HandleId, offset: u64, buffer: &mut [u8]) -> FsResult<usize> {
        self.files
            .get(handle)?
            .file
            .read(&self.core, offset, buffer)
    }

    /// Writes all of `data`.
    ///
    /// # Errors
    /// EBADF on a handle for reading, EFBIG, what the backing says; its key refused.
    pub fn write(&self, handle: HandleId, offset: u64, data: &[u8]) -> FsResult<()> {
        let handle = self.writing(handle)?;
        handle.file.write(
            &self.core,
            &|| self.binding_over(&handle.inode),
            offset,
            data,
        )
    }

    fn writing(&self, handle: HandleId) -> FsResult<Arc<FileHandle>> {
        let handle = self.files.get(handle)?;
        if handle.writes {
            Ok(handle)
        } else {
            Err(Errno::BADF.into())
        }
    }

    /// The handle is closed.
    pub fn release(&self, handle: HandleId) {
        if let Some(handle) = self.files.remove(handle) {
            self.release_file(&handle);
            if let Some(handle) = Arc::into_inner(handle) {
                let node = handle.inode.node;
                drop(handle.file);
                self.inodes.let_go(handle.inode);
                self.give_up_removed(node);
            }
        }
    }

    fn release_file(&self, handle: &FileHandle) {
        handle.inode.forget_listing();
        let mut slot = handle.inode.file.lock();
        slot.handles = slot.handles.saturating_sub(1);
        slot.writers = slot.writers.saturating_sub(handle.counts_as_writer.into());
        if slot.handles > 0 {
            return;
        }
        match handle.file.unsealed() {
            // Stays open until it is sealed.
            Some(_) => self.sealer.wait(Arc::clone(&handle.inode)),
            None => slot.file = None,
        }
        drop(slot);
        self.seal_if_crowded();
    }

    /// Puts a file on the disk: content, attributes, and the names that lead to it as far as they are cmkfs's own.
    ///
    /// # Errors
    /// What the backing says.
    pub fn sync(&self, handle: HandleId, data_only: bool) -> FsResult<()> {
        let handle = self.files.get(handle)?;
        handle.file.sync(&self.core, data_only)?;
        match handle.inode.parent() {
            // Nothing leads to a file without a name, and its directory may be gone.
            Some(parent) if !self.has_no_name(&handle.inode) => self.sync_ancestors(&parent),
            _ => Ok(()),
        }
    }

    /// fallocate(2).
    ///
    /// # Errors
    /// EBADF on a handle for reading, EFBIG, ENOSPC, EOPNOTSUPP; its key refused.
    pub fn allocate(
        &self,
        handle: HandleId,
        mode: AllocateMode,
        offset: u64,
        length: u64,
    ) -> FsResult<()> {
        let handle = self.writing(handle)?;
        handle.file.allocate(
            &self.core,
            &|| self.binding_over(&handle.inode),
            mode,
            offset,
            length,
        )
    }

    /// lseek(2) with SEEK_DATA and SEEK_HOLE.
    ///
    /// # Errors
    /// ENXIO; its key refused.
    pub fn seek(&self, handle: HandleId, offset: u64, what: Seek) -> FsResult<u64> {
        self.files.get(handle)?.file.seek(&self.core, offset, what)
    }

    /// Somebody has this file open for writing, so the kernel may hold data of it that was not written here yet.
    #[must_use]
    pub fn has_writers(&self, node: NodeId) -> bool {
        self.inodes
            .get(node)
            .is_ok_and(|inode| inode.file.lock().writers > 0)
    }

    /// All files that somebody has open for writing.
    #[must_use]
    pub fn written(&self) -> HashSet<NodeId> {
        let mut written = HashSet::new();
        self.files.each(|handle| {
            if handle.counts_as_writer {
                written.insert(handle.inode.node);
            }
        });
        written
    }

    pub(super) fn truncate(
        &self,
        caller: Caller,
        inode: &Arc<Inode>,
        handle: Option<HandleId>,
        size: u64,
    ) -> FsResult<()> {
        identity::assume(caller.uid, caller.gid);
        if let Some(handle) = handle {
            let handle = self.writing(handle)?;
            return handle
                .file
                .truncate(&self.core, &|| self.binding_over(inode), size);
        }
        let held = self.hold(inode, true)?;
        held.file()
            .truncate(&self.core, &|| self.binding_over(inode), size)
    }

    /// Opening with O_TRUNC changes content without the kernel having taken the setuid and setgid bits and the file
    /// capabilities away, as it does before a write.
    fn strip_privileges(&self, inode: &Arc<Inode>, caller: Caller) -> FsResult<()> {
        if caller.uid == 0 {
            return Ok(());
        }
        let backing = &self.core.backing;
        let mode = self.on_backing(inode, |at| backing.stat(at))?.st_mode & 0o7777;
        let mut surplus = mode & 0o4000;
        if mode & 0o2010 == 0o2010 {
            surplus |= 0o2000;
        }
        if surplus != 0 {
            self.on_backing(inode, |at| backing.set_mode(at, mode & !surplus))?;
        }
        match self.on_backing(inode, |at| backing.remove_xattr(at, c"security.capability")) {
            Err(error)
                if !matches!(
                    error.errno(),
                    Errno::NODATA | Errno::OPNOTSUPP | Errno::PERM
                ) =>
            {
                Err(error)
            }
            _ => Ok(()),
        }
    }

    /// Opens a file for a moment.
    pub(super) fn hold(&self, inode: &Arc<Inode>, write: bool) -> FsResult<HeldFile<'_>> {
        let file = self.acquire(inode, write)?;
        Ok(HeldFile {
            filesystem: self,
            handle: FileHandle {
                inode: Arc::clone(inode),
                file,
                writes: write,
                counts_as_writer: write,
            },
        })
    }
}

/// A file held open for a moment, by no handle that the transport knows.
pub struct HeldFile<'a> {
    filesystem: &'a FileSystem,
    handle: FileHandle,
}

impl HeldFile<'_> {
    pub(super) fn file(&self) -> &OpenFile {
        &self.handle.file
    }
}

impl Drop for HeldFile<'_> {
    fn drop(&mut self) {
        self.filesystem.release_file(&self.handle);
    }
}
