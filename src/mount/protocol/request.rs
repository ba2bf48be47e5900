//! What a request asks for: the operation's own structure and what follows it, checked, as plain values and borrowed bytes.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use crate::fs::{FileTime, HandleId, NodeId, SetTime};

use super::Malformed;
use super::header::Header;
use super::init::InitRequest;
use super::opcode::Opcode;
use super::wire::{self, fattr, take};

/// A time has fewer nanoseconds than this.
const NANOSECONDS: u32 = 1_000_000_000;

/// A request. The inode it is about is in its [`Header`]: the directory, where there is a name in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "the fields are the protocol's, told once at each kind"
)]
pub enum Request<'a> {
    /// Find a name.
    Lookup { name: &'a OsStr },
    /// So many lookups of the inode are given back.
    Forget { lookups: u64 },
    /// Lookups of many inodes are given back.
    BatchForget(Forgets<'a>),
    /// Attributes, of an open file where there is a handle.
    Getattr { handle: Option<HandleId> },
    /// Attributes with the time of birth; `mask` as statx(2) has it.
    Statx { handle: Option<HandleId>, mask: u32 },
    /// Change attributes.
    Setattr(SetattrRequest),
    /// Target of a symbolic link.
    Readlink,
    /// Make a symbolic link.
    Symlink { name: &'a OsStr, target: &'a OsStr },
    /// Make what the type bits of `mode` say; `device` as the kernel encodes it in 32 bits.
    Mknod {
        name: &'a OsStr,
        mode: u32,
        device: u32,
        umask: u32,
    },
    /// Make a directory.
    Mkdir {
        name: &'a OsStr,
        mode: u32,
        umask: u32,
    },
    /// Remove a name.
    Unlink { name: &'a OsStr },
    /// Remove a directory.
    Rmdir { name: &'a OsStr },
    /// Rename; `flags` as renameat2(2) has them.
    Rename {
        name: &'a OsStr,
        new_parent: NodeId,
        new_name: &'a OsStr,
        flags: u32,
    },
    /// Another name for `node`.
    Link { node: NodeId, name: &'a OsStr },
    /// Open a file; `flags` as open(2) has them. `kill_privileges`: suid and sgid have to go.
    Open { flags: i32, kill_privileges: bool },
    /// Open a directory.
    Opendir { flags: i32 },
    /// Make a file and open it.
    Create {
        name: &'a OsStr,
        flags: i32,
        mode: u32,
        umask: u32,
        kill_privileges: bool,
    },
    /// Make a file without a name and open it. What the kernel sends as its name is none.
    Tmpfile { flags: i32, mode: u32, umask: u32 },
    /// Read at most `size` bytes.
    Read {
        handle: HandleId,
        offset: u64,
        size: u32,
    },
    /// Write. `kill_privileges`: suid and sgid have to go.
    Write {
        handle: HandleId,
        offset: u64,
        data: &'a [u8],
        kill_privileges: bool,
    },
    /// List a directory, in at most `size` bytes.
    Readdir {
        handle: HandleId,
        offset: u64,
        size: u32,
    },
    /// List a directory with attributes, in at most `size` bytes.
    Readdirplus {
        handle: HandleId,
        offset: u64,
        size: u32,
    },
    /// An open file is no more.
    Release { handle: HandleId },
    /// An open directory is no more.
    Releasedir { handle: HandleId },
    /// A descriptor is closed.
    Flush,
    /// Make a file durable; its data suffice where `data_only`.
    Fsync { handle: HandleId, data_only: bool },
    /// Make a directory durable.
    Fsyncdir { handle: HandleId, data_only: bool },
    /// Figures of the filesystem.
    Statfs,
    /// Make the filesystem durable.
    Syncfs,
    /// Set an extended attribute; `flags` as setxattr(2) has them. `kill_sgid`: sgid has to go.
    Setxattr {
        name: &'a OsStr,
        value: &'a [u8],
        flags: u32,
        kill_sgid: bool,
    },
    /// Read an extended attribute; its length alone where `size` is 0.
    Getxattr { name: &'a OsStr, size: u32 },
    /// Names of the extended attributes; their length alone where `size` is 0.
    Listxattr { size: u32 },
    /// Remove an extended attribute.
    Removexattr { name: &'a OsStr },
    /// Reserve or free space; `mode` as fallocate(2) has it.
    Fallocate {
        handle: HandleId,
        offset: u64,
        length: u64,
        mode: i32,
    },
    /// Find data or a hole; `whence` as lseek(2) has it.
    Lseek {
        handle: HandleId,
        offset: u64,
        whence: u32,
    },
    /// Copy within the filesystem. Not taken apart.
    CopyFileRange,
    /// A device's own operation. Not taken apart.
    Ioctl,
    /// Whether a file is ready. Not taken apart.
    Poll,
    /// The caller of that request has been interrupted.
    Interrupt { unique: u64 },
    /// The last request.
    Destroy,
    /// The first request.
    Init(InitRequest),
    /// What a notification asked for. Not taken apart.
    NotifyReply,
    /// An operation that nothing here knows.
    Unknown,
}

/// Attributes to change; `None` leaves one as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SetattrRequest {
    /// Through an open file.
    pub handle: Option<HandleId>,
    /// Permission bits, perhaps with the type.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Size in bytes.
    pub size: Option<u64>,
    /// Access time.
    pub atime: Option<SetTime>,
    /// Modification time.
    pub mtime: Option<SetTime>,
    /// suid and sgid have to go.
    pub kill_privileges: bool,
}

/// Inodes, and how many lookups of each are given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forgets<'a> {
    bytes: &'a [u8],
}

impl Iterator for Forgets<'_> {
    type Item = (NodeId, u64);

    fn next(&mut self) -> Option<Self::Item> {
        let one: wire::ForgetOne = take(self.bytes).ok()?;
        self.bytes = self.bytes.get(size_of::<wire::ForgetOne>()..)?;
        Some((one.nodeid, one.nlookup))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let count = self.bytes.len() / size_of::<wire::ForgetOne>();
        (count, Some(count))
    }
}

impl ExactSizeIterator for Forgets<'_> {}

/// Bytes of the operation's own structure, `None` where everything is taken for it: INIT has grown over time, and what
/// nobody takes apart need not be split.
const fn own_structure(opcode: Opcode) -> Option<usize> {
    Some(match opcode {
        Opcode::LOOKUP
        | Opcode::READLINK
        | Opcode::SYMLINK
        | Opcode::UNLINK
        | Opcode::RMDIR
        | Opcode::STATFS
        | Opcode::REMOVEXATTR
        | Opcode::DESTROY => 0,
        Opcode::FORGET => size_of::<wire::ForgetIn>(),
        Opcode::BATCH_FORGET => size_of::<wire::BatchForgetIn>(),
        Opcode::GETATTR => size_of::<wire::GetattrIn>(),
        Opcode::STATX => size_of::<wire::StatxIn>(),
        Opcode::SETATTR => size_of::<wire::SetattrIn>(),
        Opcode::MKNOD => size_of::<wire::MknodIn>(),
        Opcode::MKDIR => size_of::<wire::MkdirIn>(),
        Opcode::RENAME => size_of::<wire::RenameIn>(),
        Opcode::RENAME2 => size_of::<wire::Rename2In>(),
        Opcode::LINK => size_of::<wire::LinkIn>(),
        Opcode::OPEN | Opcode::OPENDIR => size_of::<wire::OpenIn>(),
        Opcode::CREATE | Opcode::TMPFILE => size_of::<wire::CreateIn>(),
        Opcode::READ | Opcode::READDIR | Opcode::READDIRPLUS => size_of::<wire::ReadIn>(),
        Opcode::WRITE => size_of::<wire::WriteIn>(),
        Opcode::RELEASE | Opcode::RELEASEDIR => size_of::<wire::ReleaseIn>(),
        Opcode::FLUSH => size_of::<wire::FlushIn>(),
        Opcode::FSYNC | Opcode::FSYNCDIR => size_of::<wire::FsyncIn>(),
        Opcode::SYNCFS => size_of::<wire::SyncfsIn>(),
        Opcode::SETXATTR => size_of::<wire::SetxattrIn>(),
        Opcode::GETXATTR | Opcode::LISTXATTR => size_of::<wire::GetxattrIn>(),
        Opcode::FALLOCATE => size_of::<wire::FallocateIn>(),
        Opcode::LSEEK => size_of::<wire::LseekIn>(),
        Opcode::INTERRUPT => size_of::<wire::InterruptIn>(),
        _ => return None,
    })
}

/// Splits the body of a device message (what follows the header) into the operation's own structure and what follows it, as
/// a ring has them apart.
///
/// # Errors
/// [`Malformed::Short`] where the structure is not all there.
pub fn split(opcode: Opcode, body: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let own = own_structure(opcode).unwrap_or(body.len());
    body.split_at_checked(own).ok_or(Malformed::Short)
}

/// Whether the kernel writes what was dirty in its cache.
#[must_use]
pub fn is_write_back(header: &Header, arg0: &[u8]) -> bool {
    let own = (header.opcode == Opcode::WRITE).then(|| take::<wire::WriteIn>(arg0));
    matches!(own, Some(Ok(own)) if own.write_flags & wire::WRITE_CACHE != 0)
}

/// What is asked for. `arg0` begins with the operation's own structure and may go on after it, as the area of a ring does;
/// `rest` holds names and data, exactly. It is not looked at where [`Opcode::fills_buffer`].
///
/// # Errors
/// [`Malformed`]
pub fn decode<'a>(header: &Header, arg0: &[u8], rest: &'a [u8]) -> Result<Request<'a>, Malformed> {
    let mut rest = Arguments::new(header, rest)?;
    let request = match header.opcode {
        Opcode::LOOKUP => Request::Lookup { name: rest.name()? },
        Opcode::SYMLINK => Request::Symlink {
            name: rest.name()?,
            target: rest.name()?,
        },
        Opcode::UNLINK => Request::Unlink { name: rest.name()? },
        Opcode::RMDIR => Request::Rmdir { name: rest.name()? },
        Opcode::REMOVEXATTR => Request::Removexattr { name: rest.name()? },
        Opcode::READLINK => Request::Readlink,
        Opcode::STATFS => Request::Statfs,
        Opcode::DESTROY => Request::Destroy,
        Opcode::MKNOD => {
            let own: wire::MknodIn = take(arg0)?;
            Request::Mknod {
                name: rest.name()?,
                mode: own.mode,
                device: own.rdev,
                umask: own.umask,
            }
        }
        Opcode::MKDIR => {
            let own: wire::MkdirIn = take(arg0)?;
            Request::Mkdir {
                name: rest.name()?,
                mode: own.mode,
                umask: own.umask,
            }
        }
        Opcode::RENAME => {
            let own: wire::RenameIn = take(arg0)?;
            rename(own.newdir, 0, &mut rest)?
        }
        Opcode::RENAME2 => {
            let own: wire::Rename2In = take(arg0)?;
            rename(own.newdir, own.flags, &mut rest)?
        }
        Opcode::LINK => {
            let own: wire::LinkIn = take(arg0)?;
            Request::Link {
                node: own.oldnodeid,
                name: rest.name()?,
            }
        }
        Opcode::CREATE => {
            let own: wire::CreateIn = take(arg0)?;
            Request::Create {
                name: rest.name()?,
                flags: own.flags.cast_signed(),
                mode: own.mode,
                umask: own.umask,
                kill_privileges: own.open_flags & wire::OPEN_KILL_SUIDGID != 0,
            }
        }
        Opcode::SETXATTR => {
            let own: wire::SetxattrIn = take(arg0)?;
            Request::Setxattr {
                name: rest.name()?,
                value: rest.data(own.size)?,
                flags: own.flags,
                kill_sgid: own.setxattr_flags & wire::SETXATTR_ACL_KILL_SGID != 0,
            }
        }
        Opcode::GETXATTR => {
            let own: wire::GetxattrIn = take(arg0)?;
            Request::Getxattr {
                name: rest.name()?,
                size: own.size,
            }
        }
        Opcode::WRITE => {
            let own: wire::WriteIn = take(arg0)?;
            Request::Write {
                handle: own.fh,
                offset: own.offset,
                data: rest.data(own.size)?,
                kill_privileges: own.write_flags & wire::WRITE_KILL_SUIDGID != 0,
            }
        }
        Opcode::BATCH_FORGET => {
            let own: wire::BatchForgetIn = take(arg0)?;
            let length = u64::from(own.count) * size_of::<wire::ForgetOne>() as u64;
            Request::BatchForget(Forgets {
                bytes: rest.exactly(length)?,
            })
        }
        opcode if opcode.fills_buffer() => {
            rest.leave();
            without_arguments(opcode, arg0)?
        }
        // "/" in the kernels of today, and no name that anybody may use.
        Opcode::TMPFILE => {
            rest.leave();
            without_arguments(Opcode::TMPFILE, arg0)?
        }
        opcode => {
            if own_structure(opcode).is_none() {
                rest.leave();
            }
            without_arguments(opcode, arg0)?
        }
    };
    rest.end()?;
    Ok(request)
}

/// Operations with nothing but their own structure.
fn without_arguments(opcode: Opcode, arg0: &[u8]) -> Result<Request<'static>, Malformed> {
    let handle = |flags, handle| (flags & wire::GETATTR_FH != 0).then_some(handle);
    Ok(match opcode {
        Opcode::FORGET => {
            let own: wire::ForgetIn = take(arg0)?;
            Request::Forget {
                lookups: own.nlookup,
            }
        }
        Opcode::GETATTR => {
            let own: wire::GetattrIn = take(arg0)?;
            Request::Getattr {
                handle: handle(own.getattr_flags, own.fh),
            }
        }
        Opcode::STATX => {
            let own: wire::StatxIn = take(arg0)?;
            Request::Statx {
                handle: handle(own.getattr_flags, own.fh),
                mask: own.sx_mask,
            }
        }
        Opcode::SETATTR => Request::Setattr(setattr(&take(arg0)?)?),
        Opcode::OPEN => {
            let own: wire::OpenIn = take(arg0)?;
            Request::Open {
                flags: own.flags.cast_signed(),
                kill_privileges: own.open_flags & wire::OPEN_KILL_SUIDGID != 0,
            }
        }
        Opcode::OPENDIR => {
            let own: wire::OpenIn = take(arg0)?;
            Request::Opendir {
                flags: own.flags.cast_signed(),
            }
        }
        Opcode::TMPFILE => {
            let own: wire::CreateIn = take(arg0)?;
            Request::Tmpfile {
                flags: own.flags.cast_signed(),
                mode: own.mode,
                umask: own.umask,
            }
        }
        Opcode::READ | Opcode::READDIR | Opcode::READDIRPLUS => {
            let wire::ReadIn {
                fh: handle,
                offset,
                size,
                ..
            } = take(arg0)?;
            match opcode {
                Opcode::READ => Request::Read {
                    handle,
                    offset,
                    size,
                },
                Opcode::READDIR => Request::Readdir {
                    handle,
                    offset,
                    size,
                },
                _ => Request::Readdirplus {
                    handle,
                    offset,
                    size,
                },
            }
        }
        Opcode::RELEASE | Opcode::RELEASEDIR => {
            let wire::ReleaseIn { fh: handle, .. } = take(arg0)?;
            match opcode {
                Opcode::RELEASE => Request::Release { handle },
                _ => Request::Releasedir { handle },
            }
        }
        Opcode::FLUSH => take::<wire::FlushIn>(arg0).map(|_| Request::Flush)?,
        Opcode::FSYNC | Opcode::FSYNCDIR => {
            let own: wire::FsyncIn = take(arg0)?;
            let data_only = own.fsync_flags & wire::FSYNC_FDATASYNC != 0;
            let handle = own.fh;
            match opcode {
                Opcode::FSYNC => Request::Fsync { handle, data_only },
                _ => Request::Fsyncdir { handle, data_only },
            }
        }
        Opcode::SYNCFS => take::<wire::SyncfsIn>(arg0).map(|_| Request::Syncfs)?,
        Opcode::LISTXATTR => {
            let own: wire::GetxattrIn = take(arg0)?;
            Request::Listxattr { size: own.size }
        }
        Opcode::FALLOCATE => {
            let own: wire::FallocateIn = take(arg0)?;
            Request::Fallocate {
                handle: own.fh,
                offset: own.offset,
                length: own.length,
                mode: own.mode.cast_signed(),
            }
        }
        Opcode::LSEEK => {
            let own: wire::LseekIn = take(arg0)?;
            Request::Lseek {
                handle: own.fh,
                offset: own.offset,
                whence: own.whence,
            }
        }
        Opcode::INTERRUPT => {
            let own: wire::InterruptIn = take(arg0)?;
            Request::Interrupt { unique: own.unique }
        }
        Opcode::INIT => Request::Init(InitRequest::decode(arg0)?),
        Opcode::COPY_FILE_RANGE | Opcode::COPY_FILE_RANGE_64 => Request::CopyFileRange,
        Opcode::IOCTL => Request::Ioctl,
        Opcode::POLL => Request::Poll,
        Opcode::NOTIFY_REPLY => Request::NotifyReply,
        _ => Request::Unknown,
    })
}

