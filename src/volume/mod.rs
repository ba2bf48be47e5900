//! Volumes: makes one in a directory, opens one with its key directory and its lock. Joins the filesystem and the key
//! service, which do not know of each other, through the port `fs::keys`.
//!
//! [`open`](fn@open) · [`create`](fn@create) · [`lock`] one writer a volume · [`keys`] the key service as the port ·
//! [`walk`] every object, without a key · [`census`] what each key guards ·
//! [`radius`] what goes with a key · [`probe`] whether a key still unwraps ·
//! [`info`] which directory is bound to which · [`purge`] removing what no key can open, by its [`fate`] ·
//! [`sweep`] every object of an open volume · [`rewrap`] under another CMK or material · [`rekey`] new data keys ·
//! [`verify`](mod@verify) whether all that is stored is as it was written.

pub mod census;
mod error;
pub mod fate;
pub mod info;
pub mod keys;
pub mod lock;
pub mod probe;
pub mod purge;
pub mod radius;
pub mod rekey;
pub mod rewrap;
pub mod sweep;
pub mod verify;
pub mod walk;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use error::VolumeError;
use keys::ServicePort;
use lock::VolumeLock;

use crate::crypto::header::{seal_volume, verify_volume};
use crate::crypto::object::ObjectKeys;
use crate::format::envelope::{EncryptionContext, ObjectKind};
use crate::format::names::{DIRECTORY_FILE, VOLUME_FILE};
use crate::format::volume::{VOLUME_LEN, VolumeFile};
use crate::fs::FileSystem;
use crate::fs::backing::Backing;
use crate::fs::keys::KeyPort;
use crate::fs::settings::{Overwrites, Settings};
use crate::ids::{ObjectId, VolumeId};
use crate::kms::key::KeyRef;
use crate::kms::service::KeyService;

/// How a volume is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// By one process alone.
    ReadWrite,
    /// By any number that only read.
    ReadOnly,
}

/// A volume that is open: the filesystem, and the lock that is held for as long as it lives.
#[derive(Debug)]
pub struct Volume {
    /// The filesystem.
    pub filesystem: FileSystem,
    /// Where its encrypted files lie, as it was opened.
    pub directory: PathBuf,
    _lock: VolumeLock,
}

impl std::ops::Deref for Volume {
    type Target = FileSystem;

    fn deref(&self) -> &FileSystem {
        &self.filesystem
    }
}

/// Whether a volume lies in `directory`.
///
/// # Errors
/// [`VolumeError::Io`] where the directory cannot be looked at.
pub fn exists(directory: &Path) -> Result<bool, VolumeError> {
    let path = directory.join(VOLUME_FILE);
    path.try_exists().map_err(VolumeError::io("look at", path))
}

/// Makes a volume in an empty directory, which is made where it is missing. Everything in it will be wrapped under `key`
/// unless a directory is bound to another.
///
/// # Errors
/// [`VolumeError::NotEmpty`]; the key refused; what the operating system says.
pub fn create(
    directory: &Path,
    keys: &Arc<KeyService>,
    key: &KeyRef,
) -> Result<VolumeId, VolumeError> {
    create_with(directory, keys, key, Overwrites::default())
}

/// As [`create`], with a say in how blocks are overwritten.
///
/// # Errors
/// As [`create`].
pub fn create_with(
    directory: &Path,
    keys: &Arc<KeyService>,
    key: &KeyRef,
    overwrites: Overwrites,
) -> Result<VolumeId, VolumeError> {
    let mut builder = std::fs::DirBuilder::new();
    builder
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(VolumeError::io("make", directory))?;
    let root = open_root(directory)?;
    let mut entries = std::fs::read_dir(directory).map_err(VolumeError::io("list", directory))?;
    // The header of a root whose volume file never came: a process died while it made the volume.
    let leftover =
        |name: &std::ffi::OsStr| name == DIRECTORY_FILE || name == temporary_volume_file().as_str();
    if entries.any(|entry| entry.map_or(true, |entry| !leftover(&entry.file_name()))) {
        return Err(VolumeError::NotEmpty {
            path: directory.to_owned(),
        });
    }
    for name in [DIRECTORY_FILE.to_owned(), temporary_volume_file()] {
        let path = directory.join(name);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(VolumeError::io("remove", path)(error));
            }
            _ => {}
        }
    }
    let volume = VolumeId::random();
    let port = Arc::new(ServicePort::new(Arc::clone(keys)));
    let context = volume_context(volume);
    let (data_key, envelope) = keys.generate_data_key(key, &context)?;
    FileSystem::make_root(&root, volume, port, &keys::binding_of(key)).map_err(|source| {
        VolumeError::Filesystem {
            path: directory.to_owned(),
            source,
        }
    })?;
    let file = seal_volume(
        &ObjectKeys::new(&data_key, ObjectKind::Volume),
        volume,
        keys.store_id(),
        overwrites.features(),
        envelope,
    );
    // Last, and whole: with this file the directory is a volume.
    write_volume_file(directory, &file)?;
    Ok(volume)
}

