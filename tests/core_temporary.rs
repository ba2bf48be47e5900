//! Files that are made without a name, on the bare core: nowhere until they are linked, then as any other; and when what
//! is asked for its time of birth was made.

mod support;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use cmkfs::format::header::KeyBinding;
use cmkfs::fs::backing::{Backing, Call, Observer};
use cmkfs::fs::keys::KeyUnavailable;
use cmkfs::fs::{
    AllocateMode, Attributes, Caller, FileSystem, FileTime, FsResult, HandleId, NewMode, NodeId,
    OpenFlags, ROOT_NODE, RenameMode, SetAttributes, XattrMode,
};
use cmkfs::kms::key::KeyRef;
use cmkfs::volume::keys::ServicePort;
use cmkfs::volume::verify::{self, verify};
use cmkfs::volume::{self, Access, Volume, rekey, rewrap};
use rustix::io::Errno;
use rustix::thread::{CapabilitiesSecureBits, set_capabilities_secure_bits};
use support::upkeep::{default_key, new_key};
use support::{MODE, TestVolume, WRITE, caller, mkdir, write};

fn errno<T>(result: FsResult<T>) -> Option<Errno> {
    result.err().map(|error| error.errno())
}

/// A file without a name in a directory, with this content.
fn temporary(fs: &FileSystem, parent: NodeId, content: &[u8]) -> (NodeId, HandleId) {
    let made = fs.create_temporary(caller(), parent, MODE, WRITE);
    let (found, opened) = made.unwrap();
    assert_eq!((found.links, found.size), (0, 0));
    fs.write(opened.handle, 0, content).unwrap();
    (found.node, opened.handle)
}

fn link(fs: &FileSystem, node: NodeId, parent: NodeId, name: &str) -> FsResult<Attributes> {
    fs.link(node, parent, OsStr::new(name))
}

fn lookup(fs: &FileSystem, parent: NodeId, name: &str) -> FsResult<Attributes> {
    fs.lookup(parent, OsStr::new(name))
}

fn bytes(seed: u8, length: usize) -> Vec<u8> {
    (0..length)
        .map(|at| (at as u8).wrapping_mul(7) ^ (at >> 12) as u8 ^ seed)
        .collect()
}

fn content(fs: &FileSystem, handle: HandleId, size: usize) -> Vec<u8> {
    let mut content = vec![0; size + 1];
    let read = fs.read(handle, 0, &mut content).unwrap();
    content.truncate(read);
    content
}

fn content_of(fs: &FileSystem, parent: NodeId, name: &str) -> Vec<u8> {
    let found = lookup(fs, parent, name).unwrap();
    let handle = fs.open(caller(), found.node, OpenFlags::default());
    let handle = handle.unwrap().handle;
    let read = content(fs, handle, found.size as usize);
    fs.release(handle);
    fs.forget(found.node, 1);
    read
}

/// Everything below a volume's backing directory.
fn listing(directory: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.extend(listing(&entry.path()));
        }
        found.insert(entry.path());
    }
    found
}

/// Descriptors of files without a name in a volume's backing directory.
fn descriptors(volume: &TestVolume) -> usize {
    let all = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    all.filter_map(|fd| std::fs::read_link(fd.path()).ok())
        .filter(|target| {
            target.starts_with(volume.cipher())
                && target.as_os_str().as_bytes().ends_with(b"(deleted)")
        })
        .count()
}

fn is_sound(volume: &TestVolume) {
    let opened = verify::open(&volume.cipher(), &volume.keys, verify::Mode::Offline).unwrap();
    let go_on = &mut |_: verify::Event<'_>| ControlFlow::Continue(());
    let report = verify(&opened, ROOT_NODE, verify::Mode::Offline, go_on).unwrap();
    assert!(report.findings.is_empty(), "{:?}", report.findings);
    assert!(report.is_sound());
}

fn reopened(volume: &TestVolume, fs: Volume) -> Volume {
    fs.shutdown().unwrap();
    drop(fs);
    volume.open()
}

