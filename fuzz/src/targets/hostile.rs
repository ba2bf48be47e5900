//! A whole volume, its backing files edited or gone: what is read is what was written, or an error; never anything else. And
//! where an error is read, verifying tells of damage.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::ops::ControlFlow;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use cmkfs::fs::ROOT_NODE;
use cmkfs::fs::backing::Backing;
use cmkfs::kms::service::KeyService;
use cmkfs::volume::census::Census;
use cmkfs::volume::verify::{self, Mode, Report};
use cmkfs::volume::{self, Access};
use rustix::fs::XattrFlags;
use rustix::io::Errno;

use super::edit::Edit;
use super::support::direct::Direct;
use super::support::tree::{Range, Seen, Tree, snapshot};
use super::support::{TestVolume, key_service};

/// The file that nobody had sealed when the process died: what of it is old and what new is not known.
const DIRTY: &str = "unsealed";
/// The files that may have holes.
const SPARSE: [&str; 2] = ["sparse", "groups"];
/// Bytes of the input that make one edit: which object, what of it, and the edit.
const EDIT_LEN: usize = 8;

/// One object of the backing directory.
#[derive(Debug, Clone)]
struct Stored {
    path: PathBuf,
    content: Content,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

#[derive(Debug, Clone)]
enum Content {
    Directory,
    File(Vec<u8>),
    Symlink(Vec<u8>),
}

struct Template {
    keys: Arc<KeyService>,
    stored: Vec<Stored>,
    expected: BTreeMap<String, Seen>,
}

fn bytes(seed: u8, length: usize) -> Vec<u8> {
    (0..length)
        .map(|at| (at as u8).wrapping_mul(7).wrapping_add(seed) | 1)
        .collect()
}

fn fill(core: &mut Direct) -> Result<(), Errno> {
    let long = "l".repeat(200);
    for (path, length) in [
        ("empty", 0),
        ("small", 100),
        ("blocks", 9000),
        ("groups", 240_000),
        (DIRTY, 13_000),
    ] {
        core.create(path, 0o644)?;
        core.write(path, 0, &bytes(3, length))?;
    }
    core.create("sparse", 0o644)?;
    core.write("sparse", 300_000, b"far")?;
    core.allocate("groups", Range::Punch, 8192, 20_000)?;
    core.mkdir("directory", 0o755)?;
    core.mkdir("directory/empty", 0o755)?;
    core.create(&format!("directory/{long}"), 0o644)?;
    core.write(&format!("directory/{long}"), 0, &bytes(5, 5000))?;
    core.symlink("link", "some/where")?;
    core.symlink("directory/far", &"t".repeat(3500))?;
    core.set_xattr("small", "user.a", &bytes(1, 50))?;
    core.set_xattr("directory", "user.b", b"b")
}

fn build() -> Template {
    let dir = tempfile::tempdir().expect("a directory");
    let keys = key_service(&dir.path().join("keys"));
    // For as long as the process lives.
    std::mem::forget(dir);
    let volume =
        TestVolume::with_keys(tempfile::tempdir().expect("a directory"), Arc::clone(&keys));
    let mut core = Direct::on(volume, Backing::default);
    fill(&mut core).expect("a volume");
    core.remount();
    core.write(DIRTY, 4096, &bytes(9, 5000)).expect("a write");
    let expected = snapshot(&mut core);
    // Which plaintext each object holds: so that an edit meets the same object in every run.
    let plain: BTreeMap<PathBuf, &String> = expected
        .keys()
        .map(|path| (core.fs().backing_path(core.see_node(path)), path))
        .collect();
    let mut stored = Vec::new();
    let root = core.volume.cipher();
    collect(&root, Path::new(""), &mut stored);
    let rank = |object: &Stored| {
        let own = object
            .path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy();
        let kind = own.split('.').nth(1).unwrap_or_default().to_owned();
        let depth = object.path.components().count();
        (
            plain.get(&object.path).map(|path| (*path).clone()),
            kind,
            depth,
        )
    };
    stored.sort_by_cached_key(rank);
    Template {
        keys,
        stored,
        expected,
    }
}

fn collect(root: &Path, below: &Path, stored: &mut Vec<Stored>) {
    for entry in fs::read_dir(root.join(below)).expect("a directory") {
        let path = below.join(entry.expect("an entry").file_name());
        let full = root.join(&path);
        let kind = fs::symlink_metadata(&full)
            .expect("it is there")
            .file_type();
        let content = if kind.is_dir() {
            collect(root, &path, stored);
            Content::Directory
        } else if kind.is_symlink() {
            Content::Symlink(
                fs::read_link(&full)
                    .expect("a link")
                    .into_os_string()
                    .into_vec(),
            )
        } else {
            Content::File(fs::read(&full).expect("a file"))
        };
        let xattrs = if kind.is_symlink() {
            Vec::new()
        } else {
            xattrs(&full)
        };
        stored.push(Stored {
            path,
            content,
            xattrs,
        });
    }
}

fn xattrs(path: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut names = vec![0; 4096];
    let length = rustix::fs::listxattr(path, &mut names).expect("a list");
    let names = names[..length]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty());
    names
        .map(|name| {
            let mut value = vec![0; 65536];
            let length = rustix::fs::getxattr(path, name, &mut value).expect("a value");
            value.truncate(length);
            (name.to_vec(), value)
        })
        .collect()
}

