//! What is mounted where: `/proc/self/mountinfo`, as proc_pid_mountinfo(5) describes it.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// The type under which cmkfs mounts show.
pub const FILESYSTEM_TYPE: &str = "fuse.cmkfs";

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Major and minor device number of the filesystem: what `stat` shows of the files in it.
    pub device: (u32, u32),
    /// Where it is mounted.
    pub mountpoint: PathBuf,
    /// Options of this mount, as `rw,nosuid,nodev`.
    pub options: String,
    /// The filesystem's type with its subtype.
    pub filesystem_type: String,
    /// What was mounted.
    pub source: OsString,
    /// Options of the filesystem.
    pub super_options: String,
}

impl Mount {
    /// Reads a line: id, parent, major:minor, root, mountpoint, options, optional fields, `-`, type, source, super options.
    /// `None` for anything else.
    #[must_use]
    pub fn parse(line: &[u8]) -> Option<Self> {
        let text = |field: &[u8]| String::from_utf8_lossy(field).into_owned();
        let mut fields = line.split(|byte| *byte == b' ');
        let device = text(fields.nth(2)?);
        let (major, minor) = device.split_once(':')?;
        let mountpoint = PathBuf::from(unescape(fields.nth(1)?));
        let options = text(fields.next()?);
        fields.find(|field| *field == b"-")?;
        Some(Self {
            device: (major.parse().ok()?, minor.parse().ok()?),
            mountpoint,
            options,
            filesystem_type: text(fields.next()?),
            source: unescape(fields.next()?),
            super_options: text(fields.next().unwrap_or_default()),
        })
    }

    /// Whether it is one of ours.
    #[must_use]
    pub fn is_cmkfs(&self) -> bool {
        self.filesystem_type == FILESYSTEM_TYPE
    }

    /// Whether a process serves it.
    #[must_use]
    pub fn is_fuse(&self) -> bool {
        matches!(
            self.filesystem_type.split('.').next(),
            Some("fuse" | "fuseblk")
        )
    }

    /// Whether writing is refused, by this mount or by the filesystem.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        let read_only = |options: &str| options.split(',').any(|option| option == "ro");
        read_only(&self.options) || read_only(&self.super_options)
    }

    /// On whose behalf a FUSE filesystem was mounted.
    #[must_use]
    pub fn user(&self) -> Option<u32> {
        let mut options = self.super_options.split(',');
        options.find_map(|option| option.strip_prefix("user_id=")?.parse().ok())
    }
}

/// Every mount of this process's namespace, in the order of mounting: of several at one place the last covers the others.
///
/// # Errors
/// Where `/proc` cannot be read.
pub fn list() -> io::Result<Vec<Mount>> {
    let text = std::fs::read("/proc/self/mountinfo")?;
    Ok(text
        .split(|byte| *byte == b'\n')
        .filter_map(Mount::parse)
        .collect())
}

/// The uppermost mount exactly at `path`, which is canonical.
///
/// # Errors
/// Where `/proc` cannot be read.
pub fn at(path: &Path) -> io::Result<Option<Mount>> {
    Ok(list()?.into_iter().rfind(|mount| mount.mountpoint == path))
}

/// Space, tab, newline, backslash and `#` stand as `\ooo`.
fn unescape(field: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, tail)) = rest.split_first() {
        let octal = match tail {
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..] if *first == b'\\' => {
                Some((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'))
            }
            _ => None,
        };
        bytes.push(octal.unwrap_or(*first));
        rest = &tail[if octal.is_some() { 3 } else { 0 }..];
    }
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_with_optional_fields_and_escapes_is_read() {
        let line = br"98 64 0:61 / /mnt/a\040b rw,nosuid shared:5 master:1 - fuse.cmkfs /c,\134d\040 ro,user_id=0";
        let mount = Mount::parse(line).unwrap();
        assert_eq!(mount.device, (0, 61));
        assert_eq!(mount.mountpoint, Path::new("/mnt/a b"));
        assert_eq!(mount.source, r"/c,\d ");
        assert!(mount.is_cmkfs() && mount.is_read_only());
        assert_eq!(mount.user(), Some(0));
        let writable =
            Mount::parse(b"98 64 0:61 / /mnt rw - fuse.sshfs source rw,errors=ro").unwrap();
        assert!(!writable.is_cmkfs() && !writable.is_read_only());
    }

    #[test]
    fn what_is_no_mount_is_skipped() {
        assert_eq!(Mount::parse(b""), None);
        assert_eq!(Mount::parse(b"98 64 x / /mnt rw - t s o"), None);
    }
}
