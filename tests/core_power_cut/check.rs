//! What is found in a volume after a power cut, held against what was promised.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;

use cmkfs::fs::{FileKind, FsError, NodeId, OpenFlags, ROOT_NODE};

use super::model::{BLOCK, Content, Model, Step, last};
use super::record::Id;
use super::support::caller;
use super::support::direct::Direct;
use super::support::tree::{Range, Tree, snapshot};

/// What does not hold.
pub type Verdict = Result<(), String>;

/// A volume after a power cut.
pub struct Found<'a> {
    pub tree: &'a mut Direct,
    pub model: &'a Model,
    /// The object of each inode number.
    pub numbers: &'a HashMap<u64, Id>,
    /// Operations that had returned, and that had begun.
    pub done: Step,
    pub begun: Step,
    /// Pages may be torn: then a hole that is being filled may be lost, or a block that is written where one was cut off.
    pub torn: bool,
    /// Something is unreadable that no sync covered.
    pub pardoned: bool,
}

impl Found<'_> {
    /// Everything that was promised is there, and all that is there can be read and was written.
    pub fn check(&mut self) -> Verdict {
        let mut reached = BTreeSet::from([0]);
        let mut pending = vec![(0, String::new())];
        while let Some((directory, path)) = pending.pop() {
            for (name, id) in self.names(directory, &path)? {
                let path = if path.is_empty() {
                    name
                } else {
                    format!("{path}/{name}")
                };
                reached.insert(id);
                if self.model.directories.contains_key(&id) {
                    pending.push((id, path));
                } else if let Some(target) = self.model.symlinks.get(&id) {
                    let node = self.tree.see_node(&path);
                    let found = self
                        .tree
                        .fs()
                        .read_link(node)
                        .map_err(|error| unreadable(&path, &error))?;
                    if found != target.as_bytes() {
                        return Err(format!("{path} leads elsewhere"));
                    }
                } else {
                    self.file(id, &path)?;
                }
            }
        }
        for (id, links) in &self.model.links {
            let promised = last(&links.promised, self.done);
            let (counts, may_be_missing) = links.count.allowed(promised, self.begun);
            if !may_be_missing && counts.iter().all(|count| **count > 0) && !reached.contains(id) {
                return Err(format!("object {id} is gone under all its names"));
            }
        }
        Ok(())
    }

    /// What lies in a directory, and may.
    fn names(&mut self, directory: Id, path: &str) -> Result<Vec<(String, Id)>, String> {
        let listed = self.tree.list(path);
        let listed = listed.map_err(|errno| format!("{path}/ cannot be listed: {errno:?}"))?;
        let mut found = Vec::new();
        let node = if path.is_empty() {
            ROOT_NODE
        } else {
            self.tree.see_node(path)
        };
        for name in listed {
            let looked_up = self.tree.fs().lookup(node, OsStr::new(&name));
            let looked_up =
                looked_up.map_err(|error| unreadable(&format!("{path}/{name}"), &error))?;
            found.push((name, self.numbers[&looked_up.node]));
        }
        let Some(known) = self.model.directories.get(&directory) else {
            return Err(format!("{path}/ was never made"));
        };
        let there: BTreeMap<_, _> = found
            .iter()
            .map(|(name, id)| (name.as_str(), *id))
            .collect();
        let names: BTreeSet<_> = there
            .keys()
            .copied()
            .chain(known.entries.keys().map(String::as_str))
            .collect();
        for name in names {
            let now = there.get(name).copied();
            let Some(versions) = known.entries.get(name) else {
                return Err(format!("{path}/{name} was never there"));
            };
            let promised = known
                .promised
                .get(name)
                .and_then(|steps| last(steps, self.done));
            let (allowed, _) = versions.allowed(promised, self.begun);
            if !allowed.contains(&&now) {
                return Err(format!(
                    "{path}/{name} is {now:?} and not one of {allowed:?}"
                ));
            }
        }
        Ok(found)
    }

    fn file(&mut self, id: Id, path: &str) -> Verdict {
        let model = self.model;
        let Some(file) = model.files.get(&id) else {
            return Err(format!("{path} was never made"));
        };
        let (allowed, fresh) = file
            .content
            .allowed(last(&file.synced, self.done), self.begun);
        let node = self.tree.see_node(path);
        let fs = self.tree.fs();
        let attributes = fs
            .attributes(node, None)
            .map_err(|error| unreadable(path, &error))?;
        assert_eq!(attributes.kind, FileKind::File);
        let content = match self.read(node, &allowed, fresh) {
            Ok(content) => content,
            Err((true, _)) => {
                self.pardoned = true;
                return Ok(());
            }
            Err((false, error)) => return Err(format!("{path}: {error}")),
        };
        check_content(&content, &allowed).map_err(|error| {
            let covered = if fresh {
                "nothing was synced"
            } else {
                "a sync had returned"
            };
            format!("{path}: {error} ({covered})")
        })?;
        let (modes, fresh) = file
            .mode
            .allowed(last(&file.synced_whole, self.done), self.begun);
        if !fresh && !modes.contains(&&u32::from(attributes.permissions)) {
            return Err(format!("{path} has mode {:o}", attributes.permissions));
        }
        let names = fs
            .list_xattrs(node)
            .map_err(|error| unreadable(path, &error))?;
        let listed = String::from_utf8(names).unwrap();
        for name in listed.split('\0').filter(|name| !name.is_empty()) {
            if !file.attributes.contains_key(name) {
                return Err(format!("{path} has an attribute {name}"));
            }
        }
        for (name, versions) in &file.attributes {
            let value = match listed.split('\0').any(|listed| listed == name) {
                true => Some(
                    fs.get_xattr(node, OsStr::new(name))
                        .map_err(|error| unreadable(path, &error))?,
                ),
                false => None,
            };
            let (allowed, _) = versions.allowed(last(&file.synced_whole, self.done), self.begun);
            if !allowed.contains(&&value) {
                return Err(format!("{path}: {name} is not what was set"));
            }
        }
        Ok(())
    }

    /// The whole file, or what cannot be read of it, and whether that is to be pardoned.
    fn read(
        &self,
        node: NodeId,
        allowed: &[&Content],
        fresh: bool,
    ) -> Result<Vec<u8>, (bool, String)> {
        let fs = self.tree.fs();
        let handle = fs.open(caller(), node, OpenFlags::default());
        let handle = handle.map_err(|error| {
            let emptied = allowed.iter().any(|version| version.size == 0);
            let pardoned = self.torn && (fresh || emptied);
            (pardoned, format!("cannot be opened: {error}"))
        })?;
        let handle = handle.handle;
        let size = fs.attributes(node, Some(handle)).unwrap().size;
        let mut content = vec![0xaa; size as usize];
        let read = fs.read(handle, 0, &mut content);
        let mut damaged = Vec::new();
        let mut pardoned = true;
        if read.is_err() {
            for (block, bytes) in content.chunks_mut(BLOCK).enumerate() {
                let block = block as u64;
                if let Err(error) = fs.read(handle, block * BLOCK as u64, bytes) {
                    let covered = !fresh && block * (BLOCK as u64) < allowed[0].size;
                    let unchanged = allowed.iter().all(|version| {
                        version.size >= allowed[0].size.min((block + 1) * BLOCK as u64)
                            && version.shares(allowed[0], block)
                    });
                    let filled = self.torn && allowed[0].block(block) == [0; BLOCK];
                    // Cut off since, and on the disk: what is written there is new.
                    let cut = allowed
                        .iter()
                        .any(|version| version.size <= block * BLOCK as u64);
                    pardoned &= !covered || !unchanged && (filled || self.torn && cut);
                    let how = match (covered, unchanged) {
                        (false, _) => "never synced",
                        (true, false) => "synced, and changed since",
                        (true, true) => "synced",
                    };
                    damaged.push(format!("block {block}, {how}: {error}"));
                }
            }
        }
        fs.release(handle);
        match read {
            Ok(read) if read as u64 == size => Ok(content),
            Ok(read) => Err((false, format!("of {size} bytes {read} are read"))),
            Err(error) => {
                let sizes: Vec<_> = allowed.iter().map(|content| content.size).collect();
                let text = format!("size {size}, allowed {sizes:?}: {error}; {damaged:?}");
                Err((pardoned && !damaged.is_empty(), text))
            }
        }
    }
}

