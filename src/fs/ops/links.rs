//! Symlinks: their targets, in the backing symlink or in a side file.

use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{OFlags, Stat};
use rustix::io::Errno;

use super::{FileSystem, kind_of};
use crate::crypto::symlink;
use crate::format::envelope::ObjectKind;
use crate::format::names::LINKS_DIRECTORY;
use crate::format::symlink::{RECORD_OVERHEAD, Stored, SymlinkRecord, TARGET_MAX};
use crate::fs::backing::At;
use crate::fs::directory::own_name;
use crate::fs::error::{Damage, FsError, FsResult};
use crate::fs::inodes::Inode;
use crate::fs::object::Object;
use crate::fs::types::{Attributes, Caller, FileKind, NodeId};

impl FileSystem {
    /// Makes a symlink.
    ///
    /// # Errors
    /// ENOENT for an empty target, ENAMETOOLONG past 4095 bytes, and what symlink(2) says; the directory's key refused.
    pub fn make_symlink(
        &self,
        caller: Caller,
        parent: NodeId,
        name: &OsStr,
        target: &OsStr,
    ) -> FsResult<Attributes> {
        let target = target.as_bytes();
        match target.len() {
            0 => return Err(Errno::NOENT.into()),
            1..=TARGET_MAX => {}
            _ => return Err(Errno::NAMETOOLONG.into()),
        }
        self.make_entry(caller, parent, name, |directory, entry, parent| {
            let binding = &parent.header(&self.core)?.binding;
            let object = Object::create(&self.core.ring, ObjectKind::Symlink, binding)?;
            let keys = object.keys(&self.core.ring)?;
            let record = symlink::seal(&keys, object.id(), *object.envelope(), target);
            let inline = Stored::Inline(record.clone()).to_text();
            match self.core.backing.make_symlink(&inline, directory, entry) {
                Err(Errno::NAMETOOLONG) => {}
                made => return Ok(made?),
            }
            // The side file lies at the root, so that renaming and linking the symlink need not know of it. It comes
            // first: a symlink never points to nothing.
            let side = own_name(&object.id().to_string());
            self.write_side_file(&side, &record)?;
            let length = target.len() as u16;
            let marker = Stored::Side {
                object: object.id(),
                length,
            }
            .to_text();
            self.core
                .backing
                .make_symlink(&marker, directory, entry)
                .map_err(|error| {
                    self.remove_side_file(&side);
                    error.into()
                })
        })
    }

    /// A symlink's target.
    ///
    /// # Errors
    /// EINVAL for anything else; its key refused.
    pub fn read_link(&self, node: NodeId) -> FsResult<Vec<u8>> {
        let inode = self.inodes.get(node)?;
        if inode.kind != FileKind::Symlink {
            return Err(Errno::INVAL.into());
        }
        let _tree = self.tree.read();
        let (record, _) = self.read_record(&inode)?;
        let object = Object::existing(
            &self.core.ring,
            record.object,
            ObjectKind::Symlink,
            record.envelope,
        );
        *inode.key.lock() = Some(object.key());
        let keys = object.keys(&self.core.ring)?;
        symlink::open(&keys, record).map_err(|_| Self::tampered_link())
    }

    /// A symlink's record, and whether it lies in a side file.
    pub(super) fn read_record(&self, inode: &Inode) -> FsResult<(SymlinkRecord, bool)> {
        let text = inode.at(&self.core, |at| self.core.backing.read_link(at))?;
        match Stored::from_text(text.to_bytes())? {
            Stored::Inline(record) => Ok((record, false)),
            Stored::Side { object, length } => {
                let record = self.read_side_file(&own_name(&object.to_string()))?;
                if record.object != object || record.ciphertext.len() != usize::from(length) {
                    return Err(Self::tampered_link());
                }
                Ok((record, true))
            }
        }
    }

    pub(super) fn tampered_link() -> FsError {
        Damage::Authentication {
            what: "the symlink",
        }
        .into()
    }

