//! Truncation, allocation, holes, and looking for them.

use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::fs::FallocateFlags;
use rustix::io::Errno;

use super::{BindingOf, Inner, OpenFile, backing_length};
use crate::crypto::block;
use crate::crypto::object::ObjectKeys;
use crate::format::header::SealedState;
use crate::format::layout::{self, BLOCK_LEN, GROUP_BLOCKS, GROUP_BYTES, PAGE};
use crate::format::slot::{SLOT_LEN, SLOTS_LEN, Slot};
use crate::fs::backing::At;
use crate::fs::core::Core;
use crate::fs::error::FsResult;
use crate::fs::types::{AllocateMode, Seek};

impl OpenFile {
    /// Cuts the file to `size`, or extends it with a hole.
    pub fn truncate(&self, core: &Core, binding: BindingOf<'_>, size: u64) -> FsResult<()> {
        if size > layout::MAX_SIZE {
            return Err(Errno::FBIG.into());
        }
        let mut inner = self.inner.write();
        if size == inner.size {
            // Nothing but the time tells of it.
            return inner.touch(core);
        }
        let object = inner.ensure_object(core, binding)?;
        let keys = object.keys(&core.ring)?;
        let done = if size == 0 && !inner.has_sealed_attributes(core) {
            self.clear(core, &mut inner)
        } else {
            self.resize(core, &mut inner, &keys, size)
        };
        self.distrust_unless_done(&mut inner, done)
    }

    fn resize(&self, core: &Core, inner: &mut Inner, keys: &ObjectKeys, size: u64) -> FsResult<()> {
        self.tidy_tail(core, inner, keys)?;
        if size > inner.size {
            inner.await_release(core)?;
            self.finish_withdrawal(core, inner)?;
            self.extend(core, inner, size)
        } else {
            self.cut(core, inner, keys, size)
        }
    }

    fn distrust_unless_done(&self, inner: &mut Inner, done: FsResult<()>) -> FsResult<()> {
        if done.is_err() {
            inner.distrust();
            self.slots.lock().forget_from(0);
        }
        done
    }

    fn extend(&self, core: &Core, inner: &mut Inner, size: u64) -> FsResult<()> {
        if !inner.is_changing(true) {
            let state = inner.changing(true);
            self.store_header(core, inner, state)?;
        }
        core.backing
            .truncate(inner.place(), layout::backing_length(size))?;
        inner.size = size;
        inner.changes += 1;
        Ok(())
    }

    /// The lower bound first, then the block that the new end lies in, and the length. The slots past the end are cleared
    /// before anything takes their blocks' places.
    fn cut(&self, core: &Core, inner: &mut Inner, keys: &ObjectKeys, size: u64) -> FsResult<()> {
        self.checkpoint(core, inner)?;
        if !inner.is_changing(false) || inner.stored.size > size {
            let state = SealedState {
                size: inner.stored.size.min(size),
                ..inner.changing(false)
            };
            self.store_header(core, inner, state)?;
        }
        let before = inner.record_of(size / PAGE);
        self.shorten_block(core, inner, keys, size)?;
        if core.journals_overwrites() && !size.is_multiple_of(PAGE) {
            inner.sync_changes(core)?;
        }
        let cut = core
            .backing
            .truncate(inner.place(), layout::backing_length(size));
        if let Err(error) = cut {
            inner.restore_record(size / PAGE, &before);
            return Err(error.into());
        }
        inner.size = size;
        inner.changes += 1;
        inner.released = true;
        inner.tail_unknown = true;
        self.slots
            .lock()
            .forget_from(layout::group_of(layout::block_count(size).saturating_sub(1)) + 1);
        Ok(())
    }

    /// Writes the block in which `size` lies anew, as long as it is in a file of that size.
    fn shorten_block(
        &self,
        core: &Core,
        inner: &mut Inner,
        keys: &ObjectKeys,
        size: u64,
    ) -> FsResult<()> {
        let kept = (size % PAGE) as usize;
        if kept == 0 {
            return Ok(());
        }
        let block = size / PAGE;
        let mut plain = [0; BLOCK_LEN];
        let length = layout::block_length(block, inner.size);
        self.read_blocks(core, inner, keys, block, &mut plain[..length])?;
        self.replace_block(core, inner, keys, block, &plain[..kept])
    }

