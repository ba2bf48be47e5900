//! Overwriting blocks that may be on the disk already: recorded in the journal; where there is no room for that, in their
//! places, slots on the disk first.

use std::sync::Arc;

use rustix::io::Errno;

use super::journal::Journal;
use super::write::Patch;
use super::{Inner, OpenFile, scratch};
use crate::crypto::object::ObjectKeys;
use crate::format::layout::{self, BLOCK_LEN, GROUP_BLOCKS, PAGE};
use crate::format::slot::{Entry, SLOT_LEN, SLOTS_LEN};
use crate::fs::core::Core;
use crate::fs::error::FsResult;

impl OpenFile {
    /// Overwrites blocks by way of the journal.
    pub(super) fn overwrite_pass(
        &self,
        core: &Core,
        inner: &mut Inner,
        keys: &ObjectKeys,
        offset: u64,
        data: &[u8],
    ) -> FsResult<()> {
        self.tidy_tail(core, inner, keys)?;
        if !inner.is_changing(false) {
            let state = inner.changing(false);
            self.store_header(core, inner, state)?;
        }
        let end = offset + data.len() as u64;
        let (old_size, new_size) = (inner.size, inner.size.max(end));
        let blocks = offset / PAGE..layout::block_count(end);
        scratch::with_pages((blocks.end - blocks.start) as usize, |sealed| {
            let mut entries = Vec::with_capacity((blocks.end - blocks.start) as usize);
            let patch = Patch {
                offset,
                data,
                old_size,
                new_size,
            };
            for (out, index) in sealed.chunks_exact_mut(BLOCK_LEN).zip(blocks.clone()) {
                entries.push(self.seal_patched(core, inner, keys, index, &patch, out)?);
            }
            if new_size > old_size {
                // The last block grows. Until it is in its place, the rest of it there are zeros: written, so that there is
                // room for it, on a backing filesystem of smaller blocks as well.
                inner.placed += 1;
                let old_end = layout::backing_length(old_size);
                let length = (layout::backing_length(new_size) - old_end) as usize;
                core.backing
                    .write(&inner.fd, &[0; BLOCK_LEN][..length], old_end)?;
                inner.size = new_size;
            }
            let length = (new_size.min(blocks.end * PAGE) - blocks.start * PAGE) as usize;
            self.overwrite(core, inner, keys, blocks.start, &entries, &sealed[..length])
        })?;
        inner.changes += 1;
        Ok(())
    }

    /// Overwrites blocks that may be on the disk already, from `first` on, at most [`BLOCKS_MAX`]. `sealed` holds them one
    /// after the other; only the last may be shorter than 4096 bytes. Where this fails they are as they were.
    pub(super) fn overwrite(
        &self,
        core: &Core,
        inner: &mut Inner,
        keys: &ObjectKeys,
        first: u64,
        entries: &[Entry],
        sealed: &[u8],
    ) -> FsResult<()> {
        let full = inner
            .journal
            .as_ref()
            .is_some_and(|journal| journal.is_full(sealed.len()));
        if full {
            self.checkpoint(core, inner)?;
        }
        let mut recorded = self.record(core, inner, first, entries, sealed);
        if matches!(recorded, Err(Errno::NOSPC | Errno::DQUOT)) && inner.has_pending() {
            // The place of the records there are serves once more.
            self.checkpoint(core, inner)?;
            recorded = self.record(core, inner, first, entries, sealed);
        }
        match recorded {
            Ok(()) => {
                // What is recorded has happened, whatever becomes of the time.
                let _ = inner.touch(core);
                Ok(())
            }
            Err(Errno::NOSPC | Errno::DQUOT) => {
                self.overwrite_in_place(core, inner, keys, first, entries, sealed)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn record(
        &self,
        core: &Core,
        inner: &mut Inner,
        first: u64,
        entries: &[Entry],
        sealed: &[u8],
    ) -> Result<(), Errno> {
        let object = inner.object.as_ref().ok_or(Errno::IO)?.id();
        let journal = match &mut inner.journal {
            Some(journal) if journal.object() == object => journal,
            other => other.insert(Journal::begin(core, object)?),
        };
        inner.journaled += 1;
        journal.append(core, inner.stored.epoch, first, entries, sealed)
    }

    /// Where there is no room for a journal: slots, on the disk, then data. A torn page would still lose a block.
    fn overwrite_in_place(
        &self,
        core: &Core,
        inner: &mut Inner,
        keys: &ObjectKeys,
        first: u64,
        entries: &[Entry],
        sealed: &[u8],
    ) -> FsResult<()> {
        self.checkpoint(core, inner)?;
        // What lies in the places now has to be what the slots there speak of.
        inner.sync_changes(core)?;
        inner.placed += 1;
        let blocks = first..first + entries.len() as u64;
        let mut changed = Vec::new();
        for group in layout::group_of(blocks.start)..=layout::group_of(blocks.end - 1) {
            let mut slots = self.group(core, inner, group)?;
            let own =
                blocks.start.max(group * GROUP_BLOCKS)..blocks.end.min((group + 1) * GROUP_BLOCKS);
            for index in own.clone() {
                let (slot, _) = self.settled_slot(core, inner, keys, index)?;
                let entry = entries[(index - first) as usize];
                Arc::make_mut(&mut slots)
                    .set(layout::index_in_group(index), slot.superseded_by(entry));
            }
            let mut bytes = [0; SLOTS_LEN];
            let at = layout::index_in_group(own.start);
            let count = (own.end - own.start) as usize;
            slots.encode(at..at + count, &mut bytes);
            let bytes = &bytes[..count * SLOT_LEN];
            core.backing
                .write(&inner.fd, bytes, layout::slot_offset(own.start))?;
            changed.push((group, own, slots));
        }
        inner.sync_placed(core)?;
        inner.placed += 1;
        for (group, own, slots) in changed {
            let at = |block: u64| (((block - first) as usize) * BLOCK_LEN).min(sealed.len());
            let data = &sealed[at(own.start)..at(own.end)];
            core.backing
                .write(&inner.fd, data, layout::data_offset(own.start))?;
            self.slots.lock().insert(group, slots);
        }
        Ok(())
    }
}
