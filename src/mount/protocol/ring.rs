//! FUSE-over-io-uring (since Linux 6.14): the areas of a ring's entry that the kernel and the server share
//! (`fuse_uring_req_header`), and the commands that go with it.
//!
//! Each entry has two buffers: the headers, laid out here, and the payload. A request fills `in_out` with its header, `op_in`
//! with the operation's own structure (which is left as it was where the operation has none), the payload with names and
//! data. A reply puts its header where that of the request was, and everything else into the payload. FORGET, INTERRUPT and
//! INIT still come over the device.

use rustix::io::Errno;
use zerocopy::IntoBytes;

use super::Malformed;
use super::header::Header;
use super::reply::out_header;
use super::wire::{self, take};

/// Bytes of the area for the headers of request and reply, and of that for the operation's own structure.
pub const AREA: usize = 128;
/// Bytes of an entry's headers.
pub const HEADERS: usize = 2 * AREA + size_of::<wire::RingEntry>();
/// Bytes of a command in a submission of double size (`IORING_SETUP_SQE128`).
pub const COMMAND: usize = 80;
/// Payloads are never smaller.
pub const SMALLEST_PAYLOAD: usize = 8192;

/// Of the payload's length in `fuse_uring_ent_in_out`, in an entry's headers.
const PAYLOAD_SIZE_AT: usize = 2 * AREA + 16;

/// What is asked of the kernel (`enum fuse_uring_cmd`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Command {
    /// The entry's buffers, and a request into them.
    Register = 1,
    /// Here is the reply; and another request.
    CommitAndFetch = 2,
}

/// A request as it lies in the headers of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrived<'a> {
    /// Who asks for what.
    pub header: Header,
    /// The area that begins with the operation's own structure.
    pub arg0: &'a [u8],
    /// Names the entry when the reply is committed.
    pub commit_id: u64,
    /// Bytes of names and data in the payload.
    pub payload_length: u32,
}

/// The request in an entry's headers, which are [`HEADERS`] bytes long.
///
/// # Errors
/// [`Malformed`], [`Malformed::Length`] where they are longer or shorter.
pub fn arrived(headers: &[u8]) -> Result<Arrived<'_>, Malformed> {
    if headers.len() != HEADERS {
        return Err(Malformed::Length);
    }
    let (in_out, rest) = headers.split_at_checked(AREA).ok_or(Malformed::Short)?;
    let (arg0, rest) = rest.split_at_checked(AREA).ok_or(Malformed::Short)?;
    let entry: wire::RingEntry = take(rest)?;
    Ok(Arrived {
        header: Header::decode(in_out)?,
        arg0,
        commit_id: entry.commit_id,
        payload_length: entry.payload_sz,
    })
}

/// Writes the header of a reply into an entry's headers, which are [`HEADERS`] bytes long: its body, of `body_length`
/// bytes, lies in the payload. With an errno there is none.
///
/// # Errors
/// [`Malformed::Length`] where the headers are longer or shorter, or no payload can be of that length; nothing is written.
pub fn answer(
    headers: &mut [u8],
    unique: u64,
    errno: Option<Errno>,
    body_length: usize,
) -> Result<(), Malformed> {
    if headers.len() != HEADERS {
        return Err(Malformed::Length);
    }
    let body_length = if errno.is_some() { 0 } else { body_length };
    let length = u32::try_from(body_length).map_err(|_| Malformed::Length)?;
    write(headers, 0, &out_header(unique, errno, body_length))?;
    write(headers, PAYLOAD_SIZE_AT, length.as_bytes())
}

fn write(headers: &mut [u8], at: usize, bytes: &[u8]) -> Result<(), Malformed> {
    let place = headers.get_mut(at..at + bytes.len());
    place.ok_or(Malformed::Length)?.copy_from_slice(bytes);
    Ok(())
}

/// Bytes that a payload needs: the kernel refuses entries with less than what it may have to put there. `page_size` in bytes.
#[must_use]
pub fn payload_size(max_write: u32, max_pages: u16, page_size: usize) -> usize {
    SMALLEST_PAYLOAD
        .max(max_write as usize)
        .max(usize::from(max_pages) * page_size)
}

/// The command area of a submission (`fuse_uring_cmd_req`): for the entry of queue `queue` whose request is `commit_id`,
/// which is 0 for [`Command::Register`].
#[must_use]
pub fn command(queue: u16, commit_id: u64) -> [u8; COMMAND] {
    let request = wire::RingCommand {
        flags: 0,
        commit_id,
        qid: queue,
        padding: [0; 6],
    };
    let bytes = request.as_bytes();
    let mut area = [0; COMMAND];
    // The area is longer than the structure, so that every byte has its place.
    for (place, byte) in area.iter_mut().zip(bytes) {
        *place = *byte;
    }
    area
}

#[cfg(test)]
#[path = "ring_tests.rs"]
mod tests;
