//! Directories bound to other keys: what is created in them is under those, names included, and nothing else changes.

mod support;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use cmkfs::format::header::KeyBinding;
use cmkfs::fs::backing::{Backing, Call, Observer};
use cmkfs::fs::{FileSystem, Fill, FsResult, NodeId, ROOT_NODE, RenameMode, XattrMode};
use cmkfs::kms::key::KeyRef;
use cmkfs::volume::census::Tally;
use cmkfs::volume::keys::ServicePort;
use cmkfs::volume::{self, Access, Volume};
use rustix::io::Errno;
use support::{DEFAULT_ALIAS, MODE, TestVolume, WRITE, caller, mkdir, write};

const ALIAS: &str = "alias/secret";

fn binding() -> KeyBinding {
    KeyBinding::Alias(ALIAS.to_owned())
}

fn errno<T>(result: FsResult<T>) -> Option<Errno> {
    result.err().map(|error| error.errno())
}

fn lookup(fs: &FileSystem, parent: NodeId, name: &str) -> FsResult<NodeId> {
    Ok(fs.lookup(parent, OsStr::new(name))?.node)
}

fn list(fs: &FileSystem, node: NodeId) -> FsResult<Vec<String>> {
    let handle = fs.open_directory(node)?;
    let mut names = Vec::new();
    let listed = fs.read_directory_plus(handle, 0, Duration::ZERO, &mut |entry| {
        names.push(entry.name.to_string_lossy().into_owned());
        Fill::Taken
    });
    fs.release_directory(handle);
    listed?;
    names.retain(|name| name != "." && name != "..");
    names.sort();
    Ok(names)
}

fn read(fs: &FileSystem, node: NodeId, bytes: usize) -> FsResult<Vec<u8>> {
    let handle = fs.open(caller(), node, WRITE)?.handle;
    let mut content = vec![0; bytes];
    let read = fs.read(handle, 0, &mut content);
    fs.release(handle);
    content.truncate(read?);
    Ok(content)
}

fn move_to(fs: &FileSystem, from: NodeId, name: &str, to: NodeId) -> Option<Errno> {
    let name = OsStr::new(name);
    errno(fs.rename(from, name, to, name, RenameMode::NoReplace))
}

#[test]
fn a_bound_directory_and_all_that_is_made_in_it_is_under_its_key() {
    let volume = TestVolume::new();
    let secret = volume.new_key(ALIAS);
    let fs = volume.open();
    let folder = mkdir(&fs, ROOT_NODE, "folder");
    fs.bind(folder, &binding()).unwrap();
    assert_eq!(fs.binding(folder).unwrap(), binding());
    write(&fs, folder, "file", 5000);
    let below = mkdir(&fs, folder, "below");
    write(&fs, below, "file", 7);
    let (link, target) = (OsStr::new("link"), OsStr::new("target"));
    fs.make_symlink(caller(), below, link, target).unwrap();
    write(&fs, ROOT_NODE, "outside", 1);
    assert_eq!(
        volume.census().remaining(secret, None),
        Tally {
            files: 2,
            directories: 2,
            symlinks: 1,
            volume_keys: 0,
            bytes: 5013
        }
    );
    assert_eq!(volume.census().total().objects(), 8);
    fs.shutdown().unwrap();
    drop(fs);
    let fs = volume.open();
    let folder = lookup(&fs, ROOT_NODE, "folder").unwrap();
    let file = lookup(&fs, folder, "file").unwrap();
    assert_eq!(read(&fs, file, 5000).unwrap(), [7; 5000]);
    assert_eq!(list(&fs, folder).unwrap(), ["below", "file"]);
}

#[test]
fn without_its_key_the_subtree_is_closed_and_all_else_goes_on() {
    let volume = TestVolume::new();
    volume.new_key(ALIAS);
    let secret: KeyRef = ALIAS.parse().unwrap();
    {
        let fs = volume.open();
        let folder = mkdir(&fs, ROOT_NODE, "folder");
        fs.bind(folder, &binding()).unwrap();
        write(&fs, folder, "file", 10);
        write(&fs, ROOT_NODE, "outside", 10);
        fs.shutdown().unwrap();
    }
    volume.keys.disable_key(&secret).unwrap();
    let fs = volume.open();
    assert_eq!(list(&fs, ROOT_NODE).unwrap(), ["folder", "outside"]);
    let folder = lookup(&fs, ROOT_NODE, "folder").unwrap();
    fs.attributes(folder, None).unwrap();
    let closed = Some(Errno::KEYREVOKED);
    assert_eq!(errno(list(&fs, folder)), closed);
    assert_eq!(errno(lookup(&fs, folder, "file")), closed);
    let made = fs.make_directory(caller(), folder, OsStr::new("new"), MODE);
    assert_eq!(errno(made), closed);
    let outside = lookup(&fs, ROOT_NODE, "outside").unwrap();
    assert_eq!(read(&fs, outside, 10).unwrap(), [7; 10]);
    write(&fs, ROOT_NODE, "another", 10);
    volume.keys.enable_key(&secret).unwrap();
    assert_eq!(list(&fs, folder).unwrap(), ["file"]);
}

