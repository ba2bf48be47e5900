//! Random operations on a small tree, done on the core and written down in the model.

use cmkfs::fs::backing::Backing;
use cmkfs::fs::{HandleId, OpenFlags};
use proptest::prelude::*;
use rustix::io::Errno;

use super::model::{Content, Directory, Model};
use super::record::Recorder;
use super::support::direct::Direct;
use super::support::tree::{Answer, Mode, Range, Tree, snapshot};
use super::support::{TestVolume, caller};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    Create(Path),
    /// Makes a file without a name, writes so many bytes to it, or syncs it, overwrites it and syncs it again, and gives it
    /// this name.
    CreateUnnamed(Path, usize, bool),
    MakeDirectory(Path),
    Symlink(Path, usize),
    Link(Path, Path),
    Unlink(Path),
    RemoveDirectory(Path),
    Rename(Path, Path, Mode),
    /// At an offset, so many bytes.
    Write(Path, u64, usize),
    Append(Path, usize),
    Truncate(Path, u64),
    /// Opens with O_TRUNC.
    Empty(Path),
    Allocate(Path, Range, u64, u64),
    Chmod(Path, u32),
    SetAttribute(Path, usize),
    RemoveAttribute(Path),
    Sync(Path, bool),
    SyncDirectory(Path),
    /// Opens a file and keeps it open.
    Hold(Path),
    Release,
    /// Closed files are sealed.
    Seal,
    Remount,
    /// The process dies, and another takes over.
    Takeover,
}

/// A path of the tree; a long name among them.
pub type Path = &'static str;

pub const FILES: [Path; 6] = ["f", "d/f", "g", "d/g", "d/e/f", LONG];
pub const DIRECTORIES: [Path; 4] = ["d", "e", "d/e", "g"];
const LONG: Path = "a name that is too long to be kept in the name of its backing file: that ends at two hundred and fifty-five, and \
base64 takes a third more, so that one hundred and seventy-six bytes are one too many for it, as these are";

fn file() -> impl Strategy<Value = Path> {
    prop_oneof![8 => Just("f"), 3 => Just("d/f"), 2 => proptest::sample::select(&FILES[..])]
}

fn directory() -> impl Strategy<Value = Path> {
    prop_oneof![3 => Just("d"), 1 => proptest::sample::select(&DIRECTORIES[..])]
}

fn path() -> impl Strategy<Value = Path> {
    prop_oneof![3 => file(), 1 => directory()]
}

/// Offsets and sizes that meet the boundaries of blocks and groups.
fn offset() -> impl Strategy<Value = u64> {
    let boundary = proptest::sample::select(&[4096_u64, 8192, 12288, 56 * 4096, 57 * 4096][..]);
    prop_oneof![
        4 => Just(0_u64),
        4 => 0..10_000_u64,
        2 => (boundary.clone(), 0..5_u64).prop_map(|(boundary, near)| boundary + near - 2),
        2 => boundary,
        1 => 220_000..240_000_u64,
    ]
}

fn length() -> impl Strategy<Value = usize> {
    prop_oneof![
        6 => 1..200_usize,
        3 => Just(4096_usize),
        3 => 1..13_000_usize,
        1 => Just(56 * 4096_usize),
        1 => 200_000..240_000_usize,
    ]
}

fn operation() -> impl Strategy<Value = Operation> {
    use Operation::*;
    let rename = prop_oneof![3 => Just(Mode::Replace), 1 => Just(Mode::NoReplace), 1 => Just(Mode::Exchange)];
    let range = prop_oneof![
        1 => Just(Range::Allocate),
        1 => Just(Range::KeepSize),
        3 => Just(Range::Punch),
        2 => Just(Range::Zero),
        1 => Just(Range::ZeroKeepSize)
    ];
    prop_oneof![
        4 => file().prop_map(Create),
        2 => (file(), length(), any::<bool>()).prop_map(|(p, l, s)| CreateUnnamed(p, l, s)),
        2 => directory().prop_map(MakeDirectory),
        1 => (path(), prop_oneof![1..60_usize, Just(4000_usize)]).prop_map(|(p, l)| Symlink(p, l)),
        1 => (path(), path()).prop_map(|(a, b)| Link(a, b)),
        2 => file().prop_map(Unlink),
        1 => directory().prop_map(RemoveDirectory),
        3 => (path(), path(), rename).prop_map(|(a, b, m)| Rename(a, b, m)),
        10 => (file(), offset(), length()).prop_map(|(p, o, l)| Write(p, o, l)),
        3 => (file(), length()).prop_map(|(p, l)| Append(p, l)),
        4 => (file(), offset()).prop_map(|(p, s)| Truncate(p, s)),
        1 => file().prop_map(Empty),
        4 => (file(), range, offset(), 1..20_000_u64).prop_map(|(p, r, o, l)| Allocate(p, r, o, l)),
        1 => (file(), prop_oneof![Just(0o600), Just(0o755)]).prop_map(|(p, m)| Chmod(p, m)),
        2 => (file(), 0..300_usize).prop_map(|(p, l)| SetAttribute(p, l)),
        1 => file().prop_map(RemoveAttribute),
        8 => (file(), any::<bool>()).prop_map(|(p, d)| Sync(p, d)),
        3 => prop_oneof![Just(""), directory()].prop_map(SyncDirectory),
        1 => file().prop_map(Hold),
        1 => Just(Release),
        3 => Just(Seal),
        1 => Just(Remount),
        1 => Just(Takeover),
    ]
}

