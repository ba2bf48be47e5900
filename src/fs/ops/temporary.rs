//! Files that are made without a name (`O_TMPFILE`, open(2)). One has a data key of its own under what its directory is bound
//! to, and is reached by a descriptor, as a file that was removed while open. It goes with its last handle, unless
//! [`FileSystem::link`] has given it a name; a process that dies takes it along: the backing directory never knew of it.

use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::fs::OFlags;

use super::FileSystem;
use crate::fs::backing::At;
use crate::fs::error::FsResult;
use crate::fs::inodes::Inode;
use crate::fs::types::{Attributes, Caller, FileKind, NewMode, NodeId, OpenFlags, Opened};
use crate::sys::identity;

impl FileSystem {
    /// Makes a file in a directory without giving it a name there, opens it, and counts one lookup. Owner, mode and ACLs are
    /// those of a file that is created there.
    ///
    /// # Errors
    /// EOPNOTSUPP where the backing filesystem has no such files, and what else open(2) says; the directory's key refused.
    pub fn create_temporary(
        &self,
        caller: Caller,
        parent: NodeId,
        mode: NewMode,
        flags: OpenFlags,
    ) -> FsResult<(Attributes, Opened)> {
        self.core.writable()?;
        let parent = self.inodes.get(parent)?;
        // Until it is known: whoever binds the directory looks for files like this one.
        let _bound = parent.directory.keep_binding();
        parent.check_key(&self.core)?;
        let directory = parent.descriptor(&self.core)?;
        identity::assume(caller.uid, caller.gid);
        let _tree = self.tree.read();
        let backing = &self.core.backing;
        let created = backing.open_unnamed(&directory, self.permissions_in(&parent, mode))?;
        let pin = backing.reopen(created.as_fd(), OFlags::PATH)?;
        let stat = backing.stat(At::Fd(pin.as_fd()))?;
        let inode = self.inodes.look_up_unnamed(&stat, &parent, pin);
        if let Err(error) = self.check_found(&parent, &inode) {
            self.inodes.release(inode);
            return Err(error);
        }
        let attributes = self.attributes_of(inode.node, FileKind::File, &stat, 0);
        Ok((attributes, self.open_created(inode, created, flags)))
    }

    /// Somebody has a file that was made in this directory without a name, and may yet give it one.
    pub(super) fn has_unnamed(&self, directory: &Arc<Inode>) -> bool {
        let is_there = |inode: &Arc<Inode>| {
            let is_in_it = {
                let place = inode.place.read();
                let parent = place.parent.as_ref().filter(|_| place.is_unnamed());
                parent.is_some_and(|parent| Arc::ptr_eq(parent, directory))
            };
            // One that was forgotten and closed is about to go.
            is_in_it && !(inode.is_forgotten() && inode.file.lock().handles == 0)
        };
        self.inodes.all().iter().any(is_there)
    }
}
