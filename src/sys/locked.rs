//! Memory for secrets: boxes in regions that stay out of swap (mlock(2)), out of core dumps, and out of child processes, each
//! between two pages that nobody may touch. What a box held is overwritten when it is dropped.
//!
//! How much may be locked is limited (RLIMIT_MEMLOCK; not for root). What comes beyond that lies in regions that are like the
//! others but for the lock, and [`usage`] says how much that is: keys that cannot be had would be worse.

use std::collections::{BTreeMap, BTreeSet};
#[cfg(not(miri))]
use std::ffi::c_void;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Once;

use parking_lot::Mutex;
#[cfg(not(miri))]
use rustix::mm::{Advice, MapFlags, MprotectFlags, ProtFlags};
use zeroize::Zeroize;

const PAGE: usize = 4096;
/// The smallest region, and the largest: as many keys as a million directories have need few regions.
const REGION_MIN: usize = 64 << 10;
const REGION_MAX: usize = 4 << 20;
/// Boxes come in sizes of 64 bytes and their doubles.
const SLOT_MIN: usize = 64;
const SIZES: usize = 6;
const SLOT_MAX: usize = SLOT_MIN << (SIZES - 1);

/// A value in memory for secrets.
pub struct Locked<T>(NonNull<T>);

// SAFETY: it owns the value as a Box does; the memory belongs to no thread.
unsafe impl<T: Send> Send for Locked<T> {}
// SAFETY: as above; a shared box gives out shared references only.
unsafe impl<T: Sync> Sync for Locked<T> {}

impl<T> Locked<T> {
    const SIZE: usize = {
        assert!(size_of::<T>() <= SLOT_MAX && align_of::<T>() <= SLOT_MIN);
        let mut size = 0;
        while (SLOT_MIN << size) < size_of::<T>() {
            size += 1;
        }
        size
    };

    /// Moves a value there. Where it was made stays as it is: that is the caller's to overwrite.
    #[must_use]
    pub fn new(value: T) -> Self {
        let slot = ARENA.lock().take(Self::SIZE).cast::<T>();
        // SAFETY: the slot is large enough and aligned (checked above), and nobody else's.
        unsafe { slot.write(value) };
        Self(slot)
    }
}

impl<T> Deref for Locked<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: written by `new`, alive until `drop`.
        unsafe { self.0.as_ref() }
    }
}

impl<T> DerefMut for Locked<T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above, and `self` is borrowed alone.
        unsafe { self.0.as_mut() }
    }
}

impl<T> Drop for Locked<T> {
    fn drop(&mut self) {
        // SAFETY: the value is alive and dropped once; then its bytes are the slot's own, all within it.
        unsafe {
            self.0.drop_in_place();
            std::slice::from_raw_parts_mut(self.0.cast::<u8>().as_ptr(), size_of::<T>()).zeroize();
        }
        ARENA.lock().give_back(Self::SIZE, self.0.cast());
    }
}

impl<T> fmt::Debug for Locked<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Locked(…)")
    }
}

/// Memory for secrets, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// That stays out of swap.
    pub locked: u64,
    /// That could not be locked.
    pub unlocked: u64,
}

/// How much memory for secrets there is.
#[must_use]
pub fn usage() -> Usage {
    ARENA.lock().usage
}

static ARENA: Mutex<Arena> = Mutex::new(Arena {
    regions: BTreeMap::new(),
    with_room: [const { BTreeSet::new() }; SIZES],
    usage: Usage {
        locked: 0,
        unlocked: 0,
    },
});

struct Arena {
    /// By their first byte.
    regions: BTreeMap<usize, Region>,
    /// Of each size, those that have room: locked ones first.
    with_room: [BTreeSet<(bool, usize)>; SIZES],
    usage: Usage,
}

struct Region {
    length: usize,
    is_unlocked: bool,
    /// Slots in use.
    used: usize,
    /// Slots that were never used begin here.
    fresh: usize,
    /// Slots that were.
    free: Vec<u32>,
}

