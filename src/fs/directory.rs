//! A directory in use: its descriptor, its header, its keys and key binding, and the backing names of its entries.

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Weak};

use crate::sync::{Mutex, RwLock, RwLockReadGuard};
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::core::Core;
use super::error::{Damage, FsError, FsResult};
use super::flaw::Identity;
use super::inodes::{DefaultAcl, Inode};
use super::object::Object;
use super::types::{Rewrapped, WrappedUnder};
use crate::crypto::name::{self, digest};
use crate::crypto::object::ObjectKeys;
use crate::format::envelope::ObjectKind;
use crate::format::header::{HEADER_LEN, Header, KeyBinding, SealedState};
use crate::format::names::{
    self, BACKING_NAME_MAX, BackingName, DIRECTORY_FILE, LONG_NAME_SUFFIX, LONG_PREFIX, NAME_MAX,
    TEMPORARY_PREFIX,
};
use crate::ids::ObjectId;

/// What is known of a directory while its inode lives.
#[derive(Debug, Default)]
pub struct DirectoryState {
    descriptor: Mutex<Weak<OwnedFd>>,
    header: Mutex<Option<Arc<DirectoryHeader>>>,
    /// Whether new entries inherit an ACL.
    pub default_acl: DefaultAcl,
    /// Its header is known to be on the disk. Not known of a directory that is new in the table: this mount may have
    /// made it, and the transport forgotten it since.
    pub synced: AtomicBool,
    /// Shared by whoever makes an entry or uses an attribute, from the moment it has the directory's keys until that is
    /// done; whoever binds the directory, which changes its keys, has it alone.
    pub binding: RwLock<()>,
}

/// A directory's header, opened.
#[derive(Debug)]
pub struct DirectoryHeader {
    /// Its data key.
    pub object: Arc<Object>,
    /// The CMK for what is created in it.
    pub binding: KeyBinding,
}

impl DirectoryState {
    /// The descriptor, if one is still open.
    pub fn descriptor(&self) -> Option<Arc<OwnedFd>> {
        self.descriptor.lock().upgrade()
    }

    /// The header, if it was read.
    pub fn known_header(&self) -> Option<Arc<DirectoryHeader>> {
        self.header.lock().clone()
    }

    /// Keeps the directory's keys what they are for as long as the result lives. Recursive: a rename needs it of two
    /// directories, in any order.
    pub fn keep_binding(&self) -> RwLockReadGuard<'_, ()> {
        self.binding.read_recursive()
    }

    /// Remembers a descriptor for as long as somebody keeps it open.
    pub fn remember_descriptor(&self, descriptor: &Arc<OwnedFd>) {
        *self.descriptor.lock() = Arc::downgrade(descriptor);
    }
}

impl Inode {
    /// The directory's header, read on first need.
    pub fn header(&self, core: &Core) -> FsResult<Arc<DirectoryHeader>> {
        // Held meanwhile: a directory that heals must not heal twice, each time with another data key.
        let mut known = self.directory.header.lock();
        if let Some(header) = &*known {
            return Ok(Arc::clone(header));
        }
        let directory = self.descriptor(core)?;
        let header = match read_header(core, directory.as_fd()) {
            Err(FsError::Damaged(Damage::HeaderMissing)) if !core.read_only => {
                self.heal(core, directory.as_fd())?
            }
            read => read?,
        };
        let header = Arc::new(header);
        *self.key.lock() = Some(header.object.key());
        *known = Some(Arc::clone(&header));
        Ok(header)
    }

    /// Reads the directory's header once more, and checks that it is the one in use. Heals nothing.
    pub fn verify_header(&self, core: &Core) -> FsResult<()> {
        // Nobody binds the directory meanwhile, and nobody writes the header.
        let _bound = self.directory.keep_binding();
        let mut known = self.directory.header.lock();
        let directory = self.descriptor(core)?;
        let stored = read_header(core, directory.as_fd())?;
        match &*known {
            Some(known) => {
                let is_same = known.object.id() == stored.object.id()
                    && known.object.envelope() == stored.object.envelope()
                    && known.binding == stored.binding;
                if !is_same {
                    return Err(Damage::Authentication {
                        what: "the directory's header",
                    }
                    .into());
                }
            }
            None => {
                *self.key.lock() = Some(stored.object.key());
                *known = Some(Arc::new(stored));
            }
        }
        Ok(())
    }

