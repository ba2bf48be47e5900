//! A volume with one of everything, shut down cleanly, and the program that verifies it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use cmkfs::format::header::KeyBinding;
use cmkfs::format::layout::{BLOCK_LEN, GROUP_BYTES};
use cmkfs::fs::{
    FileKind, FileSystem, FsResult, NodeId, NodeType, OpenFlags, ROOT_NODE, SetAttributes,
    XattrMode,
};
use cmkfs::ids::KeyId;
use cmkfs::volume::{self, Access};
use rustix::io::Errno;
use serde_json::Value;

use super::support::{MODE, TestVolume, WRITE, caller, mkdir};

/// Bytes of the file of three groups.
pub const LARGE: usize = 2 * GROUP_BYTES as usize + 5 * BLOCK_LEN + 17;
/// Bytes of the file of three blocks.
pub const THREE: usize = 2 * BLOCK_LEN + 300;

/// Lengths of names at which something changes.
pub const LENGTHS: [usize; 10] = [1, 15, 16, 17, 160, 161, 175, 176, 200, 255];

/// Content no two blocks of which are alike.
pub fn content(length: usize, seed: usize) -> Vec<u8> {
    (0..length)
        .map(|at| (at / 251 + at * 7 + at / BLOCK_LEN * 13 + seed) as u8)
        .collect()
}

pub struct Bed {
    pub volume: TestVolume,
    /// The key of the directory `bound`.
    pub second: KeyId,
    places: BTreeMap<String, PathBuf>,
}

fn file(fs: &FileSystem, parent: NodeId, name: &str, data: &[u8]) -> NodeId {
    let made = fs.create(caller(), parent, OsStr::new(name), MODE, WRITE);
    let (attributes, opened) = made.unwrap();
    if !data.is_empty() {
        fs.write(opened.handle, 0, data).unwrap();
    }
    fs.release(opened.handle);
    attributes.node
}

impl Bed {
    pub fn new() -> Self {
        let volume = TestVolume::new();
        let second = volume.new_key("alias/second");
        let fs = volume.open();
        let mut places = BTreeMap::new();
        let mut note = |path: &str, node: NodeId| {
            places.insert(path.to_owned(), fs.backing_path(node));
        };
        let set = |node, name: &str, value: &[u8]| {
            let name = OsStr::new(name);
            fs.set_xattr(caller(), node, name, value, XattrMode::Set)
                .unwrap();
        };
        let resize = |node, size| {
            let changes = SetAttributes {
                size: Some(size),
                ..SetAttributes::default()
            };
            fs.set_attributes(caller(), node, None, &changes).unwrap();
        };
        for (name, length, seed) in [
            ("small", 300, 1),
            ("twin", 300, 2),
            ("three", THREE, 3),
            ("other", THREE, 4),
            ("large", LARGE, 5),
            ("empty", 0, 6),
        ] {
            let node = file(&fs, ROOT_NODE, name, &content(length, seed));
            note(name, node);
            if name == "small" || name == "twin" {
                set(node, "user.one", name.as_bytes());
            }
        }
        let sparse = file(&fs, ROOT_NODE, "sparse", b"begin");
        resize(sparse, 3_000_000);
        note("sparse", sparse);
        let holes = file(&fs, ROOT_NODE, "holes only", b"");
        resize(holes, 1 << 40);
        let d = mkdir(&fs, ROOT_NODE, "d");
        set(d, "user.dir", b"of a directory");
        note("d", d);
        note("d/inner", file(&fs, d, "inner", &content(100, 7)));
        let small = fs.lookup(ROOT_NODE, OsStr::new("small")).unwrap().node;
        fs.link(small, d, OsStr::new("same")).unwrap();
        let other = mkdir(&fs, ROOT_NODE, "d2");
        note("d2", other);
        note("d2/inner", file(&fs, other, "inner", &content(100, 8)));
        note("e", mkdir(&fs, ROOT_NODE, "e"));
        for (name, target) in [
            ("short", "d/inner".to_owned()),
            ("long", "t".repeat(4000)),
            ("long2", "u".repeat(4000)),
        ] {
            let (name, target) = (OsStr::new(name), OsStr::new(&target));
            let made = fs.make_symlink(caller(), ROOT_NODE, name, target).unwrap();
            note(name.to_str().unwrap(), made.node);
        }
        let pipe = NodeType {
            kind: FileKind::Fifo,
            device: 0,
        };
        fs.make_node(caller(), ROOT_NODE, OsStr::new("pipe"), MODE, pipe)
            .unwrap();
        let names = mkdir(&fs, ROOT_NODE, "names");
        note("names", names);
        for length in LENGTHS {
            let name = "n".repeat(length);
            note(
                &format!("names/{name}"),
                file(&fs, names, &name, name.as_bytes()),
            );
        }
        let bound = mkdir(&fs, ROOT_NODE, "bound");
        fs.bind(bound, &KeyBinding::Key(second)).unwrap();
        note("bound", bound);
        note(
            "bound/secret",
            file(&fs, bound, "secret", &content(5000, 9)),
        );
        fs.shutdown().unwrap();
        drop(fs);
        Self {
            volume,
            second,
            places,
        }
    }

    /// Where something lies in the backing directory; the empty path is the root's.
    pub fn place(&self, path: &str) -> PathBuf {
        match path {
            "" => self.volume.cipher(),
            path => self.volume.cipher().join(&self.places[path]),
        }
    }

