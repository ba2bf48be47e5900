//! SELinux labels. `ls -l` asks every file for its label, one request each, until it hears that the filesystem has none:
//! then it asks no more there. Where SELinux is off a label means nothing, so a file without one says that, until one is seen.

use std::ffi::OsStr;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;

use crate::fs::{FsError, FsResult};

const LABEL: &str = "security.selinux";

/// What files without a label say.
#[derive(Debug)]
pub(super) struct Labels {
    /// SELinux is on, and may have the kernel ask for labels itself, or somebody here works with them: the difference between
    /// a file and a filesystem without labels matters then.
    are_in_use: AtomicBool,
}

impl Labels {
    /// As this system has them; in use where it does not say.
    pub(super) fn of_this_system() -> Self {
        let filesystems = fs::read_to_string("/proc/filesystems");
        Self {
            are_in_use: AtomicBool::new(filesystems.map_or(true, |list| knows_selinux(&list))),
        }
    }

    /// What a program hears that asks for this attribute: EOPNOTSUPP instead of ENODATA for a label, while none is in use.
    pub(super) fn answer(&self, name: &OsStr, found: FsResult<Vec<u8>>) -> FsResult<Vec<u8>> {
        if name != LABEL {
            return found;
        }
        match found {
            Ok(_) => self.see(name),
            Err(FsError::Os(Errno::NODATA)) if !self.are_in_use.load(Ordering::Relaxed) => {
                return Err(Errno::OPNOTSUPP.into());
            }
            Err(_) => {}
        }
        found
    }

    /// A file has this attribute.
    pub(super) fn see(&self, name: &OsStr) {
        if name == LABEL {
            self.are_in_use.store(true, Ordering::Relaxed);
        }
    }
}

/// Whether SELinux is on: its filesystem is registered then, mounted or not.
fn knows_selinux(filesystems: &str) -> bool {
    filesystems
        .lines()
        .any(|line| line.split_whitespace().last() == Some("selinuxfs"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selinux_is_on_where_its_filesystem_is_known() {
        assert!(knows_selinux("nodev\tsysfs\nnodev\tselinuxfs\n\text4\n"));
        assert!(!knows_selinux("nodev\tsysfs\n\text4\n"));
    }

    #[test]
    fn only_a_label_that_is_not_there_nor_in_use_is_not_supported() {
        let labels = |are_in_use| Labels {
            are_in_use: AtomicBool::new(are_in_use),
        };
        let errno = |labels: &Labels, name: &str, found| match labels.answer(name.as_ref(), found) {
            Ok(_) => None,
            Err(FsError::Os(errno)) => Some(errno),
            Err(other) => panic!("{other}"),
        };
        let absent = || Err(Errno::NODATA.into());
        let (off, on) = (labels(false), labels(true));
        assert_eq!(errno(&off, LABEL, absent()), Some(Errno::OPNOTSUPP));
        assert_eq!(errno(&on, LABEL, absent()), Some(Errno::NODATA));
        assert_eq!(errno(&off, "user.selinux", absent()), Some(Errno::NODATA));
        assert_eq!(errno(&off, LABEL, Err(Errno::IO.into())), Some(Errno::IO));
        assert_eq!(errno(&off, "user.selinux", Ok(b"a value".to_vec())), None);
        assert_eq!(errno(&off, LABEL, absent()), Some(Errno::OPNOTSUPP));
        assert_eq!(errno(&off, LABEL, Ok(b"a label".to_vec())), None);
        assert_eq!(errno(&off, LABEL, absent()), Some(Errno::NODATA));
    }
}
