//! Leases: data keys are held, not owned. Every object key in memory belongs to the lease of the CMK that wraps it.
//! Revoking a lease waits for the operations that are using its keys, wipes the keys, and makes every later operation
//! fail with the reason; restoring it lets them be unwrapped again. Lock order: lease state, then an object's key slot.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, RwLock, RwLockReadGuard};

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
            .field("state", &*self.state.read())
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
    pub(super) fn hold(&self, holder: Weak<dyn Revocable>) {
        let mut holders = self.holders.lock();
        // Amortised: the list is swept only when it would have to grow.
        if holders.len() == holders.capacity() {
            holders.retain(|holder| holder.strong_count() > 0);
            let spare = holders.len().max(64);
            holders.reserve(spare);
        }
        holders.push(holder);
    }

    /// Waits for the operations under way, then wipes every key held under this lease. Says how many objects held one.
    fn revoke(&self, why: KeyUnavailable) -> usize {
        *self.why.lock() = why;
        self.closing.store(true, Ordering::Release);
        let mut state = self.state.write();
        *state = Err(why);
        let holders = std::mem::take(&mut *self.holders.lock());
        let alive: Vec<_> = holders.iter().filter_map(Weak::upgrade).collect();
        alive.iter().for_each(|holder| holder.wipe_keys());
        alive.len()
    }

    fn restore(&self) {
        *self.state.write() = Ok(());
        self.closing.store(false, Ordering::Release);
    }
}

/// The leases of a mounted volume, one a CMK.
#[derive(Debug, Default)]
pub struct Leases(RwLock<HashMap<KeyId, Arc<Lease>>>);

impl Leases {
    /// The lease of a CMK.
    pub(super) fn of(&self, key: KeyId) -> Arc<Lease> {
        if let Some(lease) = self.0.read().get(&key) {
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
        Arc::clone(self.0.write().entry(key).or_insert_with(fresh))
    }

    /// Every CMK that has a lease, and whether it holds.
    #[must_use]
    pub fn list(&self) -> Vec<(KeyId, Result<(), KeyUnavailable>)> {
        self.0
            .read()
            .iter()
            .map(|(key, lease)| (*key, *lease.state.read()))
            .collect()
    }

    /// Whether a CMK may be used; one that has no lease yet may.
    ///
    /// # Errors
    /// Why its lease was revoked.
    pub fn state(&self, key: KeyId) -> Result<(), KeyUnavailable> {
        self.0
            .read()
            .get(&key)
            .map_or(Ok(()), |lease| *lease.state.read())
    }

    /// How many data keys of a CMK are in memory.
    #[must_use]
    pub fn data_keys(&self, key: KeyId) -> u64 {
        let leases = self.0.read();
        let count = |lease: &Arc<Lease>| {
            let holders = lease.holders.lock();
            let alive = holders.iter().filter(|holder| holder.strong_count() > 0);
            alive.count() as u64
        };
        leases.get(&key).map_or(0, count)
    }

    /// Revokes the lease of a CMK: waits for operations under way, wipes its data keys, refuses from now on. Says how
    /// many objects held a key.
    pub fn revoke(&self, key: KeyId, why: KeyUnavailable) -> usize {
        self.of(key).revoke(why)
    }

    /// Lets a CMK be used again: data keys are unwrapped anew as they are needed.
    pub fn restore(&self, key: KeyId) {
        self.of(key).restore();
    }
}