    /// Gives an empty directory that lost its header a new one, bound as its parent is: nothing in it needs the old one.
    fn heal(&self, core: &Core, directory: BorrowedFd<'_>) -> FsResult<DirectoryHeader> {
        let parent = self.parent().ok_or(Damage::HeaderMissing)?;
        check_empty(core, directory, c".").map_err(|_| Damage::HeaderMissing)?;
        remove_if_there(core, directory, &own_name(DIRECTORY_FILE))?;
        let header = write_header(core, directory, &parent.header(core)?.binding)?;
        log::warn!("an empty directory had lost its header and got a new one");
        Ok(header)
    }

    /// Wraps the directory's data key anew, under the current material of the CMK that it is bound to; with `to`, binds it
    /// to that one first. One write of one sector: the header is the old one or the new one at every moment.
    pub fn rewrap_header(&self, core: &Core, to: Option<&KeyBinding>) -> FsResult<Rewrapped> {
        // Nobody binds it meanwhile, which would give it another data key.
        let _bound = self.directory.keep_binding();
        let read = self.header(core)?;
        let mut known = self.directory.header.lock();
        let old = known.clone().unwrap_or(read);
        let binding = to.unwrap_or(&old.binding);
        let from = WrappedUnder::of(old.object.envelope());
        let fresh = old.object.rewrapped(&core.ring, binding)?;
        if fresh.is_none() && *binding == old.binding {
            return Ok(Rewrapped::Already(from));
        }
        let object = fresh.unwrap_or_else(|| Arc::clone(&old.object));
        let directory = self.descriptor(core)?;
        let (_, stored) = read_state(core, directory.as_fd())?;
        let state = SealedState {
            epoch: stored.epoch + 1,
            binding: Some(binding.clone()),
            ..stored
        };
        let bytes = object.seal_header(&*object.keys(&core.ring)?, &state)?;
        let file = core
            .backing
            .open(&directory, &own_name(DIRECTORY_FILE), OFlags::WRONLY, 0)?;
        core.backing.write(&file, &bytes, 0)?;
        let to = WrappedUnder::of(object.envelope());
        *self.key.lock() = Some(to.key);
        *known = Some(Arc::new(DirectoryHeader {
            object,
            binding: binding.clone(),
        }));
        Ok(Rewrapped::Now { from, to })
    }

    /// Fails unless the directory's CMK may be used.
    pub fn check_key(&self, core: &Core) -> FsResult<()> {
        self.header(core)?.object.keys(&core.ring)?;
        Ok(())
    }

    /// The backing name of `name` in this directory.
    pub fn entry_name(&self, core: &Core, name: &OsStr) -> FsResult<EntryName> {
        if name.len() > NAME_MAX {
            return Err(Errno::NAMETOOLONG.into());
        }
        let header = self.header(core)?;
        let keys = header.object.keys(&core.ring)?;
        EntryName::seal(&keys, name)
    }
}

/// Reads and opens the header of the directory behind a descriptor.
fn read_header(core: &Core, directory: impl AsFd) -> FsResult<DirectoryHeader> {
    let (object, state) = read_state(core, directory)?;
    let binding = state.binding.ok_or(Damage::Authentication {
        what: "the directory's key binding",
    })?;
    Ok(DirectoryHeader { object, binding })
}

fn read_state(core: &Core, directory: impl AsFd) -> FsResult<(Arc<Object>, SealedState)> {
    let file = match core
        .backing
        .open(directory, &own_name(DIRECTORY_FILE), OFlags::RDONLY, 0)
    {
        Err(Errno::NOENT) => return Err(Damage::HeaderMissing.into()),
        opened => opened?,
    };
    let mut bytes = [0; HEADER_LEN + 1];
    let length = core.backing.read(&file, &mut bytes, 0)?;
    if bytes[..length].iter().all(|byte| *byte == 0) {
        // Its bytes never reached the disk; a filesystem may keep zeros in their place.
        return Err(Damage::HeaderMissing.into());
    }
    Object::open_header(&core.ring, ObjectKind::Directory, &bytes[..length])
}

/// Writes the header of a new directory into it, ahead of the directory's name: a name in a directory whose header did not
/// outlive a power cut could not be read any more, nor removed.
pub fn write_header(
    core: &Core,
    directory: impl AsFd,
    binding: &KeyBinding,
) -> FsResult<DirectoryHeader> {
    let (header, file) = write_header_at(core, directory, &own_name(DIRECTORY_FILE), binding)?;
    core.backing.write_back(file)?;
    Ok(header)
}

