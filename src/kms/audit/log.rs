//! The file `log` in the folder `audit`, and `head` beside it, which says sealed where it ends: so a tail that was cut off shows.
//!
//! A line is written and synced before the head says so. What follows the head without belonging to the chain was never
//! acknowledged: the next writer removes it and writes down that it did. Everything here runs under the key directory's lock.

use std::fs::File;
use std::io::{BufReader, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::chain::{End, LINK_AT_END, MAX_LINE, Next, Walk, ends_with_link};
use super::line::Recorder;
use crate::kms::error::KmsError;
use crate::kms::event::Event;
use crate::kms::seal::{RecordKind, Sealer};
use crate::kms::storage::{self, LogFile};

/// The directory of the audit log.
pub(in crate::kms) const AUDIT: &str = "audit";
pub(super) const LOG: &str = "log";
pub(super) const HEAD: &str = "head";
/// What the folders begin with that hold logs which were moved aside.
const ASIDE: &str = "damaged-";

/// The head is written into two places by turns, each within a sector: one of them is always whole.
const SLOT: u64 = 4096;
const SLOTS: u64 = 2;
/// Bytes of a sealed head: sequence, length, link.
const SEALED: usize = 52 + 48 + 16;

/// Lines that are chained, and yet to be written.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub(in crate::kms) struct Batch {
    start: End,
    end: End,
    lines: String,
}

impl Batch {
    /// The lines.
    pub(in crate::kms) fn into_lines(self) -> String {
        self.lines
    }
}

/// An audit log that is open for writing.
pub(in crate::kms) struct AuditLog<'a> {
    sealer: &'a Sealer,
    log: LogFile,
    head: LogFile,
    generation: u64,
    end: End,
    /// Bytes that follow the end and do not belong there.
    stray: u64,
}

/// Makes an empty log. A crash on the way leaves a directory that is made anew with the key directory around it.
pub(in crate::kms) fn make(dir: &Path, sealer: &Sealer) -> Result<(), KmsError> {
    let folder = dir.join(AUDIT);
    storage::make_dir(&folder)?;
    start(&folder, sealer, End::beginning(sealer))?;
    storage::sync(dir)
}

fn start(folder: &Path, sealer: &Sealer, end: End) -> Result<(), KmsError> {
    storage::create(&folder.join(LOG), b"")?;
    let mut slots = vec![0; (SLOT * SLOTS) as usize];
    for (generation, slot) in (0..).zip(slots.chunks_exact_mut(SLOT as usize)) {
        let sealed = seal_head(sealer, generation, &end);
        slot[..sealed.len()].copy_from_slice(&sealed);
    }
    storage::create(&folder.join(HEAD), &slots)?;
    storage::sync(folder)
}

/// Moves a log that is damaged aside, and begins a new one. Returns where the old one went.
pub(in crate::kms) fn restart(dir: &Path, sealer: &Sealer) -> Result<String, KmsError> {
    let folder = dir.join(AUDIT);
    let (number, aside) = (1..)
        .map(|number: u32| (number, folder.join(format!("{ASIDE}{number}"))))
        .find(|(_, path)| !path.exists())
        .expect("fewer than four thousand million directories");
    storage::make_dir(&aside)?;
    for file in [LOG, HEAD] {
        let path = folder.join(file);
        if storage::stat(&path)?.is_some() {
            storage::rename(&path, &aside.join(file))?;
        }
    }
    storage::sync(&aside)?;
    start(&folder, sealer, End::beginning(sealer))?;
    Ok(format!("{AUDIT}/{ASIDE}{number}"))
}

/// The folders of the logs that were moved aside, the oldest first.
pub(super) fn asides(dir: &Path) -> Vec<PathBuf> {
    let folder = dir.join(AUDIT);
    let number = |name: &String| name.strip_prefix(ASIDE)?.parse().ok();
    let names = storage::names(&folder).unwrap_or_default();
    let mut numbers: Vec<u32> = names.iter().filter_map(number).collect();
    numbers.sort_unstable();
    let path = |number| folder.join(format!("{ASIDE}{number}"));
    numbers.into_iter().map(path).collect()
}

/// The place of a slot is sealed into it, so an older one cannot be copied over the newer.
fn slot_place(slot: u64) -> String {
    format!("{AUDIT}/{HEAD}/{slot}")
}

fn seal_head(sealer: &Sealer, generation: u64, end: &End) -> Vec<u8> {
    let payload = [
        &end.sequence.to_le_bytes()[..],
        &end.length.to_le_bytes(),
        &end.link,
    ]
    .concat();
    let place = slot_place(generation % SLOTS);
    sealer.seal(RecordKind::AuditHead, &place, generation, &payload)
}

fn open_head(sealer: &Sealer, slot: u64, sealed: &[u8]) -> Option<(u64, End)> {
    let place = slot_place(slot);
    let head = sealer.open(RecordKind::AuditHead, &place, sealed).ok()?;
    let (sequence, rest) = head.payload.split_first_chunk()?;
    let (length, link) = rest.split_first_chunk()?;
    let end = End {
        sequence: u64::from_le_bytes(*sequence),
        length: u64::from_le_bytes(*length),
        link: link.try_into().ok()?,
    };
    Some((head.counter, end))
}

