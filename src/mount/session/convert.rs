//! The kernel's numbers in the core's terms. Facts: open(2), mknod(2), renameat2(2), fallocate(2), lseek(2), setxattr(2).

use crate::fs::{AllocateMode, FileKind, NewMode, OpenFlags, RenameMode, Seek, XattrMode};

const PERMISSIONS: u32 = 0o7777;

/// What `mknod` may make: the type bits of a mode, where 0 means a regular file.
pub(super) const fn node_kind(mode: u32) -> Option<FileKind> {
    match mode & libc::S_IFMT {
        0 | libc::S_IFREG => Some(FileKind::File),
        libc::S_IFIFO => Some(FileKind::Fifo),
        libc::S_IFSOCK => Some(FileKind::Socket),
        libc::S_IFCHR => Some(FileKind::CharDevice),
        libc::S_IFBLK => Some(FileKind::BlockDevice),
        _ => None,
    }
}

/// The mode of something to be made.
pub(super) const fn new_mode(mode: u32, umask: u32) -> NewMode {
    NewMode {
        permissions: mode & PERMISSIONS,
        umask,
    }
}

/// The permission bits of a mode to be set.
#[must_use]
pub const fn permissions(mode: u32) -> u16 {
    (mode & PERMISSIONS) as u16
}

/// How a file is opened.
pub(super) const fn open_flags(flags: i32) -> OpenFlags {
    OpenFlags {
        write: flags & libc::O_ACCMODE != libc::O_RDONLY,
        truncate: flags & libc::O_TRUNC != 0,
    }
}

/// The flags of renameat2(2); `None` for what no filesystem of ours does (RENAME_WHITEOUT, combinations).
pub(super) const fn rename_mode(flags: u32) -> Option<RenameMode> {
    match flags {
        0 => Some(RenameMode::Replace),
        libc::RENAME_NOREPLACE => Some(RenameMode::NoReplace),
        libc::RENAME_EXCHANGE => Some(RenameMode::Exchange),
        _ => None,
    }
}

/// The mode of fallocate(2); `None` for what is not supported.
pub(super) const fn allocate_mode(mode: i32) -> Option<AllocateMode> {
    const KEEP: i32 = libc::FALLOC_FL_KEEP_SIZE;
    const PUNCH: i32 = libc::FALLOC_FL_PUNCH_HOLE | KEEP;
    const ZERO: i32 = libc::FALLOC_FL_ZERO_RANGE;
    const ZERO_KEEP: i32 = ZERO | KEEP;
    match mode {
        0 => Some(AllocateMode::Allocate),
        KEEP => Some(AllocateMode::KeepSize),
        PUNCH => Some(AllocateMode::PunchHole),
        ZERO => Some(AllocateMode::ZeroRange),
        ZERO_KEEP => Some(AllocateMode::ZeroRangeKeepSize),
        _ => None,
    }
}

/// What lseek(2) looks for. The kernel answers the other kinds itself.
pub(super) const fn seek(whence: u32) -> Option<Seek> {
    match whence.cast_signed() {
        libc::SEEK_DATA => Some(Seek::Data),
        libc::SEEK_HOLE => Some(Seek::Hole),
        _ => None,
    }
}

/// The flags of setxattr(2). The kernel has refused both at once.
pub(super) const fn xattr_mode(flags: u32) -> XattrMode {
    let flags = flags.cast_signed();
    if flags & libc::XATTR_CREATE != 0 {
        XattrMode::Create
    } else if flags & libc::XATTR_REPLACE != 0 {
        XattrMode::Replace
    } else {
        XattrMode::Set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_supported_flags_are_taken() {
        assert_eq!(rename_mode(0), Some(RenameMode::Replace));
        assert_eq!(
            rename_mode(libc::RENAME_NOREPLACE),
            Some(RenameMode::NoReplace)
        );
        assert_eq!(
            rename_mode(libc::RENAME_EXCHANGE),
            Some(RenameMode::Exchange)
        );
        assert_eq!(rename_mode(libc::RENAME_WHITEOUT), None);
        assert_eq!(
            allocate_mode(libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE),
            Some(AllocateMode::PunchHole)
        );
        assert_eq!(allocate_mode(libc::FALLOC_FL_PUNCH_HOLE), None);
        assert_eq!(allocate_mode(libc::FALLOC_FL_COLLAPSE_RANGE), None);
        assert_eq!(node_kind(libc::S_IFDIR), None);
        assert_eq!(node_kind(0o644), Some(FileKind::File));
    }
}
