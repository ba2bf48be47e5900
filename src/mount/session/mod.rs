//! The FUSE transport: the only code that knows fuser. It translates the kernel's requests into calls of the core and
//! decides nothing.
//!
//! fuser's own mounting and unmounting are never used: after somebody else has unmounted, its unmount hits whatever was
//! mounted below. The session lives on a descriptor that `mount::mountpoint` got.

mod adapter;
mod answer;
mod convert;
mod notify;
mod privileges;
mod report;
mod seek;
mod writeback;

use std::collections::HashSet;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;

use fuser::{Config, Session, SessionACL};
use parking_lot::{Mutex, RwLock};

use super::holders;
use super::mountpoint::Mounted;
use super::stats::Stats;
use crate::fs::NodeId;
use crate::volume::Volume;
use answer::Adapter;

pub use notify::Notifier;
pub use writeback::WriteBack;

/// Workers that answer the kernel: enough that a few slow fsyncs do not keep everybody else waiting, few enough not to
/// fight for the processors.
fn workers() -> usize {
    std::thread::available_parallelism()
        .map_or(4, usize::from)
        .clamp(4, 16)
}

/// Requests whose answer carries plaintext, names or attributes, from before the core is asked until the answer is sent.
#[derive(Debug, Default, Clone)]
pub struct InFlight(Arc<RwLock<()>>);

impl InFlight {
    /// Returns when every answer that was under way when it was called has been sent. What was read under a key before it
    /// was revoked is in the kernel's hands by then, and an invalidation reaches it.
    pub fn drain(&self) {
        drop(self.0.write());
    }
}

/// Inodes of which the kernel may still hold pages that were refused: written into its cache just before a key was
/// withdrawn, or while it was.
#[derive(Debug, Default, Clone)]
pub struct RefusedWrites(Arc<Mutex<HashSet<NodeId>>>);

impl RefusedWrites {
    /// Remembers one.
    pub fn add(&self, node: NodeId) {
        self.0.lock().insert(node);
    }

    /// Those that have come since this was asked last.
    #[must_use]
    pub fn take(&self) -> HashSet<NodeId> {
        std::mem::take(&mut *self.0.lock())
    }
}

/// The worker threads of a mount.
#[derive(Debug)]
pub struct Running {
    thread: JoinHandle<io::Result<()>>,
}

impl Running {
    /// Waits until the mount is gone.
    ///
    /// # Errors
    /// What ended the session, other than the end of the mount.
    pub fn join(self) -> io::Result<()> {
        self.thread
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("a worker of the session panicked")))
    }
}

/// A session whose handshake is done.
pub struct Connected {
    session: Session<Adapter>,
    in_flight: InFlight,
    stats: Arc<Stats>,
    refused_writes: RefusedWrites,
    notifier: Notifier,
    write_back: Arc<WriteBack>,
    /// Of the thread that waits for the workers.
    name: String,
}

impl std::fmt::Debug for Connected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connected").finish_non_exhaustive()
    }
}

impl Connected {
    /// Shakes hands with the kernel over the descriptor of a fresh mount.
    ///
    /// # Errors
    /// Where the kernel's protocol is not spoken, or the mount is gone already.
    pub fn new(fs: Arc<Volume>, mounted: &Arc<Mounted>, device: OwnedFd) -> io::Result<Self> {
        let in_flight = InFlight::default();
        let stats = Arc::new(Stats::default());
        let write_back = Arc::new(WriteBack::new(Arc::clone(mounted)));
        let mut config = Config::default();
        config.n_threads = Some(workers());
        // One queue for all workers: a descriptor each would only spread the wake-ups.
        config.clone_fd = false;
        let refused_writes = RefusedWrites::default();
        let notifier = Notifier::new(device.try_clone()?);
        let adapter = Adapter::new(
            fs,
            Arc::clone(&write_back),
            in_flight.clone(),
            Arc::clone(&stats),
            refused_writes.clone(),
            notifier.clone(),
        )?;
        // Who may come in is the kernel's decision (allow_other, default_permissions), so fuser lets everybody pass.
        let session = Session::from_fd(adapter, device, SessionACL::All, config)?;
        Ok(Self {
            session,
            in_flight,
            stats,
            refused_writes,
            notifier,
            write_back,
            name: holders::thread_name(mounted.device_minor()),
        })
    }

    /// For invalidations.
    #[must_use]
    pub fn notifier(&self) -> Notifier {
        self.notifier.clone()
    }

    /// For dropping what a refused write has left in the kernel.
    #[must_use]
    pub fn refused_writes(&self) -> RefusedWrites {
        self.refused_writes.clone()
    }

    /// For waiting until answers under way are sent.
    #[must_use]
    pub fn in_flight(&self) -> InFlight {
        self.in_flight.clone()
    }

    /// What it is asked.
    #[must_use]
    pub fn stats(&self) -> Arc<Stats> {
        Arc::clone(&self.stats)
    }

    /// For waiting until what programs have written has reached the core.
    #[must_use]
    pub fn write_back(&self) -> Arc<WriteBack> {
        Arc::clone(&self.write_back)
    }

    /// Starts the workers.
    ///
    /// # Errors
    /// Where no thread can be started.
    pub fn serve(self) -> io::Result<Running> {
        let thread = std::thread::Builder::new()
            .name(self.name)
            .spawn(move || self.session.run())?;
        Ok(Running { thread })
    }
}
