//! Sequences of operations on a real volume, with calls that fail and kills at any of them, compared with a tree in memory.
//!
//! An operation that no fault meets does what the tree does. One that fails, or is cut short by a kill, leaves each name as
//! before or after it and each block of a file as before or after it; never other plaintext, and nothing that cannot be read.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use arbitrary::{Result, Unstructured};
use cmkfs::fs::backing::{Backing, Call, Observer};
use cmkfs::kms::service::KeyService;
use rustix::io::Errno;

use super::model::{Model, Node, is_like};
use super::support::direct::Direct;
use super::support::history::{Data, Operation, run_on};
use super::support::tree::{Mode, Range, Seen, Tree, snapshot};
use super::support::{TestVolume, key_service};

/// Longest sequence: longer ones find little that shorter ones do not.
const LONGEST: usize = 24;
const BLOCK: usize = 4096;

/// The calls of one operation that fail.
#[derive(Debug, Clone, Copy)]
struct Fault {
    /// So many calls go well first.
    after: i64,
    errno: Errno,
    /// All that follow fail too, and then the process is gone.
    kills: bool,
    /// A write that fails has taken a page before.
    is_torn: bool,
}

#[derive(Debug)]
enum Step {
    Do(Operation, Option<Fault>),
    /// What waits for its seal is sealed.
    Seal(Option<Fault>),
    /// Ended cleanly and opened again.
    Reopen,
    /// Gone without a word and opened again.
    Kill,
}

/// Makes calls fail.
#[derive(Default)]
struct Trouble {
    left: AtomicI64,
    errno: AtomicI64,
    is_on: AtomicBool,
    lasts: AtomicBool,
    is_torn: AtomicBool,
    met: AtomicBool,
}

impl Trouble {
    fn begin(&self, fault: Fault) {
        self.left.store(fault.after, Ordering::Relaxed);
        self.errno
            .store(fault.errno.raw_os_error().into(), Ordering::Relaxed);
        self.lasts.store(fault.kills, Ordering::Relaxed);
        self.is_torn.store(fault.is_torn, Ordering::Relaxed);
        self.met.store(false, Ordering::Relaxed);
        self.is_on.store(true, Ordering::Relaxed);
    }

    /// Says whether a call failed.
    fn end(&self) -> bool {
        self.is_on.store(false, Ordering::Relaxed);
        self.met.swap(false, Ordering::Relaxed)
    }
}

struct Watch(Arc<Trouble>);

impl Observer for Watch {
    fn before(&self, call: Call) -> std::result::Result<(), Errno> {
        let trouble = &self.0;
        if !trouble.is_on.load(Ordering::Relaxed) {
            return Ok(());
        }
        let left = trouble.left.fetch_sub(1, Ordering::Relaxed);
        // A torn write takes its page, and then fails: the count stands at zero twice.
        if left == 0 && call == Call::Write && trouble.is_torn.swap(false, Ordering::Relaxed) {
            trouble.left.store(0, Ordering::Relaxed);
            trouble.met.store(true, Ordering::Relaxed);
            return Ok(());
        }
        if left == 0 || (left < 0 && trouble.lasts.load(Ordering::Relaxed)) {
            trouble.met.store(true, Ordering::Relaxed);
            let errno = trouble.errno.load(Ordering::Relaxed);
            return Err(Errno::from_raw_os_error(
                i32::try_from(errno).unwrap_or(libc::EIO),
            ));
        }
        Ok(())
    }

    fn room(&self) -> usize {
        let trouble = &self.0;
        let is_torn = trouble.is_on.load(Ordering::Relaxed)
            && trouble.met.load(Ordering::Relaxed)
            && trouble.left.load(Ordering::Relaxed) == 0;
        if is_torn { BLOCK } else { usize::MAX }
    }
}

fn path(input: &mut Unstructured<'_>) -> Result<String> {
    let long = "l".repeat(200);
    Ok(match input.int_in_range(0..=9_u8)? {
        0 | 1 => "a".to_owned(),
        2 => "b".to_owned(),
        3 => "d".to_owned(),
        4 => "e".to_owned(),
        5 => "d/a".to_owned(),
        6 => "d/e".to_owned(),
        7 => "e/b".to_owned(),
        8 => long,
        _ => format!("d/{long}"),
    })
}

