//! INIT: what this side asks of the kernel, and what comes of it.

use std::io;

use rustix::io::Errno;

use super::dispatch::Reply;
use crate::mount::protocol::init::{self, Version};
use crate::mount::protocol::{self, InitFlags, InitReply, InitRequest, Opcode, message};
use crate::mount::session::{MAX_BACKGROUND, MAX_WRITE};

/// Requests on the kernel's own account from which on it throttles whoever causes them: three quarters of the most, as it
/// does by itself.
const CONGESTION: u16 = MAX_BACKGROUND / 4 * 3;
/// Pages in the largest request.
const MAX_PAGES: u16 = (MAX_WRITE / 4096) as u16;
const NANOSECOND: u32 = 1;

/// What was agreed on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Agreed {
    /// Requests come through rings as soon as there are some.
    pub(super) rings: bool,
}

/// What is asked of the kernel, each taken only where it is offered. Left out on purpose: remote locks (local ones are
/// right for a sole mounter), SECURITY_CTX and CREATE_SUPP_GROUP (the backing filesystem gives new files their label and
/// group), READDIRPLUS_AUTO (most programs list a directory to the end before they look at its files, and it would look each
/// of them up). With HANDLE_KILLPRIV_V2 the kernel asks for `security.capability` once a file, not once a write(2);
/// `session::privileges` does what it leaves to us.
fn wanted(is_read_only: bool, with_rings: bool) -> InitFlags {
    let mut wanted = InitFlags::ASYNC_READ
        | InitFlags::BIG_WRITES
        | InitFlags::MAX_PAGES
        | InitFlags::PARALLEL_DIROPS
        | InitFlags::DO_READDIRPLUS
        | InitFlags::ATOMIC_O_TRUNC
        | InitFlags::ASYNC_DIO
        | InitFlags::POSIX_ACL
        // Each read(2) of what is cached looks at the attributes first. They are good for long, so that costs nothing; but
        // where a key was withdrawn they are dropped, and the read is refused whatever is still cached.
        | InitFlags::AUTO_INVAL_DATA
        | InitFlags::DONT_MASK
        | InitFlags::SETXATTR_EXT
        | InitFlags::INIT_EXT
        // An aborted connection is told from an unmounted one.
        | InitFlags::ABORT_ERROR
        | InitFlags::CACHE_SYMLINKS;
    if !is_read_only {
        wanted |= InitFlags::WRITEBACK_CACHE | InitFlags::HANDLE_KILLPRIV_V2;
    }
    if with_rings {
        wanted |= InitFlags::OVER_IO_URING;
    }
    wanted
}

/// Answers the first request: the number of the request, what to say, and what was agreed on.
///
/// # Errors
/// Where it cannot be read at all.
pub(super) fn answer(
    request: &[u8],
    is_read_only: bool,
    with_rings: bool,
) -> io::Result<(u64, Reply, io::Result<Agreed>)> {
    let (header, arg0, _) = message(request).map_err(io::Error::other)?;
    if header.opcode != Opcode::INIT {
        return Err(io::Error::other("the kernel did not begin with INIT"));
    }
    let asked = InitRequest::decode(arg0).map_err(io::Error::other)?;
    let (reply, result) = match asked.version() {
        Ok(Version::Common { minor }) => {
            let flags = wanted(is_read_only, with_rings) & asked.flags;
            log::debug!("FUSE {}.{minor}: {flags:?}", protocol::init::MAJOR);
            let said = init::init(&InitReply {
                minor,
                max_readahead: asked.max_readahead,
                flags,
                max_background: MAX_BACKGROUND,
                congestion_threshold: CONGESTION,
                max_write: MAX_WRITE,
                time_gran: NANOSECOND,
                max_pages: MAX_PAGES,
            });
            let rings = flags.contains(InitFlags::OVER_IO_URING);
            (Reply::Bytes(said.to_vec()), Ok(Agreed { rings }))
        }
        Ok(Version::AskAgain) => (
            Reply::Bytes(init::other_major().to_vec()),
            Err(io::Error::other("the kernel speaks a later FUSE protocol")),
        ),
        Err(error) => (Reply::Error(Errno::PROTO), Err(io::Error::other(error))),
    };
    Ok((header.unique, reply, result))
}
