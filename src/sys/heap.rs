//! The allocator's free memory.

/// Gives pages that hold nothing back to the system: the allocator keeps what lies between things that were freed, however
/// much that is. To be called when much has been freed. Where the C library is not the GNU one it does that by itself.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes no pointer, and may be called at any time from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
