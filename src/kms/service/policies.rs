//! Key policies: GetKeyPolicy, PutKeyPolicy.

use super::KeyService;
use crate::ids::KeyId;
use crate::kms::error::KmsError;
use crate::kms::event::Event;
use crate::kms::key::{KeyRecord, KeyRef};
use crate::kms::policy::document::MalformedPolicy;
use crate::kms::policy::{Policy, Request, evaluate};
use crate::kms::state::Operation;

impl KeyService {
    /// GetKeyPolicy: the policy in force, word by word as it was put.
    ///
    /// # Errors
    /// [`KmsError::NotFoundException`], [`KmsError::AccessDeniedException`].
    pub fn get_key_policy(&self, key: &KeyRef) -> Result<Policy, KmsError> {
        self.read(Event::reading("GetKeyPolicy").asked(key), |event| {
            let key = self.admit(event, key, Operation::GetKeyPolicy)?;
            Ok(self.policy_of(&key.value).clone())
        })
    }

    /// PutKeyPolicy: `text` is the key's policy from now on, in running mounts too. Returns the key's id. A policy under which
    /// the caller could not put another one is refused, unless `bypass_policy_lockout_safety_check`.
    ///
    /// # Errors
    /// [`KmsError::MalformedPolicyDocumentException`], [`KmsError::UnsupportedOperationException`] for the default key, [`KmsError::NotFoundException`],
    /// [`KmsError::AccessDeniedException`].
    pub fn put_key_policy(
        &self,
        key: &KeyRef,
        text: &str,
        bypass_policy_lockout_safety_check: bool,
    ) -> Result<KeyId, KmsError> {
        let event = Event::new("PutKeyPolicy")
            .asked(key)
            .with("policyName", "default")
            .with("policy", text)
            .with(
                "bypassPolicyLockoutSafetyCheck",
                bypass_policy_lockout_safety_check,
            );
        // Looking names up may take its time: not under the lock.
        let policy = read(text);
        self.change(event, |change| {
            let request = Request {
                bypass_policy_lockout_safety_check: Some(bypass_policy_lockout_safety_check),
                ..Request::new("PutKeyPolicy")
            };
            let (old, _) =
                self.admit_request(&mut change.event, key, Operation::PutKeyPolicy, &request)?;
            let key_id = old.value.key_id;
            let policy = policy?;
            if !bypass_policy_lockout_safety_check {
                self.check_lockout(&policy, &request)?;
            }
            let record = KeyRecord {
                policy: Some(policy),
                ..old.value.clone()
            };
            change.put_key(Some(&old), &record)?;
            Ok(key_id)
        })
    }

    fn check_lockout(&self, policy: &Policy, request: &Request<'_>) -> Result<(), KmsError> {
        // No grant allows PutKeyPolicy.
        evaluate(policy, &[], self.caller(), request, self.clock.now())
            .map(drop)
            .map_err(|why| {
                KmsError::MalformedPolicyDocumentException(format!(
                    "{} could not change it again by kms:PutKeyPolicy, because {why}",
                    self.caller()
                ))
            })
    }
}

fn read(text: &str) -> Result<Policy, KmsError> {
    let malformed =
        |error: MalformedPolicy| KmsError::MalformedPolicyDocumentException(error.to_string());
    let policy = Policy::parse(text).map_err(malformed)?;
    policy.check_principals().map_err(malformed)?;
    Ok(policy)
}