/// Where a header lies that is to take the place of a directory's own, or has made way for it.
pub fn header_aside() -> CString {
    own_name(&format!("{TEMPORARY_PREFIX}{DIRECTORY_FILE}"))
}

/// Writes a new header beside a directory's own, and puts it on the disk.
pub fn write_header_aside(
    core: &Core,
    directory: BorrowedFd<'_>,
    binding: &KeyBinding,
) -> FsResult<DirectoryHeader> {
    let aside = header_aside();
    let written = write_header_at(core, directory, &aside, binding)
        .and_then(|(header, file)| Ok(core.backing.sync(file, false).map(|()| header)?));
    if written.is_err() {
        let _ = core.backing.remove(directory, &aside);
    }
    written
}

/// Removes one of cmkfs's own files.
pub fn remove_if_there(core: &Core, directory: BorrowedFd<'_>, name: &CStr) -> FsResult<()> {
    match core.backing.remove(directory, name) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// What the header of the directory behind a descriptor says in the clear.
pub fn read_identity(core: &Core, directory: impl AsFd) -> Option<Identity> {
    let open = |flags| {
        core.backing
            .open(directory, &own_name(DIRECTORY_FILE), flags, 0)
    };
    identity_behind(core, ObjectKind::Directory, open(OFlags::RDONLY).ok()?)
}

/// What the header in a file says in the clear.
pub fn identity_behind(core: &Core, kind: ObjectKind, file: OwnedFd) -> Option<Identity> {
    let mut bytes = [0; HEADER_LEN];
    let read = core.backing.read(&file, &mut bytes, 0).ok()?;
    let header = Header::decode(kind, &bytes[..read]).ok()?;
    Some(Identity {
        object: header.object_id(),
        key: header.envelope().key_id(),
    })
}

fn write_header_at(
    core: &Core,
    directory: impl AsFd,
    name: &CStr,
    binding: &KeyBinding,
) -> FsResult<(DirectoryHeader, OwnedFd)> {
    let object = Object::create(&core.ring, ObjectKind::Directory, binding)?;
    let state = SealedState {
        size: 0,
        epoch: 1,
        sparse: false,
        dirty: false,
        binding: Some(binding.clone()),
    };
    let bytes = object.seal_header(&*object.keys(&core.ring)?, &state)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
    let file = core.backing.open(directory, name, flags, 0o600)?;
    core.backing.write(&file, &bytes, 0)?;
    let binding = binding.clone();
    Ok((DirectoryHeader { object, binding }, file))
}

impl DirectoryState {
    /// Takes over the header that was just written for a new directory.
    pub fn install_header(&self, header: DirectoryHeader) {
        self.header.lock().get_or_insert_with(|| Arc::new(header));
    }

    /// Takes over the header that has taken the place of the one before.
    pub fn replace_header(&self, header: DirectoryHeader) {
        *self.header.lock() = Some(Arc::new(header));
    }
}

/// The backing name of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryName {
    /// Where the object is.
    pub object: CString,
    /// For a long name: the file beside it, and the encrypted name that it holds.
    pub long: Option<LongName>,
}

/// The file that keeps a name too long for the backing directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LongName {
    /// Its name.
    pub file: CString,
    /// Its content.
    pub encrypted: Vec<u8>,
}

impl EntryName {
    fn seal(keys: &ObjectKeys, plain: &OsStr) -> FsResult<Self> {
        let encrypted = name::seal(keys, plain.as_bytes());
        let inline = names::to_text(&encrypted);
        if inline.len() <= BACKING_NAME_MAX {
            return Ok(Self {
                object: c_name(inline)?,
                long: None,
            });
        }
        let object = format!("{LONG_PREFIX}{}", names::to_text(&digest(&encrypted)));
        let file = c_name(format!("{object}{LONG_NAME_SUFFIX}"))?;
        Ok(Self {
            object: c_name(object)?,
            long: Some(LongName { file, encrypted }),
        })
    }

    /// Keeps the name of a long entry beside it, before the entry itself appears, and on the disk before anybody can ask
    /// for the entry to be there: nothing that is synced later would bring it along.
    pub fn write_long(&self, core: &Core, directory: impl AsFd) -> FsResult<()> {
        let Some(long) = &self.long else {
            return Ok(());
        };
        // The content follows from the name, so a file that is there already, of an entry or left behind, is the same;
        // but a process may have died before it was written whole.
        let file = core.backing.open(
            directory,
            &long.file,
            OFlags::WRONLY | OFlags::CREATE,
            0o600,
        )?;
        core.backing.write(&file, &long.encrypted, 0)?;
        Ok(core.backing.sync(&file, true)?)
    }

