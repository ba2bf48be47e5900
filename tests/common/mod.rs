//! The one harness of all tests that need a mount: a volume in a temporary directory of its own, with its own keys, that is
//! always unmounted and whose daemon is always gone afterwards, also when the test panics.
#![allow(
    dead_code,
    reason = "every test program uses its own part of the harness"
)]

pub mod daemon;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

use cmkfs::mount::mountinfo;
use cmkfs::volume::lock::holder;
use rustix::mount::UnmountFlags;
use rustix::process::{Pid, Signal};

/// How long anything may take before a test calls it a failure. Generous: a loaded machine is no bug.
pub const DEADLINE: Duration = Duration::from_secs(30);
pub const POLL: Duration = Duration::from_millis(10);

/// A volume, mounted or not.
pub struct Volume {
    folder: tempfile::TempDir,
    program: PathBuf,
    identity: Option<(u32, u32)>,
}

impl Volume {
    /// A volume with its own key directory, not mounted.
    pub fn new() -> Self {
        let volume = Self::bare(None);
        volume.succeed(&["init", "CIPHERDIR"]);
        fs::create_dir(volume.mountpoint()).unwrap();
        volume
    }

    /// A new volume, mounted.
    pub fn mounted() -> Self {
        let volume = Self::new();
        volume.mount(&[]);
        volume
    }

    /// A folder without volume or mountpoint; commands run as this user and group.
    pub fn bare(identity: Option<(u32, u32)>) -> Self {
        assert!(
            Path::new("/dev/fuse").exists(),
            "mount tests need /dev/fuse, which is missing here"
        );
        let folder = tempfile::Builder::new()
            .prefix("cmkfs-test-")
            .tempdir()
            .unwrap();
        let mut program = PathBuf::from(env!("CARGO_BIN_EXE_cmkfs"));
        if let Some((user, group)) = identity {
            open_device();
            // The user may not be able to reach the build directory.
            let copy = folder.path().join("cmkfs");
            // Not copied by this process: a test that forks meanwhile would hold it open for writing, and a program that is
            // cannot be run.
            succeed(Command::new("cp").arg(&program).arg(&copy));
            program = copy;
            std::os::unix::fs::chown(folder.path(), Some(user), Some(group)).unwrap();
        }
        Self {
            folder,
            program,
            identity,
        }
    }

    /// The temporary directory.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where the encrypted files are.
    pub fn ciphertext(&self) -> PathBuf {
        self.folder().join("cipher")
    }

    /// Where the plain files appear.
    pub fn mountpoint(&self) -> PathBuf {
        self.folder().join("plain")
    }

