//! Changes of stored bytes, as an attacker or a bad disk makes them.

/// One change.
#[derive(Debug, Clone, Copy)]
pub enum Edit {
    /// Other bits at a place.
    Flip(usize, u8),
    /// Another byte at a place.
    Set(usize, u8),
    /// Zeros from a place on.
    Zero(usize, usize),
    /// Cut at a place.
    Cut(usize),
    /// So many bytes more.
    Grow(usize, u8),
    /// The bytes of one place at another.
    Copy(usize, usize, usize),
}

impl Edit {
    /// Bytes of the input that make one.
    const LEN: usize = 6;

    /// The changes that an input stands for; every input stands for some.
    pub fn list(input: &[u8]) -> Vec<Self> {
        input.chunks_exact(Self::LEN).map(Self::of).collect()
    }

    /// One change from six bytes.
    pub fn of(bytes: &[u8]) -> Self {
        let number = |at: usize| usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]));
        let (at, value) = (number(1) | usize::from(bytes[0] & 0xf0) << 12, bytes[3]);
        match bytes[0] % 8 {
            0 | 1 => Self::Flip(at, value.max(1)),
            2 => Self::Set(at, value),
            3 => Self::Zero(at, number(4)),
            4 => Self::Cut(at),
            5 => Self::Grow(number(4), value),
            _ => Self::Copy(at, number(4), usize::from(value) * 16 + 1),
        }
    }

    /// The bytes after the changes. Places are taken modulo the length.
    pub fn apply(edits: &[Self], bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for edit in edits {
            edit.change(&mut bytes);
        }
        bytes
    }

    fn change(self, bytes: &mut Vec<u8>) {
        let length = bytes.len().max(1);
        match self {
            Self::Flip(at, mask) => {
                if let Some(byte) = bytes.get_mut(at % length) {
                    *byte ^= mask;
                }
            }
            Self::Set(at, value) => {
                if let Some(byte) = bytes.get_mut(at % length) {
                    *byte = value;
                }
            }
            Self::Zero(at, count) => bytes
                .iter_mut()
                .skip(at % length)
                .take(count)
                .for_each(|byte| *byte = 0),
            Self::Cut(at) => bytes.truncate(at % length),
            Self::Grow(count, value) => bytes.resize(bytes.len() + count % 8192, value),
            Self::Copy(from, to, count) => {
                let part: Vec<u8> = bytes
                    .iter()
                    .copied()
                    .skip(from % length)
                    .take(count)
                    .collect();
                bytes
                    .iter_mut()
                    .skip(to % length)
                    .zip(part)
                    .for_each(|(byte, new)| *byte = new);
            }
        }
    }
}
