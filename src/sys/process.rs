//! What a process that holds keys, or serves others' files, asks of the kernel for itself.

use rustix::process::{
    DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit, umask,
};
use rustix::thread::{
    CapabilitiesSecureBits, capabilities_secure_bits, set_capabilities_secure_bits,
};

use super::heap;

/// No core dump, and no other process of the same user may read this one's memory: there are keys in it. Does not keep
/// the process from its own `/proc/self`.
pub fn protect_memory() {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    if let Err(error) = setrlimit(Resource::Core, none) {
        log::warn!("core dumps cannot be switched off: {error}");
    }
    if let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        log::warn!(
            "the process's memory cannot be protected from others of the same user: {error}"
        );
    }
}

/// Lets as much memory be locked ([`super::locked`]) as this process may ask for. Not all of its memory: what is locked cannot
/// be given back, and what is known of a million files is no secret worth so much of it.
pub fn raise_lock_limit() {
    let limit = getrlimit(Resource::Memlock);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Memlock, raised) {
        log::debug!("the limit of locked memory stays at {limit:?}: {error}");
    }
}

/// Makes ready for serving a filesystem. To be called before any thread is started, because threads inherit it.
pub fn prepare_for_serving() {
    // The kernel calls a program that was started through /proc/self/exe "exe".
    if let Err(error) = rustix::thread::set_name(c"cmkfs") {
        log::debug!("the process's name stays: {error}");
    }
    raise_descriptor_limit();
    heap::share();
    if rustix::process::geteuid().is_root() {
        keep_capabilities_across_identities();
    }
}

/// What this thread, and those that it starts from here on, write waits for the device that it goes to and for no other. They
/// serve a mount: were they to wait until less is dirty, they would wait for themselves (`PR_SET_IO_FLUSHER`, Linux 5.6).
///
/// # Errors
/// EPERM without CAP_SYS_RESOURCE, EINVAL on older kernels.
pub fn wait_for_own_writes_only() -> std::io::Result<()> {
    const PR_SET_IO_FLUSHER: libc::c_int = 57; // linux/include/uapi/linux/prctl.h
    // SAFETY: takes integers.
    match unsafe { libc::prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// What is made from here on gets exactly the mode that it is made with: callers' umasks come with their requests.
pub fn clear_umask() {
    umask(rustix::fs::Mode::empty());
}

/// One descriptor for each file that is open in a mount, or for each level of a tree that is walked.
pub fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        log::debug!(
            "the limit of open files stays at {:?}: {error}",
            limit.current
        );
    }
}

/// Threads take on their callers' fsuid to make objects that belong to them, and the kernel would take the thread's
/// capabilities over files away with that. The backing directory is ours throughout: permissions were checked in the mount.
fn keep_capabilities_across_identities() {
    let keep = |bits: CapabilitiesSecureBits| {
        set_capabilities_secure_bits(bits | CapabilitiesSecureBits::NO_SETUID_FIXUP)
    };
    if let Err(error) = capabilities_secure_bits().and_then(keep) {
        log::debug!("capabilities follow the file-system user id: {error}");
    }
}
