//! The operations by their numbers (`enum fuse_opcode`).

use std::fmt;

/// Which operation a request asks for. Any number may come: kernels learn new ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Opcode(pub u32);

macro_rules! opcodes {
    ($($(#[$doc:meta])* $name:ident = $number:literal,)*) => {
        impl Opcode {
            $($(#[$doc])* pub const $name: Self = Self($number);)*

            /// Every operation that has a name here.
            pub const KNOWN: &'static [Self] = &[$(Self::$name),*];

            /// Its name in the protocol, without `FUSE_`; `UNKNOWN` where there is none.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                    _ => "UNKNOWN",
                }
            }
        }
    };
}

opcodes! {
    /// Find a name in a directory.
    LOOKUP = 1,
    /// Lookups of an inode that the kernel gives back. No reply.
    FORGET = 2,
    /// Attributes of an inode.
    GETATTR = 3,
    /// Change attributes.
    SETATTR = 4,
    /// Target of a symbolic link.
    READLINK = 5,
    /// Make a symbolic link.
    SYMLINK = 6,
    /// Make a file, device, pipe or socket.
    MKNOD = 8,
    /// Make a directory.
    MKDIR = 9,
    /// Remove a name.
    UNLINK = 10,
    /// Remove a directory.
    RMDIR = 11,
    /// Rename, without flags.
    RENAME = 12,
    /// Make another name.
    LINK = 13,
    /// Open a file.
    OPEN = 14,
    /// Read a file.
    READ = 15,
    /// Write a file.
    WRITE = 16,
    /// Figures of the filesystem.
    STATFS = 17,
    /// The last reference to an open file is gone.
    RELEASE = 18,
    /// Make a file durable.
    FSYNC = 20,
    /// Set an extended attribute.
    SETXATTR = 21,
    /// Read an extended attribute.
    GETXATTR = 22,
    /// Names of the extended attributes.
    LISTXATTR = 23,
    /// Remove an extended attribute.
    REMOVEXATTR = 24,
    /// A file descriptor is closed.
    FLUSH = 25,
    /// The first request: versions and features.
    INIT = 26,
    /// Open a directory.
    OPENDIR = 27,
    /// List a directory.
    READDIR = 28,
    /// The last reference to an open directory is gone.
    RELEASEDIR = 29,
    /// Make a directory durable.
    FSYNCDIR = 30,
    /// Look for a lock.
    GETLK = 31,
    /// Take a lock or give it back.
    SETLK = 32,
    /// Take a lock, waiting for it.
    SETLKW = 33,
    /// Check permissions.
    ACCESS = 34,
    /// Make a file and open it.
    CREATE = 35,
    /// The caller of a request has been interrupted. No reply.
    INTERRUPT = 36,
    /// Block of the device below.
    BMAP = 37,
    /// The last request.
    DESTROY = 38,
    /// A device's own operation.
    IOCTL = 39,
    /// Whether a file is ready.
    POLL = 40,
    /// What a notification asked for. No reply.
    NOTIFY_REPLY = 41,
    /// Many `FORGET` in one. No reply.
    BATCH_FORGET = 42,
    /// Reserve or free space.
    FALLOCATE = 43,
    /// List a directory and look its entries up.
    READDIRPLUS = 44,
    /// Rename, with flags.
    RENAME2 = 45,
    /// Find data or a hole.
    LSEEK = 46,
    /// Copy within the filesystem.
    COPY_FILE_RANGE = 47,
    /// Map a file into a shared window.
    SETUPMAPPING = 48,
    /// Remove such mappings.
    REMOVEMAPPING = 49,
    /// Make the filesystem durable.
    SYNCFS = 50,
    /// Make a file without a name and open it.
    TMPFILE = 51,
    /// Attributes of an inode, the time of its birth among them.
    STATX = 52,
    /// Copy within the filesystem, answered with 64 bits.
    COPY_FILE_RANGE_64 = 53,
}

impl Opcode {
    /// The answer is written into the caller's buffer; the request has nothing but its structure.
    #[must_use]
    pub const fn fills_buffer(self) -> bool {
        matches!(self, Self::READ | Self::READDIR | Self::READDIRPLUS)
    }

    /// Whoever caused it may be waiting for the reply.
    #[must_use]
    pub const fn is_awaited(self) -> bool {
        self.needs_reply() && !matches!(self, Self::RELEASE | Self::RELEASEDIR)
    }

    /// The kernel waits for a reply.
    #[must_use]
    pub const fn needs_reply(self) -> bool {
        !matches!(
            self,
            Self::FORGET | Self::BATCH_FORGET | Self::INTERRUPT | Self::NOTIFY_REPLY
        )
    }
}

impl fmt::Display for Opcode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({})", self.name(), self.0)
    }
}
