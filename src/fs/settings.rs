//! How a filesystem is set up.

use rustix::process::{Resource, getrlimit};

use crate::format::volume::feature;

/// How blocks are overwritten that may be on the disk already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overwrites {
    /// By way of a redo journal: a power cut leaves each block as it was or as it was to be, whatever of it the disk has
    /// taken by then, and in whatever order.
    #[default]
    Journaled,
    /// In their place at once. A power cut can lose blocks that were being overwritten.
    InPlace,
}

impl Overwrites {
    /// As the feature flags of a volume say.
    #[must_use]
    pub const fn of(features: u32) -> Self {
        if features & feature::JOURNAL == 0 {
            Self::InPlace
        } else {
            Self::Journaled
        }
    }

    /// The feature flags that say so.
    #[must_use]
    pub const fn features(self) -> u32 {
        match self {
            Self::Journaled => feature::JOURNAL,
            Self::InPlace => 0,
        }
    }
}

/// How a filesystem is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Nothing may change.
    pub read_only: bool,
    /// How blocks are overwritten.
    pub overwrites: Overwrites,
    /// The backing filesystem lies in memory. Nothing there outlives a power cut, so nothing is done against one.
    pub volatile: bool,
    /// How many backing descriptors it may keep open beyond those that are in use.
    pub spare_descriptors: usize,
}

impl Settings {
    /// Settings that go with what this process may have open.
    #[must_use]
    pub fn new(read_only: bool, overwrites: Overwrites, volatile: bool) -> Self {
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(1024);
        // Half for what users have open; beyond some thousand, more do not make it faster.
        let spare_descriptors = usize::try_from(limit / 2).unwrap_or(512).clamp(64, 8192);
        Self {
            read_only,
            overwrites,
            volatile,
            spare_descriptors,
        }
    }
}