    /// The same, relative to the backing directory.
    pub fn relative(&self, path: &str) -> String {
        self.places[path].to_str().unwrap().to_owned()
    }

    pub fn change(&self, path: &str, change: impl FnOnce(&mut Vec<u8>)) {
        rewrite(&self.place(path), change);
    }

    /// The one side file of a symlink whose target consists of this letter.
    pub fn side_file(&self, path: &str) -> PathBuf {
        let text = std::fs::read_link(self.place(path)).unwrap();
        let stored = cmkfs::format::symlink::Stored::from_text(text.as_os_str().as_bytes());
        match stored.unwrap() {
            cmkfs::format::symlink::Stored::Side { object, .. } => self
                .volume
                .cipher()
                .join("cmkfs.links")
                .join(object.to_string()),
            cmkfs::format::symlink::Stored::Inline(_) => panic!("{path} has no side file"),
        }
    }

    /// What a fresh process reads: content of a file, target of a symlink, names in a directory.
    pub fn read(&self, path: &str) -> Result<Vec<u8>, Errno> {
        let read = || -> FsResult<Vec<u8>> {
            let opened = volume::open(&self.volume.cipher(), &self.volume.keys, Access::ReadOnly);
            let fs = match opened {
                Err(volume::VolumeError::Filesystem { source, .. }) => return Err(source),
                opened => opened.unwrap(),
            };
            let mut found = fs.attributes(ROOT_NODE, None)?;
            for name in path.split('/') {
                found = fs.lookup(found.node, OsStr::new(name))?;
            }
            if found.kind == FileKind::Symlink {
                return fs.read_link(found.node);
            }
            let flags = OpenFlags {
                write: false,
                truncate: false,
            };
            let handle = fs.open(caller(), found.node, flags)?.handle;
            let mut buffer = vec![0xaa; found.size as usize + 3 * BLOCK_LEN];
            let read = fs.read(handle, 0, &mut buffer);
            fs.release(handle);
            buffer.truncate(read?);
            Ok(buffer)
        };
        read().map_err(|error| error.errno())
    }

    /// Runs the program with these options more.
    pub fn verify(&self, options: &[&str]) -> Outcome {
        let output = Command::new(env!("CARGO_BIN_EXE_cmkfs"))
            .args(["volume", "verify", "--output", "json", "--keys"])
            .arg(self.volume.dir.path().join("keys"))
            .args(options)
            .arg(self.volume.cipher())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let code = output.status.code().expect("it is not killed");
        let report = serde_json::from_slice(&output.stdout).unwrap_or(Value::String(said));
        Outcome { code, report }
    }

    /// Verifies, and expects damage of one kind in one object and nothing else. Returns the finding.
    pub fn damaged(&self, what: &str, path: Option<&str>) -> Value {
        let outcome = self.verify(&[]);
        assert_eq!(outcome.code, super::DAMAGED, "{outcome:?}");
        let findings = outcome.findings();
        assert_eq!(findings.len(), 1, "{outcome:?}");
        let finding = findings[0].clone();
        assert_eq!(finding["Status"], "Damaged", "{outcome:?}");
        assert_eq!(finding["What"], what, "{outcome:?}");
        assert_eq!(
            finding["Path"],
            path.map_or(Value::Null, Value::from),
            "{outcome:?}"
        );
        assert!(!finding["WhatToDo"].as_str().unwrap().is_empty());
        finding
    }

    /// As [`Bed::damaged`], of an object that can no longer be read either.
    pub fn unreadable(&self, what: &str, path: &str) -> Value {
        let finding = self.damaged(what, Some(path));
        let relative = self.relative(path);
        assert_eq!(finding["BackingPath"], relative.as_str());
        self.refused(path);
        finding
    }

    /// Reading something gives an error, not other plaintext.
    pub fn refused(&self, path: &str) {
        let read = self.read(path).map(|data| data.len());
        assert!(
            matches!(read, Err(Errno::BADMSG | Errno::KEYREJECTED | Errno::NOKEY)),
            "{path}: {read:?}"
        );
    }
}

#[derive(Debug)]
pub struct Outcome {
    pub code: i32,
    /// What it reports, or what it said instead.
    pub report: Value,
}

impl Outcome {
    pub fn findings(&self) -> &[Value] {
        self.report["Findings"]
            .as_array()
            .map_or(&[], Vec::as_slice)
    }

    /// Findings of this status, as (what, backing path).
    pub fn of(&self, status: &str) -> Vec<(&str, &str)> {
        let mut found: Vec<_> = self
            .findings()
            .iter()
            .filter(|finding| finding["Status"] == status)
            .map(|finding| {
                let text = |name: &str| finding[name].as_str().unwrap();
                (text("What"), text("BackingPath"))
            })
            .collect();
        found.sort_unstable();
        found
    }

    /// Nothing at all was found.
    pub fn is_clean(&self) -> bool {
        self.code == super::SOUND && self.findings().is_empty() && self.report["Sound"] == true
    }
}

pub fn rewrite(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).unwrap();
    change(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}

/// Flips a bit of the byte at `at`.
pub fn flip(path: &Path, at: usize) {
    rewrite(path, |bytes| bytes[at] ^= 1 << (at % 8));
}

/// Changes a file's length.
pub fn cut(path: &Path, length: u64) {
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.set_len(length).unwrap();
}

/// Fills a range of a file with zeros.
pub fn zero(path: &Path, at: u64, length: usize) {
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.write_all_at(&vec![0; length], at).unwrap();
}
