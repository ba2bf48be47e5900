//! The service behind every transport: a request begins, is answered by one method of [`Answer`], and ends when that is
//! dropped, after the transport has sent what it said. It speaks the kernel's numbers and the core's types, and knows nothing
//! of how requests come and answers go.
//!
//! The methods: [`super::names`], [`super::attributes`], [`super::files`], [`super::directories`].

use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLockReadGuard};
use rustix::io::Errno;

use super::labels::Labels;
use super::later::{self, Later};
use super::report::Reporter;
use super::writeback::WriteBack;
use super::{Forgets, InFlight, Notifier, RefusedWrites, privileges};
use crate::fs::{Attributes, Caller, FsError, FsResult, HandleId, NodeId, ROOT_NODE};
use crate::mount::stats::{Begun, Measured, Operation, Stats};
use crate::volume::Volume;

/// How long the kernel may believe what it was told: nobody else changes a mounted volume, so only revocation could make
/// it wrong, and that invalidates.
pub const VALID: Duration = Duration::from_secs(60);
/// Longest content of a WRITE and longest answer to a READ, in bytes.
pub const MAX_WRITE: u32 = 1 << 20;
/// Requests that the kernel sends on its own account (readahead, write-back) before it waits for answers.
pub const MAX_BACKGROUND: u16 = 64;

/// What answers a mount's requests. Every method may be called by any thread.
pub struct Service {
    pub(super) fs: Arc<Volume>,
    in_flight: InFlight,
    forgets: Forgets,
    stats: Arc<Stats>,
    pub(super) write_back: Arc<WriteBack>,
    reporter: Reporter,
    pub(super) refused_writes: RefusedWrites,
    notifier: Notifier,
    /// What the root looked like last: `umount`, `df` and `mountpoint` have to go on when its key is gone.
    root: Mutex<Option<Attributes>>,
    later: Later,
    pub(super) labels: Labels,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").finish_non_exhaustive()
    }
}

impl Service {
    /// Serves a volume.
    ///
    /// # Errors
    /// Where no thread can be started.
    pub(super) fn new(
        fs: Arc<Volume>,
        write_back: Arc<WriteBack>,
        notifier: Notifier,
    ) -> io::Result<Self> {
        let root = Mutex::new(fs.attributes(ROOT_NODE, None).ok());
        Ok(Self {
            fs,
            in_flight: InFlight::default(),
            forgets: Forgets::default(),
            stats: Arc::default(),
            later: later::start(Arc::clone(&write_back))?,
            write_back,
            reporter: Reporter::default(),
            refused_writes: RefusedWrites::default(),
            notifier,
            root,
            labels: Labels::of_this_system(),
        })
    }

    /// A request is in hand.
    pub fn begin(&self, operation: Operation) -> Answer<'_> {
        let measured = self.stats.begin(operation);
        self.answer(measured)
    }

    /// Goes on with a request that another thread had in hand before.
    pub fn take_over(&self, begun: Begun) -> Answer<'_> {
        self.answer(self.stats.take_over(begun))
    }

    fn answer<'a>(&'a self, measured: Measured<'a>) -> Answer<'a> {
        let operation = measured.operation();
        Answer {
            service: self,
            _in_flight: discloses(operation).then(|| self.in_flight.0.read()),
            _writing: (operation == Operation::Write).then(|| self.write_back.writing()),
            measured,
        }
    }

    /// Leaves a job to a thread that first waits until what is dirty in the kernel has been written. The workers go on
    /// meanwhile: it is they who have to take those writes. The job hears what the request fails with where that can never
    /// be done again.
    pub fn after_write_back(&self, job: impl FnOnce(Result<(), Errno>) + Send + 'static) {
        self.later.send(Box::new(job));
    }

    /// Waits until what is dirty in the kernel has been written. By a worker only where others are left to take the writes.
    ///
    /// # Errors
    /// What the request fails with where that can never be done again.
    pub fn write_back(&self) -> Result<(), Errno> {
        later::write_back(&self.write_back)
    }

    /// Has a request come that asks nothing, from the processor of the caller ([`Notifier::nudge`]).
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn nudge(&self, node: NodeId, number: usize) -> io::Result<bool> {
        self.notifier.nudge(node, number as u64)
    }

    /// Whether the mount only reads.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.fs.read_only()
    }

    /// For waiting until answers under way are sent.
    #[must_use]
    pub fn in_flight(&self) -> InFlight {
        self.in_flight.clone()
    }

    /// For having FORGETs taken many at once.
    #[must_use]
    pub fn forgets(&self) -> Forgets {
        self.forgets.clone()
    }

    /// FORGET, of so many lookups. It has no answer.
    pub fn forget(&self, node: NodeId, lookups: u64) {
        let _measured = self.stats.begin(Operation::Forget);
        self.fs.forget(node, lookups);
    }

    /// FORGETs have been answered: rests before more are taken, if many are about to come.
    pub fn rest_from_forgets(&self) {
        self.forgets.rest();
    }

    /// What it is asked.
    #[must_use]
    pub fn stats(&self) -> Arc<Stats> {
        Arc::clone(&self.stats)
    }

    /// For dropping what a refused write has left in the kernel.
    #[must_use]
    pub fn refused_writes(&self) -> RefusedWrites {
        self.refused_writes.clone()
    }
}

