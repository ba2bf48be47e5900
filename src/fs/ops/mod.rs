//! One method a filesystem operation, by subject: [`namespace`] names · [`rename`] · [`attributes`] · [`files`] open
//! files · [`temporary`] files without a name · [`listing`] directories · [`binding`] directories to CMKs · [`links`] symlinks · [`xattrs`] ·
//! [`sealing`] what happens in the background · [`withdraw`] keys that are withdrawn ·
//! [`walk`] going through all objects · [`rewrap`] wrapping data keys anew · [`rekey`] new data keys · [`replace`] one
//! backing object in the place of another · [`verify`] what is stored · [`repair`] what heals without guessing.

mod attributes;
mod binding;
mod files;
mod handles;
mod links;
mod listing;
mod namespace;
mod rekey;
mod removal;
mod rename;
mod repair;
mod replace;
mod rewrap;
mod sealing;
mod temporary;
mod verify;
mod walk;
mod withdraw;
mod xattrs;

pub use repair::SideFiles;
pub use verify::{Listed, Listing};
pub use walk::{Entry, Maintenance};

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::sync::{Mutex, RwLock};
use rustix::fs::{FileType, OFlags, Stat};

use self::handles::Handles;
use self::sealing::Sealer;
pub use self::withdraw::{Withdrawn, WithdrawnName};
use super::backing::{At, Backing};
use super::core::{Core, RecentDescriptors};
use super::directory::own_name;
use super::error::FsResult;
use super::file::{OpenFile, backing_length, looks_blank};
use super::inodes::{Inode, Inodes};
use super::journals::Journals;
use super::keys::KeyPort;
use super::lease::Leases;
use super::object::KeyRing;
use super::settings::{Overwrites, Settings};
use super::types::{Attributes, Figures, FileKind, FileTime, NodeId};
use crate::format::header::KeyBinding;
use crate::format::layout;
use crate::format::names::DIRECTORY_FILE;
use crate::format::symlink::Stored;
use crate::ids::VolumeId;

/// A mounted volume.
#[derive(Debug)]
pub struct FileSystem {
    core: Core,
    inodes: Inodes,
    files: Handles<files::FileHandle>,
    directories: Handles<listing::DirectoryHandle>,
    sealer: Sealer,
    /// Shared by whoever works on objects by their names, from the first look to the last; held alone by who puts one
    /// backing object in the place of another, or takes up an object that the kernel has not asked for: the kernel's own
    /// locks keep only its own requests apart.
    tree: RwLock<()>,
    /// Held by the one rewrap or rekey that may be under way.
    maintenance: Mutex<()>,
    /// Names that objects got since a walk began; `None` while there is none.
    new_names: Mutex<Option<walk::NewNames>>,
    settings: Settings,
}

impl FileSystem {
    /// Opens the volume whose backing directory `root` is. The caller has authenticated the volume file and holds the
    /// volume's lock.
    ///
    /// # Errors
    /// Where the root directory cannot be read, its header is damaged, or its key may not be used.
    pub fn attach(
        root: OwnedFd,
        volume: VolumeId,
        port: Arc<dyn KeyPort>,
        backing: Backing,
        settings: Settings,
    ) -> FsResult<Self> {
        let stat = backing.stat(At::Fd(root.as_fd()))?;
        let journals = match settings.overwrites {
            Overwrites::Journaled => Some(Journals::new(
                backing.reopen(root.as_fd(), OFlags::RDONLY | OFlags::DIRECTORY)?,
            )),
            Overwrites::InPlace => None,
        };
        let core = Core {
            backing,
            journals,
            volatile: settings.volatile,
            ring: KeyRing {
                volume,
                port,
                leases: Leases::default(),
            },
            read_only: settings.read_only,
            descriptors: RecentDescriptors::new(settings.spare_descriptors / 2),
        };
        if let (false, Some(journals)) = (core.read_only, &core.journals) {
            journals.look(&core.backing)?;
        }
        let inodes = Inodes::new(root, &stat);
        inodes.root().check_key(&core)?;
        Ok(Self {
            core,
            inodes,
            files: Handles::default(),
            directories: Handles::default(),
            sealer: Sealer::default(),
            tree: RwLock::default(),
            maintenance: Mutex::default(),
            new_names: Mutex::default(),
            settings,
        })
    }

    /// Makes the root directory of a new volume: its header, with the key binding that everything inherits.
    ///
    /// # Errors
    /// Where the header cannot be written, or the key may not be used.
    pub fn make_root(
        root: &OwnedFd,
        volume: VolumeId,
        port: Arc<dyn KeyPort>,
        binding: &KeyBinding,
    ) -> FsResult<()> {
        let core = Core {
            backing: Backing::default(),
            journals: None,
            volatile: false,
            ring: KeyRing {
                volume,
                port,
                leases: Leases::default(),
            },
            read_only: false,
            descriptors: RecentDescriptors::new(0),
        };
        super::directory::write_header(&core, root, binding)?;
        let header = core
            .backing
            .open(root, &own_name(DIRECTORY_FILE), OFlags::RDONLY, 0)?;
        core.backing.sync(&header, false)?;
        Ok(core.backing.sync(root, false)?)
    }

    /// The volume.
    #[must_use]
    pub const fn volume_id(&self) -> VolumeId {
        self.core.ring.volume
    }

