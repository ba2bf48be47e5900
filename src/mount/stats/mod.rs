//! What a mount was asked since it was mounted: for each kind of request how many, how many failed, how long they took and
//! how many bytes they moved. It knows nothing of the transport that the requests come by.
//!
//! [`operation`] the kinds of request · [`histogram`] how long they took.
//!
//! It lies on the path of every request, so it takes no lock and allocates nothing: two looks at the clock and a few
//! relaxed additions. Its size is fixed, 4 KiB a kind, about 140 KiB a mount.

pub mod histogram;
pub mod operation;

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use histogram::Histogram;
pub use operation::Operation;

/// The counters of one kind of request, on cache lines of their own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Counters {
    errors: AtomicU64,
    bytes: AtomicU64,
    took: Histogram,
}

/// The counters of a mount. Every method may be called by any thread at any time, and none waits.
#[derive(Debug)]
pub struct Stats {
    /// One for each of [`Operation::ALL`].
    counters: Box<[Counters]>,
}

/// What became of one kind of request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct OperationStats {
    /// Its name: [`Operation::name`], or that of a kind which only a later version knows.
    pub operation: String,
    /// Requests that were answered.
    pub count: u64,
    /// Those of them that were answered with an error.
    pub errors: u64,
    /// The time they took together, each from when a worker had it in hand until its answer was sent, or over rings ready.
    pub total_nanoseconds: u64,
    /// At least half of them took no longer; never too small, less than an eighth too large.
    pub p50_nanoseconds: u64,
    /// At least 99 of 100 took no longer; as exact.
    pub p99_nanoseconds: u64,
    /// The longest, exactly.
    pub max_nanoseconds: u64,
    /// What they carried either way: content, values and lists of extended attributes, targets of links.
    pub bytes: u64,
}

impl Default for Stats {
    fn default() -> Self {
        let counters = Operation::ALL.iter().map(|_| Counters::default());
        Self {
            counters: counters.collect(),
        }
    }
}

