//! The redo journal of a file: records of blocks that are to be overwritten, put on the disk before their places are.
//! docs/FORMAT.md, "Journals". Which records count, and when, is the business of `fs::file::journal`.

use bincode::{Decode, Encode};

use super::codec;
use super::layout::GROUP_BLOCKS;
use super::slot::{ENTRY_LEN, Entry};

/// First bytes of a record.
pub const MAGIC: [u8; 8] = *b"cmkfsjnl";
/// Offset of the magic (8 bytes).
pub const MAGIC_AT: usize = 0;
/// Offset of the epoch (u64) of the file's header when the record was written.
pub const EPOCH_AT: usize = 8;
/// Offset of the index of the first block (u64).
pub const FIRST_AT: usize = 16;
/// Offset of the number of blocks (u32, 1–448). Four reserved bytes (zero) follow.
pub const COUNT_AT: usize = 24;
/// Offset of the blocks' entries; behind the last entry begins the ciphertext of the blocks, one after the other.
pub const ENTRIES_AT: usize = 32;
/// Most blocks of one record.
pub const BLOCKS_MAX: usize = 8 * GROUP_BLOCKS as usize;

/// What a record begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct RecordHead {
    magic: [u8; 8],
    /// Epoch of the file's header when the record was written.
    pub epoch: u64,
    /// Index of the first block.
    pub first: u64,
    count: u32,
    reserved: u32,
}

impl RecordHead {
    /// The head of a record of so many blocks.
    #[must_use]
    pub const fn new(epoch: u64, first: u64, blocks: usize) -> Self {
        Self {
            magic: MAGIC,
            epoch,
            first,
            count: blocks as u32,
            reserved: 0,
        }
    }

    /// Number of blocks.
    #[must_use]
    pub const fn blocks(&self) -> usize {
        self.count as usize
    }

    /// Bytes from the record's beginning to its ciphertext.
    #[must_use]
    pub const fn ciphertext_at(&self) -> usize {
        ENTRIES_AT + self.blocks() * ENTRY_LEN
    }

    /// Reads the beginning of a record; `None` for what is none.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let head: Self = codec::decode("journal record", ENTRIES_AT, bytes).ok()?;
        let known = head.magic == MAGIC
            && (1..=BLOCKS_MAX).contains(&head.blocks())
            && head.reserved == 0
            && head.first.checked_add(head.count.into()).is_some();
        known.then_some(head)
    }
}

/// A record up to its ciphertext.
#[must_use]
pub fn encode(epoch: u64, first: u64, entries: &[Entry]) -> Vec<u8> {
    let head = RecordHead::new(epoch, first, entries.len());
    let mut bytes = vec![0; head.ciphertext_at()];
    bytes[..ENTRIES_AT].copy_from_slice(&codec::encode::<ENTRIES_AT>(&head));
    for (entry, bytes) in entries
        .iter()
        .zip(bytes[ENTRIES_AT..].chunks_exact_mut(ENTRY_LEN))
    {
        entry.encode(bytes);
    }
    bytes
}

/// The entries of a record, from the bytes between its head and its ciphertext.
pub fn entries(bytes: &[u8]) -> impl Iterator<Item = Entry> + '_ {
    let (entries, _) = bytes.as_chunks::<ENTRY_LEN>();
    entries.iter().map(Entry::decode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_lie_where_the_offsets_say_and_unknown_ones_are_refused() {
        let entry = |n| Entry {
            nonce: [n; 12],
            tag: [n; 16],
            length: 4096,
        };
        let bytes = encode(0x0102, 0x0304, &[entry(5), entry(6)]);
        assert_eq!(&bytes[MAGIC_AT..EPOCH_AT], b"cmkfsjnl");
        assert_eq!(bytes[EPOCH_AT..FIRST_AT], 0x0102_u64.to_le_bytes());
        assert_eq!(bytes[FIRST_AT..COUNT_AT], 0x0304_u64.to_le_bytes());
        assert_eq!(bytes[COUNT_AT..ENTRIES_AT], [2, 0, 0, 0, 0, 0, 0, 0]);
        let head = RecordHead::decode(&bytes[..ENTRIES_AT]).unwrap();
        assert_eq!(head, RecordHead::new(0x0102, 0x0304, 2));
        assert_eq!(head.ciphertext_at(), bytes.len());
        assert!(entries(&bytes[ENTRIES_AT..]).eq([entry(5), entry(6)]));
        for (at, with) in [(MAGIC_AT, 1), (COUNT_AT + 1, 2), (COUNT_AT + 4, 1)] {
            let mut changed = bytes.clone();
            changed[at] ^= with;
            assert_eq!(
                RecordHead::decode(&changed[..ENTRIES_AT]),
                None,
                "byte {at}"
            );
        }
        assert_eq!(RecordHead::decode(&encode(1, 1, &[])), None);
        assert_eq!(
            RecordHead::decode(&encode(1, u64::MAX, &[entry(1)])[..ENTRIES_AT]),
            None
        );
        assert_eq!(RecordHead::decode(&bytes[..31]), None);
    }
}
