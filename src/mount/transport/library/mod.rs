//! The transport that works everywhere: the fuser library reads requests from `/dev/fuse` and sends the answers. Only this
//! folder knows it.

mod adapter;
mod convert;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use fuser::{Config, SessionACL};

use crate::mount::session::Session;
use adapter::Adapter;

/// Workers that answer the kernel: enough that a few slow fsyncs do not keep everybody else waiting, few enough not to
/// fight for the processors.
fn workers() -> usize {
    std::thread::available_parallelism()
        .map_or(4, usize::from)
        .clamp(4, 16)
}

/// The library, connected.
pub(super) struct Library(fuser::Session<Adapter>);

impl Library {
    /// Shakes hands.
    pub(super) fn connect(session: &Session, device: OwnedFd) -> io::Result<Self> {
        let mut config = Config::default();
        config.n_threads = Some(workers());
        // One queue for all workers: a descriptor each would only spread the wake-ups.
        config.clone_fd = false;
        let adapter = Adapter(Arc::clone(&session.service));
        // Who may come in is the kernel's decision (allow_other, default_permissions), so fuser lets everybody pass.
        fuser::Session::from_fd(adapter, device, SessionACL::All, config).map(Self)
    }

    /// Answers until the mount is gone.
    pub(super) fn run(self) -> io::Result<()> {
        self.0.run()
    }
}
