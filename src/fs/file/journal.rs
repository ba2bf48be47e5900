//! The redo journal of an open file: blocks that may be on the disk already are not overwritten in their place, but
//! recorded here, and brought to their places later, all together, once the records are on the disk. So neither a write-back
//! in an unlucky order nor a torn page can lose one. docs/FORMAT.md, "Journals".
//!
//! A record counts while its epoch is that of the file's header. A checkpoint ends by writing the header with the next
//! epoch: so a header is never written while records are pending, but by a checkpoint.

use std::collections::BTreeMap;
use std::io::IoSlice;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::Inner;
use crate::crypto::block;
use crate::crypto::object::ObjectKeys;
use crate::format::journal::{self, BLOCKS_MAX, ENTRIES_AT, RecordHead};
use crate::format::layout::{self, BLOCK_LEN, GROUP_BLOCKS, PAGE};
use crate::format::slot::{ENTRY_LEN, Entry};
use crate::fs::core::Core;
use crate::fs::error::{Damage, FsResult};
use crate::fs::object::Object;
use crate::ids::ObjectId;

/// Bytes of records after which blocks are brought to their places.
const FULL: u64 = 32 << 20;
/// The same for a file that is synced: behind what a journal has once reached, every sync has to make it longer.
const FULL_WHEN_SYNCED: u64 = 1 << 20;

/// A journal in use.
#[derive(Debug)]
pub struct Journal {
    object: ObjectId,
    file: Arc<JournalFile>,
    /// Where the next record goes, in bytes.
    end: u64,
    pending: BTreeMap<u64, Pending>,
    /// No record may follow, and the file not grow, before a checkpoint has succeeded: the last one has failed, or there are
    /// records that are not to count.
    closed: bool,
}

/// The file of a journal.
#[derive(Debug)]
pub struct JournalFile {
    fd: OwnedFd,
    /// Its name is on the disk.
    named: AtomicBool,
}

/// What was recorded of a block at some moment.
#[derive(Debug)]
pub struct Record {
    epoch: u64,
    pending: Option<Pending>,
}

/// The newest version of a block, which its place does not hold yet.
#[derive(Debug, Clone, Copy)]
pub struct Pending {
    /// What it takes to decrypt it.
    pub entry: Entry,
    /// Where its ciphertext lies in the journal.
    at: u64,
}

impl JournalFile {
    /// Puts the records on the disk.
    pub fn sync(&self, core: &Core) -> Result<(), Errno> {
        core.backing.sync(&self.fd, true)?;
        if let (false, Some(journals)) = (self.named.load(Ordering::Acquire), &core.journals) {
            journals.sync(&core.backing)?;
            self.named.store(true, Ordering::Release);
        }
        Ok(())
    }
}

impl Journal {
    fn over(object: ObjectId, fd: OwnedFd) -> Self {
        Self {
            object,
            file: Arc::new(JournalFile {
                fd,
                named: AtomicBool::new(false),
            }),
            end: 0,
            pending: BTreeMap::new(),
            closed: false,
        }
    }

    /// The journal of an object that has none in use.
    pub fn begin(core: &Core, object: ObjectId) -> Result<Self, Errno> {
        let journals = core.journals.as_ref().ok_or(Errno::IO)?;
        let fd = journals.make(&core.backing, object)?;
        Ok(Self::over(object, fd))
    }

    /// Whose it is.
    pub const fn object(&self) -> ObjectId {
        self.object
    }

    /// Before so many bytes of ciphertext are recorded there has to be a checkpoint.
    pub const fn is_full(&self, more: usize) -> bool {
        self.closed || self.end + more as u64 > FULL
    }

    /// There has to be a checkpoint before anything else.
    pub const fn is_closed(&self) -> bool {
        self.closed
    }

    /// There is something for a checkpoint to do.
    pub fn is_due(&self) -> bool {
        self.closed || !self.pending.is_empty()
    }

    /// The next record goes to the beginning.
    pub const fn is_empty(&self) -> bool {
        self.end == 0
    }

    /// No record may follow before a checkpoint has succeeded.
    pub const fn close(&mut self) {
        self.closed = true;
    }

    /// Begins anew. No record that was there counts any more, also after a power cut.
    pub fn reset(&mut self) {
        self.pending.clear();
        self.end = 0;
        self.closed = false;
    }

    /// The group of the first block at or after `block` that is recorded.
    pub fn next_group(&self, block: u64) -> Option<u64> {
        let (first, _) = self.pending.range(block..).next()?;
        Some(layout::group_of(*first))
    }

    /// What is recorded of a group.
    pub fn of_group(&self, group: u64) -> Vec<(u64, Pending)> {
        self.pending
            .range(group * GROUP_BLOCKS..(group + 1) * GROUP_BLOCKS)
            .map(|(block, pending)| (*block, *pending))
            .collect()
    }

