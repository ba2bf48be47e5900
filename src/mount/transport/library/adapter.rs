//! One method a kernel request, each handed to the service, and its answer put into fuser's reply. Marks for taking setuid
//! and setgid away reach us with writes only: fuser 0.18 hides those on truncation and opening, so there everybody but root
//! takes the bits away.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, CopyFileRangeFlags, FileHandle, Filesystem, FopenFlags, Generation, INodeNo,
    IoctlFlags, KernelConfig, LockOwner, OpenFlags, PollEvents, PollFlags, PollNotifier,
    RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty,
    ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr,
    Request, TimeOrNow, WriteFlags,
};
use rustix::io::Errno;

use super::convert::{self, caller, errno};
use crate::fs::{Attributes, FileKind, Fill, SetAttributes};
use crate::mount::session::convert::permissions;
use crate::mount::session::{Answer, MAX_BACKGROUND, MAX_WRITE, Service, VALID, Xattr, validity};
use crate::mount::stats::Operation;
use crate::sys::pages::Pages;

/// Node ids are never reused.
const GENERATION: Generation = Generation(0);

/// fuser's view of a mounted volume.
pub(super) struct Adapter(pub(super) Arc<Service>);

impl Adapter {
    fn begin(&self, operation: Operation) -> Answer<'_> {
        self.0.begin(operation)
    }
}

fn handle(handle: Option<FileHandle>) -> Option<u64> {
    handle.map(|handle| handle.0)
}

fn entry(result: Result<Attributes, Errno>, reply: ReplyEntry) {
    match result {
        Ok(attributes) => reply.entry(&VALID, &convert::attributes(&attributes), GENERATION),
        Err(error) => reply.error(errno(error)),
    }
}

fn attributes(result: Result<Attributes, Errno>, reply: ReplyAttr) {
    match result {
        Ok(attributes) => reply.attr(&VALID, &convert::attributes(&attributes)),
        Err(error) => reply.error(errno(error)),
    }
}

fn empty(result: Result<(), Errno>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(errno(error)),
    }
}

fn xattr(result: Result<Xattr, Errno>, reply: ReplyXattr) {
    match result {
        Ok(Xattr::Size(length)) => reply.size(length),
        Ok(Xattr::Value(value)) => reply.data(&value),
        Err(error) => reply.error(errno(error)),
    }
}

impl Filesystem for Adapter {
    fn init(&mut self, _request: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let wanted = convert::capabilities(self.0.is_read_only()) & config.capabilities();
        if let Err(refused) = config.add_capabilities(wanted) {
            log::debug!("the kernel lacks {refused:?}");
        }
        // Both report the nearest value they would have taken; theirs is then in force, which is as good.
        let _ = config.set_max_write(MAX_WRITE);
        let _ = config.set_max_background(MAX_BACKGROUND);
        Ok(())
    }

    fn lookup(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let answer = self.begin(Operation::Lookup);
        match answer.lookup(parent.0, name) {
            Ok(Some(attributes)) => entry(Ok(attributes), reply),
            Ok(None) => reply.entry(&VALID, &convert::absent(FileKind::File), GENERATION),
            Err(error) => reply.error(errno(error)),
        }
    }

    // Batches are taken apart by fuser.
    fn forget(&self, _request: &Request, node: INodeNo, lookups: u64) {
        self.0.forget(node.0, lookups);
    }

    fn getattr(
        &self,
        _request: &Request,
        node: INodeNo,
        file: Option<FileHandle>,
        reply: ReplyAttr,
    ) {
        let answer = self.begin(Operation::Getattr);
        attributes(answer.getattr(node.0, handle(file)), reply);
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
        let answer = self.begin(Operation::Setattr);
        let changes = SetAttributes {
            permissions: mode.map(permissions),
            uid,
            gid,
            size,
            atime: atime.map(convert::set_time),
            mtime: mtime.map(convert::set_time),
        };
        let kills = request.uid() != 0;
        let result = answer.setattr(caller(request), node.0, handle(file), &changes, kills);
        attributes(result, reply);
    }

