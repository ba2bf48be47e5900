//! Threads that do something every so often, and end at once when they are told to.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// A thread that wakes at an interval. Dropping it ends it and waits for the step under way.
#[derive(Debug)]
pub struct Ticker {
    stop: Arc<(Mutex<bool>, Condvar)>,
    thread: Option<JoinHandle<()>>,
}

impl Ticker {
    /// Starts a thread that runs `step`, first after one interval.
    ///
    /// # Errors
    /// Where no thread can be started.
    pub fn start(
        name: &str,
        interval: Duration,
        mut step: impl FnMut() + Send + 'static,
    ) -> io::Result<Self> {
        let stop = Arc::new((Mutex::new(false), Condvar::new()));
        let told = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let (stopped, changed) = &*told;
                loop {
                    let mut guard = stopped.lock();
                    let timed_out = changed
                        .wait_while_for(&mut guard, |stopped| !*stopped, interval)
                        .timed_out();
                    drop(guard);
                    if !timed_out {
                        return;
                    }
                    step();
                }
            })?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        *self.stop.0.lock() = true;
        self.stop.1.notify_all();
        if let Some(thread) = self.thread.take() {
            // A step that panicked has said so on the log.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Instant;

    use super::*;

    #[test]
    fn it_ticks_and_stops_without_waiting_for_the_interval() {
        let (sender, receiver) = channel();
        let ticker = Ticker::start("test", Duration::from_millis(1), move || {
            sender.send(()).unwrap_or(())
        })
        .unwrap();
        receiver.recv().unwrap();
        receiver.recv().unwrap();
        drop(ticker);
        let slow = Ticker::start("test", Duration::from_secs(3600), || ()).unwrap();
        let start = Instant::now();
        drop(slow);
        assert!(start.elapsed() < Duration::from_secs(60));
    }
}
