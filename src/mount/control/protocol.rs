//! What is said over a control socket: one JSON object a line, in AWS's spelling. A connection carries one request; it is
//! answered by any number of `Progress` lines and one line that is the result. Both sides take hostile bytes for an error.

use std::fmt;
use std::io::{self, BufRead, Read, Write};

use rustix::io::Errno;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::fs::FsError;
use crate::fs::keys::KeyUnavailable;
use crate::ids::{KeyId, VolumeId};
use crate::mount::confine::Confinement;
use crate::mount::stats::OperationStats;
use crate::mount::transport::Choice;
use crate::volume::{rekey, rewrap, verify};

/// The longest request, in bytes, its line break included.
pub const REQUEST_MAX: usize = 64 * 1024;
/// The longest answer, in bytes, its line break included: a status lists every key in use.
pub const RESPONSE_MAX: usize = 1024 * 1024;

/// What a mount can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "Request", rename_all_fields = "PascalCase")]
pub enum Request {
    /// A key is about to be withdrawn: write what is dirty while it still works. Answered by [`Response::Prepared`].
    Prepare {
        /// The CMK.
        key_id: KeyId,
    },
    /// A key has changed: obey. Answered by [`Response::Obeyed`] once no plaintext under a withdrawn key is served.
    Obey {
        /// The CMK.
        key_id: KeyId,
    },
    /// Wrap what is created in an empty directory under another key. Answered by [`Response::Bound`].
    Bind {
        /// The directory: its inode number in the mount.
        node: u64,
        /// A key id or alias/NAME.
        key: String,
    },
    /// What are you? Answered by [`Response::Status`].
    Status,
    /// What did the kernel ask you? Answered by [`Response::Stats`].
    Stats,
    /// Wrap data keys anew. Answered by [`Response::Rewrapped`].
    Rewrap {
        /// The directory to begin with, by its inode number; the whole volume from the root.
        directory: u64,
        /// The alias or id of the CMK that everything is to be bound to and wrapped under; else what it is bound to now.
        to: Option<String>,
    },
    /// Verify what is stored. Answered by any number of [`Response::Finding`] and then [`Response::Verified`].
    Verify {
        /// As of [`Request::Rewrap`].
        directory: u64,
    },
    /// Give files and symlinks new data keys. Answered by [`Response::Rekeyed`].
    Rekey {
        /// As of [`Request::Rewrap`].
        directory: u64,
    },
}

/// What a mount says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "Response")]
pub enum Response {
    /// Still at work. More lines follow.
    Progress(Progress),
    /// What was dirty is written.
    Prepared(Prepared),
    /// The key's present state is in force.
    Obeyed(Obeyed),
    /// The directory is bound.
    Bound(Bound),
    /// What the mount is.
    Status(Status),
    /// What the kernel has asked.
    Stats(MountStats),
    /// What a rewrap did.
    Rewrapped(rewrap::Report),
    /// What a rekey did.
    Rekeyed(rekey::Report),
    /// Something that a verification has found. More lines follow.
    Finding(verify::Finding),
    /// What a verification found in all, the findings themselves left out.
    Verified(verify::Report),
    /// It could not be done.
    Failed(Failed),
}

/// How far a long request has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Progress {
    /// So much is done.
    pub done: u64,
    /// Of so much; 0 where that is not known yet.
    pub total: u64,
    /// What is being counted or worked on, for people.
    pub what: String,
}

/// The answer to [`Request::Prepare`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Prepared {
    /// Where the volume is mounted.
    pub mountpoint: String,
    /// Whether everything dirty could be written in time.
    pub is_complete: bool,
}

