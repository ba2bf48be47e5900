//! Grants: CreateGrant, ListGrants, RetireGrant, RevokeGrant.

use super::KeyService;
use crate::ids::KeyId;
use crate::kms::error::KmsError;
use crate::kms::event::Event;
use crate::kms::grant::{CreateGrantRequest, Grant, GrantId, GrantListEntry, MAX_GRANTS};
use crate::kms::key::{KeyRecord, KeyRef};
use crate::kms::policy::{Denial, Request};
use crate::kms::state::Operation;

impl KeyService {
    /// CreateGrant. Returns the grant's id: that of an earlier grant where an equal request of the same name made one.
    ///
    /// # Errors
    /// [`KmsError::ValidationException`], [`KmsError::LimitExceededException`], [`KmsError::NotFoundException`],
    /// [`KmsError::AccessDeniedException`], [`KmsError::DisabledException`], [`KmsError::KMSInvalidStateException`].
    pub fn create_grant(
        &self,
        key: &KeyRef,
        request: CreateGrantRequest,
    ) -> Result<GrantId, KmsError> {
        let event = described(Event::new("CreateGrant").asked(key), &request);
        // Looking names up may take its time: not under the lock.
        let checked = request.check();
        self.change(event, |change| {
            let asked = Request::new(change.event.name);
            let (old, permission) =
                self.admit_request(&mut change.event, key, Operation::CreateGrant, &asked)?;
            if let Some(by) = permission.grant() {
                self.check_passing_on(&old.value, &asked, by, &request)?;
            }
            checked?;
            let mut record = old.value.clone();
            if let Some(grant) = record.grants.iter().find(|grant| grant.answers(&request)) {
                return Ok(grant.grant_id.clone());
            }
            if record.grants.len() >= MAX_GRANTS {
                return Err(KmsError::LimitExceededException {
                    what: format!("grants of key {}", record.key_id),
                    limit: MAX_GRANTS,
                });
            }
            let grant = Grant::new(request, self.caller(), self.clock.now())?;
            let id = grant.grant_id.clone();
            change.event.note("grantId", id.to_string());
            record.grants.push(grant);
            change.put_key(Some(&old), &record)?;
            Ok(id)
        })
    }

    /// ListGrants, oldest first.
    ///
    /// # Errors
    /// [`KmsError::NotFoundException`], [`KmsError::AccessDeniedException`].
    pub fn list_grants(&self, key: &KeyRef) -> Result<Vec<GrantListEntry>, KmsError> {
        self.read(Event::reading("ListGrants").asked(key), |event| {
            let key = self.admit(event, key, Operation::List)?;
            let grants = key.value.grants.iter();
            Ok(grants
                .map(|grant| GrantListEntry::new(key.value.key_id, grant))
                .collect())
        })
    }

    /// RetireGrant: whoever has it, or may retire it, gives it back. Returns the key's id.
    ///
    /// # Errors
    /// [`KmsError::InvalidGrantIdException`], [`KmsError::NotFoundException`], [`KmsError::AccessDeniedException`].
    pub fn retire_grant(&self, key: &KeyRef, grant: &GrantId) -> Result<KeyId, KmsError> {
        self.remove_grant("RetireGrant", Operation::RetireGrant, key, grant)
    }

    /// RevokeGrant: whoever looks after the key takes it back. Returns the key's id.
    ///
    /// # Errors
    /// As [`Self::retire_grant`].
    pub fn revoke_grant(&self, key: &KeyRef, grant: &GrantId) -> Result<KeyId, KmsError> {
        self.remove_grant("RevokeGrant", Operation::RevokeGrant, key, grant)
    }

    fn remove_grant(
        &self,
        action: &'static str,
        operation: Operation,
        key: &KeyRef,
        grant: &GrantId,
    ) -> Result<KeyId, KmsError> {
        let event = Event::new(action)
            .restricting()
            .asked(key)
            .with("grantId", grant.to_string());
        self.change(event, |change| {
            let request = Request {
                grant: Some(grant),
                ..Request::new(action)
            };
            let (old, _) = self.admit_request(&mut change.event, key, operation, &request)?;
            let mut record = old.value.clone();
            record.grants.retain(|each| each.grant_id != *grant);
            if record.grants.len() == old.value.grants.len() {
                return Err(KmsError::InvalidGrantIdException {
                    key: record.key_id,
                    grant: grant.clone(),
                });
            }
            change.put_key(Some(&old), &record)?;
            Ok(record.key_id)
        })
    }

    /// Who may make grants by a grant only passes on what one of theirs allows.
    fn check_passing_on(
        &self,
        key: &KeyRecord,
        asked: &Request<'_>,
        by: &GrantId,
        request: &CreateGrantRequest,
    ) -> Result<(), KmsError> {
        let passes =
            |grant: &Grant| grant.permits(self.caller(), asked) && grant.passes_on(request);
        if key.grants.iter().any(passes) {
            return Ok(());
        }
        Err(self.denied(key, asked.action, Denial::BeyondGrant(by.clone())))
    }
}

fn described(event: Event, request: &CreateGrantRequest) -> Event {
    let operations: Vec<&str> = request.operations.iter().map(|of| of.as_str()).collect();
    let mut event = event
        .with("granteePrincipal", request.grantee_principal.to_string())
        .with("operations", operations);
    if let Some(principal) = &request.retiring_principal {
        event = event.with("retiringPrincipal", principal.to_string());
    }
    if let Some(name) = &request.name {
        event = event.with("name", name.as_str());
    }
    match serde_json::to_value(&request.constraints) {
        Ok(constraints) if !constraints.is_null() => event.with("constraints", constraints),
        _ => event,
    }
}
