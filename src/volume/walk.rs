//! Walks the backing directory of a volume without any key: every object, and the envelope it carries in the clear.
//!
//! Needs no lock and changes nothing, so it works on a volume that is mounted as well as on one that is not; what vanishes
//! meanwhile is passed over. Symlinks are not followed, other filesystems not entered. Memory does not grow with the
//! number of objects: one descriptor and one buffer of names a level, and a few bytes for each hard-linked object whose
//! other names are still to come. Facts: docs/FORMAT.md.
//!
//! It is no snapshot: what is renamed in a mounted volume meanwhile may be seen twice or not at all.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::{CStr, CString, OsStr};
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, Stat};
use rustix::io::Errno;

use super::VolumeError;
use crate::format::codec::FormatError;
use crate::format::envelope::{Envelope, ObjectKind};
use crate::format::header::{HEADER_LEN, Header};
use crate::format::layout;
use crate::format::names::{self, BackingName, DIRECTORY_FILE, LINKS_DIRECTORY};
use crate::format::symlink::{RECORD_OVERHEAD, Stored, SymlinkRecord, TARGET_MAX};
use crate::ids::{KeyId, MaterialId, ObjectId};

/// Where something was found.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// Its path, relative to the backing directory; empty for the root.
    pub path: &'a Path,
    /// The directory it lies in; the root lies in itself.
    pub parent: BorrowedFd<'a>,
    /// Its name there; `.` for the root.
    pub name: &'a CStr,
    /// Directories above it: 0 for the root.
    pub depth: usize,
}

/// An object that has a data key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Object {
    /// What it is: file, directory or symlink.
    pub kind: ObjectKind,
    /// Its id.
    pub id: ObjectId,
    /// Its wrapped data key. Nobody has authenticated it.
    pub envelope: Envelope,
    /// Plaintext bytes of a file or of a symlink's target; 0 for directories.
    pub bytes: u64,
    /// It was seen before, under another name.
    pub again: bool,
    /// It has no other name.
    pub last: bool,
}

impl Object {
    /// The CMK and the material that wrap its data key.
    #[must_use]
    pub const fn material(&self) -> (KeyId, MaterialId) {
        (self.envelope.key_id(), self.envelope.material_id())
    }
}

/// Why something could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unread {
    /// Its header or record is not what cmkfs writes.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// A directory without its header.
    #[error("the directory's header is missing")]
    HeaderMissing,
    /// A long symlink without its side file, or with another's.
    #[error("the symlink's side file is missing, or another's")]
    SideFile,
    /// A directory or file of another filesystem.
    #[error("it lies on another filesystem")]
    OtherFilesystem,
    /// The operating system refused.
    #[error(transparent)]
    Os(#[from] Errno),
}

/// What was found at a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// An object with a data key. What a directory holds comes right after it, and then [`Visitor::left`].
    Object(Object),
    /// An object that has no data key: an empty file that was never written, a pipe, a socket, a device.
    Keyless,
    /// Something under a name that is not of cmkfs's making. It is not looked into.
    Foreign,
    /// An object that cannot be read.
    Unread(Unread),
    /// A directory whose header cannot be read. What it holds comes right after it all the same, and then
    /// [`Visitor::left`].
    UnreadDirectory(Unread),
}

/// Is told of everything that is found.
pub trait Visitor {
    /// Something was found. `Break` ends the walk.
    fn found(&mut self, place: &Place<'_>, found: &Found) -> ControlFlow<()>;

    /// All that the directory at this place holds has been found.
    fn left(&mut self, place: &Place<'_>) -> ControlFlow<()> {
        let _ = place;
        ControlFlow::Continue(())
    }
}

/// One walk for two visitors. The first to break ends it for both.
pub struct Both<'a>(pub &'a mut dyn Visitor, pub &'a mut dyn Visitor);

impl Visitor for Both<'_> {
    fn found(&mut self, place: &Place<'_>, found: &Found) -> ControlFlow<()> {
        self.0.found(place, found)?;
        self.1.found(place, found)
    }

    fn left(&mut self, place: &Place<'_>) -> ControlFlow<()> {
        self.0.left(place)?;
        self.1.left(place)
    }
}

impl std::fmt::Debug for Both<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Both")
    }
}

/// Bytes asked of a directory at a time.
const LISTING_BYTES: usize = 32 * 1024;

