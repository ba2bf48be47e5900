//! Healing what heals without guessing, in a volume that nobody else has open: what processes that died have left. Nothing
//! is removed that holds, or may hold, what a user has made.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::verify::Listing;
use super::walk::{Entry, Maintenance, is_gone};
use super::{FileSystem, kind_of};
use crate::crypto::xattr;
use crate::format::envelope::ObjectKind;
use crate::format::names::{BackingName, JOURNAL_DIRECTORY, LINKS_DIRECTORY, LONG_NAME_SUFFIX};
use crate::format::xattr::is_stored_name;
use crate::fs::backing::At;
use crate::fs::directory::{check_empty, header_aside, own_name, remove_if_there};
use crate::fs::error::{Damage, FsResult};
use crate::fs::object::Object;
use crate::fs::types::FileKind;
use crate::ids::ObjectId;

/// Files that lie at the root of a volume by the ids of the objects that own them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SideFiles {
    /// What backing symlinks have no room for.
    Targets,
    /// Redo journals of files that are not sealed.
    Journals,
}

impl SideFiles {
    /// The directory they lie in.
    #[must_use]
    pub const fn directory(self) -> &'static str {
        match self {
            Self::Targets => LINKS_DIRECTORY,
            Self::Journals => JOURNAL_DIRECTORY,
        }
    }
}

impl Maintenance<'_> {
    /// Whether a directory holds nothing, so that it can be given a new header where it has lost its own.
    ///
    /// # Errors
    /// What the backing says.
    pub fn is_empty(&self, directory: &Entry<'_>) -> FsResult<bool> {
        let fd = directory.inode()?.descriptor(&self.filesystem.core)?;
        match check_empty(&self.filesystem.core, fd.as_fd(), c".") {
            Err(error) if error.errno() == Errno::NOTEMPTY => Ok(false),
            checked => checked.map(|()| true),
        }
    }

    /// Gives an empty directory that has lost its header a new one, bound as the directory above is.
    ///
    /// # Errors
    /// EBADMSG where it cannot be given one; the key of the directory above refused; what the backing says.
    pub fn heal_header(&self, directory: &Entry<'_>) -> FsResult<()> {
        directory.inode()?.header(&self.filesystem.core).map(drop)
    }

    /// Whether this file keeps the long name of an object that is not there.
    ///
    /// # Errors
    /// What the backing says.
    pub fn is_orphaned_name(&self, directory: &Entry<'_>, name: &CStr) -> FsResult<bool> {
        let fs = self.filesystem;
        let Some(object) = name.to_bytes().strip_suffix(LONG_NAME_SUFFIX.as_bytes()) else {
            return Ok(false);
        };
        let object = CString::new(object).map_err(|_| Errno::INVAL)?;
        let fd = directory.inode()?.descriptor(&fs.core)?;
        // Who makes or removes the object is done then, with the name as well.
        let _tree = fs.tree.write();
        let stat = |name: &CStr| fs.core.backing.stat(At::Name(fd.as_fd(), name));
        match (stat(name), stat(&object)) {
            (Ok(kept), Err(Errno::NOENT)) => Ok(kind_of(&kept) == FileKind::File),
            (Err(Errno::NOENT), _) | (Ok(_), Ok(_)) => Ok(false),
            (Err(error), _) | (Ok(_), Err(error)) => Err(error.into()),
        }
    }

    /// Removes a file that keeps the name of an object that is not there.
    ///
    /// # Errors
    /// What the backing says.
    pub fn remove_orphaned_name(&self, directory: &Entry<'_>, name: &CStr) -> FsResult<()> {
        let fd = directory.inode()?.descriptor(&self.filesystem.core)?;
        remove_if_there(&self.filesystem.core, fd.as_fd(), name)
    }

    /// Whether what is called `cmkfs.tmp.*` in a directory holds nothing but what cmkfs itself has put there.
    ///
    /// # Errors
    /// What the backing says.
    pub fn is_only_leftover(&self, directory: &Entry<'_>, name: &CStr) -> FsResult<bool> {
        let fd = directory.inode()?.descriptor(&self.filesystem.core)?;
        self.filesystem.holds_nothing(fd.as_fd(), name)
    }

    /// Removes it. Says whether it is gone.
    ///
    /// # Errors
    /// What the backing says.
    pub fn remove_leftover(&self, directory: &Entry<'_>, name: &CStr) -> FsResult<bool> {
        let fs = self.filesystem;
        let fd = directory.inode()?.descriptor(&fs.core)?;
        let _tree = fs.tree.write();
        if !fs.holds_nothing(fd.as_fd(), name)? {
            return Ok(false);
        }
        fs.remove_aside(fd.as_fd(), name);
        Ok(fs.core.backing.stat(At::Name(fd.as_fd(), name)).is_err())
    }

    /// Whether an interrupted binding of a directory has left what is called so in it.
    #[must_use]
    pub fn is_left_by_binding(name: &CStr) -> bool {
        *name == *header_aside()
    }

    /// Clears away what an interrupted binding of a directory has left: the header that lies aside, and the attributes that
    /// only its key opens. Says whether nothing of it is left; attributes that neither key opens are left alone.
    ///
    /// # Errors
    /// A key refused; what the backing says.
    pub fn finish_binding(&self, directory: &Entry<'_>) -> FsResult<bool> {
        let fs = self.filesystem;
        let inode = directory.inode()?;
        let fd = inode.descriptor(&fs.core)?;
        let backing = &fs.core.backing;
        let aside = header_aside();
        let listed = match fs.on_backing(inode, |at| backing.list_xattrs(at)) {
            Err(error) if error.errno() == Errno::OPNOTSUPP => Vec::new(),
            listed => listed?,
        };
        let mut other = None;
        for stored in listed
            .split(|byte| *byte == 0)
            .filter(|name| is_stored_name(name))
        {
            match fs.plain_xattr_name(inode, stored) {
                Err(crate::fs::FsError::Damaged(_)) => {}
                opened => {
                    opened?;
                    continue;
                }
            }
            let object = match &other {
                Some(object) => object,
                None => other.insert(fs.object_aside(fd.as_fd(), &aside)?),
            };
            let name = CString::new(stored).map_err(|_| Errno::INVAL)?;
            let bytes = fs.on_backing(inode, |at| backing.get_xattr(at, &name))?;
            if xattr::open(&*object.keys(&fs.core.ring)?, &bytes).is_err() {
                return Ok(false);
            }
            fs.on_backing(inode, |at| backing.remove_xattr(at, &name))?;
        }
        remove_if_there(&fs.core, fd.as_fd(), &aside)?;
        Ok(true)
    }

    /// What lies in one of the directories of side files; `None` where there is no such directory.
    ///
    /// # Errors
    /// What the backing says.
    pub fn side_files(&self, of: SideFiles) -> FsResult<Option<Listing>> {
        match self.filesystem.side_directory(of) {
            Err(error) if error.errno() == Errno::NOENT => Ok(None),
            opened => Ok(Some(self.filesystem.begin_listing(opened?.as_fd())?)),
        }
    }

    /// Removes a side file whose object is not there, or that was not made to its end.
    ///
    /// # Errors
    /// What the backing says.
    pub fn remove_orphaned_side_file(&self, of: SideFiles, name: &CStr) -> FsResult<()> {
        let directory = self.filesystem.side_directory(of)?;
        remove_if_there(&self.filesystem.core, directory.as_fd(), name)
    }

    /// The object that a side file is called after; `None` where it is called otherwise.
    #[must_use]
    pub fn owner_of_side_file(name: &CStr) -> Option<ObjectId> {
        let owner = name.to_str().ok()?.parse::<ObjectId>().ok()?;
        (owner.to_string().as_bytes() == name.to_bytes()).then_some(owner)
    }

    /// Settles and seals all files that nobody has open.
    pub fn seal(&self) {
        self.filesystem.seal_now();
    }

    /// Whether a file is sealed.
    ///
    /// # Errors
    /// Its key refused; damage; what the backing says.
    pub fn is_sealed(&self, file: &Entry<'_>) -> FsResult<bool> {
        let held = self.filesystem.hold(file.inode()?, false)?;
        Ok(held.file().unsealed().is_none())
    }
}

