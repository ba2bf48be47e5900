//! Disks that lose their power: image files on an xfs with reflink, itself in an image, behind loop devices that write
//! directly. A clone of an image is what a disk holds at one moment: all that the filesystem on it has sent, and nothing of
//! what it still keeps in memory.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use crate::common::succeed;

const POOL_SIZE: u64 = 4 << 30;
const DISK_SIZE: u64 = 512 << 20;

/// A filesystem of Linux that keeps a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filesystem {
    Ext4,
    Xfs,
    Btrfs,
}

impl Filesystem {
    const fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
        }
    }

    fn make(self, image: &Path) {
        let mut mkfs = Command::new(format!("mkfs.{}", self.name()));
        if self == Self::Xfs {
            mkfs.args(["-m", "reflink=1", "-s", "size=4096"]);
        }
        succeed(mkfs.arg("-q").arg(image));
    }

    /// A disk and its clone have the same identity, which xfs does not like.
    const fn options(self) -> &'static str {
        match self {
            Self::Xfs => "nouuid",
            Self::Ext4 | Self::Btrfs => "defaults",
        }
    }
}

/// An image behind a loop device, mounted.
#[derive(Debug)]
struct Attached {
    device: String,
    mountpoint: PathBuf,
}

impl Attached {
    fn new(image: &Path, mountpoint: &Path, filesystem: Filesystem) -> Self {
        let mut losetup = Command::new("losetup");
        // A cloned image would be given larger sectors than the same image before.
        losetup
            .args(["--find", "--show", "--direct-io=on", "--sector-size=4096"])
            .arg(image);
        let output = losetup.output().expect("losetup, of the package mount");
        assert!(
            output.status.success(),
            "power cuts need loop devices, and there is none to be had: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let device = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let attached = Self {
            device,
            mountpoint: mountpoint.to_owned(),
        };
        if filesystem == Filesystem::Btrfs {
            // It remembers disks that are gone, and takes no older one of the same identity for them.
            succeed(Command::new("btrfs").args(["device", "scan", "--forget"]));
        }
        let kind = ["-t", filesystem.name(), "-o", filesystem.options()];
        succeed(
            Command::new("mount")
                .args(kind)
                .arg(&attached.device)
                .arg(mountpoint),
        );
        attached
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        let until = Instant::now() + Duration::from_secs(10);
        while rustix::mount::unmount(&self.mountpoint, UnmountFlags::empty()) == Err(Errno::BUSY) {
            if Instant::now() > until {
                // Its device goes when nobody uses it any more.
                let _ = rustix::mount::unmount(&self.mountpoint, UnmountFlags::DETACH);
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = Command::new("losetup")
            .args(["--detach", &self.device])
            .status();
    }
}

/// The xfs on which the images lie.
#[derive(Debug)]
pub struct Pool(Attached);

impl Pool {
    /// A pool in this directory.
    pub fn new(folder: &Path) -> Self {
        let (image, mountpoint) = (folder.join("pool.image"), folder.join("pool"));
        sparse(&image, POOL_SIZE);
        fs::create_dir(&mountpoint).unwrap();
        Filesystem::Xfs.make(&image);
        Self(Attached::new(&image, &mountpoint, Filesystem::Xfs))
    }

    fn image(&self, name: &str) -> PathBuf {
        self.0.mountpoint.join(name)
    }

    /// A new disk with this filesystem, mounted.
    pub fn disk(&self, name: &str, filesystem: Filesystem, mountpoint: &Path) -> Disk {
        let image = self.image(name);
        sparse(&image, DISK_SIZE);
        filesystem.make(&image);
        let disk = self.boot(name, filesystem, mountpoint);
        let _ = fs::remove_dir(mountpoint.join("lost+found"));
        disk
    }

    /// Mounts a disk as it is found after a power cut.
    pub fn boot(&self, name: &str, filesystem: Filesystem, mountpoint: &Path) -> Disk {
        let image = self.image(name);
        Disk {
            _attached: Attached::new(&image, mountpoint, filesystem),
        }
    }

    /// Keeps what a disk holds at this moment as another.
    pub fn cut(&self, name: &str, clone: &str) {
        let source = File::open(self.image(name)).unwrap();
        let target = File::create_new(self.image(clone)).unwrap();
        rustix::fs::ioctl_ficlone(&target, &source).unwrap();
    }

    /// Throws a disk away.
    pub fn remove(&self, name: &str) {
        fs::remove_file(self.image(name)).unwrap();
    }
}

/// A mounted disk.
#[derive(Debug)]
pub struct Disk {
    _attached: Attached,
}

fn sparse(path: &Path, size: u64) {
    File::create_new(path).unwrap().set_len(size).unwrap();
}

/// Fails where a program is missing that this needs.
pub fn needs() {
    for (program, package) in [
        ("mkfs.xfs", "xfsprogs"),
        ("mkfs.ext4", "e2fsprogs"),
        ("mkfs.btrfs", "btrfs-progs"),
        ("btrfs", "btrfs-progs"),
        ("losetup", "mount"),
        ("prlimit", "util-linux"),
        ("sqlite3", "sqlite3"),
    ] {
        let found = Command::new("sh")
            .args(["-c", &format!("command -v {program}")])
            .output();
        assert!(
            found.unwrap().status.success(),
            "{program} is missing: apt-get install {package}"
        );
    }
}
