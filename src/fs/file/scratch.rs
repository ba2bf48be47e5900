//! Page-aligned buffers, one a thread, so that the data path allocates nothing. They hold ciphertext and meta pages.
//!
//! Aligned because copies between buffers that differ in their offset modulo 4096 can be many times slower.

use std::cell::RefCell;

use crate::format::layout::BLOCK_LEN;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Runs `work` with so many pages of this thread's buffer. Its content is whatever was left there.
pub fn with_pages<T>(pages: usize, work: impl FnOnce(&mut [u8]) -> T) -> T {
    // Taken out for the time of the work: should that come here again, it gets a buffer of its own.
    let mut buffer = SCRATCH.take();
    let length = pages * BLOCK_LEN;
    if buffer.len() < length + BLOCK_LEN {
        buffer.resize(length + BLOCK_LEN, 0);
    }
    let start = buffer.as_ptr().align_offset(BLOCK_LEN).min(BLOCK_LEN);
    let result = work(&mut buffer[start..start + length]);
    SCRATCH.set(buffer);
    result
}