#[test]
fn a_file_without_a_name_is_nowhere_until_it_is_linked_and_then_as_any_other() {
    for name in ["f".to_owned(), "long".repeat(60)] {
        let volume = TestVolume::in_memory();
        let fs = volume.open();
        let before = listing(&volume.cipher());
        let written = bytes(1, 300_000);
        let (node, handle) = temporary(&fs, ROOT_NODE, &written);
        assert_eq!(listing(&volume.cipher()), before);
        let listed = fs.open_directory(ROOT_NODE).unwrap();
        let mut names = Vec::new();
        let take = &mut |entry: cmkfs::fs::DirectoryEntry<'_>| {
            names.push(entry.name.to_owned());
            cmkfs::fs::Fill::Taken
        };
        fs.read_directory(listed, 0, take).unwrap();
        fs.release_directory(listed);
        assert_eq!(names, [".", ".."]);
        assert_eq!(fs.attributes(node, None).unwrap().size, 300_000);
        fs.sync(handle, false).unwrap();

        let linked = link(&fs, node, ROOT_NODE, &name).unwrap();
        assert_eq!((linked.node, linked.links), (node, 1));
        assert_eq!(linked.size, 300_000);
        assert_eq!(lookup(&fs, ROOT_NODE, &name).unwrap().node, node);
        // Overwritten after a sync: through its journal.
        fs.write(handle, 20_000, &bytes(9, 5000)).unwrap();
        let mut expected = written;
        expected[20_000..25_000].copy_from_slice(&bytes(9, 5000));
        fs.sync(handle, false).unwrap();
        fs.rename(
            ROOT_NODE,
            OsStr::new(&name),
            ROOT_NODE,
            OsStr::new("other"),
            RenameMode::Replace,
        )
        .unwrap();
        assert_eq!(link(&fs, node, ROOT_NODE, &name).unwrap().links, 2);
        fs.release(handle);
        let fs = reopened(&volume, fs);
        let found = lookup(&fs, ROOT_NODE, &name).unwrap();
        assert_eq!((found.node, found.links), (node, 2));
        assert!(content_of(&fs, ROOT_NODE, &name) == expected);
        assert!(content_of(&fs, ROOT_NODE, "other") == expected);
        drop(fs);
        is_sound(&volume);
    }
}

#[test]
fn a_file_without_a_name_goes_with_its_last_handle_whether_it_is_forgotten_before_or_after() {
    let volume = TestVolume::in_memory();
    let fs = volume.open();
    let before = listing(&volume.cipher());
    for (is_forgotten_first, content) in [(false, 0), (true, 0), (false, 9000), (true, 9000)] {
        let (node, handle) = temporary(&fs, ROOT_NODE, &bytes(1, content));
        assert!(descriptors(&volume) > 0);
        if is_forgotten_first {
            fs.forget(node, 1);
            fs.release(handle);
        } else {
            fs.release(handle);
            fs.forget(node, 1);
        }
        let figures = fs.figures();
        assert_eq!((figures.inodes, figures.open_files), (1, 0));
        assert_eq!(descriptors(&volume), 0);
        assert_eq!(errno(fs.attributes(node, None)), Some(Errno::STALE));
    }
    assert_eq!(listing(&volume.cipher()), before);
}

#[test]
fn a_process_that_dies_leaves_nothing_of_a_file_without_a_name() {
    let volume = TestVolume::in_memory();
    let before = listing(&volume.cipher());
    let fs = volume.open();
    let (_, handle) = temporary(&fs, ROOT_NODE, &bytes(1, 300_000));
    fs.sync(handle, false).unwrap();
    drop(fs);
    assert_eq!(descriptors(&volume), 0);
    assert_eq!(listing(&volume.cipher()), before);
    is_sound(&volume);
}

