//! A volume of the benchmark's own, in a temporary directory, and its mount.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::mounted::Mounted;
use crate::programs::{self, Outcome, program};

const CMKFS: &str = env!("CARGO_BIN_EXE_cmkfs");
const KEY: &str = "alias/cmkfs/default";

/// A volume, mounted or not. All of it goes with this value, the mount first.
pub struct Volume {
    mounted: Option<Mounted>,
    folder: tempfile::TempDir,
}

impl Volume {
    /// A new one below this directory, mounted.
    pub fn new(below: &Path) -> Outcome<Self> {
        let folder = tempfile::Builder::new()
            .prefix("cmkfs-growth-")
            .tempdir_in(below)
            .map_err(|error| format!("{}: {error}", below.display()))?;
        let mut volume = Self {
            mounted: None,
            folder,
        };
        fs::create_dir(volume.mountpoint()).map_err(|error| format!("mountpoint: {error}"))?;
        programs::run(volume.command(&["init"]).arg(volume.ciphertext()))?;
        volume.mount()?;
        Ok(volume)
    }

    fn ciphertext(&self) -> PathBuf {
        self.folder.path().join("cipher")
    }

    /// Where the files appear.
    pub fn mountpoint(&self) -> PathBuf {
        self.folder.path().join("plain")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = program(CMKFS);
        command.args(arguments).current_dir(self.folder.path());
        command.env("HOME", self.folder.path());
        command.env("CMKFS_KEYS", self.folder.path().join("keys"));
        for variable in ["XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME"] {
            command.env_remove(variable);
        }
        command
    }

    /// Mounts it. How long that took.
    pub fn mount(&mut self) -> Outcome<Duration> {
        let mut command = self.command(&["mount", "--foreground"]);
        command.arg(self.ciphertext()).arg(self.mountpoint());
        let log = self.folder.path().join("log");
        let start = Instant::now();
        self.mounted = Some(Mounted::start(&mut command, &self.mountpoint(), &log)?);
        Ok(start.elapsed())
    }

    /// Unmounts it, with all that is sealed then. How long that took.
    pub fn unmount(&mut self) -> Outcome<Duration> {
        let start = Instant::now();
        self.mounted.take().map_or(Ok(()), Mounted::unmount)?;
        Ok(start.elapsed())
    }

    /// Unmounts and mounts: nothing is cached then. How long each took.
    pub fn remount(&mut self) -> Outcome<(Duration, Duration)> {
        Ok((self.unmount()?, self.mount()?))
    }

    /// Withdraws the key of all files, as a user does. How long the command took.
    pub fn disable(&self) -> Outcome<Duration> {
        Ok(programs::run(&mut self.command(&["key", "disable", KEY]))?.0)
    }

    /// Gives it back.
    pub fn enable(&self) -> Outcome<Duration> {
        Ok(programs::run(&mut self.command(&["key", "enable", KEY]))?.0)
    }

    /// Inodes that the daemon knows.
    pub fn inodes(&self) -> Outcome<u64> {
        let mut command = self.command(&["status", "--output", "json"]);
        command.arg(self.mountpoint()).stdout(Stdio::piped());
        let (_, text) = programs::run(&mut command)?;
        let status: serde_json::Value =
            serde_json::from_slice(&text).map_err(|error| format!("status: {error}"))?;
        let inodes = status.pointer("/0/Inodes").and_then(|count| count.as_u64());
        inodes.ok_or_else(|| "status: no mount that says how many inodes it knows".to_owned())
    }

    /// Bytes of memory that the daemon occupies.
    pub fn memory(&self) -> Outcome<f64> {
        let mounted = self.mounted.as_ref().ok_or("it is not mounted")?;
        let path = format!("/proc/{}/status", mounted.daemon.id());
        let text = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kibibytes = line.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse().ok());
        let kibibytes: f64 = kibibytes.ok_or_else(|| format!("{path}: no VmRSS"))?;
        Ok(kibibytes * 1024.0)
    }
}
