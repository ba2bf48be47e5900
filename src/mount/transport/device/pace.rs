//! How long each kind of request has taken lately, by its operation and length: whether whoever reads the device may answer
//! it before it reads on.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crate::mount::protocol::Opcode;

/// Operations with figures of their own; later ones share the last.
const OPERATIONS: usize = 64;
/// Lengths up to 4 KiB, 32 KiB, 256 KiB, and more.
const LENGTHS: usize = 4;
/// A figure is made of about as many requests.
const WEIGHT: u32 = 8;
/// A request that took longer than so many times the figure, and than [`LEAST`] nanoseconds, counts as no more than that: a
/// thread that lost its processor in the middle of a request says little about the next.
const AT_MOST: u32 = 4;
const LEAST: u32 = SHORT / 2;

const SHORT: u32 = 60_000;
const LONG: u32 = 500_000;

/// What is to be expected of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expected {
    /// Waking another thread would take as long.
    Short,
    /// Whoever comes next should not have to wait for it.
    Long,
    /// Nor should there be nobody when somebody comes.
    VeryLong,
}

/// A kind of request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kind(usize);

impl Kind {
    /// `length`: of its content either way, in bytes.
    pub(super) fn new(opcode: Opcode, length: usize) -> Self {
        let operation = (opcode.0 as usize).min(OPERATIONS - 1);
        let length = match length {
            0..=0x1000 => 0,
            0x1001..=0x8000 => 1,
            0x8001..=0x4_0000 => 2,
            _ => 3,
        };
        Self(operation * LENGTHS + length)
    }
}

/// Nanoseconds that each kind takes, as a moving mean. Threads that overwrite each other's figures do no harm.
#[derive(Debug)]
pub(super) struct Pace(Box<[AtomicU32]>);

impl Default for Pace {
    fn default() -> Self {
        Self(
            (0..OPERATIONS * LENGTHS)
                .map(|_| AtomicU32::new(0))
                .collect(),
        )
    }
}

impl Pace {
    pub(super) fn learn(&self, kind: Kind, took: Duration) {
        let mean = &self.0[kind.0];
        let before = mean.load(Ordering::Relaxed);
        let most = before.saturating_mul(AT_MOST).max(LEAST);
        let took = u32::try_from(took.as_nanos()).map_or(most, |took| took.min(most));
        mean.store(before - before / WEIGHT + took / WEIGHT, Ordering::Relaxed);
    }

    pub(super) fn expect(&self, kind: Kind) -> Expected {
        match self.0[kind.0].load(Ordering::Relaxed) {
            0..SHORT => Expected::Short,
            SHORT..LONG => Expected::Long,
            LONG.. => Expected::VeryLong,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_becomes_long_when_it_was_and_short_again() {
        let pace = Pace::default();
        let (fsync, read) = (Opcode(20), Opcode(15));
        let kind = Kind::new(fsync, 0);
        assert_eq!(pace.expect(kind), Expected::Short);
        for _ in 0..4 * WEIGHT {
            pace.learn(kind, Duration::from_millis(5));
        }
        assert_eq!(pace.expect(kind), Expected::VeryLong);
        assert_eq!(pace.expect(Kind::new(read, 4096)), Expected::Short);
        for _ in 0..10 * WEIGHT {
            pace.learn(kind, Duration::from_micros(100));
        }
        assert_eq!(pace.expect(kind), Expected::Long);
        for _ in 0..10 * WEIGHT {
            pace.learn(kind, Duration::from_micros(5));
        }
        assert_eq!(pace.expect(kind), Expected::Short);
    }

    #[test]
    fn one_that_lost_its_processor_makes_no_short_kind_long() {
        let pace = Pace::default();
        let kind = Kind::new(Opcode(16), 4096);
        pace.learn(kind, Duration::from_secs(1));
        for _ in 0..100 {
            for _ in 0..10 * WEIGHT {
                pace.learn(kind, Duration::from_micros(30));
            }
            pace.learn(kind, Duration::from_millis(3));
            assert_eq!(pace.expect(kind), Expected::Short);
        }
    }

    #[test]
    fn lengths_are_told_apart_and_no_number_is_out_of_reach() {
        let pace = Pace::default();
        for _ in 0..8 * WEIGHT {
            pace.learn(Kind::new(Opcode(15), 1 << 20), Duration::from_secs(100));
        }
        assert_eq!(
            pace.expect(Kind::new(Opcode(15), usize::MAX)),
            Expected::VeryLong
        );
        assert_eq!(pace.expect(Kind::new(Opcode(15), 0)), Expected::Short);
        assert_eq!(pace.expect(Kind::new(Opcode(u32::MAX), 5)), Expected::Short);
    }
}