fn rename<'a>(
    new_parent: NodeId,
    flags: u32,
    rest: &mut Arguments<'a>,
) -> Result<Request<'a>, Malformed> {
    Ok(Request::Rename {
        name: rest.name()?,
        new_parent,
        new_name: rest.name()?,
        flags,
    })
}

fn setattr(own: &wire::SetattrIn) -> Result<SetattrRequest, Malformed> {
    let has = |bit| own.valid & bit != 0;
    let time = |set, now, seconds, nanoseconds| match (has(set), has(now)) {
        (false, _) => Ok(None),
        (true, true) => Ok(Some(SetTime::Now)),
        (true, false) if nanoseconds < NANOSECONDS => Ok(Some(SetTime::At(FileTime {
            seconds,
            nanoseconds,
        }))),
        (true, false) => Err(Malformed::Time),
    };
    Ok(SetattrRequest {
        handle: has(fattr::FH).then_some(own.fh),
        mode: has(fattr::MODE).then_some(own.mode),
        uid: has(fattr::UID).then_some(own.uid),
        gid: has(fattr::GID).then_some(own.gid),
        size: has(fattr::SIZE).then_some(own.size),
        atime: time(fattr::ATIME, fattr::ATIME_NOW, own.atime, own.atimensec)?,
        mtime: time(fattr::MTIME, fattr::MTIME_NOW, own.mtime, own.mtimensec)?,
        kill_privileges: has(fattr::KILL_SUIDGID),
    })
}

