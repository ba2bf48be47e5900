//! The data path: an open file, shared by all handles on it. Owns the file's header, size and slots.
//!
//! [`read`] · [`write`], [`ciphertext`] what it turns into · [`resize`] truncation, allocation, holes · [`seal`] what makes a file clean again ·
//! [`overwrite`] blocks that may be on the disk already, [`journal`] their records, [`checkpoint`] what becomes of these ·
//! [`rewrap`] its data key under another CMK · [`rekey`] its content under another data key · [`verify`] · [`slots`] the meta pages in memory · [`scratch`] buffers.
//!
//! Readers share `inner`, whoever changes something has it alone. Lock order: `inner` → lease → slots.

mod checkpoint;
mod ciphertext;
mod journal;
mod overwrite;
mod read;
mod rekey;
mod resize;
mod rewrap;
mod scratch;
mod seal;
mod slots;
mod verify;
mod write;

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use crate::sync::{Mutex, RwLock};
use rustix::fs::{OFlags, Stat, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, XattrFlags};
use rustix::io::Errno;

use self::journal::Journal;
pub use self::rekey::Side;
use self::slots::SlotCache;
use super::backing::At;
use super::core::Core;
use super::error::{Damage, FsResult};
use super::object::Object;
use crate::format::envelope::ObjectKind;
use crate::format::header::{HEADER_LEN, KeyBinding, SealedState};
use crate::format::{layout, xattr};
use crate::ids::KeyId;

/// Tells the key binding for a file that gets its data key. Asked while the file is held alone, so that whoever binds the
/// directory anew and then looks at the file finds either a data key there, or none that is not to be under the new binding.
pub type BindingOf<'a> = &'a dyn Fn() -> FsResult<KeyBinding>;

/// What an inode knows of its open file.
#[derive(Debug, Default)]
pub struct FileSlot {
    /// The file, while a handle is open or it waits to be sealed.
    pub file: Option<Arc<OpenFile>>,
    /// Open handles.
    pub handles: u32,
    /// Open handles that may write.
    pub writers: u32,
}

impl FileSlot {
    /// Nothing is open and nothing waits.
    pub const fn is_empty(&self) -> bool {
        self.file.is_none() && self.handles == 0
    }
}

/// An open file.
#[derive(Debug)]
pub struct OpenFile {
    inner: RwLock<Inner>,
    slots: Mutex<SlotCache>,
    /// The data key's holder as a writer has seen it last, for who does not want to wait for `inner`: another may have taken
    /// its place since.
    seen_object: Mutex<Weak<Object>>,
}

#[derive(Debug)]
struct Inner {
    fd: Arc<OwnedFd>,
    /// `fd` is open for writing.
    writable: bool,
    /// The data key's holder; `None` while the backing file has no byte yet.
    object: Option<Arc<Object>>,
    /// Plaintext size.
    size: u64,
    /// The state in the stored header; of a file without one, the state of an empty file.
    stored: SealedState,
    /// The header is in the backing file.
    has_header: bool,
    /// Blocks may have to be looked for in their previous entry.
    recovering: bool,
    /// Holes were found where the stored header does not speak of any: a truncation was interrupted or failed.
    found_holes: bool,
    /// Slots and pages past the end may not be clear: a write past it was interrupted or failed.
    tail_unknown: bool,
    /// Counts changes, failed ones too, so that a seal can tell whether it speaks of the present content.
    changes: u64,
    /// Blocks that were overwritten and are not in their places yet.
    journal: Option<Journal>,
    /// Blocks were cut off or punched out, and that may not be on the disk yet.
    released: bool,
    /// Counts changes of the backing file, and up to which of them it is on the disk.
    placed: AtomicU64,
    placed_synced: AtomicU64,
    /// The same for records of the journal.
    journaled: u64,
    journal_synced: AtomicU64,
}

/// The attribute that holds file capabilities: every write(2) takes it away.
const CAPABILITIES: &CStr = c"security.capability";

const EMPTY: SealedState = SealedState {
    size: 0,
    epoch: 0,
    sparse: false,
    dirty: false,
    binding: None,
};

impl OpenFile {
    /// A file that was created this moment: no byte, no header.
    pub fn created(fd: OwnedFd) -> Arc<Self> {
        Self::with(Inner::empty(fd, true))
    }

