//! Writing: encrypted from the caller's buffer into this thread's pages ([`ciphertext`](super::ciphertext)), then to the
//! backing file.
//!
//! Slots come before the data they guard, so that a block whose data never arrived still reads as it was, through the
//! previous entry. Only for a block that was a hole it is the other way round: without a slot it stays the hole it was,
//! whatever lies in its page.

use std::io::IoSlice;
use std::ops::Range;
use std::sync::Arc;

use rustix::io::Errno;

use super::ciphertext::{Ciphertext, Patch};
use super::slots::GroupSlots;
use super::{BindingOf, Inner, OpenFile, scratch};
use crate::crypto::object::ObjectKeys;
use crate::format::header::HEADER_LEN;
use crate::format::layout::{self, BLOCK_LEN, GROUP_BLOCKS, GROUP_BYTES, PAGE};
use crate::format::slot::{SLOT_LEN, Slot};
use crate::fs::core::Core;
use crate::fs::error::FsResult;
use crate::sync::write_awake;

/// Groups written by one pass: 1.75 MiB of plaintext.
const GROUPS_A_WRITE: u64 = 8;

impl OpenFile {
    /// Writes all of `data` at `offset`. A file's first write makes its data key, wrapped under what `binding` names.
    ///
    /// # Errors
    /// EFBIG past the largest size; whatever the backing says. What the file held before is then still there.
    pub fn write(
        &self,
        core: &Core,
        binding: BindingOf<'_>,
        offset: u64,
        data: &[u8],
    ) -> FsResult<()> {
        if data.is_empty() {
            return Ok(());
        }
        let end = offset
            .checked_add(data.len() as u64)
            .filter(|end| *end <= layout::MAX_SIZE)
            .ok_or(Errno::FBIG)?;
        let blocks = offset / PAGE..layout::block_count(end);
        let groups = layout::group_of(blocks.end - 1) + 1 - layout::group_of(blocks.start);
        let pages = Ciphertext::pages_for(&blocks, groups.min(GROUPS_A_WRITE));
        scratch::with_pages(pages, |pages| {
            let mut sealed = Ciphertext::of(&blocks, pages);
            let seen = self.seen_object.lock().upgrade();
            // One whose CMK is refused may not be the file's any more. If it still is, what follows says so.
            if let Some(object) = seen
                && let Ok(keys) = object.keys(&core.ring)
            {
                sealed.fill(object.id(), &keys, offset, data);
            }
            self.write_sealed(core, binding, offset, data, &mut sealed)
        })
    }

    fn write_sealed(
        &self,
        core: &Core,
        binding: BindingOf<'_>,
        offset: u64,
        data: &[u8],
        sealed: &mut Ciphertext<'_>,
    ) -> FsResult<()> {
        let end = offset + data.len() as u64;
        let mut inner = write_awake(&self.inner);
        let object = inner.ensure_object(core, binding)?;
        if !sealed.keep_if_of(object.id()) {
            *self.seen_object.lock() = Arc::downgrade(&object);
        }
        let keys = object.keys(&core.ring)?;
        self.finish_withdrawal(core, &mut inner)?;
        let old_size = inner.size;
        // A last block that grows is recorded before what follows it is written: should that fail, it has not grown.
        let last = inner.record_of(old_size / PAGE);
        let mut at = offset;
        while at < end {
            let (pass_end, journaled) = self.next_pass(core, &inner, at, end)?;
            let part = &data[(at - offset) as usize..(pass_end - offset) as usize];
            let written = if journaled {
                self.overwrite_pass(core, &mut inner, &keys, at, part, sealed)
            } else {
                self.write_pass(core, &mut inner, &keys, at, part, sealed)
            };
            if let Err(error) = written {
                if inner.size > old_size {
                    inner.restore_record(old_size / PAGE, &last);
                }
                self.undo_growth(core, &mut inner, &keys, offset, old_size);
                return Err(error);
            }
            at = pass_end;
        }
        Ok(())
    }

    /// How far one pass goes that begins at `at`, and whether it overwrites blocks that may be on the disk already: what is
    /// new, or was a hole, goes to its place at once.
    fn next_pass(&self, core: &Core, inner: &Inner, at: u64, end: u64) -> FsResult<(u64, bool)> {
        let limit = (at / GROUP_BYTES + GROUPS_A_WRITE)
            .saturating_mul(GROUP_BYTES)
            .min(end);
        let known = layout::block_count(inner.size);
        let first = at / PAGE;
        if !core.journals_overwrites() || first >= known {
            return Ok((limit, false));
        }
        let mut journaled = None;
        let mut block = first;
        while block * PAGE < limit {
            let slots = self.group(core, inner, layout::group_of(block))?;
            let group_end = (layout::group_of(block) + 1) * GROUP_BLOCKS;
            while block < group_end && block * PAGE < limit {
                // In the page of a hole that an unclean stop has left there may be anything.
                // A hole that ends with the file would not be one any more, were its slot on the disk and the new size not.
                let grows = end > inner.size && (block + 1) * PAGE > inner.size;
                let holds_data = block < known
                    && (!slots.get(layout::index_in_group(block)).0.is_hole()
                        || inner.is_journaled(block)
                        || inner.recovering
                        || grows);
                if *journaled.get_or_insert(holds_data) != holds_data {
                    return Ok((block * PAGE, !holds_data));
                }
                block += 1;
            }
        }
        Ok((limit, journaled.unwrap_or(false)))
    }

