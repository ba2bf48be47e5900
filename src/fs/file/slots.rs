//! The slots of a file in memory: groups as they were read or written last. Bounded, however large the file.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use rustix::io::Errno;

use super::super::core::Core;
use super::super::error::FsResult;
use super::{Inner, OpenFile};
use crate::format::header::HEADER_LEN;
use crate::format::layout::{self, GROUP_BLOCKS};
use crate::format::slot::{SLOT_LEN, SLOTS_LEN, Slot};

/// Groups kept of one file: 1,024 groups guard 224 MiB of plaintext with 3.5 MiB of memory.
const GROUPS_KEPT: usize = 1024;

const BLOCKS: usize = GROUP_BLOCKS as usize;

/// The slots of one group.
#[derive(Debug, Clone)]
pub struct GroupSlots {
    slots: [Slot; BLOCKS],
    /// Bit i: the current entry of slot i is known to be the valid one.
    settled: u64,
}

impl GroupSlots {
    /// A group that nothing was written to.
    pub const HOLES: Self = Self {
        slots: [Slot::HOLE; BLOCKS],
        settled: u64::MAX,
    };

    /// Reads the slots of a meta page; what is missing at the end of a short one are holes.
    pub fn decode(bytes: &[u8], settled: bool) -> Self {
        let mut group = Self {
            settled: if settled { u64::MAX } else { 0 },
            ..Self::HOLES
        };
        let (stored, _) = bytes.as_chunks::<SLOT_LEN>();
        for (slot, bytes) in group.slots.iter_mut().zip(stored) {
            *slot = Slot::decode(bytes);
        }
        group
    }

    /// Slot `index` (0–55) and whether its current entry is known to be valid.
    pub const fn get(&self, index: usize) -> (Slot, bool) {
        (self.slots[index], self.settled >> index & 1 == 1)
    }

    /// Sets slot `index` (0–55), its current entry valid.
    pub const fn set(&mut self, index: usize, slot: Slot) {
        self.slots[index] = slot;
        self.settled |= 1 << index;
    }

    /// Writes slots `range` in their stored form.
    pub fn encode(&self, range: std::ops::Range<usize>, bytes: &mut [u8]) {
        for (slot, bytes) in self.slots[range]
            .iter()
            .zip(bytes.chunks_exact_mut(SLOT_LEN))
        {
            slot.encode(bytes);
        }
    }
}

/// The groups in memory.
#[derive(Debug, Default)]
pub struct SlotCache(HashMap<u64, Arc<GroupSlots>>);

impl SlotCache {
    /// The group, if it is here.
    pub fn get(&self, group: u64) -> Option<Arc<GroupSlots>> {
        self.0.get(&group).map(Arc::clone)
    }

    /// The group, for who changes it and puts it back, or forgets it: nobody else shares it then.
    pub fn take(&mut self, group: u64) -> Option<Arc<GroupSlots>> {
        self.0.remove(&group)
    }

    /// Keeps a group; another one goes where there are too many.
    pub fn insert(&mut self, group: u64, slots: Arc<GroupSlots>) {
        if self.0.len() >= GROUPS_KEPT && !self.0.contains_key(&group) {
            // Any other: the map's order is as good as random, and a group is a single read away.
            if let Some(victim) = self.0.keys().next().copied() {
                self.0.remove(&victim);
            }
        }
        self.0.insert(group, slots);
    }

    /// Forgets some groups: they are read anew.
    pub fn forget(&mut self, groups: std::ops::Range<u64>) {
        for group in groups {
            self.0.remove(&group);
        }
    }

    /// Forgets the groups from `first` on.
    pub fn forget_from(&mut self, first: u64) {
        self.0.retain(|group, _| *group < first);
    }
}

impl Inner {
    /// Writes the slots of blocks of one group, at least one.
    pub(super) fn write_slots(
        &self,
        core: &Core,
        slots: &GroupSlots,
        blocks: Range<u64>,
    ) -> Result<(), Errno> {
        let first = layout::index_in_group(blocks.start);
        let count = (blocks.end - blocks.start) as usize;
        let mut bytes = [0; SLOTS_LEN];
        slots.encode(first..first + count, &mut bytes);
        core.backing.write(
            self.place(),
            &bytes[..count * SLOT_LEN],
            layout::slot_offset(blocks.start),
        )
    }
}

impl OpenFile {
    /// The slots of a group, read where they are not in memory.
    pub(super) fn group(
        &self,
        core: &Core,
        inner: &Inner,
        group: u64,
    ) -> FsResult<Arc<GroupSlots>> {
        if let Some(slots) = self.slots.lock().get(group) {
            return Ok(slots);
        }
        let slots = Self::read_slots(core, inner, group)?;
        self.slots.lock().insert(group, Arc::clone(&slots));
        Ok(slots)
    }

    /// As [`OpenFile::group`], and takes it out of memory: see [`SlotCache::take`].
    pub(super) fn take_group(
        &self,
        core: &Core,
        inner: &Inner,
        group: u64,
    ) -> FsResult<Arc<GroupSlots>> {
        let known = self.slots.lock().take(group);
        known.map_or_else(|| Self::read_slots(core, inner, group), Ok)
    }

    fn read_slots(core: &Core, inner: &Inner, group: u64) -> FsResult<Arc<GroupSlots>> {
        let slots = if layout::meta_offset(group) >= layout::backing_length(inner.size)
            || !inner.has_header
        {
            GroupSlots::HOLES
        } else {
            let mut bytes = [0; SLOTS_LEN];
            let read = core.backing.read(
                &inner.fd,
                &mut bytes,
                layout::meta_offset(group) + HEADER_LEN as u64,
            )?;
            GroupSlots::decode(&bytes[..read], !inner.recovering)
        };
        Ok(Arc::new(slots))
    }
}
