//! What every part of the filesystem works with: the backing calls, the keys, and whether anything may change.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::sync::Mutex;
use rustix::io::Errno;

use super::backing::Backing;
use super::error::FsResult;
use super::journals::Journals;
use super::object::KeyRing;

/// The ground that files, directories and operations stand on.
#[derive(Debug)]
pub struct Core {
    /// The backing calls.
    pub backing: Backing,
    /// The keys.
    pub ring: KeyRing,
    /// Where redo journals lie; `None` where the volume has none.
    pub journals: Option<Journals>,
    /// The backing filesystem lies in memory.
    pub volatile: bool,
    /// Nothing may change.
    pub read_only: bool,
    /// Directory descriptors used lately, kept open for the next use.
    pub descriptors: RecentDescriptors,
}

impl Core {
    /// Blocks that may be on the disk already are recorded before they are overwritten. Journals that were written elsewhere
    /// are recovered in any case.
    pub const fn journals_overwrites(&self) -> bool {
        self.journals.is_some() && !self.volatile
    }

    /// Refuses in a read-only mount.
    pub fn writable(&self) -> FsResult<()> {
        if self.read_only {
            Err(Errno::ROFS.into())
        } else {
            Ok(())
        }
    }
}

/// Keeps the descriptors used last open, and no more than so many, however many directories are known.
#[derive(Debug)]
pub struct RecentDescriptors {
    limit: usize,
    kept: Mutex<VecDeque<Arc<OwnedFd>>>,
}

impl RecentDescriptors {
    /// Keeps at most `limit`.
    pub const fn new(limit: usize) -> Self {
        Self {
            limit,
            kept: Mutex::new(VecDeque::new()),
        }
    }

    /// Keeps this one, and lets the oldest go.
    pub fn keep(&self, descriptor: Arc<OwnedFd>) {
        let mut kept = self.kept.lock();
        kept.push_back(descriptor);
        let oldest = if kept.len() > self.limit {
            kept.pop_front()
        } else {
            None
        };
        drop(kept);
        drop(oldest);
    }

    /// Keeps this one no longer: its directory is gone.
    pub fn let_go(&self, descriptor: &Arc<OwnedFd>) {
        let mut kept = self.kept.lock();
        kept.retain(|other| !Arc::ptr_eq(other, descriptor));
    }
}
