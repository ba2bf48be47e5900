//! The values that cross the core's border: attributes, callers, requests. Plain data, no behaviour of the filesystem.

use std::ffi::OsStr;

use crate::format::envelope::Envelope;
use crate::ids::{KeyId, MaterialId};

/// Names an inode to the transport, from the first lookup to the last forget.
pub type NodeId = u64;

/// Names an open file or directory to the transport.
pub type HandleId = u64;

/// The mount's root directory.
pub const ROOT_NODE: NodeId = 1;

/// On whose behalf an operation runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// Filesystem user id.
    pub uid: u32,
    /// Filesystem group id.
    pub gid: u32,
    /// Thread id, 0 where unknown.
    pub pid: u32,
}

/// What an inode is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// Regular file.
    File,
    /// Directory.
    Directory,
    /// Symbolic link.
    Symlink,
    /// Named pipe.
    Fifo,
    /// Unix socket.
    Socket,
    /// Character device.
    CharDevice,
    /// Block device.
    BlockDevice,
}

/// A moment as a filesystem keeps it: seconds since the epoch (may be negative) and 0–999,999,999 nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FileTime {
    /// Seconds since 1970-01-01T00:00:00Z.
    pub seconds: i64,
    /// Nanoseconds after that second.
    pub nanoseconds: u32,
}

/// What there is of a filesystem in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figures {
    /// Inodes that the transport knows.
    pub inodes: u64,
    /// Handles on files.
    pub open_files: u64,
    /// Handles on directories.
    pub open_directories: u64,
}

/// What stat shows. `node` is the inode number and the transport's node id in one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    /// Inode number.
    pub node: NodeId,
    /// Plaintext size in bytes.
    pub size: u64,
    /// Backing storage in units of 512 bytes.
    pub blocks: u64,
    /// Last access.
    pub atime: FileTime,
    /// Last change of content.
    pub mtime: FileTime,
    /// Last change of the inode.
    pub ctime: FileTime,
    /// What it is.
    pub kind: FileKind,
    /// Permission bits with setuid, setgid and sticky (`0o7777`).
    pub permissions: u16,
    /// Hard links.
    pub links: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a device.
    pub device: u32,
}

/// A time to set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetTime {
    /// The present moment.
    Now,
    /// This moment.
    At(FileTime),
}

/// Which attributes to change; `None` leaves one as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SetAttributes {
    /// Permission bits (`0o7777`).
    pub permissions: Option<u16>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Truncate or extend to this size.
    pub size: Option<u64>,
    /// Access time.
    pub atime: Option<SetTime>,
    /// Modification time.
    pub mtime: Option<SetTime>,
}

/// Mode of something about to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewMode {
    /// Permission bits as the caller asked for them, umask not applied (`0o7777`).
    pub permissions: u32,
    /// The caller's umask; ignored where the parent has a default ACL, as POSIX.1e wants.
    pub umask: u32,
}

/// How a file is opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OpenFlags {
    /// For writing (and reading: with a writeback cache the kernel reads through any handle).
    pub write: bool,
    /// Cut to zero length.
    pub truncate: bool,
}

/// An opened file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// The handle.
    pub handle: HandleId,
    /// What the kernel has cached of this file is still true.
    pub keep_cache: bool,
}

/// What a node to be made by `mknod` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeType {
    /// Anything but a directory or symlink.
    pub kind: FileKind,
    /// Device number, for devices.
    pub device: u32,
}

/// How `rename` treats an existing target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RenameMode {
    /// Replace it.
    Replace,
    /// Fail with EEXIST (RENAME_NOREPLACE).
    NoReplace,
    /// Swap the two (RENAME_EXCHANGE).
    Exchange,
}

/// What `fallocate` does with its range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AllocateMode {
    /// Reserve space; extend the file where the range passes its end.
    Allocate,
    /// Reserve space; never change the size.
    KeepSize,
    /// Deallocate (PUNCH_HOLE | KEEP_SIZE).
    PunchHole,
    /// Zero, extending the file where the range passes its end.
    ZeroRange,
    /// Zero without changing the size (ZERO_RANGE | KEEP_SIZE).
    ZeroRangeKeepSize,
}

/// What `seek` looks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seek {
    /// The next byte of data at or after the offset.
    Data,
    /// The next hole at or after the offset; the end of the file counts as one.
    Hole,
}

/// How `set_xattr` treats an existing attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XattrMode {
    /// Create or replace.
    Set,
    /// Fail with EEXIST where it exists (XATTR_CREATE).
    Create,
    /// Fail with ENODATA where it does not (XATTR_REPLACE).
    Replace,
}

/// One entry of a listing.
#[derive(Debug, Clone, Copy)]
pub struct DirectoryEntry<'a> {
    /// Inode number.
    pub node: NodeId,
    /// Where the listing goes on after this entry.
    pub next_offset: u64,
    /// What it is.
    pub kind: FileKind,
    /// Its name.
    pub name: &'a OsStr,
    /// For `read_directory_plus`: its attributes, looked up (and counted as one lookup) for all but "." and "..",
    /// and what a listing has told lately.
    pub attributes: Option<Attributes>,
    /// Its own CMK is withdrawn: neither the entry nor the attributes may be believed without asking.
    pub is_withdrawn: bool,
}

/// Whether the receiver of a listing has room for more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fill {
    /// The entry was taken.
    Taken,
    /// There was no room: the entry was not taken, and the listing stops.
    Full,
}

/// Figures of the backing filesystem, as `statfs` shows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FilesystemStatistics {
    /// Blocks in all, in units of `fragment_size`.
    pub blocks: u64,
    /// Free blocks.
    pub blocks_free: u64,
    /// Free blocks for ordinary users.
    pub blocks_available: u64,
    /// Inodes in all.
    pub files: u64,
    /// Free inodes.
    pub files_free: u64,
    /// Preferred block size in bytes.
    pub block_size: u32,
    /// Longest name in bytes: 255.
    pub name_max: u32,
    /// Unit of the block counts in bytes.
    pub fragment_size: u32,
}

/// What wraps a data key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WrappedUnder {
    /// The CMK.
    pub key: KeyId,
    /// Which of its materials.
    pub material: MaterialId,
}

impl WrappedUnder {
    /// What wraps the data key in an envelope.
    #[must_use]
    pub const fn of(envelope: &Envelope) -> Self {
        Self {
            key: envelope.key_id(),
            material: envelope.material_id(),
        }
    }
}

/// What a rewrap did with an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rewrapped {
    /// Nothing: it has no data key.
    Nothing,
    /// Nothing: it is wrapped as it is to be.
    Already(WrappedUnder),
    /// Wrapped anew.
    Now {
        /// What wrapped it until now.
        from: WrappedUnder,
        /// What wraps it from now on.
        to: WrappedUnder,
    },
    /// Nothing: it was renamed or linked meanwhile. Another attempt finds it.
    Missed,
}

/// What a rekey did with an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rekeyed {
    /// Nothing: it has no data key, or is a directory.
    Nothing,
    /// It has a new data key.
    Now,
    /// Nothing: it is a file of several names, which cannot all be given to another backing file at once.
    Linked,
    /// Nothing: it has no name yet, by which another backing file could take its place.
    Unnamed,
    /// Nothing: it was changed each time that it was copied.
    Busy,
    /// Nothing: it was renamed or changed meanwhile. Another attempt finds it.
    Missed,
}
