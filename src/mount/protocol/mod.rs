//! What the kernel and a FUSE server say to each other, as typed bytes: requests are taken apart and checked, replies are put
//! together. No I/O, and nothing of the filesystem but its values: a transport brings the bytes and takes them away.
//!
//! Facts: `include/uapi/linux/fuse.h`, protocol 7.45 (Linux 6.18); all numbers are in the machine's own byte order. There are
//! two ways for the same message. On the device it is one piece: a header, the operation's own structure, names and data. On
//! a ring (FUSE-over-io-uring) header and structure have areas of fixed size, and only names and data are in the payload.
//! [`split`] makes the two alike; [`decode`] takes them from there.
//!
//! [`opcode`] which operation · [`header`] what every request begins with · [`request`] what it asks for · [`reply`] what is
//! answered · [`listing`] directories · [`init`] what is agreed on first · [`ring`] the areas of a ring's entry.

pub mod header;
pub mod init;
pub mod listing;
pub mod opcode;
pub mod reply;
pub mod request;
pub mod ring;
mod wire;

pub use header::{Header, message};
pub use init::{InitError, InitFlags, InitReply, InitRequest};
pub use listing::Listing;
pub use opcode::Opcode;
pub use request::{Forgets, Request, SetattrRequest, decode, is_write_back, split};
/// For the bytes of a reply.
pub use zerocopy::{Immutable, IntoBytes};

use thiserror::Error;

/// Why bytes are no request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Malformed {
    /// They end within a structure.
    #[error("the request ends within a structure")]
    Short,
    /// The header's length is none that the message can have.
    #[error("the header gives a length that is not the message's")]
    Length,
    /// A name is missing, empty, or has no end.
    #[error("a name is missing, empty, or not terminated")]
    Name,
    /// Something follows the last argument.
    #[error("something follows the last argument")]
    Trailing,
    /// There are more or fewer bytes of data than the structure says.
    #[error("the data are not as long as the request says")]
    Data,
    /// A time has a second or more of nanoseconds.
    #[error("a time has a second or more of nanoseconds")]
    Time,
}
