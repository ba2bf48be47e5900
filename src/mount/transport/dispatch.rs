//! From a decoded request to the service's method, and its answer into the kernel's structures: what the device and the
//! rings have in common.

use rustix::io::Errno;

use crate::fs::{Attributes, Fill, HandleId, NodeId, Opened, SetAttributes};
use crate::mount::protocol::reply;
use crate::mount::protocol::{
    Header, Immutable, IntoBytes, Listing, Request, SetattrRequest, decode, is_write_back,
};
use crate::mount::session::convert::permissions;
use crate::mount::session::{Answer, LATELY, Service, VALID, Xattr, validity};
use crate::mount::stats::Operation;
use crate::mount::transport::company::Origin;

/// Longest answer of fixed length, in bytes: that to STATX.
const FIXED_MAX: usize = 288;

/// What to say to the kernel.
#[expect(
    clippy::large_enum_variant,
    reason = "it lives for a moment on a worker's stack; a box would be an allocation for each request"
)]
#[derive(Debug)]
pub(super) enum Reply {
    /// An errno.
    Error(Errno),
    /// A structure of fixed length.
    Fixed(Fixed),
    /// Bytes of any length.
    Bytes(Vec<u8>),
    /// So many bytes of the buffer that was to be filled.
    Filled(usize),
}

/// A structure of the protocol, as bytes.
#[derive(Debug)]
pub(super) struct Fixed {
    bytes: [u8; FIXED_MAX],
    length: usize,
}

impl Fixed {
    fn reply(structure: &(impl IntoBytes + Immutable)) -> Reply {
        let source = structure.as_bytes();
        let mut bytes = [0; FIXED_MAX];
        match bytes.get_mut(..source.len()) {
            Some(place) => {
                place.copy_from_slice(source);
                let length = source.len();
                Reply::Fixed(Self { bytes, length })
            }
            // None is longer.
            None => Reply::Error(Errno::IO),
        }
    }
}

impl std::ops::Deref for Fixed {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// What became of a request.
#[expect(
    clippy::large_enum_variant,
    reason = "it lives for a moment on a worker's stack; a box would be an allocation for each request"
)]
pub(super) enum Outcome<'a> {
    /// To be said, and what is then dropped.
    Said(Reply, Option<Answer<'a>>),
    /// A seek that has to wait for dirty pages.
    Waiting(Answer<'a>, SeekRequest),
    /// Nothing is to be said.
    Nothing,
}

/// LSEEK, to be asked after the wait.
#[derive(Debug, Clone, Copy)]
pub(super) struct SeekRequest {
    node: NodeId,
    handle: HandleId,
    offset: i64,
    whence: u32,
}

impl SeekRequest {
    /// Asks, where the wait came to its end.
    pub(super) fn answer(self, answer: &Answer<'_>, waited: Result<(), Errno>) -> Reply {
        let Self {
            node,
            handle,
            offset,
            whence,
        } = self;
        let waited = waited.map_err(|errno| answer.refused(errno));
        match waited.and_then(|()| answer.lseek(node, handle, offset, whence)) {
            Ok(found) => Fixed::reply(&reply::offset(found.unsigned_abs())),
            Err(error) => Reply::Error(error),
        }
    }
}

/// Answers a request whose answer is written into a buffer (`Opcode::fills_buffer`).
pub(super) fn fill<'a>(
    service: &'a Service,
    header: &Header,
    arg0: &[u8],
    buffer: &mut [u8],
) -> Outcome<'a> {
    heard(header);
    let node = header.node;
    let (answer, result) = match decode(header, arg0, &[]) {
        Ok(Request::Read {
            handle,
            offset,
            size,
        }) => {
            let answer = service.begin(Operation::Read);
            let result = answer.read(node, handle, offset, room(buffer, size));
            (answer, result)
        }
        Ok(Request::Readdir {
            handle,
            offset,
            size,
        }) => {
            let answer = service.begin(Operation::Readdir);
            let mut listing = Listing::new(room(buffer, size));
            let result = answer.readdir(node, handle, offset, &mut |entry| {
                taken(listing.entry(entry.node, entry.next_offset, entry.kind, entry.name))
            });
            (answer, result.map(|()| listing.len()))
        }
        Ok(Request::Readdirplus {
            handle,
            offset,
            size,
        }) => {
            let answer = service.begin(Operation::Readdirplus);
            let mut listing = Listing::new(room(buffer, size));
            let result = answer.readdirplus(node, handle, offset, LATELY, &mut |entry| {
                // Of entries without attributes the kernel counts no lookup, and goes on with what it knows of them.
                let plus = reply::entry(entry.attributes.as_ref(), validity(entry));
                let (node, next) = (entry.node, entry.next_offset);
                taken(listing.entry_plus(&plus, node, next, entry.kind, entry.name))
            });
            (answer, result.map(|()| listing.len()))
        }
        Ok(_) | Err(_) => return malformed(header),
    };
    let reply = match result {
        Ok(length) => Reply::Filled(length),
        Err(error) => Reply::Error(error),
    };
    Outcome::Said(reply, Some(answer))
}