fn temporary_volume_file() -> String {
    format!("{}{VOLUME_FILE}", crate::format::names::TEMPORARY_PREFIX)
}

fn write_volume_file(directory: &Path, file: &VolumeFile) -> Result<(), VolumeError> {
    let aside = directory.join(temporary_volume_file());
    let path = directory.join(VOLUME_FILE);
    let write = || {
        let mut options = std::fs::OpenOptions::new();
        let mut opened = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&aside)?;
        opened.write_all(&file.encode())?;
        opened.sync_all()?;
        std::fs::rename(&aside, &path)?;
        File::open(directory)?.sync_all()
    };
    write().map_err(VolumeError::io("write", path.clone()))
}

/// Opens the volume in `directory`: takes its lock, checks that it belongs to this key directory, authenticates its
/// volume file.
///
/// # Errors
/// [`VolumeError::NotAVolume`], [`VolumeError::InUse`], [`VolumeError::WrongKeyStore`], damage; the key refused.
pub fn open(
    directory: &Path,
    keys: &Arc<KeyService>,
    access: Access,
) -> Result<Volume, VolumeError> {
    let port = Arc::new(ServicePort::new(Arc::clone(keys)));
    let backing = Backing::default();
    open_on(directory, keys, port, access, backing, lies_in_memory)
}

/// Whether what is in this directory does not outlive a power cut.
fn lies_in_memory(directory: &OwnedFd) -> rustix::io::Result<bool> {
    const IN_MEMORY: [u64; 2] = [0x0102_1994, 0x8584_58F6]; // tmpfs, ramfs: statfs(2)
    Ok(IN_MEMORY.contains(&(rustix::fs::fstatfs(directory)?.f_type as u64)))
}

fn open_root(directory: &Path) -> Result<OwnedFd, VolumeError> {
    let root = File::open(directory).map_err(VolumeError::io("open", directory))?;
    Ok(root.into())
}

/// As [`open`](fn@open), with the backing calls and the port of the caller's choice, and as on a disk wherever the volume is.
///
/// # Errors
/// As [`open`](fn@open).
pub fn open_observed(
    directory: &Path,
    keys: &Arc<KeyService>,
    port: Arc<dyn KeyPort>,
    access: Access,
    backing: Backing,
) -> Result<Volume, VolumeError> {
    open_on(directory, keys, port, access, backing, |_| Ok(false))
}

/// As [`open_observed`], and as in memory wherever the volume is.
///
/// # Errors
/// As [`open`](fn@open).
pub fn open_observed_in_memory(
    directory: &Path,
    keys: &Arc<KeyService>,
    port: Arc<dyn KeyPort>,
    access: Access,
    backing: Backing,
) -> Result<Volume, VolumeError> {
    open_on(directory, keys, port, access, backing, |_| Ok(true))
}

