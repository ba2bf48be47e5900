//! What can be done with a key, by AWS's names, and the patterns that policies use for it.

use super::pattern;

/// The service's prefix.
pub const PREFIX: &str = "kms:";

/// The operations on a key that a policy can speak of. cmkfs does not have all of them; a policy that was written for AWS KMS
/// may name them.
pub const ACTIONS: [&str; 38] = [
    "CancelKeyDeletion",
    "CreateAlias",
    "CreateGrant",
    "Decrypt",
    "DeleteAlias",
    "DeleteImportedKeyMaterial",
    "DescribeKey",
    "DisableKey",
    "DisableKeyRotation",
    "EnableKey",
    "EnableKeyRotation",
    "Encrypt",
    "GenerateDataKey",
    "GenerateDataKeyWithoutPlaintext",
    "GetKeyPolicy",
    "GetKeyRotationStatus",
    "GetParametersForImport",
    "ImportKeyMaterial",
    "ListAliases",
    "ListGrants",
    "ListKeyPolicies",
    "ListKeyRotations",
    "ListResourceTags",
    "ListRetirableGrants",
    "PutKeyPolicy",
    "ReEncryptFrom",
    "ReEncryptTo",
    "ReplicateKey",
    "RetireGrant",
    "RevokeGrant",
    "RotateKeyOnDemand",
    "ScheduleKeyDeletion",
    "SynchronizeMultiRegionKey",
    "TagResource",
    "UntagResource",
    "UpdateAlias",
    "UpdateKeyDescription",
    "UpdatePrimaryRegion",
];

/// Which actions a statement is about: `kms:NAME` or `*`, with wildcards in NAME, in upper or lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActionPattern(String);

impl ActionPattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// What is wrong with it: no action of [`ACTIONS`] is meant.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let lower = text.to_ascii_lowercase();
        let name = match lower.strip_prefix(PREFIX) {
            Some(name) => name,
            None if text == "*" => "*",
            None => {
                return Err(format!(
                    "action {text:?}: an action is kms:NAME, kms:* or *"
                ));
            }
        };
        let pattern = Self(name.to_owned());
        if ACTIONS.iter().any(|action| pattern.matches(action)) {
            Ok(pattern)
        } else {
            Err(format!("action {text:?}: KMS has no such operation"))
        }
    }

    /// Whether it is about the operation of this name.
    pub(super) fn matches(&self, operation: &str) -> bool {
        self.0 == "*" || pattern::matches(&self.0, &operation.to_ascii_lowercase())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_names_actions_in_any_case_with_wildcards() {
        for (pattern, operation, expected) in [
            ("*", "Decrypt", true),
            ("kms:*", "PutKeyPolicy", true),
            ("KMS:decrypt", "Decrypt", true),
            ("kms:De*", "DescribeKey", true),
            ("kms:De*", "Encrypt", false),
            ("kms:??crypt", "Decrypt", true),
            ("kms:??crypt", "Encrypt", true),
            (
                "kms:GenerateDataKey",
                "GenerateDataKeyWithoutPlaintext",
                false,
            ),
        ] {
            let parsed = ActionPattern::parse(pattern).unwrap();
            assert_eq!(parsed.matches(operation), expected, "{pattern} {operation}");
        }
    }

    #[test]
    fn what_means_no_action_is_refused() {
        for bad in [
            "",
            "Decrypt",
            "kms:",
            "kms:Decypt",
            "s3:GetObject",
            "k*",
            "kms:Dec rypt",
            "**",
        ] {
            assert!(ActionPattern::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_list_is_in_order_and_names_nothing_twice() {
        assert!(ACTIONS.is_sorted());
        assert!(ACTIONS.windows(2).all(|pair| pair[0] != pair[1]));
    }
}
