//! What can go wrong in the core, and the errno each error becomes.

use rustix::io::Errno;

use super::keys::KeyUnavailable;
use crate::format::codec::FormatError;

/// Result of a filesystem operation.
pub type FsResult<T> = Result<T, FsError>;

/// Why a filesystem operation failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FsError {
    /// The operating system, or a rule of the filesystem, says no.
    #[error("{0}")]
    Os(#[from] Errno),
    /// The key that this needs may not or cannot be used.
    #[error(transparent)]
    Key(#[from] KeyUnavailable),
    /// What lies in the backing directory is not what was written there.
    #[error("{0}")]
    Damaged(Damage),
}

/// What is wrong with a backing object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// A structure cannot be decoded.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// A structure or block fails authentication.
    #[error("{what} fails authentication: it was changed outside of cmkfs")]
    Authentication {
        /// What was being read.
        what: &'static str,
    },
    /// A block fails authentication.
    #[error("block {block} fails authentication: it was changed outside of cmkfs")]
    Block {
        /// Its index.
        block: u64,
    },
    /// A block is a hole where the file has none.
    #[error("block {block} is missing: it was removed outside of cmkfs")]
    Hole {
        /// Its index.
        block: u64,
    },
    /// The backing file is shorter or longer than its sealed size says.
    #[error(
        "the file has {actual} bytes where its header says {sealed}: it was cut or extended outside of cmkfs"
    )]
    Size {
        /// The size that the header promises.
        sealed: u64,
        /// The size that the backing file's length implies.
        actual: u64,
    },
    /// The directory's header is missing.
    #[error("the directory's header is missing")]
    HeaderMissing,
    /// The file that keeps a long name is missing.
    #[error("the file that keeps its long name is missing")]
    LongNameMissing,
}

impl From<Damage> for FsError {
    fn from(damage: Damage) -> Self {
        Self::Damaged(damage)
    }
}

impl From<FormatError> for FsError {
    fn from(error: FormatError) -> Self {
        Self::Damaged(error.into())
    }
}

impl FsError {
    /// The errno the caller of the system call sees.
    #[must_use]
    pub const fn errno(&self) -> Errno {
        match self {
            Self::Os(errno) => *errno,
            Self::Key(unavailable) => match unavailable {
                KeyUnavailable::Disabled | KeyUnavailable::PendingDeletion => Errno::KEYREVOKED,
                KeyUnavailable::NoMaterial => Errno::NOKEY,
                KeyUnavailable::Expired => Errno::KEYEXPIRED,
                KeyUnavailable::Rejected => Errno::KEYREJECTED,
                KeyUnavailable::Denied => Errno::ACCESS,
                KeyUnavailable::Store => Errno::IO,
            },
            Self::Damaged(_) => Errno::BADMSG,
        }
    }
}