    /// Writes what touches at most [`GROUPS_A_WRITE`] groups.
    fn write_pass(
        &self,
        core: &Core,
        inner: &mut Inner,
        keys: &ObjectKeys,
        offset: u64,
        data: &[u8],
        sealed: &mut Ciphertext<'_>,
    ) -> FsResult<()> {
        let end = offset + data.len() as u64;
        let (old_size, new_size) = (inner.size, inner.size.max(end));
        let blocks = offset / PAGE..layout::block_count(end);
        // A write past the end that does not begin in the block where the file ends (or would go on) leaves a gap.
        let leaves_gap = offset > old_size && offset / PAGE > old_size / PAGE;
        self.tidy_tail(core, inner, keys)?;
        let with_header = !inner.has_header && blocks.start == 0;
        if !with_header && !inner.is_changing(leaves_gap) {
            let state = inner.changing(leaves_gap);
            self.store_header(core, inner, state)?;
        }
        inner.await_release(core)?;
        let patch = Patch {
            offset,
            data,
            old_size,
            new_size,
        };
        self.complete(core, inner, keys, &blocks, &patch, sealed)?;
        let groups = layout::group_of(blocks.start)..layout::group_of(blocks.end - 1) + 1;
        let mut slots = Vec::with_capacity((groups.end - groups.start) as usize);
        for group in groups.clone() {
            slots.push(self.take_group(core, inner, group)?);
        }
        let mut holes = [0_u64; GROUPS_A_WRITE as usize];
        for index in blocks.clone() {
            let n = (layout::group_of(index) - groups.start) as usize;
            let at = layout::index_in_group(index);
            let (stored, settled) = slots[n].get(at);
            holes[n] |= u64::from(stored.is_hole() && index * PAGE < old_size) << at;
            let slot = self
                .settle_slot(core, inner, keys, index, stored, settled)?
                .0;
            let entry = sealed.entry(index).ok_or(Errno::IO)?;
            Arc::make_mut(&mut slots[n]).set(at, slot.superseded_by(entry));
        }
        let (sealed, metas) = sealed.bytes_and_metas(&blocks, new_size);
        let job = Job {
            core,
            blocks: blocks.clone(),
            sealed,
            slots: &slots,
        };
        if holes.iter().any(|group| *group != 0) {
            job.write_around_holes(inner, &holes)?;
        } else {
            job.write_in_order(inner, metas, with_header.then_some(keys))?;
        }
        if with_header {
            inner.stored = inner.changing(false);
            inner.has_header = true;
        }
        let mut cache = self.slots.lock();
        for (group, slots) in groups.zip(slots) {
            cache.insert(group, slots);
        }
        inner.size = new_size;
        inner.changes += 1;
        Ok(())
    }

    /// The slot of a block as it would be had nothing gone wrong: its current entry is the valid one. A block that is
    /// damaged keeps its entry, and goes on being an error until it is overwritten: `false` tells so.
    pub(super) fn settled_slot(
        &self,
        core: &Core,
        inner: &Inner,
        keys: &ObjectKeys,
        block: u64,
    ) -> FsResult<(Slot, bool)> {
        let (slot, settled) = self.slot(core, inner, block)?;
        self.settle_slot(core, inner, keys, block, slot, settled)
    }

    fn settle_slot(
        &self,
        core: &Core,
        inner: &Inner,
        keys: &ObjectKeys,
        block: u64,
        slot: Slot,
        settled: bool,
    ) -> FsResult<(Slot, bool)> {
        let length = layout::block_length(block, inner.size);
        if settled || length == 0 {
            return Ok((slot, true));
        }
        let mut data = [0; BLOCK_LEN];
        let read = core
            .backing
            .read(&inner.fd, &mut data[..length], layout::data_offset(block))?;
        match inner.decrypt_block(keys, block, &slot, false, &mut data[..read]) {
            Ok(entry) if entry != slot.current => Ok((
                Slot {
                    current: entry,
                    previous: entry,
                },
                true,
            )),
            Ok(_) => Ok((slot, true)),
            Err(_) => Ok((slot, false)),
        }
    }

