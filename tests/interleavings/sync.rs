//! The locks of `crate::sync` for exploration: the same calls and the same promises as parking_lot's, but it is the
//! scheduler that decides who goes on. The data lies behind a real lock, which by then is always free.

use std::fmt;
use std::ops::{Deref, DerefMut};

use shuttle::sync::{Condvar, Mutex as Scheduled};

/// Atomics after which another thread may go on.
pub mod atomic {
    pub use shuttle::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
}

std::thread_local! {
    static IS_EXPLORING: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// Runs `work` with locks that the scheduler looks through.
pub fn exploring<T>(work: impl FnOnce() -> T) -> T {
    IS_EXPLORING.set(true);
    let result = work();
    IS_EXPLORING.set(false);
    result
}

struct Queue {
    readers: usize,
    writer: bool,
    waiting_writers: usize,
}

/// Who is inside a lock, and who waits before it.
struct Gate {
    queue: Scheduled<Queue>,
    changed: Condvar,
}

impl Gate {
    const fn new() -> Self {
        let queue = Queue {
            readers: 0,
            writer: false,
            waiting_writers: 0,
        };
        Self {
            queue: Scheduled::new(queue),
            changed: Condvar::new(),
        }
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

/// Somebody inside a lock.
struct Inside<'a>(Option<&'a Gate>, bool);

impl Gate {
    fn enter(&self, alone: bool, behind_waiting_writers: bool) -> Inside<'_> {
        if !IS_EXPLORING.get() {
            return Inside(None, alone);
        }
        let mut queue = self.queue.lock().expect("nobody panics inside");
        if alone {
            queue.waiting_writers += 1;
        }
        loop {
            let must_wait = if alone {
                queue.writer || queue.readers > 0
            } else {
                queue.writer || (behind_waiting_writers && queue.waiting_writers > 0)
            };
            if !must_wait {
                break;
            }
            queue = self.changed.wait(queue).expect("nobody panics inside");
        }
        if alone {
            queue.waiting_writers -= 1;
            queue.writer = true;
        } else {
            queue.readers += 1;
        }
        Inside(Some(self), alone)
    }

    /// Enters if that is possible at once.
    fn try_enter(&self, alone: bool) -> Option<Inside<'_>> {
        if !IS_EXPLORING.get() {
            return Some(Inside(None, alone));
        }
        let mut queue = self.queue.lock().expect("nobody panics inside");
        if queue.writer || queue.waiting_writers > 0 || (alone && queue.readers > 0) {
            return None;
        }
        if alone {
            queue.writer = true;
        } else {
            queue.readers += 1;
        }
        Some(Inside(Some(self), alone))
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        let Some(gate) = self.0.filter(|_| !std::thread::panicking()) else {
            return;
        };
        let mut queue = gate.queue.lock().expect("nobody panics inside");
        if self.1 {
            queue.writer = false;
        } else {
            queue.readers -= 1;
        }
        drop(queue);
        gate.changed.notify_all();
    }
}

/// A lock that one thread holds.
#[derive(Default)]
pub struct Mutex<T> {
    gate: Gate,
    data: parking_lot::Mutex<T>,
}

/// What a [`Mutex`] guards. The data goes first, then the place.
pub struct MutexGuard<'a, T> {
    data: parking_lot::MutexGuard<'a, T>,
    _inside: Inside<'a>,
}

impl<T> Mutex<T> {
    pub const fn new(data: T) -> Self {
        Self {
            gate: Gate::new(),
            data: parking_lot::Mutex::new(data),
        }
    }

    pub fn lock(&self) -> MutexGuard<'_, T> {
        let inside = self.gate.enter(true, false);
        let data = self.data.lock();
        MutexGuard {
            data,
            _inside: inside,
        }
    }

    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        let inside = self.gate.try_enter(true)?;
        let data = self.data.lock();
        Some(MutexGuard {
            data,
            _inside: inside,
        })
    }
}

/// A lock that readers share.
#[derive(Default)]
pub struct RwLock<T> {
    gate: Gate,
    data: parking_lot::RwLock<T>,
}

/// What a reader sees. The data goes first, then the place.
pub struct RwLockReadGuard<'a, T> {
    data: parking_lot::RwLockReadGuard<'a, T>,
    inside: Inside<'a>,
}

/// A part of what a reader sees.
pub struct MappedRwLockReadGuard<'a, T> {
    data: parking_lot::MappedRwLockReadGuard<'a, T>,
    _inside: Inside<'a>,
}

/// What a writer sees.
pub struct RwLockWriteGuard<'a, T> {
    data: parking_lot::RwLockWriteGuard<'a, T>,
    _inside: Inside<'a>,
}

impl<T> RwLock<T> {
    pub const fn new(data: T) -> Self {
        Self {
            gate: Gate::new(),
            data: parking_lot::RwLock::new(data),
        }
    }

    fn shared<'a>(&'a self, inside: Inside<'a>) -> RwLockReadGuard<'a, T> {
        let data = self.data.read_recursive();
        RwLockReadGuard { data, inside }
    }

    /// Waits behind writers that wait.
    pub fn read(&self) -> RwLockReadGuard<'_, T> {
        self.shared(self.gate.enter(false, true))
    }

    /// Waits for nobody but a writer inside.
    pub fn read_recursive(&self) -> RwLockReadGuard<'_, T> {
        self.shared(self.gate.enter(false, false))
    }

    pub fn try_read(&self) -> Option<RwLockReadGuard<'_, T>> {
        Some(self.shared(self.gate.try_enter(false)?))
    }

    pub fn write(&self) -> RwLockWriteGuard<'_, T> {
        let inside = self.gate.enter(true, false);
        let data = self.data.write();
        RwLockWriteGuard {
            data,
            _inside: inside,
        }
    }
}

impl<'a, T> RwLockReadGuard<'a, T> {
    pub fn try_map<U>(
        guard: Self,
        part: impl FnOnce(&T) -> Option<&U>,
    ) -> Result<MappedRwLockReadGuard<'a, U>, Self> {
        let Self { data, inside } = guard;
        match parking_lot::RwLockReadGuard::try_map(data, part) {
            Ok(data) => Ok(MappedRwLockReadGuard {
                data,
                _inside: inside,
            }),
            Err(data) => Err(Self { data, inside }),
        }
    }
}

macro_rules! shows {
    ($($guard:ident),*) => {$(
        impl<T> Deref for $guard<'_, T> {
            type Target = T;

            fn deref(&self) -> &T {
                &self.data
            }
        }

        impl<T: fmt::Debug> fmt::Debug for $guard<'_, T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                (**self).fmt(f)
            }
        }
    )*};
}

shows!(
    MutexGuard,
    RwLockReadGuard,
    MappedRwLockReadGuard,
    RwLockWriteGuard
);

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.data
    }
}

impl<T> DerefMut for RwLockWriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.data
    }
}

impl<T> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mutex")
    }
}

impl<T> fmt::Debug for RwLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RwLock")
    }
}

/// As one that sleeps: it is the scheduler that decides how long it takes.
pub fn write_awake<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write()
}

/// As one that sleeps.
pub fn read_awake<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read()
}
