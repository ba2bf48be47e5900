//! Grants: one principal may do a few things with a key, without a change of its policy. Pure; kept in the key's record.
//! `names`: what a grant is called, and what it can allow.
//!
//! Facts: AWS KMS, "Grants in AWS KMS", CreateGrant. Grant tokens are not needed here: a grant holds as soon as it is made.

mod names;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

pub use self::names::{GRANT_OPERATIONS, GrantId, GrantName, GrantOperation};
use super::caller::Caller;
use super::error::KmsError;
use super::policy::{Context, Principal, Request};
use crate::clock::Timestamp;
use crate::ids::KeyId;

/// Most grants of a key. AWS allows 50,000; here they lie in the key's record, which is read as a whole and has at most
/// 1 MiB: the largest grants, the largest policy and all else of a key together fit into it.
pub const MAX_GRANTS: usize = 50;
/// Most pairs of a grant's constraint.
pub const MAX_CONSTRAINT_PAIRS: usize = 8;
/// Most bytes of a name or value in a grant's constraint.
pub const MAX_CONSTRAINT_TEXT: usize = 256;

/// Which encryption contexts a grant is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Constraints {
    /// Exactly these pairs.
    EncryptionContextEquals(BTreeMap<String, String>),
    /// These pairs, and any others.
    EncryptionContextSubset(BTreeMap<String, String>),
}

/// What CreateGrant is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreateGrantRequest {
    /// Who may do it.
    pub grantee_principal: Principal,
    /// Who may give it back.
    pub retiring_principal: Option<Principal>,
    /// What may be done.
    pub operations: BTreeSet<GrantOperation>,
    /// With which encryption context.
    pub constraints: Option<Constraints>,
    /// Makes the request repeatable: the same one again makes no second grant.
    pub name: Option<GrantName>,
}

/// A grant: AWS's GrantListEntry, without the key id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Grant {
    /// Its id.
    pub grant_id: GrantId,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<GrantName>,
    /// When it was made.
    pub creation_date: Timestamp,
    /// Who made it.
    pub issuing_account: Principal,
    /// Who may do it.
    pub grantee_principal: Principal,
    /// Who may give it back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retiring_principal: Option<Principal>,
    /// What may be done.
    pub operations: BTreeSet<GrantOperation>,
    /// With which encryption context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub constraints: Option<Constraints>,
}

impl Grant {
    /// A new grant, made by `issuer`.
    pub(super) fn new(
        request: CreateGrantRequest,
        issuer: &Caller,
        now: Timestamp,
    ) -> Result<Self, KmsError> {
        Ok(Self {
            grant_id: GrantId::random()?,
            name: request.name,
            creation_date: now,
            issuing_account: issuer.into(),
            grantee_principal: request.grantee_principal,
            retiring_principal: request.retiring_principal,
            operations: request.operations,
            constraints: request.constraints,
        })
    }

    /// Whether it was made by an equal request of the same name.
    pub(super) fn answers(&self, request: &CreateGrantRequest) -> bool {
        self.name.is_some()
            && self.name == request.name
            && self.grantee_principal == request.grantee_principal
            && self.retiring_principal == request.retiring_principal
            && self.operations == request.operations
            && self.constraints == request.constraints
    }

    /// Whether it allows the caller what is asked.
    pub(super) fn permits(&self, caller: &Caller, request: &Request<'_>) -> bool {
        // A name that cannot be found out is nobody's.
        let is = |principal: &Principal| principal.is(caller) == Some(true);
        let Ok(operation) = request.action.parse::<GrantOperation>() else {
            return false;
        };
        if operation == GrantOperation::RetireGrant {
            // Nobody retires another's grant by a grant.
            return request.grant == Some(&self.grant_id)
                && (self.retiring_principal.as_ref().is_some_and(is)
                    || (self.operations.contains(&operation) && is(&self.grantee_principal)));
        }
        self.operations.contains(&operation)
            && is(&self.grantee_principal)
            && (!operation.has_context() || self.constrains(&request.context))
    }

