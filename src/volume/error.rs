//! Why a volume cannot be made or opened. Facts only: hints belong to the command line.

use std::io;
use std::path::PathBuf;

use crate::fs::FsError;
use crate::ids::{KeyId, KeyStoreId};
use crate::kms::error::KmsError;

/// A volume that cannot be made or opened.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// The directory holds something already.
    #[error("{} is not empty", path.display())]
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// The directory holds no volume.
    #[error("{} holds no cmkfs volume", path.display())]
    NotAVolume {
        /// The directory.
        path: PathBuf,
    },
    /// Another process has the volume.
    #[error("the volume in {} is in use{}", path.display(), by(*pid))]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The process, where it can be told.
        pid: Option<u32>,
    },
    /// The volume was made with another key directory.
    #[error(
        "the volume in {} belongs to key store {expected}, but {} is key store {found}",
        path.display(),
        keys.display()
    )]
    WrongKeyStore {
        /// The volume's directory.
        path: PathBuf,
        /// The key directory it was made with.
        expected: KeyStoreId,
        /// The key directory that was offered.
        found: KeyStoreId,
        /// Where that lies.
        keys: PathBuf,
    },
    /// The volume file is not what cmkfs wrote.
    #[error("{} is damaged: {why}", path.display())]
    Damaged {
        /// The volume file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// No key opens anything in it any more.
    #[error(
        "nothing in the volume in {} can be opened any more: key {key}, which guards all of it, is gone",
        path.display()
    )]
    Dead {
        /// The volume's directory.
        path: PathBuf,
        /// The CMK that wraps the volume's own key, or its root directory's.
        key: KeyId,
    },
    /// The key service refuses.
    #[error(transparent)]
    Keys(#[from] KmsError),
    /// The root directory cannot be used.
    #[error("the volume in {} cannot be opened: {source}", path.display())]
    Filesystem {
        /// The volume's directory.
        path: PathBuf,
        /// Why.
        source: FsError,
    },
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// A verb.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
}

fn by(pid: Option<u32>) -> String {
    pid.map_or_else(String::new, |pid| format!(" by process {pid}"))
}

impl VolumeError {
    pub(super) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}
