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
use crate::mount::stats::Operation;

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
        let answer = self.disclosing(Operation::Lookup);
        match self.fs.lookup(parent.0, name) {
            Err(error) if error.errno() == rustix::io::Errno::NOENT => {
                reply.entry(&VALID, &convert::absent(FileKind::File), GENERATION);
            }
            result => answer.entry(parent, result, reply),
        }
    }

    // Batches are taken apart by fuser.
    fn forget(&self, _request: &Request, node: INodeNo, lookups: u64) {
        let _answer = self.answering(Operation::Forget);
        self.fs.forget(node.0, lookups);
    }

    fn getattr(
        &self,
        _request: &Request,
        node: INodeNo,
        file: Option<FileHandle>,
        reply: ReplyAttr,
    ) {
        self.disclosing(Operation::Getattr).attributes(
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
        let answer = self.disclosing(Operation::Setattr);
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
            Ok(attributes) => answer.attributes(node, Ok(attributes), reply),
            // A change that failed is never answered with what is remembered of the root.
            Err(error) => reply.error(answer.errno(node, &error)),
        }
    }

    fn readlink(&self, _request: &Request, node: INodeNo, reply: ReplyData) {
        let answer = self.disclosing(Operation::Readlink);
        match self.fs.read_link(node.0) {
            Ok(target) => answer.data(&target, reply),
            Err(error) => reply.error(answer.errno(node, &error)),
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
        let answer = self.disclosing(Operation::Mknod);
        let Some(kind) = convert::node_kind(mode) else {
            return reply.error(answer.refused(Errno::EINVAL));
        };
        let node = NodeType { kind, device };
        let result = self.fs.make_node(
            caller(request),
            parent.0,
            name,
            convert::new_mode(mode, umask),
            node,
        );
        answer.entry(parent, result, reply);
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
        let answer = self.disclosing(Operation::Mkdir);
        let result = self.fs.make_directory(
            caller(request),
            parent.0,
            name,
            convert::new_mode(mode, umask),
        );
        answer.entry(parent, result, reply);
    }

    fn unlink(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.answering(Operation::Unlink)
            .empty(parent, self.fs.remove_file(parent.0, name), reply);
    }

    fn rmdir(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.answering(Operation::Rmdir).empty(
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
        let answer = self.disclosing(Operation::Symlink);
        let result = self
            .fs
            .make_symlink(caller(request), parent.0, name, target.as_os_str());
        answer.entry(parent, result, reply);
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
        let answer = self.answering(Operation::Rename);
        let Some(mode) = convert::rename_mode(flags) else {
            return reply.error(answer.refused(Errno::EINVAL));
        };
        answer.empty(
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
        self.disclosing(Operation::Link).entry(
            node,
            self.fs.link(node.0, new_parent.0, new_name),
            reply,
        );
    }

    fn open(&self, request: &Request, node: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let answer = self.disclosing(Operation::Open);
        let flags = convert::open_flags(flags);
        let killed = if flags.truncate {
            self.kill_privileges(caller(request), node, None)
        } else {
            Ok(())
        };
        match killed.and_then(|()| self.fs.open(caller(request), node.0, flags)) {
            Ok(opened) => reply.opened(FileHandle(opened.handle), convert::opened_flags(&opened)),
            Err(error) => reply.error(answer.errno(node, &error)),
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
        let answer = self.disclosing(Operation::Create);
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
            Err(error) => reply.error(answer.errno(parent, &error)),
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
        let answer = self.disclosing(Operation::Read);
        with_buffer(size as usize, |buffer| {
            match self.fs.read(file.0, offset, buffer) {
                Ok(length) => answer.data(&buffer[..length.min(buffer.len())], reply),
                Err(error) => reply.error(answer.errno(node, &error)),
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
        let answer = self.answering(Operation::Write);
        let _writing = self.write_back.writing();
        let killed = if write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID) {
            privileges::kill(&self.fs, caller(request), node.0, Some(file.0))
                .map(|killed| self.forget_mode(node, killed))
        } else {
            Ok(())
        };
        match killed.and_then(|()| self.fs.write(file.0, offset, data)) {
            // A request is at most max_write long.
            Ok(()) => {
                answer.carries(data.len());
                reply.written(u32::try_from(data.len()).unwrap_or(u32::MAX));
            }
            Err(error) => {
                // The kernel keeps the page as if it had been written, and would show it to readers.
                if matches!(error, FsError::Key(_)) {
                    self.refused_writes.add(node.0);
                }
                reply.error(answer.errno(node, &error));
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
        reply.error(self.answering(Operation::Flush).refused(Errno::ENOSYS));
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
        let _answer = self.answering(Operation::Release);
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
        self.answering(Operation::Fsync)
            .empty(node, self.fs.sync(file.0, data_only), reply);
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
        let answer = self.answering(Operation::Fallocate);
        let Some(mode) = convert::allocate_mode(mode) else {
            return reply.error(answer.refused(Errno::EOPNOTSUPP));
        };
        let killed = self.kill_privileges(caller(request), node, Some(file.0));
        answer.empty(
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
        let answer = self.answering(Operation::Lseek);
        let Some(what) = convert::seek(whence) else {
            return reply.error(answer.refused(Errno::EINVAL));
        };
        let Ok(offset) = u64::try_from(offset) else {
            return reply.error(answer.refused(Errno::ENXIO));
        };
        let request = seek::Request {
            node: node.0,
            handle: file.0,
            offset,
            what,
            reply,
            begun: answer.hand_over(),
        };
        if self.fs.has_writers(node.0) {
            // Gone only if its thread is, and then the dropped reply answers EIO.
            let _ = self.seeks.send(request);
        } else {
            self.seek(request);
        }
    }

    fn opendir(&self, request: &Request, node: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let answer = self.answering(Operation::Opendir);
        if let Some(mark) = self.write_back.mark(request.pid()) {
            return reply.opened(FileHandle(mark), FopenFlags::empty());
        }
        match self.fs.open_directory(node.0) {
            // The kernel is not to keep listings: one that it fills while names change can lack names that were there all
            // the while, for whoever reads on from it.
            Ok(opened) => reply.opened(FileHandle(opened), FopenFlags::empty()),
            Err(error) => reply.error(answer.errno(node, &error)),
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
        let answer = self.disclosing(Operation::Readdir);
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
            Err(error) if !taken => reply.error(answer.errno(node, &error)),
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
        let answer = self.disclosing(Operation::Readdirplus);
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
            Err(error) if !taken => reply.error(answer.errno(node, &error)),
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
        let _answer = self.answering(Operation::Releasedir);
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
        self.answering(Operation::Fsyncdir)
            .empty(node, self.fs.sync_directory(directory.0), reply);
    }

    fn statfs(&self, _request: &Request, node: INodeNo, reply: ReplyStatfs) {
        let answer = self.answering(Operation::Statfs);
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
            Err(error) => reply.error(answer.errno(node, &error)),
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
        let answer = self.answering(Operation::Setxattr);
        let result = self.fs.set_xattr(
            caller(request),
            node.0,
            name,
            value,
            convert::xattr_mode(flags),
        );
        if result.is_ok() {
            answer.carries(value.len());
        }
        answer.empty(node, result, reply);
    }

    fn getxattr(
        &self,
        _request: &Request,
        node: INodeNo,
        name: &OsStr,
        size: u32,
        reply: ReplyXattr,
    ) {
        self.disclosing(Operation::Getxattr).xattr(
            node,
            self.fs.get_xattr(node.0, name),
            size,
            reply,
        );
    }

    fn listxattr(&self, _request: &Request, node: INodeNo, size: u32, reply: ReplyXattr) {
        self.disclosing(Operation::Listxattr)
            .xattr(node, self.fs.list_xattrs(node.0), size, reply);
    }

    fn removexattr(&self, _request: &Request, node: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.answering(Operation::Removexattr).empty(
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
        reply.error(self.answering(Operation::Ioctl).refused(Errno::ENOTTY));
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
        reply.error(self.answering(Operation::Poll).refused(Errno::ENOSYS));
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
        reply.error(
            self.answering(Operation::CopyFileRange)
                .refused(Errno::ENOSYS),
        );
    }
}
