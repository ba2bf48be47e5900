//! Answers about open directories.

use std::time::Duration;

use rustix::io::Errno;

use super::service::{Answer, VALID};
use crate::fs::{DirectoryEntry, Fill, FsResult, HandleId, NodeId};

/// So long after a listing the kernel has an entry's attributes still, and for some time to come, unless it was opened or
/// closed meanwhile.
pub const LATELY: Duration = Duration::from_secs(VALID.as_secs() / 2);

/// How long the kernel may believe an entry of a listing with attributes.
#[must_use]
pub fn validity(entry: &DirectoryEntry<'_>) -> Duration {
    if entry.is_withdrawn {
        Duration::ZERO
    } else {
        VALID
    }
}

impl Answer<'_> {
    /// OPENDIR by this thread (0: unknown). The kernel is not to keep listings: one that it fills while names change can lack
    /// names that were there all the while, for whoever reads on from it.
    ///
    /// # Errors
    /// The errno to answer with.
    pub fn opendir(&self, thread: u32, node: NodeId) -> Result<HandleId, Errno> {
        if let Some(mark) = self.service.write_back.mark(thread) {
            return Ok(mark);
        }
        self.result(node, self.service.fs.open_directory(node))
    }

    /// READDIR: `receive` gets entry after entry from `offset` until it is full.
    ///
    /// # Errors
    /// The errno to answer with.
    pub fn readdir(
        &self,
        node: NodeId,
        handle: HandleId,
        offset: u64,
        receive: &mut dyn FnMut(&DirectoryEntry<'_>) -> Fill,
    ) -> Result<(), Errno> {
        let fs = &self.service.fs;
        self.list(node, receive, |receive| {
            fs.read_directory(handle, offset, receive)
        })
    }

    /// READDIRPLUS: the same, with attributes; without where the kernel was told them `lately` and need not hear them again:
    /// it would ask for each entry's ACLs again, too.
    ///
    /// # Errors
    /// The errno to answer with.
    pub fn readdirplus(
        &self,
        node: NodeId,
        handle: HandleId,
        offset: u64,
        lately: Duration,
        receive: &mut dyn FnMut(&DirectoryEntry<'_>) -> Fill,
    ) -> Result<(), Errno> {
        let fs = &self.service.fs;
        self.list(node, receive, |receive| {
            fs.read_directory_plus(handle, offset, lately, receive)
        })
    }

    fn list(
        &self,
        node: NodeId,
        receive: &mut dyn FnMut(&DirectoryEntry<'_>) -> Fill,
        list: impl FnOnce(&mut dyn FnMut(DirectoryEntry<'_>) -> Fill) -> FsResult<()>,
    ) -> Result<(), Errno> {
        let mut is_taken = false;
        let result = list(&mut |entry| {
            let fill = receive(&entry);
            is_taken |= fill == Fill::Taken;
            fill
        });
        match result {
            Err(error) if !is_taken => Err(self.errno(node, &error)),
            // Entries that were taken have to reach the kernel: with attributes they are lookups counted, which it would
            // never forget otherwise. The error comes again with the next request.
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// RELEASEDIR.
    pub fn releasedir(&self, handle: HandleId) {
        if !self.service.write_back.released(handle) {
            self.service.fs.release_directory(handle);
        }
    }

    /// FSYNCDIR.
    ///
    /// # Errors
    /// The errno to answer with.
    pub fn fsyncdir(&self, node: NodeId, handle: HandleId) -> Result<(), Errno> {
        self.result(node, self.service.fs.sync_directory(handle))
    }
}
