//! Waits until what programs have written has reached the core. syncfs(2) makes the kernel send its dirty pages but does
//! not wait for the answers (a FUSE filesystem is exempt from that since Linux 6.16, and faked it before). So the end of
//! the queue is marked: closing the directory on which syncfs was called queues a RELEASEDIR behind the writes, and when
//! that one arrives, every write before it has arrived, too; those still being worked on are then waited for.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use parking_lot::{Mutex, RwLock, RwLockReadGuard};

use crate::fs::HandleId;
use crate::mount::mountpoint::Mounted;

/// How long the queue may take to empty before the wait is given up.
const PATIENCE: Duration = Duration::from_secs(30);

/// The directory whose RELEASEDIR marks the end of the queue.
#[derive(Debug)]
struct Mark {
    /// The thread that opens it.
    thread: u32,
    handle: Option<HandleId>,
    arrived: Sender<()>,
}

/// One mount's way of waiting for its writes. Lock order: `turn`, `mark`; `writes` alone.
#[derive(Debug)]
pub struct WriteBack {
    mounted: Arc<Mounted>,
    turn: Mutex<()>,
    /// Lets requests that have nothing to do with it pass without a lock.
    is_waiting: AtomicBool,
    mark: Mutex<Option<Mark>>,
    /// Held shared by each write until its answer is sent.
    writes: RwLock<()>,
}

impl WriteBack {
    pub(super) fn new(mounted: Arc<Mounted>) -> Self {
        Self {
            mounted,
            turn: Mutex::new(()),
            is_waiting: AtomicBool::new(false),
            mark: Mutex::new(None),
            writes: RwLock::new(()),
        }
    }

    /// Returns when all that was dirty in the kernel when it was called has been written. Never called by a worker.
    ///
    /// # Errors
    /// Where the mount cannot be reached by its path, or the writes do not come to an end.
    pub fn run(&self) -> io::Result<()> {
        let _turn = self.turn.lock();
        let (arrived, arrival) = channel();
        let thread = rustix::thread::gettid().as_raw_pid().cast_unsigned();
        *self.mark.lock() = Some(Mark {
            thread,
            handle: None,
            arrived,
        });
        self.is_waiting.store(true, Ordering::Release);
        let sent = self.mounted.send_dirty_pages();
        let waited = sent.and_then(|()| arrival.recv_timeout(PATIENCE).map_err(io::Error::other));
        self.is_waiting.store(false, Ordering::Release);
        *self.mark.lock() = None;
        waited?;
        drop(self.writes.write());
        Ok(())
    }

    /// A write is being worked on.
    pub(super) fn writing(&self) -> RwLockReadGuard<'_, ()> {
        self.writes.read()
    }

    /// A thread has opened a directory.
    pub(super) fn opened(&self, thread: u32, handle: HandleId) {
        if self.is_waiting.load(Ordering::Acquire)
            && let Some(mark) = &mut *self.mark.lock()
            && mark.thread == thread
        {
            mark.handle = Some(handle);
        }
    }

    /// The last descriptor of an opened directory was closed.
    pub(super) fn released(&self, handle: HandleId) {
        if self.is_waiting.load(Ordering::Acquire)
            && let Some(mark) = &*self.mark.lock()
            && mark.handle == Some(handle)
        {
            // Gone if nobody waits any more.
            let _ = mark.arrived.send(());
        }
    }
}
