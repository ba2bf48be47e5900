//! Which operation is allowed in which key state: AWS KMS's table ("Key states of AWS KMS keys"), as one pure function.

use serde::{Deserialize, Serialize};

use super::key::{KeyManager, Origin};

/// The state of a CMK.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum KeyState {
    /// Usable.
    Enabled,
    /// Switched off until it is enabled again.
    Disabled,
    /// Waits for the day of its deletion.
    PendingDeletion,
    /// Has no key material yet, or no longer.
    PendingImport,
}

impl KeyState {
    /// The name in AWS's spelling.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enabled => "Enabled",
            Self::Disabled => "Disabled",
            Self::PendingDeletion => "PendingDeletion",
            Self::PendingImport => "PendingImport",
        }
    }

    /// The state as it stands in a sentence.
    #[must_use]
    pub const fn phrase(self) -> &'static str {
        match self {
            Self::Enabled => "enabled",
            Self::Disabled => "disabled",
            Self::PendingDeletion => "pending deletion",
            Self::PendingImport => "pending import",
        }
    }
}

/// What is to be done with a key, in AWS's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(
    missing_docs,
    reason = "AWS's documentation of each is the documentation"
)]
pub enum Operation {
    Encrypt,
    Decrypt,
    GenerateDataKey,
    ReEncrypt,
    DescribeKey,
    /// ListAliases, ListGrants, ListKeyRotations, ListResourceTags.
    List,
    GetKeyPolicy,
    PutKeyPolicy,
    GetKeyRotationStatus,
    CreateGrant,
    RetireGrant,
    RevokeGrant,
    EnableKey,
    DisableKey,
    ScheduleKeyDeletion,
    CancelKeyDeletion,
    ImportKeyMaterial,
    DeleteImportedKeyMaterial,
    EnableKeyRotation,
    DisableKeyRotation,
    RotateKeyOnDemand,
    /// Be the target of a new alias.
    CreateAlias,
    /// Be the new target of an alias.
    UpdateAlias,
    /// Lose an alias, by deletion or to another key.
    DeleteAlias,
    TagResource,
    UntagResource,
    UpdateKeyDescription,
}

impl Operation {
    /// The name in AWS's spelling.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Encrypt => "Encrypt",
            Self::Decrypt => "Decrypt",
            Self::GenerateDataKey => "GenerateDataKey",
            Self::ReEncrypt => "ReEncrypt",
            Self::DescribeKey => "DescribeKey",
            Self::List => "List",
            Self::GetKeyPolicy => "GetKeyPolicy",
            Self::PutKeyPolicy => "PutKeyPolicy",
            Self::GetKeyRotationStatus => "GetKeyRotationStatus",
            Self::CreateGrant => "CreateGrant",
            Self::RetireGrant => "RetireGrant",
            Self::RevokeGrant => "RevokeGrant",
            Self::EnableKey => "EnableKey",
            Self::DisableKey => "DisableKey",
            Self::ScheduleKeyDeletion => "ScheduleKeyDeletion",
            Self::CancelKeyDeletion => "CancelKeyDeletion",
            Self::ImportKeyMaterial => "ImportKeyMaterial",
            Self::DeleteImportedKeyMaterial => "DeleteImportedKeyMaterial",
            Self::EnableKeyRotation => "EnableKeyRotation",
            Self::DisableKeyRotation => "DisableKeyRotation",
            Self::RotateKeyOnDemand => "RotateKeyOnDemand",
            Self::CreateAlias => "CreateAlias",
            Self::UpdateAlias => "UpdateAlias",
            Self::DeleteAlias => "DeleteAlias",
            Self::TagResource => "TagResource",
            Self::UntagResource => "UntagResource",
            Self::UpdateKeyDescription => "UpdateKeyDescription",
        }
    }
}

/// What never changes of a key and decides what it can do at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyKind {
    /// Where its material comes from.
    pub origin: Origin,
    /// Who looks after it.
    pub key_manager: KeyManager,
}

/// The state forbids the operation, or the key's kind does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateError {
    /// AWS's DisabledException.
    Disabled,
    /// AWS's KMSInvalidStateException.
    InvalidState(InvalidState),
    /// AWS's UnsupportedOperationException.
    Unsupported(Unsupported),
}

/// What is wrong with a key's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidState {
    /// It waits for the day of its deletion.
    PendingDeletion,
    /// It does not, and cannot be brought back from there.
    NotPendingDeletion,
    /// It has no key material, or not all of it.
    PendingImport,
    /// The same, because imported material is past its expiry.
    Expired,
    /// A new material was imported already and has not become current yet.
    RotationPending,
    /// No new material was imported that could become current.
    NoNewMaterial,
}

impl InvalidState {
    /// What is to be said of the key.
    #[must_use]
    pub const fn phrase(self) -> &'static str {
        match self {
            Self::PendingDeletion => "is pending deletion",
            Self::NotPendingDeletion => "is not pending deletion",
            Self::PendingImport => "is pending import: its key material is not there",
            Self::Expired => "is pending import: its key material has expired",
            Self::RotationPending => "has a new key material already that waits to be rotated to",
            Self::NoNewMaterial => "has no new key material to rotate to",
        }
    }
}

