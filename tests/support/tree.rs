//! A directory tree as a user works on it, by paths: what a plain directory, a mount and the bare core have in common.

use std::collections::BTreeMap;

use rustix::io::Errno;

/// What an operation answers.
pub type Answer<T> = Result<T, Errno>;

/// What can be seen of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub kind: &'static str,
    /// Of files and symlinks.
    pub size: u64,
    pub mode: u32,
    /// Of all but directories.
    pub links: u64,
    pub mtime: Option<(i64, u32)>,
    /// Content of a file, target of a symlink.
    pub content: Vec<u8>,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// How a rename treats its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Replace,
    NoReplace,
    Exchange,
}

/// What `fallocate` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Range {
    Allocate,
    KeepSize,
    Punch,
    Zero,
    ZeroKeepSize,
}

/// A tree. Paths are relative to its root, their parts separated by slashes.
pub trait Tree {
    fn create(&mut self, path: &str, mode: u32) -> Answer<()>;
    fn mkdir(&mut self, path: &str, mode: u32) -> Answer<()>;
    fn symlink(&mut self, path: &str, target: &str) -> Answer<()>;
    fn link(&mut self, old: &str, new: &str) -> Answer<()>;
    fn unlink(&mut self, path: &str) -> Answer<()>;
    fn rmdir(&mut self, path: &str) -> Answer<()>;
    fn rename(&mut self, old: &str, new: &str, mode: Mode) -> Answer<()>;
    fn write(&mut self, path: &str, offset: u64, data: &[u8]) -> Answer<()>;
    fn read(&mut self, path: &str, offset: u64, length: usize) -> Answer<Vec<u8>>;
    fn truncate(&mut self, path: &str, size: u64) -> Answer<()>;
    fn allocate(&mut self, path: &str, range: Range, offset: u64, length: u64) -> Answer<()>;
    fn chmod(&mut self, path: &str, mode: u32) -> Answer<()>;
    fn set_mtime(&mut self, path: &str, seconds: i64, nanoseconds: u32) -> Answer<()>;
    fn set_xattr(&mut self, path: &str, name: &str, value: &[u8]) -> Answer<()>;
    fn remove_xattr(&mut self, path: &str, name: &str) -> Answer<()>;
    /// Opens a file and keeps it open, whatever happens to its name.
    fn hold(&mut self, path: &str) -> Answer<()>;
    /// Makes a file without a name in a directory, and keeps it open.
    fn hold_temporary(&mut self, directory: &str, mode: u32) -> Answer<()>;
    /// Gives the file held open last a name.
    fn link_held(&mut self, path: &str) -> Answer<()>;
    /// Writes to the file held open last.
    fn write_held(&mut self, offset: u64, data: &[u8]) -> Answer<()>;
    /// The whole content of the file held open last.
    fn read_held(&mut self) -> Answer<Vec<u8>>;
    /// Closes all files held open.
    fn release_held(&mut self);
    fn list(&mut self, path: &str) -> Answer<Vec<String>>;
    fn see(&mut self, path: &str) -> Answer<Seen>;
    /// Asserts that what lseek calls a hole reads as zeros.
    fn check_holes(&mut self, path: &str);
}

/// Everything below the root.
pub fn snapshot(tree: &mut dyn Tree) -> BTreeMap<String, Seen> {
    let mut all = BTreeMap::new();
    let mut pending = vec![String::new()];
    while let Some(directory) = pending.pop() {
        for name in tree.list(&directory).unwrap() {
            let path = if directory.is_empty() {
                name
            } else {
                format!("{directory}/{name}")
            };
            let seen = tree.see(&path).unwrap();
            if seen.kind == "directory" {
                pending.push(path.clone());
            }
            all.insert(path, seen);
        }
    }
    all
}

/// Asserts that `segments` cover `content` and that holes are zeros.
pub fn assert_holes_are_zeros(content: &[u8], mut next: impl FnMut(u64, bool) -> Answer<u64>) {
    let mut at = 0;
    while at < content.len() as u64 {
        let data = next(at, true).unwrap_or(content.len() as u64);
        assert!(data >= at);
        assert!(
            content[at as usize..data as usize]
                .iter()
                .all(|byte| *byte == 0),
            "hole at {at}"
        );
        if data == content.len() as u64 {
            return;
        }
        let hole = next(data, false).unwrap();
        assert!(hole > data, "data at {data} has a length");
        at = hole;
    }
}
