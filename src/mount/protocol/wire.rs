//! The kernel's structures, field by field and under its names.

#![allow(
    missing_docs,
    dead_code,
    reason = "the kernel's own names and fields, some of which nobody reads"
)]

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::Malformed;

/// A structure at the beginning of `bytes`, whatever their alignment.
pub(super) fn take<T: FromBytes>(bytes: &[u8]) -> Result<T, Malformed> {
    T::read_from_prefix(bytes)
        .map(|(value, _)| value)
        .map_err(|_| Malformed::Short)
}

/// Bits of `fuse_setattr_in.valid`.
pub(super) mod fattr {
    pub const MODE: u32 = 1 << 0;
    pub const UID: u32 = 1 << 1;
    pub const GID: u32 = 1 << 2;
    pub const SIZE: u32 = 1 << 3;
    pub const ATIME: u32 = 1 << 4;
    pub const MTIME: u32 = 1 << 5;
    pub const FH: u32 = 1 << 6;
    pub const ATIME_NOW: u32 = 1 << 7;
    pub const MTIME_NOW: u32 = 1 << 8;
    pub const KILL_SUIDGID: u32 = 1 << 11;
}

/// `fuse_getattr_in.getattr_flags`: there is a handle.
pub(super) const GETATTR_FH: u32 = 1 << 0;
/// `fuse_write_in.write_flags`: from the kernel's cache.
pub(super) const WRITE_CACHE: u32 = 1 << 0;
/// `fuse_write_in.write_flags`: suid and sgid have to go.
pub(super) const WRITE_KILL_SUIDGID: u32 = 1 << 2;
/// `fuse_open_in.open_flags`: suid and sgid have to go.
pub(super) const OPEN_KILL_SUIDGID: u32 = 1 << 0;
/// `fuse_fsync_in.fsync_flags`: the data suffice.
pub(super) const FSYNC_FDATASYNC: u32 = 1 << 0;
/// `fuse_setxattr_in.setxattr_flags`: sgid has to go.
pub(super) const SETXATTR_ACL_KILL_SGID: u32 = 1 << 0;
/// `fuse_open_out.open_flags`: what is cached of the file is still true.
pub(super) const FOPEN_KEEP_CACHE: u32 = 1 << 1;

