//! Answers about open files: opening, content, sizes.

use std::ffi::OsStr;

use rustix::io::Errno;

use super::convert;
use super::service::Answer;
use crate::fs::{Attributes, Caller, FsError, HandleId, NodeId, Opened};

impl Answer<'_> {
    /// OPEN. `kill_privileges`: setuid and setgid go with O_TRUNC.
    ///
    /// # Errors
    /// The errno to answer with.
    pub fn open(
        &self,
        caller: Caller,
        node: NodeId,
        flags: i32,
        kill_privileges: bool,
    ) -> Result<Opened, Errno> {
        let flags = convert::open_flags(flags);
        let killed = if flags.truncate && kill_privileges {
            self.kill_privileges(caller, node, None)
        } else {
            Ok(())
        };
        let open = || self.service.fs.open(caller, node, flags);
        self.result(node, killed.and_then(|()| open()))
    }

    /// CREATE.
    ///
    /// # Errors
    /// The errno to answer with.
    pub fn create(
        &self,
        caller: Caller,
        parent: NodeId,
        name: &OsStr,
        (mode, umask): (u32, u32),
        flags: i32,
    ) -> Result<(Attributes, Opened), Errno> {
        let (mode, flags) = (convert::new_mode(mode, umask), convert::open_flags(flags));
        let fs = &self.service.fs;
        self.result(parent, fs.create(caller, parent, name, mode, flags))
    }

    /// TMPFILE: a file without a name.
    ///
    /// # Errors
    /// The errno to answer with.
    pub fn tmpfile(
        &self,
        caller: Caller,
        parent: NodeId,
        (mode, umask): (u32, u32),
        flags: i32,
    ) -> Result<(Attributes, Opened), Errno> {
        let (mode, flags) = (convert::new_mode(mode, umask), convert::open_flags(flags));
        let fs = &self.service.fs;
        self.result(parent, fs.create_temporary(caller, parent, mode, flags))
    }

    /// READ into a buffer of the transport's: how many of its bytes were filled.
    ///
    /// # Errors
    /// The errno to answer with.
    pub fn read(
        &self,
        node: NodeId,
        handle: HandleId,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<usize, Errno> {
        let length = self.result(node, self.service.fs.read(handle, offset, buffer))?;
        let length = length.min(buffer.len());
        self.carries(length);
        Ok(length)
    }

    /// WRITE: how many bytes were written, which is all. `kill_privileges`: setuid and setgid go with it.
    ///
    /// # Errors
    /// The errno to answer with.
    pub fn write(
        &self,
        caller: Caller,
        (node, handle): (NodeId, HandleId),
        offset: u64,
        data: &[u8],
        kill_privileges: bool,
    ) -> Result<u32, Errno> {
        let killed = if kill_privileges {
            self.kill_privileges(caller, node, Some(handle))
        } else {
            Ok(())
        };
        let write = || self.service.fs.write(handle, offset, data);
        let written = killed.and_then(|()| write()).inspect_err(|error| {
            // The kernel keeps the page as if it had been written, and would show it to readers.
            if matches!(error, FsError::Key(_)) {
                self.service.refused_writes.add(node);
            }
        });
        self.result(node, written)?;
        self.carries(data.len());
        // A request is at most max_write long.
        Ok(u32::try_from(data.len()).unwrap_or(u32::MAX))
    }

    /// FLUSH: the kernel is never to ask again, which saves a round trip on every close(2). With a writeback cache it writes
    /// a file's pages back before it would ask, and the core reports every error with the write that caused it.
    pub fn flush(&self) -> Errno {
        self.refused(Errno::NOSYS)
    }

    /// RELEASE.
    pub fn release(&self, handle: HandleId) {
        self.service.fs.release(handle);
    }

    /// FSYNC.
    ///
    /// # Errors
    /// The errno to answer with.
    pub fn fsync(&self, node: NodeId, handle: HandleId, data_only: bool) -> Result<(), Errno> {
        self.result(node, self.service.fs.sync(handle, data_only))
    }

    /// FALLOCATE. The kernel marks none of these for taking setuid and setgid away, so root's alone keep them, as CAP_FSETID
    /// would.
    ///
    /// # Errors
    /// The errno to answer with.
    pub fn fallocate(
        &self,
        caller: Caller,
        (node, handle): (NodeId, HandleId),
        mode: i32,
        offset: u64,
        length: u64,
    ) -> Result<(), Errno> {
        let mode = convert::allocate_mode(mode).ok_or_else(|| self.refused(Errno::OPNOTSUPP))?;
        let killed = if caller.uid == 0 {
            Ok(())
        } else {
            self.kill_privileges(caller, node, Some(handle))
        };
        let allocate = || self.service.fs.allocate(handle, mode, offset, length);
        self.result(node, killed.and_then(|()| allocate()))
    }

    /// Whether LSEEK of a file has to wait for its dirty pages ([`super::later`]).
    #[must_use]
    pub fn has_to_wait(&self, node: NodeId) -> bool {
        self.service.fs.has_writers(node)
    }

    /// LSEEK.
    ///
    /// # Errors
    /// The errno to answer with.
    pub fn lseek(
        &self,
        node: NodeId,
        handle: HandleId,
        offset: i64,
        whence: u32,
    ) -> Result<i64, Errno> {
        let what = convert::seek(whence).ok_or_else(|| self.refused(Errno::INVAL))?;
        let offset = u64::try_from(offset).map_err(|_| self.refused(Errno::NXIO))?;
        let found = self.result(node, self.service.fs.seek(handle, offset, what))?;
        i64::try_from(found).map_err(|_| self.refused(Errno::OVERFLOW))
    }

    /// IOCTL: there is no device behind a file. Programs ask all the same, at every open, whether it is a terminal.
    pub fn ioctl(&self) -> Errno {
        self.refused(Errno::NOTTY)
    }

    /// POLL: files are always ready. The kernel says so by itself once it was told to.
    pub fn poll(&self) -> Errno {
        self.refused(Errno::NOSYS)
    }

    /// COPY_FILE_RANGE: two files have two keys, so there is nothing to share. The kernel copies by reading and writing once
    /// it was told to.
    pub fn copy_file_range(&self) -> Errno {
        self.refused(Errno::NOSYS)
    }
}
