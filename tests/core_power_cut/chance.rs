//! Choices of a power cut that can be made again.

/// Numbers that look random, and follow from a seed. How a seed chooses between old and new is a matter of its own taste:
/// failures often need all but one thing old, or all but one thing new.
#[derive(Debug, Clone)]
pub struct Chance {
    state: u64,
    /// Of 16, how often the oldest and the newest are taken.
    oldest: u64,
    newest: u64,
}

impl Chance {
    pub fn new(seed: u64) -> Self {
        let (oldest, newest) =
            [(0, 0), (14, 2), (2, 14), (8, 8), (12, 0), (0, 12)][seed as usize % 6];
        Self {
            state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1),
            oldest,
            newest,
        }
    }

    /// 0 up to `end`, which is left out.
    pub fn below(&mut self, end: usize) -> usize {
        // splitmix64
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % end.max(1) as u64) as usize
    }

    /// One of so many, from the oldest to the newest.
    pub fn choose(&mut self, count: usize) -> usize {
        let taste = self.below(16) as u64;
        if taste < self.oldest {
            0
        } else if taste < self.oldest + self.newest {
            count - 1
        } else {
            self.below(count)
        }
    }
}