    /// Writes one block anew. A hole stays one where there is nothing but zeros to write.
    fn replace_block(
        &self,
        core: &Core,
        inner: &mut Inner,
        keys: &ObjectKeys,
        index: u64,
        plain: &[u8],
    ) -> FsResult<()> {
        let mut slots = self.group(core, inner, layout::group_of(index))?;
        let at = layout::index_in_group(index);
        let (slot, _) = self.settled_slot(core, inner, keys, index)?;
        let is_hole = slot.is_hole() && !inner.is_journaled(index);
        if is_hole && plain.iter().all(|byte| *byte == 0) {
            return Ok(());
        }
        let mut sealed = [0; BLOCK_LEN];
        let sealed = &mut sealed[..plain.len()];
        let entry = block::seal(keys, index, plain, sealed);
        if core.journals_overwrites() && (!is_hole || inner.recovering) {
            return self.overwrite(core, inner, keys, index, &[entry], sealed);
        }
        inner.await_release(core)?;
        let mut bytes = [0; SLOT_LEN];
        let slot = slot.superseded_by(entry);
        slot.encode(&mut bytes);
        core.backing
            .write(inner.place(), &bytes, layout::slot_offset(index))?;
        core.backing
            .write(inner.place(), sealed, layout::data_offset(index))?;
        Arc::make_mut(&mut slots).set(at, slot);
        self.slots.lock().insert(layout::group_of(index), slots);
        Ok(())
    }

    /// Whether there are slots of these blocks, all of one group.
    fn holds_slots(&self, core: &Core, inner: &Inner, blocks: Range<u64>) -> FsResult<bool> {
        let slots = self.group(core, inner, layout::group_of(blocks.start))?;
        Ok(blocks
            .into_iter()
            .any(|block| slots.get(layout::index_in_group(block)).0 != Slot::HOLE))
    }

    /// Zeroes the slots of the blocks that lie in the same group as the first of them.
    fn clear_slots(&self, core: &Core, inner: &Inner, blocks: Range<u64>) -> FsResult<()> {
        if blocks.is_empty() {
            return Ok(());
        }
        let group = layout::group_of(blocks.start);
        let mut slots = self.group(core, inner, group)?;
        let first = layout::index_in_group(blocks.start);
        let end = (blocks.end - group * GROUP_BLOCKS).min(GROUP_BLOCKS) as usize;
        let zeros = [0; SLOTS_LEN];
        core.backing.write(
            inner.place(),
            &zeros[..(end - first) * SLOT_LEN],
            layout::slot_offset(blocks.start),
        )?;
        let cleared = Arc::make_mut(&mut slots);
        (first..end).for_each(|index| cleared.set(index, Slot::HOLE));
        self.slots.lock().insert(group, slots);
        Ok(())
    }

    /// Clears what an interrupted or failed write left past the end of the file, before anything is put there.
    pub(super) fn tidy_tail(
        &self,
        core: &Core,
        inner: &mut Inner,
        keys: &ObjectKeys,
    ) -> FsResult<()> {
        if !inner.tail_unknown {
            return Ok(());
        }
        let stat = core.backing.stat(At::Fd(inner.fd.as_fd()))?;
        let (size, actual) = (inner.size, layout::plaintext_size(backing_length(&stat)));
        if actual > size {
            // A part of a failed write arrived. The file's last block may have grown in it, and its page holds nothing
            // else any more: to cut that would destroy it.
            inner.size = actual;
            let shortened = self.shorten_block(core, inner, keys, size);
            inner.size = size;
            shortened?;
        }
        let length = layout::backing_length(inner.size);
        if backing_length(&stat) != length {
            core.backing.truncate(inner.place(), length)?;
            inner.released = true;
        }
        let end = layout::block_count(inner.size);
        let next_group = end.next_multiple_of(GROUP_BLOCKS).max(GROUP_BLOCKS);
        self.slots.lock().forget_from(layout::group_of(next_group));
        if layout::meta_offset(layout::group_of(end)) < length
            && self.holds_slots(core, inner, end..next_group)?
        {
            // Not before the cut is on the disk: a block that it spares must not lose its slot.
            inner.await_release(core)?;
            self.clear_slots(core, inner, end..next_group)?;
            inner.released = true;
        }
        inner.tail_unknown = false;
        Ok(())
    }