#[test]
fn everything_that_is_done_to_an_open_file_is_done_to_one_without_a_name() {
    let volume = TestVolume::new();
    let fs = volume.open();
    let directory = mkdir(&fs, ROOT_NODE, "d");
    let mut expected = bytes(1, 100_000);
    let (node, handle) = temporary(&fs, directory, &expected);
    // Its directory may go before it.
    fs.remove_directory(ROOT_NODE, OsStr::new("d")).unwrap();
    fs.sync(handle, false).unwrap();
    fs.write(handle, 4000, &bytes(2, 50_000)).unwrap();
    expected[4000..54_000].copy_from_slice(&bytes(2, 50_000));
    fs.sync(handle, true).unwrap();
    let size = SetAttributes {
        size: Some(80_001),
        permissions: Some(0o600),
        ..SetAttributes::default()
    };
    let set = fs.set_attributes(caller(), node, None, &size).unwrap();
    assert_eq!((set.size, set.permissions, set.links), (80_001, 0o600, 0));
    expected.truncate(80_001);
    fs.allocate(handle, AllocateMode::PunchHole, 8192, 8192)
        .unwrap();
    expected[8192..16_384].fill(0);
    let name = OsStr::new("user.a");
    fs.set_xattr(caller(), node, name, b"value", XattrMode::Set)
        .unwrap();
    let other = fs.open(caller(), node, WRITE).unwrap().handle;
    fs.write(other, 0, b"other").unwrap();
    expected[..5].copy_from_slice(b"other");
    fs.release(other);
    fs.release(handle);
    // Closed, sealed, and not forgotten: it is still there.
    fs.seal_now();
    let again = fs.open(caller(), node, WRITE).unwrap().handle;
    assert!(content(&fs, again, 80_001) == expected);
    fs.write(again, 70_000, b"again").unwrap();
    expected[70_000..70_005].copy_from_slice(b"again");
    fs.release(again);
    assert_eq!(link(&fs, node, ROOT_NODE, "f").unwrap().links, 1);
    let fs = reopened(&volume, fs);
    let found = lookup(&fs, ROOT_NODE, "f").unwrap();
    assert_eq!((found.permissions, found.size), (0o600, 80_001));
    assert_eq!(fs.get_xattr(found.node, name).unwrap(), b"value");
    assert!(content_of(&fs, ROOT_NODE, "f") == expected);
    drop(fs);
    is_sound(&volume);
}

#[test]
fn its_owner_mode_and_acls_are_those_of_a_file_that_is_created() {
    let volume = TestVolume::in_memory();
    let fs = volume.open();
    let is_root = caller().uid == 0;
    if is_root {
        // As a mount by root does, whose capabilities stay whoever it works for.
        let keep = CapabilitiesSecureBits::NO_SETUID_FIXUP;
        set_capabilities_secure_bits(keep).unwrap();
    }
    let somebody = Caller {
        uid: if is_root { 1234 } else { caller().uid },
        gid: if is_root { 1235 } else { caller().gid },
        pid: 0,
    };
    let mode = NewMode {
        permissions: 0o666,
        umask: 0o027,
    };
    let directory = mkdir(&fs, ROOT_NODE, "d");
    let change = |permissions, gid| {
        let changes = SetAttributes {
            permissions: Some(permissions),
            gid,
            ..SetAttributes::default()
        };
        fs.set_attributes(caller(), directory, None, &changes)
            .unwrap();
    };
    // Version 2; user::rwx, user:77:rw-, group::r-x, mask::rwx, other::---
    let entry = |tag: u16, permissions: u16, id: u32| {
        let (tag, permissions) = (tag.to_le_bytes(), permissions.to_le_bytes());
        [&tag[..], &permissions[..], &id.to_le_bytes()[..]].concat()
    };
    let acl = [
        2_u32.to_le_bytes().to_vec(),
        entry(1, 7, u32::MAX),
        entry(2, 6, 77),
        entry(4, 5, u32::MAX),
        entry(16, 7, u32::MAX),
        entry(32, 0, u32::MAX),
    ]
    .concat();
    let seen = |found: &Attributes| {
        let acl = fs.get_xattr(found.node, OsStr::new("system.posix_acl_access"));
        let acl = acl.map_err(|error| error.errno());
        (found.permissions, found.uid, found.gid, acl)
    };
    for round in 0..3 {
        match round {
            0 => change(0o777, None),
            1 => change(0o2777, is_root.then_some(4321)),
            _ => {
                let name = OsStr::new("system.posix_acl_default");
                fs.set_xattr(caller(), directory, name, &acl, XattrMode::Set)
                    .unwrap();
            }
        }
        let name = format!("f{round}");
        let created = fs.create(somebody, directory, OsStr::new(&name), mode, WRITE);
        let (created, named) = created.unwrap();
        let made = fs.create_temporary(somebody, directory, mode, WRITE);
        let (made, unnamed) = made.unwrap();
        let expected = seen(&created);
        assert_eq!(seen(&made), expected, "round {round}");
        assert_eq!(made.uid, somebody.uid);
        match round {
            0 => assert_eq!((made.permissions, made.gid), (0o640, somebody.gid)),
            1 if is_root => assert_eq!((made.permissions, made.gid), (0o640, 4321)),
            1 => assert_eq!(made.permissions, 0o640),
            _ => assert!(expected.3.is_ok(), "the default ACL is inherited"),
        }
        fs.release(named.handle);
        let linked = link(&fs, made.node, directory, &format!("t{round}")).unwrap();
        assert_eq!(seen(&linked), expected, "round {round}, linked");
        fs.release(unnamed.handle);
    }
}