    /// After a failed write: cuts off what it added, and from now on looks for blocks in both entries, because nobody
    /// knows which of them reached the backing file.
    fn undo_growth(
        &self,
        core: &Core,
        inner: &mut Inner,
        keys: &ObjectKeys,
        offset: u64,
        old_size: u64,
    ) {
        if !inner.has_header {
            // Nothing of this file was there before: an empty one is left, as it was.
            inner.object = None;
            let _ = core.backing.truncate(inner.place(), 0);
        }
        inner.size = old_size;
        inner.distrust();
        self.slots
            .lock()
            .forget_from(layout::group_of(offset / PAGE));
        // What fails now is done before the next change.
        let _ = self.tidy_tail(core, inner, keys);
    }
}

/// Sealed blocks on their way to the backing file.
struct Job<'a> {
    core: &'a Core,
    blocks: Range<u64>,
    /// The blocks, one after the other.
    sealed: &'a [u8],
    /// The groups they lie in, already with their new slots.
    slots: &'a [Arc<GroupSlots>],
}

impl Job<'_> {
    /// The blocks of the n-th group of this job, and where they lie in `sealed`.
    fn part(&self, n: usize) -> (Range<u64>, &[u8]) {
        let group = layout::group_of(self.blocks.start) + n as u64;
        let start = self.blocks.start.max(group * GROUP_BLOCKS);
        let end = self.blocks.end.min((group + 1) * GROUP_BLOCKS);
        (start..end, self.data(start..end))
    }

    fn data(&self, blocks: Range<u64>) -> &[u8] {
        let at =
            |block: u64| ((block - self.blocks.start) as usize * BLOCK_LEN).min(self.sealed.len());
        &self.sealed[at(blocks.start)..at(blocks.end)]
    }

    /// One write in file order for all, preceded by one for the first group's slots where these do not lie right before
    /// the first block. `header` holds the keys where the file's header is to be written with them.
    fn write_in_order(
        &self,
        inner: &Inner,
        metas: &mut [u8],
        header: Option<&ObjectKeys>,
    ) -> FsResult<()> {
        let backing = &self.core.backing;
        let first = self.blocks.start;
        let index = layout::index_in_group(first);
        for (n, (slots, meta)) in self
            .slots
            .iter()
            .zip(metas.chunks_exact_mut(BLOCK_LEN))
            .enumerate()
        {
            // Of a first group that the job enters in the middle, only the slots of its own blocks are written.
            let own = if n == 0 && index > 0 {
                index..index + self.part(0).0.count()
            } else {
                0..GROUP_BLOCKS as usize
            };
            meta[..HEADER_LEN].fill(0);
            let at = |index: usize| HEADER_LEN + index * SLOT_LEN;
            meta[at(own.start)..at(own.end)].copy_from_slice(slots.stored(own));
        }
        let mut parts = Vec::with_capacity(2 * self.slots.len());
        let start = if index > 0 {
            let from = HEADER_LEN + index * SLOT_LEN;
            let to = from + self.part(0).0.count() * SLOT_LEN;
            backing.write(inner.place(), &metas[from..to], layout::slot_offset(first))?;
            layout::data_offset(first)
        } else if let (Some(keys), Some(object)) = (header, &inner.object) {
            metas[..HEADER_LEN].copy_from_slice(&object.seal_header(keys, &inner.changing(false))?);
            layout::meta_offset(layout::group_of(first))
        } else {
            layout::slot_offset(first)
        };
        let skipped = (start - layout::meta_offset(layout::group_of(first))).min(PAGE) as usize;
        for (n, meta) in (0..self.slots.len()).zip(metas.chunks_exact(BLOCK_LEN)) {
            let (_, data) = self.part(n);
            let meta = if n == 0 { &meta[skipped..] } else { meta };
            if !meta.is_empty() {
                parts.push(IoSlice::new(meta));
            }
            parts.push(IoSlice::new(data));
        }
        Ok(backing.write_vectored(inner.place(), &mut parts, start)?)
    }

    /// Data of holes, slots of all, data of the others. Bit i of the n-th number: block i of the n-th group is one.
    fn write_around_holes(&self, inner: &Inner, holes: &[u64]) -> FsResult<()> {
        let backing = &self.core.backing;
        for (n, holes) in holes.iter().enumerate().take(self.slots.len()) {
            let (blocks, _) = self.part(n);
            let was_hole = |block: u64| holes >> layout::index_in_group(block) & 1 == 1;
            let write_data = |holes: bool| {
                let mut block = blocks.start;
                while block < blocks.end {
                    let run = (block..blocks.end)
                        .take_while(|next| was_hole(*next) == was_hole(block))
                        .count() as u64;
                    if was_hole(block) == holes {
                        backing.write(
                            inner.place(),
                            self.data(block..block + run),
                            layout::data_offset(block),
                        )?;
                    }
                    block += run;
                }
                Ok::<_, Errno>(())
            };
            write_data(true)?;
            inner.write_slots(self.core, &self.slots[n], blocks.clone())?;
            write_data(false)?;
        }
        Ok(())
    }
}
