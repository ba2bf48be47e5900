//! One method a kernel request, each a call of the core and an answer.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags, INodeNo,
    IoctlFlags, KernelConfig, LockOwner, OpenFlags, PollEvents, PollFlags, PollNotifier,
    RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty,
    ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr,
    Request, TimeOrNow, WriteFlags,
};

use super::answer::{
    Adapter, GENERATION, MAX_BACKGROUND, MAX_WRITE, VALID, caller, handle, with_buffer,
};
use super::{convert, privileges, seek};
use crate::fs::{FileKind, Fill, FsError, NodeType, SetAttributes};

impl Filesystem for Adapter {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let wanted = convert::capabilities(self.fs.read_only()) & config.capabilities();
        if let Err(refused) = config.add_capabilities(wanted) {
            log::debug!("the kernel lacks {refused:?}");
        }
        // Both report the nearest value they would have taken; theirs is then in force, which is as good.
        let _ = config.set_max_write(MAX_WRITE);
        let _ = config.set_max_background(MAX_BACKGROUND);
        Ok(())
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let _answer = self.in_flight.0.read();
        match self.fs.lookup(parent.0, name) {
            Err(error) if error.errno() == rustix::io::Errno::NOENT => {
                reply.entry(&VALID, &convert::absent(FileKind::File), GENERATION);
            }
            result => self.reply_entry("lookup", parent, result, reply),
        }
    }

    // Batches are taken apart by fuser.
    fn forget(&self, _request: &Request, node: INodeNo, lookups: u64) {
        self.fs.forget(node.0, lookups);
    }

    fn getattr(
        &self,
        _request: &Request,
        node: INodeNo,
        file: Option<FileHandle>,
        reply: ReplyAttr,
    ) {
        let _answer = self.in_flight.0.read();
        self.reply_attributes(
            "getattr",
            node,
            self.fs.attributes(node.0, handle(file)),
            reply,
        );
    }

    fn setattr(
        &self,
        request: &Request,
        node: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        // Sent with a writeback cache; the backing file keeps its own.
        _ctime: Option<SystemTime>,
        file: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let _answer = self.in_flight.0.read();
        let changes = SetAttributes {
            permissions: mode.map(convert::permissions),
            uid,
            gid,
            size,
            atime: atime.map(convert::set_time),
            mtime: mtime.map(convert::set_time),
        };
        let killed = match size {
            Some(_) => self.kill_privileges(caller(request), node, handle(file)),
            None => Ok(()),
        };
        let set = || {
            self.fs
                .set_attributes(caller(request), node.0, handle(file), &changes)
        };
        let result = killed.and_then(|()| set());
        match result {
            Ok(attributes) => self.reply_attributes("setattr", node, Ok(attributes), reply),
            // A change that failed is never answered with what is remembered of the root.
            Err(error) => reply.error(self.errno("setattr", node, &error)),
        }
    }

    fn readlink(&self, _request: &Request, node: INodeNo, reply: ReplyData) {
        let _answer = self.in_flight.0.read();
        match self.fs.read_link(node.0) {
            Ok(target) => reply.data(&target),
            Err(error) => reply.error(self.errno("readlink", node, &error)),
        }
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        device: u32,
        reply: ReplyEntry,
    ) {
        let _answer = self.in_flight.0.read();
        let Some(kind) = convert::node_kind(mode) else {
            return reply.error(Errno::EINVAL);
        };
        let node = NodeType { kind, device };
        let result = self.fs.make_node(
            caller(request),
            parent.0,
            name,
            convert::new_mode(mode, umask),
            node,
        );
        self.reply_entry("mknod", parent, result, reply);
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let _answer = self.in_flight.0.read();
        let result = self.fs.make_directory(
            caller(request),
            parent.0,
            name,
            convert::new_mode(mode, umask),
        );
        self.reply_entry("mkdir", parent, result, reply);
    }

    fn unlink(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.reply_empty("unlink", parent, self.fs.remove_file(parent.0, name), reply);
    }

    fn rmdir(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.reply_empty(
            "rmdir",
            parent,
            self.fs.remove_directory(parent.0, name),
            reply,
        );
    }

    fn symlink(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let _answer = self.in_flight.0.read();
        let result = self
            .fs
            .make_symlink(caller(request), parent.0, name, target.as_os_str());
        self.reply_entry("symlink", parent, result, reply);
    }

    fn rename(
        &self,
        _request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let Some(mode) = convert::rename_mode(flags) else {
            return reply.error(Errno::EINVAL);
        };
        self.reply_empty(
            "rename",
            parent,
            self.fs.rename(parent.0, name, new_parent.0, new_name, mode),
            reply,
        );
    }

    fn link(
        &self,
        _request: &Request,
        node: INodeNo,
        new_parent: INodeNo,
        new_name: &OsStr,
        reply: ReplyEntry,
    ) {
        let _answer = self.in_flight.0.read();
        self.reply_entry(
            "link",
            node,
            self.fs.link(node.0, new_parent.0, new_name),
            reply,
        );
    }

    fn open(&self, request: &Request, node: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let _answer = self.in_flight.0.read();
        let flags = convert::open_flags(flags);
        let killed = if flags.truncate {
            self.kill_privileges(caller(request), node, None)
        } else {
            Ok(())
        };
        match killed.and_then(|()| self.fs.open(caller(request), node.0, flags)) {
            Ok(opened) => reply.opened(FileHandle(opened.handle), convert::opened_flags(&opened)),
            Err(error) => reply.error(self.errno("open", node, &error)),
        }
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let _answer = self.in_flight.0.read();
        let (mode, flags) = (
            convert::new_mode(mode, umask),
            convert::open_flags(OpenFlags(flags)),
        );
        match self.fs.create(caller(request), parent.0, name, mode, flags) {
            Ok((attributes, opened)) => reply.created(
                &VALID,
                &convert::attributes(&attributes),
                GENERATION,
                FileHandle(opened.handle),
                convert::opened_flags(&opened),
            ),
            Err(error) => reply.error(self.errno("create", parent, &error)),
        }
    }

    fn read(
        &self,
        _request: &Request,
        node: INodeNo,
        file: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let _answer = self.in_flight.0.read();
        with_buffer(size as usize, |buffer| {
            match self.fs.read(file.0, offset, buffer) {
                Ok(length) => reply.data(&buffer[..length.min(buffer.len())]),
                Err(error) => reply.error(self.errno("read", node, &error)),
            }
        });
    }

    fn write(
        &self,
        request: &Request,
        node: INodeNo,
        file: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let _answer = self.write_back.writing();
        let killed = if write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID) {
            privileges::kill(&self.fs, caller(request), node.0, Some(file.0))
                .map(|killed| self.forget_mode(node, killed))
        } else {
            Ok(())
        };
        match killed.and_then(|()| self.fs.write(file.0, offset, data)) {
            // A request is at most max_write long.
            Ok(()) => reply.written(u32::try_from(data.len()).unwrap_or(u32::MAX)),
            Err(error) => {
                // The kernel keeps the page as if it had been written, and would show it to readers.
                if matches!(error, FsError::Key(_)) {
                    self.refused_writes.add(node.0);
                }
                reply.error(self.errno("write", node, &error));
            }
        }
    }

    /// Tells the kernel never to ask again, which saves a round trip on every close(2): with a writeback cache it writes a
    /// file's pages back before it would ask, and the core reports every error with the write that caused it.
    fn flush(
        &self,
        _request: &Request,
        _node: INodeNo,
        _file: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::ENOSYS);
    }

    fn release(
        &self,
        _request: &Request,
        _node: INodeNo,
        file: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.fs.release(file.0);
        reply.ok();
    }

    fn fsync(
        &self,
        _request: &Request,
        node: INodeNo,
        file: FileHandle,
        data_only: bool,
        reply: ReplyEmpty,
    ) {
        self.reply_empty("fsync", node, self.fs.sync(file.0, data_only), reply);
    }

    fn fallocate(
        &self,
        request: &Request,
        node: INodeNo,
        file: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let Some(mode) = convert::allocate_mode(mode) else {
            return reply.error(Errno::EOPNOTSUPP);
        };
        let killed = self.kill_privileges(caller(request), node, Some(file.0));
        self.reply_empty(
            "fallocate",
            node,
            killed.and_then(|()| self.fs.allocate(file.0, mode, offset, length)),
            reply,
        );
    }

    fn lseek(
        &self,
        _request: &Request,
        node: INodeNo,
        file: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let Some(what) = convert::seek(whence) else {
            return reply.error(Errno::EINVAL);
        };
        let Ok(offset) = u64::try_from(offset) else {
            return reply.error(Errno::ENXIO);
        };
        let request = seek::Request {
            node: node.0,
            handle: file.0,
            offset,
            what,
            reply,
        };
        if self.fs.has_writers(node.0) {
            // Gone only if its thread is, and then the dropped reply answers EIO.
            let _ = self.seeks.send(request);
        } else {
            seek::answer(&self.fs, &self.reporter, request);
        }
    }

    fn opendir(&self, request: &Request, node: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        if let Some(mark) = self.write_back.mark(request.pid()) {
            return reply.opened(FileHandle(mark), FopenFlags::empty());
        }
        match self.fs.open_directory(node.0) {
            // The kernel is not to keep listings: one that it fills while names change can lack names that were there all
            // the while, for whoever reads on from it.
            Ok(opened) => reply.opened(FileHandle(opened), FopenFlags::empty()),
            Err(error) => reply.error(self.errno("opendir", node, &error)),
        }
    }

    fn readdir(
        &self,
        _request: &Request,
        node: INodeNo,
        directory: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let _answer = self.in_flight.0.read();
        let mut taken = false;
        let result = self.fs.read_directory(directory.0, offset, &mut |entry| {
            let kind = convert::file_type(entry.kind);
            if reply.add(INodeNo(entry.node), entry.next_offset, kind, entry.name) {
                return Fill::Full;
            }
            taken = true;
            Fill::Taken
        });
        match result {
            Err(error) if !taken => reply.error(self.errno("readdir", node, &error)),
            // An error after some entries comes again with the next request.
            Ok(()) | Err(_) => reply.ok(),
        }
    }

    fn readdirplus(
        &self,
        _request: &Request,
        node: INodeNo,
        directory: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let _answer = self.in_flight.0.read();
        let mut taken = false;
        let result = self
            .fs
            .read_directory_plus(directory.0, offset, &mut |entry| {
                let node = INodeNo(entry.node);
                let mut attributes = entry
                    .attributes
                    .as_ref()
                    .map_or_else(|| convert::absent(entry.kind), convert::attributes);
                if entry.name == "." || entry.name == ".." {
                    // fuser takes the entry's number from here, and the kernel counts no lookup of these two.
                    attributes.ino = node;
                }
                let valid = if entry.is_withdrawn {
                    Duration::ZERO
                } else {
                    VALID
                };
                if reply.add(
                    node,
                    entry.next_offset,
                    entry.name,
                    &valid,
                    &attributes,
                    GENERATION,
                ) {
                    return Fill::Full;
                }
                taken = true;
                Fill::Taken
            });
        match result {
            Err(error) if !taken => reply.error(self.errno("readdirplus", node, &error)),
            // Entries taken are lookups counted: they have to reach the kernel, or it would never forget them.
            Ok(()) | Err(_) => reply.ok(),
        }
    }

    fn releasedir(
        &self,
        _request: &Request,
        _node: INodeNo,
        directory: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        if !self.write_back.released(directory.0) {
            self.fs.release_directory(directory.0);
        }
        reply.ok();
    }

    fn fsyncdir(
        &self,
        _request: &Request,
        node: INodeNo,
        directory: FileHandle,
        _data: bool,
        reply: ReplyEmpty,
    ) {
        self.reply_empty("fsyncdir", node, self.fs.sync_directory(directory.0), reply);
    }

    fn statfs(&self, _request: &Request, node: INodeNo, reply: ReplyStatfs) {
        match self.fs.statistics() {
            Ok(figures) => reply.statfs(
                figures.blocks,
                figures.blocks_free,
                figures.blocks_available,
                figures.files,
                figures.files_free,
                figures.block_size,
                figures.name_max,
                figures.fragment_size,
            ),
            Err(error) => reply.error(self.errno("statfs", node, &error)),
        }
    }

    fn setxattr(
        &self,
        request: &Request,
        node: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let result = self.fs.set_xattr(
            caller(request),
            node.0,
            name,
            value,
            convert::xattr_mode(flags),
        );
        self.reply_empty("setxattr", node, result, reply);
    }

    fn getxattr(
        &self,
        _request: &Request,
        node: INodeNo,
        name: &OsStr,
        size: u32,
        reply: ReplyXattr,
    ) {
        let _answer = self.in_flight.0.read();
        self.reply_xattr(
            "getxattr",
            node,
            self.fs.get_xattr(node.0, name),
            size,
            reply,
        );
    }

    fn listxattr(&self, _request: &Request, node: INodeNo, size: u32, reply: ReplyXattr) {
        let _answer = self.in_flight.0.read();
        self.reply_xattr("listxattr", node, self.fs.list_xattrs(node.0), size, reply);
    }

    fn removexattr(&self, _request: &Request, node: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.reply_empty(
            "removexattr",
            node,
            self.fs.remove_xattr(node.0, name),
            reply,
        );
    }

    /// There is no device behind a file. Programs ask all the same, at every open, whether it is a terminal.
    fn ioctl(
        &self,
        _request: &Request,
        _node: INodeNo,
        _file: FileHandle,
        _flags: IoctlFlags,
        _command: u32,
        _data: &[u8],
        _room: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }

    /// Files are always ready: the kernel says so by itself once it was told to.
    fn poll(
        &self,
        _request: &Request,
        _node: INodeNo,
        _file: FileHandle,
        _notifier: PollNotifier,
        _events: PollEvents,
        _flags: PollFlags,
        reply: ReplyPoll,
    ) {
        reply.error(Errno::ENOSYS);
    }

    /// Two files have two keys, so there is nothing to share: the kernel copies by reading and writing once it was told to.
    fn copy_file_range(
        &self,
        _request: &Request,
        _from: INodeNo,
        _from_file: FileHandle,
        _from_offset: u64,
        _to: INodeNo,
        _to_file: FileHandle,
        _to_offset: u64,
        _length: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        reply.error(Errno::ENOSYS);
    }
}