/// Why a key can never do it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsupported {
    /// Only for keys whose material is imported.
    Generated,
    /// Only for keys whose material cmkfs makes.
    Imported,
    /// Not for the key that cmkfs itself looks after.
    Managed,
}

impl Unsupported {
    /// What is to be said of the key.
    #[must_use]
    pub const fn phrase(self) -> &'static str {
        match self {
            Self::Generated => "its key material is made by cmkfs, not imported",
            Self::Imported => "its key material is imported",
            Self::Managed => "it is looked after by cmkfs itself",
        }
    }
}

/// The state a key is in after `operation`. Where that also depends on which materials are there, it is the state
/// with all of them there.
///
/// # Errors
/// [`StateError`] where the state or the kind of key forbids it; the kind comes first.
pub const fn transition(
    kind: KeyKind,
    state: KeyState,
    operation: Operation,
) -> Result<KeyState, StateError> {
    use KeyState::{Disabled, Enabled, PendingDeletion, PendingImport};
    const PD: StateError = StateError::InvalidState(InvalidState::PendingDeletion);
    const PI: StateError = StateError::InvalidState(InvalidState::PendingImport);
    if let Some(why) = unsupported(kind, operation) {
        return Err(StateError::Unsupported(why));
    }
    match operation {
        Operation::Encrypt
        | Operation::Decrypt
        | Operation::GenerateDataKey
        | Operation::ReEncrypt
        | Operation::CreateGrant
        | Operation::RotateKeyOnDemand
        | Operation::EnableKeyRotation
        | Operation::DisableKeyRotation => match state {
            Enabled => Ok(Enabled),
            Disabled => Err(StateError::Disabled),
            PendingDeletion => Err(PD),
            PendingImport => Err(PI),
        },
        Operation::DescribeKey
        | Operation::List
        | Operation::GetKeyPolicy
        | Operation::PutKeyPolicy
        | Operation::GetKeyRotationStatus
        | Operation::RetireGrant
        | Operation::RevokeGrant
        | Operation::DeleteAlias => Ok(state),
        Operation::EnableKey => match state {
            Enabled | Disabled => Ok(Enabled),
            PendingDeletion => Err(PD),
            PendingImport => Err(PI),
        },
        Operation::DisableKey => match state {
            Enabled | Disabled => Ok(Disabled),
            PendingDeletion => Err(PD),
            PendingImport => Err(PI),
        },
        Operation::ScheduleKeyDeletion => match state {
            Enabled | Disabled | PendingImport => Ok(PendingDeletion),
            PendingDeletion => Err(PD),
        },
        Operation::CancelKeyDeletion => match state {
            PendingDeletion => Ok(Disabled),
            Enabled | Disabled | PendingImport => {
                Err(StateError::InvalidState(InvalidState::NotPendingDeletion))
            }
        },
        Operation::ImportKeyMaterial => match state {
            Enabled | Disabled | PendingImport => Ok(Enabled),
            PendingDeletion => Err(PD),
        },
        Operation::DeleteImportedKeyMaterial => match state {
            Enabled | Disabled | PendingImport => Ok(PendingImport),
            PendingDeletion => Ok(PendingDeletion),
        },
        Operation::CreateAlias
        | Operation::UpdateAlias
        | Operation::TagResource
        | Operation::UntagResource
        | Operation::UpdateKeyDescription => match state {
            Enabled | Disabled | PendingImport => Ok(state),
            PendingDeletion => Err(PD),
        },
    }
}