    /// fallocate(2).
    ///
    /// # Errors
    /// EFBIG; ENOSPC where space cannot be reserved; EOPNOTSUPP where the backing filesystem cannot reserve.
    pub fn allocate(
        &self,
        core: &Core,
        binding: BindingOf<'_>,
        mode: AllocateMode,
        offset: u64,
        length: u64,
    ) -> FsResult<()> {
        let end = offset
            .checked_add(length)
            .filter(|end| *end <= layout::MAX_SIZE)
            .ok_or(Errno::FBIG)?;
        let mut inner = self.inner.write();
        let object = inner.ensure_object(core, binding)?;
        let keys = object.keys(&core.ring)?;
        let done = self.allocate_range(core, &mut inner, &keys, mode, offset..end);
        self.distrust_unless_done(&mut inner, done)
    }

    fn allocate_range(
        &self,
        core: &Core,
        inner: &mut Inner,
        keys: &ObjectKeys,
        mode: AllocateMode,
        range: Range<u64>,
    ) -> FsResult<()> {
        self.tidy_tail(core, inner, keys)?;
        self.finish_withdrawal(core, inner)?;
        let grows = matches!(mode, AllocateMode::Allocate | AllocateMode::ZeroRange)
            && range.end > inner.size;
        if !inner.has_header {
            let state = inner.changing(grows);
            self.store_header(core, inner, state)?;
        }
        match mode {
            AllocateMode::Allocate | AllocateMode::KeepSize => {}
            AllocateMode::PunchHole | AllocateMode::ZeroRange | AllocateMode::ZeroRangeKeepSize => {
                self.zero(core, inner, keys, range.clone())?;
            }
        }
        if mode != AllocateMode::PunchHole {
            // The backing range that holds the blocks, meta pages included.
            let from = layout::meta_offset(layout::group_of(range.start / PAGE));
            let to = layout::backing_length(range.end);
            core.backing
                .allocate(inner.place(), FallocateFlags::KEEP_SIZE, from, to - from)?;
        }
        if grows {
            inner.await_release(core)?;
            self.extend(core, inner, range.end)?;
        }
        Ok(())
    }

    /// Makes a range read as zeros: whole blocks become holes, the edges are written.
    fn zero(
        &self,
        core: &Core,
        inner: &mut Inner,
        keys: &ObjectKeys,
        range: Range<u64>,
    ) -> FsResult<()> {
        self.checkpoint(core, inner)?;
        let (offset, end) = (range.start, range.end.min(inner.size));
        if offset >= end {
            return inner.touch(core);
        }
        if !inner.is_changing(true) {
            let state = inner.changing(true);
            self.store_header(core, inner, state)?;
        }
        inner.changes += 1;
        let mut cleared = Vec::new();
        let mut empty = Vec::new();
        let mut at = offset;
        while at < end {
            let block = at / PAGE;
            let groups = Self::empty_groups(core, inner, at..end)?;
            if !groups.is_empty() {
                at = groups.end * GROUP_BYTES;
                empty.push(groups);
                continue;
            }
            let start = block * PAGE;
            let length = layout::block_length(block, inner.size);
            let block_end = start + length as u64;
            if at > start || end < block_end {
                let mut plain = [0; BLOCK_LEN];
                self.read_blocks(core, inner, keys, block, &mut plain[..length])?;
                plain[(at - start) as usize..(end.min(block_end) - start) as usize].fill(0);
                self.replace_block(core, inner, keys, block, &plain[..length])?;
                at = block_end;
                continue;
            }
            let last = if end == inner.size {
                layout::block_count(end)
            } else {
                end / PAGE
            };
            let blocks = block..last.min((layout::group_of(block) + 1) * GROUP_BLOCKS);
            at = (blocks.end * PAGE).min(end);
            self.clear_slots(core, inner, blocks.clone())?;
            cleared.push(blocks);
        }
        self.release(core, inner, &cleared)?;
        Self::release_empty(core, inner, &empty)
    }

