//! What a worker has begun, written down before it does it, and what it was told is durable, written down after.

use std::ops::Range;
use std::sync::Mutex;

/// An object of one worker.
pub type Id = u32;

/// The worker's own directory.
pub const TOP: Id = 0;

/// What an object is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Folder,
    /// A symlink to this target.
    Symlink(String),
}

/// One thing that happened. Its place in the ledger is the version of what it writes.
#[derive(Debug, Clone)]
pub enum Event {
    /// A new object is about to be there.
    Make(Id, Kind),
    /// A name is about to lead to an object.
    Link(Id, String, Id),
    /// A name is about to lead nowhere.
    Unlink(Id, String),
    /// A file is about to be written. `mapped`: through memory, where nothing but single words is whole.
    Write {
        file: Id,
        range: Range<u64>,
        mapped: bool,
    },
    /// A file is about to have this size.
    Resize(Id, u64),
    /// A range is about to be punched.
    Punch(Id, Range<u64>),
    /// An attribute is about to be set, or removed.
    Attribute(Id, String, bool),
    /// fsync of an object has returned, of a file that is in this directory. `attributes`: it was not fdatasync.
    Synced {
        object: Id,
        folder: Id,
        attributes: bool,
    },
    /// SQLite is about to commit this row.
    Commit(u64),
    /// SQLite has committed it.
    Committed(u64),
}

impl Event {
    /// Whether it is about an object.
    pub fn concerns(&self, id: Id) -> bool {
        match self {
            Self::Link(folder, _, object) => [*folder, *object].contains(&id),
            Self::Make(object, _)
            | Self::Unlink(object, _)
            | Self::Write { file: object, .. }
            | Self::Resize(object, _)
            | Self::Punch(object, _)
            | Self::Attribute(object, ..)
            | Self::Synced { object, .. } => *object == id,
            Self::Commit(_) | Self::Committed(_) => false,
        }
    }
}

/// The events of one worker.
#[derive(Debug, Default)]
pub struct Ledger(Mutex<Vec<Event>>);

impl Ledger {
    /// Writes an event down; its place.
    pub fn push(&self, event: Event) -> u64 {
        let mut events = self.0.lock().unwrap();
        events.push(event);
        events.len() as u64 - 1
    }

    /// How many there are.
    pub fn position(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// The first of them.
    pub fn first(&self, count: usize) -> Vec<Event> {
        self.0.lock().unwrap()[..count].to_vec()
    }
}
