//! INIT, the first request: which version is spoken, and with which features.

use bitflags::bitflags;
use thiserror::Error;

use super::Malformed;
use super::wire::{self, take};

/// The major version.
pub const MAJOR: u32 = 7;
/// The newest minor version of which something is used here: Linux 6.18.
pub const MINOR: u32 = 45;
/// The oldest minor version that is spoken: Linux 5.13, the first with `SETXATTR_EXT`, without which SETXATTR looks
/// different.
pub const OLDEST_MINOR: u32 = 33;

/// Bytes of the answer.
pub const REPLY_SIZE: usize = size_of::<wire::InitOut>();

bitflags! {
    /// What the kernel offers, and what of it is taken.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub struct InitFlags: u64 {
        /// Reads may come before others are answered.
        const ASYNC_READ = 1 << 0;
        /// Locks of fcntl(2) are asked for.
        const POSIX_LOCKS = 1 << 1;
        /// O_TRUNC comes with OPEN, not as SETATTR.
        const ATOMIC_O_TRUNC = 1 << 3;
        /// "." and ".." may be looked up.
        const EXPORT_SUPPORT = 1 << 4;
        /// Writes of more than a page.
        const BIG_WRITES = 1 << 5;
        /// The umask is left to the server.
        const DONT_MASK = 1 << 6;
        /// The device may be written by splice(2).
        const SPLICE_WRITE = 1 << 7;
        /// Pages may be moved from the device.
        const SPLICE_MOVE = 1 << 8;
        /// The device may be read by splice(2).
        const SPLICE_READ = 1 << 9;
        /// Locks of flock(2) are asked for.
        const FLOCK_LOCKS = 1 << 10;
        /// ioctl(2) on directories.
        const HAS_IOCTL_DIR = 1 << 11;
        /// Pages are dropped when size or mtime have changed.
        const AUTO_INVAL_DATA = 1 << 12;
        /// READDIRPLUS is sent.
        const DO_READDIRPLUS = 1 << 13;
        /// READDIRPLUS only where it seems to pay.
        const READDIRPLUS_AUTO = 1 << 14;
        /// Direct I/O in parallel.
        const ASYNC_DIO = 1 << 15;
        /// Writes stay in the page cache for a while.
        const WRITEBACK_CACHE = 1 << 16;
        /// OPEN need not be known.
        const NO_OPEN_SUPPORT = 1 << 17;
        /// Lookups and listings of a directory in parallel.
        const PARALLEL_DIROPS = 1 << 18;
        /// suid, sgid and capabilities are always removed by the server.
        const HANDLE_KILLPRIV = 1 << 19;
        /// POSIX ACLs.
        const POSIX_ACL = 1 << 20;
        /// Reading the device after an abort is ECONNABORTED.
        const ABORT_ERROR = 1 << 21;
        /// The answer has `max_pages`.
        const MAX_PAGES = 1 << 22;
        /// Targets of symbolic links are cached.
        const CACHE_SYMLINKS = 1 << 23;
        /// OPENDIR need not be known.
        const NO_OPENDIR_SUPPORT = 1 << 24;
        /// Pages are dropped only when told so.
        const EXPLICIT_INVAL_DATA = 1 << 25;
        /// The answer has `map_alignment`.
        const MAP_ALIGNMENT = 1 << 26;
        /// Directories may be mounts of their own.
        const SUBMOUNTS = 1 << 27;
        /// suid, sgid and capabilities are removed by the server where a request says so.
        const HANDLE_KILLPRIV_V2 = 1 << 28;
        /// SETXATTR has the longer structure.
        const SETXATTR_EXT = 1 << 29;
        /// There are more than 32 flags.
        const INIT_EXT = 1 << 30;
        /// A security context comes with what makes inodes.
        const SECURITY_CTX = 1 << 32;
        /// DAX is chosen by inode.
        const HAS_INODE_DAX = 1 << 33;
        /// The group of the directory comes with what makes inodes, where the caller has it.
        const CREATE_SUPP_GROUP = 1 << 34;
        /// Names may be told to be outdated, not to be gone.
        const HAS_EXPIRE_ONLY = 1 << 35;
        /// mmap(2) of files opened for direct I/O.
        const DIRECT_IO_ALLOW_MMAP = 1 << 36;
        /// Files may be read and written by the kernel alone.
        const PASSTHROUGH = 1 << 37;
        /// Inodes cannot be found by handles.
        const NO_EXPORT_SUPPORT = 1 << 38;
        /// Requests may be sent anew, with the highest bit in `unique`.
        const HAS_RESEND = 1 << 39;
        /// Mounts with mapped ids.
        const ALLOW_IDMAP = 1 << 40;
        /// Requests come over io_uring.
        const OVER_IO_URING = 1 << 41;
        /// The answer has `request_timeout`.
        const REQUEST_TIMEOUT = 1 << 42;
    }
}