/// What a mount did about a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Obeyed {
    /// Where the volume is mounted.
    pub mountpoint: String,
    /// The volume.
    pub volume_id: VolumeId,
    /// The CMK.
    pub key_id: KeyId,
    /// Whether it can be used in this mount now, or why not.
    pub lease: LeaseState,
    /// Data keys that were wiped from memory when the key was withdrawn.
    pub data_keys_dropped: u64,
    /// Inodes whose cached content and attributes the kernel has dropped.
    pub inodes_invalidated: u64,
    /// Names that the kernel has dropped.
    pub names_invalidated: u64,
    /// Whether everything that was dirty was written before. What was not fails at its writer's fsync or close.
    pub is_flushed: bool,
    /// How long it took, in milliseconds.
    pub milliseconds: u64,
}

/// The right to use a CMK, as a mount sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LeaseState {
    /// It may be used.
    Held,
    /// The CMK is disabled.
    Disabled,
    /// The CMK waits for its deletion.
    PendingDeletion,
    /// The CMK or its material is not there.
    NoMaterial,
    /// The imported material has expired.
    Expired,
    /// Something does not belong to this CMK.
    Rejected,
    /// A policy denies it.
    Denied,
    /// The key store cannot be read.
    StoreUnreadable,
}

/// The answer to [`Request::Bind`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Bound {
    /// Where the volume is mounted.
    pub mountpoint: String,
    /// What the directory is bound to.
    pub binding: String,
}

/// The answer to [`Request::Status`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Status {
    /// The daemon.
    pub process_id: u32,
    /// Where the volume is mounted.
    pub mountpoint: String,
    /// The directory with the encrypted files, as the mount was given it.
    pub ciphertext: String,
    /// The volume.
    pub volume_id: VolumeId,
    /// Nothing may change.
    pub read_only: bool,
    /// The CMKs in use.
    pub keys: Vec<KeyInUse>,
    /// Inodes in memory.
    pub inodes: u64,
    /// Files that are open.
    pub open_files: u64,
    /// Directories that are open.
    pub open_directories: u64,
    /// How requests come to the daemon, and why so; `None`: it is of a version that says nothing of it.
    #[serde(default)]
    pub transport: Option<Choice>,
    /// What the daemon has given up.
    #[serde(default)]
    pub confinement: Confinement,
    /// Memory for keys that stays out of swap, in bytes.
    #[serde(default)]
    pub locked_key_bytes: u64,
    /// Memory for keys that may be swapped: more than may be locked.
    #[serde(default)]
    pub unlocked_key_bytes: u64,
}

/// The answer to [`Request::Stats`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct MountStats {
    /// Where the volume is mounted.
    pub mountpoint: String,
    /// The kinds of request that came since it was mounted, those that took the most time together first.
    pub operations: Vec<OperationStats>,
}

/// A CMK that a mount uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct KeyInUse {
    /// The CMK.
    pub key_id: KeyId,
    /// Whether it can be used in this mount now.
    pub lease: LeaseState,
    /// Data keys of it that are in memory.
    pub data_keys: u64,
}

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Failed {
    /// For scripts: of what kind it is.
    #[serde(default)]
    pub reason: Reason,
    /// For people.
    pub message: String,
}

