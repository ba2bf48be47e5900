//! Keys change under the core, without FUSE: what is refused, what comes back, and what is never written under a wrong key.

mod support;

use std::ffi::OsStr;
use std::sync::atomic::{AtomicBool, Ordering};

use cmkfs::fs::backing::{Backing, Call, Observer};
use cmkfs::fs::keys::KeyUnavailable;
use cmkfs::fs::{
    FileSystem, FsError, HandleId, NodeId, OpenFlags, ROOT_NODE, SetAttributes, XattrMode,
};
use cmkfs::ids::KeyId;
use cmkfs::volume::keys::ServicePort;
use cmkfs::volume::{self, Access};
use rustix::io::Errno;
use support::{DEFAULT_ALIAS, MODE, TestVolume, WRITE, caller};

fn errno<T>(result: Result<T, FsError>) -> Option<Errno> {
    result.err().map(|error| error.errno())
}

fn create(fs: &FileSystem, name: &str) -> (NodeId, HandleId) {
    let (found, opened) = fs
        .create(caller(), ROOT_NODE, OsStr::new(name), MODE, WRITE)
        .unwrap();
    (found.node, opened.handle)
}

/// Everything that needs a key, on a file that is open and on one that is not.
fn attempts(
    fs: &FileSystem,
    node: NodeId,
    handle: HandleId,
    link: NodeId,
    listing: HandleId,
) -> Vec<(&'static str, Option<Errno>)> {
    let name = OsStr::new("f");
    vec![
        ("read", errno(fs.read(handle, 0, &mut [0; 10]))),
        ("write", errno(fs.write(handle, 0, b"x"))),
        ("open", errno(fs.open(caller(), node, OpenFlags::default()))),
        ("lookup", errno(fs.lookup(ROOT_NODE, name))),
        ("stat", errno(fs.attributes(node, None))),
        (
            "create",
            errno(fs.create(caller(), ROOT_NODE, OsStr::new("new"), MODE, WRITE)),
        ),
        (
            "mkdir",
            errno(fs.make_directory(caller(), ROOT_NODE, OsStr::new("d"), MODE)),
        ),
        (
            "symlink",
            errno(fs.make_symlink(caller(), ROOT_NODE, OsStr::new("l"), OsStr::new("t"))),
        ),
        ("readlink", errno(fs.read_link(link))),
        ("unlink", errno(fs.remove_file(ROOT_NODE, name))),
        ("opendir", errno(fs.open_directory(ROOT_NODE))),
        (
            "readdir",
            errno(fs.read_directory(listing, 0, &mut |_| cmkfs::fs::Fill::Taken)),
        ),
        ("getxattr", errno(fs.get_xattr(node, OsStr::new("user.a")))),
        (
            "setxattr",
            errno(fs.set_xattr(caller(), node, OsStr::new("user.a"), b"v", XattrMode::Set)),
        ),
        (
            "rename",
            errno(fs.rename(
                ROOT_NODE,
                name,
                ROOT_NODE,
                OsStr::new("g"),
                cmkfs::fs::RenameMode::Replace,
            )),
        ),
    ]
}

fn only_key(fs: &FileSystem) -> KeyId {
    let leases = fs.leases().list();
    assert_eq!(leases.len(), 1);
    leases[0].0
}

