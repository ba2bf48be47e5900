//! The inodes that the transport knows: where each is found in the backing directory, and what is open of it.
//!
//! An inode stays in the table while the transport remembers it, something of it is open, or a child's place names it.
//! Its number is the backing object's own where that is possible, so that it is the same after a remount; a backing
//! object that loses its last name, or was made without one, is pinned by a descriptor, so that its number is not given to another meanwhile. An
//! inode whose backing object is replaced by another keeps its number for as long as it is known, and so do its handles
//! and what the kernel has cached of it.
//!
//! Lock order: table shard → an inode's `file`, or `lingering`, or `renumbered`; `place` (of several inodes: by ascending node) → a parent's `place` → nothing.

use std::collections::{HashMap, HashSet};
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::sync::{Mutex, RwLock};
use rustix::fs::{OFlags, Stat};
use rustix::io::Errno;

use super::backing::At;
use super::core::Core;
use super::directory::DirectoryState;
use super::error::FsResult;
use super::file::{FileSlot, OpenFile};
use super::types::{FileKind, NodeId, ROOT_NODE};
use crate::ids::KeyId;

/// Names an object of the backing filesystem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BackingId {
    /// Device.
    pub device: u64,
    /// Inode number on it.
    pub number: u64,
}

impl BackingId {
    /// The object that a stat speaks of.
    pub fn of(stat: &Stat) -> Self {
        Self {
            device: stat.st_dev,
            number: stat.st_ino,
        }
    }
}

/// Where a backing object is found.
#[derive(Debug)]
pub struct Place {
    /// The directory; `None` for the root.
    pub parent: Option<Arc<Inode>>,
    /// The name in it, as it stands in the backing directory.
    pub name: CString,
    /// Set while there is no such name, not yet or not any more: the object itself. Of what never had a name, `name` is empty.
    pub pin: Option<Arc<OwnedFd>>,
}

impl Place {
    /// What is found here never had a name, and may get one.
    pub fn is_unnamed(&self) -> bool {
        self.pin.is_some() && self.parent.is_some() && self.name.is_empty()
    }
}

/// Whether a directory has a default ACL.
#[derive(Debug, Default)]
pub struct DefaultAcl(AtomicU8);

impl DefaultAcl {
    /// What is known, or what `ask` finds out.
    pub fn get(&self, ask: impl FnOnce() -> bool) -> bool {
        match self.0.load(Ordering::Acquire) {
            1 => false,
            2 => true,
            _ => {
                let present = ask();
                self.0.store(1 + u8::from(present), Ordering::Release);
                present
            }
        }
    }

    /// Forgets what is known: the ACL was changed.
    pub fn forget(&self) {
        self.0.store(0, Ordering::Release);
    }
}

/// An inode.
#[derive(Debug)]
pub struct Inode {
    /// The number the transport and the user see.
    pub node: NodeId,
    /// The backing object; another one once it has been replaced.
    backing: Mutex<BackingId>,
    /// What it is.
    pub kind: FileKind,
    /// Where it is found.
    pub place: RwLock<Place>,
    /// Directories: descriptor, keys and binding, once needed.
    pub directory: DirectoryState,
    /// Files: what is shared by all that have it open.
    pub file: Mutex<FileSlot>,
    /// The CMK of its data key, once known.
    pub key: Mutex<Option<KeyId>>,
    lookups: AtomicU64,
    /// When a listing last told its attributes, in milliseconds since the table was made and one more; 0: none has since it
    /// was opened or closed last, which makes the transport ask for some of them.
    listed: AtomicU64,
}

