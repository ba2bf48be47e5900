//! What the user of the volume did, and what was promised to them: every version of every file and name, and the step at
//! which a sync of it returned.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::record::Id;

pub const BLOCK: usize = 4096;

/// Operations are counted; a thing that is there since before the first one is from step 0.
pub type Step = usize;

/// The versions of one thing, the oldest first.
#[derive(Debug, Clone)]
pub struct Versions<T>(Vec<(Step, T)>);

impl<T> Versions<T> {
    pub fn new(step: Step, value: T) -> Self {
        Self(vec![(step, value)])
    }

    pub fn set(&mut self, step: Step, value: T) {
        self.0.push((step, value));
    }

    pub fn now(&self) -> &T {
        &self.0.last().expect("one at the least").1
    }

    /// Those that may be found: the one that was promised at step `synced`, and those since, up to step `end`. Tells also
    /// whether the thing may be missing because it was made since.
    pub fn allowed(&self, synced: Option<Step>, end: Step) -> (Vec<&T>, bool) {
        let known = self.0.iter().filter(|(step, _)| *step <= end);
        let promised = self
            .0
            .iter()
            .rposition(|(step, _)| synced.is_some_and(|synced| *step <= synced));
        let values = known
            .skip(promised.unwrap_or(0))
            .map(|(_, value)| value)
            .collect();
        (values, promised.is_none())
    }
}

/// Content of a file, block by block so that versions share what they have in common.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Content {
    pub size: u64,
    blocks: BTreeMap<u64, Arc<[u8; BLOCK]>>,
}

impl Content {
    pub fn new(bytes: &[u8]) -> Self {
        let mut content = Self::default();
        content.write(0, bytes);
        content
    }

    /// A block as it would be read from a longer file.
    pub fn block(&self, block: u64) -> [u8; BLOCK] {
        self.blocks.get(&block).map_or([0; BLOCK], |bytes| **bytes)
    }

    /// Nobody has written this block since the other version, not even with what was there.
    pub fn shares(&self, other: &Self, block: u64) -> bool {
        match (self.blocks.get(&block), other.blocks.get(&block)) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (one, other) => one.is_none() && other.is_none(),
        }
    }

    pub fn write(&mut self, offset: u64, data: &[u8]) {
        let mut done = 0;
        while done < data.len() {
            let at = offset + done as u64;
            let (block, within) = (at / BLOCK as u64, at as usize % BLOCK);
            let length = (BLOCK - within).min(data.len() - done);
            let mut bytes = self.block(block);
            bytes[within..within + length].copy_from_slice(&data[done..done + length]);
            self.blocks.insert(block, Arc::new(bytes));
            done += length;
        }
        self.size = self.size.max(offset + data.len() as u64);
    }

    pub fn resize(&mut self, size: u64) {
        if size < self.size {
            let old = self.size;
            self.zero(size, old);
        }
        self.size = size;
    }

    /// Zeros a range within the size.
    pub fn zero(&mut self, from: u64, end: u64) {
        let end = end.min(self.size);
        if from < end {
            self.write(from, &vec![0; (end - from) as usize]);
        }
    }
}

#[derive(Debug, Clone)]
pub struct File {
    pub content: Versions<Content>,
    pub mode: Versions<u32>,
    pub attributes: HashMap<String, Versions<Option<Vec<u8>>>>,
    /// When a sync of it returned; fsync and fdatasync, and fsync alone.
    pub synced: Vec<Step>,
    pub synced_whole: Vec<Step>,
}

#[derive(Debug, Clone, Default)]
pub struct Directory {
    pub entries: HashMap<String, Versions<Option<Id>>>,
    /// When a name was promised, by a sync of the directory or of what was made under it.
    pub promised: HashMap<String, Vec<Step>>,
}

/// Where an object is to be found.
#[derive(Debug, Clone)]
pub struct Links {
    /// How many names it has.
    pub count: Versions<usize>,
    /// Where it was made, if it has that name still, and had no other since.
    pub birthplace: Option<(Id, String)>,
    /// When it was promised that it can be found.
    pub promised: Vec<Step>,
}

/// Objects by the numbers that the history of the disk gives them.
#[derive(Debug, Default, Clone)]
pub struct Model {
    pub step: Step,
    pub files: HashMap<Id, File>,
    pub directories: HashMap<Id, Directory>,
    pub symlinks: HashMap<Id, String>,
    pub links: HashMap<Id, Links>,
}

impl Model {
    /// With an empty root.
    pub fn new() -> Self {
        let mut model = Self::default();
        model.directories.insert(0, Directory::default());
        model
    }

    pub fn entry(&self, directory: Id, name: &str) -> Option<Id> {
        let known = self.directories.get(&directory)?.entries.get(name);
        *known.map(Versions::now)?
    }

    /// What is at a path now.
    pub fn find(&self, path: &str) -> Option<Id> {
        let mut names = path.split('/').filter(|name| !name.is_empty());
        names.try_fold(0, |found, name| self.entry(found, name))
    }

