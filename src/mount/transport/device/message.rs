//! Whole messages from and to a descriptor of `/dev/fuse`: a read is one request, a write one answer.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::mount::protocol::{Header, reply};
use crate::mount::session::MAX_WRITE;
use crate::mount::transport::dispatch::Reply;
use crate::sys::pages::Pages;

const PAGE: usize = 4096;
/// What stands before the content of a WRITE: the header, and `struct fuse_write_in`.
const BEFORE_CONTENT: usize = Header::SIZE + 40;

/// One worker's memory for a request and for an answer. The content of a WRITE comes to lie at the beginning of a page, as it
/// does in the kernel: copying between different offsets within a page is many times slower on some processors.
#[derive(Debug)]
pub(super) struct Buffers {
    request: Pages,
    /// What READ and READDIR are answered into.
    pub(super) answer: Pages,
}

/// What came of asking for a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// A request of so many bytes.
    Request(usize),
    /// It is for another to read.
    Empty,
    /// The mount is gone.
    End,
}

impl Buffers {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            request: Pages::new(PAGE + MAX_WRITE as usize + PAGE)?,
            answer: Pages::new(MAX_WRITE as usize)?,
        })
    }

    /// Reads a request, and waits for it where there is none.
    ///
    /// # Errors
    /// Where the connection was aborted, or fails.
    pub(super) fn read(&mut self, device: BorrowedFd<'_>) -> io::Result<Read> {
        loop {
            match rustix::io::read(device, &mut self.request[PAGE - BEFORE_CONTENT..]) {
                Ok(length) => return Ok(Read::Request(length)),
                // ENOENT: it was taken back before it could be copied.
                Err(Errno::INTR | Errno::NOENT | Errno::AGAIN) => {}
                Err(Errno::NODEV) => return Ok(Read::End),
                Err(Errno::CONNABORTED) => {
                    return Err(io::Error::other("the connection to the kernel was aborted"));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The request that was read, and the memory for its answer.
    pub(super) fn both(&mut self, length: usize) -> (&[u8], &mut [u8]) {
        let start = PAGE - BEFORE_CONTENT;
        let end = (start + length).min(self.request.len());
        (&self.request[start..end], &mut self.answer)
    }
}

/// Whether a request (or the end of the mount) is waiting.
pub(super) fn is_waiting(device: BorrowedFd<'_>) -> io::Result<bool> {
    let mut polled = [PollFd::new(&device, PollFlags::IN)];
    let no_time = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    match poll(&mut polled, Some(&no_time)) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Sends an answer. `filled` is the memory that [`Reply::Filled`] speaks of.
pub(super) fn send(device: impl AsFd, unique: u64, reply: &Reply, filled: &[u8]) {
    let (errno, body): (_, &[u8]) = match reply {
        Reply::Error(errno) => (Some(*errno), &[]),
        Reply::Fixed(fixed) => (None, fixed),
        Reply::Bytes(bytes) => (None, bytes),
        Reply::Filled(length) => (None, filled.get(..*length).unwrap_or_default()),
    };
    let header = reply::out_header(unique, errno, body.len());
    let parts = [IoSlice::new(&header), IoSlice::new(body)];
    let parts = if body.is_empty() { &parts[..1] } else { &parts };
    match rustix::io::retry_on_intr(|| rustix::io::writev(&device, parts)) {
        // ENOENT: who asked was killed meanwhile. ENODEV and the like: the mount is gone.
        Ok(_) | Err(Errno::NOENT | Errno::NODEV | Errno::NOTCONN | Errno::CONNABORTED) => {}
        Err(error) => log::error!("the kernel does not take an answer: {error}"),
    }
}