fn unreadable(path: &str, error: &FsError) -> String {
    format!("{path}: {error}")
}

/// Each block is one of its versions, which may end where the file did in one of its versions, with zeros behind.
fn check_content(content: &[u8], allowed: &[&Content]) -> Verdict {
    let sizes: BTreeSet<u64> = allowed.iter().map(|version| version.size).collect();
    let (smallest, largest) = (*sizes.first().unwrap(), *sizes.last().unwrap());
    if !(smallest..=largest).contains(&(content.len() as u64)) {
        return Err(format!("size {} is not one of {sizes:?}", content.len()));
    }
    for (block, bytes) in content.chunks(BLOCK).enumerate() {
        let start = (block * BLOCK) as u64;
        let ends = sizes
            .iter()
            .map(|size| size.saturating_sub(start).min(BLOCK as u64) as usize);
        let ends: BTreeSet<usize> = ends
            .chain([BLOCK])
            .map(|end| end.min(bytes.len()))
            .collect();
        let sound = allowed.iter().any(|version| {
            let version = version.block(block as u64);
            let starts_like = |end: usize| bytes[..end] == version[..end];
            ends.iter()
                .any(|end| starts_like(*end) && bytes[*end..].iter().all(|byte| *byte == 0))
        });
        if !sound {
            let like = allowed.iter().map(|version| {
                let version = version.block(block as u64);
                let same = bytes.iter().zip(&version);
                same.take_while(|(found, written)| found == written).count()
            });
            let like: Vec<_> = like.collect();
            let zeros = bytes.iter().filter(|byte| **byte == 0).count();
            return Err(format!(
                "block {block} is none of its versions, but like them for {like:?} bytes, and has {zeros} zeros"
            ));
        }
    }
    Ok(())
}

