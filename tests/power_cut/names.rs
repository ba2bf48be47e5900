//! A worker that changes names: trees of directories, replaced files, links, long names, attributes.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use rustix::fs::XattrFlags;

use crate::ledger::{Event, Id, Kind, Ledger, TOP};
use crate::model::tag;
use crate::pattern;
use crate::random::Random;

const FOLDERS: usize = 12;
const NAMES: usize = 10;
const ATTRIBUTES: usize = 4;

/// Two of these make a name that does not fit into one of the backing directory.
pub const LONG: &str = "a name so long that it has to be kept in a file of its own, beside what has it, because its ciphertext is no name";

struct Folder {
    above: Id,
    name: String,
    names: BTreeMap<String, Id>,
}

/// The worker.
pub struct Names<'a> {
    worker: u32,
    top: PathBuf,
    ledger: &'a Ledger,
    random: Random,
    next: Id,
    folders: HashMap<Id, Folder>,
    sizes: HashMap<Id, u64>,
}

impl<'a> Names<'a> {
    pub fn new(worker: u32, top: PathBuf, ledger: &'a Ledger, random: Random) -> Self {
        let root = Folder {
            above: TOP,
            name: String::new(),
            names: BTreeMap::new(),
        };
        Self {
            worker,
            top,
            ledger,
            random,
            next: TOP + 1,
            folders: HashMap::from([(TOP, root)]),
            sizes: HashMap::new(),
        }
    }

    /// Does something.
    pub fn step(&mut self) {
        let folder = self.any_folder();
        match self.random.below(14) {
            0..=2 => self.replace(folder),
            3 => self.create(folder),
            4 => self.make_tree(folder),
            5 => self.remove(folder),
            6 => self.link(folder),
            7 => self.symlink(folder),
            8 => self.rename(folder),
            9 => self.move_folder(folder),
            10 => self.attribute(folder),
            11 => self.overwrite(folder),
            12 => self.remove_tree(folder),
            _ => self.sync_folder(folder),
        }
    }

    fn any_folder(&mut self) -> Id {
        let mut folders: Vec<Id> = self.folders.keys().copied().collect();
        folders.sort_unstable();
        *self.random.of(&folders)
    }

    fn path(&self, folder: Id) -> PathBuf {
        if folder == TOP {
            return self.top.clone();
        }
        let known = &self.folders[&folder];
        self.path(known.above).join(&known.name)
    }

    /// A name that may or may not be there.
    fn name(&mut self) -> String {
        let number = self.random.below(NAMES);
        match self.random.below(4) {
            0 => format!("{number}{LONG}{LONG}"),
            _ => format!("n{number}"),
        }
    }

    fn new_id(&mut self, kind: Kind) -> Id {
        let id = self.next;
        self.next += 1;
        self.ledger.push(Event::Make(id, kind));
        id
    }

    fn entered(&mut self, folder: Id, name: &str, id: Id) {
        self.folders
            .get_mut(&folder)
            .unwrap()
            .names
            .insert(name.to_owned(), id);
    }

    fn left(&mut self, folder: Id, name: &str) {
        self.folders.get_mut(&folder).unwrap().names.remove(name);
    }

    /// Some file of a directory.
    fn some_file(&mut self, folder: Id) -> Option<(String, Id)> {
        let names = &self.folders[&folder].names;
        let is_file = |(_, id): &(&String, &Id)| self.sizes.contains_key(id);
        let files: Vec<_> = names
            .iter()
            .filter(is_file)
            .map(|(name, id)| (name.clone(), *id))
            .collect();
        (!files.is_empty()).then(|| self.random.of(&files).clone())
    }

    fn write(&mut self, file: &File, id: Id) {
        let size = self.sizes.get(&id).copied().unwrap_or(0);
        let start = if size > 0 {
            self.random.below(size as usize) as u64
        } else {
            0
        };
        let range = start..start + 1 + self.random.below(12_000) as u64;
        let version = self.ledger.push(Event::Write {
            file: id,
            range: range.clone(),
            mapped: false,
        });
        let bytes = pattern::bytes(tag(self.worker, id), version, range.clone());
        file.write_all_at(&bytes, range.start).unwrap();
        self.sizes.insert(id, size.max(range.end));
    }

