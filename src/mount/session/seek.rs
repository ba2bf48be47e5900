//! lseek(2) for data and holes on a file that is being written: the kernel sends the request without writing its dirty
//! pages back first, so the core would see a file of the past. A thread of its own makes the kernel write them back (from
//! a worker that would deadlock: the workers have to take those writes) and answers then.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use fuser::{Errno, ReplyLseek};

use super::convert;
use super::report::Reporter;
use super::writeback::WriteBack;
use crate::fs::{FileSystem, HandleId, NodeId, Seek};
use crate::mount::stats::{Begun, Stats};
use crate::volume::Volume;

/// A seek that waits for its file's dirty pages.
pub(super) struct Request {
    pub(super) node: NodeId,
    pub(super) handle: HandleId,
    pub(super) offset: u64,
    pub(super) what: Seek,
    pub(super) reply: ReplyLseek,
    pub(super) begun: Begun,
}

/// Starts the thread, which ends when the sender is dropped.
pub(super) fn start(
    fs: Arc<Volume>,
    write_back: Arc<WriteBack>,
    reporter: Arc<Reporter>,
    stats: Arc<Stats>,
) -> io::Result<Sender<Request>> {
    let (sender, receiver) = channel();
    std::thread::Builder::new()
        .name("cmkfs-seek".to_owned())
        .spawn(move || serve(&fs, &write_back, &reporter, &stats, &receiver))?;
    Ok(sender)
}

fn serve(
    fs: &FileSystem,
    write_back: &WriteBack,
    reporter: &Reporter,
    stats: &Stats,
    requests: &Receiver<Request>,
) {
    for request in requests {
        match write_back.run() {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                // What the core knows may be of the past for good, and a copy would lack what was written since.
                log::error!("writing back before a seek: {error}");
                stats.take_over(request.begun).fails();
                request.reply.error(Errno::EIO);
                continue;
            }
            // A lazily detached mount cannot be reached any more.
            Err(error) => log::debug!("writing back before a seek: {error}"),
            Ok(()) => {}
        }
        answer(fs, reporter, stats, request);
    }
}

/// Asks the core and answers.
pub(super) fn answer(fs: &FileSystem, reporter: &Reporter, stats: &Stats, request: Request) {
    let Request {
        node,
        handle,
        offset,
        what,
        reply,
        begun,
    } = request;
    let measured = stats.take_over(begun);
    let fail = |errno| {
        measured.fails();
        errno
    };
    match fs.seek(handle, offset, what) {
        Ok(found) => match i64::try_from(found) {
            Ok(found) => reply.offset(found),
            Err(_) => reply.error(fail(Errno::EOVERFLOW)),
        },
        Err(error) => reply.error(fail(convert::errno(reporter.errno(
            measured.operation().name(),
            node,
            || fs.backing_path(node),
            &error,
        )))),
    }
}
