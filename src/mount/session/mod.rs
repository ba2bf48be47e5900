//! What answers the kernel's requests, whichever [`transport`](super::transport) they come by: it translates between the
//! kernel's numbers and the core, and decides nothing.
//!
//! [`service`] begins and ends a request · [`names`], [`attributes`], [`files`], [`directories`] a method each ·
//! [`later`] what has to wait · [`writeback`] the wait for dirty pages · [`notify`] what the kernel is told to drop ·
//! [`privileges`] setuid and setgid · [`labels`] those of SELinux · [`report`] what the log hears of · [`convert`] numbers.

mod attributes;
pub mod convert;
mod directories;
mod files;
mod labels;
mod later;
mod names;
mod notify;
mod privileges;
mod report;
mod service;
mod writeback;

use std::collections::HashSet;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};

use super::mountpoint::Mounted;
use crate::fs::NodeId;
use crate::volume::Volume;

pub use attributes::Xattr;
pub use directories::{LATELY, validity};
pub use notify::Notifier;
pub use service::{Answer, MAX_BACKGROUND, MAX_WRITE, Service, VALID};
pub use writeback::WriteBack;

/// How long FORGETs may be put off, and with them whatever comes by the same way.
const REST: Duration = Duration::from_millis(1);
/// How long whatever comes by the same way is not put off after that.
const BETWEEN_RESTS: Duration = Duration::from_micros(250);

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

/// FORGETs, which the kernel sends one for each inode that it drops. Whoever waits for them is woken by each, so while many
/// are dropped they are put off for moments, and taken many at once.
#[derive(Debug, Default, Clone)]
pub struct Forgets(Arc<Putting>);

#[derive(Debug, Default)]
struct Putting {
    is_gathering: AtomicBool,
    /// When somebody rested last. Held by who does: others go on.
    rested: Mutex<Option<Instant>>,
}

/// While this is held FORGETs are put off.
#[derive(Debug)]
pub struct Gathering<'a>(&'a AtomicBool);

impl Forgets {
    /// Many inodes are about to be dropped. By one at a time.
    #[must_use]
    pub fn gather(&self) -> Gathering<'_> {
        self.0.is_gathering.store(true, Ordering::Relaxed);
        Gathering(&self.0.is_gathering)
    }

    /// Whoever has taken some rests before it asks for more, if more are about to come. Says whether it did.
    fn rest(&self) -> bool {
        if !self.0.is_gathering.load(Ordering::Relaxed) {
            return false;
        }
        let Some(mut rested) = self.0.rested.try_lock() else {
            return false;
        };
        if rested.is_some_and(|last| last.elapsed() < BETWEEN_RESTS) {
            return false;
        }
        std::thread::sleep(REST);
        *rested = Some(Instant::now());
        true
    }
}

impl Drop for Gathering<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
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

/// What serves one mount, and what tells its kernel: whoever makes the transport makes these first.
#[derive(Debug, Clone)]
pub struct Session {
    /// Answers requests.
    pub service: Arc<Service>,
    /// Tells the kernel what to drop.
    pub notifier: Notifier,
    /// For waiting until what programs have written has reached the core.
    pub write_back: Arc<WriteBack>,
}

impl Session {
    /// For a fresh mount, over its descriptor of `/dev/fuse`.
    ///
    /// # Errors
    /// Where no descriptor or thread can be had.
    pub fn new(
        fs: Arc<Volume>,
        mounted: &Arc<Mounted>,
        device: BorrowedFd<'_>,
    ) -> io::Result<Self> {
        let notifier = Notifier::new(device.try_clone_to_owned()?);
        let write_back = Arc::new(WriteBack::new(Arc::clone(mounted)));
        let service = Service::new(fs, Arc::clone(&write_back), notifier.clone())?;
        Ok(Self {
            service: Arc::new(service),
            notifier,
            write_back,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forgets_are_put_off_while_many_come_and_not_all_the_time() {
        let forgets = Forgets::default();
        assert!(!forgets.rest(), "nothing is about to come");
        let gathering = forgets.gather();
        assert!(forgets.rest());
        *forgets.0.rested.lock() = Some(Instant::now() + Duration::from_secs(1000));
        assert!(!forgets.rest(), "somebody has rested a moment ago");
        *forgets.0.rested.lock() = None;
        let resting = forgets.0.rested.lock();
        assert!(!forgets.rest(), "somebody rests");
        drop(resting);
        drop(gathering);
        assert!(!forgets.rest(), "it is over");
    }
}
