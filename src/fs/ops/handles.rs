//! Handles: the numbers by which the transport names what is open.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::sync::RwLock;
use rustix::io::Errno;

use crate::fs::error::FsResult;
use crate::fs::types::HandleId;

const SHARDS: u64 = 16;

/// A table of open things.
#[derive(Debug)]
pub struct Handles<T> {
    next: AtomicU64,
    shards: [RwLock<HashMap<HandleId, Arc<T>>>; SHARDS as usize],
}

impl<T> Default for Handles<T> {
    fn default() -> Self {
        Self {
            next: AtomicU64::new(1),
            shards: std::array::from_fn(|_| RwLock::default()),
        }
    }
}

impl<T> Handles<T> {
    /// Gives `open` a number. No number is given twice.
    pub fn insert(&self, open: T) -> HandleId {
        let handle = self.next.fetch_add(1, Ordering::Relaxed);
        self.shard(handle).write().insert(handle, Arc::new(open));
        handle
    }

    /// What a number stands for.
    pub fn get(&self, handle: HandleId) -> FsResult<Arc<T>> {
        self.shard(handle)
            .read()
            .get(&handle)
            .cloned()
            .ok_or_else(|| Errno::BADF.into())
    }

    /// Looks at all that numbers stand for. Lends, because who takes a number back wants to be the last to have it.
    pub fn each(&self, mut look: impl FnMut(&T)) {
        for shard in &self.shards {
            shard.read().values().for_each(|open| look(open));
        }
    }

    /// How many numbers stand for something.
    pub fn count(&self) -> u64 {
        let counts = self.shards.iter().map(|shard| shard.read().len() as u64);
        counts.sum()
    }

    /// Takes a number back.
    pub fn remove(&self, handle: HandleId) -> Option<Arc<T>> {
        self.shard(handle).write().remove(&handle)
    }

    fn shard(&self, handle: HandleId) -> &RwLock<HashMap<HandleId, Arc<T>>> {
        &self.shards[(handle % SHARDS) as usize]
    }
}
