//! The slot that guards a block: the entry that is current, and the one before it. docs/FORMAT.md, "Slots".

use super::layout::{GROUP_BLOCKS, HEADER_AREA, PAGE, SLOT_SPAN};

/// Bytes of a slot.
pub const SLOT_LEN: usize = SLOT_SPAN as usize;
/// Bytes of an entry: nonce 12, tag 16, length u16.
pub const ENTRY_LEN: usize = 30;
/// Offset of the current entry in a slot.
pub const CURRENT_AT: usize = 0;
/// Offset of the previous entry in a slot. Four reserved bytes (zero) follow it.
pub const PREVIOUS_AT: usize = ENTRY_LEN;
/// Offset of the tag in an entry.
pub const TAG_AT: usize = 12;
/// Offset of the length in an entry.
pub const LENGTH_AT: usize = 28;
/// Bytes of all slots of a group.
pub const SLOTS_LEN: usize = GROUP_BLOCKS as usize * SLOT_LEN;

const _: () =
    assert!(HEADER_AREA + SLOTS_LEN as u64 == PAGE && PREVIOUS_AT + ENTRY_LEN + 4 == SLOT_LEN);

/// What it takes to decrypt one version of a block. All zeros: there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Nonce.
    pub nonce: [u8; 12],
    /// Tag.
    pub tag: [u8; 16],
    /// Plaintext bytes of the block, 1–4096; 0 only where there is no entry.
    pub length: u16,
}

impl Entry {
    /// No entry.
    pub const NONE: Self = Self {
        nonce: [0; 12],
        tag: [0; 16],
        length: 0,
    };

    /// There is no version behind this.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::NONE
    }

    /// Reads a stored entry.
    #[must_use]
    pub fn decode(bytes: &[u8; ENTRY_LEN]) -> Self {
        let mut entry = Self::NONE;
        entry.nonce.copy_from_slice(&bytes[..TAG_AT]);
        entry.tag.copy_from_slice(&bytes[TAG_AT..LENGTH_AT]);
        entry.length = u16::from_le_bytes([bytes[LENGTH_AT], bytes[LENGTH_AT + 1]]);
        entry
    }

    /// Writes the stored form.
    ///
    /// # Panics
    /// Where `bytes` is shorter than [`ENTRY_LEN`].
    pub fn encode(&self, bytes: &mut [u8]) {
        bytes[..TAG_AT].copy_from_slice(&self.nonce);
        bytes[TAG_AT..LENGTH_AT].copy_from_slice(&self.tag);
        bytes[LENGTH_AT..ENTRY_LEN].copy_from_slice(&self.length.to_le_bytes());
    }
}

/// The guard of one block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// The version written last.
    pub current: Entry,
    /// The one before, for when the data of the last never reached its page.
    pub previous: Entry,
}

impl Slot {
    /// A hole.
    pub const HOLE: Self = Self {
        current: Entry::NONE,
        previous: Entry::NONE,
    };

    /// Nothing was ever written here, or it was punched out.
    #[must_use]
    pub fn is_hole(&self) -> bool {
        self.current.is_none()
    }

    /// The slot after `entry` is written over what this slot guards.
    #[must_use]
    pub const fn superseded_by(&self, entry: Entry) -> Self {
        Self {
            current: entry,
            previous: self.current,
        }
    }

    /// Reads a stored slot. Every 64 bytes are a slot; its reserved bytes are ignored here.
    #[must_use]
    pub fn decode(bytes: &[u8; SLOT_LEN]) -> Self {
        let entry = |at: usize| {
            let mut entry = [0; ENTRY_LEN];
            entry.copy_from_slice(&bytes[at..at + ENTRY_LEN]);
            Entry::decode(&entry)
        };
        Self {
            current: entry(CURRENT_AT),
            previous: entry(PREVIOUS_AT),
        }
    }

    /// Writes the stored form.
    ///
    /// # Panics
    /// Where `bytes` is shorter than [`SLOT_LEN`].
    pub fn encode(&self, bytes: &mut [u8]) {
        self.current.encode(&mut bytes[CURRENT_AT..]);
        self.previous.encode(&mut bytes[PREVIOUS_AT..]);
        bytes[PREVIOUS_AT + ENTRY_LEN..SLOT_LEN].fill(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn entry() -> impl Strategy<Value = Entry> {
        any::<([u8; 12], [u8; 16], u16)>().prop_map(|(nonce, tag, length)| Entry {
            nonce,
            tag,
            length,
        })
    }

    proptest! {
        #[test]
        fn round_trips(current in entry(), previous in entry()) {
            let slot = Slot { current, previous };
            let mut bytes = [0xff; SLOT_LEN];
            slot.encode(&mut bytes);
            prop_assert_eq!(Slot::decode(&bytes), slot);
            prop_assert_eq!(&bytes[60..], &[0; 4]);
        }
    }

    #[test]
    fn fields_lie_where_the_offsets_say() {
        let current = Entry {
            nonce: [1; 12],
            tag: [2; 16],
            length: 0x0403,
        };
        let mut bytes = [0; SLOT_LEN];
        Slot::HOLE.superseded_by(current).encode(&mut bytes);
        assert_eq!(
            (
                bytes[0],
                bytes[TAG_AT],
                bytes[LENGTH_AT],
                bytes[LENGTH_AT + 1]
            ),
            (1, 2, 3, 4)
        );
        let next = Slot::decode(&bytes).superseded_by(Entry {
            nonce: [9; 12],
            ..current
        });
        assert_eq!((next.previous, next.current.nonce), (current, [9; 12]));
    }

    #[test]
    fn zeros_are_a_hole() {
        assert!(Slot::decode(&[0; SLOT_LEN]).is_hole());
    }
}
