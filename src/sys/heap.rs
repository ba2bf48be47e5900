//! The allocator's free memory.

/// Has all threads share the main heap. Those of their own grow by single pages, a system call each. To be called before any
/// other thread is started. Where the C library is not the GNU one there is nothing to do.
pub fn share() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes integers.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Gives pages that hold nothing back to the system: the allocator keeps what lies between things that were freed, however
/// much that is. To be called when much has been freed. Where the C library is not the GNU one it does that by itself.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes no pointer, and may be called at any time from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