#[test]
fn a_revoked_lease_refuses_everything_and_a_restored_one_gives_everything_back() {
    let volume = TestVolume::new();
    let fs = volume.open();
    let (node, handle) = create(&fs, "f");
    fs.write(handle, 0, b"content").unwrap();
    fs.set_xattr(
        caller(),
        node,
        OsStr::new("user.a"),
        b"value",
        XattrMode::Set,
    )
    .unwrap();
    let link = fs
        .make_symlink(
            caller(),
            ROOT_NODE,
            OsStr::new("link"),
            OsStr::new("target"),
        )
        .unwrap()
        .node;
    let listing = fs.open_directory(ROOT_NODE).unwrap();
    let key = only_key(&fs);
    for (why, expected) in [
        (KeyUnavailable::Disabled, Errno::KEYREVOKED),
        (KeyUnavailable::PendingDeletion, Errno::KEYREVOKED),
        (KeyUnavailable::NoMaterial, Errno::NOKEY),
        (KeyUnavailable::Expired, Errno::KEYEXPIRED),
    ] {
        assert!(
            fs.withdraw(key, why).data_keys >= 1,
            "the open file, at least, held a key"
        );
        for (operation, refused) in attempts(&fs, node, handle, link, listing) {
            assert_eq!(refused, Some(expected), "{operation} while {why:?}");
        }
        assert!(
            fs.attributes(ROOT_NODE, None).is_ok(),
            "the root always answers"
        );
        fs.leases().restore(key);
        let mut buffer = [0; 7];
        fs.read(handle, 0, &mut buffer).unwrap();
        assert_eq!(&buffer, b"content");
        assert_eq!(fs.get_xattr(node, OsStr::new("user.a")).unwrap(), b"value");
        assert_eq!(fs.read_link(link).unwrap(), b"target");
    }
}

#[test]
fn a_disabled_key_is_refused_where_a_key_is_needed_anew_even_before_its_lease_is_revoked() {
    let volume = TestVolume::new();
    let fs = volume.open();
    let (_, handle) = create(&fs, "empty");
    volume
        .keys
        .disable_key(&DEFAULT_ALIAS.parse().unwrap())
        .unwrap();
    assert_eq!(
        errno(fs.write(handle, 0, b"x")),
        Some(Errno::KEYREVOKED),
        "a first write needs a data key"
    );
    assert_eq!(
        errno(fs.make_directory(caller(), ROOT_NODE, OsStr::new("d"), MODE)),
        Some(Errno::KEYREVOKED)
    );
    assert_eq!(
        fs.attributes(
            fs.lookup(ROOT_NODE, OsStr::new("empty")).unwrap().node,
            None
        )
        .unwrap()
        .size,
        0
    );
    volume
        .keys
        .enable_key(&DEFAULT_ALIAS.parse().unwrap())
        .unwrap();
    fs.write(handle, 0, b"x").unwrap();
}

#[test]
fn a_volume_under_a_disabled_key_is_not_opened() {
    let volume = TestVolume::new();
    volume
        .keys
        .disable_key(&DEFAULT_ALIAS.parse().unwrap())
        .unwrap();
    let refused = cmkfs::volume::open(
        &volume.cipher(),
        &volume.keys,
        cmkfs::volume::Access::ReadWrite,
    );
    assert!(
        matches!(refused, Err(cmkfs::volume::VolumeError::Keys(_))),
        "{refused:?}"
    );
}

#[test]
fn what_was_being_written_when_the_key_went_is_sealed_after_it_came_back() {
    let volume = TestVolume::new();
    {
        let fs = volume.open();
        let (_, handle) = create(&fs, "f");
        fs.write(handle, 0, &[7; 300_000]).unwrap();
        let key = only_key(&fs);
        fs.withdraw(key, KeyUnavailable::Disabled);
        fs.release(handle);
        fs.shutdown().unwrap();
    }
    let fs = volume.open();
    let found = fs.lookup(ROOT_NODE, OsStr::new("f")).unwrap();
    let handle = fs.open(caller(), found.node, WRITE).unwrap().handle;
    let mut content = vec![0; 300_000];
    assert_eq!(fs.read(handle, 0, &mut content).unwrap(), 300_000);
    assert!(content.iter().all(|byte| *byte == 7));
}

/// Cuts a file to nothing.
fn empty(fs: &FileSystem, node: NodeId) {
    let size = Some(0);
    let nothing = SetAttributes {
        size,
        ..SetAttributes::default()
    };
    fs.set_attributes(caller(), node, None, &nothing).unwrap();
}

#[test]
fn an_attribute_of_a_file_that_was_emptied_while_open_can_be_read_once_it_is_closed() {
    let volume = TestVolume::new();
    let fs = volume.open();
    let (node, handle) = create(&fs, "f");
    fs.write(handle, 0, b"content").unwrap();
    empty(&fs, node);
    let name = OsStr::new("user.a");
    fs.set_xattr(caller(), node, name, b"value", XattrMode::Set)
        .unwrap();
    fs.release(handle);
    assert_eq!(fs.list_xattrs(node).unwrap(), b"user.a\0");
    assert_eq!(fs.get_xattr(node, name).unwrap(), b"value");
}

