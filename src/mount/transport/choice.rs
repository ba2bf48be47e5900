//! Which transport serves a mount, and why that one.

use std::fmt;
use std::fs;
use std::os::fd::BorrowedFd;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::uring::Rings;

/// The switch of the kernel module; missing before Linux 6.14.
const SWITCH: &str = "/sys/module/fuse/parameters/enable_uring";
const MISSING: &str = "this kernel has no FUSE-over-io-uring (Linux 6.14)";
const OFF: &str = "FUSE-over-io-uring, which is faster, is switched off in this kernel; root can switch it on: mount with \
                   -o enable-uring, or put \"options fuse enable_uring=Y\" into a file in /etc/modprobe.d";
/// The first Linux whose FUSE has all that our own transports take for granted (FUSE_SETXATTR_EXT, protocol 7.33).
const OLDEST: (u32, u32) = (5, 13);

/// How requests and answers travel between the kernel and the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Through rings in shared memory, one queue a processor.
    Uring,
    /// Through /dev/fuse, read by a loop of our own.
    Device,
    /// Through /dev/fuse, read by the fuser library.
    Fuser,
}

impl Kind {
    /// Its name, as the mount option has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Uring => "uring",
            Self::Device => "device",
            Self::Fuser => "fuser",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What `-o transport=` asks for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Wanted {
    /// The fastest that is to be had.
    #[default]
    Auto,
    /// This one; where it is not to be had, the next that is.
    Only(Kind),
}

impl Wanted {
    /// What can be asked for.
    pub const NAMES: [&'static str; 4] = ["auto", "uring", "device", "fuser"];
}

impl FromStr for Wanted {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        match name {
            "auto" => Ok(Self::Auto),
            "uring" => Ok(Self::Only(Kind::Uring)),
            "device" => Ok(Self::Only(Kind::Device)),
            "fuser" => Ok(Self::Only(Kind::Fuser)),
            _ => Err(()),
        }
    }
}

/// The transport of a mount.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Choice {
    /// Which.
    pub name: Kind,
    /// Why this one and no faster one, for people.
    pub reason: String,
}

impl Choice {
    pub(super) fn new(name: Kind, reason: impl Into<String>) -> Self {
        Self {
            name,
            reason: reason.into(),
        }
    }
}

/// A choice with what has to be made before the mount's process is confined.
#[derive(Debug)]
pub struct Prepared {
    pub(super) choice: Choice,
    pub(super) rings: Option<Rings>,
}

impl Prepared {
    fn without_rings(choice: Choice) -> Self {
        Self {
            choice,
            rings: None,
        }
    }
}

/// Turns the kernel's switch for FUSE-over-io-uring on, for all mounts that are made from here on. Where that cannot be done,
/// the log says why.
pub fn switch_on() {
    match switch() {
        Switch::Off => match fs::write(SWITCH, "Y") {
            Ok(()) => log::info!("FUSE-over-io-uring is switched on in this kernel"),
            Err(error) => log::warn!("FUSE-over-io-uring cannot be switched on: {SWITCH}: {error}"),
        },
        Switch::On => {}
        Switch::Missing => log::warn!("{MISSING}"),
    }
}

/// Chooses for a fresh mount with this descriptor. What is wanted and cannot be had is replaced by the next best, said on the
/// log.
#[must_use]
pub fn prepare(wanted: Wanted, device: BorrowedFd<'_>) -> Prepared {
    let prepared = choose(wanted, device);
    let Choice { name, reason } = &prepared.choice;
    match wanted {
        Wanted::Only(asked) if asked != *name => {
            log::warn!("transport {name} instead of {asked}: {reason}");
        }
        // Whoever can do something about it.
        Wanted::Auto if reason == OFF && rustix::process::geteuid().is_root() => {
            log::info!("{OFF}");
        }
        Wanted::Auto | Wanted::Only(_) => {}
    }
    prepared
}

fn choose(wanted: Wanted, device: BorrowedFd<'_>) -> Prepared {
    if wanted == Wanted::Only(Kind::Fuser) {
        return Prepared::without_rings(Choice::new(Kind::Fuser, "asked for"));
    }
    let release = rustix::system::uname();
    let release = release.release().to_string_lossy();
    if !is_new_enough(&release) {
        let (major, minor) = OLDEST;
        let reason = format!("this is Linux {release}; others need {major}.{minor}");
        return Prepared::without_rings(Choice::new(Kind::Fuser, reason));
    }
    if wanted == Wanted::Only(Kind::Device) {
        return Prepared::without_rings(Choice::new(Kind::Device, "asked for"));
    }
    let rings = match switch() {
        Switch::On => Rings::new(device).map_err(|error| format!("FUSE-over-io-uring: {error}")),
        Switch::Off => Err(OFF.to_owned()),
        Switch::Missing => Err(MISSING.to_owned()),
    };
    match rings {
        Ok(rings) => Prepared {
            choice: Choice::new(Kind::Uring, "the kernel offers FUSE-over-io-uring"),
            rings: Some(rings),
        },
        Err(reason) => Prepared::without_rings(Choice::new(Kind::Device, reason)),
    }
}

/// The kernel's switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Switch {
    On,
    Off,
    Missing,
}

fn switch() -> Switch {
    match fs::read_to_string(SWITCH) {
        Ok(text) if text.starts_with('Y') => Switch::On,
        Ok(_) => Switch::Off,
        Err(_) => Switch::Missing,
    }
}

/// By the release that the kernel calls itself: `6.18.5-amd64`.
fn is_new_enough(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    let mut next = || numbers.next().and_then(|number| number.parse::<u32>().ok());
    match (next(), next()) {
        (Some(major), Some(minor)) => (major, minor) >= OLDEST,
        // What cannot be read is new.
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_compared_by_number() {
        for new in ["5.13.0", "6.1.0-13-amd64", "10.0", "6.18.5+", "next"] {
            assert!(is_new_enough(new), "{new}");
        }
        for old in ["5.12.19", "4.19.0-21", "5.4.0-150-generic"] {
            assert!(!is_new_enough(old), "{old}");
        }
    }

    #[test]
    fn each_transport_is_asked_for_by_its_name() {
        for kind in [Kind::Uring, Kind::Device, Kind::Fuser] {
            assert_eq!(kind.name().parse(), Ok(Wanted::Only(kind)));
            let json = serde_json::to_string(&kind).unwrap();
            assert_eq!(json, format!("\"{kind}\""));
        }
        assert_eq!("auto".parse(), Ok(Wanted::Auto));
        assert_eq!("Uring".parse::<Wanted>(), Err(()));
    }
}
