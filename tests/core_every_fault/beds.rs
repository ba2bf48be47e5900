//! What an operation is, and what there is before one begins.

use cmkfs::fs::{FileSystem, SetAttributes};
use cmkfs::volume::{self, VolumeError};
use rustix::io::Errno;

use crate::support::direct::Direct;
use crate::support::tree::Tree;
use crate::support::{WRITE, caller};

/// What an operation answers: why it failed, in words.
pub type Outcome = Result<(), String>;

pub fn words<T>(result: Result<T, Errno>) -> Outcome {
    result.map(drop).map_err(|errno| errno.to_string())
}

/// An operation in the directory `r`.
pub struct Operation {
    pub name: &'static str,
    pub prepare: fn(&mut Direct),
    pub run: fn(&mut Direct) -> Outcome,
    /// It changes a file block by block: each is old or new.
    pub by_block: bool,
}

pub const fn whole(
    name: &'static str,
    prepare: fn(&mut Direct),
    run: fn(&mut Direct) -> Outcome,
) -> Operation {
    Operation {
        name,
        prepare,
        run,
        by_block: false,
    }
}

pub const fn by_block(
    name: &'static str,
    prepare: fn(&mut Direct),
    run: fn(&mut Direct) -> Outcome,
) -> Operation {
    Operation {
        name,
        prepare,
        run,
        by_block: true,
    }
}

pub fn bytes(seed: u8, length: usize) -> Vec<u8> {
    (0..length)
        .map(|i| {
            (i as u8)
                .wrapping_mul(7)
                .wrapping_add((i >> 12) as u8 ^ seed)
                | 1
        })
        .collect()
}

/// A name that is kept in a side file.
pub fn long(letter: &str) -> String {
    format!("r/{}", letter.repeat(250))
}

pub fn file(tree: &mut Direct, path: &str, length: usize) {
    tree.create(path, 0o644).unwrap();
    if length > 0 {
        tree.write(path, 0, &bytes(1, length)).unwrap();
    }
}

/// Two groups, the last block a part.
pub const SIZE: usize = 300_100;

pub fn filled(tree: &mut Direct) {
    file(tree, "r/f", SIZE);
}

pub fn sparse(tree: &mut Direct) {
    file(tree, "r/f", 10);
    tree.write("r/f", 400_000, b"end").unwrap();
}

/// A file with records in its journal.
pub fn journaled(tree: &mut Direct) {
    filled(tree);
    tree.remount();
    tree.hold("r/f").unwrap();
    tree.write_held(20_000, &bytes(3, 9000)).unwrap();
}

/// A file without a name. Not with records: the journal of one stays behind where its process dies.
pub fn temporary(tree: &mut Direct) {
    tree.hold_temporary("r", 0o644).unwrap();
    tree.write_held(0, &bytes(1, SIZE)).unwrap();
}

pub fn two(tree: &mut Direct) {
    file(tree, "r/a", 5000);
    file(tree, "r/b", 100);
}

pub fn two_long(tree: &mut Direct) {
    file(tree, &long("a"), 5000);
    file(tree, &long("b"), 100);
}

pub fn directories(tree: &mut Direct) {
    for path in ["r/d", "r/e"] {
        tree.mkdir(path, 0o755).unwrap();
    }
    file(tree, "r/d/inside", 10);
}

pub fn nothing(_: &mut Direct) {}

pub fn with_handle(
    tree: &Direct,
    work: impl FnOnce(&FileSystem, u64) -> cmkfs::fs::FsResult<()>,
) -> Outcome {
    let fs = tree.fs();
    let node = tree.look_up("r/f").map_err(|errno| errno.to_string())?;
    let opened = fs.open(caller(), node, WRITE);
    let handle = opened.map_err(|error| error.errno().to_string())?.handle;
    let done = work(fs, handle);
    fs.release(handle);
    done.map_err(|error| error.errno().to_string())
}

pub fn set(tree: &Direct, path: &str, changes: SetAttributes) -> Outcome {
    let node = tree.look_up(path).map_err(|errno| errno.to_string())?;
    let set = tree.fs().set_attributes(caller(), node, None, &changes);
    words(set.map_err(|error| error.errno()))
}

pub fn answer<R>(
    result: Result<R, VolumeError>,
    failures: fn(&R) -> &volume::sweep::Failures,
) -> Outcome {
    let report = result.map_err(|error| match error {
        VolumeError::Filesystem { source, .. } => source.errno().to_string(),
        other => other.to_string(),
    })?;
    match failures(&report).first.first() {
        Some(failure) => Err(failure.reason.clone()),
        None => Ok(()),
    }
}

pub fn populated(tree: &mut Direct) {
    directories(tree);
    filled(tree);
    two_long(tree);
    tree.symlink("r/short", "f").unwrap();
    tree.symlink("r/side", &"t".repeat(4000)).unwrap();
    tree.set_xattr("r/f", "user.a", b"value").unwrap();
}