/// Walks the volume in `directory`.
///
/// # Errors
/// [`VolumeError::Io`] where the directory itself cannot be opened; what is inside is the visitor's.
pub fn walk(directory: &Path, visitor: &mut dyn Visitor) -> Result<(), VolumeError> {
    let root = || -> Result<_, Errno> {
        let root = rustix::fs::open(directory, DIRECTORY, Mode::empty())?;
        let device = rustix::fs::fstat(&root)?.st_dev;
        Ok((root, device))
    };
    let (root, device) =
        root().map_err(|errno| VolumeError::io("open", directory)(errno.into()))?;
    let mut walk = Walk {
        root: &root,
        device,
        visitor,
        linked: HashMap::new(),
        levels: Vec::new(),
        path: PathBuf::new(),
    };
    // Stopped by the visitor, who knows why.
    let _ = walk.run();
    Ok(())
}

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// A directory that is being walked.
struct Level {
    fd: OwnedFd,
    name: CString,
    /// Subdirectories that were listed and not yet entered.
    pending: Vec<CString>,
    ended: bool,
}

struct Walk<'a> {
    root: &'a OwnedFd,
    device: u64,
    visitor: &'a mut dyn Visitor,
    /// Inodes of several names, and how many of these are still to come.
    linked: HashMap<u64, u32>,
    levels: Vec<Level>,
    path: PathBuf,
}

