//! Mounting where a daemon has died, in less usual states.

use std::process::Stdio;

use rustix::mount::UnmountFlags;
use rustix::process::Signal;

use crate::common::{Volume, eventually};

fn sockets(volume: &Volume) -> usize {
    std::fs::read_dir(volume.folder().join("keys/mounts"))
        .unwrap()
        .count()
}

fn works(volume: &Volume) {
    std::fs::write(volume.path("works"), "it does").unwrap();
    assert_eq!(
        std::fs::read_to_string(volume.path("works")).unwrap(),
        "it does"
    );
    assert!(volume.is_mounted());
}

#[test]
fn a_dead_mount_that_was_detached_is_in_nobodys_way() {
    let volume = Volume::mounted();
    let open = std::fs::File::create(volume.path("open")).unwrap();
    volume.kill();
    rustix::mount::unmount(volume.mountpoint(), UnmountFlags::DETACH).unwrap();
    volume.mount(&[]);
    works(&volume);
    assert!(open.sync_all().is_err(), "what was open there is lost");
}

#[test]
fn of_two_mounts_at_once_on_a_dead_one_one_wins_and_the_other_says_so() {
    let volume = Volume::mounted();
    for _ in 0..3 {
        volume.kill();
        let start = || {
            let mut command = volume.command(&["mount", "CIPHERDIR", "MOUNTPOINT"]);
            // The daemon keeps what it is not taken away.
            command
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        };
        let both = [start(), start()].map(|child| child.wait_with_output().unwrap());
        let lost: Vec<_> = both
            .iter()
            .filter(|output| !output.status.success())
            .collect();
        assert_eq!(lost.len(), 1, "{both:?}");
        let said = String::from_utf8_lossy(&lost[0].stderr);
        assert!(
            said.contains("in use") || said.contains("mounted"),
            "{said}"
        );
        works(&volume);
    }
}

#[test]
fn a_mount_whose_daemon_is_stopped_is_not_taken_over() {
    let volume = Volume::mounted();
    volume.signal(Signal::STOP);
    let mut child = volume
        .command(&["mount", "CIPHERDIR", "MOUNTPOINT"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut ended = None;
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(15);
    while ended.is_none() && std::time::Instant::now() < deadline {
        ended = child.try_wait().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let _ = child.kill();
    volume.signal(Signal::CONT);
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        ended.is_some_and(|status| !status.success()),
        "it waits for ever: {said}"
    );
    works(&volume);
}

#[test]
fn sockets_of_dead_daemons_are_removed_by_whoever_finds_them() {
    let volume = Volume::mounted();
    for _ in 0..3 {
        volume.kill();
        volume.mount(&[]);
    }
    volume.succeed(&["status"]);
    eventually("only the live one is left", || sockets(&volume) == 1);
}
