//! Listings: the backing directory's own order and positions, names decrypted.
//!
//! Positions are those of the backing filesystem, so a listing that goes on after entries came and went is as right as
//! the backing's own.

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::Duration;

use crate::sync::Mutex;
use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;

use super::{FileSystem, kind_of, kind_of_type};
use crate::crypto::object::ObjectKeys;
use crate::fs::backing::{At, Backing};
use crate::fs::directory::open_entry_name;
use crate::fs::error::FsResult;
use crate::fs::inodes::{BackingId, Inode};
use crate::fs::types::{Attributes, DirectoryEntry, FileKind, Fill, HandleId, NodeId};

/// A handle on an open directory.
#[derive(Debug)]
pub struct DirectoryHandle {
    inode: Arc<Inode>,
    stream: Mutex<Stream>,
    fd: OwnedFd,
}

/// Entries read from the backing directory and not yet delivered.
#[derive(Debug, Default)]
struct Stream {
    entries: Vec<RawEntry>,
    /// The next to be delivered.
    next: usize,
    /// Position of that one.
    position: u64,
    /// Nothing comes after `entries`.
    ended: bool,
}

#[derive(Debug)]
struct RawEntry {
    name: CString,
    number: u64,
    file_type: FileType,
    next_position: u64,
}

/// What stands behind an entry.
struct Found {
    node: NodeId,
    kind: FileKind,
    attributes: Option<Attributes>,
    is_withdrawn: bool,
}

/// Bytes asked of the backing directory at a time.
const LISTING_BYTES: usize = 32 * 1024;

impl DirectoryHandle {
    /// Moves to a position, unless that is where the stream is.
    fn seek(&self, backing: &Backing, stream: &mut Stream, position: u64) -> Result<(), Errno> {
        if position == 0 || position != stream.position {
            backing.seek_entries(&self.fd, position)?;
            *stream = Stream {
                position,
                ..Stream::default()
            };
        }
        Ok(())
    }

    /// The object of an entry, as far as the backing directory tells.
    fn backing(&self, entry: &RawEntry) -> BackingId {
        BackingId {
            device: self.inode.backing().device,
            number: entry.number,
        }
    }

    fn fill(&self, backing: &Backing, stream: &mut Stream) -> Result<(), Errno> {
        stream.entries.clear();
        stream.next = 0;
        let mut buffer = Vec::with_capacity(LISTING_BYTES);
        let mut listing = backing.entries(&self.fd, buffer.spare_capacity_mut())?;
        while let Some(entry) = listing.next() {
            let entry = entry?;
            stream.entries.push(RawEntry {
                name: entry.file_name().to_owned(),
                number: entry.ino(),
                file_type: entry.file_type(),
                next_position: entry.next_entry_cookie(),
            });
            if listing.is_buffer_empty() {
                return Ok(());
            }
        }
        stream.ended = true;
        Ok(())
    }
}

impl FileSystem {
    /// Opens a directory for listing.
    ///
    /// # Errors
    /// ENOTDIR; its key refused.
    pub fn open_directory(&self, node: NodeId) -> FsResult<HandleId> {
        let inode = self.inodes.get(node)?;
        if inode.kind != FileKind::Directory {
            return Err(Errno::NOTDIR.into());
        }
        inode.check_key(&self.core)?;
        let directory = inode.descriptor(&self.core)?;
        let fd = self
            .core
            .backing
            .open(&directory, c".", OFlags::RDONLY | OFlags::DIRECTORY, 0)?;
        inode.forget_listing();
        Ok(self.directories.insert(DirectoryHandle {
            inode,
            stream: Mutex::default(),
            fd,
        }))
    }

