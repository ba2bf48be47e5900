//! The FUSE transport: the only code that knows fuser. It translates the kernel's requests into calls of the core and
//! decides nothing.
//!
//! fuser's own mounting and unmounting are never used: after somebody else has unmounted, its unmount hits whatever was
//! mounted below. The session lives on a descriptor that `mount::mountpoint` got.

mod adapter;
mod answer;
mod convert;
mod privileges;
mod report;
mod seek;
mod writeback;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use fuser::{Config, INodeNo, Notifier, Session, SessionACL};
use parking_lot::RwLock;

use super::holders;
use super::mountpoint::Mounted;
use crate::fs::NodeId;
use crate::volume::Volume;
use answer::Adapter;

pub use writeback::WriteBack;

/// Workers that answer the kernel: enough that a few slow fsyncs do not keep everybody else waiting, few enough not to
/// fight for the processors.
fn workers() -> usize {
    std::thread::available_parallelism()
        .map_or(4, usize::from)
        .clamp(4, 16)
}

/// Requests whose answer carries plaintext, from before the core is asked until the answer is sent.
#[derive(Debug, Default, Clone)]
pub struct InFlight(Arc<RwLock<()>>);

impl InFlight {
    /// Returns when every answer that was under way when it was called has been sent. What was read under a key before it
    /// was revoked is in the kernel's hands by then, and an invalidation reaches it.
    pub fn drain(&self) {
        drop(self.0.write());
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

/// Tells the kernel to drop what it has cached. Never used from a request's handler or under a lock: the kernel may have to
/// wait for an answer of ours.
#[derive(Debug, Clone)]
pub struct Invalidator(Notifier);

impl Invalidator {
    /// Drops the pages and attributes of an inode, also of one that is open or mapped. An inode that the kernel does not
    /// know is no error.
    ///
    /// # Errors
    /// Where the session is gone.
    pub fn inode(&self, node: NodeId) -> io::Result<()> {
        self.0.inval_inode(INodeNo(node), 0, 0)
    }
}

/// A session whose handshake is done.
pub struct Connected {
    session: Session<Adapter>,
    in_flight: InFlight,
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
        let write_back = Arc::new(WriteBack::new(Arc::clone(mounted)));
        let mut config = Config::default();
        config.n_threads = Some(workers());
        // One queue for all workers: a descriptor each would only spread the wake-ups.
        config.clone_fd = false;
        let notifier = Arc::new(OnceLock::new());
        let adapter = Adapter::new(
            fs,
            Arc::clone(&write_back),
            in_flight.clone(),
            Arc::clone(&notifier),
        )?;
        // Who may come in is the kernel's decision (allow_other, default_permissions), so fuser lets everybody pass.
        let session = Session::from_fd(adapter, device, SessionACL::All, config)?;
        // Nobody else sets it, and no request is taken before this.
        let _ = notifier.set(session.notifier());
        Ok(Self {
            session,
            in_flight,
            write_back,
            name: holders::thread_name(mounted.device_minor()),
        })
    }

    /// For invalidations.
    #[must_use]
    pub fn invalidator(&self) -> Invalidator {
        Invalidator(self.session.notifier())
    }

    /// For waiting until answers under way are sent.
    #[must_use]
    pub fn in_flight(&self) -> InFlight {
        self.in_flight.clone()
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
