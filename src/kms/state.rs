//! Which operation is allowed in which key state: AWS KMS's table ("Key states of AWS KMS keys"), as one pure function.

use serde::{Deserialize, Serialize};

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

/// What is to be done with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Wrap.
    Encrypt,
    /// Unwrap.
    Decrypt,
    /// Make a data key and wrap it.
    GenerateDataKey,
    /// Read the metadata.
    DescribeKey,
    /// Be listed, or have its aliases listed.
    List,
    /// Switch on.
    EnableKey,
    /// Switch off.
    DisableKey,
    /// Be the target of a new alias.
    CreateAlias,
    /// Be the new target of an alias.
    UpdateAlias,
    /// Lose an alias, by deletion or to another key.
    DeleteAlias,
    /// Have its policy read.
    GetKeyPolicy,
    /// Be given a policy.
    PutKeyPolicy,
    /// Be given a grant.
    CreateGrant,
    /// Lose a grant that was given back.
    RetireGrant,
    /// Lose a grant that was taken back.
    RevokeGrant,
}

/// The state forbids the operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateError {
    /// AWS's DisabledException.
    Disabled,
    /// AWS's KMSInvalidStateException.
    InvalidState(KeyState),
}

/// The state a key is in after `operation`.
///
/// # Errors
/// [`StateError`] where the state forbids it.
pub const fn transition(state: KeyState, operation: Operation) -> Result<KeyState, StateError> {
    use KeyState::{Disabled, Enabled, PendingDeletion, PendingImport};
    match operation {
        Operation::Encrypt
        | Operation::Decrypt
        | Operation::GenerateDataKey
        | Operation::CreateGrant => match state {
            Enabled => Ok(state),
            Disabled => Err(StateError::Disabled),
            PendingDeletion | PendingImport => Err(StateError::InvalidState(state)),
        },
        Operation::DescribeKey
        | Operation::List
        | Operation::DeleteAlias
        | Operation::GetKeyPolicy
        | Operation::PutKeyPolicy
        | Operation::RetireGrant
        | Operation::RevokeGrant => Ok(state),
        Operation::EnableKey => match state {
            Enabled | Disabled => Ok(Enabled),
            PendingDeletion | PendingImport => Err(StateError::InvalidState(state)),
        },
        Operation::DisableKey => match state {
            Enabled | Disabled => Ok(Disabled),
            PendingDeletion | PendingImport => Err(StateError::InvalidState(state)),
        },
        Operation::CreateAlias | Operation::UpdateAlias => match state {
            Enabled | Disabled | PendingImport => Ok(state),
            PendingDeletion => Err(StateError::InvalidState(state)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::KeyState::{Disabled, Enabled, PendingDeletion, PendingImport};
    use super::*;

    #[test]
    fn every_cell_of_the_table_holds() {
        const STATES: [KeyState; 4] = [Enabled, Disabled, PendingDeletion, PendingImport];
        const D: Result<KeyState, StateError> = Err(StateError::Disabled);
        const PD: Result<KeyState, StateError> = Err(StateError::InvalidState(PendingDeletion));
        const PI: Result<KeyState, StateError> = Err(StateError::InvalidState(PendingImport));
        let kept = STATES.map(Ok);
        let table = [
            (Operation::Encrypt, [Ok(Enabled), D, PD, PI]),
            (Operation::Decrypt, [Ok(Enabled), D, PD, PI]),
            (Operation::GenerateDataKey, [Ok(Enabled), D, PD, PI]),
            (Operation::DescribeKey, kept),
            (Operation::List, kept),
            (Operation::DeleteAlias, kept),
            (Operation::GetKeyPolicy, kept),
            (Operation::PutKeyPolicy, kept),
            (Operation::CreateGrant, [Ok(Enabled), D, PD, PI]),
            (Operation::RetireGrant, kept),
            (Operation::RevokeGrant, kept),
            (Operation::EnableKey, [Ok(Enabled), Ok(Enabled), PD, PI]),
            (Operation::DisableKey, [Ok(Disabled), Ok(Disabled), PD, PI]),
            (
                Operation::CreateAlias,
                [Ok(Enabled), Ok(Disabled), PD, Ok(PendingImport)],
            ),
            (
                Operation::UpdateAlias,
                [Ok(Enabled), Ok(Disabled), PD, Ok(PendingImport)],
            ),
        ];
        for (operation, row) in table {
            for (state, expected) in STATES.into_iter().zip(row) {
                assert_eq!(
                    transition(state, operation),
                    expected,
                    "{operation:?} in {state:?}"
                );
            }
        }
    }
}
