//! Verifying a volume: everything that is stored is read and authenticated, mounted or not; and healing what heals
//! without guessing, where nobody else has it open.
//!
//! One thread walks the tree ([`tree`]), some read the objects it meets ([`object`]), and the caller's is told what they
//! find. Memory and descriptors do not grow with the number of objects, but by a few bytes for each object of several
//! names and each symlink with a side file.

mod object;
mod orphans;
pub mod report;
mod tree;

use std::collections::HashSet;
use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::thread::Scope;
use std::time::Duration;

use parking_lot::Mutex;

use self::object::Examiner;
pub use self::report::{Finding, Kind, Report, Status, Totals, What};
use super::{Access, Volume, VolumeError, read_volume_file, volume_context};
use crate::crypto::header::verify_volume;
use crate::crypto::object::ObjectKeys;
use crate::format::envelope::ObjectKind;
use crate::format::names::VOLUME_FILE;
use crate::fs::error::Damage;
use crate::fs::keys::KeyUnavailable;
use crate::fs::{FsError, FsResult, NodeId, ROOT_NODE, SideFiles};
use crate::ids::ObjectId;
use crate::kms::error;
use crate::kms::service::KeyService;

/// How a volume is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It is mounted, and users work on it.
    InUse,
    /// Nobody changes it; nor does this.
    Offline,
    /// Nobody else has it open: what heals without guessing is healed.
    Repair,
}

impl Mode {
    /// How a volume that is not mounted is opened for this.
    #[must_use]
    pub const fn access(self) -> Access {
        match self {
            Self::InUse | Self::Offline => Access::ReadOnly,
            Self::Repair => Access::ReadWrite,
        }
    }
}