impl FileSystem {
    fn side_directory(&self, of: SideFiles) -> FsResult<OwnedFd> {
        let root = self.inodes.root().descriptor(&self.core)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let name = own_name(of.directory());
        Ok(self.core.backing.open(&root, &name, flags, 0)?)
    }

    /// Whether what lies aside holds nothing but cmkfs's own.
    fn holds_nothing(&self, directory: BorrowedFd<'_>, name: &CStr) -> FsResult<bool> {
        let stat = match self.core.backing.stat(At::Name(directory, name)) {
            Err(error) if is_gone(error) => return Ok(true),
            found => found?,
        };
        if kind_of(&stat) != FileKind::Directory {
            return Ok(true);
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let inside = self.core.backing.open(directory, name, flags, 0)?;
        let mut listing = self.begin_listing(inside.as_fd())?;
        while let Some(entries) = listing.more()? {
            for entry in entries {
                let is_own = match BackingName::classify(entry.name.to_bytes()) {
                    BackingName::Temporary => self.holds_nothing(inside.as_fd(), &entry.name)?,
                    BackingName::Reserved => true,
                    BackingName::Inline(_) | BackingName::Long | BackingName::Foreign => false,
                };
                if !is_own {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    fn object_aside(
        &self,
        directory: BorrowedFd<'_>,
        aside: &CStr,
    ) -> FsResult<std::sync::Arc<Object>> {
        let file = self
            .core
            .backing
            .open(directory, aside, OFlags::RDONLY, 0)?;
        let mut bytes = [0; crate::format::header::HEADER_LEN + 1];
        let read = self.core.backing.read(&file, &mut bytes, 0)?;
        if read == 0 {
            return Err(Damage::HeaderMissing.into());
        }
        let opened = Object::open_header(&self.core.ring, ObjectKind::Directory, &bytes[..read]);
        Ok(opened?.0)
    }
}
