//! `-o`: the options people expect of a filesystem, parsed once into what the kernel, the mount helper and the daemon need.
//!
//! As root, `cmkfs mount` is `nosuid,nodev` unless `-o suid,dev` asks otherwise, as with every FUSE filesystem; `mount(8)`
//! and fstab get the defaults of mount(8) (`suid,dev`) from the helper script. For ordinary users the kernel enforces
//! `nosuid,nodev`.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::str::FromStr;

use rustix::mount::MountFlags;

use super::transport::Wanted;

/// Options that take no value and mean something.
const FLAGS: [&str; 28] = [
    "ro",
    "rw",
    "suid",
    "nosuid",
    "dev",
    "nodev",
    "exec",
    "noexec",
    "atime",
    "noatime",
    "diratime",
    "nodiratime",
    "relatime",
    "norelatime",
    "strictatime",
    "nostrictatime",
    "sync",
    "async",
    "dirsync",
    "allow_other",
    "noallow_other",
    "default_permissions",
    "nosymfollow",
    "symfollow",
    "defaults",
    "init",
    "lazytime",
    "enable-uring",
];
/// Options that take a value.
const VALUES: [&str; 6] = [
    "fsname",
    "subtype",
    "keys",
    "passphrase-file",
    "log",
    "transport",
];
/// Meant for mount(8), systemd and fstab's readers, not for us.
const IGNORED: [&str; 14] = [
    "auto",
    "noauto",
    "user",
    "nouser",
    "users",
    "owner",
    "group",
    "nofail",
    "_netdev",
    "_rnetdev",
    "nolazytime",
    "comment",
    "uhelper",
    "nonempty",
];

/// An option that cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// No such option.
    #[error("unknown mount option {0:?}")]
    Unknown(String),
    /// The option needs a value.
    #[error("mount option {0:?} needs a value: {0}=…")]
    NoValue(String),
    /// The value is none of those that there are.
    #[error("mount option {0:?}: {1:?} is none of {names}", names = Wanted::NAMES.join(", "))]
    Transport(String, String),
    /// The option takes none.
    #[error("mount option {0:?} takes no value")]
    Value(String),
}

/// The options there are, for people.
#[must_use]
pub fn known() -> String {
    let values = VALUES
        .iter()
        .filter(|name| **name != "subtype")
        .map(|name| format!("{name}=…"));
    FLAGS
        .iter()
        .map(|name| (*name).to_owned())
        .chain(values)
        .collect::<Vec<_>>()
        .join(", ")
}

/// Mount options, later ones having overridden earlier ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountOptions {
    /// Flags of mount(2), `RDONLY` among them.
    pub flags: MountFlags,
    /// Others than the mounting user may come in; `None`: the default (root's mounts are open to all whom the files'
    /// permissions let in, an ordinary user's are his own).
    pub allow_other: Option<bool>,
    /// The source to show instead of the ciphertext directory.
    pub fsname: Option<OsString>,
    /// The key directory.
    pub keys: Option<PathBuf>,
    /// A file that holds the key directory's passphrase.
    pub passphrase_file: Option<PathBuf>,
    /// The background daemon's log.
    pub log: Option<PathBuf>,
    /// Make the volume and the mountpoint where they are missing.
    pub init: bool,
    /// How requests travel from the kernel to the daemon.
    pub transport: Wanted,
    /// Turn on FUSE-over-io-uring in the kernel, for all mounts from here on, where it is off.
    pub enable_uring: bool,
}

impl Default for MountOptions {
    fn default() -> Self {
        Self {
            flags: MountFlags::NOSUID | MountFlags::NODEV,
            allow_other: None,
            fsname: None,
            keys: None,
            passphrase_file: None,
            log: None,
            init: false,
            transport: Wanted::Auto,
            enable_uring: false,
        }
    }
}