macro_rules! structures {
    ($($(#[$doc:meta])* $name:ident { $($field:ident: $kind:ty,)* })*) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
            #[repr(C)]
            pub struct $name { $(pub(super) $field: $kind,)* }
        )*
    };
}

structures! {
    /// `fuse_in_header`
    InHeader {
        len: u32, opcode: u32, unique: u64, nodeid: u64, uid: u32, gid: u32, pid: u32,
        total_extlen: u16, padding: u16,
    }
    /// `fuse_out_header`
    OutHeader { len: u32, error: i32, unique: u64, }
    /// `fuse_forget_in`
    ForgetIn { nlookup: u64, }
    /// `fuse_forget_one`
    ForgetOne { nodeid: u64, nlookup: u64, }
    /// `fuse_batch_forget_in`
    BatchForgetIn { count: u32, dummy: u32, }
    /// `fuse_getattr_in`
    GetattrIn { getattr_flags: u32, dummy: u32, fh: u64, }
    /// `fuse_statx_in`
    StatxIn { getattr_flags: u32, reserved: u32, fh: u64, sx_flags: u32, sx_mask: u32, }
    /// `fuse_setattr_in`
    SetattrIn {
        valid: u32, padding: u32, fh: u64, size: u64, lock_owner: u64,
        atime: i64, mtime: i64, ctime: i64, atimensec: u32, mtimensec: u32, ctimensec: u32,
        mode: u32, unused4: u32, uid: u32, gid: u32, unused5: u32,
    }
    /// `fuse_mknod_in`
    MknodIn { mode: u32, rdev: u32, umask: u32, padding: u32, }
    /// `fuse_mkdir_in`
    MkdirIn { mode: u32, umask: u32, }
    /// `fuse_rename_in`
    RenameIn { newdir: u64, }
    /// `fuse_rename2_in`
    Rename2In { newdir: u64, flags: u32, padding: u32, }
    /// `fuse_link_in`
    LinkIn { oldnodeid: u64, }
    /// `fuse_open_in`
    OpenIn { flags: u32, open_flags: u32, }
    /// `fuse_create_in`
    CreateIn { flags: u32, mode: u32, umask: u32, open_flags: u32, }
    /// `fuse_release_in`
    ReleaseIn { fh: u64, flags: u32, release_flags: u32, lock_owner: u64, }
    /// `fuse_flush_in`
    FlushIn { fh: u64, unused: u32, padding: u32, lock_owner: u64, }
    /// `fuse_read_in`
    ReadIn {
        fh: u64, offset: u64, size: u32, read_flags: u32, lock_owner: u64, flags: u32, padding: u32,
    }
    /// `fuse_write_in`
    WriteIn {
        fh: u64, offset: u64, size: u32, write_flags: u32, lock_owner: u64, flags: u32,
        padding: u32,
    }
    /// `fuse_fsync_in`
    FsyncIn { fh: u64, fsync_flags: u32, padding: u32, }
    /// `fuse_setxattr_in`, as it is with `FUSE_SETXATTR_EXT`
    SetxattrIn { size: u32, flags: u32, setxattr_flags: u32, padding: u32, }
    /// `fuse_getxattr_in`
    GetxattrIn { size: u32, padding: u32, }
    /// `fuse_interrupt_in`
    InterruptIn { unique: u64, }
    /// `fuse_fallocate_in`
    FallocateIn { fh: u64, offset: u64, length: u64, mode: u32, padding: u32, }
    /// `fuse_lseek_in`
    LseekIn { fh: u64, offset: u64, whence: u32, padding: u32, }
    /// `fuse_syncfs_in`
    SyncfsIn { padding: u64, }
    /// `fuse_attr`
    Attr {
        ino: u64, size: u64, blocks: u64, atime: i64, mtime: i64, ctime: i64,
        atimensec: u32, mtimensec: u32, ctimensec: u32, mode: u32, nlink: u32, uid: u32, gid: u32,
        rdev: u32, blksize: u32, flags: u32,
    }
    /// `fuse_entry_out`: an inode that was looked up or made.
    EntryOut {
        nodeid: u64, generation: u64, entry_valid: u64, attr_valid: u64, entry_valid_nsec: u32,
        attr_valid_nsec: u32, attr: Attr,
    }
    /// `fuse_attr_out`: attributes.
    AttrOut { attr_valid: u64, attr_valid_nsec: u32, dummy: u32, attr: Attr, }
    /// `fuse_sx_time`
    SxTime { tv_sec: i64, tv_nsec: u32, reserved: i32, }
    /// `fuse_statx`
    Statx {
        mask: u32, blksize: u32, attributes: u64, nlink: u32, uid: u32, gid: u32, mode: u16,
        spare0: u16, ino: u64, size: u64, blocks: u64, attributes_mask: u64,
        atime: SxTime, btime: SxTime, ctime: SxTime, mtime: SxTime,
        rdev_major: u32, rdev_minor: u32, dev_major: u32, dev_minor: u32, spare2: [u64; 14],
    }
    /// `fuse_statx_out`: attributes, the time of birth among them.
    StatxOut { attr_valid: u64, attr_valid_nsec: u32, flags: u32, spare: [u64; 2], stat: Statx, }
    /// `fuse_open_out`: an opened file or directory.
    OpenOut { fh: u64, open_flags: u32, backing_id: i32, }
    /// `fuse_entry_out` and `fuse_open_out`: a file that was made and opened.
    CreateOut { entry: EntryOut, open: OpenOut, }
    /// `fuse_write_out`: bytes written.
    WriteOut { size: u32, padding: u32, }
    /// `fuse_statfs_out`: figures of the filesystem.
    StatfsOut {
        blocks: u64, bfree: u64, bavail: u64, files: u64, ffree: u64, bsize: u32, namelen: u32,
        frsize: u32, padding: u32, spare: [u32; 6],
    }
    /// `fuse_getxattr_out`: bytes that a value or a list of names takes.
    GetxattrOut { size: u32, padding: u32, }
    /// `fuse_lseek_out`: where data or a hole begins.
    LseekOut { offset: u64, }
    /// `fuse_dirent`, without the name
    Dirent { ino: u64, off: u64, namelen: u32, kind: u32, }
    /// `fuse_init_in` up to and with 7.35
    InitIn { major: u32, minor: u32, max_readahead: u32, flags: u32, }
    /// `fuse_init_out`
    InitOut {
        major: u32, minor: u32, max_readahead: u32, flags: u32, max_background: u16,
        congestion_threshold: u16, max_write: u32, time_gran: u32, max_pages: u16,
        map_alignment: u16, flags2: u32, max_stack_depth: u32, request_timeout: u16,
        unused: [u16; 11],
    }
    /// `fuse_uring_ent_in_out`
    RingEntry { flags: u64, commit_id: u64, payload_sz: u32, padding: u32, reserved: u64, }
    /// `fuse_uring_cmd_req`
    RingCommand { flags: u64, commit_id: u64, qid: u16, padding: [u8; 6], }
}
