//! The targets: each takes any bytes, and panics where something is wrong. They know nothing of the fuzzer, so that
//! `tests/corpus.rs` runs them too.
//!
//! [`format`] what lies in a volume, as bytes · [`sealed`] the same, edited under its seals · [`recovery`] a file and its
//! journal under valid seals · [`hostile`] a whole volume, edited · [`operations`] sequences of operations with faults ·
//! [`power_cut`] the same with power cuts · [`fuse`] what the kernel sends · [`keystore`] key directories and backups · [`text`] what people and other
//! programs write.

pub mod edit;
pub mod format;
pub mod fuse;
pub mod hostile;
pub mod keystore;
pub mod model;
pub mod operations;
pub mod power_cut;
pub mod recovery;
pub mod sealed;
#[path = "../../../tests/support/mod.rs"]
mod support;
pub mod text;

/// A target.
#[derive(Debug)]
pub struct Target {
    /// That of its folder in the corpus.
    pub name: &'static str,
    /// Panics where something is wrong.
    pub run: fn(&[u8]),
    /// Bytes of memory that it may take however short its input is.
    #[allow(dead_code, reason = "tests/corpus.rs sets no limit")]
    pub room: usize,
}

/// For what reads its input and nothing else.
const DECODER: usize = 8 << 20;
/// For what opens a key directory.
const KEYSTORE: usize = 12 << 20;
/// For what opens a volume.
const VOLUME: usize = 72 << 20;

const fn target(name: &'static str, run: fn(&[u8]), room: usize) -> Target {
    Target { name, run, room }
}

/// Every target.
pub const TARGETS: [Target; 29] = [
    target("audit_log", keystore::audit_log, KEYSTORE),
    target("backup", keystore::backup, KEYSTORE),
    target("ciphertext", format::ciphertext, DECODER),
    target("control", text::control, DECODER),
    target("erase_report", text::erase_report, DECODER),
    target("file_journal", format::file_journal, DECODER),
    target("fuse_listing", fuse::listing, DECODER),
    target("fuse_request", fuse::request, DECODER),
    target("grant", text::grant, DECODER),
    target("header", format::header, DECODER),
    target("hostile_volume", hostile::volume, VOLUME),
    target("identifiers", text::identifiers, DECODER),
    target("journal", keystore::journal, KEYSTORE),
    target("keystore_files", keystore::files, KEYSTORE),
    target("keystore_records", keystore::records, KEYSTORE),
    target("material", text::material, DECODER),
    target("mount_options", text::mount_options, DECODER),
    target("mountinfo", text::mountinfo, DECODER),
    target("names", format::names, DECODER),
    target("operations", operations::operations, VOLUME),
    target("policy", text::policy, DECODER),
    target("power_cut", power_cut::power_cut, VOLUME),
    target("recovery", recovery::recovery, VOLUME),
    target("sealed", sealed::sealed, DECODER),
    target("slots", format::slots, DECODER),
    target("symlink", format::symlink, DECODER),
    target("unsealed", sealed::unsealed, DECODER),
    target("volume", format::volume, DECODER),
    target("xattr", format::xattr, DECODER),
];