    /// A file in the mount.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.mountpoint().join(name)
    }

    /// A program with this volume's environment, as this volume's user.
    pub fn program(&self, program: impl AsRef<Path>) -> Command {
        let program = program.as_ref();
        let mut command = match self.identity {
            Some((user, group)) => {
                let mut command = Command::new("setpriv");
                command.args([format!("--reuid={user}"), format!("--regid={group}")]);
                command.arg("--clear-groups").arg(program);
                command
            }
            None => Command::new(program),
        };
        command.current_dir(self.folder()).stdin(Stdio::null());
        command.env("HOME", self.folder().join("home"));
        command.env("CMKFS_KEYS", self.folder().join("keys"));
        command
            .env_remove("XDG_STATE_HOME")
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("XDG_DATA_HOME");
        command
    }

    /// cmkfs with these arguments, where `CIPHERDIR` and `MOUNTPOINT` stand for this volume's.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.program(&self.program);
        let arguments = &self.by_transport(arguments);
        for argument in arguments {
            match *argument {
                "CIPHERDIR" => command.arg(self.ciphertext()),
                "MOUNTPOINT" => command.arg(self.mountpoint()),
                other => command.arg(other),
            };
        }
        command
    }

    /// The arguments, with those for the transport that `CMKFS_TRANSPORT` names: every test runs over each of them.
    fn by_transport<'a>(&self, arguments: &[&'a str]) -> Vec<&'a str> {
        let mut arguments = arguments.to_vec();
        let names_one = |argument: &&str| argument.contains("transport=");
        if arguments.first() == Some(&"mount") && !arguments.iter().any(names_one) {
            arguments.splice(1..1, transport().into_iter().flat_map(|name| ["-o", name]));
        }
        arguments
    }

    /// Runs cmkfs to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs cmkfs, which must succeed; its standard output.
    pub fn succeed(&self, arguments: &[&str]) -> String {
        succeed(&mut self.command(arguments))
    }

    /// Runs cmkfs, which must fail; its standard error.
    pub fn fail(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success(),
            "cmkfs {arguments:?} should have failed; it said: {said}"
        );
        assert!(
            output.status.code().is_some(),
            "cmkfs {arguments:?} was killed ({})",
            output.status
        );
        said
    }

    /// Mounts with these options more.
    pub fn mount(&self, options: &[&str]) {
        self.succeed(&[&["mount", "CIPHERDIR", "MOUNTPOINT"], options].concat());
        // Nothing else may stand in for what is wanted.
        if let (Some(wanted), Some(told)) = (transport(), self.told_transport())
            && !options.iter().any(|option| option.contains("transport="))
        {
            assert_eq!(format!("transport={told}"), wanted);
        }
    }

    /// How requests come to the daemon.
    pub fn transport(&self) -> String {
        self.told_transport().expect("a mount with these keys")
    }

    fn told_transport(&self) -> Option<String> {
        let said = self.succeed(&["status", "MOUNTPOINT", "--output", "json"]);
        let said: serde_json::Value = serde_json::from_str(&said).unwrap();
        Some(said[0]["Transport"]["Name"].as_str()?.to_owned())
    }

    /// Unmounts, which must work at once.
    pub fn unmount(&self) {
        self.succeed(&["unmount", "MOUNTPOINT"]);
    }

    /// Unmounts and mounts again, so that nothing is cached.
    pub fn remount(&self) {
        self.unmount();
        self.mount(&[]);
    }

    /// The process that serves the mount.
    pub fn daemon(&self) -> Option<u32> {
        holder(&self.ciphertext())
    }

    /// Sends a signal to the daemon.
    pub fn signal(&self, signal: Signal) {
        let pid = self.daemon().expect("a daemon");
        rustix::process::kill_process(as_pid(pid), signal).unwrap();
    }

    /// Kills the daemon as a power cut would, and waits until it is gone. The dead mount stays.
    pub fn kill(&self) {
        let pid = self.daemon().expect("a daemon");
        rustix::process::kill_process(as_pid(pid), Signal::KILL).unwrap();
        let until = Instant::now() + DEADLINE;
        while self.daemon().is_some() {
            if Instant::now() >= until {
                let stacks = stacks(pid);
                // Or whoever uses the mount would wait for ever, this test's threads among them.
                self.abort();
                panic!("the killed daemon is not gone:\n{stacks}");
            }
            std::thread::sleep(POLL);
        }
    }

    /// Ends the connection of the mount, whatever its daemon does.
    pub fn abort(&self) {
        // It may be unmounted by this, too, or not be there any more.
        let _ = rustix::mount::unmount(
            self.mountpoint(),
            UnmountFlags::FORCE | UnmountFlags::NOFOLLOW,
        );
    }

    /// Runs something beside which others use the mount. Should it panic, they come to an end: a panic that waits for them
    /// for ever would tell nobody anything.
    pub fn while_used<T>(&self, work: impl FnOnce() -> T) -> T {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        result.unwrap_or_else(|panic| {
            self.abort();
            std::panic::resume_unwind(panic)
        })
    }

    /// Whether a volume is mounted at the mountpoint.
    pub fn is_mounted(&self) -> bool {
        mountinfo::at(&self.mountpoint())
            .unwrap()
            .is_some_and(|mount| mount.is_cmkfs())
    }

    /// Waits until the mount is gone, its daemon too, and the volume is free.
    pub fn wait_until_free(&self) {
        eventually("the volume is free", || {
            !self.is_mounted() && self.daemon().is_none()
        });
    }

    /// All that the daemons of this volume have logged.
    pub fn log(&self) -> String {
        let folder = self.folder().join("home/.local/state/cmkfs");
        let files = fs::read_dir(folder).into_iter().flatten().flatten();
        files
            .map(|file| fs::read_to_string(file.path()).unwrap_or_default())
            .collect()
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        if self.identity.is_some() {
            close_device();
        }
        let daemon = self.daemon();
        if std::thread::panicking() {
            eprintln!("--- log of the mount ---\n{}", self.log());
        }
        let inside = |mount: &mountinfo::Mount| mount.mountpoint.starts_with(self.folder());
        for mount in mountinfo::list()
            .unwrap_or_default()
            .iter()
            .filter(|mount| inside(mount))
            .rev()
        {
            // Gone already, or it goes with the one above it.
            let _ = rustix::mount::unmount(&mount.mountpoint, UnmountFlags::DETACH);
        }
        if let Some(pid) = daemon {
            let until = Instant::now() + Duration::from_secs(5);
            while self.daemon().is_some() && Instant::now() < until {
                std::thread::sleep(POLL);
            }
            if self.daemon() == Some(pid) {
                let _ = rustix::process::kill_process(as_pid(pid), Signal::KILL);
            }
        }
    }
}

