//! A volume as the format's first release wrote it, in tests/volumes/v1.tar: every later build reads it, and goes on
//! writing to it. The archive is never written anew for version 1; how it was made is below, for the version after it:
//! `CMKFS_WRITE_FROZEN=/path/to.tar cargo test --test frozen_volume`.

mod support;

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use cmkfs::fs::{
    Attributes, Caller, FileKind, FileSystem, FileTime, Fill, NewMode, NodeId, OpenFlags,
    ROOT_NODE, Seek, SetAttributes, SetTime, XattrMode,
};
use cmkfs::kms::service::KeyService;
use cmkfs::volume::{self, Access, Volume};

const READ: OpenFlags = OpenFlags {
    write: false,
    truncate: false,
};
const WRITE: OpenFlags = OpenFlags {
    write: true,
    truncate: false,
};
/// When everything in the volume was changed last: 2021-02-03T04:05:06.789012345Z.
const MTIME: FileTime = FileTime {
    seconds: 1_612_325_106,
    nanoseconds: 789_012_345,
};
const SMALL: &[u8] = b"Hello from the first format.\n";
/// Where the data of the large file begins and ends; between them, and after, are holes.
const LARGE_HEAD: usize = 10_000;
const LARGE_TAIL_AT: u64 = 300 * 4096 + 123;
const LARGE_TAIL: usize = 250_000;
const LARGE_SIZE: u64 = 1_600_000;

fn caller() -> Caller {
    Caller {
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        pid: 0,
    }
}

fn mode(permissions: u32) -> NewMode {
    NewMode {
        permissions,
        umask: 0,
    }
}

fn pattern(seed: u8, length: usize) -> Vec<u8> {
    (0..length)
        .map(|at| seed ^ (at % 251) as u8 ^ (at / 4096) as u8)
        .collect()
}

fn long_name() -> String {
    "long-".repeat(51)
}

fn long_target() -> String {
    "../target".repeat(455)
}

fn large_content() -> Vec<u8> {
    let mut content = vec![0; LARGE_SIZE as usize];
    content[..LARGE_HEAD].copy_from_slice(&pattern(1, LARGE_HEAD));
    content[LARGE_TAIL_AT as usize..][..LARGE_TAIL].copy_from_slice(&pattern(2, LARGE_TAIL));
    content
}

fn tar(arguments: &[&OsStr]) {
    let status = Command::new("tar").args(arguments).status();
    assert!(status.expect("tar is there").success(), "tar {arguments:?}");
}

/// The frozen volume, unpacked in a temporary place.
struct Frozen {
    dir: tempfile::TempDir,
}

impl Frozen {
    fn unpack() -> Self {
        let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/volumes/v1.tar");
        Self::unpack_from(&archive)
    }

    fn unpack_from(archive: &Path) -> Self {
        let dir = tempfile::tempdir().unwrap();
        tar(&[
            "--extract".as_ref(),
            "--xattrs".as_ref(),
            "--xattrs-include=user.*".as_ref(),
            "--no-same-owner".as_ref(),
            "--same-permissions".as_ref(),
            "--file".as_ref(),
            archive.as_ref(),
            "--directory".as_ref(),
            dir.path().as_ref(),
        ]);
        Self { dir }
    }

    fn open(&self) -> (Arc<KeyService>, Volume) {
        let keys = self.dir.path().join("keys");
        std::fs::set_permissions(&keys, std::fs::Permissions::from_mode(0o700)).unwrap();
        let keys = support::key_service(&keys);
        let volume = volume::open(&self.dir.path().join("cipher"), &keys, Access::ReadWrite);
        (keys, volume.unwrap())
    }
}

fn find(fs: &FileSystem, path: &str) -> Attributes {
    let root = fs.attributes(ROOT_NODE, None).unwrap();
    path.split('/').fold(root, |directory, name| {
        fs.lookup(directory.node, OsStr::new(name)).unwrap()
    })
}

fn read(fs: &FileSystem, path: &str) -> Vec<u8> {
    let found = find(fs, path);
    let handle = fs.open(caller(), found.node, READ).unwrap().handle;
    let mut content = vec![0xaa; found.size as usize + 1];
    let length = fs.read(handle, 0, &mut content).unwrap();
    fs.release(handle);
    content.truncate(length);
    content
}

