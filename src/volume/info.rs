//! What can be told of a volume without opening it: its census, and which of its directories are bound to which CMK.
//! Takes no lock and changes nothing, so it works while the volume is mounted; headers are read as they are at the moment.

use std::ffi::{CStr, CString, OsStr, OsString};
use std::ops::ControlFlow;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::census::{Census, Counter, Tally};
use super::walk::{self, Both, Found, Place, Visitor, read_header};
use super::{VolumeError, authenticate, check_store, read_volume_file};
use crate::crypto::object::ObjectKeys;
use crate::crypto::{header, name};
use crate::format::envelope::{EncryptionContext, ObjectKind};
use crate::format::header::KeyBinding;
use crate::format::names::{self, BackingName, DIRECTORY_FILE, LONG_NAME_SUFFIX, NAME_MAX};
use crate::ids::{KeyId, VolumeId};
use crate::kms::KmsError;
use crate::kms::service::KeyService;

/// A directory where another binding begins than that of the directory above it. The root is the first.
#[derive(Debug)]
pub struct Bound {
    /// Its path in the volume, `/` for the root, as far as its names can be read.
    pub path: Option<PathBuf>,
    /// Its path relative to the backing directory: encrypted names.
    pub backing_path: PathBuf,
    /// The CMK that wraps its own data key.
    pub key: KeyId,
    /// What it is bound to; or why that cannot be told, and neither of what lies under it and that key.
    pub binding: Result<KeyBinding, Refusal>,
}

/// Why a binding cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Its key is refused.
    #[error(transparent)]
    Key(#[from] KmsError),
    /// Its header is damaged.
    #[error("its header is damaged")]
    Damaged,
    /// It belongs to another key store.
    #[error("the volume belongs to another key store")]
    OtherStore,
}

/// What can be told of a volume.
#[derive(Debug)]
pub struct Info {
    /// What each key guards.
    pub census: Census,
    /// The bindings, the root's first.
    pub bindings: Vec<Bound>,
    /// Why the volume file could not be authenticated, where it was not.
    pub unauthenticated: Option<VolumeError>,
}

impl Info {
    /// Looks at the volume in `directory`. `progress` is told the sum of the census so far, with every object.
    ///
    /// # Errors
    /// [`VolumeError::NotAVolume`], a damaged volume file, or what the operating system says of the directory itself.
    /// Keys that are refused are no error.
    pub fn of(
        directory: &Path,
        keys: &KeyService,
        progress: &mut dyn FnMut(&Tally),
    ) -> Result<Self, VolumeError> {
        let volume = read_volume_file(directory)?;
        let is_ours = volume.key_store_id() == keys.store_id();
        let checked = check_store(&volume, directory, keys)
            .and_then(|()| authenticate(&volume, directory, keys));
        let unauthenticated = match checked {
            Err(error @ VolumeError::Damaged { .. }) => return Err(error),
            result => result.err(),
        };
        let mut counter = Counter::new(&volume, progress);
        let mut binder = Binder {
            keys: is_ours.then_some(keys),
            volume: volume.volume_id(),
            above: Vec::new(),
            found: Vec::new(),
        };
        walk::walk(directory, &mut Both(&mut counter, &mut binder))?;
        Ok(Self {
            census: counter.census,
            bindings: binder.found,
            unauthenticated,
        })
    }
}

/// A directory on the way down.
struct Above {
    /// Its plaintext path, if that can be read.
    path: Option<PathBuf>,
    /// Its keys and binding, if its key can be used; else the CMK that is refused.
    opened: Result<(ObjectKeys, KeyBinding), Option<KeyId>>,
}

struct Binder<'a> {
    keys: Option<&'a KeyService>,
    volume: VolumeId,
    above: Vec<Above>,
    found: Vec<Bound>,
}