/// What the caller is told meanwhile.
#[derive(Debug)]
pub enum Event<'a> {
    /// So much was looked at.
    Progress(&'a Totals),
    /// Something was found.
    Found(&'a Finding),
}

/// What the threads tell.
enum Message {
    Counted(Totals),
    Found(Finding),
    /// An object that has, or may have, a side file.
    Owner(ObjectId),
    /// There may be objects that nobody has seen: no side file is known to be nobody's.
    OwnersUnclear,
    Missed,
}

/// Jobs and messages that wait.
const WAITING: usize = 256;
/// How often progress is told.
const BREATH: Duration = Duration::from_millis(100);
/// Threads that read objects.
const READERS: std::ops::RangeInclusive<usize> = 2..=8;

/// Opens a volume to be verified. `Err(Ok(report))` where it cannot be opened because of what is stored, or of its keys:
/// then that is what verifying it found.
///
/// # Errors
/// Why nothing can be said of it.
pub fn open(
    directory: &Path,
    keys: &Arc<KeyService>,
    mode: Mode,
) -> Result<Volume, Result<Box<Report>, VolumeError>> {
    super::open(directory, keys, mode.access()).map_err(|error| {
        unopened(&error).map_or(Err(error), |finding| {
            let mut report = Report::default();
            report.add(finding);
            Ok(Box::new(report))
        })
    })
}

fn unopened(error: &VolumeError) -> Option<Finding> {
    let (status, what) = match error {
        VolumeError::Damaged { .. } => (Status::Damaged, What::VolumeFile),
        VolumeError::Keys(error) => match error.availability() {
            error::KeyUnavailable::Rejected => (Status::Damaged, What::VolumeFile),
            error::KeyUnavailable::Disabled
            | error::KeyUnavailable::PendingDeletion
            | error::KeyUnavailable::NoMaterial
            | error::KeyUnavailable::Expired
            | error::KeyUnavailable::Denied => (Status::NotVerified, What::Key),
            error::KeyUnavailable::Other => return None,
        },
        VolumeError::Filesystem { source, .. } => match source {
            FsError::Damaged(Damage::HeaderMissing) => {
                (Status::Damaged, What::DirectoryHeaderMissing)
            }
            FsError::Damaged(_) => (Status::Damaged, What::DirectoryHeader),
            FsError::Key(KeyUnavailable::Rejected) => (Status::Damaged, What::Envelope),
            FsError::Key(KeyUnavailable::Store) | FsError::Os(_) => return None,
            FsError::Key(_) => (Status::NotVerified, What::Key),
        },
        VolumeError::NotEmpty { .. }
        | VolumeError::NotAVolume { .. }
        | VolumeError::InUse { .. }
        | VolumeError::WrongKeyStore { .. }
        | VolumeError::Dead { .. }
        | VolumeError::Io { .. } => return None,
    };
    let is_root = matches!(error, VolumeError::Filesystem { .. });
    Some(Finding {
        kind: Some(if is_root {
            Kind::Directory
        } else {
            Kind::Volume
        }),
        path: is_root.then(|| ".".to_owned()),
        backing_path: if is_root { "." } else { VOLUME_FILE }.to_owned(),
        ..volume_finding(status, what, error)
    })
}

fn volume_finding(status: Status, what: What, reason: impl ToString) -> Finding {
    Finding {
        status,
        what,
        kind: Some(Kind::Volume),
        path: None,
        backing_path: VOLUME_FILE.to_owned(),
        object_id: None,
        key_id: None,
        blocks: None,
        reason: reason.to_string(),
    }
}

/// Verifies everything from `top` (a directory, or the root for the whole volume) down. `watch` is told of all that is
/// found, and now and then how far it has come; `Break` ends it.
///
/// # Errors
/// EBUSY beside a rewrap, a rekey or another verification; where threads cannot be started.
pub fn verify(
    volume: &Volume,
    top: NodeId,
    mode: Mode,
    watch: &mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
) -> Result<Report, VolumeError> {
    let failed = |source| VolumeError::Filesystem {
        path: volume.directory.clone(),
        source,
    };
    let maintenance = volume.inspect().map_err(failed)?;
    let entry = maintenance.top(top).map_err(failed)?;
    let mut collector = Collector {
        report: Report {
            volume_id: Some(volume.volume_id()),
            in_use: mode == Mode::InUse,
            ..Report::default()
        },
        owners: HashSet::new(),
        owners_unclear: mode == Mode::InUse || top != ROOT_NODE,
        watch,
    };
    let stop = AtomicBool::new(false);
    if top == ROOT_NODE
        && let Some(finding) = verify_volume_file(volume)
    {
        collector.take(Message::Found(finding), &stop);
    }
    let (messages, inbox) = mpsc::sync_channel(WAITING);
    let examiner = Examiner::new(&maintenance, mode, &stop);
    std::thread::scope(|scope| {
        let (jobs, waiting) = mpsc::sync_channel(WAITING);
        let waiting = Arc::new(Mutex::new(waiting));
        let examiner = &examiner;
        let readers = std::thread::available_parallelism().map_or(1, usize::from);
        let mut started = Ok(());
        for _ in 0..readers.clamp(*READERS.start(), *READERS.end()) {
            let waiting = Arc::clone(&waiting);
            let read = move |messages: &SyncSender<Message>| {
                loop {
                    let job = waiting.lock().recv();
                    let Ok(job) = job else { return };
                    examiner.work(job, messages);
                }
            };
            started = started.and_then(|()| spawn(scope, &messages, read));
        }
        let walk = move |messages: &SyncSender<Message>| {
            tree::walk(examiner, entry, &jobs, messages);
        };
        started = started.and_then(|()| spawn(scope, &messages, walk));
        drop((messages, waiting));
        if started.is_err() {
            stop.store(true, Ordering::Relaxed);
        }
        loop {
            match inbox.recv_timeout(BREATH) {
                Ok(message) => collector.take(message, &stop),
                Err(RecvTimeoutError::Timeout) => collector.breathe(&stop),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        started.map_err(VolumeError::io("start a thread for", &volume.directory))
    })?;
    let (messages, inbox) = mpsc::channel();
    let mut tell = |message| {
        let _ = messages.send(message);
    };
    examiner.seal(&mut tell);
    if !collector.owners_unclear && !stop.load(Ordering::Relaxed) {
        for of in [SideFiles::Targets, SideFiles::Journals] {
            orphans::side_files(&examiner, of, &collector.owners, &mut tell);
        }
    }
    drop(messages);
    for message in inbox {
        collector.take(message, &stop);
    }
    if mode == Mode::Repair {
        maintenance.sync().map_err(failed)?;
    }
    let Collector { mut report, .. } = collector;
    report.interrupted = stop.load(Ordering::Relaxed);
    Ok(report)
}

fn spawn<'scope>(
    scope: &'scope Scope<'scope, '_>,
    messages: &SyncSender<Message>,
    work: impl FnOnce(&SyncSender<Message>) + Send + 'scope,
) -> io::Result<()> {
    let messages = messages.clone();
    let builder = std::thread::Builder::new().name("cmkfs-verify".to_owned());
    builder
        .spawn_scoped(scope, move || work(&messages))
        .map(drop)
}

/// Puts together what the threads find.
struct Collector<'a> {
    report: Report,
    /// Objects that have, or may have, side files.
    owners: HashSet<ObjectId>,
    owners_unclear: bool,
    watch: &'a mut dyn FnMut(Event<'_>) -> ControlFlow<()>,
}

