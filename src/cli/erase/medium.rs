//! What a directory lies on, as far as the kernel tells without a privilege: filesystem, device, what that is made of. And
//! what of it can keep an old copy of an overwritten file.
//!
//! Facts: proc_pid_mountinfo(5), proc_swaps(5), sysfs(5) and the kernel's Documentation/ABI/stable/sysfs-block.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::mount::mountinfo;

/// Where sysfs lists block devices by their numbers.
const BLOCK_DEVICES: &str = "/sys/dev/block";
/// Layers that are followed downwards.
const DEEPEST: usize = 16;

/// Filesystems that never write over what they have written.
const COPY_ON_WRITE: [&str; 6] = ["btrfs", "zfs", "bcachefs", "nilfs2", "f2fs", "apfs"];
/// Filesystems on which copies may share blocks with what they were copied from.
const SHARED_BLOCKS: [&str; 2] = ["xfs", "ocfs2"];
/// Filesystems that live in memory.
const IN_MEMORY: [&str; 2] = ["tmpfs", "ramfs"];
/// Filesystems whose medium is another machine's.
const NETWORK: [&str; 11] = [
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "ceph",
    "9p",
    "afs",
    "virtiofs",
    "glusterfs",
    "lustre",
    "fuse.sshfs",
];
/// Filesystems that write over a file's blocks where they are.
const IN_PLACE: [&str; 7] = ["ext2", "ext3", "ext4", "xfs", "ocfs2", "vfat", "jfs"];

/// What a directory lies on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Medium {
    /// The directory.
    pub path: String,
    /// The filesystem's type; empty where it cannot be told.
    pub filesystem: String,
    /// What was mounted: a device, as a rule.
    pub source: String,
    /// The filesystem writes file data into its journal as well.
    pub journals_data: bool,
    /// Whether any medium below rotates, where a device is known.
    pub rotational: Option<bool>,
    /// Something below encrypts: what it keeps of old copies is encrypted.
    pub encrypted: bool,
    /// The devices, from the filesystem downwards.
    pub devices: Vec<Device>,
}

/// A block device below a filesystem.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Device {
    /// Its name in sysfs.
    pub name: String,
    /// Major and minor number.
    pub number: String,
    /// A device mapper's target and name, as in CRYPT-LUKS2-…
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub mapper: Option<String>,
    /// A loop device's file.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub backing_file: Option<String>,
    /// What its maker calls it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub model: Option<String>,
    /// Its serial number.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub serial_number: Option<String>,
    /// Whether it rotates.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rotational: Option<bool>,
}

/// A swap area in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Swap {
    /// Its device or file.
    pub path: String,
    /// It is encrypted, or in memory itself.
    pub is_safe: bool,
}

impl Medium {
    /// What `path`, which is canonical, lies on. What cannot be told stays empty.
    #[must_use]
    pub fn of(path: &Path) -> Self {
        Self::below(path, DEEPEST)
    }

    fn below(path: &Path, deepest: usize) -> Self {
        let mut medium = Self {
            path: path.to_string_lossy().into_owned(),
            ..Self::default()
        };
        let mounts = mountinfo::list().unwrap_or_default();
        // Of those that hold the path the innermost, and of these the last, which covers the others.
        let holding = mounts
            .into_iter()
            .filter(|mount| path.starts_with(&mount.mountpoint));
        let Some(mount) = holding.max_by_key(|mount| mount.mountpoint.as_os_str().len()) else {
            return medium;
        };
        medium.journals_data = mount
            .super_options
            .split(',')
            .any(|option| option == "data=journal");
        medium.filesystem = mount.filesystem_type;
        // A filesystem of several devices, as btrfs, has a number of its own: what was mounted is one of its devices.
        let source = Path::new(&mount.source);
        let number = match std::fs::metadata(source) {
            Ok(found) if found.file_type().is_block_device() => numbers(found.rdev()),
            _ => mount.device,
        };
        medium.source = mount.source.to_string_lossy().into_owned();
        medium.follow(Path::new(BLOCK_DEVICES), number, deepest);
        medium
    }

