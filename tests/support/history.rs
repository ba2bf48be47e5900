//! Random histories: operations on a small set of names, sizes and offsets that meet the boundaries of blocks and groups.

use proptest::prelude::*;

use super::tree::{Mode, Range, Tree};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    Create(String, u32),
    MakeDirectory(String, u32),
    Symlink(String, String),
    Link(String, String),
    Unlink(String),
    RemoveDirectory(String),
    Rename(String, String, Mode),
    Write(String, u64, Data),
    Read(String, u64, usize),
    Truncate(String, u64),
    Allocate(String, Range, u64, u64),
    Chmod(String, u32),
    SetMtime(String, i64, u32),
    SetXattr(String, String, Data),
    RemoveXattr(String, String),
    Hold(String),
    HoldTemporary(String, u32),
    LinkHeld(String),
    WriteHeld(u64, Data),
    ReadHeld,
    ReleaseHeld,
    Remount,
}

/// So many bytes that follow from a seed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Data {
    seed: u8,
    length: usize,
}

impl Data {
    pub const fn new(seed: u8, length: usize) -> Self {
        Self { seed, length }
    }

    pub const fn length(&self) -> usize {
        self.length
    }

    pub fn bytes(&self) -> Vec<u8> {
        (0..self.length)
            .map(|i| (i as u8).wrapping_mul(31).wrapping_add(self.seed) | 1)
            .collect()
    }
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => Just("a".to_owned()),
        4 => Just("b".to_owned()),
        2 => Just("ü c".to_owned()),
        2 => Just("l".repeat(176)),
        1 => Just("x".repeat(255)),
        1 => Just("y".repeat(256)),
    ]
}

fn path() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => name(),
        3 => (name(), name()).prop_map(|(a, b)| format!("{a}/{b}")),
        1 => (name(), name(), name()).prop_map(|(a, b, c)| format!("{a}/{b}/{c}")),
    ]
}

/// Offsets and sizes: near boundaries more often than chance would have it.
fn offset() -> impl Strategy<Value = u64> {
    let boundary = prop_oneof![
        Just(4096_u64),
        Just(8192),
        Just(56 * 4096),
        Just(112 * 4096),
        Just(57 * 4096)
    ];
    prop_oneof![
        3 => Just(0_u64),
        3 => 0..20_000_u64,
        3 => (boundary, 0..5_u64).prop_map(|(boundary, near)| boundary + near - 2),
        1 => 0..500_000_u64,
        1 => (0..100_u64).prop_map(|block| block * 4096),
    ]
}

fn data() -> impl Strategy<Value = Data> {
    let length = prop_oneof![
        4 => 1..200_usize,
        3 => 4000..4200_usize,
        2 => Just(4096_usize),
        2 => 1..30_000_usize,
        1 => Just(56 * 4096_usize),
        1 => 200_000..500_000_usize,
    ];
    (any::<u8>(), length).prop_map(|(seed, length)| Data { seed, length })
}

fn mode() -> impl Strategy<Value = u32> {
    prop_oneof![
        Just(0o644),
        Just(0o600),
        Just(0o755),
        Just(0o777),
        Just(0o1777),
        Just(0o2755),
        Just(0o4711)
    ]
}

fn operation() -> impl Strategy<Value = Operation> {
    use Operation::*;
    let rename = prop_oneof![3 => Just(Mode::Replace), 1 => Just(Mode::NoReplace), 1 => Just(Mode::Exchange)];
    let range = prop_oneof![
        Just(Range::Allocate),
        Just(Range::KeepSize),
        Just(Range::Punch),
        Just(Range::Zero),
        Just(Range::ZeroKeepSize)
    ];
    let xattr = prop_oneof![
        Just("user.a".to_owned()),
        Just("user.long".to_owned() + &"n".repeat(200))
    ];
    let target = prop_oneof![
        Just("a".to_owned()),
        "[a-z/.]{1,60}",
        Just("t".repeat(4095)),
        Just("t".repeat(3000))
    ];
    prop_oneof![
        6 => (path(), mode()).prop_map(|(p, m)| Create(p, m)),
        4 => (path(), mode()).prop_map(|(p, m)| MakeDirectory(p, m)),
        2 => (path(), target).prop_map(|(p, t)| Symlink(p, t)),
        2 => (path(), path()).prop_map(|(a, b)| Link(a, b)),
        2 => path().prop_map(Unlink),
        2 => path().prop_map(RemoveDirectory),
        4 => (path(), path(), rename).prop_map(|(a, b, m)| Rename(a, b, m)),
        10 => (path(), offset(), data()).prop_map(|(p, o, d)| Write(p, o, d)),
        4 => (path(), offset(), 1..300_000_usize).prop_map(|(p, o, l)| Read(p, o, l)),
        4 => (path(), offset()).prop_map(|(p, s)| Truncate(p, s)),
        4 => (path(), range, offset(), 1..300_000_u64).prop_map(|(p, r, o, l)| Allocate(p, r, o, l)),
        1 => (path(), mode()).prop_map(|(p, m)| Chmod(p, m)),
        1 => (path(), 0..1_000_000_000_i64, 0..1_000_000_000_u32).prop_map(|(p, s, n)| SetMtime(p, s, n)),
        4 => (path(), xattr.clone(), (any::<u8>(), 0..400_usize)).prop_map(|(p, n, (seed, length))| {
            SetXattr(p, n, Data { seed, length })
        }),
        1 => (path(), xattr).prop_map(|(p, n)| RemoveXattr(p, n)),
        4 => path().prop_map(Hold),
        2 => (offset(), data()).prop_map(|(o, d)| WriteHeld(o, d)),
        1 => Just(ReadHeld),
        1 => Just(ReleaseHeld),
        1 => Just(Remount),
    ]
}