#[test]
fn a_name_that_cannot_be_given_leaves_the_file_without_one_and_nothing_behind() {
    let volume = TestVolume::in_memory();
    let fs = volume.open();
    write(&fs, ROOT_NODE, "there", 10);
    let closed = mkdir(&fs, ROOT_NODE, "other key");
    fs.bind(closed, &KeyBinding::Key(new_key(&volume))).unwrap();
    fs.seal_now();
    let before = listing(&volume.cipher());
    let (node, handle) = temporary(&fs, ROOT_NODE, b"content");
    assert_eq!(
        errno(link(&fs, node, ROOT_NODE, "there")),
        Some(Errno::EXIST)
    );
    assert_eq!(
        errno(link(&fs, node, closed, &"n".repeat(250))),
        Some(Errno::XDEV)
    );
    assert_eq!(
        errno(link(&fs, node, ROOT_NODE, &"n".repeat(256))),
        Some(Errno::NAMETOOLONG)
    );
    assert_eq!(listing(&volume.cipher()), before);
    assert_eq!(fs.attributes(node, None).unwrap().links, 0);
    assert_eq!(content(&fs, handle, 7), b"content");
    link(&fs, node, ROOT_NODE, "here").unwrap();
    fs.release(handle);
    assert_eq!(content_of(&fs, ROOT_NODE, "here"), b"content");

    // A file that has lost its name gets none again, as everywhere.
    let (found, opened) = fs
        .create(caller(), ROOT_NODE, OsStr::new("gone"), MODE, WRITE)
        .unwrap();
    fs.remove_file(ROOT_NODE, OsStr::new("gone")).unwrap();
    assert_eq!(
        errno(link(&fs, found.node, ROOT_NODE, &"g".repeat(250))),
        Some(Errno::NOENT)
    );
    fs.release(opened.handle);
    fs.shutdown().unwrap();
    drop(fs);
    is_sound(&volume);
}

#[test]
fn it_is_refused_where_a_file_could_not_be_created() {
    let volume = TestVolume::in_memory();
    let fs = volume.open();
    let file = write(&fs, ROOT_NODE, "f", 10);
    let make = |fs: &FileSystem, parent| errno(fs.create_temporary(caller(), parent, MODE, WRITE));
    assert_eq!(make(&fs, file), Some(Errno::NOTDIR));
    assert_eq!(make(&fs, 4711), Some(Errno::STALE));
    let key = default_key(&volume);
    fs.withdraw(key, KeyUnavailable::Disabled);
    assert_eq!(make(&fs, ROOT_NODE), Some(Errno::KEYREVOKED));
    fs.leases().restore(key);
    assert_eq!(make(&fs, ROOT_NODE), None);
    drop(fs);
    let port = Arc::new(ServicePort::new(Arc::clone(&volume.keys)));
    let fs = volume::open_observed(
        &volume.cipher(),
        &volume.keys,
        port,
        Access::ReadOnly,
        Default::default(),
    )
    .unwrap();
    assert_eq!(make(&fs, ROOT_NODE), Some(Errno::ROFS));
    assert_eq!(descriptors(&volume), 0);
}

/// A backing filesystem on which files without a name cannot be made.
struct NamedOnly(Arc<AtomicBool>);

impl Observer for NamedOnly {
    fn before(&self, call: Call) -> Result<(), Errno> {
        if call == Call::Open && self.0.load(Ordering::Relaxed) {
            return Err(Errno::OPNOTSUPP);
        }
        Ok(())
    }
}

#[test]
fn where_the_backing_filesystem_has_no_files_without_a_name_programs_are_told_so() {
    let volume = TestVolume::in_memory();
    let is_without = Arc::<AtomicBool>::default();
    let fs = volume.open_with(Backing::observed(Box::new(NamedOnly(Arc::clone(
        &is_without,
    )))));
    write(&fs, ROOT_NODE, "f", 10);
    is_without.store(true, Ordering::Relaxed);
    let made = fs.create_temporary(caller(), ROOT_NODE, MODE, WRITE);
    assert_eq!(errno(made), Some(Errno::OPNOTSUPP));
    assert_eq!((fs.figures().inodes, fs.figures().open_files), (2, 0));
}