impl Region {
    fn is_full(&self, slot: usize) -> bool {
        self.free.is_empty() && self.fresh + slot > self.length
    }
}

impl Arena {
    fn take(&mut self, size: usize) -> NonNull<u8> {
        let slot = SLOT_MIN << size;
        let first = self.with_room[size].first().copied();
        let (is_unlocked, start) = first.unwrap_or_else(|| self.grow(size));
        let (Some(region), Some(memory)) =
            (self.regions.get_mut(&start), NonNull::new(start as *mut u8))
        else {
            unreachable!("regions with room are regions")
        };
        let offset = region.free.pop().map_or(region.fresh, |at| at as usize);
        if offset == region.fresh {
            region.fresh += slot;
        }
        region.used += 1;
        if region.is_full(slot) {
            self.with_room[size].remove(&(is_unlocked, start));
        }
        // SAFETY: below `length`, within the region's mapping.
        unsafe { memory.add(offset) }
    }

    fn give_back(&mut self, size: usize, memory: NonNull<u8>) {
        let address = memory.as_ptr() as usize;
        let Some((&start, region)) = self.regions.range_mut(..=address).next_back() else {
            unreachable!("a slot lies in a region")
        };
        region.used -= 1;
        // Regions have at most 4 MiB.
        region.free.push((address - start) as u32);
        let (is_unlocked, length) = (region.is_unlocked, region.length);
        if region.used == 0 && length > REGION_MIN {
            self.regions.remove(&start);
            self.with_room[size].remove(&(is_unlocked, start));
            *self.counted(is_unlocked) -= length as u64;
            unmap(start, length);
        } else {
            self.with_room[size].insert((is_unlocked, start));
        }
    }

    /// A region more for slots of this size: twice as large as the last.
    fn grow(&mut self, size: usize) -> (bool, usize) {
        let so_far = usize::try_from(self.usage.locked + self.usage.unlocked).unwrap_or(REGION_MAX);
        let length = so_far.next_power_of_two().clamp(REGION_MIN, REGION_MAX);
        // The last that may be locked may be few.
        let (length, start, is_unlocked) = match map(length) {
            (start, false) if length > REGION_MIN => {
                unmap(start, length);
                match map(REGION_MIN) {
                    (start, true) => (REGION_MIN, start, false),
                    (start, false) => {
                        unmap(start, REGION_MIN);
                        (length, map(length).0, true)
                    }
                }
            }
            (start, is_locked) => (length, start, !is_locked),
        };
        if is_unlocked {
            say_once();
        }
        *self.counted(is_unlocked) += length as u64;
        let region = Region {
            length,
            is_unlocked,
            used: 0,
            fresh: 0,
            free: Vec::new(),
        };
        self.regions.insert(start, region);
        self.with_room[size].insert((is_unlocked, start));
        (is_unlocked, start)
    }

    const fn counted(&mut self, is_unlocked: bool) -> &mut u64 {
        if is_unlocked {
            &mut self.usage.unlocked
        } else {
            &mut self.usage.locked
        }
    }
}

fn say_once() {
    static SAID: Once = Once::new();
    SAID.call_once(|| {
        log::warn!(
            "no more memory can be locked: keys beyond that may be written to swap (raise the limit: ulimit -l)"
        );
    });
}

/// Maps a region, and says whether it is locked.
#[cfg(not(miri))]
fn map(length: usize) -> (usize, bool) {
    let whole = length + 2 * PAGE;
    // SAFETY: a new mapping where the kernel likes; nothing of ours is there.
    let mapped = unsafe {
        rustix::mm::mmap_anonymous(
            std::ptr::null_mut(),
            whole,
            ProtFlags::empty(),
            MapFlags::PRIVATE,
        )
    };
    let Ok(guard) = mapped else {
        // As Box does where there is no memory.
        std::alloc::handle_alloc_error(std::alloc::Layout::new::<[u8; REGION_MIN]>())
    };
    let start = guard.wrapping_byte_add(PAGE);
    let flags = MprotectFlags::READ | MprotectFlags::WRITE;
    // SAFETY: what was mapped just now but its first and last page, and nobody has seen yet.
    let is_locked = unsafe {
        if rustix::mm::mprotect(start, length, flags).is_err() {
            std::alloc::handle_alloc_error(std::alloc::Layout::new::<[u8; REGION_MIN]>());
        }
        for advice in [Advice::LinuxDontDump, Advice::LinuxWipeOnFork] {
            if let Err(error) = rustix::mm::madvise(start, length, advice) {
                log::debug!("memory for secrets: {advice:?}: {error}");
            }
        }
        rustix::mm::mlock(start, length).is_ok()
    };
    (start as usize, is_locked)
}

