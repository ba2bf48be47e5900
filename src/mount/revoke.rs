//! Keys change under a running mount, and the mount obeys. Several times a second every CMK in use is asked whether it may
//! still be used. Where not: dirty pages are written while they still can be, the lease is revoked (which waits for the
//! operations under way and wipes the data keys), and the kernel drops what it has cached. Where it may again: the lease is
//! restored, and data keys are unwrapped anew as they are needed.
//!
//! The order matters. A read answered after the invalidation would put plaintext back into the page cache, so
//! invalidation waits until the answers that were under way are sent; what comes later fails at the lease.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use super::session::{InFlight, Invalidator, WriteBack};
use crate::fs::keys::KeyUnavailable;
use crate::ids::KeyId;
use crate::volume::Volume;

/// How often keys are checked.
pub const INTERVAL: Duration = Duration::from_millis(200);
/// How long dirty pages may delay a revocation, which is to be done within a second. What is not written by then is
/// refused, and its writer learns of it from fsync(2) or close(2).
const WRITE_BACK: Duration = Duration::from_millis(600);
/// How long a key store may be unreadable before that counts as a refusal: a passing lack of descriptors or memory is none.
const STORE_GRACE: Duration = Duration::from_secs(2);

/// Watches the keys of one mount.
pub struct Watcher {
    fs: Arc<Volume>,
    write_back: Arc<WriteBack>,
    invalidator: Invalidator,
    in_flight: InFlight,
    unreadable_since: HashMap<KeyId, Instant>,
}

impl std::fmt::Debug for Watcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watcher").finish_non_exhaustive()
    }
}

impl Watcher {
    /// Watches the leases of a volume.
    #[must_use]
    pub fn new(
        fs: Arc<Volume>,
        write_back: Arc<WriteBack>,
        invalidator: Invalidator,
        in_flight: InFlight,
    ) -> Self {
        Self {
            fs,
            write_back,
            invalidator,
            in_flight,
            unreadable_since: HashMap::new(),
        }
    }

    /// Checks every key once and acts on what has changed.
    pub fn step(&mut self) {
        for (key, state) in self.fs.leases().list() {
            let answer = self.fs.keys().check(&key);
            let answer = self.forgive_passing_trouble(key, answer);
            match (state, answer) {
                (Err(_), Ok(())) => {
                    log::info!("key {key} may be used again");
                    self.fs.leases().restore(key);
                }
                (Ok(()), Err(why)) => self.revoke(key, why),
                // Only the reason changes: nothing is held or cached any more.
                (Err(before), Err(why)) if before != why => {
                    self.fs.leases().revoke(key, why);
                }
                (Ok(()), Ok(())) | (Err(_), Err(_)) => {}
            }
        }
    }

    fn forgive_passing_trouble(
        &mut self,
        key: KeyId,
        answer: Result<(), KeyUnavailable>,
    ) -> Result<(), KeyUnavailable> {
        if answer != Err(KeyUnavailable::Store) {
            self.unreadable_since.remove(&key);
            return answer;
        }
        let since = *self
            .unreadable_since
            .entry(key)
            .or_insert_with(Instant::now);
        if since.elapsed() < STORE_GRACE {
            Ok(())
        } else {
            answer
        }
    }

    fn revoke(&self, key: KeyId, why: KeyUnavailable) {
        self.write_back();
        let holders = self.fs.leases().revoke(key, why);
        self.in_flight.drain();
        let nodes = self.fs.nodes_under(key);
        log::warn!("key {key} is withdrawn ({why}): {holders} objects in use lose it");
        for node in nodes {
            if let Err(error) = self.invalidator.inode(node) {
                log::warn!("the kernel keeps what it has cached of inode {node}: {error}");
            }
        }
    }

    /// Writes back in a thread of its own, because a busy writer could keep it going for ever.
    fn write_back(&self) {
        let (done, finished) = channel();
        let write_back = Arc::clone(&self.write_back);
        let spawned = std::thread::Builder::new()
            .name("cmkfs-writeback".to_owned())
            .spawn(move || {
                // Nobody waits any more where the deadline has passed.
                let _ = done.send(write_back.run());
            });
        match spawned.map(|_| finished.recv_timeout(WRITE_BACK)) {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) | Err(error) => {
                log::warn!("dirty pages were not written before a key's withdrawal: {error}")
            }
            Ok(Err(_)) => {
                log::warn!("not all dirty pages could be written before a key's withdrawal")
            }
        }
    }
}