    /// Adds the device of this number and all below it.
    fn follow(&mut self, sysfs: &Path, (major, minor): (u32, u32), deepest: usize) {
        let Some(deepest) = deepest.checked_sub(1) else {
            return;
        };
        let number = format!("{major}:{minor}");
        let Ok(folder) = sysfs.join(&number).canonicalize() else {
            return;
        };
        let mapper = read(&folder.join("dm/uuid"));
        let backing_file = read(&folder.join("loop/backing_file"));
        self.encrypted |= mapper
            .as_ref()
            .is_some_and(|uuid| uuid.starts_with("CRYPT-"));
        let below = device_numbers(&folder.join("slaves"));
        let disk = if folder.join("partition").exists() {
            folder.parent().map_or(folder.clone(), Path::to_owned)
        } else {
            folder.clone()
        };
        let is_lowest = below.is_empty() && backing_file.is_none();
        let rotational = read(&disk.join("queue/rotational"))
            .filter(|_| is_lowest)
            .map(|text| text == "1");
        let known = |names: &[&str]| names.iter().find_map(|name| read(&disk.join(name)));
        self.devices.push(Device {
            name: folder
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default(),
            number,
            mapper,
            backing_file: backing_file.clone(),
            model: known(&["device/model"]),
            serial_number: known(&["device/serial", "serial"]),
            rotational,
        });
        if let Some(rotates) = rotational {
            self.rotational = Some(self.rotational.unwrap_or(false) || rotates);
        }
        for number in below {
            self.follow(sysfs, number, deepest);
        }
        if let Some(file) = backing_file {
            let lower = Self::below(Path::new(&file), deepest);
            self.encrypted |= lower.encrypted;
            if let Some(rotates) = lower.rotational {
                self.rotational = Some(self.rotational.unwrap_or(false) || rotates);
            }
            self.devices.extend(lower.devices);
        }
    }

    /// What may keep old bytes of a file here that was overwritten and removed, a sentence each.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let Self {
            path,
            filesystem,
            source,
            ..
        } = self;
        let is_one_of = |names: &[&str]| names.contains(&filesystem.as_str());
        let mut found = Vec::new();
        if is_one_of(&COPY_ON_WRITE) {
            found.push(format!(
                "{path} lies on {filesystem}, which writes elsewhere instead of overwriting: old blocks stay until they are reused, and snapshots keep them for as long as they exist"
            ));
        } else if filesystem == "overlay" {
            found.push(format!(
                "{path} lies on overlayfs: a lower layer or an image of it can keep an older copy"
            ));
        } else if is_one_of(&IN_MEMORY) {
            found.push(format!(
                "{path} lies on {filesystem}, in memory: pages of it may have been swapped out"
            ));
        } else if is_one_of(&NETWORK) {
            found.push(format!(
                "{path} lies on {filesystem} ({source}): what the server's medium, its snapshots and its backups keep cannot be seen from here"
            ));
        } else if !is_one_of(&IN_PLACE) {
            found.push(format!(
                "{path} lies on {}: whether that overwrites in place is not known",
                if filesystem.is_empty() {
                    "a filesystem that cannot be told"
                } else {
                    filesystem
                }
            ));
        }
        if is_one_of(&SHARED_BLOCKS) {
            found.push(format!(
                "{path} lies on {filesystem}, which can share blocks between copies (reflink): a copy made so keeps what was overwritten here"
            ));
        }
        if self.journals_data {
            found.push(format!(
                "{path} lies on a filesystem that writes data into its journal (data=journal): the journal can keep it for a while"
            ));
        }
        match self.rotational {
            Some(false) => found.push(format!(
                "{path} lies on a medium that does not rotate ({}): flash writes elsewhere instead of overwriting, and can keep old blocks until its firmware erases them",
                self.names()
            )),
            Some(true) => {}
            None => found.push(format!(
                "the medium under {path} cannot be told ({source})"
            )),
        }
        let has = |prefix: &str| {
            let mappers = self
                .devices
                .iter()
                .filter_map(|device| device.mapper.as_ref());
            mappers.into_iter().any(|uuid| uuid.starts_with(prefix))
        };
        if has("LVM-") {
            found.push(format!(
                "{path} lies on a logical volume: LVM snapshots of it keep what was overwritten since"
            ));
        }
        if self
            .devices
            .iter()
            .any(|device| device.backing_file.is_some())
        {
            found.push(format!(
                "{path} lies in a disk image: copies of the image keep what it held"
            ));
        }
        if self.is_virtual() {
            found.push(format!(
                "{path} lies on a virtual disk: what its host keeps it on, and which snapshots there are, cannot be seen from here"
            ));
        }
        if self.encrypted && !found.is_empty() {
            found.push(format!(
                "what the medium under {path} keeps is encrypted by a layer below (dm-crypt): it can be read with that layer's key only"
            ));
        }
        found
    }

    /// Whether it is a virtual machine's disk.
    fn is_virtual(&self) -> bool {
        let is_virtual = |device: &Device| {
            let name = ["vd", "xvd"]
                .iter()
                .any(|prefix| device.name.starts_with(prefix));
            let model = device.model.as_deref().unwrap_or_default();
            let model = ["QEMU", "VBOX", "VMware", "Virtual"]
                .iter()
                .any(|maker| model.contains(maker));
            name || model
        };
        self.devices.iter().any(is_virtual)
    }

    fn names(&self) -> String {
        let lowest = self
            .devices
            .iter()
            .filter(|device| device.rotational.is_some());
        let names: Vec<_> = lowest.map(|device| device.name.as_str()).collect();
        names.join(", ")
    }
}

