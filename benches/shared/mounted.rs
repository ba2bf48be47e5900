//! One mounted filesystem and the process that serves it: waited for until it is there, and gone in every case when this
//! value is.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use cmkfs::mount::mountinfo;
use rustix::mount::UnmountFlags;

use crate::programs::{self, Outcome};

/// How long mounting may take: some derive their key from a password for many seconds.
const MOUNTING: Duration = Duration::from_secs(90);
/// How long unmounting may take, with all that is written then.
const UNMOUNTING: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(2);

/// A mount whose daemon is a child of this process.
pub struct Mounted {
    /// The process that serves it.
    pub daemon: Child,
    mountpoint: PathBuf,
    name: String,
}

impl Mounted {
    /// Starts the daemon, which must stay in the foreground, and waits until it has mounted. What it says goes to `log`.
    pub fn start(command: &mut Command, mountpoint: &Path, log: &Path) -> Outcome<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let name = name.rsplit('/').next().unwrap_or_default().to_owned();
        let output = File::create(log).and_then(|file| Ok((file.try_clone()?, file)));
        let (output, errors) = output.map_err(|error| format!("{}: {error}", log.display()))?;
        command.stdout(output).stderr(errors);
        // Ctrl-C is for this process alone, which then unmounts.
        command.process_group(0);
        let daemon = command.spawn();
        let daemon = daemon.map_err(|error| programs::unable(&name, &error))?;
        let mut mounted = Self {
            daemon,
            mountpoint: mountpoint.to_owned(),
            name,
        };
        let start = Instant::now();
        while !mounted.is_there() {
            if let Ok(Some(status)) = mounted.daemon.try_wait() {
                let said = programs::last_line(&fs::read(log).unwrap_or_default());
                return Err(format!("mount: {}: {said} ({status})", mounted.name));
            }
            if programs::stopped() || start.elapsed() > MOUNTING {
                let waited = start.elapsed().as_secs();
                return Err(format!(
                    "mount: {}: not there after {waited} s",
                    mounted.name
                ));
            }
            std::thread::sleep(POLL);
        }
        Ok(mounted)
    }

    /// Unmounts, and waits until the daemon has written all it had.
    pub fn unmount(mut self) -> Outcome<()> {
        let start = Instant::now();
        while self.is_there() {
            let Err(error) = unmount(&self.mountpoint) else {
                break;
            };
            if start.elapsed() > UNMOUNTING {
                return Err(format!("unmount: {error}"));
            }
            std::thread::sleep(POLL);
        }
        while !matches!(self.daemon.try_wait(), Ok(Some(_))) {
            if start.elapsed() > UNMOUNTING {
                let waited = start.elapsed().as_secs();
                return Err(format!(
                    "{}: still runs {waited} s after unmounting",
                    self.name
                ));
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    fn is_there(&self) -> bool {
        matches!(mountinfo::at(&self.mountpoint), Ok(Some(_)))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if matches!(self.daemon.try_wait(), Ok(Some(_))) && !self.is_there() {
            return;
        }
        // Killed first: what is written by now belongs to a run that has failed, and nothing may hang on it.
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
        if self.is_there() && detach(&self.mountpoint).is_err() {
            let place = self.mountpoint.display();
            eprintln!("bench: {place} is still mounted: unmount it with umount -l");
        }
    }
}

fn unmount(mountpoint: &Path) -> io::Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(rustix::mount::unmount(mountpoint, UnmountFlags::empty())?);
    }
    fusermount(&["-u"], mountpoint)
}

fn detach(mountpoint: &Path) -> io::Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(rustix::mount::unmount(mountpoint, UnmountFlags::DETACH)?);
    }
    fusermount(&["-u", "-z"], mountpoint)
}

fn fusermount(options: &[&str], mountpoint: &Path) -> io::Result<()> {
    let mut command = Command::new("fusermount3");
    let output = command.args(options).arg("--").arg(mountpoint).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(programs::last_line(&output.stderr)))
}
