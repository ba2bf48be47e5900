//! What a power cut leaves of a history: one of the many states that a real filesystem may be found in.
//!
//! - **Metadata** (what is made, linked, renamed, removed; truncations, punched holes, modes, attributes) is journalled: of
//!   all changes up to the cut, those before some point are there and those after it are not (`Order::Journal`, as ext4, xfs
//!   and btrfs do). A sync of an object moves that point behind the last change of this object and no further. Or, weaker
//!   than any of them, each change is there or not by itself, but for those of the same name or object, which keep their
//!   order, that what is removed waits for what came before in its directory, and that a directory that moves, and whatever moves
//!   to another directory, wait for all that came before (`Order::Loose`); a sync then forces the object's own changes alone,
//!   and the making of a new file.
//! - **Data** that was written and not synced is there or not page by page, each page as it was after any of its writes since
//!   the last sync of the file: a write over what is allocated already waits for no journal. With `torn`, a page may be put
//!   together of two versions, sector by sector.
//! - **What a write allocates** (a longer size, a page in a hole) is metadata that follows it at some time: there only if all
//!   metadata before the write is, or not at all, and in any part. A longer size comes with the pages that it covers
//!   (`ordered`, as ext4 does), or without: then zeros lie there, never anything old.
//! - **Past a truncation or in a punched hole** that is there, nothing older shows again; what is not there yet shows what it
//!   was to cut, but for the page that the cut goes through, whose end may be zeros already.
//! - fsync and fdatasync of a file make its data durable, its size, and the holes in it. fsync also its attributes.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::CString;
use std::sync::Arc;

use super::cache::{Cached, pages_of};
use super::chance::Chance;
use super::record::{Dentry, Event, History, Id, Kind, PAGE};

/// Which changes of metadata may be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    Journal,
    Loose,
}

/// What kind of disk loses its power.
#[derive(Debug, Clone, Copy)]
pub struct Disk {
    pub order: Order,
    pub ordered: bool,
    pub torn: bool,
}

/// What is left, object by object.
#[derive(Debug)]
pub struct State {
    pub objects: HashMap<Id, Left>,
}

#[derive(Debug, Clone)]
pub struct Left {
    pub kind: Kind,
    pub mode: u32,
    pub attributes: BTreeMap<CString, Vec<u8>>,
    pub entries: BTreeMap<CString, Id>,
    pub size: u64,
    pub pages: BTreeMap<u64, Arc<[u8]>>,
}

impl Event {
    /// A change of metadata, as opposed to data and syncs.
    fn is_metadata(&self) -> bool {
        !matches!(self, Self::Write(..) | Self::Sync(..) | Self::SyncAll)
    }

    /// The names that it changes.
    fn dentries(&self) -> Vec<&Dentry> {
        match self {
            Self::Make(dentry, _) | Self::Link(dentry, _) | Self::Remove(dentry, _) => vec![dentry],
            Self::Rename { from, to, .. } => vec![from, to],
            _ => Vec::new(),
        }
    }

    /// The object itself, where more changes than its names.
    fn inode(&self) -> Option<Id> {
        match self {
            Self::Make(_, id) | Self::Resize(id, _) | Self::Punch(id, ..) => Some(*id),
            Self::Mode(id, _) | Self::Attribute(id, ..) => Some(*id),
            _ => None,
        }
    }

    /// A journalling filesystem puts this on the disk with an fsync of the object.
    fn touches(&self, object: Id, data_only: bool) -> bool {
        match self {
            Self::Mode(id, _) | Self::Attribute(id, ..) => *id == object && !data_only,
            Self::Make(_, id) | Self::Resize(id, _) | Self::Punch(id, ..) if *id == object => true,
            Self::Make((parent, _), _) => *parent == object,
            Self::Link((parent, _), id) | Self::Remove((parent, _), id) => {
                *parent == object || *id == object && !data_only
            }
            Self::Rename {
                from, to, moved, ..
            } => from.0 == object || to.0 == object || *moved == object && !data_only,
            _ => false,
        }
    }
}

/// Builds a state.
struct Cutter<'a> {
    history: &'a History,
    events: &'a [Event],
    disk: Disk,
    chance: Chance,
    /// Which changes of metadata are there.
    there: Vec<bool>,
}

/// What a cut after the first `events` of a history may leave.
pub fn cut(history: &History, events: usize, disk: Disk, chance: Chance) -> State {
    let events = &history.events[..events];
    let mut cutter = Cutter {
        history,
        events,
        disk,
        chance,
        there: Vec::new(),
    };
    cutter.there = match disk.order {
        Order::Journal => cutter.journal(),
        Order::Loose => cutter.loose(),
    };
    cutter.state()
}

/// What a killed process leaves: everything, of the last write only so many pages. The kernel looks for signals between
/// pages, never within one.
pub fn kill(history: &History, events: usize, pages: u64) -> State {
    let mut shortened = history.first(events);
    if let Some(Event::Write(_, offset, data)) = shortened.events.last_mut() {
        let end = (*offset / PAGE as u64 + pages) * PAGE as u64;
        *data = data[..data.len().min(end.saturating_sub(*offset) as usize)].into();
    }
    shortened.events.push(Event::SyncAll);
    let disk = Disk {
        order: Order::Journal,
        ordered: true,
        torn: false,
    };
    let events = shortened.events.len();
    cut(&shortened, events, disk, Chance::new(0))
}