#[test]
fn what_cannot_be_bound_stays_as_it_was() {
    let volume = TestVolume::new();
    let secret = volume.new_key(ALIAS);
    {
        let fs = volume.open();
        let full = mkdir(&fs, ROOT_NODE, "full");
        write(&fs, full, &"long".repeat(60), 0);
        let file = write(&fs, ROOT_NODE, "file", 1);
        let empty = mkdir(&fs, ROOT_NODE, "empty");
        let before = volume.census();
        assert_eq!(errno(fs.bind(full, &binding())), Some(Errno::NOTEMPTY));
        assert_eq!(errno(fs.bind(ROOT_NODE, &binding())), Some(Errno::NOTEMPTY));
        assert_eq!(errno(fs.bind(file, &binding())), Some(Errno::NOTDIR));
        let unknown = KeyBinding::Alias("alias/unknown".to_owned());
        assert_eq!(errno(fs.bind(empty, &unknown)), Some(Errno::NOKEY));
        volume.keys.disable_key(&ALIAS.parse().unwrap()).unwrap();
        let disabled = KeyBinding::Key(secret);
        assert_eq!(errno(fs.bind(empty, &disabled)), Some(Errno::KEYREVOKED));
        assert_eq!(volume.census(), before);
        write(&fs, empty, "still usable", 1);
        fs.remove_directory(ROOT_NODE, OsStr::new("gone"))
            .unwrap_err();
        let gone = mkdir(&fs, ROOT_NODE, "gone");
        fs.remove_directory(ROOT_NODE, OsStr::new("gone")).unwrap();
        assert_eq!(errno(fs.bind(gone, &binding())), Some(Errno::NOENT));
        fs.shutdown().unwrap();
    }
    volume.keys.enable_key(&ALIAS.parse().unwrap()).unwrap();
    let fs = volume::open(&volume.cipher(), &volume.keys, Access::ReadOnly).unwrap();
    assert_eq!(errno(fs.bind(ROOT_NODE, &binding())), Some(Errno::ROFS));
}

#[test]
fn an_empty_root_can_be_bound() {
    let volume = TestVolume::new();
    let secret = volume.new_key(ALIAS);
    {
        let fs = volume.open();
        fs.bind(ROOT_NODE, &KeyBinding::Key(secret)).unwrap();
        write(&fs, ROOT_NODE, "file", 3);
        fs.shutdown().unwrap();
    }
    let under = volume.census().remaining(secret, None);
    assert_eq!((under.files, under.directories), (1, 1));
    let fs = volume.open();
    assert_eq!(list(&fs, ROOT_NODE).unwrap(), ["file"]);
}

#[test]
fn a_directory_can_be_bound_again_and_taken_back() {
    let volume = TestVolume::new();
    let secret = volume.new_key(ALIAS);
    let fs = volume.open();
    let folder = mkdir(&fs, ROOT_NODE, "folder");
    let default = KeyBinding::Alias(DEFAULT_ALIAS.to_owned());
    for binding in [binding(), default.clone(), binding(), default] {
        fs.bind(folder, &binding).unwrap();
        assert_eq!(fs.binding(folder).unwrap(), binding);
    }
    assert!(volume.census().remaining(secret, None).is_empty());
}

#[test]
fn an_alias_is_resolved_whenever_something_is_made_and_an_id_is_not() {
    let volume = TestVolume::new();
    let first = volume.new_key(ALIAS);
    let fs = volume.open();
    let (by_alias, by_id) = (mkdir(&fs, ROOT_NODE, "a"), mkdir(&fs, ROOT_NODE, "b"));
    fs.bind(by_alias, &binding()).unwrap();
    fs.bind(by_id, &KeyBinding::Key(first)).unwrap();
    let second = volume.new_key(ALIAS);
    write(&fs, by_alias, "f", 1);
    write(&fs, by_id, "f", 1);
    let census = volume.census();
    assert_eq!(census.remaining(first, None).files, 1);
    assert_eq!(census.remaining(second, None).files, 1);
}