#[test]
fn a_withdrawn_key_takes_a_file_without_a_name_away_and_gives_it_back() {
    let volume = TestVolume::in_memory();
    let fs = volume.open();
    let (node, handle) = temporary(&fs, ROOT_NODE, b"content");
    let key = default_key(&volume);
    let withdrawn = fs.withdraw(key, KeyUnavailable::Disabled);
    assert!(withdrawn.nodes.contains(&node), "{withdrawn:?}");
    assert!(withdrawn.names.is_empty(), "{withdrawn:?}");
    let refused = Some(Errno::KEYREVOKED);
    assert_eq!(errno(fs.read(handle, 0, &mut [0; 7])), refused);
    assert_eq!(errno(fs.write(handle, 0, b"x")), refused);
    assert_eq!(errno(fs.attributes(node, None)), refused);
    assert_eq!(errno(fs.birth_time(node)), refused);
    assert_eq!(errno(link(&fs, node, ROOT_NODE, "f")), refused);
    fs.leases().restore(key);
    assert_eq!(content(&fs, handle, 7), b"content");
    link(&fs, node, ROOT_NODE, "f").unwrap();
    fs.release(handle);
    assert_eq!(content_of(&fs, ROOT_NODE, "f"), b"content");
}

#[test]
fn a_rewrap_reaches_files_without_a_name() {
    let volume = TestVolume::in_memory();
    let fs = volume.open();
    let (written, handle) = temporary(&fs, ROOT_NODE, b"content");
    let (empty, later) = temporary(&fs, ROOT_NODE, b"");
    let (old, new) = (default_key(&volume), new_key(&volume));
    let to = KeyBinding::Key(new);
    let go_on = &mut |_| ControlFlow::Continue(());
    let report = rewrap::rewrap(&fs, ROOT_NODE, Some(&to), go_on).unwrap();
    assert!(report.is_complete(), "{report:?}");
    fs.write(later, 0, b"later").unwrap();
    volume.keys.disable_key(&KeyRef::Id(old)).unwrap();
    link(&fs, written, ROOT_NODE, "f").unwrap();
    link(&fs, empty, ROOT_NODE, "g").unwrap();
    fs.release(handle);
    fs.release(later);
    let fs = reopened(&volume, fs);
    assert_eq!(content_of(&fs, ROOT_NODE, "f"), b"content");
    assert_eq!(content_of(&fs, ROOT_NODE, "g"), b"later");
    let keys: BTreeSet<_> = volume.census().keys().collect();
    assert_eq!(keys, BTreeSet::from([new]));
}

#[test]
fn a_rekey_lists_files_without_a_name_as_not_rekeyed() {
    let volume = TestVolume::in_memory();
    let fs = volume.open();
    write(&fs, ROOT_NODE, "named", 100);
    let go_on = &mut |_| ControlFlow::Continue(());
    let (node, handle) = temporary(&fs, ROOT_NODE, b"content");
    let (_, untouched) = temporary(&fs, ROOT_NODE, b"");
    // One that is gone is not worth a word.
    let (_, gone) = fs
        .create(caller(), ROOT_NODE, OsStr::new("gone"), MODE, WRITE)
        .unwrap();
    fs.write(gone.handle, 0, b"gone").unwrap();
    fs.remove_file(ROOT_NODE, OsStr::new("gone")).unwrap();
    let report = rekey::rekey(&fs, ROOT_NODE, go_on).unwrap();
    assert_eq!(
        (report.rekeyed, report.failures.count),
        (1, 1),
        "{report:?}"
    );
    fs.release(untouched);
    fs.release(gone.handle);
    link(&fs, node, ROOT_NODE, "f").unwrap();
    let report = rekey::rekey(&fs, ROOT_NODE, go_on).unwrap();
    assert_eq!(
        (report.rekeyed, report.failures.count),
        (2, 0),
        "{report:?}"
    );
    fs.release(handle);
    assert_eq!(content_of(&fs, ROOT_NODE, "f"), b"content");
}