/// Whether an answer carries plaintext, names or attributes: who withdraws a key waits for it.
const fn discloses(operation: Operation) -> bool {
    use Operation::*;
    match operation {
        Lookup | Getattr | Setattr | Readlink | Mknod | Mkdir | Symlink | Link | Open | Create
        | Tmpfile | Read | Readdir | Readdirplus | Getxattr | Listxattr => true,
        Forget | Unlink | Rmdir | Rename | Write | Flush | Release | Fsync | Fallocate | Lseek
        | CopyFileRange | Opendir | Releasedir | Fsyncdir | Statfs | Setxattr | Removexattr
        | Ioctl | Poll => false,
    }
}

/// A request in hand, until its answer is sent: then it is dropped, and with that counted.
pub struct Answer<'a> {
    pub(super) service: &'a Service,
    measured: Measured<'a>,
    _in_flight: Option<RwLockReadGuard<'a, ()>>,
    _writing: Option<RwLockReadGuard<'a, ()>>,
}

impl std::fmt::Debug for Answer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Answer({})", self.measured.operation().name())
    }
}

impl Answer<'_> {
    /// What the core says, with an error as the errno that the request fails with, logged where the log should hear of it.
    pub(super) fn result<T>(&self, node: NodeId, result: FsResult<T>) -> Result<T, Errno> {
        result.map_err(|error| self.errno(node, &error))
    }

    pub(super) fn errno(&self, node: NodeId, error: &FsError) -> Errno {
        let Service { fs, reporter, .. } = self.service;
        let operation = self.measured.operation().name();
        let path = || fs.backing_path(node);
        self.refused(reporter.errno(operation, node, path, error))
    }

    /// An errno that it fails with without the core's being asked.
    pub fn refused(&self, errno: Errno) -> Errno {
        self.measured.fails();
        errno
    }

    /// Bytes that it carries.
    pub(super) fn carries(&self, bytes: usize) {
        self.measured.carries(bytes);
    }

    /// Its time ends here, not when it is dropped: whoever is answered may run before the answering thread does again.
    pub fn stop_the_clock(&self) {
        self.measured.stop();
    }

    /// Leaves it to another thread, where [`Service::take_over`] goes on with it.
    #[must_use]
    pub fn hand_over(self) -> Begun {
        self.measured.hand_over()
    }

    pub(super) fn remember_root(&self, result: FsResult<Attributes>) -> FsResult<Attributes> {
        let mut root = self.service.root.lock();
        match (result, *root) {
            (Ok(attributes), _) => {
                *root = Some(attributes);
                Ok(attributes)
            }
            (Err(_), Some(remembered)) => Ok(remembered),
            (Err(error), None) => Err(error),
        }
    }

    /// Takes setuid and setgid away, which the kernel leaves to us where content changes.
    pub(super) fn kill_privileges(
        &self,
        caller: Caller,
        node: NodeId,
        file: Option<HandleId>,
    ) -> FsResult<()> {
        if privileges::kill(&self.service.fs, caller, node, file)? {
            self.forget_mode(node);
        }
        Ok(())
    }

    /// Takes setgid away.
    pub(super) fn kill_setgid(&self, caller: Caller, node: NodeId) -> FsResult<()> {
        if privileges::kill_setgid(&self.service.fs, caller, node)? {
            self.forget_mode(node);
        }
        Ok(())
    }

    /// Makes the kernel ask for a mode anew that it has cached with bits that are gone: it would still run the program
    /// with them. Unlike an invalidation of pages this waits for nothing, so it may be done from here.
    fn forget_mode(&self, node: NodeId) {
        if let Err(error) = self.service.notifier.attributes(node) {
            log::warn!("the kernel keeps the mode of inode {node}: {error}");
        }
    }
}
