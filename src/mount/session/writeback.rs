//! Waits until what programs have written has reached the core. syncfs(2) makes the kernel send its dirty pages but does
//! not wait for the answers (a FUSE filesystem is exempt from that since Linux 6.16, and faked it before). So the end of
//! the queue is marked: closing the directory on which syncfs was called queues a RELEASEDIR behind the writes, and when
//! that one arrives, every write before it has been taken by a worker. A worker that was interrupted between taking its
//! write and beginning it is given time to begin; those that have begun are waited for.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock, RwLockReadGuard};

use crate::fs::HandleId;
use crate::mount::mountpoint::Mounted;

/// How long the queue may take to empty before the wait is given up.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a worker may be kept from the processor between taking a request and beginning it.
const SETTLE: Duration = Duration::from_millis(200);
const LOOK_AGAIN: Duration = Duration::from_micros(100);
/// How the workers of the transports are named, from the beginning.
const WORKERS: [&str; 2] = ["cmkfs-work", "fuser-"];

/// The handle of the directory whose RELEASEDIR marks the end of the queue. The core never gives so large a number, and never
/// hears of this one: writing has to go on where the root's key is withdrawn.
const MARK: HandleId = HandleId::MAX;

/// Who waits for the mark.
#[derive(Debug)]
struct Mark {
    /// The thread that opens it.
    thread: u32,
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
        *self.mark.lock() = Some(Mark { thread, arrived });
        self.is_waiting.store(true, Ordering::Release);
        let sent = self.mounted.send_dirty_pages();
        let waited = sent.and_then(|()| arrival.recv_timeout(PATIENCE).map_err(io::Error::other));
        self.is_waiting.store(false, Ordering::Release);
        *self.mark.lock() = None;
        waited?;
        settle();
        drop(self.writes.write());
        Ok(())
    }

    /// A write is being worked on.
    pub(super) fn writing(&self) -> RwLockReadGuard<'_, ()> {
        self.writes.read()
    }

    /// A thread opens a directory: the handle it gets, if that is the mark.
    pub(super) fn mark(&self, thread: u32) -> Option<HandleId> {
        let is_ours = || {
            self.mark
                .lock()
                .as_ref()
                .is_some_and(|mark| mark.thread == thread)
        };
        (self.is_waiting.load(Ordering::Acquire) && is_ours()).then_some(MARK)
    }

    /// The last descriptor of an opened directory was closed. Says whether that was the mark.
    pub(super) fn released(&self, handle: HandleId) -> bool {
        if handle != MARK {
            return false;
        }
        if let Some(mark) = &*self.mark.lock() {
            // Gone if nobody waits any more.
            let _ = mark.arrived.send(());
        }
        true
    }
}

/// Returns when each worker has been seen asleep: it has nothing in hand then, or has begun it.
fn settle() {
    let until = Instant::now() + SETTLE;
    let mut workers = workers();
    loop {
        workers.retain(|worker| is_running(worker));
        // One that is never seen asleep is busy with one request after the other, and began the one in question long ago.
        if workers.is_empty() || Instant::now() >= until {
            return;
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// The directories under /proc of this process's workers.
fn workers() -> Vec<PathBuf> {
    let threads = fs::read_dir("/proc/self/task")
        .into_iter()
        .flatten()
        .flatten();
    let is_worker = |thread: &PathBuf| {
        fs::read_to_string(thread.join("comm"))
            .is_ok_and(|name| WORKERS.iter().any(|worker| name.starts_with(worker)))
    };
    threads
        .map(|thread| thread.path())
        .filter(is_worker)
        .collect()
}

/// Whether a thread is running or waits for a processor: the state stands behind the name, which is in parentheses.
fn is_running(thread: &Path) -> bool {
    let text = fs::read_to_string(thread.join("stat")).unwrap_or_default();
    text.rsplit_once(") ")
        .is_some_and(|(_, rest)| rest.starts_with('R'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_thread_is_told_from_a_sleeping_one() {
        assert!(is_running(Path::new("/proc/thread-self")));
        let (wake, woken) = channel::<()>();
        let (tell, told) = channel();
        let sleeper = std::thread::spawn(move || {
            tell.send(rustix::thread::gettid()).unwrap();
            woken.recv().unwrap();
        });
        let thread = told.recv().unwrap().as_raw_pid();
        let thread = Path::new("/proc/self/task").join(thread.to_string());
        let until = Instant::now() + PATIENCE;
        while is_running(&thread) {
            assert!(Instant::now() < until);
            std::thread::yield_now();
        }
        wake.send(()).unwrap();
        sleeper.join().unwrap();
    }
}
