//! Reading: from the backing file into the caller's buffer, decrypted where it lies. One backing read a request, and one
//! more where the slots that guard its beginning are not in memory.

use std::io::IoSliceMut;
use std::sync::Arc;

use super::slots::GroupSlots;
use super::{Inner, OpenFile, scratch};
use crate::crypto::block;
use crate::crypto::object::ObjectKeys;
use crate::format::header::HEADER_LEN;
use crate::format::layout::{self, BLOCK_LEN, GROUP_BLOCKS, PAGE};
use crate::format::slot::{Entry, Slot};
use crate::fs::core::Core;
use crate::fs::error::{Damage, FsResult};
use crate::sync::read_awake;

/// Groups read by one backing call: 1.75 MiB of plaintext.
const GROUPS_A_READ: u64 = 8;

impl OpenFile {
    /// Fills `buffer` with plaintext from `offset`; fewer bytes only at the end of the file.
    pub fn read(&self, core: &Core, offset: u64, buffer: &mut [u8]) -> FsResult<usize> {
        let inner = read_awake(&self.inner);
        let Some(object) = &inner.object else {
            return Ok(0);
        };
        let keys = object.keys(&core.ring)?;
        self.read_plaintext(core, &inner, &keys, offset, buffer)
    }

    pub(super) fn read_plaintext(
        &self,
        core: &Core,
        inner: &Inner,
        keys: &ObjectKeys,
        offset: u64,
        buffer: &mut [u8],
    ) -> FsResult<usize> {
        let wanted = inner.size.saturating_sub(offset).min(buffer.len() as u64) as usize;
        let mut done = 0;
        while done < wanted {
            let at = offset + done as u64;
            let (block, within) = (at / PAGE, (at % PAGE) as usize);
            let rest = &mut buffer[done..wanted];
            let whole = layout::block_length(block, inner.size);
            if within == 0 && rest.len() >= whole {
                // Whole blocks, the file's last one among them if the request reaches it.
                let run = if at + rest.len() as u64 == inner.size {
                    rest.len()
                } else {
                    rest.len() / BLOCK_LEN * BLOCK_LEN
                };
                self.read_blocks(core, inner, keys, block, &mut rest[..run])?;
                done += run;
            } else {
                let mut bounce = [0; BLOCK_LEN];
                self.read_blocks(core, inner, keys, block, &mut bounce[..whole])?;
                let part = &bounce[within..whole];
                let length = part.len().min(rest.len());
                rest[..length].copy_from_slice(&part[..length]);
                done += length;
            }
        }
        Ok(wanted)
    }

    /// Reads whole blocks from `first` on; `buffer` ends with a block.
    pub(super) fn read_blocks(
        &self,
        core: &Core,
        inner: &Inner,
        keys: &ObjectKeys,
        first: u64,
        buffer: &mut [u8],
    ) -> FsResult<()> {
        let mut block = first;
        let mut rest = buffer;
        while !rest.is_empty() {
            let placed = inner.placed_from(block, rest.len().div_ceil(BLOCK_LEN) as u64);
            if placed == 0 {
                let (now, later) = rest.split_at_mut(BLOCK_LEN.min(rest.len()));
                inner.read_journaled(core, keys, block, now)?;
                block += 1;
                rest = later;
                continue;
            }
            let room = (GROUPS_A_READ * GROUP_BLOCKS - block % GROUP_BLOCKS) as usize * BLOCK_LEN;
            let room = room.min(placed as usize * BLOCK_LEN);
            let (now, later) = rest.split_at_mut(room.min(rest.len()));
            let blocks = now.len().div_ceil(BLOCK_LEN) as u64;
            let groups = layout::group_of(block + blocks - 1) - layout::group_of(block);
            if groups == 0 {
                self.read_group(core, inner, keys, block, now)?;
            } else {
                self.read_groups(core, inner, keys, block, now)?;
            }
            block += blocks;
            rest = later;
        }
        Ok(())
    }

    /// Blocks of one group: they lie side by side.
    fn read_group(
        &self,
        core: &Core,
        inner: &Inner,
        keys: &ObjectKeys,
        first: u64,
        buffer: &mut [u8],
    ) -> FsResult<()> {
        if buffer.len() <= BLOCK_LEN {
            let (slot, settled) = self.slot(core, inner, first)?;
            inner.read_data(core, first, buffer)?;
            return inner
                .decrypt_block(keys, first, &slot, settled, buffer)
                .map(drop);
        }
        let slots = self.group(core, inner, layout::group_of(first))?;
        inner.read_data(core, first, buffer)?;
        inner.decrypt(keys, &slots, first, buffer)
    }