    /// What is stored of a symlink's target.
    pub(super) fn stored_link(&self, inode: &Inode) -> FsResult<SymlinkRecord> {
        let _tree = self.tree.read_recursive();
        Ok(self.read_record(inode)?.0)
    }

    /// The side file of the symlink at a place, if it has one and this is the symlink's last name.
    pub(super) fn side_file_of(&self, stat: &Stat, at: At<'_>) -> Option<CString> {
        let candidate = kind_of(stat) == FileKind::Symlink
            && stat.st_nlink == 1
            && Stored::target_length(stat.st_size.unsigned_abs()).is_none();
        let text = candidate
            .then(|| self.core.backing.read_link(at).ok())
            .flatten()?;
        match Stored::from_text(text.to_bytes()) {
            Ok(Stored::Side { object, .. }) => Some(own_name(&object.to_string())),
            Ok(Stored::Inline(_)) | Err(_) => None,
        }
    }

    /// Removes the side file of a symlink that has just lost its names in these directories: once that is on the disk, so that
    /// a power cut brings no symlink back without its target. One that stays behind does no harm.
    pub(super) fn remove_side_file_with(&self, directories: &[BorrowedFd<'_>], side: &CString) {
        let backing = &self.core.backing;
        let synced = directories.iter().try_for_each(|directory| {
            let listing = backing.reopen(*directory, OFlags::RDONLY | OFlags::DIRECTORY)?;
            backing.sync(listing, false)
        });
        match synced {
            Ok(()) => self.remove_side_file(side),
            Err(error) => log::debug!("a symlink's side file stays: {error}"),
        }
    }

    /// Removes a side file that no symlink on the disk leads to. One that stays behind does no harm.
    pub(super) fn remove_side_file(&self, side: &CString) {
        if let Ok(links) = self.links_directory() {
            let _ = self.core.backing.remove(&links, side);
        }
    }

    pub(super) fn links_directory(&self) -> Result<std::os::fd::OwnedFd, Errno> {
        let root = self
            .inodes
            .root()
            .descriptor(&self.core)
            .map_err(|error| error.errno())?;
        let name = own_name(LINKS_DIRECTORY);
        self.core
            .backing
            .open(&root, &name, OFlags::PATH | OFlags::DIRECTORY, 0)
    }

    pub(super) fn write_side_file(&self, side: &CString, record: &SymlinkRecord) -> FsResult<()> {
        let links = match self.links_directory() {
            Err(Errno::NOENT) => {
                let root = self.inodes.root().descriptor(&self.core)?;
                match self.core.backing.make_directory(
                    root.as_fd(),
                    &own_name(LINKS_DIRECTORY),
                    // Everybody's, and what is in it each maker's own.
                    0o1777,
                ) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(error.into()),
                }
                self.links_directory()?
            }
            opened => opened?,
        };
        let file = self.core.backing.open(
            &links,
            side,
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL,
            0o600,
        )?;
        let backing = &self.core.backing;
        // A sync of the symlink's directory would not bring the side file along.
        backing
            .write(&file, &record.encode(), 0)
            .and_then(|()| backing.sync(&file, true))
            .and_then(|()| backing.sync(backing.reopen(links.as_fd(), OFlags::RDONLY)?, false))
            .map_err(|error| {
                let _ = self.core.backing.remove(&links, side);
                error.into()
            })
    }

    pub(super) fn read_side_file(&self, side: &CString) -> FsResult<SymlinkRecord> {
        let links = self.links_directory()?;
        let file = match self.core.backing.open(&links, side, OFlags::RDONLY, 0) {
            Err(Errno::NOENT) => {
                return Err(Damage::Authentication {
                    what: "the symlink's side file",
                }
                .into());
            }
            opened => opened?,
        };
        let mut bytes = vec![0; RECORD_OVERHEAD + TARGET_MAX + 1];
        let length = self.core.backing.read(&file, &mut bytes, 0)?;
        Ok(SymlinkRecord::decode(&bytes[..length])?)
    }
}