#[test]
fn an_attribute_keeps_its_key_while_others_empty_the_file() {
    let volume = TestVolume::in_memory();
    let fs = volume.open();
    let (node, handle) = create(&fs, "f");
    fs.release(handle);
    let name = OsStr::new("user.a");
    let is_done = AtomicBool::new(false);
    std::thread::scope(|threads| {
        threads.spawn(|| {
            while !is_done.load(Ordering::Relaxed) {
                let handle = fs.open(caller(), node, WRITE).unwrap().handle;
                fs.write(handle, 0, b"content").unwrap();
                empty(&fs, node);
                fs.release(handle);
            }
        });
        for round in 0..2_000_u32 {
            let set = fs.set_xattr(caller(), node, name, &round.to_le_bytes(), XattrMode::Set);
            let found = set.and_then(|()| fs.get_xattr(node, name));
            let removed = fs.remove_xattr(node, name);
            if found.is_err() || removed.is_err() {
                is_done.store(true, Ordering::Relaxed);
            }
            assert_eq!(found.unwrap(), round.to_le_bytes(), "round {round}");
            removed.unwrap();
        }
        is_done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn revoking_waits_for_no_reader_that_comes_later() {
    let volume = TestVolume::new();
    let fs = volume.open();
    let (_, handle) = create(&fs, "f");
    fs.write(handle, 0, &[7; 300_000]).unwrap();
    let key = only_key(&fs);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut buffer = vec![0; 300_000];
                    // Tight loops that together never leave the lease alone.
                    loop {
                        if let Err(error) = fs.read(handle, 0, &mut buffer) {
                            return error.errno();
                        }
                    }
                })
            })
            .collect();
        fs.withdraw(key, KeyUnavailable::Disabled);
        for reader in readers {
            assert_eq!(reader.join().unwrap(), Errno::KEYREVOKED);
        }
    });
}

/// Runs something at the first look at an object that comes after it was set.
type Hook = std::sync::Arc<std::sync::Mutex<Option<Box<dyn FnOnce() + Send>>>>;

struct AtStat(Hook);

impl Observer for AtStat {
    fn before(&self, call: Call) -> Result<(), Errno> {
        if call == Call::Stat
            && let Some(run) = self.0.lock().unwrap().take()
        {
            run();
        }
        Ok(())
    }
}

#[test]
fn a_name_that_is_being_looked_up_while_its_key_is_withdrawn_is_not_told() {
    let volume = TestVolume::new();
    let hook = Hook::default();
    let port = std::sync::Arc::new(ServicePort::new(std::sync::Arc::clone(&volume.keys)));
    let backing = Backing::observed(Box::new(AtStat(std::sync::Arc::clone(&hook))));
    let opened = volume::open_observed(
        &volume.cipher(),
        &volume.keys,
        port,
        Access::ReadWrite,
        backing,
    );
    let fs = std::sync::Arc::new(opened.unwrap());
    // Neither has a CMK of its own that could refuse it.
    let node = create(&fs, "empty").0;
    fs.make_directory(caller(), ROOT_NODE, OsStr::new("directory"), MODE)
        .unwrap();
    fs.forget(node, 1);
    let key = only_key(&fs);
    for name in ["empty", "directory"] {
        let withdrawing = std::sync::Arc::clone(&fs);
        let withdraw = move || drop(withdrawing.withdraw(key, KeyUnavailable::Disabled));
        *hook.lock().unwrap() = Some(Box::new(withdraw));
        let found = fs.lookup(ROOT_NODE, OsStr::new(name));
        assert_eq!(errno(found), Some(Errno::KEYREVOKED), "{name}");
        fs.leases().restore(key);
        fs.lookup(ROOT_NODE, OsStr::new(name)).unwrap();
    }
}
