//! Overwriting blocks that may be on the disk already: recorded in the journal; where there is no room for that, in their
//! places, slots on the disk first.

use std::sync::Arc;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::ciphertext::{Ciphertext, Patch};
use super::journal::Journal;
use super::{Inner, OpenFile};
use crate::crypto::object::ObjectKeys;
use crate::format::layout::{self, BLOCK_LEN, GROUP_BLOCKS, PAGE};
use crate::format::slot::Entry;
use crate::fs::core::Core;
use crate::fs::error::FsResult;

/// No filesystem gives out less room.
const SECTOR: u64 = 512;

impl OpenFile {
    /// Overwrites blocks by way of the journal.
    pub(super) fn overwrite_pass(
        &self,
        core: &Core,
        inner: &mut Inner,
        keys: &ObjectKeys,
        offset: u64,
        data: &[u8],
        sealed: &mut Ciphertext<'_>,
    ) -> FsResult<()> {
        self.tidy_tail(core, inner, keys)?;
        if !inner.is_changing(false) {
            let state = inner.changing(false);
            self.store_header(core, inner, state)?;
        }
        let end = offset + data.len() as u64;
        let (old_size, new_size) = (inner.size, inner.size.max(end));
        let blocks = offset / PAGE..layout::block_count(end);
        let patch = Patch {
            offset,
            data,
            old_size,
            new_size,
        };
        self.complete(core, inner, keys, &blocks, &patch, sealed)?;
        let (entries, bytes) = (sealed.entries(&blocks), sealed.bytes(&blocks, new_size));
        let before = inner.record_of(old_size / PAGE);
        self.overwrite(core, inner, keys, blocks.start, &entries, bytes)?;
        if new_size > old_size {
            // The last block grows. Its record does not count before the file is long enough for it.
            let grown = core
                .backing
                .truncate(inner.place(), layout::backing_length(new_size));
            if let Err(error) = grown {
                inner.restore_record(old_size / PAGE, &before);
                return Err(error.into());
            }
            inner.size = new_size;
        }
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
        self.reserve(core, inner, first, entries)?;
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

    /// Makes sure of the room in their places for blocks that are longer than what lies there: what is recorded can be brought
    /// there on a full disk as well, and the file be cut.
    fn reserve(&self, core: &Core, inner: &Inner, first: u64, entries: &[Entry]) -> FsResult<()> {
        for (entry, block) in entries.iter().zip(first..) {
            let (held, needed) = (
                self.held_in_place(core, inner, block)?,
                u64::from(entry.length),
            );
            if held.div_ceil(SECTOR) >= needed.div_ceil(SECTOR) {
                continue;
            }
            let from = layout::data_offset(block) + held;
            let flags = FallocateFlags::KEEP_SIZE;
            match core
                .backing
                .allocate(inner.place(), flags, from, needed - held)
            {
                // A backing filesystem that cannot reserve says that it is full when it is.
                Ok(()) | Err(Errno::OPNOTSUPP) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Of how many bytes of a block's page it is known that there is room for them.
    fn held_in_place(&self, core: &Core, inner: &Inner, block: u64) -> FsResult<u64> {
        if let Some(length) = inner.journaled_length(block) {
            return Ok(u64::from(length));
        }
        let (slot, settled) = self.slot(core, inner, block)?;
        Ok(if settled {
            u64::from(slot.current.length)
        } else {
            0
        })
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
        if inner
            .journal
            .as_ref()
            .is_none_or(|journal| journal.object() != object)
        {
            inner.journal = Some(Journal::begin(core, object)?);
        } else if inner.journal.as_ref().is_some_and(Journal::is_empty) {
            // The records at the beginning count until the header is on the disk, and must not be mixed with new ones.
            inner.sync_placed(core)?;
        }
        let Some(journal) = &mut inner.journal else {
            return Err(Errno::IO);
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
            inner.write_slots(core, &slots, own.clone())?;
            changed.push((group, own, slots));
        }
        inner.sync_placed(core)?;
        for (group, own, slots) in changed {
            let at = |block: u64| (((block - first) as usize) * BLOCK_LEN).min(sealed.len());
            let data = &sealed[at(own.start)..at(own.end)];
            core.backing
                .write(inner.place(), data, layout::data_offset(own.start))?;
            self.slots.lock().insert(group, slots);
        }
        Ok(())
    }
}