impl Stats {
    /// A request is in hand. It is counted when what this returns is dropped, which is to be after its answer was sent.
    #[must_use]
    pub fn begin(&self, operation: Operation) -> Measured<'_> {
        self.take_over(Begun {
            operation,
            at: Instant::now(),
        })
    }

    /// Goes on with a request that another thread had in hand before.
    #[must_use]
    pub const fn take_over(&self, begun: Begun) -> Measured<'_> {
        Measured {
            stats: self,
            begun,
            bytes: Cell::new(0),
            is_failed: Cell::new(false),
            took: Cell::new(None),
        }
    }

    /// All kinds that were asked for, those that took the most time together first.
    #[must_use]
    pub fn list(&self) -> Vec<OperationStats> {
        let all = Operation::ALL.iter().zip(&self.counters);
        let mut list: Vec<_> = all
            .map(|(operation, counters)| counters.stats(*operation))
            .filter(|stats| stats.count > 0)
            .collect();
        list.sort_by_key(|stats| std::cmp::Reverse(stats.total_nanoseconds));
        list
    }

    fn record(&self, operation: Operation, took: Duration, bytes: u64, is_failed: bool) {
        // One for each operation, at its number.
        let counters = &self.counters[operation as usize];
        counters.took.record(took);
        if bytes > 0 {
            counters.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        if is_failed {
            counters.errors.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Counters {
    fn stats(&self, operation: Operation) -> OperationStats {
        let took = self.took.summary();
        OperationStats {
            operation: operation.name().to_owned(),
            count: took.count,
            errors: self.errors.load(Ordering::Relaxed),
            total_nanoseconds: took.total,
            p50_nanoseconds: took.p50,
            p99_nanoseconds: took.p99,
            max_nanoseconds: took.max,
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }
}

/// A request that waits for another thread to go on with it.
#[derive(Debug, Clone, Copy)]
pub struct Begun {
    operation: Operation,
    at: Instant,
}

/// A request in hand.
#[derive(Debug)]
pub struct Measured<'a> {
    stats: &'a Stats,
    begun: Begun,
    bytes: Cell<u64>,
    is_failed: Cell<bool>,
    took: Cell<Option<Duration>>,
}

impl Measured<'_> {
    /// What it asks for.
    #[must_use]
    pub const fn operation(&self) -> Operation {
        self.begun.operation
    }

    /// It carries so many bytes, either way.
    pub fn carries(&self, bytes: usize) {
        self.bytes.set(bytes as u64);
    }

    /// It is answered with an error.
    pub fn fails(&self) {
        self.is_failed.set(true);
    }

    /// Its time ends here, not when this is dropped.
    pub fn stop(&self) {
        self.took.set(Some(self.begun.at.elapsed()));
    }

    /// Leaves it to another thread, where [`Stats::take_over`] goes on with it.
    #[must_use]
    pub fn hand_over(self) -> Begun {
        let begun = self.begun;
        // Not counted here, and it owns nothing.
        std::mem::forget(self);
        begun
    }
}

impl Drop for Measured<'_> {
    fn drop(&mut self) {
        let Begun { operation, at } = self.begun;
        self.stats.record(
            operation,
            self.took.get().unwrap_or_else(|| at.elapsed()),
            self.bytes.get(),
            self.is_failed.get(),
        );
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::hint::black_box;

    use super::*;

    #[test]
    fn each_operation_has_its_own_name_and_counters() {
        let stats = Stats::default();
        for (place, operation) in Operation::ALL.iter().enumerate() {
            assert_eq!(*operation as usize, place);
            drop(stats.begin(*operation));
        }
        let list = stats.list();
        let names: HashSet<_> = list.iter().map(|stats| &stats.operation).collect();
        assert_eq!(names.len(), Operation::ALL.len());
        assert!(list.iter().all(|stats| stats.count == 1));
    }

    #[test]
    fn what_was_never_asked_is_left_out_and_what_took_longest_comes_first() {
        let stats = Stats::default();
        let millisecond = Duration::from_millis(1);
        stats.record(Operation::Getattr, millisecond, 0, false);
        stats.record(Operation::Read, 3 * millisecond, 4096, false);
        stats.record(Operation::Getattr, millisecond, 0, true);
        let list = stats.list();
        let [read, getattr] = &list[..] else {
            panic!("{list:?}");
        };
        assert_eq!(
            *read,
            OperationStats {
                operation: "read".to_owned(),
                count: 1,
                errors: 0,
                total_nanoseconds: 3_000_000,
                p50_nanoseconds: 3_000_000,
                p99_nanoseconds: 3_000_000,
                max_nanoseconds: 3_000_000,
                bytes: 4096,
            }
        );
        assert_eq!(
            (&*getattr.operation, getattr.count, getattr.errors),
            ("getattr", 2, 1)
        );
        assert_eq!((getattr.total_nanoseconds, getattr.bytes), (2_000_000, 0));
    }

    #[test]
    fn a_request_is_counted_when_it_is_answered_not_before() {
        let stats = Stats::default();
        let write = stats.begin(Operation::Write);
        write.carries(10);
        assert!(stats.list().is_empty());
        drop(write);
        let failing = stats.begin(Operation::Write);
        failing.fails();
        drop(failing);
        let [write] = &stats.list()[..] else {
            panic!("one kind");
        };
        assert_eq!((write.count, write.errors, write.bytes), (2, 1, 10));
    }

    #[test]
    fn a_request_that_another_thread_answers_is_counted_once_from_its_beginning() {
        let stats = Stats::default();
        let begun = stats.begin(Operation::Lseek).hand_over();
        assert!(stats.list().is_empty());
        let handed_over = Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(|| drop(stats.take_over(begun)));
        });
        let [seek] = &stats.list()[..] else {
            panic!("one kind");
        };
        assert_eq!((&*seek.operation, seek.count), ("lseek", 1));
        assert!(begun.at <= handed_over && seek.max_nanoseconds > 0);
    }

    #[test]
    fn its_size_is_fixed() {
        assert!(size_of::<Counters>() <= 4096 + 64);
        assert!(Operation::ALL.len() * size_of::<Counters>() <= 144 * 1024);
    }

    /// What it costs to count a request, by one thread and by all at once: for people, as the machine decides.
    /// `cargo test --lib mount::stats -- --ignored --nocapture`
    #[test]
    #[ignore = "a measurement"]
    fn the_cost_of_a_request_counted() {
        const REQUESTS: u32 = 10_000_000;
        let processors = std::thread::available_parallelism().map_or(2, usize::from);
        for threads in [1, processors] {
            let stats = Stats::default();
            let clock = Instant::now();
            std::thread::scope(|scope| {
                for _ in 0..threads {
                    scope.spawn(|| {
                        for _ in 0..REQUESTS {
                            stats.begin(black_box(Operation::Read)).carries(4096);
                        }
                    });
                }
            });
            let each = clock.elapsed() / REQUESTS;
            println!("{threads} threads: {} ns a request", each.as_nanos());
            assert_eq!(stats.list()[0].count, u64::from(REQUESTS) * threads as u64);
        }
    }
}