    fn constrains(&self, context: &Context<'_>) -> bool {
        let holds = |pairs: &BTreeMap<String, String>| {
            pairs
                .iter()
                .all(|(name, value)| context.may_have(name, value))
        };
        match &self.constraints {
            None => true,
            Some(Constraints::EncryptionContextSubset(pairs)) => holds(pairs),
            Some(Constraints::EncryptionContextEquals(pairs)) => {
                pairs.len() == context.names().len() && holds(pairs)
            }
        }
    }

    /// Whether whoever has this grant with CreateGrant may pass on that much: no more operations, and constraints at least
    /// as strict.
    pub(super) fn passes_on(&self, request: &CreateGrantRequest) -> bool {
        use Constraints::{EncryptionContextEquals as Equals, EncryptionContextSubset as Subset};
        let stricter = match (&self.constraints, &request.constraints) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(Equals(own)), Some(Equals(new))) => own == new,
            (Some(Equals(_)), Some(Subset(_))) => false,
            (Some(Subset(own)), Some(Equals(new) | Subset(new))) => {
                own.iter().all(|(name, value)| new.get(name) == Some(value))
            }
        };
        stricter && request.operations.is_subset(&self.operations)
    }
}

impl CreateGrantRequest {
    /// Fails where no such grant can be made.
    pub(super) fn check(&self) -> Result<(), KmsError> {
        let invalid = |why: String| Err(KmsError::ValidationException(why));
        if self.operations.is_empty() {
            return invalid("a grant allows at least one operation".to_owned());
        }
        for principal in [
            Some(&self.grantee_principal),
            self.retiring_principal.as_ref(),
        ] {
            match principal {
                Some(Principal::Everyone) => {
                    return invalid(
                        "a grant is for a user or a group, not for everyone".to_owned(),
                    );
                }
                Some(principal) => principal
                    .check_known()
                    .map_err(KmsError::ValidationException)?,
                None => {}
            }
        }
        match &self.constraints {
            None => Ok(()),
            Some(
                Constraints::EncryptionContextEquals(pairs)
                | Constraints::EncryptionContextSubset(pairs),
            ) => check_pairs(pairs),
        }
    }
}

fn check_pairs(pairs: &BTreeMap<String, String>) -> Result<(), KmsError> {
    if pairs.len() > MAX_CONSTRAINT_PAIRS {
        return Err(KmsError::LimitExceededException {
            what: format!("{} pairs of a grant's constraint", pairs.len()),
            limit: MAX_CONSTRAINT_PAIRS,
        });
    }
    let fits = |text: &String| {
        (1..=MAX_CONSTRAINT_TEXT).contains(&text.len()) && !text.contains(char::is_control)
    };
    if pairs.is_empty() || !pairs.iter().all(|(name, value)| fits(name) && fits(value)) {
        return Err(KmsError::ValidationException(format!(
            "a grant's constraint has at least one pair, its names and values 1 to {MAX_CONSTRAINT_TEXT} bytes without control characters"
        )));
    }
    Ok(())
}

/// A grant as it is listed: AWS's GrantListEntry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct GrantListEntry {
    /// The key.
    pub key_id: KeyId,
    /// Its id.
    pub grant_id: GrantId,
    /// Its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<GrantName>,
    /// When it was made.
    #[serde(serialize_with = "super::key::rfc3339")]
    pub creation_date: Timestamp,
    /// Who made it.
    pub issuing_account: Principal,
    /// Who may do it.
    pub grantee_principal: Principal,
    /// Who may give it back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retiring_principal: Option<Principal>,
    /// What may be done.
    pub operations: Vec<GrantOperation>,
    /// With which encryption context.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub constraints: Option<Constraints>,
}

impl GrantListEntry {
    pub(super) fn new(key_id: KeyId, grant: &Grant) -> Self {
        Self {
            key_id,
            grant_id: grant.grant_id.clone(),
            name: grant.name.clone(),
            creation_date: grant.creation_date,
            issuing_account: grant.issuing_account.clone(),
            grantee_principal: grant.grantee_principal.clone(),
            retiring_principal: grant.retiring_principal.clone(),
            operations: grant.operations.iter().copied().collect(),
            constraints: grant.constraints.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