#[test]
fn a_directory_is_not_bound_while_a_file_that_was_made_in_it_has_no_name() {
    let volume = TestVolume::in_memory();
    let fs = volume.open();
    let directory = mkdir(&fs, ROOT_NODE, "d");
    let new = new_key(&volume);
    let (node, handle) = temporary(&fs, directory, b"content");
    let bound = fs.bind(directory, &KeyBinding::Key(new));
    assert_eq!(errno(bound), Some(Errno::NOTEMPTY));
    link(&fs, node, ROOT_NODE, "f").unwrap();
    fs.release(handle);
    fs.bind(directory, &KeyBinding::Key(new)).unwrap();
    let (node, handle) = temporary(&fs, directory, b"content");
    link(&fs, node, directory, "g").unwrap();
    fs.release(handle);
    fs.seal_now();
    let (f, g) = (lookup(&fs, ROOT_NODE, "f"), lookup(&fs, directory, "g"));
    fs.withdraw(new, KeyUnavailable::Disabled);
    assert!(fs.attributes(f.unwrap().node, None).is_ok());
    assert_eq!(
        errno(fs.attributes(g.unwrap().node, None)),
        Some(Errno::KEYREVOKED)
    );
}

fn now() -> FileTime {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    FileTime {
        seconds: now.as_secs() as i64,
        nanoseconds: now.subsec_nanos(),
    }
}

const fn parts(time: FileTime) -> (i64, u32) {
    (time.seconds, time.nanoseconds)
}

#[test]
fn a_rekey_alone_and_of_symlinks_a_rewrap_changes_the_time_of_birth() {
    let volume = TestVolume::new();
    // The clock of files lags behind by a tick.
    let first = FileTime {
        seconds: now().seconds - 1,
        ..now()
    };
    let fs = volume.open();
    let file = write(&fs, ROOT_NODE, "f", 100_000);
    let directory = mkdir(&fs, ROOT_NODE, "d");
    let (name, target) = (OsStr::new("s"), OsStr::new("target"));
    let symlink = fs.make_symlink(caller(), ROOT_NODE, name, target).unwrap();
    let (unnamed, handle) = temporary(&fs, ROOT_NODE, b"content");
    let all = [file, directory, symlink.node, unnamed];
    let born = all.map(|node| {
        fs.birth_time(node)
            .unwrap()
            .expect("tmpfs, ext4, xfs and btrfs keep it")
    });
    for time in born {
        assert!(
            parts(first) <= parts(time) && parts(time) <= parts(now()),
            "{time:?}"
        );
    }
    fs.release(handle);
    link(&fs, unnamed, directory, "linked").unwrap();
    let emptied = SetAttributes {
        size: Some(0),
        ..SetAttributes::default()
    };
    fs.set_attributes(caller(), file, None, &emptied).unwrap();
    let open = fs.open(caller(), file, WRITE).unwrap().handle;
    fs.write(open, 0, &[7; 5000]).unwrap();
    fs.rename(
        ROOT_NODE,
        OsStr::new("f"),
        directory,
        OsStr::new("g"),
        RenameMode::Replace,
    )
    .unwrap();
    assert_eq!(fs.birth_time(file).unwrap(), Some(born[0]));
    fs.release(open);
    let fs = reopened(&volume, fs);
    let find = |parent, name| lookup(&fs, parent, name).unwrap().node;
    let directory = find(ROOT_NODE, "d");
    let file = find(directory, "g");
    let all = [
        file,
        directory,
        find(ROOT_NODE, "s"),
        find(directory, "linked"),
    ];
    assert_eq!(all.map(|node| fs.birth_time(node).unwrap()), born.map(Some));

    let go_on = &mut |_| ControlFlow::Continue(());
    let report = rekey::rekey(&fs, ROOT_NODE, go_on).unwrap();
    assert_eq!((report.rekeyed, report.failures.count), (3, 0));
    let anew = all.map(|node| parts(fs.birth_time(node).unwrap().unwrap()));
    let born = born.map(parts);
    assert!(anew[0] > born[0], "another backing file");
    assert_eq!(anew[1], born[1], "a directory keeps its data key");
    assert!(anew[2] > born[2] && anew[3] > born[3]);

    let to = KeyBinding::Key(new_key(&volume));
    let report = rewrap::rewrap(&fs, ROOT_NODE, Some(&to), go_on).unwrap();
    assert!(report.is_complete(), "{report:?}");
    let rewrapped = all.map(|node| parts(fs.birth_time(node).unwrap().unwrap()));
    assert!(rewrapped[2] > anew[2], "another backing symlink");
    for at in [0, 1, 3] {
        assert_eq!(rewrapped[at], anew[at], "the same backing object");
    }
}
