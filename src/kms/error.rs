//! What can go wrong on the key path. AWS's exceptions carry AWS's names; what is about the key directory comes after them.
//!
//! Facts only: hints belong to the command line, errno to the filesystem.

use std::io;
use std::path::PathBuf;

use super::alias::AliasName;
use super::grant::GrantId;
use super::key::KeyRef;
use super::policy::Denial;
use super::state::{InvalidState, Operation, StateError, Unsupported};
use crate::format::codec::FormatError;
use crate::ids::{KeyId, KeyStoreId};

/// A refused or failed operation of the key service.
#[derive(Debug, thiserror::Error)]
pub enum KmsError {
    /// The key's policy and grants do not allow it.
    #[error("{caller} is not authorized to perform kms:{action} on key {key}: {why}")]
    AccessDeniedException {
        /// The key.
        key: KeyId,
        /// AWS's name of the operation.
        action: &'static str,
        /// Who asked for it.
        caller: String,
        /// What stands against it.
        why: Denial,
    },
    /// Text that is no key policy, or one that cannot be given to the key.
    #[error("this key policy cannot be used: {0}")]
    MalformedPolicyDocumentException(String),
    /// The key has no such grant.
    #[error("key {key} has no grant {grant}")]
    InvalidGrantIdException {
        /// The key.
        key: KeyId,
        /// The grant that was asked for.
        grant: GrantId,
    },
    /// No such key or alias.
    #[error("{key} not found in {}", dir.display())]
    NotFoundException {
        /// What was asked for.
        key: KeyRef,
        /// The key directory.
        dir: PathBuf,
    },
    /// The alias exists already.
    #[error("{alias} exists already, for key {target}")]
    AlreadyExistsException {
        /// The alias.
        alias: AliasName,
        /// The key it stands for.
        target: KeyId,
    },
    /// The key is disabled.
    #[error("key {key} is disabled")]
    DisabledException {
        /// The key.
        key: KeyId,
    },
    /// The key's state does not allow the operation.
    #[error("key {key} {}", why.phrase())]
    KMSInvalidStateException {
        /// The key.
        key: KeyId,
        /// What is wrong with its state.
        why: InvalidState,
    },
    /// No key of this kind can do it.
    #[error("{operation} is not possible for key {key}: {}", why.phrase())]
    UnsupportedOperationException {
        /// The key.
        key: KeyId,
        /// AWS's name of the operation.
        operation: &'static str,
        /// What kind of key it is.
        why: Unsupported,
    },
    /// A limit is reached.
    #[error("{what}: at most {limit} are allowed")]
    LimitExceededException {
        /// What there would be too many of.
        what: String,
        /// How many there may be.
        limit: usize,
    },
    /// Text that is no alias name, or one that is reserved.
    #[error("{alias:?} cannot be used as an alias: {why}")]
    InvalidAliasNameException {
        /// The text.
        alias: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A request that can never succeed.
    #[error("{0}")]
    ValidationException(String),
    /// A tag that is not allowed.
    #[error("{0}")]
    TagException(String),
    /// An envelope or ciphertext that cannot be opened.
    #[error(transparent)]
    InvalidCiphertextException(InvalidCiphertext),
    /// The ciphertext is under another key than the one that was asked for.
    #[error("the ciphertext was encrypted under key {named}, not under {asked}")]
    IncorrectKeyException {
        /// The key that was asked for.
        asked: KeyRef,
        /// The one that the ciphertext names.
        named: KeyId,
    },
    /// It is not the material that belongs there.
    #[error("this is not the key material for key {key}: {why}")]
    IncorrectKeyMaterialException {
        /// The key.
        key: KeyId,
        /// What is wrong with it.
        why: &'static str,
    },

    /// The key is there, a material of it is not.
    #[error("the material of key {key} is missing: there is no {}", path.display())]
    NoMaterial {
        /// The key.
        key: KeyId,
        /// Where the material belongs.
        path: PathBuf,
    },
    /// There is no key directory.
    #[error("there is no key directory at {}", dir.display())]
    NoStore {
        /// Where it was looked for.
        dir: PathBuf,
    },
    /// A directory with other things in it.
    #[error("{} is not a key directory: it holds other files ({entry:?})", dir.display())]
    NotAKeyDirectory {
        /// The directory.
        dir: PathBuf,
        /// One of the other files.
        entry: String,
    },
    /// A file of the key directory is not what cmkfs wrote.
    #[error("{} is damaged: {why}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The key directory was replaced by another one.
    #[error("{} is another key directory ({found}) than the one that was opened ({expected})", dir.display())]
    WrongStore {
        /// The key directory.
        dir: PathBuf,
        /// The id it had.
        expected: KeyStoreId,
        /// The id it has.
        found: KeyStoreId,
    },
    /// The passphrase does not open the key directory, or its store file was edited.
    #[error("wrong passphrase for {}", dir.display())]
    WrongPassphrase {
        /// The key directory.
        dir: PathBuf,
    },
    /// A passphrase is needed and was not to be had.
    #[error("no passphrase: {why}")]
    NoPassphrase {
        /// Why not.
        why: String,
    },
    /// Others than the owner may read or write it.
    #[error("{} is open to other users (mode {mode:04o})", path.display())]
    Permissions {
        /// The key directory or root key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
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
    /// Nothing was done, because it could not be written down.
    #[error("refused, because it cannot be written to the audit log: {0}")]
    NotRecorded(#[source] Box<Self>),
    /// The operation is decided and written down, but not all of it could be done yet.
    #[error("the operation is written down, but not finished: {0}")]
    Unfinished(#[source] Box<Self>),
    /// The operating system gives no randomness.
    #[error("the operating system gives no randomness: {0}")]
    Random(#[from] getrandom::Error),
}

/// Why an envelope or ciphertext cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum InvalidCiphertext {
    /// It does not authenticate.
    #[error("this does not belong to key {key} and this encryption context, or was tampered with")]
    Rejected {
        /// The key it names.
        key: KeyId,
    },
    /// It is none.
    #[error("this was not encrypted by cmkfs, or not all of it is there: {0}")]
    Format(FormatError),
}

/// Why a key cannot be used just now, in the words of whoever holds files under it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyUnavailable {
    /// The key is disabled.
    Disabled,
    /// The key waits to be deleted.
    PendingDeletion,
    /// The key or its material is not there.
    NoMaterial,
    /// The material is past its expiry.
    Expired,
    /// Wrong key, wrong encryption context, or a tampered envelope.
    Rejected,
    /// A policy forbids the use.
    Denied,
    /// The key directory cannot be read or trusted.
    Other,
}

impl KmsError {
    /// What the failure of a cryptographic operation means to the files under the key.
    #[must_use]
    pub const fn availability(&self) -> KeyUnavailable {
        match self {
            Self::DisabledException { .. } => KeyUnavailable::Disabled,
            Self::KMSInvalidStateException { why, .. } => match why {
                InvalidState::PendingDeletion => KeyUnavailable::PendingDeletion,
                InvalidState::PendingImport => KeyUnavailable::NoMaterial,
                InvalidState::Expired => KeyUnavailable::Expired,
                // No cryptographic operation fails so.
                InvalidState::NotPendingDeletion
                | InvalidState::RotationPending
                | InvalidState::NoNewMaterial => KeyUnavailable::Other,
            },
            Self::NotFoundException { .. } | Self::NoMaterial { .. } | Self::NoStore { .. } => {
                KeyUnavailable::NoMaterial
            }
            Self::InvalidCiphertextException(_)
            | Self::IncorrectKeyException { .. }
            | Self::WrongStore { .. } => KeyUnavailable::Rejected,
            Self::AccessDeniedException { .. } => KeyUnavailable::Denied,
            Self::MalformedPolicyDocumentException(_)
            | Self::InvalidGrantIdException { .. }
            | Self::AlreadyExistsException { .. }
            | Self::LimitExceededException { .. }
            | Self::InvalidAliasNameException { .. }
            | Self::ValidationException(_)
            | Self::TagException(_)
            | Self::UnsupportedOperationException { .. }
            | Self::IncorrectKeyMaterialException { .. }
            | Self::NotAKeyDirectory { .. }
            | Self::Damaged { .. }
            | Self::WrongPassphrase { .. }
            | Self::NoPassphrase { .. }
            | Self::Permissions { .. }
            | Self::Io { .. }
            | Self::NotRecorded(_)
            | Self::Unfinished(_)
            | Self::Random(_) => KeyUnavailable::Other,
        }
    }

    /// What the audit log calls it: AWS's exception, or a word of our own where AWS has none.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::AccessDeniedException { .. } => "AccessDeniedException",
            Self::MalformedPolicyDocumentException(_) => "MalformedPolicyDocumentException",
            Self::InvalidGrantIdException { .. } => "InvalidGrantIdException",
            Self::NotFoundException { .. } => "NotFoundException",
            Self::AlreadyExistsException { .. } => "AlreadyExistsException",
            Self::DisabledException { .. } => "DisabledException",
            Self::KMSInvalidStateException { .. } => "KMSInvalidStateException",
            Self::LimitExceededException { .. } => "LimitExceededException",
            Self::InvalidAliasNameException { .. } => "InvalidAliasNameException",
            Self::ValidationException(_) => "ValidationException",
            Self::TagException(_) => "TagException",
            Self::InvalidCiphertextException { .. } => "InvalidCiphertextException",
            Self::UnsupportedOperationException { .. } => "UnsupportedOperationException",
            Self::IncorrectKeyException { .. } => "IncorrectKeyException",
            Self::IncorrectKeyMaterialException { .. } => "IncorrectKeyMaterialException",
            Self::NoMaterial { .. } => "NoMaterial",
            Self::NoStore { .. } => "NoStore",
            Self::NotAKeyDirectory { .. } => "NotAKeyDirectory",
            Self::Damaged { .. } => "Damaged",
            Self::WrongStore { .. } => "WrongStore",
            Self::WrongPassphrase { .. } => "WrongPassphrase",
            Self::NoPassphrase { .. } => "NoPassphrase",
            Self::Permissions { .. } => "Permissions",
            Self::Io { .. } => "Io",
            Self::NotRecorded(_) => "NotRecorded",
            Self::Unfinished(_) => "Unfinished",
            Self::Random(_) => "Random",
        }
    }

    /// Whether it is for lack of space.
    pub(super) fn is_full(&self) -> bool {
        match self {
            Self::Io { source, .. } => matches!(
                source.kind(),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
            ),
            Self::NotRecorded(source) => source.is_full(),
            _ => false,
        }
    }

    pub(super) fn from_state(key: KeyId, operation: Operation, error: StateError) -> Self {
        match error {
            StateError::Disabled => Self::DisabledException { key },
            StateError::InvalidState(why) => Self::KMSInvalidStateException { key, why },
            StateError::Unsupported(why) => Self::UnsupportedOperationException {
                key,
                operation: operation.as_str(),
                why,
            },
        }
    }

    pub(super) fn damaged(path: impl Into<PathBuf>, why: impl ToString) -> Self {
        Self::Damaged {
            path: path.into(),
            why: why.to_string(),
        }
    }

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
