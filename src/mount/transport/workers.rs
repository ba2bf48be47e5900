//! The threads of a transport, started one by one and waited for together.

use std::io;
use std::thread::JoinHandle;

use parking_lot::Mutex;

type Thread = JoinHandle<io::Result<()>>;

/// Threads that answer requests, and those beside them.
#[derive(Debug, Default)]
pub(super) struct Workers(Mutex<Vec<Thread>>);

impl Workers {
    /// Starts one that answers. Its name begins as `session::writeback` knows it.
    ///
    /// # Errors
    /// Where no thread can be started.
    pub(super) fn start(
        &self,
        work: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> io::Result<()> {
        self.start_named("cmkfs-worker", work)
    }

    /// Starts one that does not.
    ///
    /// # Errors
    /// Where no thread can be started.
    pub(super) fn start_beside(
        &self,
        name: &str,
        work: impl FnOnce() + Send + 'static,
    ) -> io::Result<()> {
        self.start_named(name, move || {
            work();
            Ok(())
        })
    }

    fn start_named(
        &self,
        name: &str,
        work: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> io::Result<()> {
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(work)?;
        self.0.lock().push(thread);
        Ok(())
    }

    /// Waits until all have ended.
    ///
    /// # Errors
    /// The first that came of one of them.
    pub(super) fn join(&self) -> io::Result<()> {
        let mut result = Ok(());
        loop {
            let Some(thread) = self.0.lock().pop() else {
                return result;
            };
            let ended = thread
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("a worker of the session panicked")));
            result = result.and(ended);
        }
    }
}
