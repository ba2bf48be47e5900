//! Walks the tree: directories itself, and hands everything else to the readers. What processes that died have left is met
//! here, and healed where that is asked for.

use std::ffi::{CStr, CString};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use super::object::{Examiner, Job, finding};
use super::report::{Finding, Status, Totals, What};
use super::{Message, Mode};
use crate::format::names::{BackingName, LONG_NAME_SUFFIX, LONG_PREFIX, from_text};
use crate::fs::error::Damage;
use crate::fs::{Entry, FileKind, FsError, FsResult, Listed, Listing, Maintenance};

/// So deep directories are kept open while what lies below is walked. Deeper ones are listed whole first.
const KEPT_OPEN: usize = 64;
/// So often what was renamed meanwhile is looked at.
const ROUNDS: usize = 100;
/// What some filesystems put into their root.
const LOST_AND_FOUND: &[u8] = b"lost+found";

/// A directory that is being walked.
struct Level<'f> {
    directory: Arc<Entry<'f>>,
    /// `None` once it has come to its end.
    listing: Option<Listing>,
    /// Listed and not yet looked at.
    subdirectories: Vec<CString>,
}

struct Walk<'w, 'a, 'f> {
    examiner: &'w Examiner<'a, 'f>,
    jobs: &'w SyncSender<Job<'f>>,
    messages: &'w SyncSender<Message>,
    levels: Vec<Level<'f>>,
}

/// Walks everything from `top` down, and what was renamed meanwhile.
pub(super) fn walk<'f>(
    examiner: &Examiner<'_, 'f>,
    top: Entry<'f>,
    jobs: &SyncSender<Job<'f>>,
    messages: &SyncSender<Message>,
) {
    let mut walk = Walk {
        examiner,
        jobs,
        messages,
        levels: Vec::new(),
    };
    let node = top.node();
    walk.descend(top);
    for _ in 0..ROUNDS {
        let moved = examiner.maintenance.moved();
        if moved.is_empty() || examiner.is_stopped() {
            return;
        }
        for entry in moved.into_iter().filter(|entry| entry.is_within(node)) {
            if entry.kind() == FileKind::Directory {
                walk.descend(entry);
            } else {
                // Ended early, if nobody takes it.
                let _ = jobs.send(Job::Met(entry));
            }
        }
    }
    walk.tell(Message::Missed);
}

impl<'f> Walk<'_, '_, 'f> {
    fn tell(&self, message: Message) {
        let _ = self.messages.send(message);
    }

