//! The targets: each takes any bytes, and panics where something is wrong. They know nothing of the fuzzer, so that
//! `tests/corpus.rs` runs them too.
//!
//! [`format`] what lies in a volume, as bytes · [`sealed`] the same, edited under its seals · [`hostile`] a whole volume,
//! edited · [`operations`] sequences of operations with faults · [`keystore`] key directories and backups · [`text`] what
//! people and other programs write.

pub mod edit;
pub mod format;
pub mod hostile;
pub mod keystore;
pub mod model;
pub mod operations;
pub mod sealed;
#[path = "../../../tests/support/mod.rs"]
mod support;
pub mod text;

/// A target.
pub type Target = fn(&[u8]);

/// Every target under its name, which is that of its program and of its folder in the corpus.
pub const TARGETS: [(&str, Target); 23] = [
    ("audit_log", keystore::audit_log),
    ("backup", keystore::backup),
    ("ciphertext", format::ciphertext),
    ("control", text::control),
    ("erase_report", text::erase_report),
    ("file_journal", format::file_journal),
    ("grant", text::grant),
    ("header", format::header),
    ("hostile_volume", hostile::volume),
    ("identifiers", text::identifiers),
    ("journal", keystore::journal),
    ("keystore_files", keystore::files),
    ("keystore_records", keystore::records),
    ("mount_options", text::mount_options),
    ("mountinfo", text::mountinfo),
    ("names", format::names),
    ("operations", operations::operations),
    ("policy", text::policy),
    ("sealed", sealed::sealed),
    ("slots", format::slots),
    ("symlink", format::symlink),
    ("volume", format::volume),
    ("xattr", format::xattr),
];