impl Walk<'_> {
    fn run(&mut self) -> ControlFlow<()> {
        self.enter(c".".to_owned())?;
        while let Some(level) = self.levels.last_mut() {
            if let Some(name) = level.pending.pop() {
                self.enter(name)?;
            } else if level.ended {
                self.leave()?;
            } else {
                self.list()?;
            }
        }
        ControlFlow::Continue(())
    }

    fn parent(&self) -> BorrowedFd<'_> {
        self.levels
            .last()
            .map_or(self.root.as_fd(), |level| level.fd.as_fd())
    }

    /// Tells the visitor of `name` in the directory that is being walked.
    fn tell(&mut self, name: &CStr, found: &Found) -> ControlFlow<()> {
        let depth = self.levels.len();
        if depth > 0 {
            self.path.push(OsStr::from_bytes(name.to_bytes()));
        }
        let parent = self
            .levels
            .last()
            .map_or(self.root.as_fd(), |level| level.fd.as_fd());
        let place = Place {
            path: &self.path,
            parent,
            name,
            depth,
        };
        let flow = self.visitor.found(&place, found);
        if depth > 0 {
            self.path.pop();
        }
        flow
    }

    fn enter(&mut self, name: CString) -> ControlFlow<()> {
        let parent = self.parent();
        let opened = match rustix::fs::openat(parent, &name, DIRECTORY, Mode::empty()) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {
                return ControlFlow::Continue(());
            }
            Err(errno) => return self.tell(&name, &Found::Unread(errno.into())),
            Ok(opened) => opened,
        };
        match rustix::fs::fstat(&opened) {
            Err(errno) => return self.tell(&name, &Found::Unread(errno.into())),
            Ok(stat) if stat.st_dev != self.device => {
                return self.tell(&name, &Found::Unread(Unread::OtherFilesystem));
            }
            Ok(_) => {}
        }
        let found = match read_header(opened.as_fd(), &own(DIRECTORY_FILE), ObjectKind::Directory) {
            Ok(Some(header)) => Found::Object(object(&header, ObjectKind::Directory, 0)),
            // Being removed at this moment, it has left its name first and its header then.
            Ok(None) if !is_same(parent, &name, &opened) => return ControlFlow::Continue(()),
            Ok(None) => Found::UnreadDirectory(Unread::HeaderMissing),
            Err(unread) => Found::UnreadDirectory(unread),
        };
        self.tell(&name, &found)?;
        if !self.levels.is_empty() {
            self.path.push(OsStr::from_bytes(name.to_bytes()));
        }
        self.levels.push(Level {
            fd: opened,
            name,
            pending: Vec::new(),
            ended: false,
        });
        ControlFlow::Continue(())
    }

    fn leave(&mut self) -> ControlFlow<()> {
        let Some(Level { name, .. }) = self.levels.pop() else {
            return ControlFlow::Break(());
        };
        let depth = self.levels.len();
        let parent = self
            .levels
            .last()
            .map_or(self.root.as_fd(), |level| level.fd.as_fd());
        let place = Place {
            path: &self.path,
            parent,
            name: &name,
            depth,
        };
        let flow = self.visitor.left(&place);
        self.path.pop();
        flow
    }

    /// Lists some entries of the directory that is being walked: subdirectories for later, all else at once.
    fn list(&mut self) -> ControlFlow<()> {
        let mut entries = Vec::new();
        let Some(level) = self.levels.last_mut() else {
            return ControlFlow::Break(());
        };
        let mut failed = None;
        {
            let mut buffer = Vec::with_capacity(LISTING_BYTES);
            let mut listing = RawDir::new(&level.fd, buffer.spare_capacity_mut());
            loop {
                match listing.next() {
                    None => level.ended = true,
                    Some(Err(errno)) => {
                        level.ended = true;
                        failed = Some(errno);
                    }
                    Some(Ok(entry)) => {
                        entries.push(entry.file_name().to_owned());
                        if !listing.is_buffer_empty() {
                            continue;
                        }
                    }
                }
                break;
            }
        }
        if let Some(errno) = failed.filter(|errno| *errno != Errno::NOENT) {
            // Told of the directory, as what it holds and nobody has seen.
            self.tell(c".", &Found::Unread(errno.into()))?;
        }
        entries.into_iter().try_for_each(|name| self.entry(name))
    }

    fn entry(&mut self, name: CString) -> ControlFlow<()> {
        match BackingName::classify(name.to_bytes()) {
            BackingName::Temporary | BackingName::Reserved => return ControlFlow::Continue(()),
            BackingName::Inline(text) if names::from_text(text).is_some() => {}
            BackingName::Long => {}
            BackingName::Inline(_) | BackingName::Foreign => {
                if matches!(name.to_bytes(), b"." | b"..") {
                    return ControlFlow::Continue(());
                }
                return self.tell(&name, &Found::Foreign);
            }
        }
        let found = match rustix::fs::statat(self.parent(), &name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return ControlFlow::Continue(()),
            Err(errno) => Found::Unread(errno.into()),
            Ok(stat) if stat.st_dev != self.device => Found::Unread(Unread::OtherFilesystem),
            Ok(stat) => {
                let length = u64::try_from(stat.st_size).unwrap_or(0);
                let object = match FileType::from_raw_mode(stat.st_mode) {
                    FileType::Directory => {
                        if let Some(level) = self.levels.last_mut() {
                            level.pending.push(name);
                        }
                        return ControlFlow::Continue(());
                    }
                    FileType::RegularFile if length > 0 => self.file(&name, length).map(Some),
                    FileType::Symlink => self.symlink(&name).map(Some),
                    _ => Ok(None),
                };
                match object {
                    Ok(None) => Found::Keyless,
                    Ok(Some(None)) => return ControlFlow::Continue(()),
                    Ok(Some(Some(mut object))) => {
                        object.again = self.is_known(&stat);
                        object.last = stat.st_nlink == 1;
                        Found::Object(object)
                    }
                    Err(unread) => Found::Unread(unread),
                }
            }
        };
        self.tell(&name, &found)
    }

    /// A file's header; `None` where it is gone.
    fn file(&self, name: &CStr, length: u64) -> Result<Option<Object>, Unread> {
        let header = read_header(self.parent(), name, ObjectKind::File)?;
        let bytes = layout::plaintext_size(length);
        Ok(header.map(|header| object(&header, ObjectKind::File, bytes)))
    }

    /// A symlink's record; `None` where it is gone.
    fn symlink(&self, name: &CStr) -> Result<Option<Object>, Unread> {
        let text = match rustix::fs::readlinkat(self.parent(), name, Vec::new()) {
            Err(Errno::NOENT | Errno::INVAL) => return Ok(None),
            text => text?,
        };
        let record = match Stored::from_text(text.to_bytes())? {
            Stored::Inline(record) => record,
            Stored::Side { object, length } => {
                let side = own(&format!("{LINKS_DIRECTORY}/{object}"));
                let Some(record) = read_side_file(self.root.as_fd(), &side)? else {
                    let now = rustix::fs::readlinkat(self.parent(), name, Vec::new());
                    return match now {
                        Err(Errno::NOENT) => Ok(None),
                        _ => Err(Unread::SideFile),
                    };
                };
                if record.object != object || record.ciphertext.len() != usize::from(length) {
                    return Err(Unread::SideFile);
                }
                record
            }
        };
        Ok(Some(Object {
            kind: ObjectKind::Symlink,
            id: record.object,
            envelope: record.envelope,
            bytes: record.ciphertext.len() as u64,
            again: false,
            last: true,
        }))
    }

    /// Whether an inode was seen before; remembers it until its last name was.
    fn is_known(&mut self, stat: &Stat) -> bool {
        // One of several may be the last by now.
        if stat.st_nlink < 2 && !self.linked.contains_key(&stat.st_ino) {
            return false;
        }
        match self.linked.entry(stat.st_ino) {
            Entry::Vacant(new) => {
                new.insert(u32::try_from(stat.st_nlink).unwrap_or(u32::MAX) - 1);
                false
            }
            Entry::Occupied(mut known) => {
                *known.get_mut() -= 1;
                if *known.get() == 0 {
                    known.remove();
                }
                true
            }
        }
    }
}

