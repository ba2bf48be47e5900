//! Where the blocks of a file lie: arithmetic only. docs/FORMAT.md, "Files".
//!
//! A backing file is a row of 4096-byte pages in groups of 57: one meta page, then 56 data pages.

/// Bytes of a page, and of a full block.
pub const PAGE: u64 = 4096;
/// Bytes of a full block, as a buffer length.
pub const BLOCK_LEN: usize = PAGE as usize;
/// Data pages (blocks) of a group.
pub const GROUP_BLOCKS: u64 = 56;
/// Plaintext bytes of a group.
pub const GROUP_BYTES: u64 = GROUP_BLOCKS * PAGE;
/// Backing bytes of a group: a meta page and its data pages.
pub const GROUP_SPAN: u64 = (GROUP_BLOCKS + 1) * PAGE;
/// Bytes of a meta page before its slots; in group 0 they hold the file header.
pub const HEADER_AREA: u64 = 512;
/// Bytes of a slot.
pub const SLOT_SPAN: u64 = 64;

/// The largest plaintext size whose backing length still is a file offset.
pub const MAX_SIZE: u64 = (i64::MAX as u64 / GROUP_SPAN) * GROUP_BYTES;

/// The group of a block.
#[must_use]
pub const fn group_of(block: u64) -> u64 {
    block / GROUP_BLOCKS
}

/// A block's place in its group, 0–55.
#[must_use]
pub const fn index_in_group(block: u64) -> usize {
    (block % GROUP_BLOCKS) as usize
}

/// Backing offset of a group's meta page.
#[must_use]
pub const fn meta_offset(group: u64) -> u64 {
    group * GROUP_SPAN
}

/// The group in whose part of the backing file this offset lies.
#[must_use]
pub const fn group_at(offset: u64) -> u64 {
    offset / GROUP_SPAN
}

/// Backing offset of a block's data page.
#[must_use]
pub const fn data_offset(block: u64) -> u64 {
    meta_offset(group_of(block)) + PAGE + (block % GROUP_BLOCKS) * PAGE
}

/// Backing offset of a block's slot.
#[must_use]
pub const fn slot_offset(block: u64) -> u64 {
    meta_offset(group_of(block)) + HEADER_AREA + (block % GROUP_BLOCKS) * SLOT_SPAN
}

/// Length of the backing file that holds `size` plaintext bytes (at most [`MAX_SIZE`]) and a header.
#[must_use]
pub const fn backing_length(size: u64) -> u64 {
    if size == 0 {
        PAGE
    } else {
        size + size.div_ceil(GROUP_BYTES) * PAGE
    }
}

/// Plaintext size that a backing length implies. Total: a length that no finished write leaves behind (one that ends
/// inside or right behind a meta page) counts as what lies before that page.
#[must_use]
pub const fn plaintext_size(backing: u64) -> u64 {
    let whole = backing / GROUP_SPAN * GROUP_BYTES;
    whole + (backing % GROUP_SPAN).saturating_sub(PAGE)
}

/// Blocks of a file of `size` bytes.
#[must_use]
pub const fn block_count(size: u64) -> u64 {
    size.div_ceil(PAGE)
}

/// Bytes that block `block` holds in a file of `size` bytes: 4096 but for the last one.
#[must_use]
pub fn block_length(block: u64, size: u64) -> usize {
    size.saturating_sub(block.saturating_mul(PAGE)).min(PAGE) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Every size within two bytes of a boundary of blocks or groups, for the first groups and the last.
    fn boundary_sizes() -> impl Iterator<Item = u64> {
        let blocks = (0..=3 * GROUP_BLOCKS).map(|block| block * PAGE);
        let groups = [
            1000,
            1 << 20,
            MAX_SIZE / GROUP_BYTES - 1,
            MAX_SIZE / GROUP_BYTES,
        ]
        .map(|group| group * GROUP_BYTES);
        blocks
            .chain(groups)
            .flat_map(|size| (size.saturating_sub(2)..=size + 2).filter(|size| *size <= MAX_SIZE))
    }

    #[test]
    fn size_and_backing_length_are_inverse_around_every_boundary() {
        for size in boundary_sizes() {
            assert_eq!(plaintext_size(backing_length(size)), size, "size {size}");
        }
        assert_eq!(plaintext_size(0), 0);
    }

    #[test]
    fn the_last_byte_of_a_file_is_the_last_byte_of_its_backing() {
        for size in boundary_sizes().filter(|size| *size > 0) {
            let last = block_count(size) - 1;
            let end = data_offset(last) + block_length(last, size) as u64;
            assert_eq!(end, backing_length(size), "size {size}");
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "too much for an interpreter")]
    fn a_longer_backing_never_means_a_shorter_file() {
        for backing in 0..3 * GROUP_SPAN {
            assert!(
                plaintext_size(backing) <= plaintext_size(backing + 1),
                "backing length {backing}"
            );
        }
    }

    #[test]
    fn the_largest_file_still_has_offsets() {
        assert!(i64::try_from(backing_length(MAX_SIZE)).is_ok());
    }

    proptest! {
        #[test]
        fn pages_of_blocks_and_metas_never_overlap(a in 0..MAX_SIZE / PAGE, b in 0..MAX_SIZE / PAGE) {
            prop_assume!(a != b);
            prop_assert_ne!(data_offset(a), data_offset(b));
            prop_assert!(data_offset(a).is_multiple_of(PAGE));
            prop_assert_ne!(data_offset(a) / PAGE, meta_offset(group_of(b)) / PAGE);
            prop_assert!(slot_offset(a).abs_diff(slot_offset(b)) >= SLOT_SPAN);
            prop_assert_eq!(slot_offset(a) / 512, (slot_offset(a) + SLOT_SPAN - 1) / 512);
        }

        #[test]
        fn sizes_round_trip(size in 0..=MAX_SIZE) {
            prop_assert_eq!(plaintext_size(backing_length(size)), size);
        }
    }
}
