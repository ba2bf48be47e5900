//! Where redo journals lie: a directory at the root of the volume, a file for each object that has one, by its id.
//! What is in them is the business of `fs::file::journal`.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::backing::Backing;
use super::directory::own_name;
use crate::format::names::JOURNAL_DIRECTORY;
use crate::ids::ObjectId;
use crate::sync::Mutex;

type Io<T> = Result<T, Errno>;

/// The journals of a volume.
#[derive(Debug)]
pub struct Journals {
    root: OwnedFd,
    directory: OnceLock<OwnedFd>,
    /// The directory was made, and its name may not be on the disk.
    is_new: AtomicBool,
    /// There may be journals of files that nobody has open.
    may_be_left: AtomicBool,
    /// The objects of journals that are to be removed once it is on the disk that their files are.
    doomed: Mutex<Doomed>,
}

#[derive(Debug, Default)]
struct Doomed {
    objects: Vec<ObjectId>,
    /// When there was the first.
    since: Option<Instant>,
}

/// How long the journals of removed files wait, so that one sync of the backing filesystem serves many.
const PATIENCE: Duration = Duration::from_secs(5);

impl Journals {
    /// The journals of the volume whose backing directory `root` is.
    pub fn new(root: OwnedFd) -> Self {
        Self {
            root,
            directory: OnceLock::new(),
            is_new: AtomicBool::new(false),
            may_be_left: AtomicBool::new(false),
            doomed: Mutex::default(),
        }
    }

    /// Looks whether an earlier process has left journals.
    pub fn look(&self, backing: &Backing) -> Io<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let listing = match backing.open(&self.root, &own_name(JOURNAL_DIRECTORY), flags, 0) {
            Err(Errno::NOENT) => return Ok(()),
            opened => rustix::fs::Dir::new(opened?)?,
        };
        for entry in listing {
            if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
                self.note_left();
                break;
            }
        }
        Ok(())
    }

    /// A file was let go of that is not sealed: its journal, if it has one, stays.
    pub fn note_left(&self) {
        self.may_be_left.store(true, Ordering::Release);
    }

    /// There may be journals of files that nobody has open.
    pub fn may_be_left(&self) -> bool {
        self.may_be_left.load(Ordering::Acquire)
    }

    fn directory(&self, backing: &Backing) -> Io<&OwnedFd> {
        if let Some(known) = self.directory.get() {
            return Ok(known);
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let opened = backing.open(&self.root, &own_name(JOURNAL_DIRECTORY), flags, 0)?;
        Ok(self.directory.get_or_init(|| opened))
    }

    fn made_directory(&self, backing: &Backing) -> Io<&OwnedFd> {
        match self.directory(backing) {
            Err(Errno::NOENT) => {}
            opened => return opened,
        }
        // Everybody's, and what is in it each maker's own.
        match backing.make_directory(&self.root, &own_name(JOURNAL_DIRECTORY), 0o1777) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
        self.is_new.store(true, Ordering::Release);
        self.directory(backing)
    }

    /// The journal of an object, if there is one.
    pub fn open(&self, backing: &Backing, object: ObjectId, flags: OFlags) -> Io<Option<OwnedFd>> {
        let directory = match self.directory(backing) {
            Err(Errno::NOENT) => return Ok(None),
            opened => opened?,
        };
        match backing.open(directory, &name_of(object), flags, 0) {
            Err(Errno::NOENT) => Ok(None),
            opened => opened.map(Some),
        }
    }

    /// The empty journal of an object. What it will hold is there after a power cut once [`Journals::sync`] was called besides.
    pub fn make(&self, backing: &Backing, object: ObjectId) -> Io<OwnedFd> {
        let directory = self.made_directory(backing)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        match backing.open(directory, &name_of(object), flags, 0o600) {
            Err(Errno::EXIST) => {
                // Left behind by a file that was sealed since.
                backing.remove(directory, &name_of(object))?;
                backing.open(directory, &name_of(object), flags, 0o600)
            }
            made => made,
        }
    }

    /// Puts the names of all journals on the disk.
    pub fn sync(&self, backing: &Backing) -> Io<()> {
        if self.is_new.load(Ordering::Acquire) {
            backing.sync(&self.root, false)?;
            self.is_new.store(false, Ordering::Release);
        }
        backing.sync(self.directory(backing)?, false)
    }

    /// The file of this object has been removed, which may not be on the disk. Were its journal gone before, the file might
    /// come back without what was recorded, and synced.
    pub fn doom(&self, object: ObjectId) {
        let mut doomed = self.doomed.lock();
        doomed.objects.push(object);
        doomed.since.get_or_insert_with(Instant::now);
    }

    /// Journals of removed files have waited long enough.
    pub fn has_waited(&self) -> bool {
        let since = self.doomed.lock().since;
        since.is_some_and(|since| since.elapsed() >= PATIENCE)
    }

    /// The objects whose journals go once what is done so far is on the disk; the caller removes them then, or puts them back.
    pub fn take_doomed(&self) -> Vec<ObjectId> {
        std::mem::take(&mut *self.doomed.lock()).objects
    }

    /// Removes the journal of an object. One that stays behind does no harm.
    pub fn remove(&self, backing: &Backing, object: ObjectId) {
        if let Ok(directory) = self.directory(backing) {
            let _ = backing.remove(directory, &name_of(object));
        }
    }
}

fn name_of(object: ObjectId) -> CString {
    own_name(&object.to_string())
}