    fn readlink(&self, _request: &Request, node: INodeNo, reply: ReplyData) {
        let answer = self.begin(Operation::Readlink);
        match answer.readlink(node.0) {
            Ok(target) => reply.data(&target),
            Err(error) => reply.error(errno(error)),
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
        let answer = self.begin(Operation::Mknod);
        let mode = (mode, umask);
        entry(
            answer.mknod(caller(request), parent.0, name, mode, device),
            reply,
        );
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
        let answer = self.begin(Operation::Mkdir);
        entry(
            answer.mkdir(caller(request), parent.0, name, (mode, umask)),
            reply,
        );
    }

    fn unlink(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let answer = self.begin(Operation::Unlink);
        empty(answer.unlink(parent.0, name), reply);
    }

    fn rmdir(&self, _request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let answer = self.begin(Operation::Rmdir);
        empty(answer.rmdir(parent.0, name), reply);
    }

    fn symlink(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let answer = self.begin(Operation::Symlink);
        entry(
            answer.symlink(caller(request), parent.0, name, target.as_os_str()),
            reply,
        );
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
        let answer = self.begin(Operation::Rename);
        let (from, to) = ((parent.0, name), (new_parent.0, new_name));
        empty(answer.rename(from, to, flags.bits()), reply);
    }

    fn link(
        &self,
        _request: &Request,
        node: INodeNo,
        new_parent: INodeNo,
        new_name: &OsStr,
        reply: ReplyEntry,
    ) {
        let answer = self.begin(Operation::Link);
        entry(answer.link(node.0, new_parent.0, new_name), reply);
    }

    fn open(&self, request: &Request, node: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let answer = self.begin(Operation::Open);
        let kills = request.uid() != 0;
        match answer.open(caller(request), node.0, flags.0, kills) {
            Ok(opened) => reply.opened(FileHandle(opened.handle), convert::opened_flags(&opened)),
            Err(error) => reply.error(errno(error)),
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
        let answer = self.begin(Operation::Create);
        match answer.create(caller(request), parent.0, name, (mode, umask), flags) {
            Ok((attributes, opened)) => reply.created(
                &VALID,
                &convert::attributes(&attributes),
                GENERATION,
                FileHandle(opened.handle),
                convert::opened_flags(&opened),
            ),
            Err(error) => reply.error(errno(error)),
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
        let answer = self.begin(Operation::Read);
        let mut reply = Some(reply);
        let read = with_buffer(size as usize, |buffer| {
            let result = answer.read(node.0, file.0, offset, buffer);
            match (result, reply.take()) {
                (Ok(length), Some(reply)) => reply.data(&buffer[..length]),
                (Err(error), Some(reply)) => reply.error(errno(error)),
                (_, None) => {}
            }
        });
        if let (Err(error), Some(reply)) = (read, reply) {
            reply.error(errno(answer.refused(error)));
        }
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
        let answer = self.begin(Operation::Write);
        let kills = write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
        match answer.write(caller(request), (node.0, file.0), offset, data, kills) {
            Ok(length) => reply.written(length),
            Err(error) => reply.error(errno(error)),
        }
    }

    fn flush(
        &self,
        _request: &Request,
        _node: INodeNo,
        _file: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        reply.error(errno(self.begin(Operation::Flush).flush()));
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
        let answer = self.begin(Operation::Release);
        answer.release(file.0);
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
        let answer = self.begin(Operation::Fsync);
        empty(answer.fsync(node.0, file.0, data_only), reply);
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
        let answer = self.begin(Operation::Fallocate);
        let file = (node.0, file.0);
        empty(
            answer.fallocate(caller(request), file, mode, offset, length),
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
        let answer = self.begin(Operation::Lseek);
        let whence = whence.cast_unsigned();
        let finish = move |answer: Answer<'_>, waited: Result<(), Errno>| {
            let waited = waited.map_err(|errno| answer.refused(errno));
            match waited.and_then(|()| answer.lseek(node.0, file.0, offset, whence)) {
                Ok(found) => reply.offset(found),
                Err(error) => reply.error(errno(error)),
            }
        };
        if !answer.has_to_wait(node.0) {
            return finish(answer, Ok(()));
        }
        let begun = answer.hand_over();
        let service = Arc::clone(&self.0);
        self.0
            .after_write_back(move |waited| finish(service.take_over(begun), waited));
    }

    fn opendir(&self, request: &Request, node: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let answer = self.begin(Operation::Opendir);
        match answer.opendir(request.pid(), node.0) {
            Ok(opened) => reply.opened(FileHandle(opened), FopenFlags::empty()),
            Err(error) => reply.error(errno(error)),
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
        let answer = self.begin(Operation::Readdir);
        let result = answer.readdir(node.0, directory.0, offset, &mut |entry| {
            let kind = convert::file_type(entry.kind);
            filled(reply.add(INodeNo(entry.node), entry.next_offset, kind, entry.name))
        });
        match result {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(errno(error)),
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
        let answer = self.begin(Operation::Readdirplus);
        // fuser has no entries without attributes.
        let lately = Duration::ZERO;
        let result = answer.readdirplus(node.0, directory.0, offset, lately, &mut |entry| {
            let node = INodeNo(entry.node);
            let mut attributes = entry
                .attributes
                .as_ref()
                .map_or_else(|| convert::absent(entry.kind), convert::attributes);
            if entry.name == "." || entry.name == ".." {
                // fuser takes the entry's number from here, and the kernel counts no lookup of these two.
                attributes.ino = node;
            }
            filled(reply.add(
                node,
                entry.next_offset,
                entry.name,
                &validity(entry),
                &attributes,
                GENERATION,
            ))
        });
        match result {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(errno(error)),
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
        let answer = self.begin(Operation::Releasedir);
        answer.releasedir(directory.0);
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
        let answer = self.begin(Operation::Fsyncdir);
        empty(answer.fsyncdir(node.0, directory.0), reply);
    }

    fn statfs(&self, _request: &Request, node: INodeNo, reply: ReplyStatfs) {
        let answer = self.begin(Operation::Statfs);
        match answer.statfs(node.0) {
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
            Err(error) => reply.error(errno(error)),
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
        let answer = self.begin(Operation::Setxattr);
        let flags = flags.cast_unsigned();
        empty(
            answer.setxattr(caller(request), node.0, (name, value), flags, false),
            reply,
        );
    }

    fn getxattr(
        &self,
        _request: &Request,
        node: INodeNo,
        name: &OsStr,
        size: u32,
        reply: ReplyXattr,
    ) {
        let answer = self.begin(Operation::Getxattr);
        xattr(answer.getxattr(node.0, name, size), reply);
    }

    fn listxattr(&self, _request: &Request, node: INodeNo, size: u32, reply: ReplyXattr) {
        let answer = self.begin(Operation::Listxattr);
        xattr(answer.listxattr(node.0, size), reply);
    }

    fn removexattr(&self, _request: &Request, node: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let answer = self.begin(Operation::Removexattr);
        empty(answer.removexattr(node.0, name), reply);
    }

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
        reply.error(errno(self.begin(Operation::Ioctl).ioctl()));
    }

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
        reply.error(errno(self.begin(Operation::Poll).poll()));
    }

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
        reply.error(errno(
            self.begin(Operation::CopyFileRange).copy_file_range(),
        ));
    }
}

fn filled(is_full: bool) -> Fill {
    if is_full { Fill::Full } else { Fill::Taken }
}

thread_local! {
    /// The worker's read buffer. It lives as long as the worker, so that a read allocates nothing.
    static BUFFER: RefCell<Option<Pages>> = const { RefCell::new(None) };
}

/// Lends the worker's buffer, page-aligned: the kernel copies it to page-aligned memory, and copying between different
/// offsets within a page is many times slower on some processors.
fn with_buffer(size: usize, use_buffer: impl FnOnce(&mut [u8])) -> Result<(), Errno> {
    // A worker answers one request at a time, so the buffer is never borrowed twice.
    BUFFER.with_borrow_mut(|buffer| {
        let pages = match buffer.take() {
            Some(pages) => pages,
            None => Pages::new(MAX_WRITE as usize).map_err(|_| Errno::NOMEM)?,
        };
        let size = size.min(pages.len());
        use_buffer(&mut buffer.insert(pages)[..size]);
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_read_buffer_is_page_aligned_and_reused() {
        let lent = |size| {
            let mut seen = (0, 0);
            with_buffer(size, |buffer| {
                seen = (buffer.as_ptr() as usize, buffer.len())
            })
            .unwrap();
            seen
        };
        let (first, second) = (lent(4096), lent(usize::MAX));
        assert_eq!(first.0 % 4096, 0);
        assert_eq!((first.0, first.1), (second.0, 4096));
        assert_eq!(second.1, MAX_WRITE as usize);
    }
}
