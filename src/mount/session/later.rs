//! What can only be answered once the kernel's dirty pages have been written: lseek(2) for data and holes of a file that is
//! being written, which the kernel sends without writing them first, so that the core would see a file of the past. A thread
//! of its own waits, as the workers have to take those writes.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

use rustix::io::Errno;

use super::writeback::WriteBack;

type Job = Box<dyn FnOnce(Result<(), Errno>) + Send>;

/// The way to that thread, which ends when this is dropped.
pub(super) struct Later(Sender<Job>);

impl Later {
    pub(super) fn send(&self, job: Job) {
        // Gone only if its thread is. The dropped job's request is then answered by its transport's own means.
        let _ = self.0.send(job);
    }
}

/// Starts the thread.
pub(super) fn start(writes: Arc<WriteBack>) -> io::Result<Later> {
    let (sender, receiver) = channel::<Job>();
    std::thread::Builder::new()
        .name("cmkfs-later".to_owned())
        .spawn(move || {
            while let Ok(job) = receiver.recv() {
                // All that have come by now wait for the same.
                let jobs: Vec<Job> = std::iter::once(job).chain(receiver.try_iter()).collect();
                let written = write_back(&writes);
                jobs.into_iter().for_each(|job| job(written));
            }
        })?;
    Ok(Later(sender))
}

/// What a request fails with that cannot be answered: what the core knows may be of the past for good, and a copy would lack
/// what was written since.
pub(super) fn write_back(writes: &WriteBack) -> Result<(), Errno> {
    match writes.run() {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            log::error!("writing back before an answer: {error}");
            return Err(Errno::IO);
        }
        // A lazily detached mount cannot be reached any more.
        Err(error) => log::debug!("writing back before an answer: {error}"),
        Ok(()) => {}
    }
    Ok(())
}
