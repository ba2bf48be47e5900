//! Names: files, directories and symlinks are made, renamed, exchanged, linked and removed, attributes set. The daemon
//! answers when it is done: so what is found is as it was before the operation that was under way, or after it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::fs::{CWD, RenameFlags, XattrFlags, renameat_with};

use crate::random::Random;
use crate::{Load, Round, ended_by_the_kill};

const ATTRIBUTE: &str = "user.version";
/// Where a file is made before it gets its name.
const NEW: &str = "new";

#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    File(Vec<u8>, Option<Vec<u8>>),
    Directory,
    Symlink(String),
}

type Model = BTreeMap<String, Entry>;

#[derive(Default)]
pub struct Names {
    model: Model,
    /// As it is once the operation under way is done.
    next: Option<Model>,
    counter: u64,
}

/// Some are kept in side files.
fn name(random: &mut Random) -> String {
    let n = random.below(12);
    if n.is_multiple_of(3) {
        format!("{n}-{}", "n".repeat(240))
    } else {
        format!("{n}")
    }
}

impl Names {
    fn step(&mut self, folder: &Path, random: &mut Random) -> io::Result<()> {
        self.counter += 1;
        let (one, other) = (name(random), name(random));
        let (at, to) = (folder.join(&one), folder.join(&other));
        let mut next = self.model.clone();
        let (is, was) = (next.get(&one).cloned(), next.get(&other).cloned());
        let operation: Box<dyn FnOnce() -> io::Result<()>> = match (random.below(7), is, was) {
            (0 | 1, None | Some(Entry::File(..)), _) => {
                let content = format!("{} ", self.counter)
                    .repeat(1 + random.below(3000))
                    .into_bytes();
                let mut file = fs::File::create(folder.join(NEW))?;
                file.write_all(&content)?;
                file.sync_all()?;
                next.insert(one, Entry::File(content, None));
                let new = folder.join(NEW);
                Box::new(move || fs::rename(new, at))
            }
            (2, None, _) => {
                next.insert(one, Entry::Directory);
                Box::new(move || fs::create_dir(at))
            }
            (3, None, _) => {
                let target = "target".repeat(1 + random.below(600));
                next.insert(one, Entry::Symlink(target.clone()));
                Box::new(move || symlink(target, at))
            }
            (2 | 3, Some(entry), _) => {
                next.remove(&one);
                Box::new(move || match entry {
                    Entry::Directory => fs::remove_dir(at),
                    _ => fs::remove_file(at),
                })
            }
            (4, Some(entry), Some(target)) if one != other => {
                next.insert(one, target);
                next.insert(other, entry);
                Box::new(move || Ok(renameat_with(CWD, &at, CWD, &to, RenameFlags::EXCHANGE)?))
            }
            (5, Some(entry), target)
                if one != other
                    && target.as_ref().is_none_or(|target| {
                        (*target == Entry::Directory) == (entry == Entry::Directory)
                    }) =>
            {
                next.remove(&one);
                next.insert(other, entry);
                Box::new(move || fs::rename(at, to))
            }
            (6, Some(Entry::File(content, _)), _) => {
                let value = self.counter.to_string().into_bytes();
                next.insert(one, Entry::File(content, Some(value.clone())));
                Box::new(move || {
                    Ok(rustix::fs::setxattr(
                        &at,
                        ATTRIBUTE,
                        &value,
                        XattrFlags::empty(),
                    )?)
                })
            }
            _ => return Ok(()),
        };
        self.next = Some(next);
        operation()?;
        self.model = self.next.take().unwrap_or_default();
        Ok(())
    }
}

fn look(folder: &Path) -> Model {
    let mut found = Model::new();
    for entry in fs::read_dir(folder).unwrap() {
        let (path, name) = entry
            .map(|entry| (entry.path(), entry.file_name().into_string().unwrap()))
            .unwrap();
        let kind = fs::symlink_metadata(&path).unwrap();
        let seen = if kind.is_dir() {
            Entry::Directory
        } else if kind.is_symlink() {
            Entry::Symlink(
                fs::read_link(&path)
                    .unwrap()
                    .into_os_string()
                    .into_string()
                    .unwrap(),
            )
        } else {
            let mut value = [0; 100];
            let attribute = rustix::fs::getxattr(&path, ATTRIBUTE, &mut value[..]).ok();
            let attribute = attribute.map(|length| value[..length].to_vec());
            Entry::File(fs::read(&path).unwrap(), attribute)
        };
        found.insert(name, seen);
    }
    found.remove(NEW);
    found
}

impl Load for Names {
    fn begin(&mut self, _: &Path) {
        self.model.clear();
    }

    fn work(&mut self, folder: &Path, random: &mut Random, round: &Round) {
        let mut work = || -> io::Result<()> {
            loop {
                self.step(folder, random)?;
                round.count();
            }
        };
        ended_by_the_kill("names", &work().unwrap_err());
    }

    fn check(&mut self, folder: &Path) {
        let found = look(folder);
        let next = self.next.take();
        let brief = |model: &Model| {
            model
                .keys()
                .map(|name| name[..name.len().min(5)].to_owned())
                .collect::<Vec<_>>()
        };
        assert!(
            found == self.model || next.as_ref() == Some(&found),
            "names: {:?} is found, {:?} or {:?} were known",
            brief(&found),
            brief(&self.model),
            next.as_ref().map(brief)
        );
        self.model = found;
    }
}