fn offset(input: &mut Unstructured<'_>) -> Result<u64> {
    let boundary = *input.choose(&[0, 4096, 8192, 56 * 4096, 57 * 4096, 20_000])?;
    let near: i8 = input.arbitrary()?;
    Ok(u64::saturating_add_signed(boundary, near.into()))
}

fn data(input: &mut Unstructured<'_>) -> Result<Data> {
    let length = *input.choose(&[1, 100, 4095, 4096, 4097, 9000, 56 * 4096, 60 * 4096])?;
    Ok(Data::new(input.arbitrary()?, length))
}

fn operation(input: &mut Unstructured<'_>) -> Result<Operation> {
    use Operation::*;
    Ok(match input.int_in_range(0..=24_u8)? {
        0 | 1 => Create(path(input)?, 0o644),
        2 => MakeDirectory(path(input)?, 0o755),
        3 => Symlink(path(input)?, "t".repeat(*input.choose(&[1, 60, 3000])?)),
        4 => Link(path(input)?, path(input)?),
        5 => Unlink(path(input)?),
        6 => RemoveDirectory(path(input)?),
        7..=9 => {
            let mode = *input.choose(&[Mode::Replace, Mode::NoReplace, Mode::Exchange])?;
            Rename(path(input)?, path(input)?, mode)
        }
        10..=14 => Write(path(input)?, offset(input)?, data(input)?),
        15 => Read(path(input)?, offset(input)?, data(input)?.length()),
        16 | 17 => Truncate(path(input)?, offset(input)?),
        18 | 19 => {
            let ranges = [
                Range::Allocate,
                Range::KeepSize,
                Range::Punch,
                Range::Zero,
                Range::ZeroKeepSize,
            ];
            let length = data(input)?.length() as u64;
            Allocate(
                path(input)?,
                *input.choose(&ranges)?,
                offset(input)?,
                length,
            )
        }
        20 => SetXattr(
            path(input)?,
            "user.a".to_owned(),
            Data::new(input.arbitrary()?, 300),
        ),
        21 => RemoveXattr(path(input)?, "user.a".to_owned()),
        22 => Hold(path(input)?),
        23 => WriteHeld(offset(input)?, data(input)?),
        _ => {
            let rare = [
                ReadHeld,
                ReleaseHeld,
                HoldTemporary(String::new(), 0o600),
                HoldTemporary("d".to_owned(), 0o600),
                LinkHeld("a".to_owned()),
                LinkHeld("l".repeat(200)),
            ];
            input.choose(&rare)?.clone()
        }
    })
}

fn fault(input: &mut Unstructured<'_>) -> Result<Option<Fault>> {
    let kind: u8 = input.arbitrary()?;
    if !kind.is_multiple_of(3) {
        return Ok(None);
    }
    let errnos = [
        Errno::NOSPC,
        Errno::IO,
        Errno::MFILE,
        Errno::DQUOT,
        Errno::NOMEM,
    ];
    Ok(Some(Fault {
        after: i64::from(input.int_in_range(0..=40_u8)?),
        errno: *input.choose(&errnos)?,
        kills: kind & 0x40 != 0,
        is_torn: kind & 0x80 != 0,
    }))
}

fn step(input: &mut Unstructured<'_>) -> Result<Step> {
    Ok(match input.int_in_range(0..=15_u8)? {
        0 => Step::Seal(fault(input)?),
        1 => Step::Reopen,
        2 => Step::Kill,
        _ => Step::Do(operation(input)?, fault(input)?),
    })
}

/// A key directory for all sequences of this process: making one takes longer than a sequence.
fn keys() -> Arc<KeyService> {
    static KEYS: OnceLock<Arc<KeyService>> = OnceLock::new();
    let make = || {
        let dir = tempfile::tempdir().expect("a directory");
        let keys = key_service(&dir.path().join("keys"));
        // For as long as the process lives.
        std::mem::forget(dir);
        keys
    };
    Arc::clone(KEYS.get_or_init(make))
}

struct Run {
    core: Direct,
    model: Model,
    trouble: Arc<Trouble>,
}