impl Failed {
    /// The answer was none to what was asked.
    #[must_use]
    pub fn another_answer() -> Self {
        Self {
            reason: Reason::Other,
            message: "the mount gave another answer than it was asked for".to_owned(),
        }
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// What kind of failure something is, as far as that decides an exit code and a hint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Reason {
    /// The state of a key does not allow it.
    KeyState,
    /// A key's policy and grants do not allow it.
    Denied,
    /// It is not there.
    NotFound,
    /// The directory holds something.
    NotEmpty,
    /// It is no directory.
    NotADirectory,
    /// Somebody else is at such work.
    InUse,
    /// Something stored is damaged.
    Damaged,
    /// Anything else, also what only a later version knows of.
    #[default]
    #[serde(other)]
    Other,
}

impl From<&FsError> for Reason {
    fn from(error: &FsError) -> Self {
        match error {
            FsError::Key(why) => match why {
                KeyUnavailable::Disabled
                | KeyUnavailable::PendingDeletion
                | KeyUnavailable::NoMaterial
                | KeyUnavailable::Expired => Self::KeyState,
                KeyUnavailable::Denied => Self::Denied,
                KeyUnavailable::Rejected => Self::Damaged,
                KeyUnavailable::Store => Self::Other,
            },
            FsError::Damaged(_) => Self::Damaged,
            FsError::Os(Errno::NOTEMPTY) => Self::NotEmpty,
            FsError::Os(Errno::NOTDIR) => Self::NotADirectory,
            FsError::Os(Errno::BUSY) => Self::InUse,
            FsError::Os(Errno::NOENT | Errno::STALE) => Self::NotFound,
            FsError::Os(_) => Self::Other,
        }
    }
}

/// Writes one line.
///
/// # Errors
/// What the operating system says; nothing that is written here fails to be JSON.
pub fn send(stream: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    stream.flush()
}

/// Reads one line of at most `limit` bytes; `None` where the other side has said all it had to say.
///
/// # Errors
/// What the operating system says; [`io::ErrorKind::InvalidData`] for a line that is too long, cut, or none of ours.
pub fn receive<T: DeserializeOwned>(
    stream: &mut impl BufRead,
    limit: usize,
) -> io::Result<Option<T>> {
    let mut line = Vec::new();
    let length = stream.take(limit as u64).read_until(b'\n', &mut line)?;
    if length == 0 {
        return Ok(None);
    }
    if line.last() != Some(&b'\n') {
        let why = if length == limit {
            "the line is too long"
        } else {
            "the line is cut short"
        };
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    serde_json::from_slice(&line)
        .map(Some)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn received<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<Option<T>> {
        receive(&mut &*bytes, REQUEST_MAX)
    }

    #[test]
    fn a_request_looks_like_this() {
        let key_id = "00000000-0000-0000-0000-000000000001".parse().unwrap();
        let mut line = Vec::new();
        send(&mut line, &Request::Obey { key_id }).unwrap();
        assert_eq!(
            String::from_utf8(line).unwrap(),
            "{\"Request\":\"Obey\",\"KeyId\":\"00000000-0000-0000-0000-000000000001\"}\n"
        );
    }

    #[test]
    fn a_line_too_long_cut_short_or_of_another_kind_is_an_error() {
        let endless = vec![b' '; REQUEST_MAX + 1];
        for bytes in [
            &endless[..],
            b"{\"Request\":\"Status\"}",
            b"{\"Request\":\"Explode\"}\n",
            b"{\"Request\":\"Obey\"}\n",
            b"[]\n",
            b"\n",
            b"\xff\n",
        ] {
            let error = received::<Request>(bytes).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
        }
        assert!(received::<Request>(b"").unwrap().is_none());
    }

    fn progress() -> impl Strategy<Value = Progress> {
        (any::<u64>(), any::<u64>(), any::<String>()).prop_map(|(done, total, what)| Progress {
            done,
            total,
            what,
        })
    }

    proptest! {
        #[test]
        fn whatever_comes_is_an_error_or_a_message_and_never_more(
            bytes in prop::collection::vec(any::<u8>(), 0..512),
        ) {
            let _ = received::<Request>(&bytes);
            let _ = received::<Response>(&bytes);
        }

        #[test]
        fn a_message_that_was_changed_anywhere_is_an_error_or_another_message(
            place in any::<prop::sample::Index>(),
            byte in any::<u8>(),
        ) {
            let mut line = Vec::new();
            let key_id = KeyId([7; 16]);
            send(&mut line, &Request::Prepare { key_id }).unwrap();
            let place = place.index(line.len());
            line[place] = byte;
            let _ = received::<Request>(&line);
        }

        #[test]
        #[cfg_attr(miri, ignore = "too much for an interpreter")]
        fn text_of_any_kind_comes_through_in_one_line(progress in progress()) {
            let mut line = Vec::new();
            let said = Response::Progress(progress);
            send(&mut line, &said).unwrap();
            prop_assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
            prop_assert_eq!(received::<Response>(&line).unwrap(), Some(said));
        }
    }
}
