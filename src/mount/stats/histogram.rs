//! How long things took, as a histogram that many threads fill at once. Its buckets widen with the value, so its size is
//! fixed and a percentile read from it is never too small and less than an eighth too large. It knows nothing of requests.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Each power of two has 2³ buckets of one width; values below 2⁴ have one of their own.
const STEP_BITS: u32 = 3;
const STEPS: usize = 1 << STEP_BITS;
/// Enough for every `u64`.
const BUCKETS: usize = (u64::BITS - STEP_BITS + 1) as usize * STEPS;

const fn bucket_of(value: u64) -> usize {
    let shift = (value | STEPS as u64).ilog2() - STEP_BITS;
    shift as usize * STEPS + (value >> shift) as usize
}

/// The largest value that falls into a bucket.
const fn top_of(bucket: usize) -> u64 {
    let shift = (bucket / STEPS).saturating_sub(1);
    let steps = (bucket - shift * STEPS) as u64;
    (steps << shift) | ((1 << shift) - 1)
}

/// Counts durations in nanoseconds; 4 KiB. Every method may be called by any thread at any time, and none waits.
#[derive(Debug)]
pub struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    total: AtomicU64,
    longest: AtomicU64,
}

/// What a histogram says at a moment, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// How many durations were recorded.
    pub count: u64,
    /// Their sum.
    pub total: u64,
    /// At least half of them took no longer; never too small, less than an eighth too large.
    pub p50: u64,
    /// At least 99 of 100 took no longer; as exact.
    pub p99: u64,
    /// The longest, exactly.
    pub max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: [const { AtomicU64::new(0) }; BUCKETS],
            total: AtomicU64::new(0),
            longest: AtomicU64::new(0),
        }
    }
}

impl Histogram {
    /// Records one.
    pub fn record(&self, took: Duration) {
        // Enough for 584 years, of one and of all together.
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        // A bucket for every value: see BUCKETS.
        self.buckets[bucket_of(nanoseconds)].fetch_add(1, Ordering::Relaxed);
        self.total.fetch_add(nanoseconds, Ordering::Relaxed);
        // Nearly always less than one before, and reading disturbs no other processor.
        if nanoseconds > self.longest.load(Ordering::Relaxed) {
            self.longest.fetch_max(nanoseconds, Ordering::Relaxed);
        }
    }

    /// What was recorded so far. Of one that is being recorded meanwhile, some of it may be missing.
    pub fn summary(&self) -> Summary {
        let counts = self.buckets.each_ref().map(|n| n.load(Ordering::Relaxed));
        let count = counts.iter().sum();
        let max = self.longest.load(Ordering::Relaxed);
        let percentile = |percent: u64| percentile(&counts, rank(count, percent)).min(max);
        Summary {
            count,
            total: self.total.load(Ordering::Relaxed),
            p50: percentile(50),
            p99: percentile(99),
            max,
        }
    }
}

/// Which of `count` in ascending order stands for a percentile: the nearest rank, from 1.
fn rank(count: u64, percent: u64) -> u64 {
    let rank = (u128::from(count) * u128::from(percent)).div_ceil(100);
    u64::try_from(rank).unwrap_or(count).max(1)
}

/// The top of the bucket that holds the value of that rank; 0 where nothing was recorded.
fn percentile(counts: &[u64], rank: u64) -> u64 {
    let mut seen = 0;
    let bucket = counts.iter().position(|count| {
        seen += count;
        seen >= rank
    });
    bucket.map_or(0, top_of)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(values: &[u64]) -> Summary {
        let histogram = Histogram::default();
        for value in values {
            histogram.record(Duration::from_nanos(*value));
        }
        histogram.summary()
    }

    #[test]
    fn each_bucket_begins_where_the_one_before_ends_and_the_last_ends_at_the_largest_value() {
        for bucket in 0..BUCKETS - 1 {
            let top = top_of(bucket);
            assert_eq!((bucket_of(top), bucket_of(top + 1)), (bucket, bucket + 1));
        }
        assert_eq!(top_of(BUCKETS - 1), u64::MAX);
        assert_eq!(bucket_of(0), 0);
    }

    #[test]
    fn nothing_recorded_is_all_zero() {
        let nothing = Summary {
            count: 0,
            total: 0,
            p50: 0,
            p99: 0,
            max: 0,
        };
        assert_eq!(of(&[]), nothing);
    }

    #[test]
    fn one_slow_in_a_hundred_shows_in_the_maximum_and_two_in_the_99th_percentile() {
        let quick = [10; 98];
        let one = of(&[&quick[..], &[10, 1_000_000]].concat());
        assert_eq!((one.p50, one.p99, one.max), (10, 10, 1_000_000));
        let two = of(&[&quick[..], &[1_000_000, 1_000_000]].concat());
        assert_eq!((two.p50, two.p99, two.max), (10, 1_000_000, 1_000_000));
    }

    #[test]
    fn a_time_too_long_to_count_is_the_longest_that_can_be_counted() {
        let histogram = Histogram::default();
        histogram.record(Duration::MAX);
        assert_eq!(histogram.summary().max, u64::MAX);
    }

    #[test]
    #[cfg_attr(miri, ignore = "too much for an interpreter")]
    fn threads_that_record_at_once_lose_nothing() {
        const EACH: u64 = 50_000;
        let histogram = Histogram::default();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let histogram = &histogram;
                scope.spawn(move || {
                    for value in 0..EACH {
                        histogram.record(Duration::from_nanos(thread * EACH + value));
                    }
                });
            }
        });
        let all = 4 * EACH;
        let summary = histogram.summary();
        assert_eq!(summary.count, all);
        assert_eq!(summary.total, all * (all - 1) / 2);
        assert_eq!(summary.max, all - 1);
    }

    fn durations() -> impl Strategy<Value = u64> {
        // Of every magnitude, alike often.
        (0..64_u32, any::<u64>()).prop_map(|(shift, bits)| (bits | 1 << 63) >> shift)
    }

    proptest! {
        #[test]
        #[cfg_attr(miri, ignore = "too much for an interpreter")]
        fn a_percentile_is_never_too_small_and_less_than_an_eighth_too_large(
            mut values in prop::collection::vec(durations(), 1..400),
        ) {
            let summary = of(&values);
            values.sort_unstable();
            let count = values.len();
            prop_assert_eq!(summary.count, count as u64);
            prop_assert_eq!(summary.max, values[count - 1]);
            for (percent, said) in [(50, summary.p50), (99, summary.p99)] {
                // The smallest value that so many of all do not exceed, found the slow way.
                let reached = |value: &u64| {
                    let below = values.iter().filter(|other| *other <= value).count();
                    below * 100 >= count * percent
                };
                let exact = *values.iter().find(|value| reached(value)).unwrap();
                prop_assert!(said >= exact, "p{}: {} < {}", percent, said, exact);
                prop_assert!(said - exact <= exact / 8, "p{}: {} for {}", percent, said, exact);
            }
        }
    }
}
