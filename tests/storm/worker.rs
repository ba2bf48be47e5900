//! One thread of file operations on files of its own: it knows what each must hold, and who else breaks it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::XattrFlags;

use crate::model::{Content, UNIT, UNITS};
use crate::random::Random;
use crate::watch::Watched;

const OBJECTS: usize = 40;
const XATTR: &str = "user.storm";

/// What is at a name.
#[derive(Debug)]
enum What {
    File(Content),
    Directory,
    Symlink(PathBuf),
}

/// An object, under one name unless a rename failed.
#[derive(Debug)]
struct Object {
    what: What,
    paths: Vec<PathBuf>,
    /// Making or removing it failed: it is there or not.
    may_be_missing: bool,
    /// Its attribute's value, one unless a change of it failed.
    attributes: Vec<Option<Vec<u8>>>,
    handle: Option<File>,
}

/// A thread's files.
pub struct Worker<'a> {
    number: usize,
    /// Directories of its own, of several keys.
    folders: Vec<PathBuf>,
    objects: Vec<Object>,
    made: u64,
    random: Random,
    watched: &'a Watched,
    /// Operations that succeeded, and that were refused.
    pub counts: (u64, u64),
}

type Outcome<T> = io::Result<T>;

impl<'a> Worker<'a> {
    /// A thread that works in these directories, which are empty.
    pub fn new(number: usize, seed: u64, folders: Vec<PathBuf>, watched: &'a Watched) -> Self {
        Self {
            number,
            folders,
            objects: Vec::new(),
            made: 0,
            random: Random::new(seed, number as u64 + 1),
            watched,
            counts: (0, 0),
        }
    }

    /// Does something.
    pub fn step(&mut self) {
        if self.objects.is_empty() || self.objects.len() < OBJECTS && self.random.below(4) == 0 {
            return self.make();
        }
        let which = self.random.below(self.objects.len());
        if !self.find(which) {
            return;
        }
        match self.random.below(24) {
            0 | 1 => self.rename(which),
            2 => self.remove(which),
            3 => self.list(),
            4 | 5 => self.stat(which),
            6 | 7 => self.set_attribute(which),
            8 | 9 => self.get_attribute(which),
            10 => self.hold(which),
            _ => self.use_it(which),
        }
    }