fn lay_out(root: &Path, stored: &[Stored]) {
    fs::create_dir(root).expect("a directory");
    let mut by_depth: Vec<_> = stored.iter().collect();
    by_depth.sort_by_key(|object| object.path.components().count());
    for object in by_depth {
        let path = root.join(&object.path);
        match &object.content {
            Content::Directory => fs::create_dir(&path).expect("a directory"),
            Content::File(bytes) => fs::write(&path, bytes).expect("a file"),
            // No symlink has an empty target, nor one with a zero byte.
            Content::Symlink(target) if target.is_empty() || target.contains(&0) => {}
            Content::Symlink(target) => _ = symlink(std::ffi::OsStr::from_bytes(target), &path),
        }
        for (name, value) in &object.xattrs {
            let path = File::open(&path).expect("it was made");
            match rustix::fs::fsetxattr(path, &name[..], value, XattrFlags::empty()) {
                // Not every filesystem keeps attributes of every length.
                Ok(()) | Err(Errno::NOSPC | Errno::TOOBIG) => {}
                Err(errno) => panic!("an attribute: {errno}"),
            }
        }
    }
}

/// The target.
pub fn volume(input: &[u8]) {
    static TEMPLATE: OnceLock<Template> = OnceLock::new();
    let template = TEMPLATE.get_or_init(build);
    let mut stored = template.stored.clone();
    for edit in input.chunks_exact(EDIT_LEN).take(16) {
        change(&mut stored, edit);
    }
    let dir = tempfile::tempdir().expect("a directory");
    lay_out(&dir.path().join("cipher"), &stored);
    let keys = Arc::clone(&template.keys);
    let volume = TestVolume { dir, keys };
    let is_edited = input.len() >= EDIT_LEN;
    let _ = Census::take(&volume.cipher(), &mut |_| {});
    let report = verified(&volume, Mode::Offline);
    if volume::open(&volume.cipher(), &volume.keys, Access::ReadWrite).is_err() {
        assert!(is_edited, "what nobody edited opens");
        return;
    }
    let mut core = Direct::on(volume, Backing::default);
    for round in 0..2 {
        let mut refused = Vec::new();
        for (path, expected) in &template.expected {
            look(&mut core, path, expected, &stored, &mut refused);
        }
        assert!(is_edited || refused.is_empty(), "{refused:?}");
        let is_told = report
            .as_ref()
            .is_none_or(|report| report.damaged + report.not_verified > 0);
        assert!(is_told || refused.is_empty(), "{refused:?}: {report:?}");
        if round == 0 {
            // Recovered and sealed, and repaired, as far as that can be done.
            let _ = core.fs().shutdown();
            let volume = core.into_volume();
            let _ = verified(&volume, Mode::Repair);
            core = Direct::on(volume, Backing::default);
        }
    }
}