    fn maintenance(&self) -> &Maintenance<'f> {
        self.examiner.maintenance
    }

    /// Walks a directory with all that is below.
    fn descend(&mut self, top: Entry<'f>) {
        self.enter(top);
        while !self.examiner.is_stopped() {
            let Some(level) = self.levels.last_mut() else {
                return;
            };
            if let Some(name) = level.subdirectories.pop() {
                let directory = Arc::clone(&level.directory);
                self.subdirectory(&directory, &name);
                continue;
            }
            let Some(listing) = &mut level.listing else {
                self.levels.pop();
                continue;
            };
            match listing.more() {
                Ok(Some(entries)) => self.entries(entries),
                Ok(None) => level.listing = None,
                Err(error) => {
                    level.listing = None;
                    let directory = Arc::clone(&level.directory);
                    self.unlisted(&directory, error);
                }
            }
        }
        self.levels.clear();
    }

    /// A directory's names cannot be read.
    fn unlisted(&self, directory: &Entry<'_>, error: FsError) {
        let is_gone = || self.maintenance().is_gone(directory);
        if self.examiner.mode == Mode::InUse && is_gone() {
            return;
        }
        let about = (Status::NotVerified, What::Unreadable);
        self.tell(Message::Found(
            self.examiner.about(directory, about.0, about.1, error),
        ));
        self.tell(Message::OwnersUnclear);
    }

    fn subdirectory(&mut self, parent: &Arc<Entry<'f>>, name: &CStr) {
        match self.maintenance().entry(parent, name) {
            Ok(None) => {}
            Ok(Some(entry)) if entry.kind() == FileKind::Directory => self.enter(entry),
            Ok(Some(entry)) => {
                let _ = self.jobs.send(Job::Met(entry));
            }
            Err(error) => {
                let path = parent.backing_path().join(&*name.to_string_lossy());
                let about = (Status::NotVerified, What::Unreadable);
                self.tell(Message::Found(finding(about.0, about.1, &path, error)));
                self.tell(Message::OwnersUnclear);
            }
        }
    }

    fn enter(&mut self, directory: Entry<'f>) {
        let mut totals = Totals {
            directories: 1,
            ..Totals::default()
        };
        let messages = self.messages;
        let mut tell = |message| {
            let _ = messages.send(message);
        };
        if !self.levels.is_empty() {
            self.examiner.name(&directory, &mut totals, &mut tell);
        }
        let mut flaws = Vec::new();
        let verified = self
            .maintenance()
            .verify_directory(&directory, &mut |flaw| flaws.push(flaw));
        totals.add(&verified);
        let has_lost_header = |error: &FsError| *error == FsError::Damaged(Damage::HeaderMissing);
        if flaws.iter().any(|flaw| has_lost_header(&flaw.error))
            && self.maintenance().is_empty(&directory).unwrap_or(false)
            && !(self.examiner.mode == Mode::InUse && self.maintenance().is_gone(&directory))
            && directory.node() != crate::fs::ROOT_NODE
        {
            flaws.clear();
            let reason = "an empty directory has lost its header, and gets a new one";
            let repair =
                |maintenance: &Maintenance<'_>| maintenance.heal_header(&directory).map(|()| true);
            let what = What::DirectoryHeaderMissing;
            let found = self.repaired(&directory, None, what, reason, repair);
            tell(Message::Found(found));
        }
        self.examiner
            .tell_of(&directory, &verified, flaws, &mut tell);
        tell(Message::Counted(totals));
        match self.maintenance().listing(&directory) {
            Ok(listing) => {
                self.levels.push(Level {
                    directory: Arc::new(directory),
                    listing: Some(listing),
                    subdirectories: Vec::new(),
                });
                if self.levels.len() > KEPT_OPEN {
                    self.list_whole();
                }
            }
            Err(error) => self.unlisted(&directory, error),
        }
    }

    fn list_whole(&mut self) {
        while let Some(level) = self.levels.last_mut()
            && let Some(listing) = &mut level.listing
        {
            match listing.more() {
                Ok(Some(entries)) => self.entries(entries),
                Ok(None) => level.listing = None,
                Err(error) => {
                    level.listing = None;
                    let directory = Arc::clone(&level.directory);
                    self.unlisted(&directory, error);
                }
            }
        }
    }

    fn entries(&mut self, entries: Vec<Listed>) {
        for Listed { name, kind } in entries {
            if self.examiner.is_stopped() {
                return;
            }
            let Some(level) = self.levels.last_mut() else {
                return;
            };
            let directory = Arc::clone(&level.directory);
            match BackingName::classify(name.to_bytes()) {
                BackingName::Inline(text) if is_foreign(text) => {
                    self.foreign(&directory, &name, kind);
                }
                BackingName::Inline(_) | BackingName::Long => {
                    if matches!(kind, None | Some(FileKind::Directory)) {
                        level.subdirectories.push(name);
                    } else {
                        let _ = self.jobs.send(Job::Name(directory, name));
                    }
                }
                BackingName::Temporary => self.leftover(&directory, &name),
                BackingName::Reserved => self.orphaned_name(&directory, &name),
                BackingName::Foreign => self.foreign(&directory, &name, kind),
            }
        }
    }

    fn foreign(&self, directory: &Entry<'_>, name: &CStr, kind: Option<FileKind>) {
        let path = directory.backing_path().join(&*name.to_string_lossy());
        let reason = "it is not of cmkfs's making";
        self.tell(Message::Found(Finding {
            kind: kind.map(Into::into),
            ..finding(Status::Foreign, What::ForeignName, &path, reason)
        }));
        if matches!(kind, None | Some(FileKind::Directory | FileKind::Symlink)) {
            self.tell(Message::OwnersUnclear);
        }
    }

    /// What a process that died was making or removing. While the volume is in use it may be somebody's.
    fn leftover(&self, directory: &Entry<'_>, name: &CStr) {
        if self.examiner.mode == Mode::InUse {
            return;
        }
        let found = if Maintenance::is_left_by_binding(name) {
            let reason = "binding the directory to a key was interrupted";
            let repair = |maintenance: &Maintenance<'_>| maintenance.finish_binding(directory);
            let what = What::UnfinishedBinding;
            self.repaired(directory, Some(name), what, reason, repair)
        } else {
            match self.maintenance().is_only_leftover(directory, name) {
                Ok(true) => {
                    let reason = "it was being made or removed when a process ended";
                    let repair = |maintenance: &Maintenance<'_>| {
                        maintenance.remove_leftover(directory, name)
                    };
                    self.repaired(directory, Some(name), What::Leftover, reason, repair)
                }
                other => {
                    let path = directory.backing_path().join(&*name.to_string_lossy());
                    let reason = match other {
                        Err(error) => error.to_string(),
                        _ => "it holds what cmkfs has not put there".to_owned(),
                    };
                    finding(Status::NotRepaired, What::Leftover, &path, reason)
                }
            }
        };
        self.tell(Message::Found(found));
    }

    fn orphaned_name(&self, directory: &Entry<'_>, name: &CStr) {
        let bytes = name.to_bytes();
        if !bytes.starts_with(LONG_PREFIX.as_bytes())
            || !bytes.ends_with(LONG_NAME_SUFFIX.as_bytes())
        {
            return;
        }
        match self.maintenance().is_orphaned_name(directory, name) {
            Ok(true) => {
                let reason = "it keeps the long name of an object that is not there";
                let repair = |maintenance: &Maintenance<'_>| {
                    maintenance
                        .remove_orphaned_name(directory, name)
                        .map(|()| true)
                };
                let what = What::OrphanedName;
                let found = self.repaired(directory, Some(name), what, reason, repair);
                self.tell(Message::Found(found));
            }
            Ok(false) => {}
            Err(error) => self.unlisted(directory, error),
        }
    }

    fn repaired(
        &self,
        directory: &Entry<'_>,
        name: Option<&CStr>,
        what: What,
        reason: &str,
        repair: impl FnOnce(&Maintenance<'_>) -> FsResult<bool>,
    ) -> Finding {
        let (status, reason) = self.examiner.attempt(reason, repair);
        match name {
            None => self.examiner.about(directory, status, what, reason),
            Some(name) => {
                let path = directory.backing_path().join(&*name.to_string_lossy());
                finding(status, what, &path, reason)
            }
        }
    }
}

impl Examiner<'_, '_> {
    /// Heals something, where that is asked for: what came of it, and what to say of it.
    pub fn attempt(
        &self,
        reason: &str,
        repair: impl FnOnce(&Maintenance<'_>) -> FsResult<bool>,
    ) -> (Status, String) {
        if self.mode != Mode::Repair {
            return (Status::Repairable, reason.to_owned());
        }
        match repair(self.maintenance) {
            Ok(true) => (Status::Repaired, reason.to_owned()),
            Ok(false) => (
                Status::NotRepaired,
                format!("{reason}; it holds what cmkfs has not put there"),
            ),
            Err(error) => (Status::NotRepaired, format!("{reason}; {error}")),
        }
    }
}

/// A name without a dot that was never an encrypted one. Any other that cannot be decoded may be one that was damaged.
fn is_foreign(text: &[u8]) -> bool {
    text == LOST_AND_FOUND && from_text(text).is_none()
}
