//! Rekey: new data keys for the files and symlinks of a volume, or of one directory in it, by encrypting their content anew,
//! one after the other. Directories and the volume itself keep theirs. Nothing marks what is done: a rekey that was
//! interrupted starts anew.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::path::Path;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::rewrap::Count;
use super::sweep::{self, Failures, Progress, is_gone};
use super::{Volume, VolumeError};
use crate::fs::{Entry, FileKind, FsError, Maintenance, NodeId, ROOT_NODE, Rekeyed};

/// So often a symlink is tried whose names are changed meanwhile.
const ATTEMPTS: u32 = 5;

/// What was done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Report {
    /// Files and symlinks that have a new data key.
    pub rekeyed: u64,
    /// Directories, which keep theirs.
    pub directories_kept: u64,
    /// What could not be rekeyed.
    pub failures: Failures,
    /// Users renamed objects too quickly for every one to be met.
    pub missed: bool,
    /// It was broken off.
    pub interrupted: bool,
}

impl Report {
    /// Every file and symlink has a new data key.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.failures.count == 0 && !self.missed && !self.interrupted
    }
}

/// Rekeys every file and symlink from `top` (a directory, or the root) down. `progress` is told of every object; `Break` ends
/// it, and what is done stays.
///
/// # Errors
/// Where nothing was done: EBUSY beside another rewrap or rekey, EROFS, the directory itself damaged or its key refused.
pub fn rekey(
    volume: &Volume,
    top: NodeId,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Report, VolumeError> {
    let failed = |source: FsError| VolumeError::Filesystem {
        path: volume.backing_path(top),
        source,
    };
    let maintenance = volume.maintain().map_err(failed)?;
    let entry = maintenance.top(top).map_err(failed)?;
    maintenance.binding(&entry).map_err(failed)?;
    let Some(before) = Count::take(volume, top, progress)? else {
        return Ok(Report {
            interrupted: true,
            ..Report::default()
        });
    };
    if top == ROOT_NODE {
        maintenance.clear_side_files().map_err(failed)?;
    }
    let mut pass = Pass {
        maintenance: &maintenance,
        progress,
        at: Progress {
            done: 0,
            total: before.total(),
        },
        report: Report {
            directories_kept: 1,
            ..Report::default()
        },
        done: HashSet::new(),
        links: HashMap::new(),
    };
    let swept = match sweep::below(&maintenance, entry, &mut pass) {
        ControlFlow::Continue(()) => sweep::moved(&maintenance, top, &mut pass),
        ControlFlow::Break(()) => ControlFlow::Break(()),
    };
    match swept {
        ControlFlow::Continue(all) => pass.report.missed |= !all,
        ControlFlow::Break(()) => pass.report.interrupted = true,
    }
    // Whatever has been given a name by now was met, or is met now.
    for entry in maintenance.unnamed() {
        if !pass.report.interrupted && entry.is_within(top) {
            pass.report.interrupted = sweep::Visitor::visit(&mut pass, &entry).is_break();
        }
    }
    for (_, entries) in std::mem::take(&mut pass.links) {
        pass.rekey_links(&entries);
    }
    let report = pass.report;
    maintenance.sync().map_err(failed)?;
    Ok(report)
}

struct Pass<'a, 'f> {
    maintenance: &'a Maintenance<'f>,
    progress: &'a mut dyn FnMut(Progress) -> ControlFlow<()>,
    at: Progress,
    report: Report,
    /// What was met already, and may be met again, having been renamed.
    done: HashSet<NodeId>,
    /// Symlinks of several names.
    links: HashMap<NodeId, Vec<Entry<'f>>>,
}

impl Pass<'_, '_> {
    fn rekey_links(&mut self, entries: &[Entry<'_>]) {
        let Some(first) = entries.first() else { return };
        let why = match self.maintenance.rekey_links(entries) {
            Ok(Rekeyed::Now) => {
                self.report.rekeyed += 1;
                return;
            }
            Ok(_) => "this symlink has names elsewhere, or they were changed meanwhile".to_owned(),
            Err(error) => error.to_string(),
        };
        self.report.failures.add(&first.backing_path(), why);
    }

    fn rekey(&mut self, entry: &Entry<'_>) -> ControlFlow<()> {
        let mut attempts = ATTEMPTS;
        let why = loop {
            let at = self.at;
            let mut go_on = || (self.progress)(at).is_continue();
            match self.maintenance.rekey(entry, &mut go_on) {
                Ok(Rekeyed::Now) => {
                    self.report.rekeyed += 1;
                    return ControlFlow::Continue(());
                }
                Ok(Rekeyed::Nothing) => return ControlFlow::Continue(()),
                Ok(Rekeyed::Missed) if attempts > 0 => attempts -= 1,
                Ok(Rekeyed::Linked) => {
                    break "this file has several names, which cannot all be given to another file at once"
                        .to_owned();
                }
                Ok(Rekeyed::Unnamed) => {
                    break "this file is open and has no name yet, which another file could take"
                        .to_owned();
                }
                Ok(Rekeyed::Missed | Rekeyed::Busy) => {
                    break "it was changed each time that it was copied".to_owned();
                }
                Err(error) if is_gone(&error) => return ControlFlow::Continue(()),
                Err(FsError::Os(Errno::INTR)) => return ControlFlow::Break(()),
                Err(error) => break error.to_string(),
            }
        };
        self.report.failures.add(&entry.backing_path(), why);
        ControlFlow::Continue(())
    }
}

impl sweep::Visitor for Pass<'_, '_> {
    fn visit(&mut self, entry: &Entry<'_>) -> ControlFlow<()> {
        let is_shared_link = entry.kind() == FileKind::Symlink && entry.links() > 1;
        if !is_shared_link && !self.done.insert(entry.node()) {
            return ControlFlow::Continue(());
        }
        match entry.kind() {
            FileKind::Directory => {
                self.report.directories_kept += 1;
            }
            FileKind::Symlink if is_shared_link => {
                if let Ok(kept) = self.maintenance.keep(entry) {
                    self.links.entry(entry.node()).or_default().push(kept);
                }
            }
            _ => self.rekey(entry)?,
        }
        self.at.done += 1;
        self.at.total = self.at.total.max(self.at.done);
        (self.progress)(self.at)
    }

    fn failed(&mut self, path: &Path, error: &FsError) {
        self.report.failures.add(path, error);
    }
}