    /// Opens a file: reads its header, checks it against the backing file's length. A file that this mount has changed
    /// stays open until it is sealed, so a dirty header found here tells of an unclean stop.
    pub fn open(core: &Core, fd: OwnedFd, writable: bool) -> FsResult<Arc<Self>> {
        let length = backing_length(&core.backing.stat(At::Fd(fd.as_fd()))?);
        if length == 0 {
            return Ok(Self::with(Inner::empty(fd, writable)));
        }
        let mut page = [0; layout::BLOCK_LEN];
        let read = core.backing.read(&fd, &mut page, 0)?;
        if is_blank(core, &fd, &page[..read])? {
            if writable {
                core.backing.truncate(&fd, 0)?;
            }
            return Ok(Self::with(Inner::empty(fd, writable)));
        }
        let (object, stored) =
            Object::open_header(&core.ring, ObjectKind::File, &page[..read.min(HEADER_LEN)])?;
        let size = layout::plaintext_size(length);
        let intact = if stored.dirty {
            size >= stored.size
        } else {
            length == layout::backing_length(stored.size)
        };
        if !intact {
            return Err(Damage::Size {
                sealed: stored.size,
                actual: size,
            }
            .into());
        }
        let recovering = stored.dirty;
        let journal = if recovering {
            let keys = object.keys(&core.ring)?;
            Journal::recover(core, &object, &keys, stored.epoch, size)?
        } else {
            None
        };
        let file = Self::with(Inner {
            object: Some(object),
            size,
            stored,
            has_header: true,
            recovering,
            tail_unknown: recovering,
            journal,
            ..Inner::empty(fd, writable)
        });
        file.slots.lock().insert(
            0,
            Arc::new(slots::GroupSlots::of(&page[HEADER_LEN..], !recovering)),
        );
        Ok(file)
    }

    fn with(inner: Inner) -> Arc<Self> {
        Arc::new(Self {
            inner: RwLock::new(inner),
            slots: Mutex::default(),
            seen_object: Mutex::default(),
        })
    }

    /// Plaintext size in bytes.
    pub fn size(&self) -> u64 {
        self.inner.read().size
    }

    /// Fails unless the file's CMK may be used. A file without a header has none yet: then there is nothing to check.
    pub fn check_key(&self, core: &Core) -> FsResult<()> {
        if let Some(object) = &self.inner.read().object {
            object.keys(&core.ring)?;
        }
        Ok(())
    }

    /// The CMK of the file's data key.
    pub fn key(&self) -> Option<KeyId> {
        self.inner.read().object.as_ref().map(|object| object.key())
    }

    /// Whether the file's data key is under a CMK, or may be: this waits for nobody who is changing the file.
    pub fn may_be_under(&self, key: KeyId) -> bool {
        self.inner.try_read().is_none_or(|inner| {
            let object = inner.object.as_ref();
            object.is_some_and(|object| object.key() == key)
        })
    }

    /// Makes the file writable by a descriptor that is, unless it is already.
    pub fn upgrade(&self, open: impl FnOnce() -> FsResult<OwnedFd>) -> FsResult<()> {
        let mut inner = self.inner.write();
        if !inner.writable {
            inner.fd = Arc::new(open()?);
            inner.writable = true;
        }
        Ok(())
    }

