//! Leases: data keys are held, not owned. Every object key in memory belongs to the lease of the CMK that wraps it.
//! Closing a lease waits for the operations that are using its keys and makes every later operation fail with the reason;
//! then the keys can be wiped. Restoring it lets them be unwrapped again. Lock order: lease state, then an object's key slot.

use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::collections::HashMap;
use std::sync::{Arc, Weak};

use crate::sync::{Mutex, RwLock, RwLockReadGuard};

use super::keys::KeyUnavailable;
use crate::ids::KeyId;

/// Holds keys that a revocation must wipe.
pub trait Revocable: Send + Sync {
    /// Wipes the keys. Called with no operation under way on the lease.
    fn wipe_keys(&self);
}

type State = Result<(), KeyUnavailable>;

/// The right to use what one CMK has unwrapped, until further notice.
pub struct Lease {
    key: KeyId,
    /// Set before a revocation waits for the operations under way, so that new ones cannot keep it waiting.
    closing: AtomicBool,
    why: Mutex<KeyUnavailable>,
    state: RwLock<State>,
    holders: Mutex<Vec<Weak<dyn Revocable>>>,
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lease")
            .field("key", &self.key)
            .field("state", &self.state())
            .finish_non_exhaustive()
    }
}

/// Proof that a lease holds: while it lives, a revocation waits.
#[derive(Debug)]
pub struct LeaseGuard<'a>(
    #[expect(dead_code, reason = "held, not read")] RwLockReadGuard<'a, State>,
);

impl Lease {
    /// The CMK.
    #[must_use]
    pub const fn key(&self) -> KeyId {
        self.key
    }

    /// Whether it holds. Recursive as [`Lease::enter`] is, and for the same reason: whoever asks may be inside a lease, this
    /// one or another.
    fn state(&self) -> State {
        *self.state.read_recursive()
    }

    /// Begins an operation that uses this lease's keys. Never held while waiting for the kernel or another lease.
    ///
    /// # Errors
    /// Why the lease was revoked.
    pub fn enter(&self) -> Result<LeaseGuard<'_>, KeyUnavailable> {
        // Recursive: an operation that holds this lease may enter it again for another object (a rename, say) while a
        // revocation is waiting; a fair lock would deadlock the three.
        if self.closing.load(Ordering::Acquire) {
            return Err(*self.why.lock());
        }
        let state = self.state.read_recursive();
        (*state)?;
        Ok(LeaseGuard(state))
    }

    /// Puts an object's keys under this lease. The caller holds a [`LeaseGuard`].
    pub(crate) fn hold(&self, holder: Weak<dyn Revocable>) {
        let mut holders = self.holders.lock();
        // Amortised: the list is swept only when it would have to grow.
        if holders.len() == holders.capacity() {
            holders.retain(|holder| holder.strong_count() > 0);
            let spare = holders.len().max(64);
            holders.reserve(spare);
        }
        holders.push(holder);
    }

    /// Waits for the operations under way; refuses from then on. Says whether it held before.
    fn close(&self, why: KeyUnavailable) -> bool {
        *self.why.lock() = why;
        self.closing.store(true, Ordering::Release);
        std::mem::replace(&mut *self.state.write(), Err(why)).is_ok()
    }

    /// Wipes every key held under this lease, which is closed. Says how many objects held one.
    fn wipe(&self) -> usize {
        let holders = std::mem::take(&mut *self.holders.lock());
        let alive: Vec<_> = holders.iter().filter_map(Weak::upgrade).collect();
        alive.iter().for_each(|holder| holder.wipe_keys());
        alive.len()
    }

    /// Says whether it was closed before.
    fn restore(&self) -> bool {
        let was_closed = std::mem::replace(&mut *self.state.write(), Ok(())).is_err();
        self.closing.store(false, Ordering::Release);
        was_closed
    }
}

/// The leases of a mounted volume, one a CMK.
#[derive(Debug, Default)]
pub struct Leases {
    known: RwLock<HashMap<KeyId, Arc<Lease>>>,
    revoked: AtomicUsize,
}

impl Leases {
    /// The lease of a CMK.
    pub(crate) fn of(&self, key: KeyId) -> Arc<Lease> {
        if let Some(lease) = self.known.read().get(&key) {
            return Arc::clone(lease);
        }
        let fresh = || {
            Arc::new(Lease {
                key,
                closing: AtomicBool::new(false),
                why: Mutex::new(KeyUnavailable::Disabled),
                state: RwLock::new(Ok(())),
                holders: Mutex::new(Vec::new()),
            })
        };
        Arc::clone(self.known.write().entry(key).or_insert_with(fresh))
    }

    /// Every CMK that has a lease, and whether it holds.
    #[must_use]
    pub fn list(&self) -> Vec<(KeyId, Result<(), KeyUnavailable>)> {
        self.known
            .read()
            .iter()
            .map(|(key, lease)| (*key, lease.state()))
            .collect()
    }

    /// Whether a CMK may be used; one that has no lease yet may.
    ///
    /// # Errors
    /// Why its lease was revoked.
    pub fn state(&self, key: KeyId) -> Result<(), KeyUnavailable> {
        self.known
            .read()
            .get(&key)
            .map_or(Ok(()), |lease| lease.state())
    }

    /// How many data keys of a CMK are in memory.
    #[must_use]
    pub fn data_keys(&self, key: KeyId) -> u64 {
        let leases = self.known.read();
        let count = |lease: &Arc<Lease>| {
            let holders = lease.holders.lock();
            let alive = holders.iter().filter(|holder| holder.strong_count() > 0);
            alive.count() as u64
        };
        leases.get(&key).map_or(0, count)
    }

    /// Whether any CMK is withdrawn.
    #[must_use]
    pub fn any_revoked(&self) -> bool {
        self.revoked.load(Ordering::Acquire) > 0
    }

    /// Closes the lease of a CMK: waits for operations under way, refuses from now on. Its data keys are still there.
    pub(crate) fn close(&self, key: KeyId, why: KeyUnavailable) {
        let lease = self.of(key);
        // Before, so that whoever finds it closed finds this too.
        self.revoked.fetch_add(1, Ordering::AcqRel);
        if !lease.close(why) {
            self.revoked.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// Wipes the data keys of a CMK whose lease is closed. Says how many objects held one.
    pub(crate) fn wipe(&self, key: KeyId) -> usize {
        self.of(key).wipe()
    }

    /// Lets a CMK be used again: data keys are unwrapped anew as they are needed.
    pub fn restore(&self, key: KeyId) {
        if self.of(key).restore() {
            self.revoked.fetch_sub(1, Ordering::AcqRel);
        }
    }
}