    /// Removes the kept name of a long entry that is gone. What cannot be removed does no harm.
    pub fn remove_long(&self, core: &Core, directory: impl AsFd) {
        if let Some(long) = &self.long {
            let _ = core.backing.remove(directory, &long.file);
        }
    }
}

/// As [`open_entry_name`], and checks that the name is stored as it would be stored anew.
pub fn verify_entry_name(
    core: &Core,
    directory: impl AsFd,
    keys: &ObjectKeys,
    object: &CStr,
) -> FsResult<Option<Vec<u8>>> {
    let Some(plain) = open_entry_name(core, || Ok(directory), keys, object)? else {
        return Ok(None);
    };
    if *EntryName::seal(keys, OsStr::from_bytes(&plain))?.object == *object {
        Ok(Some(plain))
    } else {
        Err(Damage::Authentication { what: "a name" }.into())
    }
}

/// Decrypts the name of an entry: `object` is its backing name. `directory` is asked for only where the name is too long to
/// stand there itself. `None` for what is cmkfs's own, or has gone meanwhile.
pub fn open_entry_name<D: AsFd>(
    core: &Core,
    directory: impl FnOnce() -> FsResult<D>,
    keys: &ObjectKeys,
    object: &CStr,
) -> FsResult<Option<Vec<u8>>> {
    let tampered = || FsError::from(Damage::Authentication { what: "a name" });
    match BackingName::classify(object.to_bytes()) {
        BackingName::Reserved | BackingName::Temporary => Ok(None),
        BackingName::Inline(text) => names::from_text(text)
            .and_then(|encrypted| name::open(keys, encrypted).ok())
            .map(Some)
            .ok_or_else(tampered),
        BackingName::Long => match read_long(core, directory()?, keys, object) {
            Err(error) if error.errno() == Errno::NOENT => Ok(None),
            opened => opened.map(Some),
        },
        BackingName::Foreign => Err(tampered()),
    }
}

fn read_long(
    core: &Core,
    directory: impl AsFd,
    keys: &ObjectKeys,
    object: &CStr,
) -> FsResult<Vec<u8>> {
    let mut file_name = object.to_bytes().to_vec();
    file_name.extend_from_slice(LONG_NAME_SUFFIX.as_bytes());
    let file = core
        .backing
        .open(directory, &c_name(file_name)?, OFlags::RDONLY, 0)?;
    let mut encrypted = vec![0; NAME_MAX + 17];
    let length = core.backing.read(&file, &mut encrypted, 0)?;
    encrypted.truncate(length);
    let expected = format!("{LONG_PREFIX}{}", names::to_text(&digest(&encrypted)));
    let swapped = FsError::from(Damage::Authentication {
        what: "a long name",
    });
    if expected.as_bytes() != object.to_bytes() {
        return Err(swapped);
    }
    name::open(keys, encrypted).map_err(|_| swapped)
}

/// Fails with ENOTEMPTY if the directory holds anything but cmkfs's own files.
pub fn check_empty(core: &Core, directory: BorrowedFd<'_>, name: &CStr) -> FsResult<()> {
    let listing = core
        .backing
        .open(directory, name, OFlags::RDONLY | OFlags::DIRECTORY, 0)?;
    for entry in rustix::fs::Dir::new(listing)? {
        match BackingName::classify(entry?.file_name().to_bytes()) {
            BackingName::Inline(_) | BackingName::Long => return Err(Errno::NOTEMPTY.into()),
            BackingName::Foreign | BackingName::Temporary | BackingName::Reserved => {}
        }
    }
    Ok(())
}

/// A name for something that is being made or removed: no two are alike.
pub fn temporary_name() -> CString {
    own_name(&format!(
        "{TEMPORARY_PREFIX}{}",
        names::to_text(ObjectId::random().as_bytes())
    ))
}

/// One of cmkfs's own names.
pub fn own_name(name: &str) -> CString {
    // Our own names are constants and base64url: no zero byte.
    CString::new(name).unwrap_or_default()
}

fn c_name(name: impl Into<Vec<u8>>) -> FsResult<CString> {
    CString::new(name).map_err(|_| Errno::INVAL.into())
}