/// For whoever wants to see what a kernel asks: `CMKFS_LOG=cmkfs::mount::transport=trace`.
fn heard(header: &Header) {
    let (operation, node) = (header.opcode.name(), header.node);
    log::trace!("{operation} of inode {node}, number {}", header.unique);
}

fn room(buffer: &mut [u8], size: u32) -> &mut [u8] {
    let room = buffer.len().min(size as usize);
    &mut buffer[..room]
}

fn taken(is_taken: bool) -> Fill {
    if is_taken { Fill::Taken } else { Fill::Full }
}

fn malformed<'a>(header: &Header) -> Outcome<'a> {
    log::error!("the kernel sent a request that cannot be read: {header:?}");
    Outcome::Said(Reply::Error(Errno::IO), None)
}

fn entry(result: Result<Attributes, Errno>) -> Reply {
    match result {
        Ok(attributes) => Fixed::reply(&reply::entry(Some(&attributes), VALID)),
        Err(error) => Reply::Error(error),
    }
}

fn empty(result: Result<(), Errno>) -> Reply {
    match result {
        Ok(()) => Reply::Filled(0),
        Err(error) => Reply::Error(error),
    }
}

fn xattr(result: Result<Xattr, Errno>) -> Reply {
    match result {
        Ok(Xattr::Size(length)) => Fixed::reply(&reply::xattr_size(length)),
        Ok(Xattr::Value(value)) => Reply::Bytes(value),
        Err(error) => Reply::Error(error),
    }
}

