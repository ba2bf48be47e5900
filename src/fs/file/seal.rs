//! Sealing: the clean header with the exact size, written when all that it speaks of is on the disk. docs/FORMAT.md,
//! "Sealing".

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Inner, OpenFile};
use crate::crypto::object::ObjectKeys;
use crate::format::header::SealedState;
use crate::format::layout::{self, GROUP_BLOCKS, PAGE};
use crate::format::slot::SLOT_LEN;
use crate::fs::core::Core;
use crate::fs::error::FsResult;

impl OpenFile {
    /// Which change the file is at; `None` where it is clean.
    pub fn unsealed(&self) -> Option<u64> {
        let inner = self.inner.read();
        (inner.has_header && inner.stored.dirty && inner.writable).then_some(inner.changes)
    }

    /// Puts what was written so far on the disk.
    pub fn sync(&self, core: &Core, data_only: bool) -> FsResult<()> {
        // Not under the lock: it can take long, and nobody should have to wait for it.
        let (fd, placed, journaled, journal, long) = {
            let inner = self.inner.read();
            (
                Arc::clone(&inner.fd),
                inner.placed.load(Ordering::Acquire),
                inner.journaled,
                inner.unsynced_journal(),
                inner.is_journal_long(),
            )
        };
        if let Some(journal) = journal {
            journal.sync(core)?;
            let inner = self.inner.read();
            inner.journal_synced.fetch_max(journaled, Ordering::AcqRel);
        }
        let is_placed = || self.inner.read().placed_synced.load(Ordering::Acquire) >= placed;
        if !data_only || !is_placed() {
            core.backing.sync(&fd, data_only)?;
            let inner = self.inner.read();
            inner.placed_synced.fetch_max(placed, Ordering::AcqRel);
        }
        if long {
            // What is to be on the disk is there. Should this fail, the records stay.
            let _ = self.checkpoint(core, &mut self.inner.write());
        }
        Ok(())
    }

    /// Blocks that an unclean stop left with two entries get their valid one back, so that the file can be sealed.
    /// Returns whether every block is sound. Stops early when `give_up` says so, and where the file is no longer at
    /// `change`: a change that failed meanwhile may have left two entries where this has already been.
    pub fn settle(&self, core: &Core, change: u64, give_up: &dyn Fn() -> bool) -> FsResult<bool> {
        let mut block = 0;
        loop {
            // One group at a time, so that readers and writers are not kept waiting.
            let mut inner = self.inner.write();
            let end = layout::block_count(inner.size);
            if inner.changes != change {
                return Ok(false);
            }
            self.checkpoint(core, &mut inner)?;
            if !inner.recovering && !inner.tail_unknown {
                return Ok(true);
            }
            let Some(object) = inner.object.clone() else {
                return Ok(true);
            };
            let keys = object.keys(&core.ring)?;
            // None of this is a change of content.
            if inner.tail_unknown {
                inner.keeping_attributes(core, |inner| self.tidy_tail(core, inner, &keys))?;
            }
            if !inner.recovering {
                return Ok(true);
            }
            if block >= end {
                inner.recovering = false;
                return Ok(true);
            }
            let group = layout::group_of(block);
            let blocks = block..end.min((group + 1) * GROUP_BLOCKS);
            let is_sound = inner
                .keeping_attributes(core, |inner| self.settle_group(core, inner, &keys, blocks))?;
            if !is_sound {
                return Ok(false);
            }
            block = (group + 1) * GROUP_BLOCKS;
            if block < end && give_up() {
                return Ok(false);
            }
        }
    }

    /// The same for blocks of one group.
    fn settle_group(
        &self,
        core: &Core,
        inner: &mut Inner,
        keys: &ObjectKeys,
        blocks: Range<u64>,
    ) -> FsResult<bool> {
        let group = layout::group_of(blocks.start);
        let mut slots = self.group(core, inner, group)?;
        for block in blocks {
            let index = layout::index_in_group(block);
            let (old, _) = slots.get(index);
            let (slot, sound) = self.settled_slot(core, inner, keys, block)?;
            let length = usize::from(slot.current.length);
            let is_short = length < layout::block_length(block, inner.size);
            // What is refused is not sealed, or it would count as a hole.
            let allowed = !is_short || inner.hole_allowed(block * PAGE + length as u64);
            if !sound || !allowed {
                return Ok(false);
            }
            if slot.is_hole() {
                self.clear_page(core, inner, block)?;
            }
            if slot != old {
                let mut bytes = [0; SLOT_LEN];
                slot.encode(&mut bytes);
                core.backing
                    .write(inner.place(), &bytes, layout::slot_offset(block))?;
            }
            inner.found_holes |= is_short;
            Arc::make_mut(&mut slots).set(index, slot);
        }
        self.slots.lock().insert(group, slots);
        Ok(true)
    }

    /// Writes the clean seal if the file is still at `change`. The caller has put that on the disk.
    pub fn seal(&self, core: &Core, change: u64) -> FsResult<()> {
        let mut inner = self.inner.write();
        if inner.changes != change
            || !inner.stored.dirty
            || inner.recovering
            || inner.tail_unknown
            || inner.has_pending()
        {
            return Ok(());
        }
        let state = SealedState {
            size: inner.size,
            epoch: inner.stored.epoch + 1,
            dirty: false,
            sparse: inner.stored.sparse || inner.found_holes,
            ..inner.stored.clone()
        };
        // The seal is no change of content.
        let sealed = inner.keeping_attributes(core, |inner| inner.store_header(core, state));
        if !inner.stored.dirty {
            inner.drop_journal(core);
        }
        sealed
    }

    /// Gives up a file that nobody can open any more: it needs no seal, and its journal goes with it.
    pub fn discard(&self, core: &Core) {
        self.inner.write().give_up_journal(core);
    }
}
