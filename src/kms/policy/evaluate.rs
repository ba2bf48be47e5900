//! May this caller do this? An explicit Deny beats everything; else an Allow of the policy or a grant will do; else not.

use std::fmt;

use super::document::{Effect, Policy, Statement};
use super::request::Request;
use crate::clock::Timestamp;
use crate::kms::caller::Caller;
use crate::kms::grant::{Grant, GrantId};

/// By what an operation is allowed. Made by [`evaluate`] alone: whoever holds one has asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Permission {
    grant: Option<GrantId>,
}

impl Permission {
    /// The grant that allows it, where the policy does not.
    #[must_use]
    pub const fn grant(&self) -> Option<&GrantId> {
        self.grant.as_ref()
    }
}

/// Why an operation is not allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denial {
    /// A statement of the policy denies it.
    Statement(String),
    /// No statement of the policy and no grant allows it.
    NothingAllows,
    /// The policy looks at a name of the encryption context that comes more than once, in different case.
    AmbiguousContext,
    /// A grant allows it, but not that it is passed on like this.
    BeyondGrant(GrantId),
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Statement(name) => write!(f, "statement {name} of its key policy denies it"),
            Self::NothingAllows => {
                f.write_str("no statement of its key policy and no grant allows it")
            }
            Self::AmbiguousContext => f.write_str(
                "its key policy looks at a name of the encryption context that comes more than once, in different case",
            ),
            Self::BeyondGrant(grant) => write!(
                f,
                "grant {grant} allows to pass on its own operations only, under its own constraints or stricter ones"
            ),
        }
    }
}

/// The answer of a policy and its grants. Where a condition depends on what the request does not know, the answer is that
/// of the most favourable case: such a request asks whether an operation can be allowed at all.
///
/// # Errors
/// Why it is not allowed.
pub fn evaluate(
    policy: &Policy,
    grants: &[Grant],
    caller: &Caller,
    request: &Request<'_>,
    now: Timestamp,
) -> Result<Permission, Denial> {
    let statements = |effect| {
        let with_effect = policy.statements.iter();
        with_effect.filter(move |statement| statement.effect == effect)
    };
    let ambiguous = |statement: &Statement| {
        let mut conditions = statement.conditions.iter();
        conditions.any(|condition| condition.is_ambiguous(request))
    };
    if policy.statements.iter().any(ambiguous) {
        return Err(Denial::AmbiguousContext);
    }
    let denies = |statement: &&Statement| {
        // Who may be meant is: a name that cannot be found out must not open what it should close.
        statement.is_about(caller, true)
            && statement.covers(request)
            && statement.holds(request, now) == Some(true)
    };
    if let Some(statement) = statements(Effect::Deny).find(denies) {
        return Err(Denial::Statement(statement.name.clone()));
    }
    let allows = |statement: &Statement| {
        statement.is_about(caller, false)
            && statement.covers(request)
            && statement.holds(request, now) != Some(false)
    };
    if statements(Effect::Allow).any(allows) {
        return Ok(Permission { grant: None });
    }
    match grants.iter().find(|grant| grant.permits(caller, request)) {
        Some(grant) => Ok(Permission {
            grant: Some(grant.grant_id.clone()),
        }),
        None => Err(Denial::NothingAllows),
    }
}

impl Statement {
    fn is_about(&self, caller: &Caller, in_doubt: bool) -> bool {
        let mut principals = self.principals.iter();
        principals.any(|principal| principal.is(caller).unwrap_or(in_doubt))
    }

    fn covers(&self, request: &Request<'_>) -> bool {
        self.actions
            .iter()
            .any(|action| action.matches(request.action))
    }

    fn holds(&self, request: &Request<'_>, now: Timestamp) -> Option<bool> {
        let mut all = Some(true);
        for condition in &self.conditions {
            match condition.holds(request, now) {
                Some(true) => {}
                Some(false) => return Some(false),
                None => all = None,
            }
        }
        all
    }
}

#[cfg(test)]
#[path = "evaluate_tests.rs"]
mod tests;