    fn sync(&self, file: &File, id: Id, folder: Id) {
        file.sync_all().unwrap();
        self.ledger.push(Event::Synced {
            object: id,
            folder,
            attributes: true,
        });
    }

    fn sync_folder(&self, folder: Id) {
        self.sync(&File::open(self.path(folder)).unwrap(), folder, folder);
    }

    /// As careful programs do.
    fn replace(&mut self, folder: Id) {
        let (name, path) = (self.name(), self.path(folder));
        let old = self.folders[&folder].names.get(&name);
        if old.is_some_and(|old| self.folders.contains_key(old)) {
            return;
        }
        let id = self.new_id(Kind::File);
        let temporary = "temporary".to_owned();
        self.ledger.push(Event::Link(folder, temporary.clone(), id));
        let file = File::create_new(path.join(&temporary)).unwrap();
        self.write(&file, id);
        self.sync(&file, id, folder);
        self.ledger.push(Event::Link(folder, name.clone(), id));
        self.ledger.push(Event::Unlink(folder, temporary.clone()));
        fs::rename(path.join(&temporary), path.join(&name)).unwrap();
        self.entered(folder, &name, id);
        if self.random.below(3) > 0 {
            self.sync_folder(folder);
        }
    }

    fn create(&mut self, folder: Id) {
        let (name, path) = (self.name(), self.path(folder));
        if self.folders[&folder].names.contains_key(&name) {
            return;
        }
        let id = self.new_id(Kind::File);
        self.ledger.push(Event::Link(folder, name.clone(), id));
        let file = File::create_new(path.join(&name)).unwrap();
        self.sizes.insert(id, 0);
        if self.random.below(4) > 0 {
            self.write(&file, id);
        }
        self.entered(folder, &name, id);
        match self.random.below(3) {
            0 => self.sync(&file, id, folder),
            1 => self.sync_folder(folder),
            _ => {}
        }
    }

    /// A chain of directories with a file at its end. What is synced is the file and the last directory alone.
    fn make_tree(&mut self, mut folder: Id) {
        for _ in 0..=self.random.below(3) {
            let (name, path) = (self.name(), self.path(folder));
            if self.folders.len() >= FOLDERS || self.folders[&folder].names.contains_key(&name) {
                break;
            }
            let id = self.new_id(Kind::Folder);
            self.ledger.push(Event::Link(folder, name.clone(), id));
            fs::create_dir(path.join(&name)).unwrap();
            self.entered(folder, &name, id);
            self.folders.insert(
                id,
                Folder {
                    above: folder,
                    name,
                    names: BTreeMap::new(),
                },
            );
            folder = id;
        }
        self.create(folder);
        if self.random.below(2) == 0 {
            self.sync_folder(folder);
        }
    }

    fn remove(&mut self, folder: Id) {
        let names: Vec<String> = self.folders[&folder].names.keys().cloned().collect();
        if names.is_empty() {
            return;
        }
        let name = self.random.of(&names).clone();
        self.remove_name(folder, &name);
        if self.random.below(2) == 0 {
            self.sync_folder(folder);
        }
    }

    fn remove_name(&mut self, folder: Id, name: &str) {
        let id = self.folders[&folder].names[name];
        let path = self.path(folder).join(name);
        if let Some(below) = self.folders.get(&id) {
            if !below.names.is_empty() {
                return;
            }
            self.ledger.push(Event::Unlink(folder, name.to_owned()));
            fs::remove_dir(path).unwrap();
            self.folders.remove(&id);
        } else {
            self.ledger.push(Event::Unlink(folder, name.to_owned()));
            fs::remove_file(path).unwrap();
        }
        self.left(folder, name);
    }

    fn remove_tree(&mut self, folder: Id) {
        let names: Vec<(String, Id)> = self.folders[&folder]
            .names
            .iter()
            .map(|(name, id)| (name.clone(), *id))
            .collect();
        for (name, id) in names {
            if self.folders.contains_key(&id) {
                self.remove_tree(id);
            }
            self.remove_name(folder, &name);
        }
    }

