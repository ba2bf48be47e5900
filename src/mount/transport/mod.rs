//! How requests come from the kernel and answers go back: three ways to the same [`session`](super::session).
//!
//! [`choice`] which of them · [`uring`] rings · [`device`] a loop of our own on /dev/fuse · [`library`] fuser ·
//! [`handshake`] INIT · [`dispatch`] from a request to the session's method · [`workers`] threads · [`company`] whether
//! programs ask one at a time · [`handover`] where one goes on that is answered.
//!
//! fuser's own mounting and unmounting are never used: after somebody else has unmounted, its unmount hits whatever was
//! mounted below. Every transport lives on a descriptor that `mount::mountpoint` got.

mod choice;
mod company;
mod device;
mod dispatch;
mod handover;
mod handshake;
mod library;
mod uring;
mod workers;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::Mutex;

use super::holders;
use super::mountpoint::Mounted;
use super::session::Session;
use crate::volume::Volume;
use handover::Guard;
use uring::Rings;
use workers::Workers;

pub use choice::{Choice, Kind, Prepared, Wanted, prepare, switch_on};

/// The transport in use, as it may be asked at any time: the kernel can go back from rings to the device.
#[derive(Debug, Clone)]
pub struct InUse(Arc<Mutex<Choice>>);

impl InUse {
    /// Which, and why.
    #[must_use]
    pub fn choice(&self) -> Choice {
        self.0.lock().clone()
    }

    fn change(&self, choice: Choice) {
        log::warn!("transport {}: {}", choice.name, choice.reason);
        *self.0.lock() = choice;
    }
}

/// A mount whose handshake is done.
#[derive(Debug)]
pub struct Connected {
    session: Session,
    in_use: InUse,
    link: Link,
    /// Of the thread that waits for the workers.
    name: String,
}

/// What the workers are started with.
enum Link {
    Fuser(library::Library),
    Own {
        device: Arc<OwnedFd>,
        rings: Option<Rings>,
    },
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Fuser(_) => "Fuser",
            Self::Own { .. } => "Own",
        })
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

impl Connected {
    /// Shakes hands with the kernel over the descriptor of a fresh mount.
    ///
    /// # Errors
    /// Where the kernel's protocol is not spoken, or the mount is gone already.
    pub fn new(
        fs: Arc<Volume>,
        mounted: &Arc<Mounted>,
        device: OwnedFd,
        prepared: Prepared,
    ) -> io::Result<Self> {
        let session = Session::new(fs, mounted, device.as_fd())?;
        let Prepared { choice, rings } = prepared;
        let in_use = InUse(Arc::new(Mutex::new(choice)));
        let link = if in_use.choice().name == Kind::Fuser {
            Link::Fuser(library::Library::connect(&session, device)?)
        } else {
            let is_read_only = session.service.is_read_only();
            let agreed = device::shake_hands(device.as_fd(), is_read_only, rings.is_some())?;
            if rings.is_some() && !agreed.rings {
                let reason = "the kernel did not agree to FUSE-over-io-uring";
                in_use.change(Choice::new(Kind::Device, reason));
            }
            Link::Own {
                device: Arc::new(device),
                rings: rings.filter(|_| agreed.rings),
            }
        };
        Ok(Self {
            session,
            in_use,
            link,
            name: holders::thread_name(mounted.device_minor()),
        })
    }

    /// What answers.
    #[must_use]
    pub const fn session(&self) -> &Session {
        &self.session
    }

    /// By which way.
    #[must_use]
    pub fn in_use(&self) -> InUse {
        self.in_use.clone()
    }

    /// Starts the workers.
    ///
    /// # Errors
    /// Where no thread can be started.
    pub fn serve(self) -> io::Result<Running> {
        let service = self.session.service;
        let (device, rings) = match self.link {
            Link::Fuser(library) => return wait_in_a_thread(self.name, || library.run()),
            Link::Own { device, rings } => (device, rings),
        };
        let workers = Arc::new(Workers::default());
        let guard = Arc::new(Guard::new());
        let (watched, shared) = (Arc::clone(&guard), Arc::clone(&service));
        workers.start_beside("cmkfs-guard", move || watched.watch())?;
        device::start(Arc::clone(&device), shared, Arc::clone(&guard), &workers)?;
        if let Some(rings) = rings {
            let in_use = self.in_use;
            uring::start(rings, device, service, guard, &workers, move |refused| {
                let reason = format!("the kernel took no ring: {refused}");
                in_use.change(Choice::new(Kind::Device, reason));
            })?;
        }
        wait_in_a_thread(self.name, move || workers.join())
    }
}

fn wait_in_a_thread(
    name: String,
    work: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> io::Result<Running> {
    let thread = std::thread::Builder::new().name(name).spawn(work)?;
    Ok(Running { thread })
}