    /// Reads the ciphertext of a version into `buffer`, which is as long as it.
    pub fn read(&self, core: &Core, version: &Pending, buffer: &mut [u8]) -> Result<(), Errno> {
        if core.backing.read(&self.file.fd, buffer, version.at)? < buffer.len() {
            return Err(Errno::IO);
        }
        Ok(())
    }

    /// What a journal says of a file whose header is dirty: records that are not whole, or of another epoch, end it.
    pub fn recover(
        core: &Core,
        object: &Object,
        keys: &ObjectKeys,
        epoch: u64,
        size: u64,
    ) -> FsResult<Option<Self>> {
        let Some(journals) = &core.journals else {
            return Ok(None);
        };
        let flags = if core.read_only {
            OFlags::RDONLY
        } else {
            OFlags::RDWR
        };
        let Some(fd) = journals.open(&core.backing, object.id(), flags)? else {
            return Ok(None);
        };
        let mut found = Self::over(object.id(), fd);
        found.file.named.store(true, Ordering::Release);
        // None begins behind that, however long somebody has made the file.
        while found.end <= FULL && found.recover_record(core, keys, epoch, size)? {}
        // Behind its end there may be records that would count again if another came before them, and before it some that
        // would if the file grew.
        found.closed = true;
        Ok(Some(found))
    }

    /// Takes up the record at the end of what is known; `false` where there is none.
    fn recover_record(
        &mut self,
        core: &Core,
        keys: &ObjectKeys,
        epoch: u64,
        size: u64,
    ) -> FsResult<bool> {
        let mut head = [0; ENTRIES_AT];
        let read = core.backing.read(&self.file.fd, &mut head, self.end)?;
        let Some(head) = RecordHead::decode(&head[..read]).filter(|head| head.epoch == epoch)
        else {
            return Ok(false);
        };
        let mut entries = vec![0; head.blocks() * ENTRY_LEN];
        let read = core
            .backing
            .read(&self.file.fd, &mut entries, self.end + ENTRIES_AT as u64)?;
        if read < entries.len() {
            return Ok(false);
        }
        let mut at = self.end + head.ciphertext_at() as u64;
        let mut blocks = Vec::with_capacity(head.blocks());
        for (entry, block) in journal::entries(&entries).zip(head.first..) {
            let mut data = [0; BLOCK_LEN];
            let Some(data) = data.get_mut(..usize::from(entry.length)) else {
                return Ok(false);
            };
            let read = core.backing.read(&self.file.fd, data, at)?;
            if read < data.len() || block::open(keys, block, &entry, data).is_err() {
                return Ok(false);
            }
            blocks.push((block, Pending { entry, at }));
            at += u64::from(entry.length);
        }
        // Of a block that was to grow, where the file has not, or that was cut off, the version before counts.
        let fits = |block: u64, length: u16| {
            block < layout::block_count(size)
                && usize::from(length) <= layout::block_length(block, size)
        };
        self.pending.extend(
            blocks
                .into_iter()
                .filter(|(block, pending)| fits(*block, pending.entry.length)),
        );
        self.end = at;
        Ok(true)
    }

    /// Adds a record.
    pub fn append(
        &mut self,
        core: &Core,
        epoch: u64,
        first: u64,
        entries: &[Entry],
        sealed: &[u8],
    ) -> Result<(), Errno> {
        let head = journal::encode(epoch, first, entries);
        let mut at = self.end + head.len() as u64;
        core.backing.write_vectored(
            &self.file.fd,
            &mut [IoSlice::new(&head), IoSlice::new(sealed)],
            self.end,
        )?;
        for (entry, block) in entries.iter().zip(first..) {
            self.pending.insert(block, Pending { entry: *entry, at });
            at += u64::from(entry.length);
        }
        self.end = at;
        Ok(())
    }
}

impl Inner {
    /// The newest version of this block is in the journal.
    pub(super) fn is_journaled(&self, block: u64) -> bool {
        self.journal
            .as_ref()
            .is_some_and(|journal| journal.pending.contains_key(&block))
    }

    /// How long this block is in the journal, in bytes.
    pub(super) fn journaled_length(&self, block: u64) -> Option<u16> {
        let journal = self.journal.as_ref()?;
        Some(journal.pending.get(&block)?.entry.length)
    }

    /// Blocks from `block` on, at most `limit`, whose newest versions are in their places.
    pub(super) fn placed_from(&self, block: u64, limit: u64) -> u64 {
        let next = self
            .journal
            .as_ref()
            .and_then(|journal| journal.pending.range(block..).next());
        next.map_or(limit, |(next, _)| limit.min(next - block))
    }

