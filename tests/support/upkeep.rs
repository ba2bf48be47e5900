//! What the tests of rewrap and rekey share: a tree with one of everything, a backing that dies, and what is left of it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use cmkfs::fs::backing::{Backing, Call, Observer};
use cmkfs::ids::KeyId;
use cmkfs::kms::key::CreateKeyRequest;
use cmkfs::volume::keys::ServicePort;
use cmkfs::volume::{self, Access, Volume};
use rustix::io::Errno;

use super::direct::Direct;
use super::tree::Tree;
use super::{DEFAULT_ALIAS, TestVolume};

pub fn new_key(volume: &TestVolume) -> KeyId {
    volume
        .keys
        .create_key(CreateKeyRequest::default())
        .unwrap()
        .key_id
}

pub fn default_key(volume: &TestVolume) -> KeyId {
    volume
        .keys
        .resolve(&DEFAULT_ALIAS.parse().unwrap())
        .unwrap()
}

/// One of everything.
pub fn populate(tree: &mut Direct) {
    for directory in ["a", "a/b", "c"] {
        tree.mkdir(directory, 0o755).unwrap();
    }
    for (path, length) in [
        ("empty", 0),
        ("small", 10),
        ("a/large", 700_000),
        ("a/b/x", 4096),
    ] {
        tree.create(path, 0o644).unwrap();
        if length > 0 {
            let data: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
            tree.write(path, 0, &data).unwrap();
        }
    }
    tree.create("sparse", 0o600).unwrap();
    tree.write("sparse", 1_000_000, b"end").unwrap();
    tree.truncate("sparse", 2_000_000).unwrap();
    tree.set_xattr("small", "user.one", b"value").unwrap();
    tree.set_xattr("empty", "user.two", b"value").unwrap();
    tree.set_xattr("a", "user.three", b"value").unwrap();
    tree.link("small", "a/b/same").unwrap();
    tree.symlink("short", "a/b/x").unwrap();
    tree.symlink("c/long", &"t".repeat(4000)).unwrap();
    tree.symlink("linked", "small").unwrap();
    tree.link("linked", "a/linked too").unwrap();
    tree.link("linked", "a/b/linked as well").unwrap();
    tree.link("c/long", "c/long too").unwrap();
    let name = format!("c/{}", "n".repeat(250));
    tree.create(&name, 0o644).unwrap();
    tree.write(&name, 0, b"long name").unwrap();
    for (second, path) in [
        "small", "a/large", "short", "c/long", "linked", "a", "c", "sparse",
    ]
    .iter()
    .enumerate()
    {
        tree.set_mtime(path, 1_000_000_000 + second as i64, 5)
            .unwrap();
    }
}

/// From the n-th changing call on nothing is done any more, as if the process had been killed there.
struct DieAt(Arc<AtomicI64>, Errno);

impl Observer for DieAt {
    fn before(&self, call: Call) -> Result<(), Errno> {
        let changes = matches!(
            call,
            Call::Write
                | Call::Resize
                | Call::Sync
                | Call::Make
                | Call::Rename
                | Call::Remove
                | Call::Change
                | Call::WriteXattr
        );
        // A full disk is in the way of what needs space only.
        let needs_space = matches!(
            call,
            Call::Write | Call::Resize | Call::Make | Call::WriteXattr
        );
        if changes
            && (needs_space || self.1 != Errno::NOSPC)
            && self.0.fetch_sub(1, Ordering::Relaxed) <= 0
        {
            Err(self.1)
        } else {
            Ok(())
        }
    }
}

pub fn leftovers(volume: &TestVolume) -> Vec<PathBuf> {
    let (mut pending, mut found) = (vec![volume.cipher()], Vec::new());
    while let Some(directory) = pending.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            if entry
                .file_name()
                .to_string_lossy()
                .starts_with("cmkfs.tmp.")
            {
                found.push(entry.path());
            } else if entry.file_type().unwrap().is_dir() {
                pending.push(entry.path());
            }
        }
    }
    found
}

/// Opens a volume, lets `work` loose on it, and has every changing call from the n-th on fail. Says whether it came to that.
pub fn dying(volume: &TestVolume, n: i64, errno: Errno, work: impl FnOnce(&Volume)) -> bool {
    let left = Arc::new(AtomicI64::new(i64::MAX));
    let port = Arc::new(ServicePort::new(Arc::clone(&volume.keys)));
    let backing = Backing::observed(Box::new(DieAt(Arc::clone(&left), errno)));
    let access = Access::ReadWrite;
    let fs = volume::open_observed(&volume.cipher(), &volume.keys, port, access, backing).unwrap();
    left.store(n, Ordering::Relaxed);
    work(&fs);
    left.load(Ordering::Relaxed) < 0
}

/// The n-th call fails, and those after it do not.
struct StumbleAt(Arc<AtomicI64>);

impl Observer for StumbleAt {
    fn before(&self, _: Call) -> Result<(), Errno> {
        match self.0.fetch_sub(1, Ordering::Relaxed) {
            0 => Err(Errno::IO),
            _ => Ok(()),
        }
    }
}

/// As [`dying`], but only the n-th call of any kind fails.
pub fn stumbling(volume: &TestVolume, n: i64, work: impl FnOnce(&Volume, &dyn Fn())) -> bool {
    let left = Arc::new(AtomicI64::new(i64::MAX));
    let port = Arc::new(ServicePort::new(Arc::clone(&volume.keys)));
    let backing = Backing::observed(Box::new(StumbleAt(Arc::clone(&left))));
    let access = Access::ReadWrite;
    let fs = volume::open_observed(&volume.cipher(), &volume.keys, port, access, backing).unwrap();
    work(&fs, &|| left.store(n, Ordering::Relaxed));
    left.load(Ordering::Relaxed) < 0
}
