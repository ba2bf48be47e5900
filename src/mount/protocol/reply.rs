//! What is answered, as the kernel's structures. [`super::IntoBytes::as_bytes`] gives their bytes.

use std::time::Duration;

use rustix::io::Errno;

use crate::fs::{Attributes, FileKind, FileTime, FilesystemStatistics, HandleId};

use super::wire::{self, Attr, SxTime};
pub use super::wire::{
    AttrOut, CreateOut, EntryOut, GetxattrOut, LseekOut, OpenOut, OutHeader, StatfsOut, StatxOut,
    WriteOut,
};

/// The generation of every inode: a node id is never used again, so there is one alone.
pub const GENERATION: u64 = 0;

/// What stat(2) shows as the block size.
const PREFERRED_BLOCK: u32 = 4096;

/// From here on errors are the kernel's own (ERESTARTSYS); it refuses a reply with them, and its caller waits on.
const FIRST_INTERNAL_ERROR: i32 = 512;

/// What comes first in every reply: `body_length` bytes follow on the device, and are in the payload on a ring. With an
/// errno there is nothing but the header.
#[must_use]
pub fn out_header(unique: u64, errno: Option<Errno>, body_length: usize) -> [u8; 16] {
    let error = errno.map_or(0, |errno| {
        let number = errno.raw_os_error();
        if number < FIRST_INTERNAL_ERROR {
            -number
        } else {
            -Errno::IO.raw_os_error()
        }
    });
    let body = if error == 0 { body_length } else { 0 };
    let header = OutHeader {
        len: u32::try_from(size_of::<OutHeader>() + body).unwrap_or(u32::MAX),
        error,
        unique,
    };
    zerocopy::transmute!(header)
}

/// An inode that was looked up or made, its name and attributes good for `valid`. `None`: there is no such name, and that
/// may be remembered for `valid`; in a listing, the name alone is to be taken.
#[must_use]
pub fn entry(attributes: Option<&Attributes>, valid: Duration) -> EntryOut {
    EntryOut {
        nodeid: attributes.map_or(0, |attributes| attributes.node),
        generation: GENERATION,
        entry_valid: valid.as_secs(),
        attr_valid: valid.as_secs(),
        entry_valid_nsec: valid.subsec_nanos(),
        attr_valid_nsec: valid.subsec_nanos(),
        attr: attributes.map_or(NO_ATTRIBUTES, attr_of),
    }
}

/// Attributes, good for `valid`.
#[must_use]
pub fn attr(attributes: &Attributes, valid: Duration) -> AttrOut {
    AttrOut {
        attr_valid: valid.as_secs(),
        attr_valid_nsec: valid.subsec_nanos(),
        dummy: 0,
        attr: attr_of(attributes),
    }
}

/// Attributes with the time of birth, where it is known, good for `valid`.
#[must_use]
pub fn statx(attributes: &Attributes, birth: Option<FileTime>, valid: Duration) -> StatxOut {
    let mut mask = libc::STATX_BASIC_STATS;
    if birth.is_some() {
        mask |= libc::STATX_BTIME;
    }
    let (rdev_major, rdev_minor) = device_numbers(attributes.device);
    StatxOut {
        attr_valid: valid.as_secs(),
        attr_valid_nsec: valid.subsec_nanos(),
        flags: 0,
        spare: [0; 2],
        stat: wire::Statx {
            mask,
            blksize: PREFERRED_BLOCK,
            attributes: 0,
            nlink: attributes.links,
            uid: attributes.uid,
            gid: attributes.gid,
            // Type and permissions are the lower 16 bits of a mode.
            mode: (mode(attributes) & 0xffff) as u16,
            spare0: 0,
            ino: attributes.node,
            size: attributes.size,
            blocks: attributes.blocks,
            attributes_mask: 0,
            atime: statx_time(attributes.atime),
            btime: birth.map_or(NO_TIME, statx_time),
            ctime: statx_time(attributes.ctime),
            mtime: statx_time(attributes.mtime),
            rdev_major,
            rdev_minor,
            dev_major: 0,
            dev_minor: 0,
            spare2: [0; 14],
        },
    }
}

