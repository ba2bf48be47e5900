//! The audit log: what was asked of keys, by whom, and what came of it. One JSON line an event, CloudTrail's fields, chained.
//!
//! [`identity`] who asks · `line` one event as text · `chain` walking over lines · `log` the file and its sealed end ·
//! `verify` whether it is whole · [`query`] reading it.
//!
//! Facts: AWS CloudTrail, "CloudTrail record contents". docs/KEYSTORE.md, "The audit log", is the twin of this folder.

mod chain;
pub mod identity;
mod line;
mod log;
pub mod query;
mod verify;

#[cfg(test)]
mod tests;

pub(super) use line::Recorder;
pub(super) use log::{AUDIT, AuditLog, Batch, make, restart};
pub use query::{AuditEvent, BackupInfo, Filter};
pub use verify::AuditVerification;
pub(super) use verify::verify;
