//! Who looks on at the backing calls: tests that count them, that inject ENOSPC, EIO and their like at the n-th one, and
//! that keep the history of a disk, to play it back as a power cut could have left it.

use std::ffi::CStr;
use std::os::fd::BorrowedFd;

use rustix::fs::{FallocateFlags, RenameFlags};
use rustix::io::Errno;

use super::At;

/// What a backing call does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Call {
    /// openat.
    Open,
    /// fstat, fstatat, statx, statvfs.
    Stat,
    /// mkdirat, mknodat, symlinkat, linkat.
    Make,
    /// unlinkat.
    Remove,
    /// renameat2.
    Rename,
    /// readlinkat.
    ReadLink,
    /// pread, preadv.
    Read,
    /// pwrite, pwritev.
    Write,
    /// getdents, of a listing that is asked for. Not seen where a directory is looked through for cmkfs's own sake: whether it
    /// is empty, what can be cleared away, on a walk through the volume.
    List,
    /// ftruncate, fallocate.
    Resize,
    /// lseek, of a file or a listing.
    Seek,
    /// fsync, fdatasync, syncfs.
    Sync,
    /// chmod, chown, utimens.
    Change,
    /// getxattr, listxattr.
    ReadXattr,
    /// setxattr, removexattr.
    WriteXattr,
}

/// Sees every backing call before it is made.
pub trait Observer: Send + Sync {
    /// Called before the call.
    ///
    /// # Errors
    /// The errno with which the call fails instead of being made.
    fn before(&self, call: Call) -> Result<(), Errno>;

    /// How many bytes of a write that is let through are taken, at least one: a disk that fills up takes a part.
    fn room(&self) -> usize {
        usize::MAX
    }

    /// Called after a call that has changed something, before the next one of this thread.
    fn done(&self, _effect: Effect<'_>) {}
}

/// What a backing call has changed: with what can be seen of the objects it names, all it takes to do that again.
#[derive(Debug, Clone, Copy)]
pub enum Effect<'a> {
    /// Something new lies here. A file may have been there already, where it was opened without O_EXCL.
    Made {
        /// Its directory.
        directory: BorrowedFd<'a>,
        /// Its name.
        name: &'a CStr,
    },
    /// A new file that has no name.
    MadeUnnamed {
        /// The file.
        file: BorrowedFd<'a>,
    },
    /// An object has got this name besides those it had, or its first.
    Linked {
        /// The directory.
        directory: BorrowedFd<'a>,
        /// The new name.
        name: &'a CStr,
    },
    /// This name is gone: a file's, or an empty directory's.
    Removed {
        /// The directory.
        directory: BorrowedFd<'a>,
        /// The name.
        name: &'a CStr,
    },
    /// renameat2.
    Renamed {
        /// The old directory and name.
        from: (BorrowedFd<'a>, &'a CStr),
        /// The new ones.
        to: (BorrowedFd<'a>, &'a CStr),
        /// Whether the two have changed places.
        flags: RenameFlags,
    },
    /// pwrite, or one part of a pwritev.
    Wrote {
        /// The file.
        file: BorrowedFd<'a>,
        /// Where, in bytes.
        offset: u64,
        /// What.
        data: &'a [u8],
    },
    /// ftruncate, or O_TRUNC.
    Resized {
        /// The file.
        file: BorrowedFd<'a>,
        /// In bytes.
        length: u64,
    },
    /// fallocate.
    Allocated {
        /// The file.
        file: BorrowedFd<'a>,
        /// What it did to the range.
        flags: FallocateFlags,
        /// The range, in bytes.
        range: (u64, u64),
    },
    /// Mode, owner or times have changed.
    Changed(At<'a>),
    /// An attribute has been set, or with `None` removed.
    Attribute {
        /// Of what.
        at: At<'a>,
        /// Its name.
        name: &'a CStr,
        /// Its value.
        value: Option<&'a [u8]>,
    },
    /// fsync or fdatasync of a file or directory.
    Synced {
        /// The file or directory.
        file: BorrowedFd<'a>,
        /// fdatasync.
        data_only: bool,
    },
    /// syncfs.
    SyncedAll,
}
