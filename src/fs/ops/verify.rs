//! Verifying what is stored: each object that a walk meets, its name among it, by the same ways as it is read. Changes
//! nothing, and users may go on meanwhile: what vanishes is passed over by the caller (`ESTALE`, `ENOENT`).

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::fs::{OFlags, RawDir};
use rustix::io::Errno;

use super::walk::{Entry, Maintenance, is_gone};
use super::{FileSystem, kind_of_type};
use crate::crypto::symlink;
use crate::format::envelope::ObjectKind;
use crate::format::names::{BackingName, LONG_NAME_SUFFIX};
use crate::format::symlink::Stored;
use crate::format::xattr::is_stored_name;
use crate::fs::backing::At;
use crate::fs::directory::{
    identity_behind, open_entry_name, own_name, read_identity, verify_entry_name,
};
use crate::fs::error::{Damage, FsError, FsResult};
use crate::fs::flaw::{Flaw, Identity, OnFlaw, Part, Verified};
use crate::fs::inodes::Inode;
use crate::fs::object::Object;
use crate::fs::types::{FileKind, ROOT_NODE};

/// Bytes asked of a directory at a time.
const LISTING_BYTES: usize = 32 * 1024;

/// A directory that is being listed, cmkfs's own files among it.
#[derive(Debug)]
pub struct Listing {
    fd: OwnedFd,
    ended: bool,
}

/// What a directory lists.
#[derive(Debug)]
pub struct Listed {
    /// The backing name.
    pub name: CString,
    /// What it is, where the listing tells.
    pub kind: Option<FileKind>,
}

impl Listing {
    /// The next entries, in no order; `None` where there are no more.
    ///
    /// # Errors
    /// What the backing says.
    pub fn more(&mut self) -> FsResult<Option<Vec<Listed>>> {
        if self.ended {
            return Ok(None);
        }
        let mut found = Vec::new();
        let mut buffer = Vec::with_capacity(LISTING_BYTES);
        let mut listing = RawDir::new(&self.fd, buffer.spare_capacity_mut());
        loop {
            let Some(entry) = listing.next() else {
                self.ended = true;
                break;
            };
            let entry = entry?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                found.push(Listed {
                    name: entry.file_name().to_owned(),
                    kind: kind_of_type(entry.file_type()),
                });
            }
            if listing.is_buffer_empty() {
                break;
            }
        }
        Ok(Some(found))
    }
}

