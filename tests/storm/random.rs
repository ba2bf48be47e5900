//! Numbers that are random enough for a storm: splitmix64. The seed is printed, so that a run can be told from another.

use std::time::Duration;

/// A sequence.
pub struct Random(u64);

impl Random {
    /// The sequence of one thread.
    pub fn new(seed: u64, thread: u64) -> Self {
        Self(seed ^ thread.wrapping_mul(0xd134_2543_de82_ef95))
    }

    /// The next number below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        (mixed(self.0) % limit as u64) as usize
    }

    /// One of these.
    pub fn of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }

    /// A while, shorter than so many milliseconds.
    pub fn pause(&mut self, milliseconds: usize) -> Duration {
        Duration::from_micros(self.below(milliseconds * 1000) as u64)
    }
}

/// A number that follows from another.
pub fn mixed(seed: u64) -> u64 {
    let z = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