fn object(header: &Header, kind: ObjectKind, bytes: u64) -> Object {
    Object {
        kind,
        id: header.object_id(),
        envelope: *header.envelope(),
        bytes,
        again: false,
        last: true,
    }
}

/// Whether `name` still leads to the directory that was opened by it.
fn is_same(parent: BorrowedFd<'_>, name: &CStr, opened: &OwnedFd) -> bool {
    let there = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW);
    match (there, rustix::fs::fstat(opened)) {
        (Ok(there), Ok(opened)) => there.st_ino == opened.st_ino && there.st_dev == opened.st_dev,
        _ => false,
    }
}

/// The header at `name`; `None` where there is no such file.
pub(super) fn read_header(
    directory: BorrowedFd<'_>,
    name: &CStr,
    kind: ObjectKind,
) -> Result<Option<Header>, Unread> {
    let mut bytes = [0; HEADER_LEN];
    match read_start(directory, name, &mut bytes)? {
        None => Ok(None),
        // Its bytes never reached the disk.
        Some(0) if kind == ObjectKind::Directory => Ok(None),
        Some(read) => Ok(Some(Header::decode(kind, &bytes[..read])?)),
    }
}

/// The record in a side file; `None` where there is no such file.
pub(super) fn read_side_file(
    directory: BorrowedFd<'_>,
    name: &CStr,
) -> Result<Option<SymlinkRecord>, Unread> {
    let mut bytes = vec![0; RECORD_OVERHEAD + TARGET_MAX + 1];
    let read = read_start(directory, name, &mut bytes)?;
    let record = read.map(|read| SymlinkRecord::decode(&bytes[..read]));
    Ok(record.transpose()?)
}

/// Fills `buffer` from the start of the file at `name`; how many bytes there were, or `None` where there is no such file.
fn read_start(
    directory: BorrowedFd<'_>,
    name: &CStr,
    buffer: &mut [u8],
) -> Result<Option<usize>, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let open = |flags| rustix::fs::openat(directory, name, flags, Mode::empty());
    // Users see the backing file's atime. Only its owner may leave that alone.
    let file = match open(flags | OFlags::NOATIME) {
        Err(Errno::PERM) => open(flags),
        opened => opened,
    };
    let file = match file {
        Err(Errno::NOENT) => return Ok(None),
        opened => opened?,
    };
    let mut before = vec![0; buffer.len()];
    let mut known = fill(&file, &mut before)?;
    // A mount may be writing this header: a read can see a part of the old and a part of the new, two in a row cannot see
    // the same parts.
    loop {
        let read = fill(&file, buffer)?;
        if read == known && before == buffer {
            return Ok(Some(read));
        }
        known = read;
        before.copy_from_slice(buffer);
    }
}

fn fill(file: &OwnedFd, buffer: &mut [u8]) -> Result<usize, Errno> {
    let mut done = 0;
    while done < buffer.len() {
        let rest = &mut buffer[done..];
        match rustix::io::retry_on_intr(|| rustix::io::pread(file, &mut *rest, done as u64))? {
            0 => break,
            read => done += read,
        }
    }
    Ok(done)
}

/// One of cmkfs's own names.
fn own(name: &str) -> CString {
    // Constants and hyphenated ids: no zero byte.
    CString::new(name).unwrap_or_default()
}