/// Where the log in `folder` ended when its head was written last, and how often that was.
pub(super) fn read_head(
    folder: &Path,
    sealer: &Sealer,
    head: &LogFile,
) -> Result<(u64, End), KmsError> {
    let changed = || KmsError::damaged(folder.join(HEAD), "it was changed outside of cmkfs");
    if head.len()? != SLOT * SLOTS {
        return Err(changed());
    }
    let mut newest = None;
    for slot in 0..SLOTS {
        let mut sealed = [0; SEALED];
        head.read_at(&mut sealed, slot * SLOT)?;
        let found = open_head(sealer, slot, &sealed).ok_or_else(changed)?;
        newest = newest.max(Some(found));
    }
    newest.ok_or_else(changed)
}

impl<'a> AuditLog<'a> {
    /// Opens the log of the key directory at `dir`, and finds its end. Costs the same however long it is.
    pub(in crate::kms) fn open(dir: &Path, sealer: &'a Sealer) -> Result<Self, KmsError> {
        let folder = dir.join(AUDIT);
        let head = LogFile::open(&folder.join(HEAD))?;
        let path = folder.join(LOG);
        let log = LogFile::open(&path)?;
        let (generation, end) = read_head(&folder, sealer, &head)?;
        let length = log.len()?;
        let cut = || {
            KmsError::damaged(
                &path,
                format!("lines are missing at its end: it had {} bytes", end.length),
            )
        };
        if length < end.length {
            return Err(cut());
        }
        if let Some(at) = end.length.checked_sub(LINK_AT_END as u64) {
            let mut last = [0; LINK_AT_END];
            log.read_at(&mut last, at)?;
            if !ends_with_link(&last, &end.link) {
                return Err(KmsError::damaged(
                    path,
                    "its last lines were changed outside of cmkfs",
                ));
            }
        }
        let mut this = Self {
            sealer,
            log,
            head,
            generation,
            end,
            stray: 0,
        };
        if length > end.length {
            this.walk_beyond_the_head(path)?;
            this.stray = length.saturating_sub(this.end.length);
        }
        Ok(this)
    }

    fn walk_beyond_the_head(&mut self, path: PathBuf) -> Result<(), KmsError> {
        let io = || KmsError::io("read", &path);
        let mut file = File::open(&path).map_err(io())?;
        file.seek(SeekFrom::Start(self.end.length)).map_err(io())?;
        let mut walk = Walk::new(self.sealer, BufReader::new(file), self.end);
        while let Next::Line(_) = walk.next().map_err(io())? {}
        self.end = walk.end;
        Ok(())
    }

    /// Chains events. Nothing is written yet.
    pub(in crate::kms) fn prepare<'e>(
        &self,
        recorder: &Recorder,
        events: impl IntoIterator<Item = &'e Event>,
    ) -> Batch {
        let store = self.sealer.store();
        let mut end = self.end;
        let mut lines = String::new();
        if self.stray > 0 {
            let mut event = Event::new("RepairAuditLog").by_itself();
            event.note("removedBytes", self.stray);
            lines += &end.chain(self.sealer, &recorder.text(store, &event));
        }
        for event in events {
            lines += &end.chain(self.sealer, &recorder.text(store, event));
        }
        Batch {
            start: self.end,
            end,
            lines,
        }
    }

    /// Takes the room that a batch needs, so that writing it does not fail for lack of space.
    ///
    /// # Errors
    /// [`KmsError::ValidationException`] for a line that nobody could read again.
    pub(in crate::kms) fn reserve(&self, batch: &Batch) -> Result<(), KmsError> {
        let longest = batch.lines.lines().map(str::len).max();
        if longest.is_some_and(|bytes| bytes as u64 >= MAX_LINE) {
            return Err(KmsError::ValidationException(
                "what is to be written down of it is too long for a line of the audit log"
                    .to_owned(),
            ));
        }
        self.log
            .reserve(batch.start.length, batch.lines.len() as u64)
    }

    /// Writes a batch; durable on return. One that was written already, wholly or in part, may be written again.
    pub(in crate::kms) fn write(&mut self, batch: &Batch) -> Result<(), KmsError> {
        if self.end.sequence < batch.end.sequence {
            let follows = self.end.sequence > batch.start.sequence || self.end == batch.start;
            if !follows {
                return Err(self
                    .log
                    .damaged("what is to be written next does not follow"));
            }
            self.log
                .append_at(batch.lines.as_bytes(), batch.start.length)?;
            if self.log.len()? > batch.end.length {
                self.log.truncate(batch.end.length)?;
            }
            self.end = batch.end;
        }
        self.log.sync()?;
        self.generation = self.generation.saturating_add(1);
        let sealed = seal_head(self.sealer, self.generation, &self.end);
        self.head
            .write_sector(&sealed, self.generation % SLOTS * SLOT)
    }
}
