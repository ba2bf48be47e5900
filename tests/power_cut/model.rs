//! What may be found after a power cut: the ledger up to the cut, replayed. What was durable before it was made must be there;
//! what came later may be there.

use std::collections::{BTreeMap, HashMap};

use crate::content::Content;
use crate::ledger::{Event, Id, Kind, Ledger, TOP};

/// The durable value, and those after it.
#[derive(Debug, Clone)]
pub struct Choice<T>(Vec<T>);

impl<T: PartialEq> Choice<T> {
    fn new(durable: T) -> Self {
        Self(vec![durable])
    }

    fn push(&mut self, value: T) {
        self.0.push(value);
    }

    fn settle(&mut self) {
        self.0.drain(..self.0.len() - 1);
    }

    /// All that it may be.
    pub fn all(&self) -> &[T] {
        &self.0
    }

    /// Whether it may be this.
    pub fn allows(&self, value: &T) -> bool {
        self.0.contains(value)
    }
}

/// An object.
#[derive(Debug)]
pub struct Object {
    pub kind: Kind,
    /// Of a file.
    pub content: Content,
    /// Of a directory: what each name leads to.
    pub names: BTreeMap<String, Choice<Option<Id>>>,
    /// Of a directory: what names have led to that are gone for good.
    former: BTreeMap<String, Vec<Id>>,
    /// The event that set each attribute.
    pub attributes: BTreeMap<String, Choice<Option<u64>>>,
    /// Of a directory: where it is now.
    place: Option<(Id, String)>,
    /// Of a directory: something in it was synced before, so that it is there.
    anchored: bool,
}

/// All objects of one worker.
#[derive(Debug)]
pub struct Model {
    worker: u32,
    objects: HashMap<Id, Object>,
    events: Vec<Event>,
    before: usize,
    /// The filesystem may bring back names that were removed.
    pub names_return: bool,
    /// Rows of a database: the last that was committed, and the last that was begun.
    pub rows: (u64, u64),
}

impl Model {
    /// What may be found if the power was cut between these two positions of the ledger.
    pub fn replay(worker: u32, ledger: &Ledger, before: usize, after: usize) -> Self {
        let events = ledger.first(after);
        let mut model = Self {
            worker,
            objects: HashMap::new(),
            events: Vec::new(),
            before,
            names_return: false,
            rows: (0, 0),
        };
        model.make(TOP, Kind::Folder);
        model.object(TOP).anchored = true;
        for (at, event) in events.iter().enumerate() {
            model.apply(at as u64, event.clone(), at < before);
        }
        model.events = events;
        model
    }

    /// An object.
    pub fn get(&self, id: Id) -> &Object {
        &self.objects[&id]
    }

    /// The last that happened to an object.
    pub fn story(&self, id: Id) -> String {
        let events = self
            .events
            .iter()
            .enumerate()
            .filter(|(_, event)| event.concerns(id));
        let mut told: Vec<_> = events
            .map(|(at, event)| format!("{at} {event:?}"))
            .collect();
        let told = told.split_off(told.len().saturating_sub(16));
        format!(
            "cut at {} of {}; of {id}: {}",
            self.before,
            self.events.len(),
            told.join("; ")
        )
    }

    /// What a name of a directory has once led to, where the filesystem may bring that back: btrfs does, of a file that was
    /// synced before it was renamed, without cmkfs as well.
    pub fn returning(&self, folder: Id, name: &str) -> &[Id] {
        let former = self.get(folder).former.get(name);
        former
            .filter(|_| self.names_return)
            .map_or(&[], Vec::as_slice)
    }

    /// How many objects were ever made.
    pub fn count(&self) -> usize {
        self.objects.len()
    }

    fn object(&mut self, id: Id) -> &mut Object {
        self.objects.get_mut(&id).unwrap()
    }

    fn make(&mut self, id: Id, kind: Kind) {
        let object = Object {
            kind,
            content: Content::new(),
            names: BTreeMap::new(),
            former: BTreeMap::new(),
            attributes: BTreeMap::new(),
            place: None,
            anchored: false,
        };
        self.objects.insert(id, object);
    }

    fn apply(&mut self, at: u64, event: Event, before: bool) {
        let worker = self.worker;
        match event {
            Event::Make(id, kind) => self.make(id, kind),
            Event::Link(folder, name, id) => {
                if self.get(id).kind == Kind::Folder {
                    self.object(id).place = Some((folder, name.clone()));
                }
                self.lead(folder, name, Some(id));
            }
            Event::Unlink(folder, name) => self.lead(folder, name, None),
            Event::Write {
                file,
                range,
                mapped,
            } => {
                self.object(file)
                    .content
                    .write(tag(worker, file), at, &range, mapped);
            }
            Event::Resize(file, size) => self.object(file).content.resize(at, size),
            Event::Punch(file, range) => self.object(file).content.punch(at, &range),
            Event::Attribute(id, name, set) => {
                let attributes = &mut self.object(id).attributes;
                let value = attributes.entry(name).or_insert_with(|| Choice::new(None));
                value.push(set.then_some(at));
            }
            Event::Synced {
                object,
                folder,
                attributes,
            } if before => {
                self.settle(object, attributes);
                self.anchor(folder);
            }
            Event::Commit(row) => self.rows.1 = row,
            Event::Committed(row) if before => self.rows.0 = row,
            // It returned too late to promise anything.
            Event::Synced { .. } | Event::Committed(_) => {}
        }
    }

    fn lead(&mut self, folder: Id, name: String, to: Option<Id>) {
        let names = &mut self.object(folder).names;
        names
            .entry(name)
            .or_insert_with(|| Choice::new(None))
            .push(to);
    }

    fn settle(&mut self, id: Id, attributes: bool) {
        let object = self.object(id);
        for (name, choice) in &mut object.names {
            let former = object.former.entry(name.clone()).or_default();
            former.extend(choice.all().iter().flatten());
            choice.settle();
        }
        object.names.retain(|_, choice| !choice.allows(&None));
        object.content.settle();
        if attributes {
            object.attributes.values_mut().for_each(Choice::settle);
        }
    }

    /// The first sync in a directory brings its own entry along, and those of the directories above.
    fn anchor(&mut self, folder: Id) {
        let mut next = Some(folder);
        while let Some(id) = next {
            let object = self.object(id);
            let place = object.place.clone();
            let anchored = std::mem::replace(&mut object.anchored, true);
            if let Some((above, name)) = &place
                && !anchored
                && let Some(choice) = self.object(*above).names.get_mut(name)
                && choice.all().last() == Some(&Some(id))
            {
                choice.settle();
            }
            next = place.map(|(above, _)| above);
        }
    }
}

/// What the bytes of a file are marked with.
pub const fn tag(worker: u32, file: Id) -> u32 {
    worker << 24 | file
}
