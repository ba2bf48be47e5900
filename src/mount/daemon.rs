//! Into the background: no fork of our own. The command starts itself again as a child that does everything, the question
//! for a passphrase on the inherited terminal included, and says on its standard output, a pipe, when the mount answers.
//! Only then does the child leave the terminal, and the command ends with success. Where the child fails, its error is on
//! the terminal, and its exit code becomes the command's.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::error::MountError;
use crate::ids::VolumeId;

/// Set in the child: it announces readiness on its standard output.
const CHILD_VARIABLE: &str = "CMKFS_MOUNT_CHILD";
const READY: u8 = b'R';

/// Whether this process is the child.
#[must_use]
pub fn is_child() -> bool {
    std::env::var_os(CHILD_VARIABLE).is_some()
}

/// What became of the child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The mount answers, and the child serves it in the background.
    Ready,
    /// The child has said on the terminal why it failed; its exit code.
    Failed(u8),
}

/// Starts this program again with the same arguments and waits until the mount answers or the child ends.
///
/// # Errors
/// Where it cannot be started, or is killed.
pub fn start() -> Result<Outcome, MountError> {
    let mut arguments = std::env::args_os();
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0(arguments.next().unwrap_or_else(|| OsString::from("cmkfs")))
        .args(arguments);
    wait(command.env(CHILD_VARIABLE, "1"))
}

fn wait(command: &mut Command) -> Result<Outcome, MountError> {
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .map_err(MountError::Background)?;
    let mut said = [0];
    // The pipe ends with the child, so this cannot hang on one that was killed.
    let length = match child.stdout.take() {
        Some(mut output) => output.read(&mut said).map_err(MountError::Background)?,
        None => 0,
    };
    if length == 1 && said[0] == READY {
        return Ok(Outcome::Ready);
    }
    let status = child.wait().map_err(MountError::Background)?;
    match (status.code(), status.signal()) {
        (None, Some(signal)) => Err(MountError::Killed(signal)),
        (Some(0) | None, _) => Err(MountError::Background(io::Error::other(
            "the mount process ended unexpectedly",
        ))),
        (Some(code), _) => Ok(Outcome::Failed(u8::try_from(code).unwrap_or(1))),
    }
}

/// Opens the log while errors still reach the terminal.
///
/// # Errors
/// Where it cannot be written.
pub fn open_log(path: &Path) -> Result<File, MountError> {
    let open = || {
        if let Some(folder) = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty())
        {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)?;
        }
        OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(path)
    };
    open().map_err(|source| MountError::Log {
        path: path.to_owned(),
        source,
    })
}

/// Where the log goes unless told otherwise, by the XDG base directory specification.
#[must_use]
pub fn default_log(volume: VolumeId) -> PathBuf {
    let absolute = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let state = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")));
    let state = state.unwrap_or_else(|| PathBuf::from("/var/log"));
    state.join("cmkfs").join(format!("{volume}.log"))
}

/// In the child, once the mount answers: leaves the terminal and tells the waiting command.
///
/// # Errors
/// Where the terminal cannot be left.
pub fn detach(log: &File) -> Result<(), MountError> {
    let leave = || -> io::Result<()> {
        let null = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/null")?;
        // Fails only for the leader of a process group, which a child of the command is not.
        rustix::process::setsid()?;
        // The daemon must not keep the filesystem busy that it was started from.
        std::env::set_current_dir("/")?;
        rustix::stdio::dup2_stdin(&null)?;
        rustix::stdio::dup2_stderr(log)?;
        let command = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3)?;
        rustix::stdio::dup2_stdout(&null)?;
        // Last, since the command ends when it hears of this. Nobody listening is no reason not to serve.
        let _ = rustix::io::write(command, &[READY]);
        Ok(())
    };
    leave().map_err(MountError::Background)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Result<Outcome, MountError> {
        wait(Command::new("sh").arg("-c").arg(script))
    }

    #[test]
    fn the_command_ends_when_the_child_says_it_is_ready() {
        assert_eq!(
            shell("printf R; exec sleep 60 >/dev/null").unwrap(),
            Outcome::Ready
        );
    }

    #[test]
    fn a_child_that_fails_or_is_killed_is_an_error_and_no_hang() {
        assert_eq!(shell("exit 7").unwrap(), Outcome::Failed(7));
        assert!(matches!(shell("kill -9 $$"), Err(MountError::Killed(9))));
        assert!(matches!(shell("exit 0"), Err(MountError::Background(_))));
    }

    #[test]
    fn the_log_is_private_and_its_folder_is_made() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b.log");
        drop(open_log(&path).unwrap());
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert!(matches!(
            open_log(folder.path()),
            Err(MountError::Log { .. })
        ));
    }
}