/// What follows the operation's own structure, from its beginning to its end.
struct Arguments<'a>(&'a [u8]);

impl<'a> Arguments<'a> {
    /// Extensions are the last argument; nothing here wants them.
    fn new(header: &Header, rest: &'a [u8]) -> Result<Self, Malformed> {
        let length = rest.len().checked_sub(header.extensions as usize);
        let arguments = length.and_then(|length| rest.get(..length));
        arguments.map(Self).ok_or(Malformed::Short)
    }

    /// The next name, without the NUL that ends it.
    fn name(&mut self) -> Result<&'a OsStr, Malformed> {
        let end = self.0.iter().position(|byte| *byte == 0);
        let (name, rest) = end
            .and_then(|end| self.0.split_at_checked(end))
            .ok_or(Malformed::Name)?;
        if name.is_empty() {
            return Err(Malformed::Name);
        }
        self.0 = rest.get(1..).unwrap_or_default();
        Ok(OsStr::from_bytes(name))
    }

    /// All that is left, which has to be of that length.
    fn exactly(&mut self, length: u64) -> Result<&'a [u8], Malformed> {
        if self.0.len() as u64 != length {
            return Err(Malformed::Data);
        }
        Ok(std::mem::take(&mut self.0))
    }

    /// The data of a request, its last argument.
    fn data(&mut self, length: u32) -> Result<&'a [u8], Malformed> {
        self.exactly(length.into())
    }

    /// Whatever is left is not looked at.
    fn leave(&mut self) {
        self.0 = &[];
    }

    fn end(self) -> Result<(), Malformed> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(Malformed::Trailing)
        }
    }
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