impl Collector<'_> {
    fn take(&mut self, message: Message, stop: &AtomicBool) {
        match message {
            Message::Counted(totals) => {
                let before = self.report.totals.objects();
                self.report.totals += totals;
                if before / 512 != self.report.totals.objects() / 512 {
                    self.breathe(stop);
                }
            }
            Message::Found(finding) => {
                if (self.watch)(Event::Found(&finding)).is_break() {
                    stop.store(true, Ordering::Relaxed);
                }
                self.report.add(finding);
            }
            Message::Owner(object) => {
                self.owners.insert(object);
            }
            Message::OwnersUnclear => self.owners_unclear = true,
            Message::Missed => self.report.missed = true,
        }
    }

    fn breathe(&mut self, stop: &AtomicBool) {
        if (self.watch)(Event::Progress(&self.report.totals)).is_break() {
            stop.store(true, Ordering::Relaxed);
        }
    }
}

/// What is wrong with the volume file.
fn verify_volume_file(volume: &Volume) -> Option<Finding> {
    let damaged = |reason: &str| volume_finding(Status::Damaged, What::VolumeFile, reason);
    let stored =
        || -> FsResult<Result<_, VolumeError>> { Ok(read_volume_file(&volume.backing_root()?)) };
    let stored = match stored() {
        Ok(Ok(stored)) => stored,
        Ok(Err(error @ (VolumeError::Damaged { .. } | VolumeError::NotAVolume { .. }))) => {
            return Some(damaged(&error.to_string()));
        }
        Ok(Err(error)) => {
            return Some(volume_finding(Status::NotVerified, What::Unreadable, error));
        }
        Err(error) => {
            return Some(volume_finding(Status::NotVerified, What::Unreadable, error));
        }
    };
    if stored.volume_id() != volume.volume_id() {
        return Some(damaged("it is another volume's"));
    }
    let context = volume_context(volume.volume_id());
    match volume.keys().unwrap_data_key(stored.envelope(), &context) {
        Ok(data_key) => {
            let keys = ObjectKeys::new(&data_key, ObjectKind::Volume);
            let verified = verify_volume(&keys, &stored);
            verified
                .err()
                .map(|_| damaged("it was changed outside of cmkfs"))
        }
        Err(error @ KeyUnavailable::Rejected) => Some(damaged(&error.to_string())),
        Err(error) => Some(Finding {
            key_id: Some(stored.envelope().key_id()),
            ..volume_finding(Status::NotVerified, What::Key, error)
        }),
    }
}