    /// Blocks of several groups: one read brings the data, and the meta pages that lie between, into their places.
    fn read_groups(
        &self,
        core: &Core,
        inner: &Inner,
        keys: &ObjectKeys,
        first: u64,
        buffer: &mut [u8],
    ) -> FsResult<()> {
        let first_group = layout::group_of(first);
        let first_slots = self.group(core, inner, first_group)?;
        scratch::with_pages(GROUPS_A_READ as usize, |metas| {
            let mut parts = Vec::with_capacity(2 * GROUPS_A_READ as usize);
            let head = (GROUP_BLOCKS - first % GROUP_BLOCKS) as usize * BLOCK_LEN;
            let (data, rest) = buffer.split_at_mut(head);
            parts.push(IoSliceMut::new(data));
            let groups = rest.chunks_mut(layout::GROUP_BYTES as usize);
            for (data, meta) in groups.zip(metas.chunks_exact_mut(BLOCK_LEN)) {
                parts.push(IoSliceMut::new(meta));
                parts.push(IoSliceMut::new(data));
            }
            let wanted: usize = parts.iter().map(|part| part.len()).sum();
            if core
                .backing
                .read_vectored(&inner.fd, &mut parts, layout::data_offset(first))?
                < wanted
            {
                return Err(cut_short(inner));
            }
            let (data, rest) = buffer.split_at_mut(head);
            inner.decrypt(keys, &first_slots, first, data)?;
            let groups = rest.chunks_mut(layout::GROUP_BYTES as usize);
            for ((data, meta), group) in groups
                .zip(metas.chunks_exact(BLOCK_LEN))
                .zip(first_group + 1..)
            {
                let slots = self.keep_group(inner, group, &meta[HEADER_LEN..]);
                inner.decrypt(keys, &slots, group * GROUP_BLOCKS, data)?;
            }
            Ok(())
        })
    }

    /// What was read of a group's slots, or what memory knows better.
    fn keep_group(&self, inner: &Inner, group: u64, bytes: &[u8]) -> Arc<GroupSlots> {
        let mut cache = self.slots.lock();
        if let Some(slots) = cache.get(group) {
            return Arc::clone(slots);
        }
        let slots = Arc::new(GroupSlots::of(bytes, !inner.recovering));
        cache.insert(group, Arc::clone(&slots));
        slots
    }
}

fn cut_short(inner: &Inner) -> crate::fs::FsError {
    Damage::Size {
        sealed: inner.stored.size,
        actual: inner.size,
    }
    .into()
}

impl Inner {
    /// Reads what lies in the places of blocks of one group, from `first` on.
    fn read_data(&self, core: &Core, first: u64, buffer: &mut [u8]) -> FsResult<()> {
        let from = layout::data_offset(first);
        if core.backing.read(&self.fd, buffer, from)? < buffer.len() {
            return Err(cut_short(self));
        }
        Ok(())
    }

    /// Decrypts blocks of one group, from `first` on, where they lie.
    fn decrypt(
        &self,
        keys: &ObjectKeys,
        slots: &GroupSlots,
        first: u64,
        buffer: &mut [u8],
    ) -> FsResult<()> {
        for (data, block) in buffer.chunks_mut(BLOCK_LEN).zip(first..) {
            let (slot, settled) = slots.get(layout::index_in_group(block));
            self.decrypt_block(keys, block, &slot, settled, data)?;
        }
        Ok(())
    }

    /// Decrypts one block where it lies. `data` is as long as the file's size says the block is. Returns the entry that
    /// was valid.
    pub(super) fn decrypt_block(
        &self,
        keys: &ObjectKeys,
        block: u64,
        slot: &Slot,
        settled: bool,
        data: &mut [u8],
    ) -> FsResult<Entry> {
        let current = self.open_entry(keys, block, &slot.current, data);
        if settled || current.is_ok() || slot.is_hole() {
            return current.map(|()| slot.current);
        }
        // After an unclean stop the data that the current entry speaks of may never have arrived. A block that was a
        // hole until then still is one only if nothing but zeros lies there.
        if !slot.previous.is_none() || data.iter().all(|byte| *byte == 0) {
            self.open_entry(keys, block, &slot.previous, data)?;
            return Ok(slot.previous);
        }
        Err(Damage::Block { block }.into())
    }

    pub(super) fn open_entry(
        &self,
        keys: &ObjectKeys,
        block: u64,
        entry: &Entry,
        data: &mut [u8],
    ) -> FsResult<()> {
        let length = usize::from(entry.length);
        if length > data.len() {
            return Err(Damage::Block { block }.into());
        }
        if length < data.len() && !self.hole_allowed(block * PAGE + entry.length as u64) {
            return Err(if entry.is_none() {
                Damage::Hole { block }
            } else {
                Damage::Block { block }
            }
            .into());
        }
        let (sealed, zeros) = data.split_at_mut(length);
        if !entry.is_none() {
            block::open(keys, block, entry, sealed).map_err(|_| Damage::Block { block })?;
        }
        zeros.fill(0);
        Ok(())
    }
}
