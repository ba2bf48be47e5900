//! Puts a state that a power cut left into a directory.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{File, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::XattrFlags;

use super::cut::{Left, State};
use super::record::{Id, Kind, PAGE};

/// Makes everything below `root`, which is an empty directory. Tells which inode number is which object.
pub fn build(state: &State, root: &Path) -> HashMap<u64, Id> {
    let mut numbers = HashMap::new();
    let mut paths: HashMap<Id, PathBuf> = HashMap::new();
    let mut pending = vec![(0, root.to_owned())];
    while let Some((id, path)) = pending.pop() {
        let left = &state.objects[&id];
        match &left.kind {
            Kind::Directory => {
                assert!(
                    paths.insert(id, path.clone()).is_none(),
                    "a directory has one name"
                );
                if id != 0 {
                    std::fs::create_dir(&path).unwrap();
                }
                let below = |(name, id): (&std::ffi::CString, &Id)| {
                    (*id, path.join(OsStr::from_bytes(name.as_bytes())))
                };
                pending.extend(left.entries.iter().map(below));
            }
            kind => {
                if let Some(first) = paths.get(&id) {
                    std::fs::hard_link(first, &path).unwrap();
                    continue;
                }
                match kind {
                    Kind::Symlink(target) => symlink(OsStr::from_bytes(target), &path).unwrap(),
                    _ => fill(left, &path),
                }
                paths.insert(id, path);
            }
        }
    }
    for (id, path) in paths {
        let left = &state.objects[&id];
        numbers.insert(path.symlink_metadata().unwrap().ino(), id);
        if !matches!(left.kind, Kind::Symlink(_)) {
            for (name, value) in &left.attributes {
                rustix::fs::setxattr(&path, name, value, XattrFlags::CREATE).unwrap();
            }
            std::fs::set_permissions(&path, Permissions::from_mode(left.mode)).unwrap();
        }
    }
    numbers
}

fn fill(left: &Left, path: &Path) {
    let file = File::create_new(path).unwrap();
    // What never came to the disk is a hole.
    let there = |bytes: &[u8]| bytes.iter().any(|byte| *byte != 0);
    for (page, bytes) in left.pages.iter().filter(|(_, bytes)| there(bytes)) {
        let offset = page * PAGE as u64;
        file.write_all_at(
            &bytes[..bytes.len().min((left.size - offset) as usize)],
            offset,
        )
        .unwrap();
    }
    file.set_len(left.size).unwrap();
}
