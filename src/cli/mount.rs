//! `cmkfs mount`: opens a volume and serves it, in the background unless asked otherwise.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;

use super::args::Global;
use super::message::CliError;
use super::{init, keystore};
use crate::fs::settings::Overwrites;
use crate::kms::KeyService;
use crate::mount::control::registry::Socket;
use crate::mount::daemon::{self, Outcome};
use crate::mount::mountpoint::Place;
use crate::mount::options::OptionError;
use crate::mount::serve::{Job, serve};
use crate::mount::{MountError, MountOptions, mountinfo};
use crate::sys::process;
use crate::volume::{self, Access, Volume, VolumeError};

/// How long a mount waits for the daemon of the last one, which may still be writing its seals.
const TAKE_OVER: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(50);

/// The arguments of `cmkfs mount`.
#[derive(Debug, Clone, Args)]
pub struct MountArgs {
    /// Make the volume and the mountpoint where they are missing.
    #[arg(long)]
    pub init: bool,
    /// Directory that holds the encrypted files.
    #[arg(value_name = "CIPHERDIR")]
    pub ciphertext: PathBuf,
    /// Empty directory on which the plain files appear.
    #[arg(value_name = "MOUNTPOINT")]
    pub mountpoint: PathBuf,
    /// Stay in the foreground; the log goes to standard error.
    #[arg(short, long)]
    pub foreground: bool,
    /// Refuse every change.
    #[arg(short, long)]
    pub read_only: bool,
    /// Let other users in, as far as the files' permissions allow (root's mounts do so anyway).
    #[arg(long)]
    pub allow_other: bool,
    /// Mount options: ro, suid, dev, noexec, noatime, allow_other, fsname=NAME, keys=DIR, passphrase-file=FILE, …
    ///
    /// As root, mounts are nosuid,nodev unless suid,dev is given; for other users always.
    ///
    /// transport=auto|uring|device|fuser says how requests come from the kernel; auto is the fastest that is to be had.
    /// enable-uring switches FUSE-over-io-uring on in the kernel (Linux 6.14, root only), for this and all later mounts.
    #[arg(short, long = "options", value_name = "OPT,…")]
    pub options: Vec<OsString>,
    /// Where the background process writes its log.
    ///
    /// Without it: $XDG_STATE_HOME/cmkfs/VOLUME-ID.log, else ~/.local/state/cmkfs/VOLUME-ID.log.
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
}

impl MountArgs {
    /// The options of `-o` together with the flags that say the same.
    fn mount_options(&self) -> Result<MountOptions, OptionError> {
        let flags = [
            (self.read_only, "ro"),
            (self.allow_other, "allow_other"),
            (self.init, "init"),
        ];
        let flags = flags
            .iter()
            .filter(|(given, _)| *given)
            .map(|(_, name)| OsStr::new(name));
        let mut options =
            MountOptions::parse(self.options.iter().map(OsString::as_os_str).chain(flags))?;
        if let Some(log) = &self.log {
            options.log = Some(log.clone());
        }
        Ok(options)
    }
}

/// Runs `cmkfs mount`.
///
/// # Errors
/// Why the volume cannot be mounted.
pub fn run(global: &Global, args: &MountArgs) -> Result<(), CliError> {
    let options = args.mount_options()?;
    if args.foreground || daemon::is_child() {
        return mount(global, args, options);
    }
    match daemon::start()? {
        Outcome::Ready => Ok(()),
        Outcome::Failed(code) => Err(CliError::Reported(code)),
    }
}

fn mount(global: &Global, args: &MountArgs, options: MountOptions) -> Result<(), CliError> {
    process::protect_memory();
    process::prepare_for_serving();
    let mut global = global.clone();
    global.keys = global.keys.or_else(|| options.keys.clone());
    global.passphrase_file = global
        .passphrase_file
        .or_else(|| options.passphrase_file.clone());

    let ciphertext = absolute(&args.ciphertext)?;
    let is_new = options.init && make_directories(&ciphertext, &args.mountpoint)?;
    let place = Place::check(&args.mountpoint, &ciphertext)?;
    let keys = if is_new {
        init::make_volume(&global, &ciphertext, None, Overwrites::default())?
    } else {
        Arc::new(keystore::open(&global)?)
    };
    let access = if options.read_only() {
        Access::ReadOnly
    } else {
        Access::ReadWrite
    };
    // Before anything is unwrapped: a command that changes a key now finds this mount.
    let socket = Socket::bind(keys.dir()).map_err(|source| MountError::Control {
        keys: keys.dir().to_owned(),
        source,
    })?;
    let fs = open_when_free(&ciphertext, &keys, access)?;
    let log = if args.foreground {
        None
    } else {
        let path = options
            .log
            .clone()
            .unwrap_or_else(|| daemon::default_log(fs.volume_id()));
        Some(daemon::open_log(&absolute(&path)?)?)
    };
    let source = options
        .fsname
        .clone()
        .unwrap_or_else(|| ciphertext.into_os_string());
    let job = Job {
        fs,
        keys,
        socket,
        place,
        source,
        options,
    };
    process::clear_umask();
    serve(job, || log.as_ref().map_or(Ok(()), daemon::detach))?;
    Ok(())
}

/// The path as the user wrote it, from the root on.
fn absolute(path: &Path) -> Result<PathBuf, MountError> {
    std::path::absolute(path).map_err(|source| unreachable(path, source))
}

fn unreachable(path: &Path, source: io::Error) -> MountError {
    MountError::Unreachable {
        path: path.to_owned(),
        source,
    }
}

/// For `--init`: makes the directories that are missing, and says whether a volume has to be made, too.
fn make_directories(ciphertext: &Path, mountpoint: &Path) -> Result<bool, CliError> {
    match fs::create_dir_all(mountpoint) {
        // It cannot be looked at where a daemon died: `Place::check` clears that.
        Err(error)
            if fs::symlink_metadata(mountpoint)
                .is_err_and(|error| error.kind() == io::ErrorKind::NotFound) =>
        {
            return Err(unreachable(mountpoint, error).into());
        }
        Ok(()) | Err(_) => {}
    }
    let is_new = !volume::exists(ciphertext)?;
    if is_new {
        init::make_directory(ciphertext)?;
    }
    Ok(is_new)
}

/// Opens the volume; where its last mount is gone but its process is still finishing, waits for that.
fn open_when_free(
    ciphertext: &Path,
    keys: &Arc<KeyService>,
    access: Access,
) -> Result<Volume, VolumeError> {
    let until = Instant::now() + TAKE_OVER;
    loop {
        let result = volume::open(ciphertext, keys, access);
        let is_in_use = matches!(result, Err(VolumeError::InUse { .. }));
        if !is_in_use || Instant::now() >= until || is_mounted(ciphertext) {
            return result;
        }
        std::thread::sleep(PAUSE);
    }
}

fn is_mounted(ciphertext: &Path) -> bool {
    let mounts = mountinfo::list().unwrap_or_default();
    mounts
        .iter()
        .any(|mount| mount.is_cmkfs() && Path::new(&mount.source) == ciphertext)
}