/// What the kernel offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InitRequest {
    /// Major version.
    pub major: u32,
    /// Minor version.
    pub minor: u32,
    /// Bytes that are read ahead at most.
    pub max_readahead: u32,
    /// Features.
    pub flags: InitFlags,
}

/// Why there is nothing to agree on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum InitError {
    /// The kernel is too old.
    #[error(
        "the kernel speaks FUSE {major}.{minor}; at least {MAJOR}.{OLDEST_MINOR} (Linux 5.13) is needed"
    )]
    TooOld {
        /// The kernel's major version.
        major: u32,
        /// The kernel's minor version.
        minor: u32,
    },
}

/// What to do about the kernel's version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// Both speak it; this is the minor version to answer.
    Common {
        /// The older one of the two.
        minor: u32,
    },
    /// The kernel's major version is newer: answer [`other_major`], and it asks again.
    AskAgain,
}

impl InitRequest {
    /// Of another major version no more is read than the version.
    ///
    /// # Errors
    /// [`Malformed::Short`]
    pub fn decode(arg0: &[u8]) -> Result<Self, Malformed> {
        let [major, minor]: [u32; 2] = take(arg0)?;
        if major != MAJOR {
            return Ok(Self {
                major,
                minor,
                max_readahead: 0,
                flags: InitFlags::empty(),
            });
        }
        let own: wire::InitIn = take(arg0)?;
        let mut flags = InitFlags::from_bits_retain(own.flags.into());
        if flags.contains(InitFlags::INIT_EXT) {
            let after = arg0.get(size_of::<wire::InitIn>()..).unwrap_or_default();
            let flags2: u32 = take(after)?;
            flags |= InitFlags::from_bits_retain(u64::from(flags2) << u32::BITS);
        }
        Ok(Self {
            major,
            minor,
            max_readahead: own.max_readahead,
            flags,
        })
    }

    /// Which version is spoken.
    ///
    /// # Errors
    /// [`InitError::TooOld`]
    pub const fn version(&self) -> Result<Version, InitError> {
        let (major, minor) = (self.major, self.minor);
        if major > MAJOR {
            Ok(Version::AskAgain)
        } else if major < MAJOR || minor < OLDEST_MINOR {
            Err(InitError::TooOld { major, minor })
        } else if minor < MINOR {
            Ok(Version::Common { minor })
        } else {
            Ok(Version::Common { minor: MINOR })
        }
    }
}

/// What is taken of the kernel's offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InitReply {
    /// Minor version, as [`InitRequest::version`] gives it.
    pub minor: u32,
    /// Bytes to read ahead at most, no more than were offered.
    pub max_readahead: u32,
    /// Features, of those that were offered.
    pub flags: InitFlags,
    /// Requests that nobody waits for (readahead, writeback) at a time.
    pub max_background: u16,
    /// With so many of them the kernel holds back.
    pub congestion_threshold: u16,
    /// Bytes of a WRITE at most.
    pub max_write: u32,
    /// Nanoseconds between two times that can be told apart.
    pub time_gran: u32,
    /// Pages of a request at most, with [`InitFlags::MAX_PAGES`].
    pub max_pages: u16,
}

/// The bytes of the answer. `INIT_EXT` goes with features beyond the 32nd: the kernel that offers them offers it too.
#[must_use]
pub fn init(reply: &InitReply) -> [u8; REPLY_SIZE] {
    let mut flags = reply.flags;
    if flags.bits() > u64::from(u32::MAX) {
        flags |= InitFlags::INIT_EXT;
    }
    let [low, high] = halves(flags.bits());
    zerocopy::transmute!(wire::InitOut {
        minor: reply.minor,
        max_readahead: reply.max_readahead,
        flags: low,
        max_background: reply.max_background,
        congestion_threshold: reply.congestion_threshold,
        max_write: reply.max_write,
        time_gran: reply.time_gran,
        max_pages: reply.max_pages,
        flags2: high,
        ..VERSION_ALONE
    })
}

/// The answer to a kernel of a newer major version: which one is spoken here, and nothing else.
#[must_use]
pub fn other_major() -> [u8; REPLY_SIZE] {
    zerocopy::transmute!(VERSION_ALONE)
}

const VERSION_ALONE: wire::InitOut = wire::InitOut {
    major: MAJOR,
    minor: MINOR,
    max_readahead: 0,
    flags: 0,
    max_background: 0,
    congestion_threshold: 0,
    max_write: 0,
    time_gran: 0,
    max_pages: 0,
    map_alignment: 0,
    flags2: 0,
    max_stack_depth: 0,
    request_timeout: 0,
    unused: [0; 11],
};

/// The lower and the upper 32 bits.
const fn halves(bits: u64) -> [u32; 2] {
    [(bits & u32::MAX as u64) as u32, (bits >> u32::BITS) as u32]
}

#[cfg(test)]
#[path = "init_tests.rs"]
mod tests;
