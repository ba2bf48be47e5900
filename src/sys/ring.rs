//! An io_uring(7) that carries one FUSE request at a time: commands for `/dev/fuse`, and two areas of memory that the kernel
//! reads answers from and writes requests into. It may do nothing else, by a restriction that nobody can lift.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use io_uring::register::Restriction;
use io_uring::{IoUring, cqueue, opcode, squeue, types};
use libc::iovec;

use super::pages::Pages;

/// Bytes of the first area. The kernel's header takes 288 of them.
const HEADER_AREA: usize = 4096;
/// Where the number of memory areas lies in a submission (`struct io_uring_sqe`, `len`): `opcode::UringCmd80` has no word for it.
const AREAS_OFFSET: usize = 24;
const AREAS: u32 = 2;

/// One ring, which belongs to the thread that enables it.
pub struct Ring {
    ring: IoUring<squeue::Entry128, cqueue::Entry>,
    /// Given up by `drop` only.
    areas: Option<(Pages, Pages)>,
    vectors: Box<[iovec; AREAS as usize]>,
    is_registered: bool,
}

// SAFETY: the pointers in `vectors` are to `areas`, which it owns and which stay where they are.
unsafe impl Send for Ring {}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring")
            .field("is_registered", &self.is_registered)
            .finish_non_exhaustive()
    }
}

impl Ring {
    /// A ring that has to be enabled, with a payload area of so many bytes.
    ///
    /// # Errors
    /// Where the kernel has no rings of this kind (Linux 6.1), forbids them, or has no memory.
    pub fn new(payload: usize) -> io::Result<Self> {
        let ring = IoUring::<squeue::Entry128, cqueue::Entry>::builder()
            .setup_r_disabled()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .build(1)?;
        // In force once it is enabled.
        let mut only = [Restriction::sqe_op(opcode::UringCmd80::CODE)];
        ring.submitter().register_restrictions(&mut only)?;
        let (mut header, mut payload) = (Pages::new(HEADER_AREA)?, Pages::new(payload)?);
        let vector = |area: &mut Pages| iovec {
            iov_base: area.as_mut_ptr().cast(),
            iov_len: area.len(),
        };
        let vectors = Box::new([vector(&mut header), vector(&mut payload)]);
        Ok(Self {
            ring,
            areas: Some((header, payload)),
            vectors,
            is_registered: false,
        })
    }

    /// Makes it usable, by this thread and no other.
    ///
    /// # Errors
    /// Where it is enabled already.
    pub fn enable(&self) -> io::Result<()> {
        self.ring.submitter().register_enable_rings()
    }

    /// The header and the payload: a request after [`Ring::wait`], an answer until [`Ring::submit`].
    pub fn areas(&mut self) -> (&mut [u8], &mut [u8]) {
        match &mut self.areas {
            Some((header, payload)) => (header, payload),
            None => (&mut [], &mut []),
        }
    }

    /// Gives the kernel a command for `device`, and returns when it has taken it: it has read the answer in the two areas then,
    /// or knows where they are.
    ///
    /// # Errors
    /// Where the ring cannot be entered. What became of the command comes from [`Ring::wait`].
    pub fn submit(
        &mut self,
        device: BorrowedFd<'_>,
        operation: u32,
        command: [u8; 80],
    ) -> io::Result<()> {
        let mut entry =
            opcode::UringCmd80::new(types::Fd(device.as_raw_fd()), operation).cmd(command);
        entry = entry.addr(Some(self.vectors.as_ptr() as u64));
        let mut entry = entry.build();
        // SAFETY: an `Entry128` is the kernel's structure of 128 bytes, and this lies within.
        unsafe {
            (&raw mut entry)
                .byte_add(AREAS_OFFSET)
                .cast::<u32>()
                .write_unaligned(AREAS);
        }
        self.is_registered = true;
        // SAFETY: what it points to belongs to this ring, and outlives the command (see `drop`).
        unsafe { self.ring.submission().push(&entry) }.map_err(io::Error::other)?;
        loop {
            match self.ring.submit() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result.map(drop),
            }
        }
    }

    /// Whether the last command has come to its end already.
    pub fn has_come(&mut self) -> bool {
        !self.ring.completion().is_empty()
    }

    /// Whether it has, or the kernel has work to do for it: [`Ring::wait`] hardly sleeps.
    pub fn is_coming(&mut self) -> bool {
        self.has_come() || self.ring.submission().taskrun()
    }

    /// Waits until the last command has come to its end: 0 where a request has come, or the negative errno.
    ///
    /// # Errors
    /// Where the ring cannot be entered.
    pub fn wait(&mut self) -> io::Result<i32> {
        loop {
            if let Some(end) = self.ring.completion().next() {
                return Ok(end.result());
            }
            match self.ring.submit_and_wait(1) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                Ok(_) | Err(_) => {}
            }
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if self.is_registered {
            // The kernel takes its command back some time after the ring is gone, and may write a request into the areas
            // until then.
            std::mem::forget(self.areas.take());
        }
    }
}
