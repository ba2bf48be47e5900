//! The transports of a mount, one by one: which is chosen and why, what only our own can do, and how each ends while it is
//! busy. All other tests that mount run over the transport that `CMKFS_TRANSPORT` names.
//!
//! [`choice`] · [`requests`] files without a name, time of birth, setuid and setgid · [`ends`] unmounting, killing, aborting ·
//! [`load`] many at once, little memory, processors that go.

#[path = "../common/mod.rs"]
mod common;

mod choice;
mod ends;
mod load;
mod requests;

use std::os::unix::fs::PermissionsExt;

use common::Volume;

/// All transports. The rings want their switch on, which these tests turn on as root does (scripts/test puts it back).
const TRANSPORTS: [&str; 3] = ["uring", "device", "fuser"];

/// The transports that are our own.
const OWN: [&str; 2] = ["uring", "device"];

/// The kernel's switch for FUSE-over-io-uring.
const SWITCH: &str = "/sys/module/fuse/parameters/enable_uring";

/// A new volume, mounted over this transport and no other.
fn mounted(transport: &str) -> Volume {
    let volume = Volume::new();
    mount(&volume, transport);
    volume
}

fn mount(volume: &Volume, transport: &str) {
    if transport == "uring" {
        switch_on();
    }
    volume.mount(&["-o", &format!("transport={transport}")]);
    assert_eq!(volume.transport(), transport, "{}", volume.log());
}

/// Lets ordinary users into the mount.
fn let_everybody_in(volume: &Volume) {
    for folder in [volume.folder().to_owned(), volume.mountpoint()] {
        std::fs::set_permissions(folder, PermissionsExt::from_mode(0o755)).unwrap();
    }
}

/// On for as long as this machine runs, as other tests of this program may need it at the same time.
fn switch_on() {
    let is_on = std::fs::read_to_string(SWITCH).expect(
        "these tests need FUSE-over-io-uring (Linux 6.14), which this kernel does not have",
    );
    if !is_on.starts_with('Y') {
        std::fs::write(SWITCH, "Y").expect("these tests run as root");
    }
}