    /// The directory and the name in it.
    fn parent<'a>(&self, path: &'a str) -> (Id, &'a str) {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        (self.find(parent).expect("a directory"), name)
    }

    fn set_name(&mut self, (directory, name): (Id, &str), id: Option<Id>) {
        let step = self.step;
        let entries = &mut self.directories.get_mut(&directory).unwrap().entries;
        let known = entries.entry(name.to_owned());
        known
            .or_insert_with(|| Versions::new(0, None))
            .set(step, id);
    }

    fn count(&mut self, id: Id, change: isize) {
        let step = self.step;
        let links = self.links.entry(id).or_insert_with(|| Links {
            count: Versions::new(step, 0),
            birthplace: None,
            promised: Vec::new(),
        });
        let count = links.count.now().checked_add_signed(change).unwrap();
        links.count.set(step, count);
        links.birthplace = None;
    }

    /// Something new has its first name.
    pub fn born(&mut self, path: &str, id: Id) {
        self.linked(path, id);
        let (parent, name) = self.parent(path);
        self.links.get_mut(&id).unwrap().birthplace = Some((parent, name.to_owned()));
    }

    pub fn linked(&mut self, path: &str, id: Id) {
        self.set_name(self.parent(path), Some(id));
        self.count(id, 1);
    }

    pub fn unlinked(&mut self, path: &str) {
        let id = self.find(path).expect("a known object");
        self.set_name(self.parent(path), None);
        self.count(id, -1);
    }

    pub fn renamed(&mut self, old: &str, new: &str, exchange: bool) {
        let moved = self.find(old).expect("a known object");
        let replaced = self.find(new);
        if replaced == Some(moved) {
            return;
        }
        let (from, to) = (self.parent(old), self.parent(new));
        self.set_name(to, Some(moved));
        if exchange || replaced.is_some_and(|id| self.directories.contains_key(&id)) {
            // A directory takes another's place by an exchange, before that goes.
            self.set_name(from, replaced);
        }
        self.count(moved, 0);
        if exchange {
            self.count(replaced.expect("two"), 0);
        } else {
            self.set_name(from, None);
            if let Some(replaced) = replaced {
                self.count(replaced, -1);
            }
        }
    }

    pub fn make_file(&mut self, id: Id, content: Content, mode: u32) {
        let file = File {
            content: Versions::new(self.step, content),
            mode: Versions::new(self.step, mode),
            attributes: HashMap::new(),
            synced: Vec::new(),
            synced_whole: Vec::new(),
        };
        self.files.insert(id, file);
    }

    pub fn change(&mut self, id: Id, change: impl FnOnce(&mut Content)) {
        let step = self.step;
        let content = &mut self.files.get_mut(&id).unwrap().content;
        let mut next = content.now().clone();
        change(&mut next);
        content.set(step, next);
    }

    pub fn set_attribute(&mut self, id: Id, name: &str, value: Option<Vec<u8>>) {
        let step = self.step;
        let attributes = &mut self.files.get_mut(&id).unwrap().attributes;
        let known = attributes.entry(name.to_owned());
        known
            .or_insert_with(|| Versions::new(0, None))
            .set(step, value);
    }

    /// The name under which an object was made is promised, and those of the directories above.
    fn promise_birthplace(&mut self, id: Id) {
        let (step, mut next) = (self.step, id);
        while let Some((parent, name)) = self
            .links
            .get(&next)
            .and_then(|links| links.birthplace.clone())
        {
            self.links.get_mut(&next).unwrap().promised.push(step);
            let directory = self.directories.get_mut(&parent).unwrap();
            directory.promised.entry(name).or_default().push(step);
            next = parent;
        }
    }

    pub fn synced_file(&mut self, id: Id, data_only: bool) {
        let step = self.step;
        let file = self.files.get_mut(&id).unwrap();
        file.synced.push(step);
        if !data_only {
            file.synced_whole.push(step);
        }
        self.promise_birthplace(id);
    }

    pub fn synced_directory(&mut self, id: Id) {
        let step = self.step;
        self.promise_birthplace(id);
        let directory = self.directories.get_mut(&id).unwrap();
        for (name, known) in &directory.entries {
            directory
                .promised
                .entry(name.clone())
                .or_default()
                .push(step);
            if let Some(child) = known.now() {
                self.links.get_mut(child).unwrap().promised.push(step);
            }
        }
    }

    /// Everything is on the disk.
    pub fn synced_all(&mut self) {
        for id in self.files.keys().copied().collect::<Vec<_>>() {
            self.synced_file(id, false);
        }
        for id in self.directories.keys().copied().collect::<Vec<_>>() {
            self.synced_directory(id);
        }
    }
}

/// The last sync that had returned.
pub fn last(synced: &[Step], done: Step) -> Option<Step> {
    synced.iter().rev().find(|step| **step <= done).copied()
}
