//! The slots of a file in memory: groups as they were read or written last. Bounded, however large the file.

use std::ops::Range;
use std::sync::Arc;

use rustix::io::Errno;

use super::super::core::Core;
use super::super::error::FsResult;
use super::{Inner, OpenFile};
use crate::format::header::HEADER_LEN;
use crate::format::layout::{self, GROUP_BLOCKS};
use crate::format::slot::{SLOT_LEN, SLOTS_LEN, Slot};

/// Groups kept of one file: 1,024 groups guard 224 MiB of plaintext with 3.5 MiB of memory. A power of two.
const GROUPS_KEPT: usize = 1024;
const _: () = assert!(GROUPS_KEPT.is_power_of_two());

const BLOCKS: usize = GROUP_BLOCKS as usize;

/// The slots of one group, as they are stored: of most groups that are read at random one is looked at.
#[derive(Debug, Clone)]
pub struct GroupSlots {
    /// Bit i: the current entry of slot i is known to be the valid one.
    settled: u64,
    stored: [[u8; SLOT_LEN]; BLOCKS],
}

impl GroupSlots {
    /// A group that nothing was written to.
    pub const HOLES: Self = Self {
        settled: u64::MAX,
        stored: [[0; SLOT_LEN]; BLOCKS],
    };

    /// The slots of a meta page; what is missing at the end of a short one are zeros, so holes.
    pub fn of(bytes: &[u8], settled: bool) -> Self {
        let mut group = Self {
            settled: if settled { u64::MAX } else { 0 },
            ..Self::HOLES
        };
        let length = bytes.len().min(SLOTS_LEN);
        group.stored.as_flattened_mut()[..length].copy_from_slice(&bytes[..length]);
        group
    }

    /// Slot `index` (0–55) and whether its current entry is known to be valid.
    pub fn get(&self, index: usize) -> (Slot, bool) {
        (
            Slot::decode(&self.stored[index]),
            self.settled >> index & 1 == 1,
        )
    }

    /// Sets slot `index` (0–55), its current entry valid.
    pub fn set(&mut self, index: usize, slot: Slot) {
        slot.encode(&mut self.stored[index]);
        self.settled |= 1 << index;
    }

    /// Slots `range` in their stored form: those that were not set as they were read, reserved bytes too.
    pub fn stored(&self, range: Range<usize>) -> &[u8] {
        self.stored[range].as_flattened()
    }
}

/// The groups in memory, each in the one place that its number gives it: looking one up is on the way of every block.
#[derive(Debug, Default)]
pub struct SlotCache {
    /// A power of two of places, or none.
    places: Vec<Option<Kept>>,
}

#[derive(Debug)]
struct Kept {
    group: u64,
    slots: Arc<GroupSlots>,
}

impl SlotCache {
    /// The group, if it is here.
    pub fn get(&self, group: u64) -> Option<&Arc<GroupSlots>> {
        let kept = self.places.get(self.place(group))?.as_ref()?;
        (kept.group == group).then_some(&kept.slots)
    }

    /// The group, for who changes it and puts it back, or forgets it: nobody else shares it then.
    pub fn take(&mut self, group: u64) -> Option<Arc<GroupSlots>> {
        let place = self.place(group);
        let taken = self
            .places
            .get_mut(place)?
            .take_if(|kept| kept.group == group);
        taken.map(|kept| kept.slots)
    }

    /// Keeps a group. The one that has its place goes, once there are as many places as there may be.
    pub fn insert(&mut self, group: u64, slots: Arc<GroupSlots>) {
        let is_anothers =
            |kept: &Option<Kept>| kept.as_ref().is_some_and(|kept| kept.group != group);
        while self.places.len() < GROUPS_KEPT
            && self.places.get(self.place(group)).is_none_or(is_anothers)
        {
            self.grow();
        }
        // There is one now.
        let place = self.place(group);
        self.places[place] = Some(Kept { group, slots });
    }

    /// Forgets some groups: they are read anew.
    pub fn forget(&mut self, groups: Range<u64>) {
        self.retain(|group| !groups.contains(&group));
    }

    /// Forgets the groups from `first` on.
    pub fn forget_from(&mut self, first: u64) {
        self.retain(|group| group < first);
    }

    fn retain(&mut self, is_kept: impl Fn(u64) -> bool) {
        for place in &mut self.places {
            place.take_if(|kept| !is_kept(kept.group));
        }
    }

    /// Where a group is, if it is anywhere. Groups side by side do not share a place; those that lie a power of two of bytes
    /// apart (32 MiB to 4 GiB), as the parts of a file that several threads work on, hardly ever do.
    const fn place(&self, group: u64) -> usize {
        (group ^ (group / GROUPS_KEPT as u64)) as usize & self.places.len().wrapping_sub(1)
    }

