//! The history of a disk: what was on it, and every change that the backing calls made since, in their order. Objects get
//! numbers, because inode numbers are given again.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{CStr, CString, OsStr};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use cmkfs::fs::backing::{At, Call, Effect, Observer};
use rustix::fs::{AtFlags, FallocateFlags, RenameFlags, Stat};
use rustix::io::Errno;

/// A page of the kernel's cache: what a filesystem writes back as a whole.
pub const PAGE: usize = 4096;

/// An object of the disk; the root is 0.
pub type Id = usize;

/// A name in a directory.
pub type Dentry = (Id, CString);

/// What an object is, besides its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    File,
    Directory,
    Symlink(Vec<u8>),
}

/// A change, or a sync.
#[derive(Debug, Clone)]
pub enum Event {
    Make(Dentry, Id),
    Link(Dentry, Id),
    Remove(Dentry, Id),
    Rename {
        from: Dentry,
        to: Dentry,
        moved: Id,
        replaced: Option<Id>,
        exchange: bool,
    },
    Write(Id, u64, Arc<[u8]>),
    Resize(Id, u64),
    /// Whole pages, first and end.
    Punch(Id, u64, u64),
    Mode(Id, u32),
    Attribute(Id, CString, Option<Vec<u8>>),
    Sync(Id, bool),
    SyncAll,
}

/// An object as it was when the history began. One that was made later is empty.
#[derive(Debug, Clone)]
pub struct Object {
    pub kind: Kind,
    pub mode: u32,
    pub content: Arc<[u8]>,
    pub attributes: BTreeMap<CString, Vec<u8>>,
    pub entries: BTreeMap<CString, Id>,
}

#[derive(Debug, Default)]
pub struct History {
    pub objects: Vec<Object>,
    pub events: Vec<Event>,
    numbers: HashMap<(u64, u64), Id>,
    /// The names as they are now, and the modes.
    names: HashMap<Dentry, Id>,
    modes: HashMap<Id, u32>,
}

impl History {
    /// The number of the object behind an inode number of this disk.
    pub fn id(&self, node: u64) -> Option<Id> {
        let mut known = self.numbers.iter();
        known
            .find(|((_, inode), _)| *inode == node)
            .map(|(_, id)| *id)
    }

    /// Only the first so many events.
    pub fn first(&self, events: usize) -> Self {
        Self {
            objects: self.objects.clone(),
            events: self.events[..events].to_vec(),
            ..Self::default()
        }
    }

    fn read(&mut self, path: &Path) -> Id {
        let metadata = path.symlink_metadata().unwrap();
        let key = (metadata.dev(), metadata.ino());
        if let Some(id) = self.numbers.get(&key) {
            return *id;
        }
        let (kind, content) = if metadata.is_dir() {
            (Kind::Directory, Vec::new())
        } else if metadata.is_symlink() {
            let target = path.read_link().unwrap().into_os_string().into_vec();
            (Kind::Symlink(target), Vec::new())
        } else {
            (Kind::File, std::fs::read(path).unwrap())
        };
        let id = self.objects.len();
        let attributes = match &kind {
            Kind::Symlink(_) => BTreeMap::new(),
            _ => attributes_of(path),
        };
        let is_directory = kind == Kind::Directory;
        self.objects.push(Object {
            kind,
            mode: metadata.mode() & 0o7777,
            content: content.into(),
            attributes,
            entries: BTreeMap::new(),
        });
        self.numbers.insert(key, id);
        self.modes.insert(id, self.objects[id].mode);
        if is_directory {
            for entry in path.read_dir().unwrap() {
                let name = entry.unwrap().file_name();
                let child = self.read(&path.join(&name));
                let name = CString::new(name.into_vec()).unwrap();
                self.names.insert((id, name.clone()), child);
                self.objects[id].entries.insert(name, child);
            }
        }
        id
    }

    fn known(&self, stat: &Stat) -> Id {
        self.numbers[&(stat.st_dev, stat.st_ino)]
    }

    fn behind(&self, fd: BorrowedFd<'_>) -> Id {
        self.known(&rustix::fs::fstat(fd).unwrap())
    }

    fn at(&self, at: At<'_>) -> (Id, Stat) {
        let stat = match at {
            At::Name(directory, name) => stat_of(directory, name),
            At::Fd(fd) => rustix::fs::fstat(fd).unwrap(),
        };
        (self.known(&stat), stat)
    }

    fn dentry(&self, directory: BorrowedFd<'_>, name: &CStr) -> Dentry {
        (self.behind(directory), name.to_owned())
    }

    fn made(&mut self, directory: BorrowedFd<'_>, name: &CStr) {
        let dentry = self.dentry(directory, name);
        let stat = stat_of(directory, name);
        if self.names.contains_key(&dentry) {
            // Opened, not made.
            return;
        }
        let kind = match rustix::fs::FileType::from_raw_mode(stat.st_mode) {
            rustix::fs::FileType::Directory => Kind::Directory,
            rustix::fs::FileType::Symlink => {
                let target = rustix::fs::readlinkat(directory, name, Vec::new()).unwrap();
                Kind::Symlink(target.into_bytes())
            }
            rustix::fs::FileType::RegularFile => Kind::File,
            other => panic!("histories make no {other:?}"),
        };
        let id = self.new_object(&stat, kind);
        self.names.insert(dentry.clone(), id);
        self.events.push(Event::Make(dentry, id));
    }

