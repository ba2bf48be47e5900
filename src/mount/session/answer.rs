//! What every answer to the kernel has in common: errors that become errnos, entries, attributes, extended attributes, the
//! read buffer.

use std::cell::RefCell;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use fuser::{
    Errno, FileHandle, Generation, INodeNo, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry,
    ReplyXattr, Request,
};
use parking_lot::{Mutex, RwLockReadGuard};

use super::report::Reporter;
use super::writeback::WriteBack;
use super::{InFlight, Notifier, RefusedWrites, convert, privileges, seek};
use crate::fs::{Attributes, Caller, FsError, FsResult, ROOT_NODE};
use crate::mount::stats::{Begun, Measured, Operation, Stats};
use crate::volume::Volume;

/// How long the kernel may believe what it was told: nobody else changes a mounted volume, so only revocation could make
/// it wrong, and that invalidates.
pub(super) const VALID: Duration = Duration::from_secs(60);
/// Node ids are never reused.
pub(super) const GENERATION: Generation = Generation(0);
pub(super) const MAX_WRITE: u32 = 1 << 20;
pub(super) const MAX_BACKGROUND: u16 = 64;
const PAGE: usize = 4096;
/// Largest request for an extended attribute's value or list (`XATTR_SIZE_MAX`).
const XATTR_MAX: usize = 65536;

thread_local! {
    /// The worker's read buffer. It lives as long as the worker, so that a read allocates nothing.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Lends the worker's buffer, page-aligned: the kernel copies it to page-aligned memory, and copying between different
/// offsets within a page is many times slower on some processors.
pub(super) fn with_buffer<T>(size: usize, use_buffer: impl FnOnce(&mut [u8]) -> T) -> T {
    // A worker answers one request at a time, so the buffer is never borrowed twice.
    BUFFER.with_borrow_mut(|buffer| {
        if buffer.len() < size + PAGE {
            *buffer = vec![0; size.max(MAX_WRITE as usize) + PAGE];
        }
        let start = buffer.as_ptr().align_offset(PAGE).min(PAGE);
        use_buffer(&mut buffer[start..start + size])
    })
}

/// fuser's view of a mounted volume.
pub(super) struct Adapter {
    pub(super) fs: Arc<Volume>,
    in_flight: InFlight,
    stats: Arc<Stats>,
    pub(super) write_back: Arc<WriteBack>,
    reporter: Arc<Reporter>,
    pub(super) seeks: Sender<seek::Request>,
    pub(super) refused_writes: RefusedWrites,
    notifier: Notifier,
    /// What the root looked like last: `umount`, `df` and `mountpoint` have to go on when its key is gone.
    root: Mutex<Option<Attributes>>,
}

impl Adapter {
    pub(super) fn new(
        fs: Arc<Volume>,
        write_back: Arc<WriteBack>,
        in_flight: InFlight,
        stats: Arc<Stats>,
        refused_writes: RefusedWrites,
        notifier: Notifier,
    ) -> io::Result<Self> {
        let reporter = Arc::new(Reporter::default());
        let seeks = seek::start(
            Arc::clone(&fs),
            Arc::clone(&write_back),
            Arc::clone(&reporter),
            Arc::clone(&stats),
        )?;
        let root = Mutex::new(fs.attributes(ROOT_NODE, None).ok());
        Ok(Self {
            fs,
            in_flight,
            stats,
            write_back,
            reporter,
            seeks,
            refused_writes,
            notifier,
            root,
        })
    }

    /// A request is in hand whose answer says nothing that a key guards.
    pub(super) fn answering(&self, operation: Operation) -> Answer<'_> {
        Answer {
            adapter: self,
            measured: self.stats.begin(operation),
            _in_flight: None,
        }
    }

    /// A request is in hand whose answer carries plaintext, names or attributes: who withdraws a key waits for it.
    pub(super) fn disclosing(&self, operation: Operation) -> Answer<'_> {
        let measured = self.stats.begin(operation);
        Answer {
            adapter: self,
            measured,
            _in_flight: Some(self.in_flight.0.read()),
        }
    }

    /// Answers a seek at once, which takes it over.
    pub(super) fn seek(&self, request: seek::Request) {
        seek::answer(&self.fs, &self.reporter, &self.stats, request);
    }

    fn remember_root(&self, result: FsResult<Attributes>) -> FsResult<Attributes> {
        let mut root = self.root.lock();
        match (result, *root) {
            (Ok(attributes), _) => {
                *root = Some(attributes);
                Ok(attributes)
            }
            (Err(_), Some(remembered)) => Ok(remembered),
            (Err(error), None) => Err(error),
        }
    }

    /// What the kernel leaves to us where a change of content takes the bits away; root keeps them, as CAP_FSETID would.
    pub(super) fn kill_privileges(
        &self,
        caller: Caller,
        node: INodeNo,
        file: Option<u64>,
    ) -> FsResult<()> {
        if caller.uid == 0 {
            return Ok(());
        }
        let killed = privileges::kill(&self.fs, caller, node.0, file)?;
        self.forget_mode(node, killed);
        Ok(())
    }

    /// Makes the kernel ask for a mode anew that it has cached with bits that are gone: it would still run the program
    /// with them. Unlike an invalidation of pages this waits for nothing, so it may be done from here.
    pub(super) fn forget_mode(&self, node: INodeNo, is_changed: bool) {
        if is_changed && let Err(error) = self.notifier.attributes(node.0) {
            log::warn!("the kernel keeps the mode of inode {}: {error}", node.0);
        }
    }
}

