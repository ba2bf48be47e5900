//! Files that lose their last name: nobody recovers them after an unclean stop, so their journals have to go with them.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{OFlags, Stat};

use super::{FileSystem, kind_of};
use crate::format::envelope::ObjectKind;
use crate::format::header::{HEADER_LEN, Header};
use crate::fs::backing::At;
use crate::fs::inodes::{BackingId, Inode};
use crate::fs::types::{FileKind, NodeId};
use crate::ids::ObjectId;

/// A file that nobody has open, of which an earlier process may have left a journal, and that may be about to lose its last
/// name.
pub(super) struct Losing(OwnedFd, ObjectId);

impl FileSystem {
    /// Looks at what is about to lose the name at a place. What cannot be looked at keeps its journal, which does no harm.
    pub(super) fn losing(&self, stat: &Stat, at: At<'_>) -> Option<Losing> {
        let journals = self.core.journals.as_ref()?;
        let At::Name(directory, name) = at else {
            return None;
        };
        if kind_of(stat) != FileKind::File || stat.st_nlink > 1 || !journals.may_be_left() {
            return None;
        }
        if let Some(inode) = self.inodes.find(BackingId::of(stat)) {
            let is_open = self.open_file(&inode).is_some();
            self.inodes.let_go(inode);
            if is_open {
                return None;
            }
        }
        let backing = &self.core.backing;
        let fd = backing.open(directory, name, OFlags::RDONLY, 0).ok()?;
        let mut bytes = [0; HEADER_LEN];
        let read = backing.read(&fd, &mut bytes, 0).ok()?;
        let header = Header::decode(ObjectKind::File, &bytes[..read]).ok()?;
        let journal = journals.open(backing, header.object_id(), OFlags::PATH);
        journal.ok()?.map(|_| Losing(fd, header.object_id()))
    }

    /// The name is gone. That it was the last is seen only now: another may have been made meanwhile.
    pub(super) fn lost(&self, Losing(fd, object): Losing) {
        let stat = self.core.backing.stat(At::Fd(fd.as_fd()));
        if let (Ok(0), Some(journals)) = (stat.map(|stat| stat.st_nlink), &self.core.journals) {
            journals.doom(object);
        }
    }

    /// Removes journals of files that are not there any more, once that is on the disk.
    pub(super) fn remove_doomed_journals(&self) {
        let Some(journals) = &self.core.journals else {
            return;
        };
        let doomed = journals.take_doomed();
        if doomed.is_empty() {
            return;
        }
        let synced = self.sync_backing();
        for object in doomed {
            match synced {
                Ok(()) => journals.remove(&self.core.backing, object),
                Err(_) => journals.doom(object),
            }
        }
    }

    /// Gives up a file that waits for its seal, and that nobody can open any more: what it takes on the disk is free at
    /// once, not only after the wait. Called when the transport has forgotten it, and when its last handle was closed:
    /// either may come first.
    pub(super) fn give_up_removed(&self, node: NodeId) {
        let Ok(inode) = self.inodes.get(node) else {
            return;
        };
        if !inode.is_forgotten() || inode.kind != FileKind::File || !self.has_no_name(&inode) {
            return;
        }
        // Without the turn, which can take long: a seal that is under way goes to a file that nobody can open anew.
        if !self.sealer.take_back(node) {
            return;
        }
        {
            let mut slot = inode.file.lock();
            if slot.handles == 0
                && let Some(file) = slot.file.take()
            {
                file.discard(&self.core);
            }
        }
        self.inodes.let_go(inode);
    }

    /// No name leads to this inode: it has lost the last one, or never had one. One that is pinned may have other names
    /// than the one it was known by.
    pub(super) fn has_no_name(&self, inode: &Inode) -> bool {
        let pin = inode.place.read().pin.clone();
        let stat = |pin: Arc<OwnedFd>| self.core.backing.stat(At::Fd(pin.as_fd())).ok();
        pin.and_then(stat).is_some_and(|stat| stat.st_nlink == 0)
    }
}
