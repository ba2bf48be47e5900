//! What a grant is called, and what it can allow.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::kms::error::KmsError;

/// Most characters of a grant's name.
pub const MAX_GRANT_NAME: usize = 256;
const ID_BYTES: usize = 32;

/// Names a grant of a key: 64 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GrantId(String);

/// A grant's name: 1 to 256 letters, digits and `:/_-`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GrantName(String);

/// What a grant can allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum GrantOperation {
    /// Unwrap.
    Decrypt,
    /// Wrap.
    Encrypt,
    /// Make a data key and wrap it.
    GenerateDataKey,
    /// The same, without the data key itself.
    GenerateDataKeyWithoutPlaintext,
    /// Wrap anew what is under this key.
    ReEncryptFrom,
    /// Wrap anew under this key.
    ReEncryptTo,
    /// Pass on what the grant allows.
    CreateGrant,
    /// Give the grant back.
    RetireGrant,
    /// Read the metadata.
    DescribeKey,
}

/// All of them.
pub const GRANT_OPERATIONS: [GrantOperation; 9] = [
    GrantOperation::Decrypt,
    GrantOperation::Encrypt,
    GrantOperation::GenerateDataKey,
    GrantOperation::GenerateDataKeyWithoutPlaintext,
    GrantOperation::ReEncryptFrom,
    GrantOperation::ReEncryptTo,
    GrantOperation::CreateGrant,
    GrantOperation::RetireGrant,
    GrantOperation::DescribeKey,
];

impl GrantOperation {
    /// The name in AWS's spelling.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Decrypt => "Decrypt",
            Self::Encrypt => "Encrypt",
            Self::GenerateDataKey => "GenerateDataKey",
            Self::GenerateDataKeyWithoutPlaintext => "GenerateDataKeyWithoutPlaintext",
            Self::ReEncryptFrom => "ReEncryptFrom",
            Self::ReEncryptTo => "ReEncryptTo",
            Self::CreateGrant => "CreateGrant",
            Self::RetireGrant => "RetireGrant",
            Self::DescribeKey => "DescribeKey",
        }
    }

    /// Whether constraints speak of it.
    pub(super) const fn has_context(self) -> bool {
        match self {
            Self::Decrypt
            | Self::Encrypt
            | Self::GenerateDataKey
            | Self::GenerateDataKeyWithoutPlaintext
            | Self::ReEncryptFrom
            | Self::ReEncryptTo => true,
            Self::CreateGrant | Self::RetireGrant | Self::DescribeKey => false,
        }
    }
}

impl FromStr for GrantOperation {
    type Err = KmsError;

    fn from_str(text: &str) -> Result<Self, KmsError> {
        let mut all = GRANT_OPERATIONS.into_iter();
        all.find(|operation| operation.as_str() == text)
            .ok_or_else(|| {
                let names = GRANT_OPERATIONS.map(GrantOperation::as_str).join(", ");
                KmsError::ValidationException(format!(
                    "a grant cannot allow {text:?}, only {names}"
                ))
            })
    }
}

impl GrantId {
    pub(super) fn random() -> Result<Self, KmsError> {
        let mut bytes = [0; ID_BYTES];
        getrandom::fill(&mut bytes)?;
        Ok(Self(hex::encode(bytes)))
    }
}

impl TryFrom<String> for GrantId {
    type Error = KmsError;

    fn try_from(text: String) -> Result<Self, KmsError> {
        let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() == 2 * ID_BYTES && text.bytes().all(is_digit) {
            return Ok(Self(text));
        }
        Err(KmsError::ValidationException(format!(
            "{text:?} is no grant id: that has 64 lower-case hexadecimal digits"
        )))
    }
}

impl FromStr for GrantId {
    type Err = KmsError;

    fn from_str(text: &str) -> Result<Self, KmsError> {
        text.to_owned().try_into()
    }
}

impl From<GrantId> for String {
    fn from(id: GrantId) -> Self {
        id.0
    }
}

impl fmt::Display for GrantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl GrantName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for GrantName {
    type Error = KmsError;

    fn try_from(text: String) -> Result<Self, KmsError> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || ":/_-".contains(c);
        if (1..=MAX_GRANT_NAME).contains(&text.len()) && text.chars().all(allowed) {
            return Ok(Self(text));
        }
        Err(KmsError::ValidationException(format!(
            "{text:?} is no name of a grant: that has 1 to {MAX_GRANT_NAME} letters, digits, \":\", \"/\", \"_\" and \"-\""
        )))
    }
}

impl FromStr for GrantName {
    type Err = KmsError;

    fn from_str(text: &str) -> Result<Self, KmsError> {
        text.to_owned().try_into()
    }
}

impl From<GrantName> for String {
    fn from(name: GrantName) -> Self {
        name.0
    }
}