    /// Lists a directory from `offset` (0, or an entry's `next_offset`) until the receiver is full or nothing is left.
    ///
    /// # Errors
    /// Its key refused.
    pub fn read_directory(
        &self,
        handle: HandleId,
        offset: u64,
        receive: &mut dyn FnMut(DirectoryEntry<'_>) -> Fill,
    ) -> FsResult<()> {
        self.list(handle, offset, None, receive)
    }

    /// As [`FileSystem::read_directory`], with attributes, and every entry that has them and is taken counts as one lookup.
    /// "." and ".." have none, nor those that a listing has told less than `lately` ago.
    ///
    /// # Errors
    /// Its key refused.
    pub fn read_directory_plus(
        &self,
        handle: HandleId,
        offset: u64,
        lately: Duration,
        receive: &mut dyn FnMut(DirectoryEntry<'_>) -> Fill,
    ) -> FsResult<()> {
        self.list(handle, offset, Some(lately), receive)
    }

    fn list(
        &self,
        handle: HandleId,
        offset: u64,
        plus: Option<Duration>,
        receive: &mut dyn FnMut(DirectoryEntry<'_>) -> Fill,
    ) -> FsResult<()> {
        let handle = self.directories.get(handle)?;
        let header = handle.inode.header(&self.core)?;
        let keys = header.object.keys(&self.core.ring)?;
        let mut stream = handle.stream.lock();
        handle.seek(&self.core.backing, &mut stream, offset)?;
        loop {
            if stream.next == stream.entries.len() {
                if stream.ended {
                    return Ok(());
                }
                handle.fill(&self.core.backing, &mut stream)?;
                continue;
            }
            let raw = &stream.entries[stream.next];
            if self.deliver(&handle, &keys, raw, plus, receive)? == Fill::Full {
                return Ok(());
            }
            let position = raw.next_position;
            stream.position = position;
            stream.next += 1;
        }
    }

    fn deliver(
        &self,
        handle: &DirectoryHandle,
        keys: &ObjectKeys,
        raw: &RawEntry,
        plus: Option<Duration>,
        receive: &mut dyn FnMut(DirectoryEntry<'_>) -> Fill,
    ) -> FsResult<Fill> {
        let next_offset = raw.next_position;
        let dots = match raw.name.to_bytes() {
            b"." => Some(handle.inode.node),
            b".." => Some(
                handle
                    .inode
                    .parent()
                    .map_or(handle.inode.node, |parent| parent.node),
            ),
            _ => None,
        };
        if let Some(node) = dots {
            let name = OsStr::from_bytes(raw.name.to_bytes());
            let kind = FileKind::Directory;
            return Ok(receive(DirectoryEntry {
                node,
                next_offset,
                kind,
                name,
                attributes: None,
                is_withdrawn: false,
            }));
        }
        let Some(name) = self.plain_name(handle, keys, &raw.name) else {
            return Ok(Fill::Taken);
        };
        let name = OsStr::from_bytes(&name);
        let Some(found) = self.entry_attributes(handle, raw, plus)? else {
            return Ok(Fill::Taken);
        };
        let Found {
            node,
            kind,
            attributes,
            is_withdrawn,
        } = found;
        let fill = receive(DirectoryEntry {
            node,
            next_offset,
            kind,
            name,
            attributes,
            is_withdrawn,
        });
        if attributes.is_some() {
            match fill {
                // What is withdrawn is not believed for a moment.
                Fill::Taken if is_withdrawn => {}
                Fill::Taken => self.inodes.was_listed(node),
                Fill::Full => self.inodes.forget(node, 1),
            }
        }
        Ok(fill)
    }

    /// Number, kind and, for `plus`, attributes of an entry; `None` where it has gone meanwhile.
    fn entry_attributes(
        &self,
        handle: &DirectoryHandle,
        raw: &RawEntry,
        plus: Option<Duration>,
    ) -> FsResult<Option<Found>> {
        let gone = |error: &crate::fs::FsError| error.errno() == Errno::NOENT;
        if let Some(lately) = plus {
            let _tree = self.tree.read();
            if let Some(known) = self.is_known(handle, raw, lately) {
                return Ok(Some(known));
            }
            return match self.find_in(&handle.inode, handle.fd.as_fd(), &raw.name) {
                Ok((inode, attributes)) => Ok(Some(Found {
                    node: attributes.node,
                    kind: attributes.kind,
                    attributes: Some(attributes),
                    // A name is its directory's; what it names may have a CMK of its own.
                    is_withdrawn: self.check_own_key(&inode).is_err(),
                })),
                Err(error) if gone(&error) => Ok(None),
                Err(error) => Err(error),
            };
        }
        let kind = match kind_of_type(raw.file_type) {
            Some(kind) => kind,
            None => match self
                .core
                .backing
                .stat(At::Name(handle.fd.as_fd(), &raw.name))
            {
                Ok(stat) => kind_of(&stat),
                Err(Errno::NOENT) => return Ok(None),
                Err(error) => return Err(error.into()),
            },
        };
        Ok(Some(Found {
            node: self.inodes.number(handle.backing(raw)),
            kind,
            attributes: None,
            is_withdrawn: false,
        }))
    }

    /// An entry of whose object a listing told the transport lately, and which has this name.
    fn is_known(
        &self,
        handle: &DirectoryHandle,
        raw: &RawEntry,
        lately: Duration,
    ) -> Option<Found> {
        let inode = self.inodes.find(handle.backing(raw))?;
        let is_here = {
            let place = inode.place.read();
            let parent = place.parent.as_ref();
            place.pin.is_none()
                && place.name == raw.name
                && parent.is_some_and(|at| Arc::ptr_eq(at, &handle.inode))
        };
        let is_known = is_here && self.inodes.is_listed(&inode, lately);
        (is_known && self.check_own_key(&inode).is_ok()).then(|| Found {
            node: inode.node,
            kind: inode.kind,
            attributes: None,
            is_withdrawn: false,
        })
    }

    /// The plaintext name behind a backing name; `None` for what is not an object's. A name that was tampered with is
    /// left out and told in the log, so that the rest of the directory can be used.
    fn plain_name(
        &self,
        handle: &DirectoryHandle,
        keys: &ObjectKeys,
        name: &CStr,
    ) -> Option<Vec<u8>> {
        let opened = open_entry_name(&self.core, || Ok(&handle.fd), keys, name);
        let plain = opened.inspect_err(|error| {
            let directory = self.backing_path(handle.inode.node);
            log::warn!(
                "{}: left out of the listing: {error}",
                directory.join(&*name.to_string_lossy()).display()
            );
        });
        plain.ok().flatten()
    }

    /// The handle is closed.
    pub fn release_directory(&self, handle: HandleId) {
        if let Some(handle) = self.directories.remove(handle).and_then(Arc::into_inner) {
            handle.inode.forget_listing();
            self.inodes.let_go(handle.inode);
        }
    }

    /// Puts a directory's entries on the disk, and the headers of the directories above.
    ///
    /// # Errors
    /// What the backing says.
    pub fn sync_directory(&self, handle: HandleId) -> FsResult<()> {
        let handle = self.directories.get(handle)?;
        self.sync_ancestors(&handle.inode)?;
        Ok(self.core.backing.sync(&handle.fd, false)?)
    }
}