const fn unsupported(kind: KeyKind, operation: Operation) -> Option<Unsupported> {
    match (operation, kind.origin, kind.key_manager) {
        (
            Operation::ScheduleKeyDeletion
            | Operation::PutKeyPolicy
            | Operation::EnableKeyRotation
            | Operation::DisableKeyRotation,
            _,
            KeyManager::Cmkfs,
        ) => Some(Unsupported::Managed),
        (Operation::ImportKeyMaterial | Operation::DeleteImportedKeyMaterial, Origin::Cmkfs, _) => {
            Some(Unsupported::Generated)
        }
        (Operation::EnableKeyRotation | Operation::DisableKeyRotation, Origin::External, _) => {
            Some(Unsupported::Imported)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::KeyState::{Disabled, Enabled, PendingDeletion, PendingImport};
    use super::*;

    type Cell = Result<KeyState, StateError>;
    const STATES: [KeyState; 4] = [Enabled, Disabled, PendingDeletion, PendingImport];
    const KEPT: [Cell; 4] = [
        Ok(Enabled),
        Ok(Disabled),
        Ok(PendingDeletion),
        Ok(PendingImport),
    ];
    const D: Cell = Err(StateError::Disabled);
    const PD: Cell = Err(StateError::InvalidState(InvalidState::PendingDeletion));
    const PI: Cell = Err(StateError::InvalidState(InvalidState::PendingImport));
    const ND: Cell = Err(StateError::InvalidState(InvalidState::NotPendingDeletion));

    const fn unsupported(why: Unsupported) -> [Cell; 4] {
        [Err(StateError::Unsupported(why)); 4]
    }

    /// The row of an operation for a key that can do everything its origin allows.
    const fn row(operation: Operation, origin: Origin) -> [Cell; 4] {
        match (operation, origin) {
            (
                Operation::Encrypt
                | Operation::Decrypt
                | Operation::GenerateDataKey
                | Operation::ReEncrypt
                | Operation::CreateGrant
                | Operation::RotateKeyOnDemand,
                _,
            )
            | (Operation::EnableKeyRotation | Operation::DisableKeyRotation, Origin::Cmkfs) => {
                [Ok(Enabled), D, PD, PI]
            }
            (Operation::EnableKeyRotation | Operation::DisableKeyRotation, Origin::External) => {
                unsupported(Unsupported::Imported)
            }
            (
                Operation::DescribeKey
                | Operation::List
                | Operation::GetKeyPolicy
                | Operation::PutKeyPolicy
                | Operation::GetKeyRotationStatus
                | Operation::RetireGrant
                | Operation::RevokeGrant
                | Operation::DeleteAlias,
                _,
            ) => KEPT,
            (Operation::EnableKey, _) => [Ok(Enabled), Ok(Enabled), PD, PI],
            (Operation::DisableKey, _) => [Ok(Disabled), Ok(Disabled), PD, PI],
            (Operation::ScheduleKeyDeletion, _) => [
                Ok(PendingDeletion),
                Ok(PendingDeletion),
                PD,
                Ok(PendingDeletion),
            ],
            (Operation::CancelKeyDeletion, _) => [ND, ND, Ok(Disabled), ND],
            (
                Operation::ImportKeyMaterial | Operation::DeleteImportedKeyMaterial,
                Origin::Cmkfs,
            ) => unsupported(Unsupported::Generated),
            (Operation::ImportKeyMaterial, Origin::External) => {
                [Ok(Enabled), Ok(Enabled), PD, Ok(Enabled)]
            }
            (Operation::DeleteImportedKeyMaterial, Origin::External) => [
                Ok(PendingImport),
                Ok(PendingImport),
                Ok(PendingDeletion),
                Ok(PendingImport),
            ],
            (
                Operation::CreateAlias
                | Operation::UpdateAlias
                | Operation::TagResource
                | Operation::UntagResource
                | Operation::UpdateKeyDescription,
                _,
            ) => [Ok(Enabled), Ok(Disabled), PD, Ok(PendingImport)],
        }
    }

    const OPERATIONS: [Operation; 27] = [
        Operation::Encrypt,
        Operation::Decrypt,
        Operation::GenerateDataKey,
        Operation::ReEncrypt,
        Operation::DescribeKey,
        Operation::List,
        Operation::GetKeyPolicy,
        Operation::PutKeyPolicy,
        Operation::GetKeyRotationStatus,
        Operation::CreateGrant,
        Operation::RetireGrant,
        Operation::RevokeGrant,
        Operation::EnableKey,
        Operation::DisableKey,
        Operation::ScheduleKeyDeletion,
        Operation::CancelKeyDeletion,
        Operation::ImportKeyMaterial,
        Operation::DeleteImportedKeyMaterial,
        Operation::EnableKeyRotation,
        Operation::DisableKeyRotation,
        Operation::RotateKeyOnDemand,
        Operation::CreateAlias,
        Operation::UpdateAlias,
        Operation::DeleteAlias,
        Operation::TagResource,
        Operation::UntagResource,
        Operation::UpdateKeyDescription,
    ];

    fn assert_rows(kind: KeyKind, row: impl Fn(Operation) -> [Cell; 4]) {
        for operation in OPERATIONS {
            for (state, expected) in STATES.into_iter().zip(row(operation)) {
                assert_eq!(
                    transition(kind, state, operation),
                    expected,
                    "{operation:?} in {state:?} of {kind:?}"
                );
            }
        }
    }

    #[test]
    fn every_cell_of_the_table_holds() {
        for origin in [Origin::Cmkfs, Origin::External] {
            let kind = KeyKind {
                origin,
                key_manager: KeyManager::Customer,
            };
            assert_rows(kind, |operation| row(operation, origin));
        }
        let names = OPERATIONS.map(Operation::as_str);
        let each = std::collections::BTreeSet::from(names);
        assert_eq!(each.len(), OPERATIONS.len());
    }

    #[test]
    fn the_default_key_cannot_be_deleted_or_given_a_policy_and_rotates_by_itself() {
        let kind = KeyKind {
            origin: Origin::Cmkfs,
            key_manager: KeyManager::Cmkfs,
        };
        assert_rows(kind, |operation| match operation {
            Operation::ScheduleKeyDeletion
            | Operation::PutKeyPolicy
            | Operation::EnableKeyRotation
            | Operation::DisableKeyRotation => unsupported(Unsupported::Managed),
            _ => row(operation, Origin::Cmkfs),
        });
    }
}