/// An opened file or directory. `keep_cache`: what the kernel has cached of it is still true.
#[must_use]
pub const fn open(handle: HandleId, keep_cache: bool) -> OpenOut {
    OpenOut {
        fh: handle,
        open_flags: if keep_cache {
            wire::FOPEN_KEEP_CACHE
        } else {
            0
        },
        backing_id: 0,
    }
}

/// A file that was made and opened.
#[must_use]
pub const fn created(entry: EntryOut, open: OpenOut) -> CreateOut {
    CreateOut { entry, open }
}

/// Bytes that were written.
#[must_use]
pub const fn written(size: u32) -> WriteOut {
    WriteOut { size, padding: 0 }
}

/// Figures of the filesystem.
#[must_use]
pub const fn statfs(statistics: &FilesystemStatistics) -> StatfsOut {
    StatfsOut {
        blocks: statistics.blocks,
        bfree: statistics.blocks_free,
        bavail: statistics.blocks_available,
        files: statistics.files,
        ffree: statistics.files_free,
        bsize: statistics.block_size,
        namelen: statistics.name_max,
        frsize: statistics.fragment_size,
        padding: 0,
        spare: [0; 6],
    }
}

/// Bytes that a value, or a list of names, takes; the answer to a request for 0 of them.
#[must_use]
pub const fn xattr_size(size: u32) -> GetxattrOut {
    GetxattrOut { size, padding: 0 }
}

/// Where data or a hole begins.
#[must_use]
pub const fn offset(offset: u64) -> LseekOut {
    LseekOut { offset }
}

/// The type bits of a mode.
pub(super) const fn type_bits(kind: FileKind) -> u32 {
    match kind {
        FileKind::File => libc::S_IFREG,
        FileKind::Directory => libc::S_IFDIR,
        FileKind::Symlink => libc::S_IFLNK,
        FileKind::Fifo => libc::S_IFIFO,
        FileKind::Socket => libc::S_IFSOCK,
        FileKind::CharDevice => libc::S_IFCHR,
        FileKind::BlockDevice => libc::S_IFBLK,
    }
}

fn mode(attributes: &Attributes) -> u32 {
    type_bits(attributes.kind) | u32::from(attributes.permissions)
}

fn attr_of(attributes: &Attributes) -> Attr {
    Attr {
        ino: attributes.node,
        size: attributes.size,
        blocks: attributes.blocks,
        atime: attributes.atime.seconds,
        mtime: attributes.mtime.seconds,
        ctime: attributes.ctime.seconds,
        atimensec: attributes.atime.nanoseconds,
        mtimensec: attributes.mtime.nanoseconds,
        ctimensec: attributes.ctime.nanoseconds,
        mode: mode(attributes),
        nlink: attributes.links,
        uid: attributes.uid,
        gid: attributes.gid,
        rdev: attributes.device,
        blksize: PREFERRED_BLOCK,
        flags: 0,
    }
}

const NO_ATTRIBUTES: Attr = Attr {
    ino: 0,
    size: 0,
    blocks: 0,
    atime: 0,
    mtime: 0,
    ctime: 0,
    atimensec: 0,
    mtimensec: 0,
    ctimensec: 0,
    mode: 0,
    nlink: 0,
    uid: 0,
    gid: 0,
    rdev: 0,
    blksize: 0,
    flags: 0,
};

const NO_TIME: SxTime = SxTime {
    tv_sec: 0,
    tv_nsec: 0,
    reserved: 0,
};

const fn statx_time(time: FileTime) -> SxTime {
    SxTime {
        tv_sec: time.seconds,
        tv_nsec: time.nanoseconds,
        reserved: 0,
    }
}

/// Major and minor of the 32 bits in which the kernel passes a device (`new_encode_dev`).
const fn device_numbers(device: u32) -> (u32, u32) {
    let major = (device & 0x000f_ff00) >> 8;
    let minor = (device & 0xff) | ((device >> 12) & 0x000f_ff00);
    (major, minor)
}

#[cfg(test)]
#[path = "reply_tests.rs"]
mod tests;