    /// Some blocks are in the journal only.
    pub(super) fn has_pending(&self) -> bool {
        self.journal
            .as_ref()
            .is_some_and(|journal| !journal.pending.is_empty())
    }

    /// Reads and decrypts a block that is in the journal. `data` is as long as the file's size says the block is.
    pub(super) fn read_journaled(
        &self,
        core: &Core,
        keys: &ObjectKeys,
        block: u64,
        data: &mut [u8],
    ) -> FsResult<()> {
        let damaged = Damage::Block { block };
        let Some((journal, pending)) = self
            .journal
            .as_ref()
            .and_then(|journal| Some((journal, journal.pending.get(&block)?)))
        else {
            return Err(damaged.into());
        };
        let Some(sealed) = data.get_mut(..usize::from(pending.entry.length)) else {
            return Err(damaged.into());
        };
        journal.read(core, pending, sealed)?;
        self.open_entry(keys, block, &pending.entry, data)
    }

    /// The journal's file, if it holds what is not known to be on the disk.
    pub(super) fn unsynced_journal(&self) -> Option<Arc<JournalFile>> {
        let journal = self.journal.as_ref()?;
        (self.journaled > self.journal_synced.load(Ordering::Acquire))
            .then(|| Arc::clone(&journal.file))
    }

    /// So much is recorded that the next one who syncs the file should bring it to its places.
    pub(super) fn is_journal_long(&self) -> bool {
        self.journal
            .as_ref()
            .is_some_and(|journal| journal.end >= FULL_WHEN_SYNCED)
    }

    /// There is something for a checkpoint to do.
    pub(super) fn has_records(&self) -> bool {
        self.journal.as_ref().is_some_and(Journal::is_due)
    }

    /// Puts on the disk what was recorded, and what was changed in the backing file.
    pub(super) fn sync_changes(&self, core: &Core) -> FsResult<()> {
        if let Some(journal) = self.unsynced_journal() {
            journal.sync(core)?;
            self.journal_synced
                .fetch_max(self.journaled, Ordering::AcqRel);
        }
        Ok(self.sync_placed(core)?)
    }

    /// Puts on the disk what was changed in the backing file.
    pub(super) fn sync_placed(&self, core: &Core) -> Result<(), Errno> {
        let placed = self.placed.load(Ordering::Acquire);
        if placed <= self.placed_synced.load(Ordering::Acquire) {
            return Ok(());
        }
        core.backing.sync(&self.fd, true)?;
        self.placed_synced.fetch_max(placed, Ordering::AcqRel);
        Ok(())
    }

    /// Where blocks that may be on the disk were cut off or punched out: waits until that is so on the disk, before slots
    /// speak of something else in their places.
    pub(super) fn await_release(&mut self, core: &Core) -> FsResult<()> {
        if self.released && core.journals_overwrites() {
            self.sync_placed(core)?;
        }
        self.released = false;
        Ok(())
    }

    /// What is recorded of a block, to go back to.
    pub(super) fn record_of(&self, block: u64) -> Record {
        let journal = self.journal.as_ref();
        Record {
            epoch: self.stored.epoch,
            pending: journal.and_then(|journal| journal.pending.get(&block).copied()),
        }
    }

    /// Later records of a block than this one, if any, are not to count: what they go with has failed.
    pub(super) fn restore_record(&mut self, block: u64, record: &Record) {
        // Since a checkpoint it is in its place, and its room in the journal another's.
        let pending = record.pending.filter(|_| record.epoch == self.stored.epoch);
        if let Some(journal) = &mut self.journal {
            match pending {
                Some(pending) => journal.pending.insert(block, pending),
                None => journal.pending.remove(&block),
            };
            journal.closed = true;
        }
    }

    /// The file is not there any more: its journal goes as well. At once where no sync has returned that it was needed for.
    pub(super) fn give_up_journal(&mut self, core: &Core) {
        let (Some(journal), Some(journals)) = (self.journal.take(), &core.journals) else {
            return;
        };
        if journal.file.named.load(Ordering::Acquire) {
            journals.doom(journal.object);
        } else {
            journals.remove(&core.backing, journal.object);
        }
    }

    /// The journal is of no use any more: its file goes.
    pub(super) fn drop_journal(&mut self, core: &Core) {
        if let (Some(journal), Some(journals)) = (self.journal.take(), &core.journals) {
            journals.remove(&core.backing, journal.object);
        }
    }
}

const _: () = assert!(
    BLOCKS_MAX as u64 * PAGE + (BLOCKS_MAX * ENTRY_LEN) as u64 + (ENTRIES_AT as u64) < FULL
);
