//! What every request begins with (`fuse_in_header`), and a whole message of the device.

use crate::fs::{Caller, NodeId};

use super::opcode::Opcode;
use super::request::split;
use super::{Malformed, wire};

/// Extensions are counted in units of so many bytes.
const EXTENSION_UNIT: u32 = 8;

/// Who asks for what, on which inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Bytes of the whole message, this header among them; on a ring too, where it lies in three pieces.
    pub length: u32,
    /// The operation.
    pub opcode: Opcode,
    /// Names the request; the reply has to carry it.
    pub unique: u64,
    /// The inode, or 0 where the operation has none.
    pub node: NodeId,
    /// Who asks. Both ids are `u32::MAX` where they are not to be known.
    pub caller: Caller,
    /// Bytes of extensions at the end of the message (security contexts, groups); 0 unless they were agreed on.
    pub extensions: u32,
}

impl Header {
    /// Its length in bytes.
    pub const SIZE: usize = size_of::<wire::InHeader>();

    /// The header at the beginning of `bytes`.
    ///
    /// # Errors
    /// [`Malformed::Short`], and [`Malformed::Length`] where the message would be shorter than its header.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let header: wire::InHeader = wire::take(bytes)?;
        if (header.len as usize) < Self::SIZE {
            return Err(Malformed::Length);
        }
        Ok(Self {
            length: header.len,
            opcode: Opcode(header.opcode),
            unique: header.unique,
            node: header.nodeid,
            caller: Caller {
                uid: header.uid,
                gid: header.gid,
                pid: header.pid,
            },
            extensions: u32::from(header.total_extlen) * EXTENSION_UNIT,
        })
    }
}

/// A message as one read of the device gives it: header, the operation's own structure, what follows it.
///
/// # Errors
/// [`Malformed`], also where the header's length is not that of `bytes`.
pub fn message(bytes: &[u8]) -> Result<(Header, &[u8], &[u8]), Malformed> {
    let header = Header::decode(bytes)?;
    if header.length as usize != bytes.len() {
        return Err(Malformed::Length);
    }
    let body = bytes.get(Header::SIZE..).ok_or(Malformed::Short)?;
    let (own, rest) = split(header.opcode, body)?;
    Ok((header, own, rest))
}
