//! Watches over the storm: whether every operation ends in time, and when it is over.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long one file operation, or one command, may take. Generous: a loaded machine is no bug.
const LIMIT: Duration = Duration::from_secs(60);

/// What every thread is at.
pub struct Watched {
    at: Vec<Mutex<Option<(String, Instant)>>>,
    over: AtomicBool,
    broken: AtomicBool,
    counter: AtomicU64,
    longest: Mutex<(Duration, String)>,
}

/// Ends the storm when the thread that holds it ends, also by a panic.
pub struct EndsStorm<'a>(pub &'a Watched);

impl Drop for EndsStorm<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.give_up();
        }
    }
}

impl Watched {
    /// So many threads.
    pub fn new(threads: usize) -> Self {
        Self {
            at: (0..threads).map(|_| Mutex::new(None)).collect(),
            over: AtomicBool::new(false),
            broken: AtomicBool::new(false),
            counter: AtomicU64::new(0),
            longest: Mutex::default(),
        }
    }

    /// A number that nobody had before.
    pub fn count(&self) -> u64 {
        self.counter.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Runs something that has to end in time.
    pub fn run<T>(&self, thread: usize, what: &str, operation: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        *self.at[thread].lock().unwrap() = Some((what.to_owned(), begun));
        let result = operation();
        *self.at[thread].lock().unwrap() = None;
        let mut longest = self.longest.lock().unwrap();
        if begun.elapsed() > longest.0 {
            *longest = (begun.elapsed(), what.to_owned());
        }
        result
    }

    /// What has taken too long.
    pub fn stuck(&self) -> Vec<String> {
        let at = self.at.iter().map(|at| at.lock().unwrap().clone());
        at.flatten()
            .filter(|(_, begun)| begun.elapsed() > LIMIT)
            .map(|(what, begun)| format!("{what} for {:?}", begun.elapsed()))
            .collect()
    }

    /// What took longest.
    pub fn longest(&self) -> String {
        let longest = self.longest.lock().unwrap();
        format!("{:?} for {}", longest.0, longest.1)
    }

    /// Ends the storm.
    pub fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Ends the storm, because something has failed already: what fails from now on is of no interest.
    pub fn give_up(&self) {
        self.broken.store(true, Ordering::Relaxed);
        self.end();
    }

    /// Something has failed already.
    pub fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    /// It has ended.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}