#[cfg(not(miri))]
fn unmap(start: usize, length: usize) {
    let guard = (start - PAGE) as *mut c_void;
    // SAFETY: a region with its guards, in which no slot is in use.
    if let Err(error) = unsafe { rustix::mm::munmap(guard, length + 2 * PAGE) } {
        log::debug!("memory for secrets: {error}");
    }
}

/// Memory of the allocator's in place of mappings, which Miri does not know: it looks at what is done with the slots.
#[cfg(miri)]
fn map(length: usize) -> (usize, bool) {
    // SAFETY: not of no bytes.
    let start = unsafe { std::alloc::alloc_zeroed(layout(length)) };
    (start.expose_provenance(), true)
}

#[cfg(miri)]
fn unmap(start: usize, length: usize) {
    // SAFETY: a region, in which no slot is in use.
    unsafe { std::alloc::dealloc(start as *mut u8, layout(length)) }
}

#[cfg(miri)]
fn layout(length: usize) -> std::alloc::Layout {
    std::alloc::Layout::from_size_align(length, PAGE).expect("a power of two")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "reads /proc/self/mem")]
    fn boxes_do_not_overlap_and_what_they_held_is_gone_when_they_are() {
        let mut boxes: Vec<_> = (0..20_000_u64).map(|n| Locked::new([n; 40])).collect();
        for (n, held) in boxes.iter().enumerate() {
            assert_eq!(**held, [n as u64; 40]);
        }
        let with = usage();
        assert!(with.locked + with.unlocked >= 20_000 * 512);
        let last = boxes.pop().unwrap();
        let at = last.0.as_ptr() as usize;
        drop(last);
        let memory = std::fs::File::open("/proc/self/mem").unwrap();
        let mut found = [1; 320];
        std::os::unix::fs::FileExt::read_exact_at(&memory, &mut found, at as u64).unwrap();
        assert_eq!(found, [0; 320]);
        drop(boxes);
        let without = usage();
        assert!(without.locked + without.unlocked < with.locked + with.unlocked);
    }

    #[test]
    fn boxes_that_come_and_go_in_any_order_keep_what_they_hold() {
        let mut small: Vec<Option<Locked<[u8; 32]>>> = Vec::new();
        let mut large: Vec<Option<Locked<[u8; 200]>>> = Vec::new();
        for round in 0..80_u8 {
            small.push(Some(Locked::new([round; 32])));
            large.push(Some(Locked::new([round; 200])));
            let gone = usize::from(round) * 31 % 61 % small.len();
            (small[gone], large[gone / 2]) = (None, None);
        }
        for (round, held) in (0..).zip(&small) {
            assert!(held.as_ref().is_none_or(|held| **held == [round; 32]));
        }
        for (round, held) in (0..).zip(&large) {
            assert!(held.as_ref().is_none_or(|held| **held == [round; 200]));
        }
        assert!(small.iter().flatten().count() > 20 && large.iter().flatten().count() > 20);
    }

    #[test]
    fn a_slot_is_used_again_and_small_values_fit_as_large_ones_do() {
        let small = Locked::new([7_u8; 3]);
        let large = Locked::new([9_u8; SLOT_MAX]);
        assert_eq!((*small, *large), ([7; 3], [9; SLOT_MAX]));
    }
}
