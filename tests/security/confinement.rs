//! What a mount's process has given up, as the kernel sees it.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

use crate::common::{Volume, eventually};
use crate::{of_user, status_of};

/// CHOWN, DAC_OVERRIDE, FOWNER, FSETID, SETGID, SETUID, IPC_LOCK, SYS_ADMIN, SYS_NICE, MKNOD, SETFCAP.
const ROOTS: u64 = 1 << 0
    | 1 << 1
    | 1 << 3
    | 1 << 4
    | 1 << 6
    | 1 << 7
    | 1 << 14
    | 1 << 21
    | 1 << 23
    | 1 << 27
    | 1 << 31;

/// The daemon's threads, as folders of /proc.
fn threads(volume: &Volume) -> Vec<String> {
    let pid = volume.daemon().unwrap();
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    tasks
        .map(|task| format!("{pid}/task/{}", task.unwrap().file_name().display()))
        .collect()
}

fn mask(task: &str, name: &str) -> u64 {
    u64::from_str_radix(&status_of(task, name), 16).unwrap()
}

fn assert_confined(volume: &Volume) {
    let tasks = threads(volume);
    assert!(tasks.len() > 5, "{tasks:?}");
    for task in tasks {
        assert_eq!(status_of(&task, "NoNewPrivs"), "1", "{task}");
        assert_eq!(status_of(&task, "Seccomp"), "2", "{task}");
        assert_eq!(mask(&task, "CapInh"), 0, "{task}");
        assert_eq!(mask(&task, "CapAmb"), 0, "{task}");
    }
    let said = volume.succeed(&["status", "MOUNTPOINT", "--output", "json"]);
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    let confinement = &said[0]["Confinement"];
    for what in ["NoNewPrivileges", "SystemCalls", "Files"] {
        assert_eq!(confinement[what], true, "{said}");
    }
}

/// The processes beside this mount's own: the one that unmounts for it, and the one that asks the mount for it.
fn seconds(volume: &Volume) -> Vec<u32> {
    let daemon = volume.daemon().expect("a daemon").to_string();
    ["cmkfs-unmount", "cmkfs-sync"]
        .iter()
        .filter_map(|name| {
            let found = Command::new("pgrep")
                .args(["-P", &daemon, "-x", name])
                .output()
                .unwrap();
            String::from_utf8(found.stdout).unwrap().trim().parse().ok()
        })
        .collect()
}

/// The process that unmounts for this mount.
fn unmounter(volume: &Volume) -> Option<u32> {
    seconds(volume).first().copied()
}

#[test]
fn the_processes_beside_a_mounts_hold_neither_its_session_nor_the_mount() {
    for volume in [Volume::mounted(), of_user()] {
        // Also when one has done something.
        volume.succeed(&["key", "disable", "alias/cmkfs/default"]);
        volume.succeed(&["key", "enable", "alias/cmkfs/default"]);
        let seconds = seconds(&volume);
        assert_eq!(seconds.len(), 2, "{seconds:?}");
        for process in seconds {
            for descriptor in fs::read_dir(format!("/proc/{process}/fd")).unwrap() {
                let leads_to = fs::read_link(descriptor.unwrap().path()).unwrap();
                assert_ne!(leads_to, Path::new("/dev/fuse"));
                assert!(!leads_to.starts_with(volume.mountpoint()), "{leads_to:?}");
            }
        }
        volume.unmount();
    }
}

#[test]
fn every_thread_of_roots_mount_has_only_what_serving_takes() {
    let volume = Volume::mounted();
    assert_confined(&volume);
    let before = mask("self", "CapEff");
    for task in threads(&volume) {
        for set in ["CapEff", "CapPrm", "CapBnd"] {
            assert_eq!(mask(&task, set), ROOTS & before, "{task} {set}");
        }
    }
}

#[test]
fn the_mount_of_an_ordinary_user_has_no_capability() {
    let volume = of_user();
    assert_confined(&volume);
    for task in threads(&volume) {
        assert_eq!(mask(&task, "CapEff") | mask(&task, "CapPrm"), 0, "{task}");
    }
}

#[test]
fn a_signal_unmounts_though_the_process_itself_could_not() {
    for volume in [Volume::mounted(), of_user()] {
        let unmounter = unmounter(&volume).expect("a second process");
        assert_eq!(status_of(&unmounter.to_string(), "NoNewPrivs"), "0");
        volume.signal(Signal::TERM);
        volume.wait_until_free();
        eventually("the second process has ended, too", || {
            !Path::new(&format!("/proc/{unmounter}")).exists()
        });
    }
}