/// With files that are made without a name, and may get one.
fn operation_with_temporaries() -> impl Strategy<Value = Operation> {
    let directory = prop_oneof![2 => Just(String::new()), 2 => Just("b".to_owned()), 1 => path()];
    prop_oneof![
        12 => operation(),
        1 => (directory, mode()).prop_map(|(p, m)| Operation::HoldTemporary(p, m)),
        1 => path().prop_map(Operation::LinkHeld),
    ]
}

/// Histories of up to `length` operations that begin with something to work on.
pub fn histories(length: usize) -> impl Strategy<Value = Vec<Operation>> {
    histories_of(operation(), length)
}

/// The same, with files that are made without a name.
pub fn histories_with_temporaries(length: usize) -> impl Strategy<Value = Vec<Operation>> {
    histories_of(operation_with_temporaries(), length)
}

fn histories_of(
    operation: impl Strategy<Value = Operation>,
    length: usize,
) -> impl Strategy<Value = Vec<Operation>> {
    let start = vec![
        Operation::Create("a".to_owned(), 0o644),
        Operation::MakeDirectory("b".to_owned(), 0o755),
        Operation::Create("b/a".to_owned(), 0o600),
    ];
    prop::collection::vec(operation, 1..length).prop_map(move |rest| [start.clone(), rest].concat())
}

impl Operation {
    /// The paths it speaks of.
    pub fn paths(&self) -> Vec<&str> {
        use Operation::*;
        match self {
            Link(a, b) | Rename(a, b, _) => vec![a, b],
            Create(path, _)
            | MakeDirectory(path, _)
            | Symlink(path, _)
            | Unlink(path)
            | RemoveDirectory(path)
            | Write(path, ..)
            | Read(path, ..)
            | Truncate(path, _)
            | Allocate(path, ..)
            | Chmod(path, _)
            | SetMtime(path, ..)
            | SetXattr(path, ..)
            | RemoveXattr(path, _)
            | Hold(path)
            | HoldTemporary(path, _)
            | LinkHeld(path) => vec![path],
            WriteHeld(..) | ReadHeld | ReleaseHeld | Remount => Vec::new(),
        }
    }
}

/// Runs one operation and says what came of it.
pub fn run_on(tree: &mut dyn Tree, operation: &Operation) -> Result<Vec<u8>, rustix::io::Errno> {
    use Operation::*;
    let nothing = |()| Vec::new();
    match operation {
        Create(path, mode) => tree.create(path, *mode).map(nothing),
        MakeDirectory(path, mode) => tree.mkdir(path, *mode).map(nothing),
        Symlink(path, target) => tree.symlink(path, target).map(nothing),
        Link(old, new) => tree.link(old, new).map(nothing),
        Unlink(path) => tree.unlink(path).map(nothing),
        RemoveDirectory(path) => tree.rmdir(path).map(nothing),
        Rename(old, new, mode) => tree.rename(old, new, *mode).map(nothing),
        Write(path, offset, data) => tree.write(path, *offset, &data.bytes()).map(nothing),
        Read(path, offset, length) => tree.read(path, *offset, *length),
        Truncate(path, size) => tree.truncate(path, *size).map(nothing),
        Allocate(path, range, offset, length) => {
            tree.allocate(path, *range, *offset, *length).map(nothing)
        }
        Chmod(path, mode) => tree.chmod(path, *mode).map(nothing),
        SetMtime(path, seconds, nanoseconds) => {
            tree.set_mtime(path, *seconds, *nanoseconds).map(nothing)
        }
        SetXattr(path, name, value) => tree.set_xattr(path, name, &value.bytes()).map(nothing),
        RemoveXattr(path, name) => tree.remove_xattr(path, name).map(nothing),
        Hold(path) => tree.hold(path).map(nothing),
        HoldTemporary(directory, mode) => tree.hold_temporary(directory, *mode).map(nothing),
        LinkHeld(path) => tree.link_held(path).map(nothing),
        WriteHeld(offset, data) => tree.write_held(*offset, &data.bytes()).map(nothing),
        ReadHeld => tree.read_held(),
        ReleaseHeld => {
            tree.release_held();
            Ok(Vec::new())
        }
        Remount => Ok(Vec::new()),
    }
}
