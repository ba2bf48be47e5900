//! The locks of `fs`, by one name, so that `tests/interleavings` can put others in their place: it compiles the same
//! sources with locks that a scheduler looks through, and runs what threads do in every order it can.
//!
//! What their users rely on: `read` waits behind a writer that waits, `read_recursive` does not.

pub use std::sync::atomic;

use std::time::{Duration, Instant};

pub use parking_lot::{
    MappedRwLockReadGuard, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard,
};

/// How long to ask for a lock before going to sleep: somewhat longer than a block is written or read, which is less than it
/// takes to be woken.
const AWAKE: Duration = Duration::from_micros(15);
/// Rests of the processor between two questions.
const PAUSES: u32 = 8;

/// Takes a lock to write. Stays awake for a while where another has it: for locks that are held for the length of a small
/// request, and wanted by many at once.
pub fn write_awake<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    awake(|| lock.try_write()).unwrap_or_else(|| lock.write())
}

/// Takes a lock to read, as [`write_awake`] does.
pub fn read_awake<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    awake(|| lock.try_read()).unwrap_or_else(|| lock.read())
}

fn awake<G>(attempt: impl Fn() -> Option<G>) -> Option<G> {
    let at_once = attempt();
    if at_once.is_some() {
        return at_once;
    }
    let until = Instant::now() + AWAKE;
    while Instant::now() < until {
        for _ in 0..PAUSES {
            std::hint::spin_loop();
        }
        let taken = attempt();
        if taken.is_some() {
            return taken;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn who_stays_awake_has_the_lock_when_it_is_free_however_long_that_takes() {
        for held in [Duration::ZERO, AWAKE, 1000 * AWAKE] {
            let lock = Arc::new(RwLock::new(1));
            let inside = lock.write();
            let others = [
                std::thread::spawn({
                    let lock = Arc::clone(&lock);
                    move || *write_awake(&lock) += 1
                }),
                std::thread::spawn({
                    let lock = Arc::clone(&lock);
                    move || assert!(*read_awake(&lock) > 0)
                }),
            ];
            std::thread::sleep(held);
            drop(inside);
            others
                .into_iter()
                .for_each(|other| other.join().expect("it has had the lock"));
            assert_eq!(*lock.read(), 2);
        }
    }

    #[test]
    fn a_recursive_reader_does_not_wait_behind_a_writer_that_waits() {
        let lock = Arc::new(RwLock::new(()));
        let inside = lock.read();
        let waiting = Arc::clone(&lock);
        let writer = std::thread::spawn(move || drop(waiting.write()));
        let until = Instant::now() + Duration::from_secs(10);
        // Until it waits for this thread.
        while lock.try_read().is_some() {
            assert!(Instant::now() < until);
            std::thread::yield_now();
        }
        assert!(lock.try_read_recursive().is_some());
        drop(inside);
        writer.join().unwrap();
    }
}