/// A request in hand, until its answer is sent: then it is dropped, and with that counted.
pub(super) struct Answer<'a> {
    adapter: &'a Adapter,
    measured: Measured<'a>,
    _in_flight: Option<RwLockReadGuard<'a, ()>>,
}

impl Answer<'_> {
    /// The errno that it fails with, logged where the log should hear of it.
    pub(super) fn errno(&self, node: INodeNo, error: &FsError) -> Errno {
        let Adapter { fs, reporter, .. } = self.adapter;
        let operation = self.measured.operation().name();
        let path = || fs.backing_path(node.0);
        self.refused(convert::errno(
            reporter.errno(operation, node.0, path, error),
        ))
    }

    /// An errno that it fails with without the core's being asked.
    pub(super) fn refused(&self, errno: Errno) -> Errno {
        self.measured.fails();
        errno
    }

    /// Bytes that it carries.
    pub(super) fn carries(&self, bytes: usize) {
        self.measured.carries(bytes);
    }

    /// Leaves it to another thread.
    pub(super) fn hand_over(self) -> Begun {
        self.measured.hand_over()
    }

    pub(super) fn data(self, data: &[u8], reply: ReplyData) {
        self.carries(data.len());
        reply.data(data);
    }

    pub(super) fn empty(self, node: INodeNo, result: FsResult<()>, reply: ReplyEmpty) {
        match result {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(self.errno(node, &error)),
        }
    }

    pub(super) fn entry(self, parent: INodeNo, result: FsResult<Attributes>, reply: ReplyEntry) {
        match result {
            Ok(attributes) => reply.entry(&VALID, &convert::attributes(&attributes), GENERATION),
            Err(error) => reply.error(self.errno(parent, &error)),
        }
    }

    pub(super) fn attributes(self, node: INodeNo, result: FsResult<Attributes>, reply: ReplyAttr) {
        let result = if node.0 == ROOT_NODE {
            self.adapter.remember_root(result)
        } else {
            result
        };
        match result {
            Ok(attributes) => reply.attr(&VALID, &convert::attributes(&attributes)),
            Err(error) => reply.error(self.errno(node, &error)),
        }
    }

    /// Size probing (`size` 0), ERANGE, or the value.
    pub(super) fn xattr(
        self,
        node: INodeNo,
        result: FsResult<Vec<u8>>,
        size: u32,
        reply: ReplyXattr,
    ) {
        match result {
            Ok(value) if value.len() > XATTR_MAX => reply.error(self.refused(Errno::E2BIG)),
            Ok(value) => match u32::try_from(value.len()) {
                Ok(length) if size == 0 => reply.size(length),
                Ok(length) if length <= size => {
                    self.carries(value.len());
                    reply.data(&value);
                }
                Ok(_) | Err(_) => reply.error(self.refused(Errno::ERANGE)),
            },
            Err(error) => reply.error(self.errno(node, &error)),
        }
    }
}

pub(super) fn caller(request: &Request) -> Caller {
    Caller {
        uid: request.uid(),
        gid: request.gid(),
        pid: request.pid(),
    }
}

pub(super) fn handle(handle: Option<FileHandle>) -> Option<u64> {
    handle.map(|handle| handle.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_read_buffer_is_page_aligned_and_reused() {
        let first = with_buffer(4096, |buffer| (buffer.as_ptr() as usize, buffer.len()));
        let second = with_buffer(MAX_WRITE as usize, |buffer| {
            (buffer.as_ptr() as usize, buffer.len())
        });
        assert_eq!(first.0 % PAGE, 0);
        assert_eq!(
            (first.0, first.1, second.1),
            (second.0, 4096, MAX_WRITE as usize)
        );
    }
}