/// What a verification finds; `None` where it cannot begin.
fn verified(volume: &TestVolume, mode: Mode) -> Option<Report> {
    match verify::open(&volume.cipher(), &volume.keys, mode) {
        Ok(open) => {
            let mut watch = |_: verify::Event<'_>| ControlFlow::Continue(());
            verify::verify(&open, ROOT_NODE, mode, &mut watch).ok()
        }
        Err(Ok(report)) => Some(*report),
        Err(Err(_)) => None,
    }
}

fn change(stored: &mut Vec<Stored>, edit: &[u8]) {
    if stored.is_empty() {
        return;
    }
    let at = usize::from(edit[0]) % stored.len();
    let object = &mut stored[at];
    if edit[1] % 8 == 2 && !matches!(object.content, Content::Directory) {
        stored.remove(at);
        return;
    }
    let how = [Edit::of(&edit[2..])];
    if let (1, Some((_, value))) = (edit[1] % 4, object.xattrs.first_mut()) {
        *value = Edit::apply(&how, value);
        return;
    }
    match &mut object.content {
        Content::File(bytes) | Content::Symlink(bytes) => *bytes = Edit::apply(&how, bytes),
        Content::Directory => {}
    }
}

/// Everything of one object; `refused` gets what is damaged.
fn look(
    core: &mut Direct,
    path: &str,
    expected: &Seen,
    stored: &[Stored],
    refused: &mut Vec<(String, Errno)>,
) {
    let mut is_a_refusal = |path: &str, errno| {
        assert!(REFUSALS.contains(&errno), "{path}: {errno}");
        if errno != Errno::NOENT {
            refused.push((path.to_owned(), errno));
        }
    };
    let seen = match core.see(path) {
        Ok(seen) => seen,
        Err(errno) => return is_a_refusal(path, errno),
    };
    assert_eq!(seen.kind, expected.kind, "{path}");
    let mut attributes = seen.xattrs.iter();
    assert!(
        attributes.all(|(name, value)| expected.xattrs.get(name) == Some(value)),
        "{path}"
    );
    if path == DIRTY {
        // Blocks of either version, and holes where nothing is left of one.
        let versions = [bytes(3, 13_000), expected.content.clone()];
        for (block, page) in seen.content.chunks(4096).enumerate() {
            let is = |content: &Vec<u8>| {
                let known = content.get(block * 4096..).unwrap_or_default();
                let known = &known[..known.len().min(page.len())];
                page.starts_with(known) && page[known.len()..].iter().all(|byte| *byte == 0)
            };
            let is_hole = page.iter().all(|byte| *byte == 0);
            assert!(is_hole || versions.iter().any(is), "{path}: block {block}");
        }
        return;
    }
    let is_cut_to_nothing = seen.content.is_empty()
        && stored
            .iter()
            .any(|object| matches!(&object.content, Content::File(bytes) if bytes.is_empty()));
    // A zeroed slot is a hole where the file may have holes: docs/THREAT_MODEL.md.
    let is_original = seen.content == expected.content;
    let has_only_holes = SPARSE.contains(&path)
        && seen.content.len() == expected.content.len()
        && seen
            .content
            .chunks(4096)
            .zip(expected.content.chunks(4096))
            .all(|(seen, written)| seen == written || seen.iter().all(|byte| *byte == 0));
    assert!(
        is_original || is_cut_to_nothing || has_only_holes,
        "{path} reads as something else"
    );
    if expected.kind == "directory" {
        match core.list(path) {
            Ok(names) => assert!(
                names
                    .iter()
                    .all(|name| KNOWN.contains(&&**name) || name.starts_with("lll")),
                "{path}: {names:?}"
            ),
            Err(errno) => is_a_refusal(path, errno),
        }
    }
}

/// What lies in directories of the volume.
const KNOWN: [&str; 2] = ["empty", "far"];

/// How damage is refused; ENOENT where it is a name that cannot be told.
const REFUSALS: [Errno; 4] = [
    Errno::BADMSG,
    Errno::NOKEY,
    Errno::KEYREJECTED,
    Errno::NOENT,
];
