//! Waits until what programs have written has reached the core. syncfs(2) makes the kernel send its dirty pages but does
//! not wait for the answers (a FUSE filesystem is exempt from that since Linux 6.16, and faked it before). So the ends of
//! its queues are marked: closing a directory queues a RELEASEDIR behind the writes, and when that one arrives, every write
//! before it has been taken by a worker. A worker that was interrupted between taking its write and beginning it is given
//! time to begin; those that have begun are waited for.
//!
//! All of that is asked of the kernel by another process (`mount::syncer`), which is why its directories are the marks.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, RwLock, RwLockReadGuard};

use crate::fs::HandleId;
use crate::mount::mountpoint::Mounted;

/// How long the queue may take to empty before the wait is given up.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a worker may be kept from the processor between taking a request and beginning it.
const SETTLE: Duration = Duration::from_millis(200);
const LOOK_AGAIN: Duration = Duration::from_micros(100);
/// How the workers of the transports are named, from the beginning.
const WORKERS: [&str; 2] = ["cmkfs-work", "fuser-"];

/// The handle of the directories whose RELEASEDIR marks the end of a queue. The core never gives so large a number, and never
/// hears of these: writing has to go on where the root's key is withdrawn.
const MARK: HandleId = HandleId::MAX;

/// The directories of the process that makes the marks.
#[derive(Debug, Default)]
struct Marks {
    /// Opened since somebody waits.
    opened: u64,
    /// Not released yet, also those of a wait that was given up: so all are waited for that may be behind a write.
    open: u64,
}

/// One mount's way of waiting for its writes. Lock order: `turn`, `mark`; `writes` alone.
#[derive(Debug)]
pub struct WriteBack {
    mounted: Arc<Mounted>,
    turn: Mutex<()>,
    /// Lets requests that have nothing to do with it pass without a lock.
    is_waiting: AtomicBool,
    mark: Mutex<Marks>,
    released: Condvar,
    /// Held shared by each write until its answer is sent.
    writes: RwLock<()>,
}

impl WriteBack {
    pub(super) fn new(mounted: Arc<Mounted>) -> Self {
        Self {
            mounted,
            turn: Mutex::new(()),
            is_waiting: AtomicBool::new(false),
            mark: Mutex::default(),
            released: Condvar::new(),
            writes: RwLock::new(()),
        }
    }

    /// Returns when all that was dirty in the kernel when it was called has been written. Never called by a worker.
    ///
    /// # Errors
    /// Where the mount cannot be reached by its path, or the writes do not come to an end; [`io::ErrorKind::BrokenPipe`]
    /// where that can never be done again.
    pub fn run(&self) -> io::Result<()> {
        let _turn = self.turn.lock();
        self.mark.lock().opened = 0;
        self.is_waiting.store(true, Ordering::Release);
        let sent = self.mounted.send_dirty_pages();
        let waited = sent.and_then(|marks| self.await_marks(marks));
        self.is_waiting.store(false, Ordering::Release);
        waited?;
        settle();
        drop(self.writes.write());
        Ok(())
    }

    /// When it is said how many there are, all have been opened and are closed by the kernel.
    fn await_marks(&self, made: u32) -> io::Result<()> {
        let mut mark = self.mark.lock();
        if mark.opened < u64::from(made) {
            return Err(io::Error::other("the ends of the queues are not marked"));
        }
        let is_open = |mark: &mut Marks| mark.open > 0;
        let waited = self.released.wait_while_for(&mut mark, is_open, PATIENCE);
        if waited.timed_out() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(())
    }

    /// A write is being worked on.
    pub(super) fn writing(&self) -> RwLockReadGuard<'_, ()> {
        self.writes.read()
    }

    /// A process opens a directory: the handle it gets, if that is a mark.
    pub(super) fn mark(&self, process: u32) -> Option<HandleId> {
        if !self.is_waiting.load(Ordering::Acquire) || process != self.mounted.marker() {
            return None;
        }
        let mut mark = self.mark.lock();
        mark.opened += 1;
        mark.open += 1;
        Some(MARK)
    }

    /// The last descriptor of an opened directory was closed. Says whether that was a mark.
    pub(super) fn released(&self, handle: HandleId) -> bool {
        if handle != MARK {
            return false;
        }
        let mut mark = self.mark.lock();
        mark.open = mark.open.saturating_sub(1);
        self.released.notify_all();
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

/// The directories under /proc of this process's workers, but for this thread, which may be one.
fn workers() -> Vec<PathBuf> {
    let this = rustix::thread::gettid().as_raw_pid().to_string();
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
        .filter(|thread| !thread.ends_with(&this))
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
    use std::sync::mpsc::channel;

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