/// Up to `length` operations that begin with something to work on.
pub fn histories(length: usize) -> impl Strategy<Value = Vec<Operation>> {
    let start = prop_oneof![
        3 => Just(vec![Operation::Create("f")]),
        1 => Just(vec![Operation::MakeDirectory("d"), Operation::Create("d/f")]),
    ];
    (start, proptest::collection::vec(operation(), 1..length))
        .prop_map(|(start, rest)| [start, rest].concat())
}

const ATTRIBUTE: &str = "user.a";

/// So many bytes, different at each step.
pub fn bytes(step: usize, length: usize) -> Vec<u8> {
    let each = |at: usize| (at / 7 + at) as u8 ^ (step as u8).wrapping_mul(37) | 1;
    (0..length).map(each).collect()
}

/// A tree whose disk is recorded, and what was done on it.
pub struct Run {
    pub tree: Direct,
    pub recorder: Recorder,
    pub model: Model,
    /// After each step, how many events there are.
    pub ends: Vec<usize>,
}

impl Run {
    /// Does a history on a volume, all of which is on the disk.
    pub fn on(volume: TestVolume, history: &[Operation]) -> Self {
        let recorder = Recorder::new(&volume.cipher());
        let observer = recorder.clone();
        let backing = move || Backing::observed(Box::new(observer.clone()));
        let mut run = Self {
            tree: Direct::on(volume, backing),
            recorder,
            model: Model::new(),
            ends: Vec::new(),
        };
        run.open_all("");
        run.find_all();
        run.ends.push(run.recorder.history().events.len());
        for operation in history {
            run.step(operation);
        }
        run
    }

    /// A file whose header was lost has the size it is found with until somebody opens it.
    fn open_all(&mut self, directory: &str) {
        for name in self.tree.list(directory).unwrap() {
            let path = format!("{directory}/{name}");
            match self.tree.hold(&path) {
                Err(Errno::ISDIR) => self.open_all(&path),
                Err(Errno::LOOP) => {}
                held => held.unwrap(),
            }
        }
        self.tree.release_held();
    }

    /// Writes down in the model what is there.
    fn find_all(&mut self) {
        // Directories come before what is in them.
        for (path, seen) in snapshot(&mut self.tree) {
            let id = self.id(&path);
            let known = self.model.links.contains_key(&id);
            match seen.kind {
                _ if known => {}
                "directory" => drop(self.model.directories.insert(id, Directory::default())),
                "symlink" => {
                    let target = String::from_utf8(seen.content).unwrap();
                    self.model.symlinks.insert(id, target);
                }
                _ => {
                    let content = Content::new(&seen.content);
                    self.model.make_file(id, content, seen.mode);
                    for (name, value) in seen.xattrs {
                        let name = String::from_utf8(name).unwrap();
                        self.model.set_attribute(id, &name, Some(value));
                    }
                }
            }
            if known {
                self.model.linked(&path, id);
            } else {
                self.model.born(&path, id);
            }
        }
        self.model.synced_all();
    }

    /// Does one operation. One that fails has changed nothing.
    pub fn step(&mut self, operation: &Operation) {
        self.model.step += 1;
        match self.attempt(operation) {
            Ok(()) => {}
            Err(Errno::BADMSG | Errno::IO) => panic!("{operation:?} finds damage"),
            Err(_) => {}
        }
        self.ends.push(self.recorder.history().events.len());
    }

    fn id(&self, path: &str) -> usize {
        let node = self.tree.see_node(path);
        let known = self.recorder.history().id(node);
        known.expect("a recorded object")
    }