    fn grow(&mut self) {
        let more = (2 * self.places.len()).max(1);
        let kept = std::mem::take(&mut self.places);
        self.places.resize_with(more, || None);
        for kept in kept.into_iter().flatten() {
            let place = self.place(kept.group);
            self.places[place] = Some(kept);
        }
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
        core.backing.write(
            self.place(),
            slots.stored(first..first + count),
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
            return Ok(Arc::clone(slots));
        }
        let slots = Self::read_slots(core, inner, group)?;
        self.slots.lock().insert(group, Arc::clone(&slots));
        Ok(slots)
    }

    /// One slot, and whether its current entry is known to be valid.
    pub(super) fn slot(&self, core: &Core, inner: &Inner, block: u64) -> FsResult<(Slot, bool)> {
        let (group, index) = (layout::group_of(block), layout::index_in_group(block));
        if let Some(slots) = self.slots.lock().get(group) {
            return Ok(slots.get(index));
        }
        Ok(self.group(core, inner, group)?.get(index))
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
            let from = layout::meta_offset(group) + HEADER_LEN as u64;
            let read = core.backing.read(&inner.fd, &mut bytes, from)?;
            GroupSlots::of(&bytes[..read], !inner.recovering)
        };
        Ok(Arc::new(slots))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::slot::Entry;

    fn slot(length: u16) -> Slot {
        Slot::HOLE.superseded_by(Entry {
            length,
            ..Entry::NONE
        })
    }

    /// Told from others by its first slot.
    fn group(number: u64) -> Arc<GroupSlots> {
        let mut slots = GroupSlots::HOLES;
        slots.set(0, slot((number % 65_521) as u16 + 1));
        Arc::new(slots)
    }

    fn holds(cache: &SlotCache, number: u64) -> bool {
        cache.get(number).is_some_and(|slots| {
            assert_eq!(slots.get(0).0, slot((number % 65_521) as u16 + 1));
            true
        })
    }

    #[test]
    fn what_is_set_is_known_to_be_valid_and_stored_where_it_belongs() {
        let mut group = GroupSlots::of(&[0xff; SLOT_LEN], false);
        assert!(!group.get(0).0.is_hole() && !group.get(0).1);
        assert_eq!(group.get(55), (Slot::HOLE, false));
        group.set(55, slot(7));
        assert_eq!(group.get(55), (slot(7), true));
        assert!(!group.get(54).1);
        let stored = group.stored(54..56);
        assert_eq!(stored[..SLOT_LEN], [0; SLOT_LEN]);
        assert_eq!(GroupSlots::of(stored, true).get(1), (slot(7), true));
    }

    #[test]
    fn as_many_groups_are_kept_as_may_be_and_no_more() {
        let mut cache = SlotCache::default();
        assert!(!holds(&cache, 0) && cache.take(0).is_none());
        let far = 480_256;
        cache.insert(far, group(far));
        assert_eq!(cache.places.len(), 1);
        let nearest = far ^ (far / GROUPS_KEPT as u64);
        (0..GROUPS_KEPT as u64).for_each(|number| cache.insert(number, group(number)));
        assert!((0..GROUPS_KEPT as u64).all(|number| holds(&cache, number)));
        assert!(!holds(&cache, far), "its place was needed");
        assert_eq!(cache.places.len(), GROUPS_KEPT);
        cache.insert(far, group(far));
        assert!(holds(&cache, far) && !holds(&cache, nearest % GROUPS_KEPT as u64));
        assert_eq!(cache.places.len(), GROUPS_KEPT);
    }

    #[test]
    fn parts_of_a_file_at_even_distances_do_not_drive_each_other_out() {
        for distance in (25..33).map(|power| 1_u64 << power) {
            let mut cache = SlotCache::default();
            let groups: Vec<_> = (0..16)
                .map(|part| layout::group_of(part * distance / 4096))
                .collect();
            groups
                .iter()
                .for_each(|number| cache.insert(*number, group(*number)));
            let kept = groups
                .iter()
                .filter(|number| holds(&cache, **number))
                .count();
            assert!(kept >= 14, "{distance}: {kept}");
        }
    }

    #[test]
    fn groups_are_taken_and_forgotten_and_others_stay() {
        let mut cache = SlotCache::default();
        (0..8).for_each(|number| cache.insert(number, group(number)));
        let taken = cache.take(3).unwrap();
        assert!(Arc::strong_count(&taken) == 1 && !holds(&cache, 3));
        cache.insert(3, taken);
        cache.forget(2..4);
        cache.forget_from(6);
        let kept: Vec<_> = (0..8).filter(|number| holds(&cache, *number)).collect();
        assert_eq!(kept, [0, 1, 4, 5]);
    }
}