/// The target.
pub fn operations(input: &[u8]) {
    let mut input = Unstructured::new(input);
    let trouble = Arc::new(Trouble::default());
    let volume = TestVolume::with_keys(tempfile::tempdir().expect("a directory"), keys());
    let watched = Arc::clone(&trouble);
    let backing = move || Backing::observed(Box::new(Watch(Arc::clone(&watched))));
    let mut run = Run {
        core: Direct::on(volume, backing),
        model: Model::default(),
        trouble,
    };
    for _ in 0..LONGEST {
        match step(&mut input) {
            Ok(step) if !input.is_empty() => run.take(&step),
            _ => break,
        }
    }
    run.reopen(true);
    run.compare("at the end");
    run.reopen(false);
    run.compare("after a kill at the end");
}

/// Whether every step is to be told: `CMKFS_FUZZ_TELL=1`.
pub fn tells() -> bool {
    static TELLS: OnceLock<bool> = OnceLock::new();
    *TELLS.get_or_init(|| std::env::var_os("CMKFS_FUZZ_TELL").is_some())
}

impl Run {
    fn take(&mut self, step: &Step) {
        if tells() {
            println!("{step:.200?}");
            for (path, seen) in snapshot(&mut self.core) {
                println!("    {path:.20}: {} of {} bytes", seen.kind, seen.size);
            }
            for (path, node) in self.model.tree() {
                if let Node::File(content, _) = node {
                    println!("    {path:.20} in the model: {} bytes", content.len());
                }
            }
        }
        match step {
            Step::Reopen => self.reopen(true),
            Step::Kill => {
                self.reopen(false);
                self.compare("after a kill");
            }
            Step::Seal(None) => self.core.fs().seal_now(),
            Step::Seal(Some(fault)) => {
                self.trouble.begin(*fault);
                self.core.fs().seal_now();
                if self.trouble.end() && fault.kills {
                    self.reopen(false);
                }
                self.compare("after a seal that failed");
            }
            Step::Do(operation, None) => {
                let result = run_on(&mut self.core, operation);
                self.went_as_the_model(operation, result);
            }
            Step::Do(operation, Some(fault)) => {
                self.trouble.begin(*fault);
                let result = run_on(&mut self.core, operation);
                if self.trouble.end() {
                    self.failed(operation, *fault, result);
                } else {
                    self.went_as_the_model(operation, result);
                }
            }
        }
    }

    fn reopen(&mut self, is_clean: bool) {
        self.model.release();
        if is_clean {
            self.core.remount();
        } else {
            self.core.remount_killed();
        }
    }

    fn went_as_the_model(
        &mut self,
        operation: &Operation,
        result: std::result::Result<Vec<u8>, Errno>,
    ) {
        let before = self.model.clone();
        match (result, self.model.apply(operation)) {
            (Ok(read), Ok(expected)) => {
                assert!(read == expected, "{operation:?} reads something else")
            }
            // Not every backing filesystem can do it.
            (Err(Errno::OPNOTSUPP), _)
                if matches!(
                    operation,
                    Operation::Allocate(..) | Operation::HoldTemporary(..)
                ) =>
            {
                self.model = before;
            }
            (Err(errno), Ok(_)) => panic!("{operation:?}: {errno}"),
            (Ok(_), Err(_)) => panic!("{operation:?} is possible"),
            (Err(errno), Err(_)) => assert_ne!(errno, Errno::BADMSG, "{operation:?}"),
        }
    }