    fn link(&mut self, folder: Id) {
        let (name, path) = (self.name(), self.path(folder));
        let Some((file, id)) = self.some_file(folder) else {
            return;
        };
        if self.folders[&folder].names.contains_key(&name) {
            return;
        }
        self.ledger.push(Event::Link(folder, name.clone(), id));
        fs::hard_link(path.join(file), path.join(&name)).unwrap();
        self.entered(folder, &name, id);
        if self.random.below(2) == 0 {
            self.sync_folder(folder);
        }
    }

    fn symlink(&mut self, folder: Id) {
        let (name, path) = (self.name(), self.path(folder));
        if self.folders[&folder].names.contains_key(&name) {
            return;
        }
        let length = *self.random.of(&[1, 30, 2500, 4000]);
        let target = format!("{}{}", self.next, "t".repeat(length));
        let id = self.new_id(Kind::Symlink(target.clone()));
        self.ledger.push(Event::Link(folder, name.clone(), id));
        std::os::unix::fs::symlink(target, path.join(&name)).unwrap();
        self.entered(folder, &name, id);
        if self.random.below(2) == 0 {
            self.sync_folder(folder);
        }
    }

    /// Moves anything but a directory, over whatever is there.
    fn rename(&mut self, from: Id) {
        let to = self.any_folder();
        let name = self.name();
        let Some((old, id)) = self.some_file(from) else {
            return;
        };
        let there = self.folders[&to].names.get(&name).copied();
        if there.is_some_and(|there| self.folders.contains_key(&there) || there == id) {
            return;
        }
        self.moved(from, &old, to, &name, id);
    }

    fn move_folder(&mut self, id: Id) {
        let to = self.any_folder();
        let name = self.name();
        let mut above = to;
        while above != TOP && above != id {
            above = self.folders[&above].above;
        }
        if id == TOP || above == id || self.folders[&to].names.contains_key(&name) {
            return;
        }
        let (from, old) = (self.folders[&id].above, self.folders[&id].name.clone());
        self.moved(from, &old, to, &name, id);
        let folder = self.folders.get_mut(&id).unwrap();
        (folder.above, folder.name) = (to, name);
    }

    fn moved(&mut self, from: Id, old: &str, to: Id, name: &str, id: Id) {
        self.ledger.push(Event::Link(to, name.to_owned(), id));
        self.ledger.push(Event::Unlink(from, old.to_owned()));
        fs::rename(self.path(from).join(old), self.path(to).join(name)).unwrap();
        self.left(from, old);
        self.entered(to, name, id);
        match self.random.below(4) {
            0 => self.sync_folder(to),
            1 => self.sync_folder(from),
            2 => {
                self.sync_folder(to);
                self.sync_folder(from);
            }
            _ => {}
        }
    }

    fn open(&self, folder: Id, name: &str) -> File {
        let path = self.path(folder).join(name);
        OpenOptions::new()
            .read(true)
            .write(true)
            .open(path)
            .unwrap()
    }

    fn attribute(&mut self, folder: Id) {
        let Some((name, id)) = self.some_file(folder) else {
            return;
        };
        let attribute = format!("user.a{}", self.random.below(ATTRIBUTES));
        let file = self.open(folder, &name);
        let set = self.random.below(4) > 0;
        let event = self
            .ledger
            .push(Event::Attribute(id, attribute.clone(), set));
        if set {
            let value = attribute_value(event);
            rustix::fs::fsetxattr(&file, &*attribute, &value, XattrFlags::empty()).unwrap();
        } else {
            let _ = rustix::fs::fremovexattr(&file, &*attribute);
        }
        if self.random.below(2) == 0 {
            self.sync(&file, id, folder);
        }
    }

    fn overwrite(&mut self, folder: Id) {
        let Some((name, id)) = self.some_file(folder) else {
            return;
        };
        let file = self.open(folder, &name);
        if self.sizes[&id] < 50_000 {
            self.write(&file, id);
        }
        if self.random.below(2) == 0 {
            self.sync(&file, id, folder);
        }
    }
}

/// The value that an event gives an attribute.
pub fn attribute_value(event: u64) -> Vec<u8> {
    pattern::bytes(0, event, 0..1 + event * 7 % 150)
}
