//! What every fuzz target shares: the limit on memory, and the target functions, which `tests/corpus.rs` of the
//! package itself runs on the committed corpus too.

#[path = "targets/mod.rs"]
pub mod targets;

use std::alloc::System;

#[global_allocator]
static MEMORY: cap::Cap<System> = cap::Cap::new(System, usize::MAX);

/// Bytes that a target may take however short its input is.
const ROOM: usize = 8 << 20;
/// Bytes that a target may take for each byte of its input.
const ROOM_PER_BYTE: usize = 256;

/// Runs a target on an input; ends the process where it takes more memory than that input can be worth.
pub fn run(target: fn(&[u8]), room: usize, input: &[u8]) {
    let limit = MEMORY.allocated() + ROOM + room + input.len() * ROOM_PER_BYTE;
    // Nothing was above it, as nothing has been allocated yet.
    MEMORY
        .set_limit(limit)
        .expect("the limit is above what is in use");
    target(input);
    MEMORY.set_limit(usize::MAX).expect("no limit");
}

/// The entry of a fuzz program.
#[macro_export]
macro_rules! fuzz {
    ($target:path) => {
        $crate::fuzz!($target, 0);
    };
    ($target:path, $room:expr) => {
        libfuzzer_sys::fuzz_target!(|input: &[u8]| $crate::run($target, $room, input));
    };
}
