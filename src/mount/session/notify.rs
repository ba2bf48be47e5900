//! Notifications to the kernel: what it has to drop or ask for anew. Written by hand, because fuser 0.18 lacks two of them.
//! Facts: FUSE protocol 7.45 (`include/uapi/linux/fuse.h`) and `fs/fuse/dev.c`.
//!
//! Never sent by a request's handler or under a lock, [`Notifier::attributes`] and [`Notifier::nudge`] excepted: the kernel may
//! have to wait for an answer of ours.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;

use rustix::io::Errno;

use crate::fs::NodeId;

const INVAL_INODE: i32 = 2;
const INVAL_ENTRY: i32 = 3;
const RETRIEVE: i32 = 5;
const PRUNE: i32 = 9;
const HEADER_LEN: usize = 16;
/// Since Linux 6.2; before, it was ignored, and the entry is dropped.
const EXPIRE_ONLY: u32 = 1;
/// As an offset: the attributes only, no page.
const ATTRIBUTES_ONLY: i64 = -1;
/// The kernel's own numbers of requests are below.
const OURS: u64 = 1 << 63;
/// Node ids in one notification.
const PRUNED_AT_ONCE: usize = 512;

/// Tells the kernel over the descriptor of the session.
#[derive(Debug, Clone)]
pub struct Notifier(Arc<OwnedFd>);

impl Notifier {
    /// Over a descriptor of `/dev/fuse` that is mounted.
    pub(super) fn new(device: OwnedFd) -> Self {
        Self(Arc::new(device))
    }

    /// Drops the pages and attributes of an inode, also of one that is open or mapped; dirty pages are written first. Says
    /// whether the kernel knew the inode.
    ///
    /// # Errors
    /// Where the kernel could not drop everything.
    pub fn inode(&self, node: NodeId) -> io::Result<bool> {
        self.inval_inode(node, 0)
    }

    /// Drops the attributes of an inode. This waits for nothing.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn attributes(&self, node: NodeId) -> io::Result<bool> {
        self.inval_inode(node, ATTRIBUTES_ONLY)
    }

    /// Drops a name. What is open or mounted under it stays, or goes, as if it had been removed.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn entry(&self, parent: NodeId, name: &OsStr) -> io::Result<bool> {
        self.inval_entry(parent, name, 0)
    }

    /// Makes the kernel ask for a name anew before it is used again.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn expire(&self, parent: NodeId, name: &OsStr) -> io::Result<bool> {
        self.inval_entry(parent, name, EXPIRE_ONLY)
    }

    /// Makes the kernel forget names of these inodes that nobody uses, and with its last name an inode and all that is
    /// cached of it: those of directories after those in them, so the deepest come first. By far the fastest way: one call
    /// for many.
    ///
    /// # Errors
    /// Kernels before 6.18 do not know how.
    pub fn prune(&self, nodes: &[NodeId]) -> io::Result<()> {
        for nodes in nodes.chunks(PRUNED_AT_ONCE) {
            let mut body = Vec::with_capacity(16 + nodes.len() * 8);
            body.extend((nodes.len() as u32).to_ne_bytes());
            body.extend([0; 12]);
            body.extend(nodes.iter().flat_map(|node| node.to_ne_bytes()));
            self.send(PRUNE, &body)?;
        }
        Ok(())
    }

    /// Has the kernel make a request that asks nothing, NOTIFY_REPLY, on the processor of the caller: no page is wanted, of a
    /// regular file. `number` tells those from each other that are not answered yet. Says whether the kernel knew the file.
    /// This waits for no answer.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn nudge(&self, node: NodeId, number: u64) -> io::Result<bool> {
        let mut body = Vec::with_capacity(32);
        // Odd numbers stand for interrupts.
        body.extend((OURS + 2 * number).to_ne_bytes());
        body.extend(node.to_ne_bytes());
        // Offset, length, padding.
        body.extend([0; 16]);
        self.send(RETRIEVE, &body)
    }

    fn inval_inode(&self, node: NodeId, offset: i64) -> io::Result<bool> {
        let mut body = Vec::with_capacity(24);
        body.extend(node.to_ne_bytes());
        body.extend(offset.to_ne_bytes());
        // To the end.
        body.extend(0_i64.to_ne_bytes());
        self.send(INVAL_INODE, &body)
    }

    fn inval_entry(&self, parent: NodeId, name: &OsStr, flags: u32) -> io::Result<bool> {
        let mut body = Vec::with_capacity(17 + name.len());
        body.extend(parent.to_ne_bytes());
        body.extend((name.len() as u32).to_ne_bytes());
        body.extend(flags.to_ne_bytes());
        body.extend(name.as_bytes());
        body.push(0);
        self.send(INVAL_ENTRY, &body)
    }

    fn send(&self, code: i32, body: &[u8]) -> io::Result<bool> {
        let length = HEADER_LEN + body.len();
        let mut message = Vec::with_capacity(length);
        message.extend((length as u32).to_ne_bytes());
        message.extend(code.to_ne_bytes());
        // Answers no request.
        message.extend(0_u64.to_ne_bytes());
        message.extend(body);
        match rustix::io::retry_on_intr(|| rustix::io::write(self.0.as_fd(), &message)) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}