    /// Whole groups at the beginning of a range of plaintext that were never written to: there is nothing to clear in them,
    /// however many they are.
    fn empty_groups(core: &Core, inner: &Inner, range: Range<u64>) -> FsResult<Range<u64>> {
        let whole = range.start.div_ceil(GROUP_BYTES)..range.end / GROUP_BYTES;
        if !range.start.is_multiple_of(GROUP_BYTES) || whole.is_empty() {
            return Ok(0..0);
        }
        let from = layout::meta_offset(whole.start);
        let data = match core.backing.seek_data(&inner.fd, from) {
            // A backing filesystem that cannot tell.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => Some(from),
            found => found?,
        };
        let end = data.map_or(whole.end, |data| layout::group_at(data).min(whole.end));
        Ok(whole.start..end.max(whole.start))
    }

    /// Gives back what was reserved for groups that were never written to.
    fn release_empty(core: &Core, inner: &Inner, empty: &[Range<u64>]) -> FsResult<()> {
        for groups in empty {
            let (from, to) = (
                layout::meta_offset(groups.start),
                layout::meta_offset(groups.end),
            );
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            match core.backing.allocate(inner.place(), flags, from, to - from) {
                Ok(()) | Err(Errno::OPNOTSUPP) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Gives back the pages of blocks whose slots were cleared: what is written there next finds zeros.
    fn release(&self, core: &Core, inner: &mut Inner, cleared: &[Range<u64>]) -> FsResult<()> {
        if cleared.is_empty() {
            return Ok(());
        }
        if core.journals_overwrites() {
            // A block whose slot were still there after a power cut would miss its page.
            inner.sync_changes(core)?;
        }
        for blocks in cleared {
            let from = layout::data_offset(blocks.start);
            let length = (blocks.end - blocks.start) * PAGE;
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            match core.backing.allocate(inner.place(), flags, from, length) {
                // A backing filesystem that cannot punch keeps the space, and gets the zeros written.
                Err(Errno::OPNOTSUPP) => self.write_zeros(core, inner, blocks.clone())?,
                released => released?,
            }
        }
        inner.released = true;
        Ok(())
    }

    /// Takes from the page of a hole what an unclean stop may have left there.
    pub(super) fn clear_page(&self, core: &Core, inner: &mut Inner, block: u64) -> FsResult<()> {
        let mut page = [0; BLOCK_LEN];
        let read = core
            .backing
            .read(&inner.fd, &mut page, layout::data_offset(block))?;
        if page[..read].iter().any(|byte| *byte != 0) {
            self.release(core, inner, std::slice::from_ref(&(block..block + 1)))?;
        }
        Ok(())
    }

    fn write_zeros(&self, core: &Core, inner: &Inner, blocks: Range<u64>) -> FsResult<()> {
        let end = layout::backing_length(inner.size);
        for block in blocks {
            let at = layout::data_offset(block);
            let length = end.saturating_sub(at).min(PAGE) as usize;
            core.backing
                .write(inner.place(), &[0; BLOCK_LEN][..length], at)?;
        }
        Ok(())
    }

    /// lseek(2) with SEEK_DATA and SEEK_HOLE, to the precision of a block.
    ///
    /// # Errors
    /// ENXIO at or past the end, and where no data follows.
    pub fn seek(&self, core: &Core, offset: u64, what: Seek) -> FsResult<u64> {
        let inner = self.inner.read();
        if offset >= inner.size {
            return Err(Errno::NXIO.into());
        }
        if let Some(object) = &inner.object {
            object.keys(&core.ring)?;
        }
        let mut block = offset / PAGE;
        let end = layout::block_count(inner.size);
        while block < end {
            let group = layout::group_of(block);
            let slots = self.group(core, &inner, group)?;
            let last = ((group + 1) * GROUP_BLOCKS).min(end);
            let wanted = |block: &u64| {
                let is_hole = slots.get(layout::index_in_group(*block)).0.is_hole()
                    && !inner.is_journaled(*block);
                is_hole == (what == Seek::Hole)
            };
            if let Some(found) = (block..last).find(wanted) {
                return Ok((found * PAGE).max(offset));
            }
            block = last;
            if what == Seek::Data && block < end {
                // Whole groups without a byte of backing have no meta page to look at.
                let next = core
                    .backing
                    .seek_data(&inner.fd, layout::meta_offset(layout::group_of(block)))?;
                block = next.map_or(end, |next| {
                    block.max(next / layout::GROUP_SPAN * GROUP_BLOCKS)
                });
            }
        }
        match what {
            Seek::Hole => Ok(inner.size),
            Seek::Data => Err(Errno::NXIO.into()),
        }
    }
}