impl MountOptions {
    /// Options given as one or more comma-separated lists. A comma or backslash within a value is written `\,` and `\\`.
    ///
    /// # Errors
    /// An option that is not known, or that lacks or does not take its value.
    pub fn parse<'a>(lists: impl IntoIterator<Item = &'a OsStr>) -> Result<Self, OptionError> {
        let mut options = Self::default();
        for list in lists {
            for option in split(list) {
                options.take(&option)?;
            }
        }
        Ok(options)
    }

    /// Whether writing is refused.
    #[must_use]
    pub const fn read_only(&self) -> bool {
        self.flags.contains(MountFlags::RDONLY)
    }

    fn take(&mut self, option: &[u8]) -> Result<(), OptionError> {
        let (name, value) = match option.iter().position(|byte| *byte == b'=') {
            Some(at) => (&option[..at], Some(OsStr::from_bytes(&option[at + 1..]))),
            None => (option, None),
        };
        let name = String::from_utf8_lossy(name);
        if name.is_empty()
            || IGNORED.contains(&&*name)
            || name.starts_with("x-")
            || name.starts_with("X-")
        {
            return Ok(());
        }
        match value {
            None if FLAGS.contains(&&*name) => self.flag(&name),
            Some(value) if VALUES.contains(&&*name) => self.value(&name, value)?,
            None if VALUES.contains(&&*name) => {
                return Err(OptionError::NoValue(name.into_owned()));
            }
            Some(_) if FLAGS.contains(&&*name) => {
                return Err(OptionError::Value(name.into_owned()));
            }
            _ => return Err(OptionError::Unknown(name.into_owned())),
        }
        Ok(())
    }

    fn flag(&mut self, name: &str) {
        let times = MountFlags::NOATIME | MountFlags::RELATIME | MountFlags::STRICTATIME;
        match name {
            "ro" => self.flags |= MountFlags::RDONLY,
            "rw" => self.flags -= MountFlags::RDONLY,
            "suid" => self.flags -= MountFlags::NOSUID,
            "nosuid" => self.flags |= MountFlags::NOSUID,
            "dev" => self.flags -= MountFlags::NODEV,
            "nodev" => self.flags |= MountFlags::NODEV,
            "exec" => self.flags -= MountFlags::NOEXEC,
            "noexec" => self.flags |= MountFlags::NOEXEC,
            "atime" | "norelatime" | "nostrictatime" => self.flags -= times,
            "noatime" => self.flags = (self.flags - times) | MountFlags::NOATIME,
            "relatime" => self.flags = (self.flags - times) | MountFlags::RELATIME,
            "strictatime" => self.flags = (self.flags - times) | MountFlags::STRICTATIME,
            "diratime" => self.flags -= MountFlags::NODIRATIME,
            "nodiratime" => self.flags |= MountFlags::NODIRATIME,
            "lazytime" => self.flags |= MountFlags::LAZYTIME,
            "sync" => self.flags |= MountFlags::SYNCHRONOUS,
            "async" => self.flags -= MountFlags::SYNCHRONOUS,
            "dirsync" => self.flags |= MountFlags::DIRSYNC,
            "nosymfollow" => self.flags |= MountFlags::NOSYMFOLLOW,
            "symfollow" => self.flags -= MountFlags::NOSYMFOLLOW,
            "allow_other" => self.allow_other = Some(true),
            "noallow_other" => self.allow_other = Some(false),
            "defaults" => {
                self.flags -= MountFlags::RDONLY
                    | MountFlags::NOSUID
                    | MountFlags::NODEV
                    | MountFlags::NOEXEC
                    | MountFlags::SYNCHRONOUS;
            }
            "init" => self.init = true,
            "enable-uring" => self.enable_uring = true,
            // default_permissions is always on.
            _ => {}
        }
    }

    fn value(&mut self, name: &str, value: &OsStr) -> Result<(), OptionError> {
        match name {
            "fsname" => self.fsname = Some(value.to_owned()),
            "keys" => self.keys = Some(value.into()),
            "passphrase-file" => self.passphrase_file = Some(value.into()),
            "log" => self.log = Some(value.into()),
            "transport" => {
                let asked = value.to_string_lossy();
                self.transport = asked
                    .parse()
                    .map_err(|()| OptionError::Transport(name.to_owned(), asked.into_owned()))?;
            }
            // mount(8) passes the subtype it was called with.
            _ => {}
        }
        Ok(())
    }
}

/// For a command line without `-o`.
impl FromStr for MountOptions {
    type Err = OptionError;

    fn from_str(list: &str) -> Result<Self, Self::Err> {
        Self::parse([OsStr::new(list)])
    }
}

/// Splits at commas that no backslash escapes.
fn split(list: &OsStr) -> Vec<Vec<u8>> {
    let mut options = vec![Vec::new()];
    let mut bytes = list.as_bytes().iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b',' => options.push(Vec::new()),
            _ => {
                let escaped = matches!(
                    (byte, bytes.as_slice().first()),
                    (b'\\', Some(b',' | b'\\'))
                );
                let byte = if escaped {
                    bytes.next().unwrap_or(byte)
                } else {
                    byte
                };
                if let Some(last) = options.last_mut() {
                    last.push(*byte);
                }
            }
        }
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mount::transport::Kind;

    #[test]
    fn later_options_override_earlier_ones() {
        let options: MountOptions = "ro,noexec,suid,rw,noatime,relatime".parse().unwrap();
        assert!(!options.read_only());
        assert_eq!(
            options.flags,
            MountFlags::NOEXEC | MountFlags::NODEV | MountFlags::RELATIME
        );
    }

    #[test]
    fn suid_and_devices_are_off_unless_asked_for() {
        assert_eq!(
            MountOptions::default().flags,
            MountFlags::NOSUID | MountFlags::NODEV
        );
        assert_eq!(
            "defaults".parse::<MountOptions>().unwrap().flags,
            MountFlags::empty()
        );
    }

    #[test]
    fn what_fstab_says_to_others_is_ignored() {
        let noise = "noauto,user,_netdev,nofail,x-systemd.automount,x-gvfs-show,comment=hello,,default_permissions";
        assert_eq!(
            noise.parse::<MountOptions>().unwrap(),
            MountOptions::default()
        );
    }

    #[test]
    fn values_may_hold_commas_equals_and_spaces() {
        let options: MountOptions = r"fsname=a\,suid b=c\\,keys=/k,init,allow_other"
            .parse()
            .unwrap();
        assert_eq!(options.fsname.as_deref(), Some(OsStr::new(r"a,suid b=c\")));
        assert_eq!(options.keys, Some("/k".into()));
        assert!(
            options.init
                && options.allow_other == Some(true)
                && options.flags.contains(MountFlags::NOSUID)
        );
    }

    #[test]
    fn mistakes_are_named() {
        let error = |list: &str| list.parse::<MountOptions>().unwrap_err();
        assert_eq!(
            error("rw,wibble"),
            OptionError::Unknown("wibble".to_owned())
        );
        assert!(known().contains("fsname=…"));
        assert_eq!(error("fsname"), OptionError::NoValue("fsname".to_owned()));
        assert_eq!(error("ro=1"), OptionError::Value("ro".to_owned()));
        assert_eq!(
            error("transport=usb"),
            OptionError::Transport("transport".to_owned(), "usb".to_owned())
        );
        let options: MountOptions = "transport=device,enable-uring".parse().unwrap();
        assert_eq!(options.transport, Wanted::Only(Kind::Device));
        assert!(options.enable_uring);
    }
}