    /// Runs `call` on the backing file.
    pub fn with_descriptor<T>(
        &self,
        call: impl FnOnce(BorrowedFd<'_>) -> Result<T, Errno>,
    ) -> FsResult<T> {
        Ok(call(self.inner.read().fd.as_fd())?)
    }

    /// The file's data key holder. A file that has none gets one, with a header in the backing file.
    pub fn object(&self, core: &Core, binding: BindingOf<'_>) -> FsResult<Arc<Object>> {
        if let Some(object) = self.while_stored(|_, object| Arc::clone(object)) {
            return Ok(object);
        }
        let mut inner = self.inner.write();
        let object = inner.ensure_object(core, binding)?;
        if !inner.has_header {
            // Dirty, so that a power cut or a full disk may leave less of its page.
            inner.keeping_attributes(core, |inner| {
                inner.store_header(core, inner.changing(false))
            })?;
        }
        Ok(object)
    }

    /// Runs `work` on the backing file and the holder of the data key that its header holds. The header stays there meanwhile:
    /// nobody cuts the file to nothing. `None` where there is none.
    pub fn while_stored<T>(
        &self,
        work: impl FnOnce(BorrowedFd<'_>, &Arc<Object>) -> T,
    ) -> Option<T> {
        let inner = self.inner.read();
        let object = inner.object.as_ref().filter(|_| inner.has_header)?;
        Some(work(inner.fd.as_fd(), object))
    }

    /// The file's data key holder, if it has one, on the disk or not: what is cut to nothing keeps it for what is written
    /// next, without a header.
    pub fn existing_object(&self) -> Option<Arc<Object>> {
        self.inner.read().object.clone()
    }
}

impl Inner {
    /// A backing file without a byte.
    fn empty(fd: OwnedFd, writable: bool) -> Self {
        Self {
            fd: Arc::new(fd),
            writable,
            object: None,
            size: 0,
            stored: EMPTY,
            has_header: false,
            recovering: false,
            found_holes: false,
            tail_unknown: false,
            changes: 0,
            journal: None,
            released: false,
            // What another process may have left is not known to be on the disk.
            placed: AtomicU64::new(1),
            placed_synced: AtomicU64::new(0),
            journaled: 1,
            journal_synced: AtomicU64::new(0),
        }
    }

    /// The backing file, for a call that changes its content or length.
    fn place(&self) -> &OwnedFd {
        self.placed.fetch_add(1, Ordering::AcqRel);
        &self.fd
    }

    /// Forgets a data key that no header holds: what is written next gets another.
    fn forget_unstored_object(&mut self) {
        if !self.has_header {
            self.object = None;
        }
    }

    fn ensure_object(&mut self, core: &Core, binding: BindingOf<'_>) -> FsResult<Arc<Object>> {
        if let Some(object) = &self.object {
            return Ok(Arc::clone(object));
        }
        let object = Object::create(&core.ring, ObjectKind::File, &binding()?)?;
        self.object = Some(Arc::clone(&object));
        Ok(object)
    }

    /// Writes the header with this state. A file's first one comes with its whole meta page, in one write: so the backing
    /// file is at no moment shorter than one with a header is.
    fn store_header(&mut self, core: &Core, state: SealedState) -> FsResult<()> {
        let object = self.object.as_ref().ok_or(Errno::IO)?;
        let bytes = object.seal_header(&*object.keys(&core.ring)?, &state)?;
        if self.has_header {
            core.backing.write(self.place(), &bytes, 0)?;
        } else {
            let mut page = [0; layout::BLOCK_LEN];
            page[..HEADER_LEN].copy_from_slice(&bytes);
            if let Err(error) = core.backing.write(self.place(), &page, 0) {
                // A part of it would be no file.
                let _ = core.backing.truncate(self.place(), 0);
                return Err(error.into());
            }
        }
        // What is on the disk would refuse the change that follows, were that there first after a power cut: the mark has
        // to be there before. A file that was never sealed has nothing to refuse.
        let allows_more = !self.stored.dirty
            || state.size < self.stored.size
            || (state.sparse && !self.stored.sparse && self.stored.size > 0);
        if self.has_header && state.dirty && allows_more {
            core.backing.sync(&self.fd, true)?;
            let placed = self.placed.load(Ordering::Acquire);
            self.placed_synced.fetch_max(placed, Ordering::AcqRel);
        }
        self.stored = state;
        self.has_header = true;
        Ok(())
    }

    /// Sets the time of modification to the present, for a change that changes no byte.
    fn touch(&self, core: &Core) -> FsResult<()> {
        let times = Timestamps {
            last_access: Timespec {
                tv_sec: 0,
                tv_nsec: UTIME_OMIT,
            },
            last_modification: Timespec {
                tv_sec: 0,
                tv_nsec: UTIME_NOW,
            },
        };
        Ok(core.backing.set_times(At::Fd(self.fd.as_fd()), &times)?)
    }

    /// Runs `work`, which writes to the backing file and changes no content. What a write(2) changes besides is then as
    /// before, also where `work` failed: the time of modification, setuid and setgid bits, file capabilities.
    fn keeping_attributes<T>(
        &mut self,
        core: &Core,
        work: impl FnOnce(&mut Self) -> FsResult<T>,
    ) -> FsResult<T> {
        let before = core.backing.stat(At::Fd(self.fd.as_fd()))?;
        let capabilities = core
            .backing
            .get_xattr(At::Fd(self.fd.as_fd()), CAPABILITIES);
        let placed = self.placed.load(Ordering::Acquire);
        let done = work(self);
        if self.placed.load(Ordering::Acquire) != placed {
            self.put_back(core, &before, capabilities.ok().as_deref());
        }
        done
    }

    /// As far as that can be done: the work is done, whether or not.
    fn put_back(&self, core: &Core, before: &Stat, capabilities: Option<&[u8]>) {
        let at = At::Fd(self.fd.as_fd());
        let note = |what: &str, result: Result<(), Errno>| match result {
            Ok(()) => {}
            // A file that another user owns.
            Err(error @ (Errno::PERM | Errno::OPNOTSUPP)) => {
                log::debug!("a file's {what} cannot be put back: {error}");
            }
            Err(error) => log::warn!("a file's {what} could not be put back: {error}"),
        };
        if before.st_mode & 0o6000 != 0 {
            let mode = before.st_mode & 0o7777;
            note("mode", core.backing.set_mode(at, mode));
        }
        if let Some(capabilities) = capabilities {
            let flags = XattrFlags::empty();
            let set = core
                .backing
                .set_xattr(at, CAPABILITIES, capabilities, flags);
            note("capabilities", set);
        }
        let times = Timestamps {
            last_access: Timespec {
                tv_sec: 0,
                tv_nsec: UTIME_OMIT,
            },
            last_modification: Timespec {
                tv_sec: before.st_mtime,
                tv_nsec: before.st_mtime_nsec as _,
            },
        };
        note("time", core.backing.set_times(at, &times));
    }

    /// The state of the file while it is being changed; `sparse` where the change may leave holes. The stored size stays
    /// as the lower bound that it is.
    fn changing(&self, sparse: bool) -> SealedState {
        SealedState {
            size: self.stored.size,
            epoch: self.stored.epoch + 1,
            sparse: self.stored.sparse || sparse,
            dirty: true,
            binding: None,
        }
    }

    /// After a failed change nobody knows which part of it reached the backing file: from now on blocks are looked for in
    /// both entries, and what lies past the end is cleared before it is used. A seal that is under way no longer speaks of
    /// the present content. The caller forgets the slots in memory.
    const fn distrust(&mut self) {
        self.recovering = self.has_header;
        self.tail_unknown = self.has_header;
        self.changes += 1;
    }

    /// Attributes lie on the backing file that only the file's data key opens.
    fn has_sealed_attributes(&self, core: &Core) -> bool {
        match core.backing.list_xattrs(At::Fd(self.fd.as_fd())) {
            Ok(names) => names.split(|byte| *byte == 0).any(xattr::is_stored_name),
            Err(error) => error != Errno::OPNOTSUPP,
        }
    }

    /// Whether the stored header already allows a change (with holes, if `sparse`).
    const fn is_changing(&self, sparse: bool) -> bool {
        self.has_header && self.stored.dirty && (self.stored.sparse || !sparse)
    }

    /// Whether plaintext from `offset` on may read as zeros without a block saying so.
    const fn hole_allowed(&self, offset: u64) -> bool {
        self.stored.sparse || (self.stored.dirty && offset >= self.stored.size)
    }
}

/// Length of a backing file.
pub fn backing_length(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

/// Whether a file is blank: a power cut has kept its length and lost its header, zeros in a page that never came to be. Its
/// data key was nowhere else, so nothing of the file can be lost that is not, and it is the empty file it was before.
fn is_blank(core: &Core, fd: &OwnedFd, page: &[u8]) -> FsResult<bool> {
    if page.iter().any(|byte| *byte != 0) {
        return Ok(false);
    }
    // A page that was allocated and never written counts as data while it is in the page cache, where reading has put it.
    core.backing.drop_cached(fd, layout::PAGE);
    let data = core.backing.seek_data(fd, 0)?;
    Ok(data.is_none_or(|data| data >= layout::PAGE))
}

/// Whether the file at a place is blank, as far as can be told without opening every file that is looked at: where its backing
/// filesystem stores less than its length.
pub fn looks_blank(core: &Core, stat: &Stat, at: At<'_>) -> bool {
    const SECTOR: u64 = 512;
    let stored = u64::try_from(stat.st_blocks).unwrap_or(0) * SECTOR;
    let look = || {
        let fd = match at {
            At::Name(directory, name) => core.backing.open(directory, name, OFlags::RDONLY, 0),
            At::Fd(fd) => core.backing.reopen(fd, OFlags::RDONLY),
        }?;
        let mut page = [0; layout::BLOCK_LEN];
        let read = core.backing.read(&fd, &mut page, 0)?;
        is_blank(core, &fd, &page[..read])
    };
    stored < backing_length(stat) && look().unwrap_or(false)
}
