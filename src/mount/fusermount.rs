//! Mounting for ordinary users: the setuid helper `fusermount3` of the fuse3 package mounts for us and passes the
//! descriptor over a socket (its protocol: the environment variable `_FUSE_COMMFD`, one message with `SCM_RIGHTS`).

use std::ffi::{OsStr, OsString};
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags, SocketType,
    recvmsg, socketpair,
};

const HELPER: &str = "fusermount3";

/// Why the helper did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum HelperError {
    /// It is not installed.
    #[error("mounting as an ordinary user needs the program fusermount3")]
    Missing,
    /// It said no, in its own words.
    #[error("{0}")]
    Refused(String),
    /// It could not be run or understood.
    #[error("fusermount3: {0}")]
    Io(#[from] io::Error),
}

/// Mounts, and returns the session's descriptor.
pub(super) fn mount(mountpoint: &Path, options: &OsStr) -> Result<OwnedFd, HelperError> {
    // Without CLOEXEC, since the helper inherits its end by number; ours must not go along.
    let (ours, theirs) = socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::empty(),
        None,
    )
    .map_err(io::Error::from)?;
    fcntl_setfd(&ours, FdFlags::CLOEXEC).map_err(io::Error::from)?;
    let mut command = Command::new(HELPER);
    command.arg("-o").arg(options).arg("--").arg(mountpoint);
    command.env("_FUSE_COMMFD", theirs.as_raw_fd().to_string());
    let helper = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(missing)?;
    drop(theirs);
    let device = receive(&ours);
    let output = helper.wait_with_output()?;
    match device? {
        Some(device) if output.status.success() => Ok(device),
        _ => Err(refusal(&output)),
    }
}

/// Unmounts what is at `mountpoint`.
pub(super) fn unmount(mountpoint: &Path, lazy: bool) -> Result<(), HelperError> {
    let mut command = Command::new(HELPER);
    command
        .arg("-u")
        .args(lazy.then_some("-z"))
        .arg("--")
        .arg(mountpoint);
    let output = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .map_err(missing)?;
    if output.status.success() {
        Ok(())
    } else {
        Err(refusal(&output))
    }
}

/// A value for `-o`, where a comma would begin the next option.
pub(super) fn escape(value: &OsStr) -> OsString {
    let escaped = value.as_bytes().iter().flat_map(|byte| match byte {
        b',' | b'\\' => vec![b'\\', *byte],
        _ => vec![*byte],
    });
    OsString::from_vec(escaped.collect())
}

fn receive(socket: &OwnedFd) -> io::Result<Option<OwnedFd>> {
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    rustix::io::retry_on_intr(|| {
        recvmsg(
            socket,
            &mut [IoSliceMut::new(&mut byte)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        )
    })?;
    let device = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    Ok(device)
}

fn missing(error: io::Error) -> HelperError {
    if error.kind() == io::ErrorKind::NotFound {
        HelperError::Missing
    } else {
        HelperError::Io(error)
    }
}

fn refusal(output: &Output) -> HelperError {
    let words = String::from_utf8_lossy(&output.stderr);
    let words = words.trim();
    if words.is_empty() {
        HelperError::Refused(format!("fusermount3 failed ({})", output.status))
    } else {
        HelperError::Refused(words.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comma_in_a_name_cannot_begin_an_option() {
        assert_eq!(escape(OsStr::new(r"/a,suid\b c")), r"/a\,suid\\b c");
    }
}