    fn attempt(&mut self, operation: &Operation) -> Answer<()> {
        use Operation::*;
        let (tree, model) = (&mut self.tree, &mut self.model);
        let found = |model: &Model, path: &str| model.find(path).expect("a known object");
        match *operation {
            Create(path) => {
                tree.create(path, 0o644)?;
                let id = self.id(path);
                self.model.make_file(id, Content::default(), 0o644);
                self.model.born(path, id);
            }
            CreateUnnamed(path, length, synced) => {
                let data = bytes(model.step, length);
                let over = |tree: &mut Direct| {
                    tree.sync_held()?;
                    // By way of its journal.
                    tree.write_held(0, &data)?;
                    tree.sync_held()
                };
                let first = if synced {
                    bytes(model.step + 1, length)
                } else {
                    data.clone()
                };
                let made = tree
                    .hold_temporary("", 0o644)
                    .and_then(|()| tree.write_held(0, &first))
                    .and_then(|()| if synced { over(tree) } else { Ok(()) })
                    .and_then(|()| tree.link_held(path));
                tree.release_held();
                made?;
                let id = self.id(path);
                self.model.make_file(id, Content::default(), 0o644);
                self.model.change(id, |content| content.write(0, &data));
                self.model.linked(path, id);
                if synced {
                    self.model.synced_file(id, false);
                }
            }
            MakeDirectory(path) => {
                tree.mkdir(path, 0o755)?;
                let id = self.id(path);
                self.model.directories.insert(id, Default::default());
                self.model.born(path, id);
            }
            Symlink(path, length) => {
                let target = "t".repeat(length);
                tree.symlink(path, &target)?;
                let id = self.id(path);
                self.model.symlinks.insert(id, target);
                self.model.born(path, id);
            }
            Link(old, new) => {
                tree.link(old, new)?;
                let id = found(model, old);
                model.linked(new, id);
            }
            Unlink(path) => {
                tree.unlink(path)?;
                model.unlinked(path);
            }
            RemoveDirectory(path) => {
                tree.rmdir(path)?;
                model.unlinked(path);
            }
            Rename(old, new, mode) => {
                tree.rename(old, new, mode)?;
                model.renamed(old, new, mode == Mode::Exchange);
            }
            Write(path, offset, length) => {
                let data = bytes(model.step, length);
                tree.write(path, offset, &data)?;
                model.change(found(model, path), |content| content.write(offset, &data));
            }
            Append(path, length) => {
                let Some(file) = model.find(path).and_then(|id| model.files.get(&id)) else {
                    return Ok(());
                };
                let (data, end) = (bytes(model.step, length), file.content.now().size);
                tree.write(path, end, &data)?;
                model.change(found(model, path), |content| content.write(end, &data));
            }
            Truncate(path, size) => {
                tree.truncate(path, size)?;
                model.change(found(model, path), |content| content.resize(size));
            }
            Empty(path) => {
                let node = node_of(tree, model, path)?;
                let flags = OpenFlags {
                    write: true,
                    truncate: true,
                };
                let opened = tree
                    .fs()
                    .open(caller(), node, flags)
                    .map_err(|error| error.errno())?;
                tree.fs().release(opened.handle);
                model.change(found(model, path), |content| content.resize(0));
            }
            Allocate(path, range, offset, length) => {
                tree.allocate(path, range, offset, length)?;
                let end = offset + length;
                model.change(found(model, path), |content| {
                    if matches!(range, Range::Punch | Range::Zero | Range::ZeroKeepSize) {
                        content.zero(offset, end);
                    }
                    if matches!(range, Range::Allocate | Range::Zero) && end > content.size {
                        content.resize(end);
                    }
                });
            }
            Chmod(path, mode) => {
                tree.chmod(path, mode)?;
                let step = model.step;
                let id = found(model, path);
                if let Some(file) = model.files.get_mut(&id) {
                    file.mode.set(step, mode);
                }
            }
            SetAttribute(path, length) => {
                node_of(tree, model, path)?;
                let value = bytes(model.step, length);
                tree.set_xattr(path, ATTRIBUTE, &value)?;
                model.set_attribute(found(model, path), ATTRIBUTE, Some(value));
            }
            RemoveAttribute(path) => {
                node_of(tree, model, path)?;
                tree.remove_xattr(path, ATTRIBUTE)?;
                model.set_attribute(found(model, path), ATTRIBUTE, None);
            }
            Sync(path, data_only) => {
                let node = node_of(tree, model, path)?;
                let flags = OpenFlags::default();
                let opened = tree
                    .fs()
                    .open(caller(), node, flags)
                    .map_err(|error| error.errno())?;
                let synced = tree.fs().sync(opened.handle, data_only);
                tree.fs().release(opened.handle);
                synced.map_err(|error| error.errno())?;
                model.synced_file(found(model, path), data_only);
            }
            SyncDirectory(path) => {
                let Some(id) = model
                    .find(path)
                    .filter(|id| model.directories.contains_key(id))
                else {
                    return Ok(());
                };
                let node = tree.see_node(path);
                let handle: HandleId = tree
                    .fs()
                    .open_directory(node)
                    .map_err(|error| error.errno())?;
                let synced = tree.fs().sync_directory(handle);
                tree.fs().release_directory(handle);
                synced.map_err(|error| error.errno())?;
                model.synced_directory(id);
            }
            Hold(path) => {
                node_of(tree, model, path)?;
                tree.hold(path)?;
            }
            Release => tree.release_held(),
            Seal => tree.fs().seal_now(),
            Remount => {
                tree.remount();
                self.begun_anew();
            }
            Takeover => {
                tree.remount_killed();
                self.begun_anew();
            }
        }
        Ok(())
    }

    /// Who opens a volume puts on the disk what it finds.
    pub fn begun_anew(&mut self) {
        self.recorder.synced_all();
        self.model.synced_all();
    }
}

/// The node of a file.
fn node_of(tree: &Direct, model: &Model, path: &str) -> Answer<u64> {
    let id = model.find(path).ok_or(Errno::NOENT)?;
    if model.files.contains_key(&id) {
        Ok(tree.see_node(path))
    } else {
        Err(Errno::INVAL)
    }
}