    fn new_object(&mut self, stat: &Stat, kind: Kind) -> Id {
        let id = self.objects.len();
        self.objects.push(Object {
            kind,
            mode: stat.st_mode & 0o7777,
            content: Arc::new([]),
            attributes: BTreeMap::new(),
            entries: BTreeMap::new(),
        });
        self.numbers.insert((stat.st_dev, stat.st_ino), id);
        self.modes.insert(id, self.objects[id].mode);
        id
    }

    fn note(&mut self, effect: Effect<'_>) {
        let event = match effect {
            Effect::Made { directory, name } => return self.made(directory, name),
            // Not on the disk before it has a name.
            Effect::MadeUnnamed { file } => {
                self.new_object(&rustix::fs::fstat(file).unwrap(), Kind::File);
                return;
            }
            Effect::Linked { directory, name } => {
                let (dentry, id) = (
                    self.dentry(directory, name),
                    self.known(&stat_of(directory, name)),
                );
                self.names.insert(dentry.clone(), id);
                Event::Link(dentry, id)
            }
            Effect::Removed { directory, name } => {
                let dentry = self.dentry(directory, name);
                let id = self.names.remove(&dentry).expect("a known name");
                Event::Remove(dentry, id)
            }
            Effect::Renamed { from, to, flags } => {
                let (from, to) = (self.dentry(from.0, from.1), self.dentry(to.0, to.1));
                let exchange = flags.contains(RenameFlags::EXCHANGE);
                let moved = self.names.remove(&from).expect("a known name");
                let replaced = self.names.insert(to.clone(), moved);
                if let (true, Some(replaced)) = (exchange, replaced) {
                    self.names.insert(from.clone(), replaced);
                }
                Event::Rename {
                    from,
                    to,
                    moved,
                    replaced,
                    exchange,
                }
            }
            Effect::Wrote { file, offset, data } => {
                Event::Write(self.behind(file), offset, data.into())
            }
            Effect::Resized { file, length } => Event::Resize(self.behind(file), length),
            Effect::Allocated { file, flags, range } => {
                assert!(flags.contains(FallocateFlags::KEEP_SIZE));
                if !flags.contains(FallocateFlags::PUNCH_HOLE) {
                    // Space that is reserved reads as zeros, as before.
                    return;
                }
                let (first, end) = (range.0 / PAGE as u64, (range.0 + range.1) / PAGE as u64);
                assert_eq!((first * PAGE as u64, (end - first) * PAGE as u64), range);
                Event::Punch(self.behind(file), first, end)
            }
            Effect::Changed(at) => {
                let (id, stat) = self.at(at);
                let mode = stat.st_mode & 0o7777;
                if self.modes.insert(id, mode) == Some(mode) {
                    // The times are not looked at.
                    return;
                }
                Event::Mode(id, mode)
            }
            Effect::Attribute { at, name, value } => {
                Event::Attribute(self.at(at).0, name.to_owned(), value.map(<[u8]>::to_vec))
            }
            Effect::Synced { file, data_only } => Event::Sync(self.behind(file), data_only),
            Effect::SyncedAll => Event::SyncAll,
        };
        self.events.push(event);
    }
}

fn stat_of(directory: BorrowedFd<'_>, name: &CStr) -> Stat {
    rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW).unwrap()
}

fn attributes_of(path: &Path) -> BTreeMap<CString, Vec<u8>> {
    let mut names = vec![0; 65536];
    let length = rustix::fs::llistxattr(path, &mut names).unwrap();
    let names = names[..length].split(|byte| *byte == 0);
    let names = names.filter(|name| !name.is_empty());
    names
        .map(|name| {
            let mut value = vec![0; 65536];
            let length = rustix::fs::lgetxattr(path, OsStr::from_bytes(name), &mut value).unwrap();
            value.truncate(length);
            (CString::new(name).unwrap(), value)
        })
        .collect()
}

/// Keeps the history of the disk below a directory.
#[derive(Debug, Clone)]
pub struct Recorder(Arc<Mutex<History>>);

impl Recorder {
    /// What is below `root` now is on the disk.
    pub fn new(root: &Path) -> Self {
        let mut history = History::default();
        history.read(root);
        Self(Arc::new(Mutex::new(history)))
    }

    /// Something else than the backing calls put everything on the disk.
    pub fn synced_all(&self) {
        self.history().events.push(Event::SyncAll);
    }

    pub fn history(&self) -> MutexGuard<'_, History> {
        self.0.lock().unwrap()
    }
}

impl Observer for Recorder {
    fn before(&self, _: Call) -> Result<(), Errno> {
        Ok(())
    }

    fn done(&self, effect: Effect<'_>) {
        self.history().note(effect);
    }
}
