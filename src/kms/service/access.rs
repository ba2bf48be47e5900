//! Who calls, and whether the key's policy and grants let them.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::KeyService;
use crate::kms::caller::Caller;
use crate::kms::error::KmsError;
use crate::kms::key::KeyRecord;
use crate::kms::policy::action::ACTIONS;
use crate::kms::policy::{self, Denial, Permission, Policy, Request};

/// What the service knows of its caller, and of whose the key directory is.
pub(super) struct Access {
    pub caller: Caller,
    default_policy: Policy,
}

impl Access {
    /// The caller is this process.
    pub(super) fn of_this_process(dir: &Path) -> Result<Self, KmsError> {
        let metadata = std::fs::metadata(dir).map_err(KmsError::io("look at", dir))?;
        Ok(Self {
            caller: Caller::current(),
            default_policy: Policy::default_for(metadata.uid()),
        })
    }
}

impl KeyService {
    /// The same service, called by somebody else. For tests: it proves nothing about who calls.
    #[must_use]
    pub fn with_caller(mut self, caller: Caller) -> Self {
        self.access.caller = caller;
        self
    }

    /// Who calls.
    #[must_use]
    pub const fn caller(&self) -> &Caller {
        &self.access.caller
    }

    /// Fails unless the key's policy or a grant allows the request. Costs no system call.
    pub(super) fn authorize(
        &self,
        key: &KeyRecord,
        request: &Request<'_>,
    ) -> Result<Permission, KmsError> {
        debug_assert!(
            ACTIONS.contains(&request.action),
            "{} has to be in policy::action::ACTIONS, or no policy can name it",
            request.action
        );
        let Access { caller, .. } = &self.access;
        let policy = self.policy_of(key);
        policy::evaluate(policy, &key.grants, caller, request, self.clock.now())
            .map_err(|why| self.denied(key, request.action, why))
    }

    /// The policy that is in force.
    pub(super) fn policy_of<'a>(&'a self, key: &'a KeyRecord) -> &'a Policy {
        key.policy.as_ref().unwrap_or(&self.access.default_policy)
    }

    pub(super) fn denied(&self, key: &KeyRecord, action: &'static str, why: Denial) -> KmsError {
        KmsError::AccessDeniedException {
            key: key.key_id,
            action,
            caller: self.access.caller.to_string(),
            why,
        }
    }
}

#[cfg(test)]
#[path = "access_tests.rs"]
mod tests;
