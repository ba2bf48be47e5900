//! Verifies one object that the walk has met, and tells what is found.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Known;
use std::ffi::CString;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;

use parking_lot::Mutex;
use rustix::io::Errno;

use super::report::{Finding, Status, Totals, What};
use super::{Message, Mode};
use crate::fs::error::Damage;
use crate::fs::flaw::{Flaw, Identity, Part, Verified};
use crate::fs::keys::KeyUnavailable;
use crate::fs::{Entry, FileKind, FsError, Maintenance, NodeId};

/// Files that are kept back to be sealed together.
const SEALED_AT_ONCE: usize = 256;

/// What a reader is to look at.
pub(super) enum Job<'f> {
    /// What has this backing name in a directory.
    Name(Arc<Entry<'f>>, CString),
    /// An object that was met already.
    Met(Entry<'f>),
}

/// Looks at objects; shared by all threads.
pub(super) struct Examiner<'a, 'f> {
    pub maintenance: &'a Maintenance<'f>,
    pub mode: Mode,
    stop: &'a AtomicBool,
    /// Objects of several names, and how many of these are still to come.
    linked: Mutex<HashMap<NodeId, u64>>,
    /// Files to be sealed.
    unsealed: Mutex<Vec<Entry<'f>>>,
}

impl<'a, 'f> Examiner<'a, 'f> {
    pub fn new(maintenance: &'a Maintenance<'f>, mode: Mode, stop: &'a AtomicBool) -> Self {
        Self {
            maintenance,
            mode,
            stop,
            linked: Mutex::default(),
            unsealed: Mutex::default(),
        }
    }

    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    pub fn work(&self, job: Job<'f>, messages: &SyncSender<Message>) {
        if self.is_stopped() {
            return;
        }
        let mut tell = |message| {
            // The other side listens for as long as any thread can speak.
            let _ = messages.send(message);
        };
        let entry = match job {
            Job::Met(entry) => entry,
            Job::Name(directory, name) => match self.maintenance.entry(&directory, &name) {
                Ok(Some(entry)) => entry,
                Ok(None) => return,
                Err(error) => {
                    let path = directory.backing_path();
                    let path = path.join(&*name.to_string_lossy());
                    tell(Message::Found(finding(
                        Status::NotVerified,
                        What::Unreadable,
                        &path,
                        error,
                    )));
                    tell(Message::OwnersUnclear);
                    return;
                }
            },
        };
        self.object(entry, &mut tell);
    }

    /// Anything but a directory.
    fn object(&self, entry: Entry<'f>, tell: &mut dyn FnMut(Message)) {
        let mut totals = Totals::default();
        self.name(&entry, &mut totals, tell);
        if !self.is_again(&entry) {
            self.content(entry, &mut totals, tell);
        }
        tell(Message::Counted(totals));
    }

    /// The name by which an entry was met.
    pub fn name(&self, entry: &Entry<'_>, totals: &mut Totals, tell: &mut dyn FnMut(Message)) {
        match self.maintenance.verify_name(entry) {
            Ok(true) => totals.names += 1,
            // Told of the directory.
            Ok(false) => {}
            Err(error) => {
                let part = Part::Name;
                self.tell_of(
                    entry,
                    &Verified::default(),
                    vec![Flaw { part, error }],
                    tell,
                );
            }
        }
    }

    fn content(&self, entry: Entry<'f>, totals: &mut Totals, tell: &mut dyn FnMut(Message)) {
        let mut flaws = Vec::new();
        let mut on_flaw = |flaw| flaws.push(flaw);
        let verified = match entry.kind() {
            FileKind::File => {
                totals.files += 1;
                let go_on = || !self.is_stopped();
                self.maintenance.verify_file(&entry, &mut on_flaw, &go_on)
            }
            FileKind::Symlink => {
                totals.symlinks += 1;
                self.maintenance.verify_symlink(&entry, &mut on_flaw)
            }
            FileKind::Fifo | FileKind::Socket | FileKind::CharDevice | FileKind::BlockDevice => {
                totals.specials += 1;
                return;
            }
            // The walk's own.
            FileKind::Directory => return,
        };
        totals.add(&verified);
        if let Some(object) = verified.side {
            tell(Message::Owner(object));
        }
        if let (true, Some(Identity { object, .. })) = (verified.is_unsealed, verified.identity) {
            tell(Message::Owner(object));
        }
        let is_sound = flaws.is_empty();
        self.tell_of(&entry, &verified, flaws, tell);
        if verified.is_unsealed {
            totals.unsealed_files += 1;
            match self.mode {
                // Who is writing it seals it.
                Mode::InUse => {}
                Mode::Offline => tell(Message::Found(self.unsealed(&entry, Status::NotSealed))),
                Mode::Repair if is_sound => self.keep_unsealed(entry, tell),
                Mode::Repair => tell(Message::Found(self.unsealed(&entry, Status::NotRepaired))),
            }
        }
    }

    /// Tells of flaws, unless the object has gone meanwhile.
    pub fn tell_of(
        &self,
        entry: &Entry<'_>,
        verified: &Verified,
        flaws: Vec<Flaw>,
        tell: &mut dyn FnMut(Message),
    ) {
        if flaws.is_empty() || (self.mode == Mode::InUse && self.maintenance.is_gone(entry)) {
            return;
        }
        for flaw in flaws {
            let (status, what) = classify(entry.kind(), &flaw);
            match (&flaw.part, what, verified.identity) {
                // What it says in the clear leads to its side file, or it has none that is known.
                (Part::Name | Part::Blocks(_) | Part::Attribute(_), ..) => {}
                (_, What::Key, Some(Identity { object, .. })) => tell(Message::Owner(object)),
                _ if entry.kind() == FileKind::Directory => {}
                _ => tell(Message::OwnersUnclear),
            }
            let mut reason = flaw.error.to_string();
            if let Part::Attribute(name) = &flaw.part
                && !name.is_empty()
            {
                reason = format!("{}: {reason}", name.to_string_lossy());
            }
            let mut found = self.about(entry, status, what, reason);
            if let Some(Identity { object, key }) = verified.identity {
                found.object_id = Some(object);
                found.key_id = Some(key);
            }
            if let Part::Blocks(blocks) = flaw.part {
                found.blocks = Some((blocks.start, blocks.end - 1));
            }
            tell(Message::Found(found));
        }
    }

    /// A finding about an entry.
    pub fn about(
        &self,
        entry: &Entry<'_>,
        status: Status,
        what: What,
        reason: impl ToString,
    ) -> Finding {
        let path = self.maintenance.plain_path(entry);
        Finding {
            kind: Some(entry.kind().into()),
            path: path.map(|path| text(&path)),
            ..finding(status, what, &self.maintenance.met_at(entry), reason)
        }
    }

    /// Whether this object was met before by another name.
    fn is_again(&self, entry: &Entry<'_>) -> bool {
        let mut linked = self.linked.lock();
        if entry.links() < 2 && !linked.contains_key(&entry.node()) {
            return false;
        }
        match linked.entry(entry.node()) {
            Known::Vacant(new) => {
                new.insert(entry.links() - 1);
                false
            }
            Known::Occupied(mut known) => {
                *known.get_mut() -= 1;
                if *known.get() == 0 {
                    known.remove();
                }
                true
            }
        }
    }

    fn unsealed(&self, entry: &Entry<'_>, status: Status) -> Finding {
        let reason = "it was being written when the process that had the volume open ended";
        self.about(entry, status, What::Unsealed, reason)
    }

    /// One sync of the backing filesystem seals many files.
    fn keep_unsealed(&self, entry: Entry<'f>, tell: &mut dyn FnMut(Message)) {
        let mut unsealed = self.unsealed.lock();
        unsealed.push(entry);
        let is_crowded = unsealed.len() >= SEALED_AT_ONCE;
        drop(unsealed);
        if is_crowded {
            self.seal(tell);
        }
    }

    /// Seals the files that were kept back for it.
    pub fn seal(&self, tell: &mut dyn FnMut(Message)) {
        let entries = std::mem::take(&mut *self.unsealed.lock());
        if entries.is_empty() {
            return;
        }
        self.maintenance.seal();
        for entry in entries {
            let status = match self.maintenance.is_sealed(&entry) {
                Ok(true) => Status::Repaired,
                Ok(false) | Err(_) => Status::NotRepaired,
            };
            tell(Message::Found(self.unsealed(&entry, status)));
        }
    }
}

impl Totals {
    pub(super) fn add(&mut self, verified: &Verified) {
        self.bytes += verified.bytes;
        self.blocks += verified.blocks;
        self.attributes += verified.attributes;
    }
}

/// A finding of which only the backing path is known.
pub(super) fn finding(
    status: Status,
    what: What,
    backing_path: &Path,
    reason: impl ToString,
) -> Finding {
    Finding {
        status,
        what,
        kind: None,
        path: None,
        backing_path: text(backing_path),
        object_id: None,
        key_id: None,
        blocks: None,
        reason: reason.to_string(),
    }
}

/// The root itself is a dot.
fn text(path: &Path) -> String {
    if path.as_os_str().is_empty() {
        ".".to_owned()
    } else {
        path.to_string_lossy().into_owned()
    }
}

fn classify(kind: FileKind, flaw: &Flaw) -> (Status, What) {
    let part = match (&flaw.part, kind) {
        (Part::Name, _) => What::Name,
        (Part::Header, FileKind::Directory) => What::DirectoryHeader,
        (Part::Header, _) => What::FileHeader,
        (Part::Blocks(_), _) => What::Block,
        (Part::Target, _) => What::Symlink,
        (Part::SideFile, _) => What::SideFile,
        (Part::Attribute(_), _) => What::Attribute,
    };
    match &flaw.error {
        FsError::Key(KeyUnavailable::Rejected) => (Status::Damaged, What::Envelope),
        FsError::Key(KeyUnavailable::Store) => (Status::NotVerified, What::Unreadable),
        FsError::Key(_) => (Status::NotVerified, What::Key),
        FsError::Damaged(Damage::HeaderMissing) => (Status::Damaged, What::DirectoryHeaderMissing),
        FsError::Damaged(Damage::LongNameMissing) => (Status::Damaged, What::LongNameMissing),
        FsError::Damaged(Damage::Hole { .. }) => (Status::Damaged, What::BlockMissing),
        FsError::Damaged(Damage::Size { .. }) => (Status::Damaged, What::Length),
        FsError::Damaged(
            Damage::Format(_) | Damage::Authentication { .. } | Damage::Block { .. },
        ) => (Status::Damaged, part),
        // Something of another type lies in the place of one of cmkfs's own files.
        FsError::Os(Errno::ISDIR | Errno::LOOP | Errno::NXIO | Errno::NOTDIR | Errno::NOENT)
            if matches!(flaw.part, Part::Header | Part::SideFile | Part::Name) =>
        {
            (Status::Damaged, part)
        }
        FsError::Os(_) => (Status::NotVerified, What::Unreadable),
    }
}