    /// A call has failed: what is there now is what was before, or what was to be, or for a file something of both.
    fn failed(
        &mut self,
        operation: &Operation,
        fault: Fault,
        result: std::result::Result<Vec<u8>, Errno>,
    ) {
        let mut after = self.model.clone();
        let applied = after.apply(operation);
        // What could not be opened is not held.
        if result.is_err() && matches!(operation, Operation::Hold(_) | Operation::HoldTemporary(..))
        {
            after.hold_as(&self.model);
        }
        match &result {
            Ok(read) => assert!(fault.kills || applied.is_ok_and(|expected| expected == *read)),
            Err(errno) => assert_ne!(*errno, Errno::BADMSG, "{operation:?} {fault:?}"),
        }
        let is_done = result.is_ok() && !fault.kills;
        if fault.kills {
            self.reopen(false);
            after.release();
        }
        let seen = snapshot(&mut self.core);
        // Which of the two it is.
        let mut found = if has_names(&after, &seen) {
            after.clone()
        } else if !is_done && has_names(&self.model, &seen) {
            self.model.clone()
        } else if let Some(halfway) = self.halfway(operation, &seen).filter(|_| !is_done) {
            halfway
        } else {
            panic!(
                "{operation:?} {fault:?} {result:?}: the names are neither old nor new: {:?}",
                seen.keys()
            );
        };
        let mut old = self.model.clone();
        for (path, seen) in seen.iter().filter(|(_, seen)| seen.kind == "file") {
            let new = after.file(path).ok().cloned();
            let old = old.file(path).ok().cloned();
            let new = new.or_else(|| old.clone()).unwrap_or_default();
            let old = old.filter(|_| !is_done).unwrap_or_else(|| new.clone());
            is_a_mix(
                &seen.content,
                &old,
                &new,
                &format!("{operation:?} {fault:?} {result:?}: {path}"),
            );
            let content = found.file(path).expect("its names are these");
            content.clone_from(&seen.content);
        }
        if let (Some(new), Some(old)) = (after.held_content(), old.held_content()) {
            let held = self.core.read_held().expect("held files are read");
            is_a_mix(&held, old, new, &format!("{operation:?} {fault:?}: held"));
            found.held_content().expect("as before").clone_from(&held);
        }
        self.model = found;
    }

    /// A rename onto a directory that was cut short: the old name leads to the empty directory that was to be replaced.
    fn halfway(&self, operation: &Operation, seen: &BTreeMap<String, Seen>) -> Option<Model> {
        let Operation::Rename(old, new, Mode::Replace) = operation else {
            return None;
        };
        let mut swapped = self.model.clone();
        let exchange = Operation::Rename(old.clone(), new.clone(), Mode::Exchange);
        swapped.apply(&exchange).ok()?;
        has_names(&swapped, seen).then_some(swapped)
    }

    fn compare(&mut self, when: &str) {
        let seen = snapshot(&mut self.core);
        let tree = self.model.tree();
        let names: Vec<_> = tree.keys().collect();
        assert!(
            seen.keys().eq(tree.keys()),
            "{when}: {:?} instead of {names:?}",
            seen.keys()
        );
        for (path, node) in tree {
            assert!(is_like(node, &seen[&path]), "{when}: {path}");
            if let Node::File(content, _) = node {
                let found = &seen[&path].content;
                let same = found.iter().zip(content).take_while(|(a, b)| a == b);
                assert!(
                    found == content,
                    "{when}: {path}: {} bytes instead of {}, the same for {}",
                    found.len(),
                    content.len(),
                    same.count()
                );
            }
        }
    }
}

/// Whether the tree has exactly these names, and behind them what is seen, but for the content of files.
fn has_names(model: &Model, seen: &BTreeMap<String, Seen>) -> bool {
    let tree = model.tree();
    tree.keys().eq(seen.keys()) && tree.iter().all(|(path, node)| is_like(node, &seen[path]))
}

/// Asserts that each block is that of the one or of the other content, zeros standing for what lies past an end.
fn is_a_mix(found: &[u8], old: &[u8], new: &[u8], what: &str) {
    let (least, most) = (old.len().min(new.len()), old.len().max(new.len()));
    assert!(
        (least..=most).contains(&found.len()),
        "{what}: {} bytes, not {} or {}",
        found.len(),
        old.len(),
        new.len()
    );
    for (block, bytes) in found.chunks(BLOCK).enumerate() {
        let is = |content: &[u8]| {
            let from = content.len().min(block * BLOCK);
            let known = &content[from..content.len().min(from + bytes.len())];
            bytes.starts_with(known) && bytes[known.len()..].iter().all(|byte| *byte == 0)
        };
        let cut = |content: &[u8]| {
            // A tail that was cut and not put back.
            let least = least.saturating_sub(block * BLOCK).min(bytes.len());
            let from = content.len().min(block * BLOCK);
            let known = &content[from..content.len().min(from + least)];
            bytes.starts_with(known) && bytes[known.len()..].iter().all(|byte| *byte == 0)
        };
        assert!(
            is(old) || is(new) || cut(old),
            "{what}: block {block} is neither old nor new"
        );
    }
}
