//! Puts one backing object in the place of another, which keeps its inode number, its handles and what the kernel has
//! cached of it. Made aside, then renamed over: at every moment the name leads to one of the two, whole.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{OFlags, RenameFlags, Stat, Timespec, Timestamps, UTIME_OMIT};
use rustix::io::Errno;

use super::FileSystem;
use super::walk::{Entry, NewName};
use crate::format::symlink::{Stored, SymlinkRecord};
use crate::fs::backing::At;
use crate::fs::directory::{own_name, temporary_name};
use crate::fs::error::FsResult;
use crate::fs::inodes::{BackingId, Inode};

/// A name that is to lead to another object.
struct Name {
    directory: Arc<OwnedFd>,
    name: CString,
    /// Where the other object waits.
    aside: CString,
    /// Of the directory, whose time of modification tells of the users' changes only.
    before: Stat,
}

impl Name {
    fn at(&self) -> At<'_> {
        At::Name(self.directory.as_fd(), &self.name)
    }

    fn aside(&self) -> At<'_> {
        At::Name(self.directory.as_fd(), &self.aside)
    }
}

impl FileSystem {
    /// Gives a symlink the record `new` if it still has the record `old`; says whether it did. One of several names needs
    /// all of them in `entries`, and none that was renamed, made or removed meanwhile.
    pub(super) fn replace_symlink(
        &self,
        inode: &Arc<Inode>,
        entries: &[Entry<'_>],
        old: &SymlinkRecord,
        new: &SymlinkRecord,
    ) -> FsResult<bool> {
        let _tree = self.tree.write();
        let (record, side) = self.read_record(inode)?;
        if record != *old {
            return Ok(false);
        }
        if side && new.object == old.object {
            // The symlink itself names the side file by its object, and so do all its names.
            self.replace_side_file(new)?;
            return Ok(true);
        }
        let Some(names) = self.names_of(inode, entries)? else {
            return Ok(false);
        };
        let text = if side {
            self.write_side_file(&own_name(&new.object.to_string()), new)?;
            Stored::Side {
                object: new.object,
                length: new.ciphertext.len() as u16,
            }
            .to_text()
        } else {
            Stored::Inline(new.clone()).to_text()
        };
        let replaced = self.put_symlink(inode, &names, &text);
        match &replaced {
            Ok(true) if side => {
                let directories: Vec<_> = names.iter().map(|name| name.directory.as_fd()).collect();
                self.remove_side_file_with(&directories, &own_name(&old.object.to_string()));
            }
            Err(_) if side => self.remove_side_file(&own_name(&new.object.to_string())),
            // Names that still lead to the old symlink need its side file, and the others that of the new one.
            _ => {}
        }
        replaced
    }

    /// Every name of a symlink; `None` where they are not known, or are no longer what they were.
    fn names_of(&self, inode: &Arc<Inode>, entries: &[Entry<'_>]) -> FsResult<Option<Vec<Name>>> {
        let known: Vec<NewName> = if entries.is_empty() {
            let place = inode.place.read();
            let parent = place.parent.clone().filter(|_| place.pin.is_none());
            let name = place.name.clone();
            parent.map(|parent| (parent, name)).into_iter().collect()
        } else {
            entries
                .iter()
                .filter_map(|entry| entry.name.clone())
                .collect()
        };
        let mut names: Vec<Name> = Vec::new();
        for (parent, name) in &known {
            let directory = parent.descriptor(&self.core)?;
            let stat = match self.core.backing.stat(At::Name(directory.as_fd(), name)) {
                Err(Errno::NOENT) => return Ok(None),
                found => found?,
            };
            if BackingId::of(&stat) != inode.backing() || stat.st_nlink != known.len() as u64 {
                return Ok(None);
            }
            names.push(Name {
                before: self.core.backing.stat(At::Fd(directory.as_fd()))?,
                directory,
                name: name.clone(),
                aside: temporary_name(),
            });
        }
        Ok(if names.is_empty() { None } else { Some(names) })
    }

    /// Makes the new symlink aside, a link of it for each name, and renames them over. Says whether all names lead there: an
    /// error is told only while none does.
    fn put_symlink(&self, inode: &Inode, names: &[Name], text: &str) -> FsResult<bool> {
        let backing = &self.core.backing;
        let Some(first) = names.first() else {
            return Ok(true);
        };
        let make = || -> FsResult<BackingId> {
            let old = backing.stat(first.at())?;
            backing.make_symlink(text, &first.directory, &first.aside)?;
            backing.set_owner(first.aside(), Some(old.st_uid), Some(old.st_gid))?;
            backing.set_times(first.aside(), &times_of(&old))?;
            for name in &names[1..] {
                backing.link(first.aside(), &name.directory, &name.aside)?;
            }
            Ok(BackingId::of(&backing.stat(first.aside())?))
        };
        let made = make().and_then(|new| {
            let mut all = true;
            for (done, name) in names.iter().enumerate() {
                let renamed = self.rename_over(name.directory.as_fd(), &name.aside, &name.name);
                match renamed {
                    // The names that are left lead to the old symlink, which has the same target.
                    Err(error) if done > 0 => {
                        log::warn!("a symlink's names were parted: {error}");
                        all = false;
                        break;
                    }
                    renamed => renamed?,
                }
            }
            self.inodes.replace_backing(inode, new);
            Ok(all)
        });
        for name in names {
            if !matches!(made, Ok(true)) {
                let _ = backing.remove(&name.directory, &name.aside);
            }
            self.restore_time(name.directory.as_fd(), &name.before);
        }
        made
    }

    pub(super) fn rename_over(
        &self,
        directory: BorrowedFd<'_>,
        from: &CStr,
        to: &CStr,
    ) -> FsResult<()> {
        let none = RenameFlags::empty();
        Ok(self
            .core
            .backing
            .rename((directory, from), (directory, to), none)?)
    }

    /// Puts a directory's time of modification back. The tree is held: nobody has changed it meanwhile.
    pub(super) fn restore_time(&self, directory: BorrowedFd<'_>, before: &Stat) {
        let times = Timestamps {
            last_access: OMIT,
            ..times_of(before)
        };
        if let Err(error) = self.core.backing.set_times(At::Fd(directory), &times) {
            log::debug!("a directory's time of modification could not be put back: {error}");
        }
    }

    /// Puts a side file in the place of the one of the same object.
    fn replace_side_file(&self, record: &SymlinkRecord) -> FsResult<()> {
        let backing = &self.core.backing;
        let links = self.links_directory()?;
        let side = own_name(&record.object.to_string());
        let aside = temporary_name();
        let make = || -> FsResult<()> {
            let old = backing.stat(At::Name(links.as_fd(), &side))?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
            let file = backing.open(&links, &aside, flags, 0o600)?;
            backing.set_owner(At::Fd(file.as_fd()), Some(old.st_uid), Some(old.st_gid))?;
            backing.write(&file, &record.encode(), 0)?;
            backing.sync(&file, true)?;
            self.rename_over(links.as_fd(), &aside, &side)
        };
        make().inspect_err(|_| {
            let _ = backing.remove(&links, &aside);
        })
    }
}

const OMIT: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: UTIME_OMIT,
};

/// The times that a stat shows.
pub(super) fn times_of(stat: &Stat) -> Timestamps {
    Timestamps {
        last_access: Timespec {
            tv_sec: stat.st_atime,
            tv_nsec: stat.st_atime_nsec as _,
        },
        last_modification: Timespec {
            tv_sec: stat.st_mtime,
            tv_nsec: stat.st_mtime_nsec as _,
        },
    }
}
