//! Keys change under a running mount, and the mount obeys: told by the command that changes one (`control`), and several
//! times a second by asking itself whether every CMK in use may still be used. Where not: dirty pages are written while
//! they still can be, the lease is revoked (which waits for the operations under way and wipes the data keys), and the
//! kernel drops what it has cached. Where it may again: the lease is restored, and data keys are unwrapped anew as they
//! are needed.
//!
//! The order matters. A read answered after the invalidation would put plaintext back into the page cache, so
//! invalidation waits until the answers that were under way are sent; what comes later fails at the lease. One change is
//! worked on at a time, whoever noticed it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::session::{Forgets, InFlight, Notifier, RefusedWrites, Session, WriteBack};
use super::sharing::share_out;
use crate::fs::keys::KeyUnavailable;
use crate::fs::{NodeId, Withdrawn};
use crate::ids::KeyId;
use crate::volume::Volume;

/// How often keys are checked.
pub const INTERVAL: Duration = Duration::from_millis(200);
/// How long dirty pages may delay a revocation, which is to be done within a second. What is not written by then is
/// refused, and its writer learns of it from fsync(2) or close(2).
const WRITE_BACK: Duration = Duration::from_millis(600);
/// How long dirty pages may delay a command that is about to withdraw a key. Nobody's plaintext is at stake yet, but a busy
/// writer must not be able to put it off for ever.
const PREPARATION: Duration = Duration::from_secs(8);
/// How long a key store may be unreadable before that counts as a refusal: a passing lack of descriptors or memory is none.
const STORE_GRACE: Duration = Duration::from_secs(2);

/// What a withdrawal of a key took away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Withdrawal {
    /// Data keys that were wiped.
    pub data_keys: u64,
    /// Inodes of which the kernel has nothing cached any more.
    pub inodes: u64,
    /// Names that the kernel does not have any more, or asks for before it uses them.
    pub names: u64,
    /// Whether everything dirty was written before.
    pub is_flushed: bool,
    /// How long it took.
    pub took: Duration,
}

/// What there is to say of a key that is not withdrawn.
const NOTHING: Withdrawal = Withdrawal {
    data_keys: 0,
    inodes: 0,
    names: 0,
    is_flushed: true,
    took: Duration::ZERO,
};

/// Watches the keys of one mount.
pub struct Watcher {
    fs: Arc<Volume>,
    write_back: Arc<WriteBack>,
    notifier: Notifier,
    in_flight: InFlight,
    forgets: Forgets,
    refused_writes: RefusedWrites,
    /// Held for as long as a change is worked on. Before every lock of the core.
    turn: Mutex<Turn>,
}

/// What is remembered from one turn to the next.
#[derive(Default)]
struct Turn {
    unreadable_since: HashMap<KeyId, Instant>,
    /// Of the keys that are withdrawn: what that took away, for the command that caused it and comes second.
    withdrawn: HashMap<KeyId, Withdrawal>,
}

impl std::fmt::Debug for Watcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watcher").finish_non_exhaustive()
    }
}

impl Watcher {
    /// Watches the leases of a volume.
    #[must_use]
    pub fn new(fs: Arc<Volume>, session: Session) -> Self {
        Self {
            fs,
            in_flight: session.service.in_flight(),
            forgets: session.service.forgets(),
            refused_writes: session.service.refused_writes(),
            write_back: session.write_back,
            notifier: session.notifier,
            turn: Mutex::default(),
        }
    }

    /// Checks every key once and acts on what has changed.
    pub fn step(&self) {
        let mut turn = self.turn.lock();
        // First: what a withdrawal adds is for the next time.
        self.drop_refused_writes();
        for (key, state) in self.fs.leases().list() {
            let answer = self.fs.keys().check(&key);
            if !turn.is_passing_trouble(key, answer) {
                self.follow(&mut turn, key, state, answer);
            }
        }
    }

    /// A key is about to be withdrawn: writes what is dirty while it still works. Says whether that came to an end.
    pub fn prepare(&self, key: KeyId) -> bool {
        let is_in_use = |(used, lease): &(KeyId, Result<_, _>)| *used == key && lease.is_ok();
        if !self.fs.leases().list().iter().any(is_in_use) {
            return true;
        }
        let is_complete = self.write_back(PREPARATION);
        // Sealed while that is possible. What cannot be is sealed when the key is back.
        self.fs.seal_now();
        is_complete
    }

    /// Acts on a key that has changed. Says whether it may be used now, and what was taken away if not.
    pub fn obey(&self, key: KeyId) -> (Result<(), KeyUnavailable>, Withdrawal) {
        let mut turn = self.turn.lock();
        let answer = self.fs.keys().check(&key);
        if answer != Err(KeyUnavailable::Store) {
            // Also where no lease of it is known: an operation under way may have been given a data key already, and be
            // about to take a lease.
            let state = self.fs.leases().state(key);
            self.follow(&mut turn, key, state, answer);
        }
        let withdrawal = turn.withdrawn.get(&key).copied().unwrap_or(NOTHING);
        (answer, withdrawal)
    }

    fn follow(
        &self,
        turn: &mut Turn,
        key: KeyId,
        state: Result<(), KeyUnavailable>,
        answer: Result<(), KeyUnavailable>,
    ) {
        match (state, answer) {
            (Err(_), Ok(())) => {
                log::info!("key {key} may be used again");
                turn.withdrawn.remove(&key);
                self.fs.leases().restore(key);
            }
            (Ok(()), Err(why)) => {
                let withdrawal = self.revoke(key, why);
                turn.withdrawn.insert(key, withdrawal);
            }
            // Only the reason changes: nothing is held or cached any more.
            (Err(before), Err(why)) if before != why => {
                self.fs.withdraw(key, why);
            }
            (Ok(()), Ok(())) | (Err(_), Err(_)) => {}
        }
    }

