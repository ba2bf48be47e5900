//! The locks of `fs`, by one name, so that `tests/interleavings` can put others in their place: it compiles the same
//! sources with locks that a scheduler looks through, and runs what threads do in every order it can.
//!
//! What their users rely on: `read` waits behind a writer that waits, `read_recursive` does not.

pub use std::sync::atomic;

pub use parking_lot::{MappedRwLockReadGuard, Mutex, MutexGuard, RwLock, RwLockReadGuard};

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use super::*;

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