impl Inode {
    /// Runs `call` on the place of this inode, which does not change meanwhile.
    pub fn at<T>(&self, core: &Core, call: impl FnOnce(At<'_>) -> Result<T, Errno>) -> FsResult<T> {
        let place = self.place.read();
        match (&place.pin, &place.parent) {
            (Some(pin), _) => Ok(call(At::Fd(pin.as_fd()))?),
            (None, Some(parent)) => {
                let directory = parent.descriptor(core)?;
                Ok(call(At::Name(directory.as_fd(), &place.name))?)
            }
            (None, None) => Err(Errno::STALE.into()),
        }
    }

    /// A directory's descriptor (O_PATH), opened anew where it was given up.
    pub fn descriptor(&self, core: &Core) -> FsResult<Arc<OwnedFd>> {
        if let Some(open) = self.directory.descriptor() {
            return Ok(open);
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let opened = self.at(core, |at| match at {
            At::Name(directory, name) => core.backing.open(directory, name, flags, 0),
            At::Fd(fd) => core.backing.reopen(fd, flags),
        })?;
        let opened = Arc::new(opened);
        self.directory.remember_descriptor(&opened);
        core.descriptors.keep(Arc::clone(&opened));
        Ok(opened)
    }

    /// It is opened or closed.
    pub fn forget_listing(&self) {
        self.listed.store(0, Ordering::Relaxed);
    }

    /// Notes the CMK of its open file, which may change: so it is asked with the note in hand.
    pub fn note_key(&self, file: &OpenFile) {
        let mut key = self.key.lock();
        *key = file.key();
    }

    /// The backing object.
    pub fn backing(&self) -> BackingId {
        *self.backing.lock()
    }

    /// The transport does not remember it.
    pub fn is_forgotten(&self) -> bool {
        self.lookups.load(Ordering::Relaxed) == 0
    }

    /// The directory this is found in.
    pub fn parent(&self) -> Option<Arc<Inode>> {
        self.place.read().parent.clone()
    }
}

const SHARDS: usize = 64;

/// Objects that are not known by their own number.
#[derive(Debug, Default)]
struct Renumbered {
    /// They lie on another device, have the number of the root or one that is taken, or took another's place.
    numbers: HashMap<BackingId, NodeId>,
    /// Numbers that belong to whoever took the place of the object that had them.
    taken: HashSet<NodeId>,
}

/// All inodes the transport knows.
#[derive(Debug)]
pub struct Inodes {
    start: Instant,
    root: Arc<Inode>,
    root_backing: BackingId,
    shards: Vec<Mutex<HashMap<NodeId, Arc<Inode>>>>,
    renumbered: Mutex<Renumbered>,
    /// An object that could be known by its own number is or was known by another: from then on a number is not had
    /// without a lock.
    any_replaced: AtomicBool,
    next_foreign: AtomicU64,
    /// Forgotten by the transport while somebody was still at work with them.
    lingering: Mutex<HashSet<NodeId>>,
}

impl Inodes {
    /// A table that knows the root.
    pub fn new(root: OwnedFd, stat: &Stat) -> Self {
        let root = Arc::new(root);
        let directory = DirectoryState::default();
        directory.remember_descriptor(&root);
        let inode = Arc::new(Inode {
            node: ROOT_NODE,
            backing: Mutex::new(BackingId::of(stat)),
            kind: FileKind::Directory,
            place: RwLock::new(Place {
                parent: None,
                name: CString::default(),
                pin: Some(root),
            }),
            directory,
            file: Mutex::default(),
            key: Mutex::default(),
            lookups: AtomicU64::new(1),
            listed: AtomicU64::new(0),
        });
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self {
            start: Instant::now(),
            root: inode,
            root_backing: BackingId::of(stat),
            shards,
            renumbered: Mutex::default(),
            any_replaced: AtomicBool::new(false),
            next_foreign: AtomicU64::new(1 << 63),
            lingering: Mutex::default(),
        }
    }

    /// The root directory.
    pub const fn root(&self) -> &Arc<Inode> {
        &self.root
    }

    /// The inode of a number the transport was given.
    pub fn get(&self, node: NodeId) -> FsResult<Arc<Inode>> {
        if node == ROOT_NODE {
            return Ok(Arc::clone(&self.root));
        }
        self.shard(node)
            .lock()
            .get(&node)
            .cloned()
            .ok_or_else(|| Errno::STALE.into())
    }

    /// As [`Inodes::get`], and counts one lookup.
    pub fn hold(&self, node: NodeId) -> FsResult<Arc<Inode>> {
        if node == ROOT_NODE {
            return Ok(Arc::clone(&self.root));
        }
        let shard = self.shard(node).lock();
        let inode = shard.get(&node).ok_or(Errno::STALE)?;
        inode.lookups.fetch_add(1, Ordering::Relaxed);
        Ok(Arc::clone(inode))
    }

    /// The inode of a backing object, if the transport knows it.
    pub fn find(&self, backing: BackingId) -> Option<Arc<Inode>> {
        let node = self.known_number(backing)?;
        self.get(node).ok()
    }

    /// The number under which the transport sees a backing object.
    pub fn number(&self, backing: BackingId) -> NodeId {
        self.known_number(backing).unwrap_or_else(|| {
            let mut renumbered = self.renumbered.lock();
            *renumbered
                .numbers
                .entry(backing)
                .or_insert_with(|| self.next_foreign.fetch_add(1, Ordering::Relaxed))
        })
    }

    /// Finds or makes the inode of a backing object that was just seen at `name` in `parent`, and counts one lookup.
    pub fn look_up(
        &self,
        stat: &Stat,
        kind: FileKind,
        parent: &Arc<Inode>,
        name: CString,
    ) -> Arc<Inode> {
        let place = Place {
            parent: Some(Arc::clone(parent)),
            name,
            pin: None,
        };
        self.look_up_at(stat, kind, place)
    }

    /// Makes the inode of a file that was made in `parent` without a name, and counts one lookup.
    pub fn look_up_unnamed(&self, stat: &Stat, parent: &Arc<Inode>, pin: OwnedFd) -> Arc<Inode> {
        let place = Place {
            parent: Some(Arc::clone(parent)),
            name: CString::default(),
            pin: Some(Arc::new(pin)),
        };
        self.look_up_at(stat, FileKind::File, place)
    }

    fn look_up_at(&self, stat: &Stat, kind: FileKind, new: Place) -> Arc<Inode> {
        let backing = BackingId::of(stat);
        let known = loop {
            let node = self.number(backing);
            if node == ROOT_NODE {
                return Arc::clone(&self.root);
            }
            let mut shard = self.shard(node).lock();
            // The number may have been given up meanwhile, together with its inode.
            if self.known_number(backing) != Some(node) {
                continue;
            }
            break if let Some(inode) = shard.get(&node) {
                inode.lookups.fetch_add(1, Ordering::Relaxed);
                Arc::clone(inode)
            } else {
                let inode = Arc::new(Inode {
                    node,
                    backing: Mutex::new(backing),
                    kind,
                    place: RwLock::new(new),
                    directory: DirectoryState::default(),
                    file: Mutex::default(),
                    key: Mutex::default(),
                    lookups: AtomicU64::new(1),
                    listed: AtomicU64::new(0),
                });
                shard.insert(node, Arc::clone(&inode));
                return inode;
            };
        };
        let moved = {
            let place = known.place.read();
            let parents = (&place.parent, &new.parent);
            place.pin.is_some()
                || new.pin.is_some()
                || place.name != new.name
                || !matches!(parents, (Some(old), Some(new)) if Arc::ptr_eq(old, new))
        };
        if moved {
            // Dropped outside the lock: letting go of the old parent may take other locks.
            let old = std::mem::replace(&mut *known.place.write(), new);
            drop(old);
        }
        known
    }

    /// A listing has told the transport the attributes of an inode, with a lookup counted.
    pub fn was_listed(&self, node: NodeId) {
        if let Some(inode) = self.shard(node).lock().get(&node) {
            inode.listed.store(self.now(), Ordering::Relaxed);
        }
    }

    /// Whether a listing has done so less than `lately` ago.
    pub fn is_listed(&self, inode: &Inode, lately: Duration) -> bool {
        let listed = inode.listed.load(Ordering::Relaxed);
        let ago = Duration::from_millis(self.now().saturating_sub(listed));
        listed != 0 && ago < lately
    }

    /// Never 0.
    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis())
            .map_or(u64::MAX, |now| now.saturating_add(1))
    }