#[test]
fn nothing_moves_or_is_linked_across_bindings_but_what_belongs_there() {
    let volume = TestVolume::new();
    volume.new_key(ALIAS);
    let fs = volume.open();
    let open = mkdir(&fs, ROOT_NODE, "open");
    let (secret, other) = (
        mkdir(&fs, ROOT_NODE, "secret"),
        mkdir(&fs, ROOT_NODE, "other"),
    );
    fs.bind(secret, &binding()).unwrap();
    fs.bind(other, &binding()).unwrap();
    let file = write(&fs, open, "file", 1);
    mkdir(&fs, open, "folder");
    let (link, target) = (OsStr::new("link"), OsStr::new("target"));
    fs.make_symlink(caller(), open, link, target).unwrap();
    let across = Some(Errno::XDEV);
    for name in ["file", "folder", "link"] {
        assert_eq!(move_to(&fs, open, name, secret), across, "{name}");
    }
    assert_eq!(errno(fs.link(file, secret, OsStr::new("linked"))), across);
    mkdir(&fs, secret, "below");
    write(&fs, secret, "mine", 1);
    assert_eq!(move_to(&fs, secret, "mine", open), across);
    assert_eq!(move_to(&fs, secret, "below", open), across);
    // Same binding, or a directory that is bound as where it goes.
    assert_eq!(move_to(&fs, secret, "mine", other), None);
    assert_eq!(move_to(&fs, secret, "below", other), None);
    let bound = mkdir(&fs, open, "bound");
    fs.bind(bound, &binding()).unwrap();
    write(&fs, bound, "inside", 1);
    assert_eq!(move_to(&fs, open, "bound", secret), None);
    assert_eq!(list(&fs, bound).unwrap(), ["inside"]);
    let exchanged = fs.rename(
        open,
        OsStr::new("folder"),
        secret,
        OsStr::new("bound"),
        RenameMode::Exchange,
    );
    assert_eq!(errno(exchanged), across);
}

/// Attributes of the directory as its users see them.
fn attributes(fs: &FileSystem, node: NodeId) -> BTreeMap<String, Vec<u8>> {
    let listed = fs.list_xattrs(node).unwrap();
    let names = listed
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty());
    let names = names.map(|name| String::from_utf8(name.to_vec()).unwrap());
    names
        .map(|name| {
            let value = fs.get_xattr(node, OsStr::new(&name)).unwrap();
            (name, value)
        })
        .collect()
}

fn set_attributes(fs: &FileSystem, node: NodeId) {
    for (name, value) in [("user.a", &b"1"[..]), ("user.b", b"22")] {
        fs.set_xattr(caller(), node, OsStr::new(name), value, XattrMode::Set)
            .unwrap();
    }
}

#[test]
fn attributes_stay_with_a_directory_that_is_bound() {
    let volume = TestVolume::new();
    volume.new_key(ALIAS);
    let folder = {
        let fs = volume.open();
        let folder = mkdir(&fs, ROOT_NODE, "folder");
        set_attributes(&fs, folder);
        let before = attributes(&fs, folder);
        assert_eq!(before.len(), 2);
        fs.bind(folder, &binding()).unwrap();
        assert_eq!(attributes(&fs, folder), before);
        fs.remove_xattr(folder, OsStr::new("user.a")).unwrap();
        fs.backing_path(folder)
    };
    let fs = volume.open();
    let node = lookup(&fs, ROOT_NODE, "folder").unwrap();
    assert_eq!(attributes(&fs, node).len(), 1);
    let folder = volume.cipher().join(folder);
    assert_eq!(std::fs::read_dir(folder).unwrap().count(), 1, "its header");
}

/// Fails the n-th call that changes something, and with `dead` every one after it.
struct Failing {
    countdown: Arc<AtomicI64>,
    dead: bool,
}

impl Observer for Failing {
    fn before(&self, call: Call) -> Result<(), Errno> {
        if matches!(
            call,
            Call::Stat | Call::Read | Call::ReadXattr | Call::ReadLink
        ) {
            return Ok(());
        }
        let left = self.countdown.fetch_sub(1, Ordering::Relaxed);
        if left == 0 || self.dead && left < 0 {
            Err(Errno::NOSPC)
        } else {
            Ok(())
        }
    }
}

fn open_failing(volume: &TestVolume, countdown: &Arc<AtomicI64>, dead: bool) -> Volume {
    let countdown = Arc::clone(countdown);
    let backing = Backing::observed(Box::new(Failing { countdown, dead }));
    let port = Arc::new(ServicePort::new(Arc::clone(&volume.keys)));
    let (cipher, keys) = (volume.cipher(), &volume.keys);
    volume::open_observed(&cipher, keys, port, Access::ReadWrite, backing).unwrap()
}