    /// Nothing may change.
    #[must_use]
    pub const fn read_only(&self) -> bool {
        self.core.read_only
    }

    /// The leases of the CMKs in use.
    #[must_use]
    pub const fn leases(&self) -> &Leases {
        &self.core.ring.leases
    }

    /// The key service.
    #[must_use]
    pub fn keys(&self) -> &dyn KeyPort {
        &*self.core.ring.port
    }

    /// What there is of it in memory.
    #[must_use]
    pub fn figures(&self) -> Figures {
        Figures {
            inodes: self.inodes.count(),
            open_files: self.files.count(),
            open_directories: self.directories.count(),
        }
    }

    /// Where an inode lies in the backing directory, for messages: encrypted names only.
    #[must_use]
    pub fn backing_path(&self, node: NodeId) -> PathBuf {
        let mut names = Vec::new();
        let mut next = self.inodes.get(node).ok();
        while let Some(inode) = next {
            let place = inode.place.read();
            names.push(place.name.to_string_lossy().into_owned());
            next = place.parent.clone();
        }
        names.iter().rev().collect()
    }

    /// Attributes of a backing object that was just looked at.
    fn attributes_of(&self, node: NodeId, kind: FileKind, stat: &Stat, size: u64) -> Attributes {
        let time = |seconds, nanoseconds| FileTime {
            seconds,
            nanoseconds,
        };
        Attributes {
            node,
            size,
            blocks: u64::try_from(stat.st_blocks).unwrap_or(0),
            atime: time(stat.st_atime, stat.st_atime_nsec as _),
            mtime: time(stat.st_mtime, stat.st_mtime_nsec as _),
            ctime: time(stat.st_ctime, stat.st_ctime_nsec as _),
            kind,
            permissions: (stat.st_mode & 0o7777) as u16,
            links: u32::try_from(stat.st_nlink).unwrap_or(u32::MAX),
            uid: stat.st_uid,
            gid: stat.st_gid,
            device: u32::try_from(stat.st_rdev).unwrap_or(0),
        }
    }

    /// Plaintext size of the object at a place.
    fn size_at(&self, kind: FileKind, stat: &Stat, at: At<'_>) -> FsResult<u64> {
        Ok(match kind {
            FileKind::File if looks_blank(&self.core, stat, at) => 0,
            FileKind::File => layout::plaintext_size(backing_length(stat)),
            FileKind::Symlink => match Stored::target_length(backing_length(stat)) {
                Some(length) => length,
                None => match Stored::from_text(self.core.backing.read_link(at)?.to_bytes()) {
                    Ok(Stored::Side { length, .. }) => length.into(),
                    Ok(Stored::Inline(record)) => record.ciphertext.len() as u64,
                    // Reading it will say what is wrong. Until then it can be listed, and removed.
                    Err(_) => 0,
                },
            },
            FileKind::Directory
            | FileKind::Fifo
            | FileKind::Socket
            | FileKind::CharDevice
            | FileKind::BlockDevice => backing_length(stat),
        })
    }

    /// The key binding that governs an inode: its directory's.
    fn binding_over(&self, inode: &Inode) -> FsResult<KeyBinding> {
        let parent = inode
            .parent()
            .unwrap_or_else(|| Arc::clone(self.inodes.root()));
        Ok(parent.header(&self.core)?.binding.clone())
    }

    /// Makes durable the headers of all directories above. What is synced below can then be read after a power cut.
    fn sync_ancestors(&self, inode: &Arc<Inode>) -> FsResult<()> {
        let mut next = Some(Arc::clone(inode));
        if self.core.read_only {
            return Ok(());
        }
        // A directory that was made needs its entry in the one above on the disk as well.
        let mut made_below = false;
        while let Some(directory) = next {
            let made = !directory.directory.synced.load(Ordering::Acquire);
            let backing = &self.core.backing;
            if made || made_below {
                let fd = directory.descriptor(&self.core)?;
                if made {
                    backing.sync(
                        backing.open(&fd, &own_name(DIRECTORY_FILE), OFlags::RDONLY, 0)?,
                        false,
                    )?;
                }
                backing.sync(
                    backing.reopen(fd.as_fd(), OFlags::RDONLY | OFlags::DIRECTORY)?,
                    false,
                )?;
                directory.directory.synced.store(true, Ordering::Release);
            }
            made_below = made;
            next = directory.parent();
        }
        Ok(())
    }

    fn open_file(&self, inode: &Inode) -> Option<Arc<OpenFile>> {
        inode.file.lock().file.clone()
    }
}

/// What a backing object is.
fn kind_of(stat: &Stat) -> FileKind {
    kind_of_type(FileType::from_raw_mode(stat.st_mode)).unwrap_or(FileKind::File)
}

/// The same, by what a listing says; `None` where it does not.
const fn kind_of_type(file_type: FileType) -> Option<FileKind> {
    Some(match file_type {
        FileType::RegularFile => FileKind::File,
        FileType::Directory => FileKind::Directory,
        FileType::Symlink => FileKind::Symlink,
        FileType::Fifo => FileKind::Fifo,
        FileType::Socket => FileKind::Socket,
        FileType::CharacterDevice => FileKind::CharDevice,
        FileType::BlockDevice => FileKind::BlockDevice,
        FileType::Unknown => return None,
    })
}