fn names(fs: &FileSystem, node: NodeId) -> Vec<String> {
    let mut names = Vec::new();
    let handle = fs.open_directory(node).unwrap();
    fs.read_directory(handle, 0, &mut |entry| {
        names.push(entry.name.to_str().unwrap().to_owned());
        Fill::Taken
    })
    .unwrap();
    fs.release_directory(handle);
    names.retain(|name| name != "." && name != "..");
    names.sort();
    names
}

fn write_file(fs: &FileSystem, parent: NodeId, name: &str, parts: &[(u64, &[u8])]) -> NodeId {
    let created = fs.create(caller(), parent, OsStr::new(name), mode(0o640), WRITE);
    let (attributes, opened) = created.unwrap();
    for (offset, data) in parts {
        fs.write(opened.handle, *offset, data).unwrap();
    }
    fs.release(opened.handle);
    attributes.node
}

/// Fills a volume with one of each.
fn fill(fs: &FileSystem) {
    let set = |node, changes: SetAttributes| {
        fs.set_attributes(caller(), node, None, &changes).unwrap();
    };
    let small = write_file(fs, ROOT_NODE, "small", &[(0, SMALL)]);
    write_file(fs, ROOT_NODE, "empty", &[]);
    let (head, tail) = (pattern(1, LARGE_HEAD), pattern(2, LARGE_TAIL));
    let large = write_file(
        fs,
        ROOT_NODE,
        "large",
        &[(0, &head), (LARGE_TAIL_AT, &tail)],
    );
    set(
        large,
        SetAttributes {
            size: Some(LARGE_SIZE),
            ..SetAttributes::default()
        },
    );
    write_file(fs, ROOT_NODE, &long_name(), &[(0, b"long name")]);
    for (name, target) in [("symlink", "sub/inner"), ("long symlink", &long_target())] {
        let (name, target) = (OsStr::new(name), OsStr::new(target));
        fs.make_symlink(caller(), ROOT_NODE, name, target).unwrap();
    }
    let sub = fs
        .make_directory(caller(), ROOT_NODE, OsStr::new("sub"), mode(0o750))
        .unwrap();
    write_file(
        fs,
        sub.node,
        "inner",
        &[(0, b"first"), (0, b"inner content")],
    );
    fs.link(small, sub.node, OsStr::new("hard link")).unwrap();
    for (node, value) in [(small, "of a file"), (sub.node, "of a directory")] {
        let name = OsStr::new("user.comment");
        fs.set_xattr(caller(), node, name, value.as_bytes(), XattrMode::Set)
            .unwrap();
    }
    let mtime = SetAttributes {
        mtime: Some(SetTime::At(MTIME)),
        ..SetAttributes::default()
    };
    set(small, mtime);
    set(large, mtime);
}

fn write_archive(archive: &Path) {
    let volume = support::TestVolume::new();
    let open = volume.open();
    fill(&open);
    open.shutdown().unwrap();
    drop(open);
    tar(&[
        "--create".as_ref(),
        "--format=posix".as_ref(),
        "--sparse".as_ref(),
        "--sort=name".as_ref(),
        "--xattrs".as_ref(),
        "--xattrs-include=user.*".as_ref(),
        "--numeric-owner".as_ref(),
        "--file".as_ref(),
        archive.as_ref(),
        "--directory".as_ref(),
        volume.dir.path().as_ref(),
        "keys".as_ref(),
        "cipher".as_ref(),
    ]);
}

