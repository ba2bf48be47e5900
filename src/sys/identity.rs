//! Filesystem identity of the calling thread (`setfsuid(2)`, `setfsgid(2)`): what is created belongs to the caller.
//!
//! The kernel keeps it per thread. It is cached per thread too, so that a run of requests by one user costs nothing.

use std::cell::Cell;
use std::sync::OnceLock;

thread_local! {
    static IDENTITY: Cell<Option<(u32, u32)>> = const { Cell::new(None) };
}

fn is_root() -> bool {
    static ROOT: OnceLock<bool> = OnceLock::new();
    *ROOT.get_or_init(|| rustix::process::geteuid().is_root())
}

/// Makes what this thread creates from now on belong to `uid` and `gid`. Does nothing in a process that is not root's,
/// which could not: there, everything belongs to the user of the process.
///
/// The daemon keeps its capabilities across the change by SECBIT_NO_SETUID_FIXUP, set at start.
pub fn assume(uid: u32, gid: u32) {
    if !is_root() || IDENTITY.get() == Some((uid, gid)) {
        return;
    }
    // SAFETY: both calls take an integer and touch no memory. The raw calls are used because they are per thread.
    unsafe {
        libc::syscall(libc::SYS_setfsgid, gid);
        libc::syscall(libc::SYS_setfsuid, uid);
    }
    IDENTITY.set(Some((uid, gid)));
}
