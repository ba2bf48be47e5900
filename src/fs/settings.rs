//! How a filesystem is set up.

use rustix::process::{Resource, getrlimit};

/// How a filesystem is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Nothing may change.
    pub read_only: bool,
    /// How many backing descriptors it may keep open beyond those that are in use.
    pub spare_descriptors: usize,
}

impl Settings {
    /// Settings that go with what this process may have open.
    #[must_use]
    pub fn new(read_only: bool) -> Self {
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(1024);
        // Half for what users have open; beyond some thousand, more do not make it faster.
        let spare_descriptors = usize::try_from(limit / 2).unwrap_or(512).clamp(64, 8192);
        Self {
            read_only,
            spare_descriptors,
        }
    }
}