/// What was left can be used as if nothing had happened: written, cut, moved, sealed, read; and all of it be removed.
pub fn use_and_remove(tree: &mut Direct, seed: usize) -> Verdict {
    let mut expected = snapshot(tree);
    let files = expected
        .iter()
        .filter(|(_, seen)| seen.kind == "file" && seen.links == 1);
    let files: Vec<_> = files
        .map(|(path, seen)| (path.clone(), seen.clone()))
        .collect();
    for (at, (path, seen)) in files.into_iter().enumerate() {
        let mut content = Content::new(&seen.content);
        let fail = |errno| format!("{path} cannot be used: {errno:?}");
        match (seed + at) % 5 {
            0 => {
                let end = content.size;
                tree.write(&path, end, b"after the end").map_err(fail)?;
                content.write(end, b"after the end");
            }
            1 => {
                tree.write(&path, content.size / 2, b"in the middle")
                    .map_err(fail)?;
                content.write(content.size / 2, b"in the middle");
            }
            2 => {
                let size = content.size / 2 + 1;
                tree.truncate(&path, size).map_err(fail)?;
                content.resize(size);
                tree.truncate(&path, size + 10_000).map_err(fail)?;
                content.resize(size + 10_000);
            }
            3 => {
                tree.write(&path, 300_000, b"far away").map_err(fail)?;
                content.write(300_000, b"far away");
            }
            _ => {
                tree.allocate(&path, Range::Punch, 0, 5000).map_err(fail)?;
                content.zero(0, 5000);
            }
        }
        let seen = expected.get_mut(&path).unwrap();
        seen.size = content.size;
        seen.content = (0..content.size.div_ceil(BLOCK as u64))
            .flat_map(|block| content.block(block))
            .collect();
        seen.content.truncate(content.size as usize);
    }
    let check = |tree: &mut Direct, when: &str| {
        let mut found = snapshot(tree);
        for (path, seen) in &mut found {
            let expected = expected
                .get(path)
                .ok_or(format!("{path} has come from nowhere"))?;
            seen.mtime = expected.mtime;
            if seen != expected {
                return Err(format!("{path} is not what was written {when}"));
            }
        }
        if found.len() == expected.len() {
            Ok(())
        } else {
            Err(format!("something is gone {when}"))
        }
    };
    tree.fs().seal_now();
    check(tree, "before the end")?;
    tree.remount();
    check(tree, "after the end")?;
    remove(tree, "")
}

/// Removes all that lies in a directory.
pub fn remove(tree: &mut Direct, directory: &str) -> Verdict {
    for name in tree.list(directory).unwrap() {
        let path = if directory.is_empty() {
            name
        } else {
            format!("{directory}/{name}")
        };
        if let Err(rustix::io::Errno::ISDIR) = tree.unlink(&path) {
            remove(tree, &path)?;
            tree.rmdir(&path)
                .map_err(|errno| format!("{path} cannot be removed: {errno:?}"))?;
        }
    }
    match tree.list(directory).unwrap().as_slice() {
        [] => Ok(()),
        left => Err(format!("{left:?} cannot be removed")),
    }
}
