//! What is found afterwards: in the tree, in memory and in the backing directory.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use cmkfs::fs::ROOT_NODE;
use cmkfs::volume::verify;

use crate::beds::Operation;
use crate::operations::OVER_A_DIRECTORY;
use crate::support::TestVolume;
use crate::support::direct::Direct;
use crate::support::tree::{Seen, Tree};

const PAGE: usize = 4096;

pub type State = BTreeMap<String, Seen>;

/// Every block is as it was before or as it was to be; a size is one of both. Where the trouble lasts, so that what was
/// written cannot be cut off again, a process that dies then leaves a write half done, as it does in the middle of one.
pub fn is_old_or_new(left: &Seen, old: &Seen, new: &Seen, is_cut_short: bool) -> bool {
    let block = |of: &Seen, n: usize, length: usize| {
        let from = of.content.len().min(n * PAGE);
        let to = of.content.len().min(n * PAGE + length);
        let mut block = of.content[from..to].to_vec();
        block.resize(length, 0);
        block
    };
    let mut blocks = left.content.chunks(PAGE).enumerate();
    let sizes = old.size.min(new.size)..=old.size.max(new.size);
    (left.size == old.size || left.size == new.size || is_cut_short && sizes.contains(&left.size))
        && left.content.len() as u64 == left.size
        && blocks
            .all(|(n, page)| page == block(old, n, page.len()) || page == block(new, n, page.len()))
}

pub fn check(
    operation: &Operation,
    left: &State,
    old_and_new: (&State, &State),
    (lasts, is_killed): (bool, bool),
    at: &str,
) {
    let (old, new) = old_and_new;
    if left == old || left == new {
        return;
    }
    // Two steps on the disk: where the second fails, and going back as well, the directories are exchanged.
    if lasts
        && operation.name == OVER_A_DIRECTORY
        && left.len() == old.len()
        && left.contains_key("r/e/inside")
    {
        let mut exchanged = new.clone();
        exchanged.insert("r/d".to_owned(), old["r/e"].clone());
        assert!(*left == exchanged, "{at}: half done");
        return;
    }
    if operation.by_block {
        let file = "r/f";
        let is_cut_short = lasts && is_killed;
        assert!(
            is_old_or_new(&left[file], &old[file], &new[file], is_cut_short),
            "{at}: a block is neither old nor new"
        );
        return;
    }
    let brief = |state: &State| {
        let line = |(path, seen): (&String, &Seen)| {
            let name = path.get(..12).unwrap_or(path);
            let xattrs: Vec<_> = seen.xattrs.values().map(Vec::len).collect();
            format!(
                "  {name} {} {} bytes, {:o}, {} links, attributes {xattrs:?}\n",
                seen.kind, seen.size, seen.mode, seen.links
            )
        };
        state.iter().map(line).collect::<String>()
    };
    panic!(
        "{at}: neither old nor new:\n{}old:\n{}new:\n{}",
        brief(left),
        brief(old),
        brief(new)
    );
}

/// Everything below a volume's backing directory.
pub fn listing(directory: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.extend(listing(&entry.path()));
        }
        found.insert(entry.path());
    }
    found
}

/// What `cmkfs verify --repair` does. Says whether there was something to do.
pub fn repair(volume: &TestVolume, clean: &BTreeSet<PathBuf>, at: &str) -> bool {
    if listing(&volume.cipher()).is_subset(clean) {
        return false;
    }
    let go_on = &mut |_: verify::Event<'_>| ControlFlow::Continue(());
    let opened = verify::open(&volume.cipher(), &volume.keys, verify::Mode::Repair).unwrap();
    let report = verify::verify(&opened, ROOT_NODE, verify::Mode::Repair, go_on).unwrap();
    opened.shutdown().unwrap();
    assert!(report.is_sound(), "{at}: {:?}", report.findings);
    drop(opened);
    let left = listing(&volume.cipher());
    let left: Vec<_> = left.difference(clean).collect();
    assert!(left.is_empty(), "{at}: a repair leaves {left:?}");
    true
}

/// Descriptors of this process that refer to something below a directory.
pub fn descriptors(directory: &Path) -> usize {
    let all = fs::read_dir("/proc/self/fd").unwrap().flatten();
    all.filter_map(|fd| fs::read_link(fd.path()).ok())
        .filter(|target| target.starts_with(directory))
        .count()
}

/// What the open filesystem holds when nobody uses anything of it.
pub fn held(tree: &mut Direct, at: &str) {
    tree.release_held();
    tree.forget_all();
    tree.fs().seal_now();
    tree.fs().seal_idle();
    let figures = tree.fs().figures();
    assert_eq!(figures.inodes, 1, "{at}: inodes");
    assert_eq!(figures.open_files, 0, "{at}: open files");
    assert_eq!(figures.open_directories, 0, "{at}: open directories");
}

pub fn remove_all(tree: &mut Direct, path: &str) {
    for name in tree.list(path).unwrap() {
        let path = format!("{path}/{name}");
        if tree.see(&path).unwrap().kind == "directory" {
            remove_all(tree, &path);
        } else {
            tree.unlink(&path).unwrap();
        }
    }
    tree.rmdir(path).unwrap();
}
