//! A CMK is withdrawn: its lease is revoked, and whoever serves this filesystem hears what to drop from its caches. While it
//! is withdrawn, objects are asked for their own CMK before anything is said about them.

use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::sync::Arc;

use rustix::fs::OFlags;

use super::FileSystem;
use crate::crypto::object::ObjectKeys;
use crate::format::envelope::ObjectKind;
use crate::format::header::{HEADER_LEN, Header};
use crate::fs::backing::At;
use crate::fs::directory::open_entry_name;
use crate::fs::error::FsResult;
use crate::fs::inodes::Inode;
use crate::fs::keys::KeyUnavailable;
use crate::fs::types::{FileKind, NodeId};
use crate::ids::KeyId;

/// What has to be dropped from the caches of whoever serves the filesystem, now that a CMK is withdrawn.
#[derive(Debug, Default)]
pub struct Withdrawn {
    /// How many data keys were wiped.
    pub data_keys: usize,
    /// Inodes whose plaintext may be cached by grace of this CMK: their own, and those in its directories. Where an inode's
    /// CMK is not known it counts. What is deeper in the tree comes first.
    pub nodes: Vec<NodeId>,
    /// Names that may be cached by grace of it: those in its directories.
    pub names: Vec<WithdrawnName>,
}

/// A name in a directory whose CMK is withdrawn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WithdrawnName {
    /// The directory.
    pub parent: NodeId,
    /// The name, decrypted for the last time.
    pub name: OsString,
    /// What it names.
    pub node: NodeId,
    /// It may be in use beyond this moment, by a handle or as a process's directory, and will be what it was when the CMK
    /// comes back.
    pub is_in_use: bool,
}

impl FileSystem {
    /// Revokes the lease of a CMK: waits for operations under way, wipes its data keys, refuses from now on.
    pub fn withdraw(&self, key: KeyId, why: KeyUnavailable) -> Withdrawn {
        let leases = self.leases();
        leases.close(key, why);
        // Nobody uses the keys any more, and nobody finds another name: now all names are known, and can still be read.
        let inodes = self.inodes.all();
        let names = self.names_under(key, &inodes);
        let data_keys = leases.wipe(key);
        Withdrawn {
            data_keys,
            nodes: nodes_under(key, &inodes),
            names,
        }
    }

    fn names_under(&self, key: KeyId, inodes: &[Arc<Inode>]) -> Vec<WithdrawnName> {
        let in_it =
            |inode: &&Arc<Inode>| inode.parent().is_some_and(|parent| is_under(&parent, key));
        let children = inodes.iter().filter(in_it);
        children.filter_map(|inode| self.name_of(inode)).collect()
    }

    /// The name by which an inode was found last, if its directory's data key is in memory, as it is where anything of it
    /// was looked up since its CMK came back last.
    fn name_of(&self, inode: &Inode) -> Option<WithdrawnName> {
        let (parent, stored) = {
            let place = inode.place.read();
            let parent = place.parent.clone().filter(|_| place.pin.is_none())?;
            (parent, place.name.clone())
        };
        let header = parent.directory.known_header()?;
        let directory = || parent.descriptor(&self.core);
        let open = |keys: &ObjectKeys| open_entry_name(&self.core, directory, keys, &stored);
        let name = header.object.with_closed_keys(open)?.ok().flatten()?;
        Some(WithdrawnName {
            parent: parent.node,
            name: OsString::from_vec(name),
            node: inode.node,
            is_in_use: inode.kind == FileKind::Directory || inode.file.lock().handles > 0,
        })
    }

    /// Fails if the CMK is withdrawn that guards an inode's attributes besides that of the directory it is in. A directory
    /// has none: what is to be seen of it from outside belongs to the directory above. Costs nothing while none is.
    pub(super) fn check_own_key(&self, inode: &Arc<Inode>) -> FsResult<()> {
        let leases = self.leases();
        if inode.kind == FileKind::Directory || !leases.any_revoked() {
            return Ok(());
        }
        match self.key_of(inode)? {
            Some(key) => Ok(leases.state(key)?),
            None => Ok(()),
        }
    }

    /// The CMK of an inode's data key; `None` where it has none. Damage is told when the object is opened, not here.
    fn key_of(&self, inode: &Arc<Inode>) -> FsResult<Option<KeyId>> {
        let known = *inode.key.lock();
        if known.is_some() {
            return Ok(known);
        }
        let found = match inode.kind {
            FileKind::Directory => Some(inode.header(&self.core)?.object.key()),
            FileKind::File => match self.open_file(inode) {
                Some(file) => return Ok(file.key()),
                None => self.stored_key(inode).ok().flatten(),
            },
            FileKind::Symlink => self
                .stored_link(inode)
                .ok()
                .map(|link| link.envelope.key_id()),
            FileKind::Fifo | FileKind::Socket | FileKind::CharDevice | FileKind::BlockDevice => {
                None
            }
        };
        // Unless whoever wrapped it anew meanwhile knows better.
        let mut known = inode.key.lock();
        *known = known.or(found);
        Ok(*known)
    }

    /// The CMK that the header of a closed file names, which nothing vouches for until the header is opened.
    fn stored_key(&self, inode: &Inode) -> FsResult<Option<KeyId>> {
        let backing = &self.core.backing;
        let file: OwnedFd = inode.at(&self.core, |at| match at {
            At::Name(directory, name) => backing.open(directory, name, OFlags::RDONLY, 0),
            At::Fd(fd) => backing.reopen(fd, OFlags::RDONLY),
        })?;
        let mut bytes = [0; HEADER_LEN];
        let length = backing.read(file.as_fd(), &mut bytes, 0)?;
        if length == 0 {
            return Ok(None);
        }
        let header = Header::decode(ObjectKind::File, &bytes[..length])?;
        Ok(Some(header.envelope().key_id()))
    }
}

fn is_under(inode: &Inode, key: KeyId) -> bool {
    *inode.key.lock() == Some(key)
}

/// Whether an inode's data key may be under a CMK. An open file is asked itself: it may be about to go over to this one.
fn may_be_under(inode: &Inode, key: KeyId) -> bool {
    let known = *inode.key.lock();
    let open = || inode.file.lock().file.clone();
    known.is_none_or(|known| known == key) || open().is_some_and(|file| file.may_be_under(key))
}

fn nodes_under(key: KeyId, inodes: &[Arc<Inode>]) -> Vec<NodeId> {
    let may_be = |inode: &Inode| may_be_under(inode, key);
    let counts =
        |inode: &&Arc<Inode>| may_be(inode) || inode.parent().is_some_and(|parent| may_be(&parent));
    let mut found: Vec<_> = inodes
        .iter()
        .filter(counts)
        .map(|inode| (depth(inode), inode.node))
        .collect();
    found.sort_unstable_by(|a, b| b.cmp(a));
    found.into_iter().map(|(_, node)| node).collect()
}

fn depth(inode: &Inode) -> usize {
    std::iter::successors(inode.parent(), |inode| inode.parent()).count()
}
