//! The end of records: brought to their places, all together; or of no use any more, because the content is thrown away.

use std::sync::Arc;

use rustix::io::Errno;

use super::journal::Journal;
use super::{EMPTY, Inner, OpenFile, scratch};
use crate::format::header::SealedState;
use crate::format::layout::{self, BLOCK_LEN, GROUP_BLOCKS};
use crate::fs::core::Core;
use crate::fs::error::FsResult;

impl OpenFile {
    /// Writes the header. No record is pending that would lose its epoch by it.
    pub(super) fn store_header(
        &self,
        core: &Core,
        inner: &mut Inner,
        state: SealedState,
    ) -> FsResult<()> {
        if !inner.has_pending() {
            return inner.store_header(core, state);
        }
        self.checkpoint(core, inner)?;
        let epoch = inner.stored.epoch + 1;
        inner.store_header(core, SealedState { epoch, ..state })
    }

    /// Records that are not to count must be of another epoch, on the disk, before the file grows or another record comes
    /// before them.
    pub(super) fn finish_withdrawal(&self, core: &Core, inner: &mut Inner) -> FsResult<()> {
        if inner.journal.as_ref().is_some_and(Journal::is_closed) {
            self.checkpoint(core, inner)?;
            inner.sync_placed(core)?;
        }
        Ok(())
    }

    /// Brings every block to its place, on the disk, and the journal to its beginning. The header that says so has to be on the
    /// disk before the next record is written.
    pub(super) fn checkpoint(&self, core: &Core, inner: &mut Inner) -> FsResult<()> {
        if !inner.has_records() {
            return Ok(());
        }
        // Records whose file has not been cut or extended as they suppose do not count after a power cut: so that, too.
        inner.sync_changes(core)?;
        inner.keeping_attributes(core, |inner| {
            self.place_all(core, inner)?;
            inner.sync_placed(core)?;
            if let Some(journal) = &mut inner.journal {
                journal.close();
            }
            let state = SealedState {
                epoch: inner.stored.epoch + 1,
                ..inner.stored.clone()
            };
            inner.store_header(core, state)
        })?;
        if let Some(journal) = &mut inner.journal {
            journal.reset();
        }
        Ok(())
    }

    fn place_all(&self, core: &Core, inner: &Inner) -> FsResult<()> {
        let Some(journal) = &inner.journal else {
            return Ok(());
        };
        let mut next = 0;
        while let Some(group) = journal.next_group(next) {
            next = (group + 1) * GROUP_BLOCKS;
            self.place_group(core, inner, journal, group)?;
        }
        Ok(())
    }

    /// Writes the slots and then the data of the blocks of one group that are in the journal.
    fn place_group(
        &self,
        core: &Core,
        inner: &Inner,
        journal: &Journal,
        group: u64,
    ) -> FsResult<()> {
        let backing = &core.backing;
        let recorded = journal.of_group(group);
        let (Some((first, _)), Some((last, _))) = (recorded.first(), recorded.last()) else {
            return Ok(());
        };
        let mut slots = self.group(core, inner, group)?;
        let changed = Arc::make_mut(&mut slots);
        for (block, version) in &recorded {
            let at = layout::index_in_group(*block);
            changed.set(at, changed.get(at).0.superseded_by(version.entry));
        }
        inner.write_slots(core, &slots, *first..last + 1)?;
        scratch::with_pages(recorded.len(), |pages| {
            let mut rest = &recorded[..];
            while let Some((first, _)) = rest.first() {
                // As many at once as lie side by side in their places.
                let mut length = 0;
                let mut blocks = 0;
                while let Some((block, version)) = rest.get(blocks)
                    && *block == first + blocks as u64
                    && length == blocks * BLOCK_LEN
                {
                    let end = length + usize::from(version.entry.length);
                    journal.read(core, version, &mut pages[length..end])?;
                    (length, blocks) = (end, blocks + 1);
                }
                backing.write(inner.place(), &pages[..length], layout::data_offset(*first))?;
                rest = &rest[blocks..];
            }
            Ok::<_, Errno>(())
        })?;
        self.slots.lock().insert(group, slots);
        Ok(())
    }

    /// Throws away all content, at once: an empty file, without a header, to which no seal and no slot refers. Its data key
    /// serves what is written next.
    pub(super) fn clear(&self, core: &Core, inner: &mut Inner) -> FsResult<()> {
        core.backing.truncate(inner.place(), 0)?;
        self.slots.lock().forget_from(0);
        inner.size = 0;
        inner.stored = SealedState {
            epoch: inner.stored.epoch,
            ..EMPTY
        };
        inner.has_header = false;
        inner.recovering = false;
        inner.found_holes = false;
        inner.tail_unknown = false;
        inner.changes += 1;
        inner.released = inner.has_pending();
        if let Some(journal) = &mut inner.journal {
            journal.reset();
        }
        // The records are of use until the cut is on the disk. Nothing is written before that is so.
        inner.await_release(core)?;
        inner.drop_journal(core);
        Ok(())
    }
}