    fn revoke(&self, key: KeyId, why: KeyUnavailable) -> Withdrawal {
        let start = Instant::now();
        let is_flushed = self.write_back(WRITE_BACK);
        let withdrawn = self.fs.withdraw(key, why);
        self.drop_caches(&withdrawn);
        let withdrawal = Withdrawal {
            data_keys: withdrawn.data_keys as u64,
            inodes: withdrawn.nodes.len() as u64,
            names: withdrawn.names.len() as u64,
            is_flushed,
            took: start.elapsed(),
        };
        log::warn!("key {key} is withdrawn ({why}): {withdrawal:?}");
        withdrawal
    }

    /// Has the kernel drop what it has by grace of a key.
    fn drop_caches(&self, withdrawn: &Withdrawn) {
        // What was answered before has reached the kernel then, and is dropped with the rest.
        self.in_flight.drain();
        // Nearly all of it is used by nobody, and goes with pages, attributes and names, many at once. What follows
        // looks after each one that is left: all of them where the kernel does not know how.
        let gathering = self.forgets.gather();
        self.prune(&withdrawn.nodes);
        drop(gathering);
        let kept = self.drop_pages(&withdrawn.nodes);
        // An inode that the kernel does not know has no name there either.
        let names = withdrawn.names.iter();
        for name in names.filter(|name| kept.contains(&name.node)) {
            let dropped = if name.is_in_use {
                self.notifier.expire(name.parent, &name.name)
            } else {
                self.notifier.entry(name.parent, &name.name)
            };
            if let Err(error) = dropped {
                log::warn!("the kernel keeps a name of inode {}: {error}", name.parent);
            }
        }
        // Names of directories have only expired, lest processes in them lose their place; those that nobody uses can go.
        let nodes = withdrawn.nodes.iter();
        let left: Vec<_> = nodes.filter(|node| kept.contains(node)).copied().collect();
        self.prune(&left);
        // A write(2) that was under way may have gone on filling pages; no other can have begun. Its pages go now, and once
        // more with the next step.
        // Also where the kernel did not know the inode: who creates a file may have been answered, and not have gone on yet.
        let writers = self.fs.written();
        let written = || {
            withdrawn
                .nodes
                .iter()
                .filter(|node| writers.contains(*node))
        };
        written().for_each(|node| self.refused_writes.add(*node));
        self.drop_refused_writes();
        written().for_each(|node| self.refused_writes.add(*node));
    }

    fn prune(&self, nodes: &[NodeId]) {
        let prune = |nodes: &[NodeId]| self.notifier.prune(nodes);
        for error in share_out(nodes, prune).into_iter().filter_map(Result::err) {
            log::debug!("what nobody uses stays in the kernel's memory for a while: {error}");
        }
    }

    /// Has the kernel drop the pages and attributes of inodes. Returns those that it knows.
    fn drop_pages(&self, nodes: &[NodeId]) -> HashSet<NodeId> {
        let is_known = |node: &NodeId| {
            self.notifier.inode(*node).unwrap_or_else(|error| {
                log::warn!("the kernel keeps what it has cached of inode {node}: {error}");
                true
            })
        };
        let known =
            |nodes: &[NodeId]| -> Vec<_> { nodes.iter().copied().filter(is_known).collect() };
        share_out(nodes, known).into_iter().flatten().collect()
    }

    fn drop_refused_writes(&self) {
        let nodes: Vec<_> = self.refused_writes.take().into_iter().collect();
        self.drop_pages(&nodes);
    }

    /// Writes back in a thread of its own, because a busy writer could keep it going for ever. Says whether it was done.
    fn write_back(&self, patience: Duration) -> bool {
        let (done, finished) = channel();
        let write_back = Arc::clone(&self.write_back);
        let spawned = std::thread::Builder::new()
            .name("cmkfs-writeback".to_owned())
            .spawn(move || {
                // Nobody waits any more where the deadline has passed.
                let _ = done.send(write_back.run());
            });
        match spawned.map(|_| finished.recv_timeout(patience)) {
            Ok(Ok(Ok(()))) => return true,
            Ok(Ok(Err(error))) | Err(error) => {
                log::warn!("dirty pages were not written before a key's withdrawal: {error}");
            }
            Ok(Err(_)) => {
                log::warn!("not all dirty pages could be written before a key's withdrawal");
            }
        }
        false
    }
}

impl Turn {
    /// Whether an answer says nothing of the key: what was so before stays so, also that it is withdrawn.
    fn is_passing_trouble(&mut self, key: KeyId, answer: Result<(), KeyUnavailable>) -> bool {
        if answer != Err(KeyUnavailable::Store) {
            self.unreadable_since.remove(&key);
            return false;
        }
        let since = *self
            .unreadable_since
            .entry(key)
            .or_insert_with(Instant::now);
        since.elapsed() < STORE_GRACE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_cannot_be_read_for_a_moment_changes_nothing_and_gives_no_key_back() {
        const KEY: KeyId = KeyId([7; 16]);
        let mut turn = Turn::default();
        assert!(turn.is_passing_trouble(KEY, Err(KeyUnavailable::Store)));
        assert!(!turn.is_passing_trouble(KEY, Err(KeyUnavailable::Disabled)));
        assert!(!turn.is_passing_trouble(KEY, Ok(())));
        let long_ago = Instant::now().checked_sub(STORE_GRACE).unwrap();
        turn.unreadable_since.insert(KEY, long_ago);
        assert!(!turn.is_passing_trouble(KEY, Err(KeyUnavailable::Store)));
    }
}
