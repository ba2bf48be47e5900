//! What the programs here share: the limit on memory, and the targets, which `tests/corpus.rs` of the package itself runs
//! on the committed corpus too.

#[path = "targets/mod.rs"]
pub mod targets;

use std::alloc::System;

use targets::Target;

#[global_allocator]
static MEMORY: cap::Cap<System> = cap::Cap::new(System, usize::MAX);

/// Bytes that a target may take for each byte of its input.
const ROOM_PER_BYTE: usize = 256;

/// Runs a target on an input; ends the process where it takes more memory than that input can be worth.
pub fn run(target: &Target, input: &[u8]) {
    let limit = MEMORY.allocated() + target.room + input.len() * ROOM_PER_BYTE;
    // Nothing was above it, as nothing has been allocated yet.
    MEMORY
        .set_limit(limit)
        .expect("the limit is above what is in use");
    (target.run)(input);
    MEMORY.set_limit(usize::MAX).expect("no limit");
}
