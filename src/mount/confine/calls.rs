//! System calls that a mount's process never makes (seccomp(2)). It is a list of what is refused, not of what is let through:
//! the C library of tomorrow may need calls that nobody knows today, and a mount that dies of one would be worse than one
//! that may make it. What is refused fails with EPERM; nothing kills the process, for there are files to be sealed.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

use crate::sys::scheduling::Policy;

/// By number, on every architecture that has them.
const REFUSED: [i64; 64] = [
    // Other programs, and their memory.
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_process_madvise,
    libc::SYS_userfaultfd,
    // The tree of mounts, and namespaces: the mount is there already, and another process unmounts it.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_fsconfig,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_setns,
    libc::SYS_unshare,
    // Files by number instead of by name, past every directory's permissions.
    libc::SYS_open_by_handle_at,
    // The kernel itself.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_reboot,
    libc::SYS_syslog,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_lookup_dcookie,
    libc::SYS_nfsservctl,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_fanotify_init,
    libc::SYS_vhangup,
    libc::SYS_personality,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    // What other identities it needs, it takes on for files only.
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setgroups,
    // Who else gets how much of the processors, of the disks and of which memory. See [`filter`] for what is left.
    libc::SYS_sched_setattr,
    libc::SYS_sched_setparam,
    libc::SYS_setpriority,
    libc::SYS_ioprio_set,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
    // A second way to make all the others. Rings that are there already carry FUSE requests and nothing else (`sys::ring`);
    // they may be entered and, see [`filter`], enabled.
    libc::SYS_io_uring_setup,
];

/// What clone(2) makes besides a thread or a process, which [`REFUSED`] has for unshare(2). In a user namespace of its own
/// a process would have every capability again.
const NAMESPACES: [i32; 7] = [
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWCGROUP,
];

/// What io_uring_register(2) may be asked for: `IORING_REGISTER_ENABLE_RINGS`.
const ENABLE_RINGS: u64 = 12;

/// The second numbers that kernels for x86-64 may take calls by: those of the x32 ABI, all with this bit. Some calls have one of
/// their own there.
const X32: i64 = 0x4000_0000;
const X32_ONLY: std::ops::Range<i64> = 512..548;

/// Refuses them from here on, and sockets of every other kind than those within this machine.
pub(super) fn filter() -> Result<(), String> {
    for program in [without_clone3(), refusing()] {
        let program = program.map_err(|error| error.to_string())?;
        seccompiler::apply_filter(&program).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// A filter cannot see what clone3(2) is asked for, so it is as in kernels that do not have it: C libraries use clone(2) then.
fn without_clone3() -> Result<BpfProgram, seccompiler::BackendError> {
    refuse([(libc::SYS_clone3, Vec::new())].into(), libc::ENOSYS)
}

fn refusing() -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        REFUSED.into_iter().map(|call| (call, Vec::new())).collect();
    let of_another_kind = SeccompCondition::new(
        0,
        SeccompCmpArgLen::Dword,
        SeccompCmpOp::Ne,
        libc::AF_UNIX.unsigned_abs().into(),
    )?;
    rules.insert(
        libc::SYS_socket,
        vec![SeccompRule::new(vec![of_another_kind])?],
    );
    let not_enabling =
        SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, ENABLE_RINGS)?;
    rules.insert(
        libc::SYS_io_uring_register,
        vec![SeccompRule::new(vec![not_enabling])?],
    );
    // Threads stand back and come back, and choose where they run themselves.
    let neither = [Policy::Other, Policy::Idle].map(|policy| {
        let policy = u64::from(policy.number().unsigned_abs());
        SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, policy)
    });
    let neither = neither.into_iter().collect::<Result<_, _>>()?;
    rules.insert(
        libc::SYS_sched_setscheduler,
        vec![SeccompRule::new(neither)?],
    );
    let another = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, 0)?;
    rules.insert(
        libc::SYS_sched_setaffinity,
        vec![SeccompRule::new(vec![another])?],
    );
    let with_flag = |flag: i32| {
        let flag = u64::from(flag.unsigned_abs());
        let is_set = SeccompCmpOp::MaskedEq(flag);
        SeccompCondition::new(0, SeccompCmpArgLen::Qword, is_set, flag)
            .and_then(|condition| SeccompRule::new(vec![condition]))
    };
    let namespaces: Result<_, _> = NAMESPACES.into_iter().map(with_flag).collect();
    rules.insert(libc::SYS_clone, namespaces?);
    if cfg!(target_arch = "x86_64") {
        let seconds: Vec<_> = rules.keys().copied().chain(X32_ONLY).collect();
        rules.extend(seconds.into_iter().map(|call| (call | X32, Vec::new())));
    }
    refuse(rules, libc::EPERM)
}

fn refuse(
    rules: BTreeMap<i64, Vec<SeccompRule>>,
    errno: i32,
) -> Result<BpfProgram, seccompiler::BackendError> {
    SeccompFilter::new(
        rules,
        SeccompAction::Allow,
        SeccompAction::Errno(errno.unsigned_abs()),
        std::env::consts::ARCH.try_into()?,
    )?
    .try_into()
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::unix::net::UnixDatagram;
    use std::process::Command;

    use super::*;
    use crate::sys::scheduling;

    #[test]
    fn a_filtered_thread_starts_no_program_and_reaches_no_network_but_works() {
        // Of this thread only.
        let filtered = std::thread::spawn(|| {
            assert!(Command::new("true").status().is_ok());
            filter().unwrap();
            let refused =
                |error: std::io::Error| assert_eq!(error.raw_os_error(), Some(libc::EPERM));
            refused(Command::new("true").status().unwrap_err());
            refused(UdpSocket::bind("127.0.0.1:0").unwrap_err());
            UnixDatagram::unbound().unwrap();
            std::fs::read("/proc/self/status").unwrap();
            scheduling::set_policy(None, Policy::Idle).unwrap();
            scheduling::set_policy(None, Policy::Other).unwrap();
            let anywhere = rustix::thread::sched_getaffinity(None).unwrap();
            rustix::thread::sched_setaffinity(None, &anywhere).unwrap();
            let parent = rustix::process::getppid();
            let refused_of = rustix::thread::sched_setaffinity(parent, &anywhere);
            assert_eq!(refused_of, Err(rustix::io::Errno::PERM));
            assert!(rustix::process::setpriority_process(None, 1).is_err());
            std::thread::spawn(|| ()).join().unwrap();
        });
        filtered.join().unwrap();
    }
}
