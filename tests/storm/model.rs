//! What a file that one thread has for itself may hold: what was acknowledged last, and where a change failed, also what
//! was to be.

use crate::random::mixed;

/// Content is written in units of so many bytes: no divisor of a block, so that a change seldom ends where a block does.
pub const UNIT: usize = 1000;
/// Units of the largest file.
pub const UNITS: usize = 300;

/// The content of one file.
#[derive(Debug, Clone)]
pub struct Content {
    file: u64,
    /// Lengths in units, one unless a change of it failed.
    lengths: Vec<usize>,
    /// Versions of each unit that was ever written, one unless a change of it failed. Version 0 is all zeros.
    units: Vec<Vec<u64>>,
}

impl Content {
    /// A file that is empty.
    pub fn empty(file: u64) -> Self {
        Self {
            file,
            lengths: vec![0],
            units: vec![vec![0]; UNITS],
        }
    }

    /// The greatest length it may have, in units.
    pub fn length(&self) -> usize {
        self.lengths.iter().copied().max().unwrap_or_default()
    }

    /// The bytes of units at a version.
    pub fn bytes(&self, first: usize, count: usize, version: u64) -> Vec<u8> {
        (first..first + count)
            .flat_map(|unit| (0..UNIT).map(move |at| (unit, at)))
            .map(|(unit, at)| byte(self.file, unit, version, at))
            .collect()
    }

    /// Units were to be written, from a length on that it has or beyond it.
    pub fn wrote(&mut self, first: usize, count: usize, version: u64, is_acknowledged: bool) {
        let end = first + count;
        for unit in &mut self.units[first..end] {
            set(unit, version, is_acknowledged);
        }
        let longer: Vec<_> = self.lengths.iter().map(|length| end.max(*length)).collect();
        self.resized(longer, is_acknowledged);
        if !is_acknowledged {
            // Part of it may be there.
            self.lengths.extend(first..end);
            self.tidy();
        }
    }

    /// The length was to be set.
    pub fn truncated(&mut self, length: usize, is_acknowledged: bool) {
        let longest = self.length();
        for unit in &mut self.units[length.min(longest)..] {
            set(unit, 0, is_acknowledged);
        }
        self.resized(vec![length], is_acknowledged);
    }

    fn resized(&mut self, lengths: Vec<usize>, is_acknowledged: bool) {
        if is_acknowledged {
            self.lengths = lengths;
        } else {
            self.lengths.extend(lengths);
        }
        self.tidy();
    }

    fn tidy(&mut self) {
        self.lengths.sort_unstable();
        self.lengths.dedup();
    }

    /// Why this cannot be what the file holds from a unit on to its end.
    pub fn contradiction(&self, found: &[u8]) -> Option<String> {
        let fits = |length: &usize| length * UNIT == found.len();
        // Cut anywhere in the unit that was being written.
        let is_cut = self.lengths.len() > 1 && found.len() < self.length() * UNIT;
        if !self.lengths.iter().any(fits) && !is_cut {
            let lengths = &self.lengths;
            return Some(format!("{} bytes, not {lengths:?} units", found.len()));
        }
        for (number, bytes) in found.chunks(UNIT).enumerate() {
            let versions = &self.units[number];
            for (at, found) in bytes.iter().enumerate() {
                let is_it = |version: &u64| byte(self.file, number, *version, at) == *found;
                if !versions.iter().any(is_it) {
                    return Some(format!(
                        "byte {at} of unit {number} is {found}, of none of the versions {versions:?}; lengths {:?}",
                        self.lengths
                    ));
                }
            }
        }
        None
    }
}

fn set(versions: &mut Vec<u64>, version: u64, is_acknowledged: bool) {
    if is_acknowledged {
        versions.clear();
    }
    if !versions.contains(&version) {
        versions.push(version);
    }
}

fn byte(file: u64, unit: usize, version: u64, at: usize) -> u8 {
    if version == 0 {
        return 0;
    }
    let seed = file ^ version.rotate_left(24) ^ ((unit as u64) << 48) ^ (at as u64 / 8);
    mixed(seed).to_le_bytes()[at % 8]
}