impl Visitor for Binder<'_> {
    fn found(&mut self, place: &Place<'_>, found: &Found) -> ControlFlow<()> {
        let object = match found {
            Found::Object(object) if object.kind == ObjectKind::Directory => object,
            Found::UnreadDirectory(_) => {
                let path = self.path_of(place);
                self.above.push(Above {
                    path,
                    opened: Err(None),
                });
                return ControlFlow::Continue(());
            }
            _ => return ControlFlow::Continue(()),
        };
        let path = self.path_of(place);
        let key = object.envelope.key_id();
        let opened = self.open(place);
        let differs = match (self.above.last().map(|above| &above.opened), &opened) {
            (Some(Ok((_, above))), Ok((_, binding))) => above != binding,
            // A refused key is told of once, where its directories begin.
            (Some(Err(above)), Err(_)) => *above != Some(key),
            (Some(Ok(_) | Err(_)) | None, Ok(_) | Err(_)) => true,
        };
        let (binding, opened) = match opened {
            Ok((keys, binding)) => (Ok(binding.clone()), Ok((keys, binding))),
            Err(refusal) => (Err(refusal), Err(Some(key))),
        };
        if differs {
            self.found.push(Bound {
                path: path.clone(),
                backing_path: place.path.to_owned(),
                key,
                binding,
            });
        }
        self.above.push(Above { path, opened });
        ControlFlow::Continue(())
    }

    fn left(&mut self, _: &Place<'_>) -> ControlFlow<()> {
        self.above.pop();
        ControlFlow::Continue(())
    }
}

impl Binder<'_> {
    fn open(&self, place: &Place<'_>) -> Result<(ObjectKeys, KeyBinding), Refusal> {
        let keys = self.keys.ok_or(Refusal::OtherStore)?;
        let path = joined(place.name, &format!("/{DIRECTORY_FILE}"));
        // Read anew, because a walk keeps no more than the envelope.
        let header = read_header(place.parent, &path, ObjectKind::Directory)
            .ok()
            .flatten()
            .ok_or(Refusal::Damaged)?;
        let context = EncryptionContext {
            volume: self.volume,
            object: header.object_id(),
            kind: ObjectKind::Directory,
        };
        let data_key = keys.decrypt_data_key(header.envelope(), &context)?;
        let object = ObjectKeys::new(&data_key, ObjectKind::Directory);
        let state = header::open(&object, &header).map_err(|_| Refusal::Damaged)?;
        Ok((object, state.binding.ok_or(Refusal::Damaged)?))
    }

    /// The plaintext path of a directory.
    fn path_of(&self, place: &Place<'_>) -> Option<PathBuf> {
        let Some(above) = self.above.last() else {
            return Some(PathBuf::from("/"));
        };
        let (path, (keys, _)) = (above.path.as_ref()?, above.opened.as_ref().ok()?);
        Some(path.join(plain_name(place, keys)?))
    }
}

fn plain_name(place: &Place<'_>, keys: &ObjectKeys) -> Option<OsString> {
    let encrypted = match BackingName::classify(place.name.to_bytes()) {
        BackingName::Inline(text) => names::from_text(text)?,
        BackingName::Long => read_long(place.parent, place.name)?,
        BackingName::Temporary | BackingName::Reserved | BackingName::Foreign => return None,
    };
    Some(OsString::from_vec(name::open(keys, encrypted).ok()?))
}

fn read_long(parent: BorrowedFd<'_>, object: &CStr) -> Option<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = joined(object, LONG_NAME_SUFFIX);
    let file = rustix::fs::openat(parent, &file, flags, Mode::empty()).ok()?;
    let mut encrypted = vec![0; NAME_MAX + 17];
    let read = rustix::io::pread(&file, &mut encrypted, 0).ok()?;
    encrypted.truncate(read);
    Some(encrypted)
}

fn joined(name: &CStr, suffix: &str) -> CString {
    let mut path = OsStr::from_bytes(name.to_bytes()).to_owned();
    path.push(suffix);
    // A CStr and our own constants have no zero byte inside.
    CString::new(path.into_vec()).unwrap_or_default()
}
