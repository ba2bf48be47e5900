//! A tree in memory, which says what comes of an operation that no fault meets. Cheap to copy: the states before and after
//! an operation that failed are both at hand.

use std::collections::{BTreeMap, BTreeSet};

use super::support::history::Operation;
use super::support::tree::{Mode, Range, Seen};

/// A file, directory or symlink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// Content, and extended attributes.
    File(Vec<u8>, BTreeMap<String, Vec<u8>>),
    /// Entries, and extended attributes.
    Directory(BTreeMap<String, usize>, BTreeMap<String, Vec<u8>>),
    /// Target.
    Symlink(String),
}

/// The tree. Nodes stay when their names go: they may be held open.
#[derive(Debug, Clone)]
pub struct Model {
    nodes: Vec<Node>,
    held: Vec<usize>,
    /// Files that were made without a name, and have got none.
    unnamed: BTreeSet<usize>,
}

/// An operation that is refused. Which errno that is, the tests of the core say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused;

type Answer<T> = Result<T, Refused>;

const ROOT: usize = 0;

impl Default for Model {
    fn default() -> Self {
        Self {
            nodes: vec![Node::Directory(BTreeMap::new(), BTreeMap::new())],
            held: Vec::new(),
            unnamed: BTreeSet::new(),
        }
    }
}

impl Model {
    /// Does an operation; says what it reads.
    pub fn apply(&mut self, operation: &Operation) -> Answer<Vec<u8>> {
        use Operation::*;
        match operation {
            Create(path, _) => self.make(path, Node::File(Vec::new(), BTreeMap::new()))?,
            MakeDirectory(path, _) => {
                self.make(path, Node::Directory(BTreeMap::new(), BTreeMap::new()))?;
            }
            Symlink(path, target) => self.make(path, Node::Symlink(target.clone()))?,
            Link(old, new) => self.link(old, new)?,
            Unlink(path) => self.remove(path, false)?,
            RemoveDirectory(path) => self.remove(path, true)?,
            Rename(old, new, mode) => self.rename(old, new, *mode)?,
            Write(path, offset, data) => put(self.file(path)?, *offset, &data.bytes()),
            Read(path, offset, length) => {
                let content = self.file(path)?;
                let from = content.len().min(*offset as usize);
                let to = content.len().min(from.saturating_add(*length));
                return Ok(content[from..to].to_vec());
            }
            Truncate(path, size) => self.file(path)?.resize(*size as usize, 0),
            Allocate(path, range, offset, length) => {
                allocate(self.file(path)?, *range, *offset as usize, *length as usize);
            }
            Chmod(path, _) => _ = self.openable(path)?,
            SetMtime(path, ..) => _ = self.walk(path)?,
            SetXattr(path, name, value) => {
                self.xattrs(path)?.insert(name.clone(), value.bytes());
            }
            RemoveXattr(path, name) => _ = self.xattrs(path)?.remove(name).ok_or(Refused)?,
            Hold(path) => {
                self.file(path)?;
                let node = self.walk(path)?;
                self.held.push(node);
            }
            HoldTemporary(directory, _) => {
                let at = self.walk(directory)?;
                if !matches!(self.nodes[at], Node::Directory(..)) {
                    return Err(Refused);
                }
                self.nodes.push(Node::File(Vec::new(), BTreeMap::new()));
                let node = self.nodes.len() - 1;
                self.unnamed.insert(node);
                self.held.push(node);
            }
            LinkHeld(path) => {
                let node = *self.held.last().ok_or(Refused)?;
                self.entries(path)?;
                let is_there = self.unnamed.contains(&node) || self.has_name(node);
                if !is_there || self.walk(path).is_ok() {
                    return Err(Refused);
                }
                self.put(path, node)?;
                self.unnamed.remove(&node);
            }
            WriteHeld(offset, data) => {
                put(self.held_content().ok_or(Refused)?, *offset, &data.bytes())
            }
            ReadHeld => {
                return self
                    .held_content()
                    .map(|content| content.clone())
                    .ok_or(Refused);
            }
            ReleaseHeld => self.held.clear(),
            Remount => {}
        }
        Ok(Vec::new())
    }

    /// Holds what another holds.
    pub fn hold_as(&mut self, other: &Self) {
        self.held.clone_from(&other.held);
    }

    /// What is held open is closed.
    pub fn release(&mut self) {
        self.held.clear();
    }

    /// The content of the file held open last.
    pub fn held_content(&mut self) -> Option<&mut Vec<u8>> {
        let node = *self.held.last()?;
        match &mut self.nodes[node] {
            Node::File(content, _) => Some(content),
            _ => None,
        }
    }

    /// The content of the file at a path.
    pub fn file(&mut self, path: &str) -> Answer<&mut Vec<u8>> {
        let node = self.walk(path)?;
        match &mut self.nodes[node] {
            Node::File(content, _) => Ok(content),
            _ => Err(Refused),
        }
    }

