//! The core's values in fuser's types, and back. How fuser 0.18 parses the kernel's words.

use std::time::{Duration, SystemTime};

use fuser::{Errno, FileAttr, FileType, FopenFlags, INodeNo, InitFlags, TimeOrNow};

use crate::fs::{Attributes, Caller, FileKind, FileTime, Opened, SetTime};

const PREFERRED_BLOCK: u32 = 4096;

/// The errno as fuser spells it.
pub(super) fn errno(errno: rustix::io::Errno) -> Errno {
    Errno::from_i32(errno.raw_os_error())
}

/// What the kernel keeps of an inode.
pub(super) fn attributes(attributes: &Attributes) -> FileAttr {
    FileAttr {
        ino: INodeNo(attributes.node),
        size: attributes.size,
        blocks: attributes.blocks,
        atime: system_time(attributes.atime),
        mtime: system_time(attributes.mtime),
        ctime: system_time(attributes.ctime),
        crtime: SystemTime::UNIX_EPOCH,
        kind: file_type(attributes.kind),
        perm: attributes.permissions,
        nlink: attributes.links,
        uid: attributes.uid,
        gid: attributes.gid,
        rdev: attributes.device,
        blksize: PREFERRED_BLOCK,
        flags: 0,
    }
}

/// An inode that is not there: node 0 in an entry tells the kernel to remember the absence, or, in a listing with
/// attributes, to take the name alone.
pub(super) fn absent(kind: FileKind) -> FileAttr {
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: SystemTime::UNIX_EPOCH,
        mtime: SystemTime::UNIX_EPOCH,
        ctime: SystemTime::UNIX_EPOCH,
        crtime: SystemTime::UNIX_EPOCH,
        kind: file_type(kind),
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: PREFERRED_BLOCK,
        flags: 0,
    }
}

/// The type of an inode.
pub(super) const fn file_type(kind: FileKind) -> FileType {
    match kind {
        FileKind::File => FileType::RegularFile,
        FileKind::Directory => FileType::Directory,
        FileKind::Symlink => FileType::Symlink,
        FileKind::Fifo => FileType::NamedPipe,
        FileKind::Socket => FileType::Socket,
        FileKind::CharDevice => FileType::CharDevice,
        FileKind::BlockDevice => FileType::BlockDevice,
    }
}

/// fuser encodes times before 1970 rightly.
fn system_time(time: FileTime) -> SystemTime {
    let seconds = Duration::from_secs(time.seconds.unsigned_abs());
    let whole = if time.seconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(seconds)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(seconds)
    };
    whole
        .and_then(|whole| whole.checked_add(Duration::from_nanos(time.nanoseconds.into())))
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

/// fuser decodes times before 1970 wrongly: it subtracts the nanoseconds instead of adding them. Taking the distance
/// from the epoch apart again gives the two numbers the kernel sent.
pub(super) fn file_time(time: SystemTime) -> FileTime {
    let as_seconds = |seconds: u64| i64::try_from(seconds).unwrap_or(i64::MAX);
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => FileTime {
            seconds: as_seconds(after.as_secs()),
            nanoseconds: after.subsec_nanos(),
        },
        Err(before) => {
            let before = before.duration();
            let seconds = 0_i64
                .checked_sub_unsigned(before.as_secs())
                .unwrap_or(i64::MIN);
            FileTime {
                seconds,
                nanoseconds: before.subsec_nanos(),
            }
        }
    }
}

/// A time to set.
pub(super) fn set_time(time: TimeOrNow) -> SetTime {
    match time {
        TimeOrNow::Now => SetTime::Now,
        TimeOrNow::SpecificTime(time) => SetTime::At(file_time(time)),
    }
}

/// What the kernel may do with an opened file.
pub(super) fn opened_flags(opened: &Opened) -> FopenFlags {
    if opened.keep_cache {
        FopenFlags::FOPEN_KEEP_CACHE
    } else {
        FopenFlags::empty()
    }
}

/// On whose behalf.
pub(super) fn caller(request: &fuser::Request) -> Caller {
    Caller {
        uid: request.uid(),
        gid: request.gid(),
        pid: request.pid(),
    }
}

/// What is asked of the kernel, each taken only where it is offered. Left out on purpose: remote locks (local ones are
/// right for a sole mounter), SETXATTR_EXT, SECURITY_CTX and CREATE_SUPP_GROUP (fuser 0.18 mishandles
/// them), AUTO_INVAL_DATA (nobody else writes, and it drops caches), READDIRPLUS_AUTO (most programs list a directory to the
/// end before they look at its files, and it would look each of them up). With HANDLE_KILLPRIV_V2 the kernel asks for
/// `security.capability` once a file, not once a write(2); `session::privileges` does what it leaves to us; fuser 0.18 hides its marks on truncation and opening.
pub(super) fn capabilities(read_only: bool) -> InitFlags {
    let mut wanted = InitFlags::FUSE_PARALLEL_DIROPS
        | InitFlags::FUSE_DO_READDIRPLUS
        | InitFlags::FUSE_ATOMIC_O_TRUNC
        | InitFlags::FUSE_ASYNC_DIO
        | InitFlags::FUSE_POSIX_ACL
        // Each read(2) of what is cached looks at the attributes first. They are good for long, so that costs nothing; but
        // where a key was withdrawn they are dropped, and the read is refused whatever is still cached.
        | InitFlags::FUSE_AUTO_INVAL_DATA
        | InitFlags::FUSE_DONT_MASK
        // An aborted connection is told from an unmounted one.
        | InitFlags::FUSE_ABORT_ERROR
        | InitFlags::FUSE_CACHE_SYMLINKS;
    if !read_only {
        wanted |= InitFlags::FUSE_WRITEBACK_CACHE | InitFlags::FUSE_HANDLE_KILLPRIV_V2;
    }
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `system_time_from_time` of fuser 0.18.
    fn as_fuser_decodes(seconds: i64, nanoseconds: u32) -> SystemTime {
        if seconds >= 0 {
            SystemTime::UNIX_EPOCH + Duration::new(seconds.unsigned_abs(), nanoseconds)
        } else {
            SystemTime::UNIX_EPOCH - Duration::new(seconds.unsigned_abs(), nanoseconds)
        }
    }

    #[test]
    fn times_before_1970_survive_what_fuser_does_to_them() {
        for (seconds, nanoseconds) in [
            (0, 0),
            (1, 5),
            (-1, 0),
            (-1, 999_999_999),
            (-2, 1),
            (-86_400, 500_000_000),
        ] {
            let time = FileTime {
                seconds,
                nanoseconds,
            };
            assert_eq!(file_time(as_fuser_decodes(seconds, nanoseconds)), time);
        }
    }

    #[test]
    fn times_are_shown_as_they_are() {
        let epoch = SystemTime::UNIX_EPOCH;
        let shown = |seconds, nanoseconds| {
            system_time(FileTime {
                seconds,
                nanoseconds,
            })
        };
        assert_eq!(shown(1, 2), epoch + Duration::new(1, 2));
        assert_eq!(shown(-1, 0), epoch - Duration::from_secs(1));
        assert_eq!(shown(-1, 750_000_000), epoch - Duration::from_millis(250));
    }
}