/// Answers every other request.
#[expect(
    clippy::too_many_lines,
    reason = "one match over what a kernel can ask, an arm each"
)]
pub(super) fn answer<'a>(
    service: &'a Service,
    header: &Header,
    arg0: &[u8],
    rest: &[u8],
) -> Outcome<'a> {
    heard(header);
    let (node, caller) = (header.node, header.caller);
    let Ok(request) = decode(header, arg0, rest) else {
        if header.opcode.needs_reply() {
            return malformed(header);
        }
        return Outcome::Nothing;
    };
    let begin = |operation| service.begin(operation);
    let said = |reply, answer| Outcome::Said(reply, Some(answer));
    match request {
        Request::Lookup { name } => {
            let answer = begin(Operation::Lookup);
            let reply = match answer.lookup(node, name) {
                Ok(found) => Fixed::reply(&reply::entry(found.as_ref(), VALID)),
                Err(error) => Reply::Error(error),
            };
            said(reply, answer)
        }
        Request::Forget { lookups } => {
            service.forget(node, lookups);
            Outcome::Nothing
        }
        Request::BatchForget(forgets) => {
            for (node, lookups) in forgets {
                service.forget(node, lookups);
            }
            Outcome::Nothing
        }
        Request::Getattr { handle } => {
            let answer = begin(Operation::Getattr);
            let reply = match answer.getattr(node, handle) {
                Ok(attributes) => Fixed::reply(&reply::attr(&attributes, VALID)),
                Err(error) => Reply::Error(error),
            };
            said(reply, answer)
        }
        Request::Statx { handle, .. } => {
            let answer = begin(Operation::Getattr);
            let reply = match answer.statx(node, handle) {
                Ok((attributes, birth)) => Fixed::reply(&reply::statx(&attributes, birth, VALID)),
                Err(error) => Reply::Error(error),
            };
            said(reply, answer)
        }
        Request::Setattr(set) => {
            let answer = begin(Operation::Setattr);
            let (changes, kills) = (changes_of(&set), set.kill_privileges);
            let reply = match answer.setattr(caller, node, set.handle, &changes, kills) {
                Ok(attributes) => Fixed::reply(&reply::attr(&attributes, VALID)),
                Err(error) => Reply::Error(error),
            };
            said(reply, answer)
        }
        Request::Readlink => {
            let answer = begin(Operation::Readlink);
            let reply = match answer.readlink(node) {
                Ok(target) => Reply::Bytes(target),
                Err(error) => Reply::Error(error),
            };
            said(reply, answer)
        }
        Request::Symlink { name, target } => {
            let answer = begin(Operation::Symlink);
            said(entry(answer.symlink(caller, node, name, target)), answer)
        }
        Request::Mknod {
            name,
            mode,
            device,
            umask,
        } => {
            let answer = begin(Operation::Mknod);
            let made = answer.mknod(caller, node, name, (mode, umask), device);
            said(entry(made), answer)
        }
        Request::Mkdir { name, mode, umask } => {
            let answer = begin(Operation::Mkdir);
            let made = answer.mkdir(caller, node, name, (mode, umask));
            said(entry(made), answer)
        }
        Request::Unlink { name } => {
            let answer = begin(Operation::Unlink);
            said(empty(answer.unlink(node, name)), answer)
        }
        Request::Rmdir { name } => {
            let answer = begin(Operation::Rmdir);
            said(empty(answer.rmdir(node, name)), answer)
        }
        Request::Rename {
            name,
            new_parent,
            new_name,
            flags,
        } => {
            let answer = begin(Operation::Rename);
            let renamed = answer.rename((node, name), (new_parent, new_name), flags);
            said(empty(renamed), answer)
        }
        Request::Link { node: of, name } => {
            let answer = begin(Operation::Link);
            said(entry(answer.link(of, node, name)), answer)
        }
        Request::Open {
            flags,
            kill_privileges,
        } => {
            let answer = begin(Operation::Open);
            let reply = match answer.open(caller, node, flags, kill_privileges) {
                Ok(opened) => Fixed::reply(&reply::open(opened.handle, opened.keep_cache)),
                Err(error) => Reply::Error(error),
            };
            said(reply, answer)
        }
        Request::Create {
            name,
            flags,
            mode,
            umask,
            ..
        } => {
            let answer = begin(Operation::Create);
            let made = answer.create(caller, node, name, (mode, umask), flags);
            said(created(made), answer)
        }
        Request::Tmpfile { flags, mode, umask } => {
            let answer = begin(Operation::Tmpfile);
            let made = answer.tmpfile(caller, node, (mode, umask), flags);
            said(created(made), answer)
        }
        Request::Write {
            handle,
            offset,
            data,
            kill_privileges,
        } => {
            let answer = begin(Operation::Write);
            let reply = match answer.write(caller, (node, handle), offset, data, kill_privileges) {
                Ok(length) => Fixed::reply(&reply::written(length)),
                Err(error) => Reply::Error(error),
            };
            said(reply, answer)
        }
        Request::Release { handle } => {
            let answer = begin(Operation::Release);
            answer.release(handle);
            said(empty(Ok(())), answer)
        }
        Request::Flush => {
            let answer = begin(Operation::Flush);
            said(Reply::Error(answer.flush()), answer)
        }
        Request::Fsync { handle, data_only } => {
            let answer = begin(Operation::Fsync);
            said(empty(answer.fsync(node, handle, data_only)), answer)
        }
        Request::Syncfs => {
            let answer = begin(Operation::Fsync);
            said(empty(answer.syncfs(node)), answer)
        }
        Request::Fallocate {
            handle,
            offset,
            length,
            mode,
        } => {
            let answer = begin(Operation::Fallocate);
            let done = answer.fallocate(caller, (node, handle), mode, offset, length);
            said(empty(done), answer)
        }
        Request::Lseek {
            handle,
            offset,
            whence,
        } => {
            let answer = begin(Operation::Lseek);
            let seek = SeekRequest {
                node,
                handle,
                offset: offset.cast_signed(),
                whence,
            };
            if answer.has_to_wait(node) {
                Outcome::Waiting(answer, seek)
            } else {
                said(seek.answer(&answer, Ok(())), answer)
            }
        }
        Request::Opendir { .. } => {
            let answer = begin(Operation::Opendir);
            let reply = match answer.opendir(caller.pid, node) {
                Ok(opened) => Fixed::reply(&reply::open(opened, false)),
                Err(error) => Reply::Error(error),
            };
            said(reply, answer)
        }
        Request::Releasedir { handle } => {
            let answer = begin(Operation::Releasedir);
            answer.releasedir(handle);
            said(empty(Ok(())), answer)
        }
        Request::Fsyncdir { handle, .. } => {
            let answer = begin(Operation::Fsyncdir);
            said(empty(answer.fsyncdir(node, handle)), answer)
        }
        Request::Statfs => {
            let answer = begin(Operation::Statfs);
            let reply = match answer.statfs(node) {
                Ok(figures) => Fixed::reply(&reply::statfs(&figures)),
                Err(error) => Reply::Error(error),
            };
            said(reply, answer)
        }
        Request::Setxattr {
            name,
            value,
            flags,
            kill_sgid,
        } => {
            let answer = begin(Operation::Setxattr);
            let set = answer.setxattr(caller, node, (name, value), flags, kill_sgid);
            said(empty(set), answer)
        }
        Request::Getxattr { name, size } => {
            let answer = begin(Operation::Getxattr);
            said(xattr(answer.getxattr(node, name, size)), answer)
        }
        Request::Listxattr { size } => {
            let answer = begin(Operation::Listxattr);
            said(xattr(answer.listxattr(node, size)), answer)
        }
        Request::Removexattr { name } => {
            let answer = begin(Operation::Removexattr);
            said(empty(answer.removexattr(node, name)), answer)
        }
        Request::Ioctl => {
            let answer = begin(Operation::Ioctl);
            said(Reply::Error(answer.ioctl()), answer)
        }
        Request::Poll => {
            let answer = begin(Operation::Poll);
            said(Reply::Error(answer.poll()), answer)
        }
        Request::CopyFileRange => {
            let answer = begin(Operation::CopyFileRange);
            said(Reply::Error(answer.copy_file_range()), answer)
        }
        // What was begun is finished: nothing here takes so long that it would have to be broken off.
        Request::Interrupt { .. } | Request::NotifyReply => Outcome::Nothing,
        Request::Destroy => Outcome::Said(Reply::Filled(0), None),
        Request::Read { .. }
        | Request::Readdir { .. }
        | Request::Readdirplus { .. }
        | Request::Init(_)
        | Request::Unknown => Outcome::Said(Reply::Error(Errno::NOSYS), None),
    }
}

