//! What is found when stored objects are verified: which part of which object is not as it was written.

use std::ffi::CString;
use std::ops::Range;

use super::error::FsError;
use crate::ids::{KeyId, ObjectId};

/// A part of an object that is stored, and verified, by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Its name in the directory it lies in.
    Name,
    /// The header of a file or directory, and of a file its length.
    Header,
    /// These blocks of a file.
    Blocks(Range<u64>),
    /// What the backing symlink holds.
    Target,
    /// The file that holds what the backing symlink has no room for.
    SideFile,
    /// The extended attribute that is stored under this name.
    Attribute(CString),
}

/// A part that cannot be read, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flaw {
    /// The part.
    pub part: Part,
    /// What reading it says.
    pub error: FsError,
}

/// Is told of every flaw.
pub type OnFlaw<'a> = &'a mut dyn FnMut(Flaw);

/// What an object says of itself in the clear. Nobody has authenticated it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Its id.
    pub object: ObjectId,
    /// The CMK that wraps its data key.
    pub key: KeyId,
}

/// What was looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verified {
    /// What the object says of itself, as far as that can be read. Objects without a data key say nothing.
    pub identity: Option<Identity>,
    /// Plaintext bytes that are sound.
    pub bytes: u64,
    /// Blocks of a file that were looked at, holes among them.
    pub blocks: u64,
    /// Encrypted attributes that are sound.
    pub attributes: u64,
    /// A file that is being changed, or was when the last process that changed it ended.
    pub is_unsealed: bool,
    /// A symlink whose target lies in the side file of this object.
    pub side: Option<ObjectId>,
    /// A directory's header cannot be used: nobody can tell the names in it.
    pub is_closed: bool,
}