/// The swap areas in use.
#[must_use]
pub fn swaps() -> Vec<Swap> {
    let text = std::fs::read_to_string("/proc/swaps").unwrap_or_default();
    parse_swaps(&text)
        .into_iter()
        .map(|path| Swap {
            is_safe: is_safe(&path),
            path: path.to_string_lossy().into_owned(),
        })
        .collect()
}

fn parse_swaps(text: &str) -> Vec<PathBuf> {
    let first = |line: &str| line.split_whitespace().next().map(PathBuf::from);
    text.lines().skip(1).filter_map(first).collect()
}

fn is_safe(swap: &Path) -> bool {
    let medium = match std::fs::metadata(swap) {
        Ok(found) if found.file_type().is_block_device() => {
            let mut medium = Medium::default();
            medium.follow(Path::new(BLOCK_DEVICES), numbers(found.rdev()), DEEPEST);
            medium
        }
        Ok(_) => Medium::of(swap),
        Err(_) => return false,
    };
    let mut devices = medium.devices.iter();
    medium.encrypted || devices.any(|device| device.name.starts_with("zram"))
}

/// What swap areas may hold: data keys are in memory while a volume is mounted.
#[must_use]
pub fn swap_warnings(swaps: &[Swap]) -> Vec<String> {
    let unsafe_ones = swaps.iter().filter(|swap| !swap.is_safe);
    unsafe_ones
        .map(|swap| {
            format!(
                "swap space is in use and not encrypted ({}): keys that were in the memory of a mount may have been written there",
                swap.path
            )
        })
        .collect()
}

fn numbers(device: u64) -> (u32, u32) {
    (rustix::fs::major(device), rustix::fs::minor(device))
}

/// The numbers of the devices that a folder of sysfs links to.
fn device_numbers(folder: &Path) -> BTreeSet<(u32, u32)> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let number = |entry: io::Result<std::fs::DirEntry>| {
        let text = read(&entry.ok()?.path().join("dev"))?;
        let (major, minor) = text.split_once(':')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    };
    entries.filter_map(number).collect()
}