fn changes_of(set: &SetattrRequest) -> SetAttributes {
    SetAttributes {
        permissions: set.mode.map(permissions),
        uid: set.uid,
        gid: set.gid,
        size: set.size,
        atime: set.atime,
        mtime: set.mtime,
    }
}

fn created(made: Result<(Attributes, Opened), Errno>) -> Reply {
    match made {
        Ok((attributes, opened)) => Fixed::reply(&reply::created(
            reply::entry(Some(&attributes), VALID),
            reply::open(opened.handle, opened.keep_cache),
        )),
        Err(error) => Reply::Error(error),
    }
}

/// How much content a request has, either way, in bytes.
pub(super) fn content_length(header: &Header, arg0: &[u8], rest: &[u8]) -> usize {
    if !header.opcode.fills_buffer() {
        return rest.len();
    }
    match decode(header, arg0, &[]) {
        Ok(
            Request::Read { size, .. }
            | Request::Readdir { size, .. }
            | Request::Readdirplus { size, .. },
        ) => size as usize,
        Ok(_) | Err(_) => 0,
    }
}

/// Who causes a request.
pub(super) fn origin(header: &Header, arg0: &[u8]) -> Origin {
    if is_write_back(header, arg0) {
        Origin::WriteBack
    } else {
        Origin::Program
    }
}