impl Cutter<'_> {
    /// The writes since the last sync that allocate something, or make a file longer, have their part in the journal too.
    fn grows(&self) -> Vec<bool> {
        let mut sizes: HashMap<Id, u64> = HashMap::new();
        let mut pages: BTreeSet<(Id, u64)> = BTreeSet::new();
        for (id, object) in self.history.objects.iter().enumerate() {
            sizes.insert(id, object.content.len() as u64);
            pages.extend((0..object.content.len().div_ceil(PAGE)).map(|page| (id, page as u64)));
        }
        let cut = |pages: &mut BTreeSet<(Id, u64)>, id, from: u64, end: u64| {
            let gone: Vec<_> = pages.range((id, from)..(id, end)).copied().collect();
            pages.retain(|page| !gone.contains(page));
        };
        let each = self.events.iter().map(|event| match event {
            Event::Write(id, offset, data) => {
                let end = offset + data.len() as u64;
                let size = sizes.entry(*id).or_default();
                let mut grows = end > *size;
                *size = end.max(*size);
                for page in pages_of(*offset, data.len()) {
                    grows |= pages.insert((*id, page));
                }
                grows
            }
            Event::Resize(id, length) => {
                sizes.insert(*id, *length);
                cut(&mut pages, *id, length.div_ceil(PAGE as u64), u64::MAX);
                false
            }
            Event::Punch(id, from, end) => {
                cut(&mut pages, *id, *from, *end);
                false
            }
            _ => false,
        });
        each.collect()
    }

    fn journal(&mut self) -> Vec<bool> {
        let grows = self.grows();
        let mut forced = 0;
        for (at, event) in self.events.iter().enumerate() {
            match event {
                Event::SyncAll => forced = at,
                Event::Sync(object, data_only) => {
                    let last = (forced..at)
                        .rev()
                        .find(|before| match &self.events[*before] {
                            Event::Write(id, ..) => id == object && grows[*before],
                            event => event.touches(*object, *data_only),
                        });
                    forced = last.map_or(forced, |last| last + 1);
                }
                _ => {}
            }
        }
        let mut ends: Vec<_> = (forced..self.events.len())
            .filter(|at| self.events[*at].is_metadata())
            .collect();
        ends.push(self.events.len());
        let end = ends[self.chance.choose(ends.len())];
        (0..self.events.len()).map(|at| at < end).collect()
    }

    fn loose(&mut self) -> Vec<bool> {
        let mut there = vec![false; self.events.len()];
        for at in 0..self.events.len() {
            match &self.events[at] {
                Event::SyncAll => there[..at].fill(true),
                Event::Sync(object, data_only) => {
                    for (event, there) in self.events[..at].iter().zip(&mut there) {
                        *there |= match event {
                            Event::Mode(..) | Event::Attribute(..) if *data_only => false,
                            _ if event.inode() == Some(*object) => true,
                            _ => event.dentries().iter().any(|(id, _)| id == object),
                        };
                    }
                }
                _ => {}
            }
        }
        for there in &mut there {
            *there |= self.chance.choose(2) == 1;
        }
        // What is there needs what it builds on.
        let mut dentries: BTreeSet<&Dentry> = BTreeSet::new();
        let mut inodes: BTreeSet<Id> = BTreeSet::new();
        for at in (0..there.len()).rev() {
            let event = &self.events[at];
            if !event.is_metadata() {
                continue;
            }
            let made = match event {
                Event::Make(_, id) => inodes.contains(id),
                _ => false,
            };
            let needed = event
                .dentries()
                .iter()
                .any(|dentry| dentries.contains(dentry))
                || event.inode().is_some_and(|id| inodes.contains(&id));
            there[at] |= made || needed;
            let last = match event {
                Event::Rename {
                    from, to, moved, ..
                } => from.0 != to.0 || self.history.objects[*moved].kind == Kind::Directory,
                _ => false,
            };
            if there[at] && last {
                there[..at].fill(true);
            }
            if there[at]
                && let Event::Remove((directory, _), _) = event
            {
                let is_beside = |event: &Event| {
                    event
                        .dentries()
                        .iter()
                        .any(|(parent, _)| parent == directory)
                };
                for (event, there) in self.events[..at].iter().zip(&mut there) {
                    *there |= is_beside(event);
                }
            }
            if there[at] {
                dentries.extend(event.dentries());
                inodes.extend(event.inode());
                // The directories must be there, and what is linked or moved.
                inodes.extend(event.dentries().iter().map(|(parent, _)| parent));
                if let Event::Link(_, id) | Event::Rename { moved: id, .. } = event {
                    inodes.insert(*id);
                }
            }
        }
        there
    }

    fn state(mut self) -> State {
        let mut objects: HashMap<Id, Left> = HashMap::new();
        for (id, object) in self.history.objects.iter().enumerate() {
            let left = Left {
                kind: object.kind.clone(),
                mode: object.mode,
                attributes: object.attributes.clone(),
                entries: object.entries.clone(),
                size: 0,
                pages: BTreeMap::new(),
            };
            objects.insert(id, left);
        }
        for (event, _) in self
            .events
            .iter()
            .zip(&self.there)
            .filter(|(_, there)| **there)
        {
            apply(&mut objects, event);
        }
        let mut reached = vec![0];
        let mut seen: BTreeSet<Id> = reached.iter().copied().collect();
        while let Some(id) = reached.pop() {
            for child in objects[&id].entries.values() {
                if seen.insert(*child) {
                    reached.push(*child);
                }
            }
        }
        objects.retain(|id, _| seen.contains(id));
        for id in seen {
            if objects[&id].kind == Kind::File {
                let (size, pages) = self.content(id);
                let left = objects.get_mut(&id).unwrap();
                (left.size, left.pages) = (size, pages);
            }
        }
        State { objects }
    }

    /// Size and pages of a file.
    fn content(&mut self, id: Id) -> (u64, BTreeMap<u64, Arc<[u8]>>) {
        // No allocation may be there that came after metadata that is not.
        let end = match self.disk.order {
            Order::Journal => self.there.iter().position(|there| !there),
            Order::Loose => (0..self.events.len())
                .find(|at| !self.there[*at] && self.events[*at].inode() == Some(id)),
        };
        let end = end.unwrap_or(self.events.len());
        let mut file = Cached::new(&self.history.objects[id].content);
        for (at, event) in self.events.iter().enumerate() {
            match event {
                Event::Write(of, offset, data) if *of == id => {
                    file.write(at, *offset, data, at < end)
                }
                Event::Resize(of, length) if *of == id => file.resize(at, *length, self.there[at]),
                Event::Punch(of, from, to) if *of == id => {
                    file.drop_pages(*from, *to, self.there[at])
                }
                Event::Sync(of, _) if *of == id => file.sync(at),
                Event::SyncAll => file.sync(at),
                _ => {}
            }
        }
        let base = file.sizes[0].1;
        let chosen = self.chance.choose(file.sizes.len());
        let (_, mut size) = file.sizes[chosen];
        if chosen > 0 {
            // A part of what the last write added.
            let before = file.sizes[chosen - 1].1;
            let pages: Vec<u64> = (before / PAGE as u64 + 1..size.div_ceil(PAGE as u64))
                .map(|page| page * PAGE as u64)
                .chain([size])
                .collect();
            size = pages[self.chance.choose(pages.len())];
        }
        let mut pages = BTreeMap::new();
        for (page, cached) in &file.pages {
            let start = page * PAGE as u64;
            if start >= size {
                continue;
            }
            let covered = size.min(start + PAGE as u64);
            let oldest = if self.disk.ordered && covered > base {
                // The first version of the page that holds what the size covers.
                let reached = file.sizes.iter().find(|(_, size)| *size >= covered);
                let reached = reached.map_or(0, |(at, _)| *at);
                let versions = &cached.versions;
                versions
                    .iter()
                    .rposition(|(at, _)| *at <= reached)
                    .unwrap_or(0)
            } else {
                0
            };
            let versions = &cached.versions[oldest..];
            let mut bytes = self.version(versions).to_vec();
            bytes[(covered - start) as usize..].fill(0);
            pages.insert(*page, bytes.into());
        }
        (size, pages)
    }

    fn version(&mut self, versions: &[(usize, Arc<[u8]>)]) -> Arc<[u8]> {
        let one = &versions[self.chance.choose(versions.len())].1;
        if !self.disk.torn || versions.len() == 1 {
            return Arc::clone(one);
        }
        let other = &versions[self.chance.choose(versions.len())].1;
        let sectors = one.chunks(512).zip(other.chunks(512));
        sectors
            .flat_map(|(one, other)| {
                if self.chance.below(2) == 0 {
                    one
                } else {
                    other
                }
            })
            .copied()
            .collect()
    }
}

fn apply(objects: &mut HashMap<Id, Left>, event: &Event) {
    let mut set = |(directory, name): &Dentry, id: Option<Id>| {
        let entries = &mut objects.get_mut(directory).unwrap().entries;
        match id {
            Some(id) => drop(entries.insert(name.clone(), id)),
            None => drop(entries.remove(name)),
        }
    };
    match event {
        Event::Make(dentry, id) | Event::Link(dentry, id) => set(dentry, Some(*id)),
        Event::Remove(dentry, _) => set(dentry, None),
        Event::Rename {
            from,
            to,
            moved,
            replaced,
            exchange,
        } => {
            set(from, replaced.filter(|_| *exchange));
            set(to, Some(*moved));
        }
        Event::Mode(id, mode) => objects.get_mut(id).unwrap().mode = *mode,
        Event::Attribute(id, name, value) => {
            let attributes = &mut objects.get_mut(id).unwrap().attributes;
            match value {
                Some(value) => drop(attributes.insert(name.clone(), value.clone())),
                None => drop(attributes.remove(name)),
            }
        }
        _ => {}
    }
}