    /// The transport forgets `lookups` of the lookups it was answered.
    pub fn forget(&self, node: NodeId, lookups: u64) {
        if node == ROOT_NODE {
            return;
        }
        let forgotten = {
            let shard = self.shard(node).lock();
            shard.get(&node).map(|inode| {
                // Never below zero, whatever the transport says.
                let left = |count: u64| Some(count.saturating_sub(lookups));
                let _ = inode
                    .lookups
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, left);
                Arc::clone(inode)
            })
        };
        if let Some(inode) = forgotten {
            self.let_go(inode);
        }
    }

    /// Gives up what [`Inodes::hold`] or [`Inodes::look_up`] gave.
    pub fn release(&self, inode: Arc<Inode>) {
        if inode.node != ROOT_NODE {
            inode.lookups.fetch_sub(1, Ordering::Relaxed);
            self.let_go(inode);
        }
    }

    /// Gives up a reference to an inode: it leaves the table when nobody else needs it, and its parents likewise.
    pub fn let_go(&self, inode: Arc<Inode>) {
        let mut inode = inode;
        loop {
            if inode.node == ROOT_NODE {
                return;
            }
            let parent = {
                let mut shard = self.shard(inode.node).lock();
                // Two: the table's and ours. New references come from the table (whose lock is held), or are copies.
                if inode.lookups.load(Ordering::Relaxed) > 0 {
                    return;
                }
                if Arc::strong_count(&inode) > 2 {
                    // The other may be about to give it up too, having seen us: neither would take it out.
                    self.lingering.lock().insert(inode.node);
                    return;
                }
                if !inode.file.lock().is_empty() {
                    return;
                }
                shard.remove(&inode.node);
                // With the shard held: an object is at no moment known by two numbers.
                self.forget_number(&inode);
                drop(shard);
                inode.parent()
            };
            drop(inode);
            match parent {
                Some(parent) => inode = parent,
                None => return,
            }
        }
    }

    /// Lets go of what somebody was at work with when it was last tried. Called every few seconds.
    pub fn let_go_of_lingering(&self) {
        let lingering = std::mem::take(&mut *self.lingering.lock());
        for node in lingering {
            if let Ok(inode) = self.get(node) {
                self.let_go(inode);
            }
        }
    }

    /// Makes the table smaller where most of it is empty. Says whether that was so.
    pub fn shrink(&self) -> bool {
        let mut shrunk = false;
        for shard in &self.shards {
            let mut shard = shard.lock();
            if shard.capacity() > 64 && shard.len() < shard.capacity() / 4 {
                let enough = 2 * shard.len();
                shard.shrink_to(enough);
                shrunk = true;
            }
        }
        shrunk
    }

    /// Every inode, the root included.
    pub fn all(&self) -> Vec<Arc<Inode>> {
        let mut all = vec![Arc::clone(&self.root)];
        for shard in &self.shards {
            all.extend(shard.lock().values().cloned());
        }
        all
    }

    /// How many there are, the root included.
    pub fn count(&self) -> u64 {
        let counts = self.shards.iter().map(|shard| shard.lock().len() as u64);
        1 + counts.sum::<u64>()
    }

    /// Another backing object takes the place of an inode's, which keeps its number. The caller sees to it that nobody
    /// looks either of the two up meanwhile.
    pub fn replace_backing(&self, inode: &Inode, new: BackingId) {
        let mut renumbered = self.renumbered.lock();
        self.any_replaced.store(true, Ordering::Release);
        let old = std::mem::replace(&mut *inode.backing.lock(), new);
        renumbered.numbers.remove(&old);
        renumbered.numbers.insert(new, inode.node);
        renumbered.taken.insert(inode.node);
    }

    fn forget_number(&self, inode: &Inode) {
        let backing = inode.backing();
        if self.own_number(backing).is_none() || self.any_replaced.load(Ordering::Acquire) {
            let mut renumbered = self.renumbered.lock();
            renumbered.numbers.remove(&backing);
            renumbered.taken.remove(&inode.node);
        }
    }

    /// The backing object's own number, where it can be used.
    fn own_number(&self, backing: BackingId) -> Option<NodeId> {
        let usable = backing.device == self.root_backing.device
            && backing.number > ROOT_NODE
            && backing.number >> 63 == 0;
        usable.then_some(backing.number)
    }

    fn known_number(&self, backing: BackingId) -> Option<NodeId> {
        if backing == self.root_backing {
            return Some(ROOT_NODE);
        }
        let own = self.own_number(backing);
        if own.is_some() && !self.any_replaced.load(Ordering::Acquire) {
            return own;
        }
        let renumbered = self.renumbered.lock();
        let other = renumbered.numbers.get(&backing).copied();
        other.or(own.filter(|own| !renumbered.taken.contains(own)))
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "only the low bits choose the shard"
    )]
    fn shard(&self, node: NodeId) -> &Mutex<HashMap<NodeId, Arc<Inode>>> {
        &self.shards[node as usize % SHARDS]
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::{Mode, fstat, open};

    use super::*;

    #[test]
    fn an_inode_that_was_in_use_when_it_was_forgotten_leaves_the_table_later() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), "").unwrap();
        let descriptor = |path: &std::path::Path| open(path, OFlags::PATH, Mode::empty()).unwrap();
        let root = descriptor(dir.path());
        let root_stat = fstat(&root).unwrap();
        let inodes = Inodes::new(root, &root_stat);
        let stat = fstat(descriptor(&dir.path().join("a"))).unwrap();
        let found = inodes.look_up(&stat, FileKind::File, inodes.root(), c"a".to_owned());
        inodes.forget(found.node, 1);
        inodes.let_go_of_lingering();
        assert!(inodes.find(found.backing()).is_some());
        let backing = found.backing();
        drop(found);
        inodes.let_go_of_lingering();
        assert!(inodes.find(backing).is_none());
    }
}