    /// Everything can be read, and is what it has to be; nothing else is there.
    pub fn check(&mut self) {
        for which in (0..self.objects.len()).rev() {
            self.objects[which].handle = None;
            let there = self.find(which);
            if !there {
                continue;
            }
            self.get_attribute(which);
            match self.objects[which].what {
                What::File(_) => self.read(which),
                What::Directory => self.stat(which),
                What::Symlink(_) => self.follow(which),
            }
        }
        assert!(self.objects.iter().all(|object| object.paths.len() == 1));
        let mut expected: BTreeSet<_> = self.objects.iter().map(|o| o.paths[0].clone()).collect();
        for folder in &self.folders {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                assert!(expected.remove(&path), "{} is nobody's", path.display());
            }
        }
        assert!(expected.is_empty(), "not listed: {expected:?}");
    }

    /// Runs an operation, which has to end in time, and may be refused as it is documented and with `also`.
    fn run<T>(
        &mut self,
        what: &str,
        path: &Path,
        also: &[i32],
        operation: impl FnOnce() -> Outcome<T>,
    ) -> Outcome<T> {
        let name = format!("{what} {}", path.display());
        let result = self.watched.run(self.number, &name, operation);
        match &result {
            Ok(_) => self.counts.0 += 1,
            Err(error) => {
                self.counts.1 += 1;
                let errno = error.raw_os_error().unwrap_or_default();
                let is_documented = [libc::EKEYREVOKED, libc::ENOKEY].contains(&errno);
                assert!(
                    is_documented || also.contains(&errno) || self.watched.is_broken(),
                    "{name}: {error}"
                );
            }
        }
        result
    }

    /// Finds out under which name an object is, and whether it is at all. Forgets it where it is not.
    fn find(&mut self, which: usize) -> bool {
        let object = &self.objects[which];
        if object.paths.len() == 1 && !object.may_be_missing {
            return true;
        }
        let mut found = Vec::new();
        for path in object.paths.clone() {
            match self.run("find", &path, &[libc::ENOENT], || {
                fs::symlink_metadata(&path)
            }) {
                Ok(_) => found.push(path),
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
                Err(_) => return false,
            }
        }
        let object = &mut self.objects[which];
        assert!(found.len() < 2, "it is there twice: {object:?}");
        if found.is_empty() {
            assert!(object.may_be_missing, "it is lost: {:?}", object.paths);
            self.objects.swap_remove(which);
            return false;
        }
        object.paths = found;
        object.may_be_missing = false;
        true
    }

    fn path(&self, which: usize) -> PathBuf {
        self.objects[which].paths[0].clone()
    }

    fn new_path(&mut self) -> PathBuf {
        self.made += 1;
        let folder = self.random.of(&self.folders).clone();
        // Some are longer than an entry of the backing directory can be.
        let length = *self.random.of(&[1, 20, 200]);
        folder.join(format!("{}{}", self.made, "x".repeat(length)))
    }

    fn make(&mut self) {
        let path = self.new_path();
        let (what, made) = match self.random.below(8) {
            0 => (
                What::Directory,
                self.run("mkdir", &path, &[], || fs::create_dir(&path)),
            ),
            1 => {
                let target = PathBuf::from("t".repeat(1 + self.random.below(600)));
                let made = self.run("symlink", &path, &[], || {
                    std::os::unix::fs::symlink(&target, &path)
                });
                (What::Symlink(target), made)
            }
            _ => {
                let file = self.made << 8 | self.number as u64;
                let made = self.run("create", &path, &[], || File::create_new(&path).map(drop));
                (What::File(Content::empty(file)), made)
            }
        };
        self.objects.push(Object {
            what,
            paths: vec![path],
            may_be_missing: made.is_err(),
            attributes: vec![None],
            handle: None,
        });
    }

    fn rename(&mut self, which: usize) {
        let (from, to) = (self.path(which), self.new_path());
        let renamed = self.run("rename", &from, &[libc::EXDEV], || fs::rename(&from, &to));
        let paths = &mut self.objects[which].paths;
        match renamed {
            Ok(()) => *paths = vec![to],
            Err(error) if error.raw_os_error() == Some(libc::EXDEV) => {}
            Err(_) => paths.push(to),
        }
    }

    fn remove(&mut self, which: usize) {
        let path = self.path(which);
        let is_directory = matches!(self.objects[which].what, What::Directory);
        let removed = self.run("remove", &path, &[], || {
            if is_directory {
                fs::remove_dir(&path)
            } else {
                fs::remove_file(&path)
            }
        });
        match removed {
            // Who has it open goes on with it.
            Ok(()) if self.objects[which].handle.is_some() => {
                self.use_it(which);
                self.objects.swap_remove(which);
            }
            Ok(()) => drop(self.objects.swap_remove(which)),
            Err(_) => self.objects[which].may_be_missing = true,
        }
    }

    fn list(&mut self) {
        let folder = self.random.of(&self.folders).clone();
        let listed = self.run("list", &folder, &[], || {
            fs::read_dir(&folder)?
                .map(|entry| entry.map(|entry| entry.path()))
                .collect::<io::Result<BTreeSet<_>>>()
        });
        let Ok(listed) = listed else { return };
        for object in &self.objects {
            let [path] = &object.paths[..] else { continue };
            if path.parent() == Some(&folder) && !object.may_be_missing {
                assert!(listed.contains(path), "{} is not listed", path.display());
            }
        }
        for path in listed {
            let is_its = |object: &Object| object.paths.contains(&path);
            assert!(self.objects.iter().any(is_its), "{path:?} is nobody's");
        }
    }

    fn stat(&mut self, which: usize) {
        let path = self.path(which);
        let Ok(found) = self.run("stat", &path, &[], || fs::symlink_metadata(&path)) else {
            return;
        };
        match &self.objects[which].what {
            What::File(content) => {
                assert!(found.is_file());
                let limit = (content.length() * UNIT) as u64;
                assert!(found.len() <= limit, "{}: {}", path.display(), found.len());
            }
            What::Directory => assert!(found.is_dir()),
            What::Symlink(_) => assert!(found.is_symlink()),
        }
    }

    fn set_attribute(&mut self, which: usize) {
        if matches!(self.objects[which].what, What::Symlink(_)) {
            return;
        }
        let path = self.path(which);
        let value = vec![self.made as u8; 1 + self.random.below(200)];
        let set = self.run("setxattr", &path, &[], || {
            Ok(rustix::fs::setxattr(
                &path,
                XATTR,
                &value,
                XattrFlags::empty(),
            )?)
        });
        let attributes = &mut self.objects[which].attributes;
        if set.is_ok() {
            attributes.clear();
        }
        attributes.push(Some(value));
    }

    fn get_attribute(&mut self, which: usize) {
        if matches!(self.objects[which].what, What::Symlink(_)) {
            return;
        }
        let path = self.path(which);
        let found = self.run("getxattr", &path, &[libc::ENODATA], || {
            let mut value = vec![0; 1000];
            let length = rustix::fs::getxattr(&path, XATTR, &mut value)?;
            value.truncate(length);
            Ok(value)
        });
        let found = match found {
            Ok(value) => Some(value),
            Err(error) if error.raw_os_error() == Some(libc::ENODATA) => None,
            Err(_) => return,
        };
        let attributes = &self.objects[which].attributes;
        assert!(
            attributes.contains(&found),
            "{}: {found:?}, not {attributes:?}",
            path.display()
        );
    }

    /// Keeps a file open from now on, or no longer.
    fn hold(&mut self, which: usize) {
        let path = self.path(which);
        let object = &mut self.objects[which];
        if object.handle.take().is_some() || !matches!(object.what, What::File(_)) {
            return;
        }
        let opened = self.run("open", &path, &[], || {
            File::options().read(true).write(true).open(&path)
        });
        self.objects[which].handle = opened.ok();
    }

    fn use_it(&mut self, which: usize) {
        match self.objects[which].what {
            What::File(_) => match self.random.below(8) {
                0..4 => self.read(which),
                4 => self.truncate(which),
                _ => self.write(which),
            },
            What::Directory => self.stat(which),
            What::Symlink(_) => self.follow(which),
        }
    }

    fn follow(&mut self, which: usize) {
        let path = self.path(which);
        let found = self.run("readlink", &path, &[], || fs::read_link(&path));
        let What::Symlink(target) = &self.objects[which].what else {
            return;
        };
        if let Ok(found) = found {
            assert_eq!(&found, target, "{}", path.display());
        }
    }

    fn handle(&mut self, which: usize) -> Option<File> {
        let handle = self.objects[which].handle.as_ref()?;
        Some(handle.try_clone().unwrap())
    }

    fn read(&mut self, which: usize) {
        let path = self.path(which);
        let handle = self.handle(which);
        let found = self.run("read", &path, &[], || {
            let file = match handle {
                Some(handle) => handle,
                None => File::open(&path)?,
            };
            let mut bytes = vec![0; UNITS * UNIT + 1];
            let mut length = 0;
            while let count @ 1.. = file.read_at(&mut bytes[length..], length as u64)? {
                length += count;
            }
            bytes.truncate(length);
            Ok(bytes)
        });
        let What::File(content) = &self.objects[which].what else {
            return;
        };
        if let Ok(found) = found
            && let Some(why) = content.contradiction(&found)
        {
            panic!("{}: {why}", path.display());
        }
    }

    fn write(&mut self, which: usize) {
        let path = self.path(which);
        let handle = self.handle(which);
        let version = self.watched.count();
        let place = (self.random.below(UNITS), self.random.below(UNITS));
        let is_synced = handle.is_some() || self.random.below(3) == 0;
        let What::File(content) = &self.objects[which].what else {
            return;
        };
        let first = place.0 % (content.length() + 1).min(UNITS);
        let count = 1 + place.1 % (UNITS - first).min(60);
        let bytes = content.bytes(first, count, version);
        // What could not be written back, the kernel reports as EIO at fsync(2) and close(2).
        let written = self.run("write", &path, &[libc::EIO], || {
            let file = match handle {
                Some(handle) => handle,
                None => File::options().write(true).open(&path)?,
            };
            file.write_all_at(&bytes, (first * UNIT) as u64)?;
            if is_synced {
                file.sync_all()?;
            }
            Ok(nix::unistd::close(file)?)
        });
        if let What::File(content) = &mut self.objects[which].what {
            content.wrote(first, count, version, written.is_ok());
        }
    }

    fn truncate(&mut self, which: usize) {
        let path = self.path(which);
        let handle = self.handle(which);
        let length = self.random.below(UNITS);
        let truncated = self.run("truncate", &path, &[libc::EIO], || {
            let file = match handle {
                Some(handle) => handle,
                None => File::options().write(true).open(&path)?,
            };
            file.set_len((length * UNIT) as u64)?;
            file.sync_all()?;
            Ok(nix::unistd::close(file)?)
        });
        if let What::File(content) = &mut self.objects[which].what {
            content.truncated(length, truncated.is_ok());
        }
    }
}