/// The mount option for the transport that tests are to run over; none where each mount chooses by itself.
fn transport() -> Option<&'static str> {
    static OPTION: LazyLock<Option<String>> = LazyLock::new(|| {
        let wanted = std::env::var("CMKFS_TRANSPORT").ok()?;
        Some(format!("transport={wanted}"))
    });
    OPTION.as_deref()
}

/// Whether mounts of the tests may be served through rings.
pub fn may_have_rings() -> bool {
    !matches!(transport(), Some("transport=device" | "transport=fuser"))
}

/// Volumes of ordinary users there are, and the mode of /dev/fuse before the first of them.
static DEVICE: Mutex<(usize, u32)> = Mutex::new((0, 0));

/// udev gives everybody access to /dev/fuse; a bare container may not, and gets its own way back afterwards.
fn open_device() {
    let mut device = DEVICE.lock().unwrap();
    if device.0 == 0 {
        device.1 = fs::metadata("/dev/fuse").unwrap().mode() & 0o7777;
    }
    device.0 += 1;
    fs::set_permissions("/dev/fuse", fs::Permissions::from_mode(0o666)).unwrap();
}

fn close_device() {
    let Ok(mut device) = DEVICE.lock() else {
        return;
    };
    device.0 -= 1;
    if device.0 == 0 {
        let _ = fs::set_permissions("/dev/fuse", fs::Permissions::from_mode(device.1));
    }
}

fn as_pid(pid: u32) -> Pid {
    Pid::from_raw(i32::try_from(pid).unwrap()).unwrap()
}

/// Runs a command, which must succeed; its standard output.
pub fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{command:?}: {}: {said}",
        output.status
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Where the threads of a process wait in the kernel.
pub fn stacks(pid: u32) -> String {
    let threads = fs::read_dir(format!("/proc/{pid}/task"));
    let threads = threads.into_iter().flatten().flatten();
    let described = threads.map(|thread| {
        let read = |name: &str| fs::read_to_string(thread.path().join(name)).unwrap_or_default();
        format!("{}{}", read("comm"), read("stack"))
    });
    described.collect()
}

/// Waits until something is so.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + DEADLINE;
    while !is_so() {
        assert!(Instant::now() < until, "it has not come about that {what}");
        std::thread::sleep(POLL);
    }
}

/// The device number of a directory's filesystem.
pub fn device(path: &Path) -> u64 {
    fs::metadata(path).unwrap().dev()
}
