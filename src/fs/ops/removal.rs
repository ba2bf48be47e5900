//! Files that lose their last name: nobody recovers them after an unclean stop, so their journals have to go with them.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::fs::{OFlags, Stat};

use super::{FileSystem, kind_of};
use crate::format::envelope::ObjectKind;
use crate::format::header::{HEADER_LEN, Header};
use crate::fs::backing::At;
use crate::fs::file::OpenFile;
use crate::fs::inodes::BackingId;
use crate::fs::types::{FileKind, NodeId};
use crate::ids::ObjectId;

/// What may be left without a name, once one is taken away.
pub(super) enum Losing {
    /// Nothing that has a journal.
    Nothing,
    /// A file that is open, or waits to be sealed.
    Open(Arc<OpenFile>),
    /// A file that an earlier process may have left a journal of.
    Closed(OwnedFd, ObjectId),
}

impl FileSystem {
    /// Looks at what is about to lose the name at a place. What cannot be looked at keeps its journal, which does no harm.
    pub(super) fn losing(&self, stat: &Stat, at: At<'_>) -> Losing {
        let Some(journals) = &self.core.journals else {
            return Losing::Nothing;
        };
        if kind_of(stat) != FileKind::File || stat.st_nlink > 1 {
            return Losing::Nothing;
        }
        if let Some(inode) = self.inodes.find(BackingId::of(stat)) {
            let file = self.open_file(&inode);
            self.inodes.let_go(inode);
            if let Some(file) = file {
                return Losing::Open(file);
            }
        }
        let At::Name(directory, name) = at else {
            return Losing::Nothing;
        };
        if !journals.may_be_left() {
            return Losing::Nothing;
        }
        let backing = &self.core.backing;
        let mut bytes = [0; HEADER_LEN];
        let header = backing
            .open(directory, name, OFlags::RDONLY, 0)
            .and_then(|fd| Ok((backing.read(&fd, &mut bytes, 0)?, fd)));
        match header.map(|(read, fd)| (Header::decode(ObjectKind::File, &bytes[..read]), fd)) {
            Ok((Ok(header), fd)) => Losing::Closed(fd, header.object_id()),
            _ => Losing::Nothing,
        }
    }

    /// The name is gone. That it was the last is seen only now: another may have been made meanwhile.
    pub(super) fn lost(&self, losing: Losing) {
        match losing {
            Losing::Nothing => {}
            Losing::Open(file) => file.lose_name(&self.core),
            Losing::Closed(fd, object) => {
                let is_gone = self.core.backing.stat(At::Fd(fd.as_fd()));
                if let (Ok(0), Some(journals)) =
                    (is_gone.map(|stat| stat.st_nlink), &self.core.journals)
                {
                    journals.remove(&self.core.backing, object);
                }
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
        if !inode.is_forgotten() || inode.kind != FileKind::File {
            return;
        }
        let pin = inode.place.read().pin.clone();
        let stat = |pin: Arc<OwnedFd>| self.core.backing.stat(At::Fd(pin.as_fd())).ok();
        // It may have other names than the one it was known by.
        if pin.and_then(stat).is_none_or(|stat| stat.st_nlink > 0) {
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
}
