//! Key policies: who may do what with a key, in the language of AWS's resource policies. Pure: text and facts in, an answer out.
//!
//! [`document`] the JSON that is put and got · `json` its shapes · [`principal`] who · [`action`] what · `pattern` wildcards · `condition` when ·
//! [`request`] what is asked · [`evaluate`] the answer.
//!
//! What a document says and cmkfs does not know is refused, never ignored: an ignored word could be the one that denies.
//! Facts: AWS IAM, "Policy elements reference", "Policy evaluation logic"; AWS KMS, "Key policies", "Condition keys".

pub mod action;
mod condition;
pub mod document;
pub mod evaluate;
mod json;
mod pattern;
pub mod principal;
pub mod request;

pub use document::Policy;
pub use evaluate::{Denial, Permission, evaluate};
pub use principal::Principal;
pub use request::{Context, Request};