impl Maintenance<'_> {
    /// Begins to list a directory.
    ///
    /// # Errors
    /// What the backing says.
    pub fn listing(&self, directory: &Entry<'_>) -> FsResult<Listing> {
        let fd = directory.inode()?.descriptor(&self.filesystem.core)?;
        self.filesystem.begin_listing(fd.as_fd())
    }

    /// Whether an entry has gone since it was met, or goes at this moment: then whatever was found wrong with it is not.
    #[must_use]
    pub fn is_gone(&self, entry: &Entry<'_>) -> bool {
        self.wait_for_others();
        let Ok(inode) = entry.inode() else {
            return true;
        };
        if entry.node() == ROOT_NODE {
            return false;
        }
        // Who removes an object that is known pins it.
        inode.place.read().pin.is_some() || {
            let fs = self.filesystem;
            let found = inode.at(&fs.core, |at| fs.core.backing.stat(at));
            found.is_err_and(|error| is_gone(error.errno()))
        }
    }

    /// The plaintext path of an entry, from the root; `None` where a name in it cannot be told.
    #[must_use]
    pub fn plain_path(&self, entry: &Entry<'_>) -> Option<PathBuf> {
        let mut next = match (&entry.name, entry.node()) {
            (_, ROOT_NODE) => None,
            (Some(name), _) => Some(name.clone()),
            (None, _) => {
                let place = entry.inode().ok()?.place.read();
                Some((place.parent.clone()?, place.name.clone()))
            }
        };
        let mut parts = Vec::new();
        while let Some((parent, name)) = next {
            parts.push(self.filesystem.plain_name_in(&parent, &name)?);
            let place = parent.place.read();
            next = place
                .parent
                .clone()
                .map(|above| (above, place.name.clone()));
        }
        Some(
            parts
                .iter()
                .rev()
                .map(|part| OsStr::from_bytes(part))
                .collect(),
        )
    }

    /// Where an entry was met in the backing directory, for messages.
    #[must_use]
    pub fn met_at(&self, entry: &Entry<'_>) -> PathBuf {
        match &entry.name {
            None => entry.backing_path(),
            Some((parent, name)) => {
                let directory = self.filesystem.backing_path(parent.node);
                directory.join(OsStr::from_bytes(name.to_bytes()))
            }
        }
    }

    /// Verifies the name by which an entry was met. Its directory was verified before; where that is closed, nothing can be
    /// said of names, and `false` is.
    ///
    /// # Errors
    /// ENOENT where the entry has gone meanwhile; the directory's key refused; damage.
    pub fn verify_name(&self, entry: &Entry<'_>) -> FsResult<bool> {
        let fs = self.filesystem;
        let Some((parent, name)) = &entry.name else {
            return Ok(false);
        };
        let Some(header) = parent.directory.known_header() else {
            return Ok(false);
        };
        let directory = parent.descriptor(&fs.core)?;
        let keys = header.object.keys(&fs.core.ring)?;
        if verify_entry_name(&fs.core, &directory, &keys, name)?.is_some() {
            return Ok(true);
        }
        // The file that keeps the name goes after the entry: where that is still there, it is lost.
        let _tree = fs.tree.write();
        let backing = &fs.core.backing;
        backing.stat(At::Name(directory.as_fd(), name))?;
        let kept = [name.to_bytes(), LONG_NAME_SUFFIX.as_bytes()].concat();
        let kept = CString::new(kept).map_err(|_| Errno::INVAL)?;
        match backing.stat(At::Name(directory.as_fd(), &kept)) {
            Err(Errno::NOENT) => Err(Damage::LongNameMissing.into()),
            found => found.map(|_| true).map_err(Into::into),
        }
    }

    /// Verifies a directory: its header and attributes.
    pub fn verify_directory(&self, entry: &Entry<'_>, on_flaw: OnFlaw<'_>) -> Verified {
        let fs = self.filesystem;
        let mut verified = Verified::default();
        let mut check = || -> FsResult<()> {
            let inode = entry.inode()?;
            let directory = inode.descriptor(&fs.core)?;
            verified.identity = read_identity(&fs.core, &directory);
            inode.verify_header(&fs.core)
        };
        if let Err(error) = check() {
            verified.is_closed = true;
            let part = Part::Header;
            on_flaw(Flaw { part, error });
        } else {
            self.verify_attributes(entry, &mut verified, on_flaw);
        }
        verified
    }

    /// Verifies a file: header, length, blocks, attributes. Ends early where `go_on` says so.
    pub fn verify_file(
        &self,
        entry: &Entry<'_>,
        on_flaw: OnFlaw<'_>,
        go_on: &dyn Fn() -> bool,
    ) -> Verified {
        let fs = self.filesystem;
        let mut identity = None;
        let mut check = |on_flaw: OnFlaw<'_>| -> FsResult<Verified> {
            let inode = entry.inode()?;
            let held = match fs.hold(inode, false) {
                Ok(held) => held,
                Err(error) => {
                    let file = fs.open_backing(inode, false)?;
                    identity = identity_behind(&fs.core, ObjectKind::File, file);
                    return Err(error);
                }
            };
            identity = held.file().existing_object().map(|object| Identity {
                object: object.id(),
                key: object.key(),
            });
            let mut verified = held.file().verify(&fs.core, on_flaw, go_on)?;
            self.verify_attributes(entry, &mut verified, on_flaw);
            Ok(verified)
        };
        let mut verified = check(on_flaw).unwrap_or_else(|error| {
            let part = Part::Header;
            on_flaw(Flaw { part, error });
            Verified::default()
        });
        verified.identity = identity;
        verified
    }

    /// Verifies a symlink: what it holds, and its side file.
    pub fn verify_symlink(&self, entry: &Entry<'_>, on_flaw: OnFlaw<'_>) -> Verified {
        let fs = self.filesystem;
        let mut verified = Verified::default();
        let mut part = Part::Target;
        let mut check = || -> FsResult<()> {
            let inode = entry.inode()?;
            let _tree = fs.tree.read();
            let text = inode.at(&fs.core, |at| fs.core.backing.read_link(at))?;
            let record = match Stored::from_text(text.to_bytes())? {
                Stored::Inline(record) => record,
                Stored::Side { object, length } => {
                    verified.side = Some(object);
                    part = Part::SideFile;
                    let record = fs.read_side_file(&own_name(&object.to_string()))?;
                    if record.object != object || record.ciphertext.len() != usize::from(length) {
                        return Err(FileSystem::tampered_link());
                    }
                    record
                }
            };
            let (ring, kind) = (&fs.core.ring, ObjectKind::Symlink);
            let object = Object::existing(ring, record.object, kind, record.envelope);
            verified.identity = Some(Identity {
                object: object.id(),
                key: object.key(),
            });
            let keys = object.keys(ring)?;
            let target = symlink::open(&keys, record).map_err(|_| FileSystem::tampered_link())?;
            verified.bytes = target.len() as u64;
            Ok(())
        };
        let checked = check();
        if let Err(error) = checked {
            on_flaw(Flaw { part, error });
        }
        verified
    }

    fn verify_attributes(&self, entry: &Entry<'_>, verified: &mut Verified, on_flaw: OnFlaw<'_>) {
        let fs = self.filesystem;
        let mut check = |on_flaw: OnFlaw<'_>| -> FsResult<()> {
            let inode = entry.inode()?;
            let _bound = inode.directory.keep_binding();
            let stored = match fs.on_backing(inode, |at| fs.core.backing.list_xattrs(at)) {
                Err(FsError::Os(Errno::OPNOTSUPP)) => return Ok(()),
                listed => listed?,
            };
            for name in stored
                .split(|byte| *byte == 0)
                .filter(|name| is_stored_name(name))
            {
                match fs.plain_xattr_name(inode, name) {
                    Ok(_) => verified.attributes += 1,
                    // Removed since it was listed.
                    Err(FsError::Os(Errno::NODATA)) => {}
                    Err(FsError::Damaged(_)) if fs.was_being_bound(inode) => {}
                    Err(error) => on_flaw(Flaw {
                        part: Part::Attribute(CString::new(name).map_err(|_| Errno::INVAL)?),
                        error,
                    }),
                }
            }
            Ok(())
        };
        if let Err(error) = check(on_flaw) {
            let part = Part::Attribute(CString::default());
            on_flaw(Flaw { part, error });
        }
    }
}

impl FileSystem {
    pub(super) fn begin_listing(&self, directory: BorrowedFd<'_>) -> FsResult<Listing> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let fd = self.core.backing.open(directory, c".", flags, 0)?;
        Ok(Listing { fd, ended: false })
    }

    /// The plaintext of a name in a directory whose header is known.
    fn plain_name_in(&self, directory: &Inode, name: &CStr) -> Option<Vec<u8>> {
        if matches!(BackingName::classify(name.to_bytes()), BackingName::Foreign) {
            return None;
        }
        let header = directory.directory.known_header()?;
        let keys = header.object.keys(&self.core.ring).ok()?;
        let descriptor = || directory.descriptor(&self.core);
        open_entry_name(&self.core, descriptor, &keys, name).ok()?
    }
}
