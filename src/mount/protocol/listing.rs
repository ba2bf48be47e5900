//! A directory's entries, written one after another into the caller's buffer (`fuse_dirent`, `fuse_direntplus`): each begins
//! at a multiple of 8 bytes, and is there as a whole or not at all.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use zerocopy::IntoBytes;

use crate::fs::{FileKind, NodeId};

use super::reply::{EntryOut, type_bits};
use super::wire::Dirent;

/// Entries begin at multiples of this.
const ALIGNMENT: usize = 8;
/// What readdir(3) shows as the type is a mode's type, so many bits to the right.
const TYPE_SHIFT: u32 = 12;

/// A listing that grows in a buffer of the size the kernel asked for.
#[derive(Debug)]
pub struct Listing<'b> {
    buffer: &'b mut [u8],
    used: usize,
}

impl<'b> Listing<'b> {
    /// Nothing in it yet.
    #[must_use]
    pub fn new(buffer: &'b mut [u8]) -> Self {
        Self { buffer, used: 0 }
    }

    /// Adds an entry; `false` where there is no room for it. `next_offset` is where the listing goes on after it.
    pub fn entry(&mut self, node: NodeId, next_offset: u64, kind: FileKind, name: &OsStr) -> bool {
        self.put(&[], node, next_offset, kind, name)
    }

    /// Adds an entry that is looked up at the same time; `false` where there is no room for it. `node` is the inode number
    /// that readdir(3) shows, which `entry` does not have where the name alone is to be taken.
    pub fn entry_plus(
        &mut self,
        entry: &EntryOut,
        node: NodeId,
        next_offset: u64,
        kind: FileKind,
        name: &OsStr,
    ) -> bool {
        self.put(entry.as_bytes(), node, next_offset, kind, name)
    }

    /// Bytes of the entries.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.used
    }

    /// Without any entry.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.used == 0
    }

    fn put(
        &mut self,
        before: &[u8],
        node: NodeId,
        next_offset: u64,
        kind: FileKind,
        name: &OsStr,
    ) -> bool {
        let name = name.as_bytes();
        let Ok(namelen) = u32::try_from(name.len()) else {
            return false;
        };
        let entry = Dirent {
            ino: node,
            off: next_offset,
            namelen,
            kind: type_bits(kind) >> TYPE_SHIFT,
        };
        let parts = [before, entry.as_bytes(), name];
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let end = self.used + length.next_multiple_of(ALIGNMENT);
        let Some(mut room) = self.buffer.get_mut(self.used..end) else {
            return false;
        };
        for part in parts {
            // The room was measured by the same parts.
            let Some((here, rest)) = room.split_at_mut_checked(part.len()) else {
                return false;
            };
            here.copy_from_slice(part);
            room = rest;
        }
        room.fill(0);
        self.used = end;
        true
    }
}

#[cfg(test)]
#[path = "listing_tests.rs"]
mod tests;