fn read(file: &Path) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn put(sysfs: &Path, path: &str, text: &str) {
        let path = sysfs.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{text}\n")).unwrap();
    }

    fn followed(sysfs: &Path, number: (u32, u32)) -> Medium {
        let mut medium = Medium {
            path: "/keys".to_owned(),
            filesystem: "ext4".to_owned(),
            ..Medium::default()
        };
        medium.follow(sysfs, number, DEEPEST);
        medium
    }

    fn says(medium: &Medium, what: &str) -> bool {
        medium.warnings().iter().any(|text| text.contains(what))
    }

    #[test]
    fn a_partition_is_followed_to_its_disk_and_an_encrypted_volume_to_both_of_its_disks() {
        let temp = tempfile::tempdir().unwrap();
        let (sysfs, devices) = (temp.path().join("block"), temp.path().join("devices"));
        put(&devices, "sda/queue/rotational", "1");
        put(&devices, "sda/device/model", "Spinner");
        put(&devices, "sda/sda1/partition", "1");
        put(&devices, "sda/sda1/dev", "8:1");
        put(&devices, "sdb/queue/rotational", "0");
        put(&devices, "sdb/dev", "8:16");
        put(&devices, "dm-0/dm/uuid", "CRYPT-LUKS2-x");
        put(&devices, "dm-0/queue/rotational", "1");
        fs::create_dir_all(devices.join("dm-0/slaves")).unwrap();
        fs::create_dir_all(&sysfs).unwrap();
        for (name, target) in [("8:1", "sda/sda1"), ("8:16", "sdb"), ("252:0", "dm-0")] {
            std::os::unix::fs::symlink(devices.join(target), sysfs.join(name)).unwrap();
        }
        for below in ["sda/sda1", "sdb"] {
            let name = Path::new(below).file_name().unwrap();
            let link = devices.join("dm-0/slaves").join(name);
            std::os::unix::fs::symlink(devices.join(below), link).unwrap();
        }
        let partition = followed(&sysfs, (8, 1));
        assert_eq!(partition.rotational, Some(true));
        assert_eq!(partition.devices[0].model.as_deref(), Some("Spinner"));
        assert!(
            partition.warnings().is_empty(),
            "{:?}",
            partition.warnings()
        );
        let flash = followed(&sysfs, (8, 16));
        assert_eq!(flash.rotational, Some(false));
        assert!(says(&flash, "flash"));
        assert!(!says(&flash, "dm-crypt"));
        let both = followed(&sysfs, (252, 0));
        assert_eq!(both.devices.len(), 3);
        assert!(both.encrypted);
        assert_eq!(both.rotational, Some(true));
        let unknown = followed(&sysfs, (99, 0));
        assert_eq!(unknown.rotational, None);
        assert!(says(&unknown, "cannot be told"));
    }

    #[test]
    fn what_keeps_old_copies_is_warned_of() {
        let on = |filesystem: &str| Medium {
            path: "/keys".to_owned(),
            filesystem: filesystem.to_owned(),
            rotational: Some(true),
            ..Medium::default()
        };
        assert!(on("ext4").warnings().is_empty());
        for (filesystem, what) in [
            ("btrfs", "snapshots"),
            ("zfs", "snapshots"),
            ("overlay", "lower layer"),
            ("xfs", "reflink"),
            ("tmpfs", "swapped"),
            ("nfs4", "server"),
            ("fuse.mystery", "not known"),
            ("", "cannot be told"),
        ] {
            assert!(says(&on(filesystem), what), "{filesystem}");
        }
        let disk = |name: &str, model: Option<&str>| Medium {
            devices: vec![Device {
                name: name.to_owned(),
                model: model.map(str::to_owned),
                ..Device::default()
            }],
            ..on("ext4")
        };
        assert!(says(&disk("vda", None), "virtual disk"));
        assert!(says(&disk("sda", Some("QEMU HARDDISK")), "virtual disk"));
        assert!(!says(&disk("sda", Some("Spinner")), "virtual disk"));
        let journal = Medium {
            journals_data: true,
            ..on("ext4")
        };
        assert!(says(&journal, "journal"));
    }

    #[test]
    fn the_medium_of_a_real_directory_is_found() {
        let temp = tempfile::tempdir().unwrap();
        let medium = Medium::of(&temp.path().canonicalize().unwrap());
        assert!(!medium.filesystem.is_empty());
        assert_eq!(Medium::of(Path::new("/proc/self")).filesystem, "proc");
        assert!(says(&Medium::of(Path::new("/proc/self")), "not known"));
    }

    #[test]
    fn swap_areas_are_read_past_the_heading() {
        let text =
            "Filename Type Size Used Priority\n/dev/sda2 partition 1 0 -2\n/swap file 1 0 -3\n";
        assert_eq!(
            parse_swaps(text),
            [PathBuf::from("/dev/sda2"), PathBuf::from("/swap")]
        );
        assert!(parse_swaps("").is_empty());
        let swap = |is_safe| Swap {
            path: "/dev/sda2".to_owned(),
            is_safe,
        };
        assert!(swap_warnings(&[swap(true)]).is_empty());
        assert_eq!(swap_warnings(&[swap(false), swap(true)]).len(), 1);
    }
}