fn open_on(
    directory: &Path,
    keys: &Arc<KeyService>,
    port: Arc<dyn KeyPort>,
    access: Access,
    backing: Backing,
    is_volatile: impl FnOnce(&OwnedFd) -> rustix::io::Result<bool>,
) -> Result<Volume, VolumeError> {
    let file = open_volume_file(directory)?;
    let lock = VolumeLock::take(&file, directory, access)?;
    let header = decode_volume_file(&file, directory)?;
    check_store(&header, directory, keys)?;
    authenticate(&header, directory, keys)?;
    let root = open_root(directory)?;
    let volatile =
        is_volatile(&root).map_err(|errno| VolumeError::io("look at", directory)(errno.into()))?;
    if access == Access::ReadWrite {
        // What a daemon that was killed had written may not be on the disk yet, and nobody knows what. From here on it is.
        rustix::fs::syncfs(&root)
            .map_err(|errno| VolumeError::io("sync", directory)(errno.into()))?;
    }
    let settings = Settings::new(
        access == Access::ReadOnly,
        Overwrites::of(header.features()),
        volatile,
    );
    let filesystem = FileSystem::attach(root, header.volume_id(), port, backing, settings)
        .map_err(|source| VolumeError::Filesystem {
            path: directory.to_owned(),
            source,
        })?;
    Ok(Volume {
        filesystem,
        directory: directory.to_owned(),
        _lock: lock,
    })
}

/// Reads the volume file of `directory`, without any lock. Nobody has authenticated it.
///
/// # Errors
/// [`VolumeError::NotAVolume`], [`VolumeError::Damaged`], what the operating system says.
pub fn read_volume_file(directory: &Path) -> Result<VolumeFile, VolumeError> {
    decode_volume_file(&open_volume_file(directory)?, directory)
}

fn open_volume_file(directory: &Path) -> Result<File, VolumeError> {
    let path = directory.join(VOLUME_FILE);
    match regular(&path, false) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(VolumeError::NotAVolume {
                path: directory.to_owned(),
            })
        }
        opened => opened.map_err(VolumeError::io("open", path)),
    }
}

/// Opens a file of ours in a place that others may have written to: neither what a symlink leads to, nor a pipe that keeps
/// whoever opens it waiting.
fn regular(path: &Path, write: bool) -> std::io::Result<File> {
    let opened = std::fs::OpenOptions::new()
        .read(true)
        .write(write)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)?;
    if opened.metadata()?.is_file() {
        Ok(opened)
    } else {
        Err(std::io::Error::other("it is not a regular file"))
    }
}

/// The volume file of `directory`, where there is one that can be read. Nobody has authenticated it.
#[must_use]
pub fn glance(directory: &Path) -> Option<VolumeFile> {
    decode_volume_file(&open_volume_file(directory).ok()?, directory).ok()
}

fn decode_volume_file(file: &File, directory: &Path) -> Result<VolumeFile, VolumeError> {
    let path = directory.join(VOLUME_FILE);
    let mut bytes = Vec::with_capacity(VOLUME_LEN + 1);
    file.take(VOLUME_LEN as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(VolumeError::io("read", &path))?;
    VolumeFile::decode(&bytes).map_err(|error| VolumeError::Damaged {
        path,
        why: error.to_string(),
    })
}

/// Checks that a volume was made with this key directory.
fn check_store(
    header: &VolumeFile,
    directory: &Path,
    keys: &KeyService,
) -> Result<(), VolumeError> {
    if header.key_store_id() == keys.store_id() {
        return Ok(());
    }
    Err(VolumeError::WrongKeyStore {
        path: directory.to_owned(),
        expected: header.key_store_id(),
        found: keys.store_id(),
        keys: keys.dir().to_owned(),
    })
}

/// Checks a volume file under the volume key.
fn authenticate(
    header: &VolumeFile,
    directory: &Path,
    keys: &KeyService,
) -> Result<(), VolumeError> {
    let context = volume_context(header.volume_id());
    let data_key = keys.decrypt_data_key(header.envelope(), &context)?;
    verify_volume(&ObjectKeys::new(&data_key, ObjectKind::Volume), header).map_err(|_| {
        VolumeError::Damaged {
            path: directory.join(VOLUME_FILE),
            why: "it was changed outside of cmkfs".to_owned(),
        }
    })
}

/// The encryption context of a volume key.
fn volume_context(volume: VolumeId) -> EncryptionContext {
    EncryptionContext {
        volume,
        object: ObjectId(volume.0),
        kind: ObjectKind::Volume,
    }
}