#[test]
fn the_processes_beside_a_mounts_outlive_a_signal_to_all_and_end_with_the_mount() {
    let volume = Volume::mounted();
    let seconds = seconds(&volume);
    assert_eq!(seconds.len(), 2, "{seconds:?}");
    for process in &seconds {
        let process = rustix::process::Pid::from_raw(i32::try_from(*process).unwrap()).unwrap();
        for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
            rustix::process::kill_process(process, signal).unwrap();
        }
    }
    fs::write(volume.path("a"), "a").unwrap();
    assert!(volume.is_mounted());
    let lives = |process: &u32| Path::new(&format!("/proc/{process}")).exists();
    assert!(seconds.iter().all(lives));
    volume.kill();
    eventually("the second processes have ended, too", || {
        !seconds.iter().any(lives)
    });
    // As ever: the dead mount stays until somebody takes the place over.
    volume.mount(&[]);
    assert!(fs::read(volume.path("a")).is_ok());
}

#[test]
fn attributes_and_devices_that_only_root_may_make_can_still_be_made() {
    let volume = Volume::mounted();
    let file = volume.path("file");
    fs::write(&file, "x").unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    for name in ["trusted.a", "security.a", "user.a"] {
        rustix::fs::setxattr(&file, name, b"value", flags).unwrap();
    }
    std::os::unix::fs::chown(&file, Some(1234), Some(4321)).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        volume.path("null"),
        rustix::fs::FileType::CharacterDevice,
        rustix::fs::Mode::from_raw_mode(0o600),
        rustix::fs::makedev(1, 3),
    )
    .unwrap();
}

/// A kernel that lacks what a mount would be confined by, or is not allowed it: so are some containers.
#[test]
fn without_landlock_and_seccomp_a_mount_works_and_says_what_is_missing() {
    let volume = Volume::new();
    let mut mount = volume.command(&["mount", "CIPHERDIR", "MOUNTPOINT"]);
    let calls = [libc::SYS_landlock_create_ruleset, libc::SYS_seccomp];
    let filter = SeccompFilter::new(
        calls.into_iter().map(|call| (call, Vec::new())).collect(),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::ENOSYS.unsigned_abs()),
        std::env::consts::ARCH.try_into().unwrap(),
    );
    let filter: BpfProgram = filter.unwrap().try_into().unwrap();
    let lacking = move || {
        seccompiler::apply_filter(&filter).map_err(|error| std::io::Error::other(error.to_string()))
    };
    // SAFETY: it makes two system calls, and allocates only where one of them fails.
    unsafe { mount.pre_exec(lacking) };
    let output = mount.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    for missing in ["the rules for files", "the filter of system calls"] {
        assert_eq!(said.matches(missing).count(), 1, "{said}");
    }
    fs::write(volume.path("file"), "x").unwrap();
    let said = volume.succeed(&["status", "MOUNTPOINT"]);
    assert!(
        said.contains("not restricted: system calls, files"),
        "{said}"
    );
    volume.unmount();
}

/// By number: no C library would make some of these calls.
#[test]
fn no_namespace_is_made_and_no_second_number_of_a_call_gets_past_the_filter() {
    use cmkfs::mount::confine::{Reach, confine};

    let here = Path::new("/nonexistent");
    // Of this thread only.
    let confined = std::thread::spawn(|| {
        let confinement = confine(&Reach {
            ciphertext: here,
            keys: here,
            mountpoint: here,
            readahead: here,
        });
        assert!(confinement.system_calls, "{confinement:?}");
        let flags = [
            libc::CLONE_NEWUSER,
            libc::CLONE_NEWNS,
            libc::CLONE_NEWNET,
            libc::CLONE_NEWPID,
            libc::CLONE_NEWIPC,
            libc::CLONE_NEWUTS,
            libc::CLONE_NEWCGROUP,
        ];
        for flag in flags {
            assert_eq!(call(libc::SYS_clone, flag | libc::SIGCHLD), libc::EPERM);
            assert_eq!(call(libc::SYS_unshare, flag), libc::EPERM);
        }
        assert_eq!(call(libc::SYS_clone3, 0), libc::ENOSYS);
        #[cfg(target_arch = "x86_64")]
        for number in [libc::SYS_mount, libc::SYS_clone, 520, 545] {
            assert_eq!(call(number | 0x4000_0000, 0), libc::EPERM, "{number}");
        }
        std::thread::spawn(|| ()).join().unwrap();
    });
    confined.join().unwrap();
}

/// The errno of a call whose other arguments are zero.
fn call(number: i64, argument: i32) -> i32 {
    // SAFETY: without a stack of its own and without CLONE_VM a child is as after fork(2), and ends at once; the other calls
    // point nowhere.
    let result = unsafe { libc::syscall(number, libc::c_long::from(argument), 0, 0, 0, 0) };
    if result == 0 && number == libc::SYS_clone {
        // SAFETY: ends the child that should not be there, without running anything of its parent's.
        unsafe { libc::_exit(1) };
    }
    assert_eq!(result, -1, "call {number} with {argument:#x}");
    std::io::Error::last_os_error().raw_os_error().unwrap()
}
