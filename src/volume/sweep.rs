//! Goes through every object of an open volume, or of one directory in it, for [`rewrap`](super::rewrap); users may work on
//! it meanwhile. What fails is noted, and the rest goes on.

use std::ffi::{CString, OsStr};
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::fs::{Entry, FileKind, FsError, Maintenance, NodeId};

/// So many failures are kept with their paths; all are counted.
const KEPT: usize = 100;

/// How far it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Objects gone through.
    pub done: u64,
    /// Of so many; 0 while they are only counted.
    pub total: u64,
}

/// An object that could not be worked on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Failure {
    /// Its path in the backing directory: encrypted names.
    pub path: PathBuf,
    /// Why.
    pub reason: String,
}

/// What could not be worked on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Failures {
    /// How many.
    pub count: u64,
    /// The first hundred.
    pub first: Vec<Failure>,
}

impl Failures {
    /// Notes one.
    pub fn add(&mut self, path: &Path, reason: impl ToString) {
        self.count += 1;
        if self.first.len() < KEPT {
            self.first.push(Failure {
                path: path.to_owned(),
                reason: reason.to_string(),
            });
        }
    }
}

/// Is told of every object.
pub trait Visitor {
    /// An object was met. `Break` ends the sweep.
    fn visit(&mut self, entry: &Entry<'_>) -> ControlFlow<()>;

    /// What lies at this path in the backing directory could not be met.
    fn failed(&mut self, path: &Path, error: &FsError);
}

/// An object that is gone, or elsewhere, by the time that it is looked at.
#[must_use]
pub fn is_gone(error: &FsError) -> bool {
    matches!(error, FsError::Os(Errno::NOENT | Errno::STALE))
}

/// A directory that is being gone through, and the names in it that are left.
type Level<'a> = (Entry<'a>, std::vec::IntoIter<CString>);

/// Goes through everything below `top`, `top` itself left out.
pub fn below(
    maintenance: &Maintenance<'_>,
    top: Entry<'_>,
    visitor: &mut dyn Visitor,
) -> ControlFlow<()> {
    let mut levels = Vec::new();
    enter(maintenance, top, visitor, &mut levels);
    while let Some((directory, names)) = levels.last_mut() {
        let Some(name) = names.next() else {
            levels.pop();
            continue;
        };
        match maintenance.entry(directory, &name) {
            Ok(None) => {}
            Ok(Some(entry)) => {
                visitor.visit(&entry)?;
                if entry.kind() == FileKind::Directory {
                    enter(maintenance, entry, visitor, &mut levels);
                }
            }
            Err(error) => {
                let path = directory.backing_path();
                visitor.failed(&path.join(OsStr::from_bytes(name.to_bytes())), &error);
            }
        }
    }
    ControlFlow::Continue(())
}

fn enter<'a>(
    maintenance: &Maintenance<'_>,
    directory: Entry<'a>,
    visitor: &mut dyn Visitor,
    levels: &mut Vec<Level<'a>>,
) {
    match maintenance.names(&directory) {
        Ok(names) => levels.push((directory, names.into_iter())),
        Err(error) if is_gone(&error) => {}
        Err(error) => visitor.failed(&directory.backing_path(), &error),
    }
}

/// Goes through what was renamed or linked since this was last done, and is below `top` now, until there is no more of it:
/// each of these may have passed by the sweep. `false` where users are too quick.
pub fn moved(
    maintenance: &Maintenance<'_>,
    top: NodeId,
    visitor: &mut dyn Visitor,
) -> ControlFlow<(), bool> {
    // Each round is as long as users took for the renames of the round before, and what they move is done for the most
    // part: it takes little time. So rounds get shorter quickly.
    const ROUNDS: usize = 1000;
    for _ in 0..ROUNDS {
        let moved = maintenance.moved();
        if moved.is_empty() {
            return ControlFlow::Continue(true);
        }
        for entry in moved.into_iter().filter(|entry| entry.is_within(top)) {
            if let ControlFlow::Break(()) = visitor.visit(&entry) {
                return ControlFlow::Break(());
            }
            if entry.kind() == FileKind::Directory && below(maintenance, entry, visitor).is_break()
            {
                return ControlFlow::Break(());
            }
        }
    }
    ControlFlow::Continue(false)
}
