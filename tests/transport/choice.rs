//! Which transport serves a mount.

use super::common::Volume;
use super::{SWITCH, TRANSPORTS, mounted, switch_on};

#[test]
fn each_transport_is_used_when_it_is_asked_for_and_says_so() {
    for transport in TRANSPORTS {
        let volume = mounted(transport);
        std::fs::write(volume.path("a"), transport).unwrap();
        let table = volume.succeed(&["status", "MOUNTPOINT"]);
        assert!(
            table.contains(&format!("Transport        {transport} (")),
            "{table}"
        );
        let log = volume.log();
        assert!(log.contains(&format!("transport {transport}: ")), "{log}");
        volume.unmount();
        // What one has written another reads.
        for other in TRANSPORTS {
            super::mount(&volume, other);
            assert_eq!(
                std::fs::read_to_string(volume.path("a")).unwrap(),
                transport
            );
            volume.unmount();
        }
    }
}

#[test]
fn by_itself_a_mount_uses_the_rings_where_they_are_switched_on() {
    switch_on();
    let volume = Volume::new();
    volume.mount(&["-o", "transport=auto"]);
    assert_eq!(volume.transport(), "uring", "{}", volume.log());
}

#[test]
fn what_is_no_transport_is_refused_with_what_is_one() {
    let volume = Volume::new();
    let said = volume.fail(&["mount", "-o", "transport=usb", "CIPHERDIR", "MOUNTPOINT"]);
    assert!(said.contains("auto, uring, device, fuser"), "{said}");
}

/// In a mount namespace of its own, where the switch is covered by a file: other mounts of this machine keep theirs.
#[test]
fn a_switch_that_is_off_leads_to_the_device_with_a_word_on_how_to_turn_it_on() {
    let volume = Volume::new();
    let off = volume.folder().join("off");
    std::fs::write(&off, "N\n").unwrap();
    let run = |option: &str, then: &str| {
        let cmkfs = env!("CARGO_BIN_EXE_cmkfs");
        let script = format!(
            "mount --bind {} {SWITCH} && {cmkfs} mount -o {option} {} {} && {cmkfs} status --output json {} && {then}; \
             result=$?; umount {}; exit $result",
            off.display(),
            volume.ciphertext().display(),
            volume.mountpoint().display(),
            volume.mountpoint().display(),
            volume.mountpoint().display(),
        );
        let output = volume
            .program("unshare")
            .args(["--mount", "sh", "-c", &script])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        volume.wait_until_free();
        (String::from_utf8_lossy(&output.stdout).into_owned(), said)
    };
    for option in ["transport=auto", "transport=uring"] {
        let (status, said) = run(option, "true");
        assert!(status.contains(r#""Name": "device""#), "{status}");
        assert!(status.contains("-o enable-uring"), "{status}");
        assert!(said.contains("-o enable-uring"), "{said}");
    }
    assert_eq!(
        std::fs::read_to_string(&off).unwrap(),
        "N\n",
        "nobody asked"
    );
    run("transport=uring,enable-uring", "true");
    assert_eq!(std::fs::read_to_string(&off).unwrap(), "Y", "asked for");
}

/// With so few descriptors there is room for a mount, but not for its rings.
#[test]
fn rings_that_cannot_be_made_leave_the_device() {
    switch_on();
    let volume = Volume::new();
    let mut command = volume.program("prlimit");
    command.args(["--nofile=40:40", env!("CARGO_BIN_EXE_cmkfs"), "mount"]);
    command.args(["-o", "transport=uring"]);
    let output = command
        .args([volume.ciphertext(), volume.mountpoint()])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("transport device instead of uring"), "{said}");
    assert!(said.contains("Too many open files"), "{said}");
    assert_eq!(volume.transport(), "device");
    std::fs::write(volume.path("a"), "a").unwrap();
    assert_eq!(std::fs::read(volume.path("a")).unwrap(), b"a");
}

#[test]
fn an_ordinary_user_has_every_transport() {
    switch_on();
    for transport in TRANSPORTS {
        let volume = Volume::bare(Some((65534, 65534)));
        volume.succeed(&["init", "CIPHERDIR"]);
        succeed_in_making(&volume);
        volume.mount(&["-o", &format!("transport={transport}")]);
        assert_eq!(volume.transport(), transport, "{}", volume.log());
        let mut shell = volume.program("sh");
        let path = volume.path("a");
        shell.args(["-c", &format!("echo b > {0} && cat {0}", path.display())]);
        assert_eq!(super::common::succeed(&mut shell), "b\n");
        volume.unmount();
    }
}

fn succeed_in_making(volume: &Volume) {
    super::common::succeed(volume.program("mkdir").arg(volume.mountpoint()));
}