#[test]
fn a_binding_that_is_cut_off_anywhere_is_made_or_not() {
    let (mut made, mut not) = (0, 0);
    for dead in [false, true] {
        for n in 0.. {
            let volume = TestVolume::new();
            volume.new_key(ALIAS);
            let countdown = Arc::new(AtomicI64::new(i64::MAX));
            let failing = open_failing(&volume, &countdown, dead);
            let folder = mkdir(&failing, ROOT_NODE, "folder");
            set_attributes(&failing, folder);
            let before = attributes(&failing, folder);
            countdown.store(n, Ordering::Relaxed);
            let bound = failing.bind(folder, &binding());
            let cut = countdown.swap(i64::MAX, Ordering::Relaxed) < 0;
            if !dead {
                // The same mount goes on.
                assert_eq!(attributes(&failing, folder), before, "call {n}");
                write(&failing, folder, "new", 3);
                assert_eq!(list(&failing, folder).unwrap(), ["new"]);
                failing.remove_file(folder, OsStr::new("new")).unwrap();
            }
            drop(failing);
            let fs = volume.open();
            let folder = lookup(&fs, ROOT_NODE, "folder").unwrap();
            let is_made = fs.binding(folder).unwrap() == binding();
            assert!(is_made || bound.is_err(), "call {n}: {bound:?}");
            assert_eq!(attributes(&fs, folder), before, "call {n}, dead: {dead}");
            assert!(volume.census().is_complete());
            write(&fs, folder, "new", 3);
            fs.remove_file(folder, OsStr::new("new")).unwrap();
            // Done again it is made, and nothing is left over.
            fs.bind(folder, &binding()).unwrap();
            assert_eq!(attributes(&fs, folder), before, "call {n}: again");
            let path = volume.cipher().join(fs.backing_path(folder));
            assert_eq!(std::fs::read_dir(&path).unwrap().count(), 1, "call {n}");
            fs.remove_directory(ROOT_NODE, OsStr::new("folder"))
                .unwrap();
            assert!(!path.exists());
            assert!(list(&fs, ROOT_NODE).unwrap().is_empty());
            *if is_made { &mut made } else { &mut not } += 1;
            if !cut {
                break;
            }
        }
    }
    assert!(made > 4 && not > 4, "{made} made, {not} not");
}

#[test]
fn a_directory_whose_binding_was_cut_off_can_be_removed_whole() {
    let volume = TestVolume::new();
    let fs = volume.open();
    let folder = mkdir(&fs, ROOT_NODE, "folder");
    let path = volume.cipher().join(fs.backing_path(folder));
    std::fs::copy(path.join("cmkfs.dir"), path.join("cmkfs.tmp.cmkfs.dir")).unwrap();
    fs.remove_directory(ROOT_NODE, OsStr::new("folder"))
        .unwrap();
    let left = std::fs::read_dir(volume.cipher()).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
}

#[test]
fn what_is_created_while_a_directory_is_bound_is_never_lost() {
    let volume = TestVolume::new();
    volume.new_key(ALIAS);
    let (mut bound, mut refused) = (0, 0);
    for round in 0..60 {
        let fs = volume.open();
        let name = format!("folder {round}");
        let folder = mkdir(&fs, ROOT_NODE, &name);
        let start = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for worker in 0..3 {
                let (fs, start) = (&fs, &start);
                scope.spawn(move || {
                    while !start.load(Ordering::Acquire) {
                        std::hint::spin_loop();
                    }
                    match worker {
                        0 => drop(write(fs, folder, "file", 10)),
                        1 => drop(mkdir(fs, folder, "directory")),
                        _ => {
                            let (name, target) = (OsStr::new("link"), OsStr::new("t"));
                            fs.make_symlink(caller(), folder, name, target).unwrap();
                        }
                    }
                });
            }
            start.store(true, Ordering::Release);
            // Sometimes before the first of them, sometimes after.
            for _ in 0..round * 200 {
                std::hint::spin_loop();
            }
            match fs.bind(folder, &binding()) {
                Ok(()) => bound += 1,
                Err(error) => {
                    assert_eq!(error.errno(), Errno::NOTEMPTY);
                    refused += 1;
                }
            }
        });
        let expected = ["directory", "file", "link"];
        assert_eq!(list(&fs, folder).unwrap(), expected);
        fs.shutdown().unwrap();
        drop(fs);
        let fs = volume.open();
        let folder = lookup(&fs, ROOT_NODE, &name).unwrap();
        assert_eq!(list(&fs, folder).unwrap(), expected);
        let file = lookup(&fs, folder, "file").unwrap();
        assert_eq!(read(&fs, file, 10).unwrap(), [7; 10]);
    }
    println!("{bound} bound, {refused} refused");
}