    /// Everything below the root, as far as it is compared.
    pub fn tree(&self) -> BTreeMap<String, &Node> {
        let mut all = BTreeMap::new();
        let mut pending = vec![(String::new(), ROOT)];
        while let Some((path, node)) = pending.pop() {
            let Node::Directory(entries, _) = &self.nodes[node] else {
                continue;
            };
            for (name, node) in entries {
                let path = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}/{name}")
                };
                all.insert(path.clone(), &self.nodes[*node]);
                pending.push((path, *node));
            }
        }
        all
    }

    fn walk(&self, path: &str) -> Answer<usize> {
        let mut found = ROOT;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            let Node::Directory(entries, _) = &self.nodes[found] else {
                return Err(Refused);
            };
            found = *entries.get(name).ok_or(Refused)?;
        }
        Ok(found)
    }

    fn openable(&self, path: &str) -> Answer<usize> {
        let node = self.walk(path)?;
        match self.nodes[node] {
            Node::Symlink(_) => Err(Refused),
            _ => Ok(node),
        }
    }

    fn xattrs(&mut self, path: &str) -> Answer<&mut BTreeMap<String, Vec<u8>>> {
        let node = self.openable(path)?;
        match &mut self.nodes[node] {
            Node::File(_, xattrs) | Node::Directory(_, xattrs) => Ok(xattrs),
            Node::Symlink(_) => Err(Refused),
        }
    }

    fn entries(&mut self, path: &str) -> Answer<(&mut BTreeMap<String, usize>, String)> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let parent = self.walk(parent)?;
        match &mut self.nodes[parent] {
            Node::Directory(entries, _) => Ok((entries, name.to_owned())),
            _ => Err(Refused),
        }
    }

    fn put(&mut self, path: &str, node: usize) -> Answer<()> {
        let (entries, name) = self.entries(path)?;
        entries.insert(name, node);
        Ok(())
    }

    fn make(&mut self, path: &str, node: Node) -> Answer<()> {
        self.entries(path)?;
        if self.walk(path).is_ok() {
            return Err(Refused);
        }
        self.nodes.push(node);
        self.put(path, self.nodes.len() - 1)
    }

    fn has_name(&self, node: usize) -> bool {
        self.nodes.iter().any(|each| match each {
            Node::Directory(entries, _) => entries.values().any(|entry| *entry == node),
            _ => false,
        })
    }

    fn link(&mut self, old: &str, new: &str) -> Answer<()> {
        let node = self.walk(old)?;
        let is_directory = matches!(self.nodes[node], Node::Directory(..));
        if is_directory || self.walk(new).is_ok() {
            return Err(Refused);
        }
        self.put(new, node)
    }

    fn remove(&mut self, path: &str, directory: bool) -> Answer<()> {
        let node = self.walk(path)?;
        match &self.nodes[node] {
            Node::Directory(entries, _) if !directory || !entries.is_empty() => {
                return Err(Refused);
            }
            Node::File(..) | Node::Symlink(_) if directory => return Err(Refused),
            _ => {}
        }
        let (entries, name) = self.entries(path)?;
        entries.remove(&name);
        Ok(())
    }

    fn rename(&mut self, old: &str, new: &str, mode: Mode) -> Answer<()> {
        let below = |a: &str, b: &str| b.strip_prefix(a).is_some_and(|rest| rest.starts_with('/'));
        let node = self.walk(old)?;
        let target = self.walk(new).ok();
        self.entries(new)?;
        if below(old, new) || below(new, old) {
            return Err(Refused);
        }
        match (mode, target) {
            (Mode::NoReplace, Some(_)) | (Mode::Exchange, None) => return Err(Refused),
            (Mode::Replace | Mode::Exchange, Some(target)) if target == node => return Ok(()),
            (Mode::Exchange, Some(target)) => self.put(old, target)?,
            (Mode::Replace, Some(target)) => {
                match (&self.nodes[node], &self.nodes[target]) {
                    (Node::Directory(..), Node::Directory(entries, _)) if entries.is_empty() => {}
                    (Node::Directory(..), _) | (_, Node::Directory(..)) => return Err(Refused),
                    _ => {}
                }
                self.take(old)?;
            }
            (_, None) => self.take(old)?,
        }
        self.put(new, node)
    }

    fn take(&mut self, path: &str) -> Answer<()> {
        let (entries, name) = self.entries(path)?;
        entries.remove(&name);
        Ok(())
    }
}

fn put(content: &mut Vec<u8>, offset: u64, data: &[u8]) {
    let from = offset as usize;
    if content.len() < from + data.len() {
        content.resize(from + data.len(), 0);
    }
    content[from..from + data.len()].copy_from_slice(data);
}

fn allocate(content: &mut Vec<u8>, range: Range, offset: usize, length: usize) {
    let end = offset + length;
    if matches!(range, Range::Allocate | Range::Zero) && content.len() < end {
        content.resize(end, 0);
    }
    if matches!(range, Range::Punch | Range::Zero | Range::ZeroKeepSize) {
        let end = end.min(content.len());
        if let Some(range) = content.get_mut(offset..end) {
            range.fill(0);
        }
    }
}

/// Whether what is seen is this node, but for the content of a file.
pub fn is_like(node: &Node, seen: &Seen) -> bool {
    let same = |xattrs: &BTreeMap<String, Vec<u8>>| {
        let known = xattrs.iter().map(|(name, value)| (name.as_bytes(), value));
        known.eq(seen.xattrs.iter().map(|(name, value)| (&name[..], value)))
    };
    match node {
        Node::File(_, xattrs) => seen.kind == "file" && same(xattrs),
        Node::Directory(_, xattrs) => seen.kind == "directory" && same(xattrs),
        Node::Symlink(target) => seen.kind == "symlink" && seen.content == target.as_bytes(),
    }
}