fn check(fs: &FileSystem) {
    let mut expected = vec![
        "small".to_owned(),
        "empty".to_owned(),
        "large".to_owned(),
        "symlink".to_owned(),
        "long symlink".to_owned(),
        "sub".to_owned(),
        long_name(),
    ];
    expected.sort();
    assert_eq!(names(fs, ROOT_NODE), expected);
    assert_eq!(names(fs, find(fs, "sub").node), ["hard link", "inner"]);

    assert_eq!(read(fs, "small"), SMALL);
    assert_eq!(read(fs, "empty"), b"");
    assert_eq!(read(fs, "large"), large_content());
    assert_eq!(read(fs, &long_name()), b"long name");
    assert_eq!(read(fs, "sub/inner"), b"inner content");
    assert_eq!(read(fs, "sub/hard link"), SMALL);

    let small = find(fs, "small");
    assert_eq!(small.node, find(fs, "sub/hard link").node);
    assert_eq!(
        (small.links, small.permissions, small.mtime),
        (2, 0o640, MTIME)
    );
    assert_eq!(small.size, SMALL.len() as u64);
    let sub = find(fs, "sub");
    assert_eq!((sub.kind, sub.permissions), (FileKind::Directory, 0o750));

    for (name, target) in [
        ("symlink", "sub/inner".to_owned()),
        ("long symlink", long_target()),
    ] {
        let found = find(fs, name);
        assert_eq!(
            (found.kind, found.size),
            (FileKind::Symlink, target.len() as u64)
        );
        assert_eq!(fs.read_link(found.node).unwrap(), target.as_bytes());
    }
    for (node, value) in [(small.node, "of a file"), (sub.node, "of a directory")] {
        assert_eq!(fs.list_xattrs(node).unwrap(), b"user.comment\0");
        let found = fs.get_xattr(node, OsStr::new("user.comment")).unwrap();
        assert_eq!(found, value.as_bytes());
    }

    let large = find(fs, "large");
    assert_eq!((large.size, large.mtime), (LARGE_SIZE, MTIME));
    let handle = fs.open(caller(), large.node, READ).unwrap().handle;
    let hole = LARGE_HEAD.next_multiple_of(4096) as u64;
    assert_eq!(fs.seek(handle, 0, Seek::Hole).unwrap(), hole);
    assert_eq!(
        fs.seek(handle, hole, Seek::Data).unwrap(),
        LARGE_TAIL_AT / 4096 * 4096
    );
    fs.release(handle);
}

#[test]
fn the_first_format_is_read() {
    assert_eq!(long_name().len(), 255);
    assert_eq!(long_target().len(), 4095);
    let frozen = Frozen::unpack();
    let (_keys, fs) = frozen.open();
    check(&fs);
}

#[test]
fn the_first_format_is_written_to_and_read_again() {
    let frozen = Frozen::unpack();
    let (keys, fs) = frozen.open();
    let overwrite = |path: &str, offset, data: &[u8]| {
        let handle = fs
            .open(caller(), find(&fs, path).node, WRITE)
            .unwrap()
            .handle;
        fs.write(handle, offset, data).unwrap();
        fs.release(handle);
    };
    overwrite("small", 6, b"to");
    overwrite("empty", 0, &pattern(3, 5000));
    // In data, in a hole, and past the end.
    overwrite("large", 5000, &[7; 3000]);
    overwrite("large", 200_000, &[8; 9000]);
    overwrite("large", LARGE_SIZE - 10, &[9; 20]);
    write_file(&fs, find(&fs, "sub").node, "new", &[(0, b"new")]);
    fs.shutdown().unwrap();
    drop(fs);
    drop(keys);
    let (_keys, fs) = frozen.open();
    let mut small = SMALL.to_vec();
    small[6..8].copy_from_slice(b"to");
    assert_eq!(read(&fs, "sub/hard link"), small);
    assert_eq!(read(&fs, "empty"), pattern(3, 5000));
    let mut large = large_content();
    large[5000..8000].fill(7);
    large[200_000..209_000].fill(8);
    large.truncate(LARGE_SIZE as usize - 10);
    large.extend([9; 20]);
    assert_eq!(read(&fs, "large"), large);
    assert_eq!(read(&fs, "sub/new"), b"new");
}

#[test]
fn what_this_build_writes_is_what_the_frozen_volume_holds() {
    let (_dir, archive): (_, PathBuf) = match std::env::var_os("CMKFS_WRITE_FROZEN") {
        Some(path) => (None, path.into()),
        None => {
            let dir = tempfile::tempdir().unwrap();
            let archive = dir.path().join("new.tar");
            (Some(dir), archive)
        }
    };
    write_archive(&archive);
    let fresh = Frozen::unpack_from(&archive);
    let (_keys, fs) = fresh.open();
    check(&fs);
}
