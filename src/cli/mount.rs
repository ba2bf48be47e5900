//! `cmkfs mount`: opens a volume and serves it, in the background unless asked otherwise.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;

use crate::fs::FileSystem;
use crate::fs::keys::KeyPort;
use crate::mount::daemon::{self, Outcome};
use crate::mount::mountpoint::Place;
use crate::mount::options::OptionError;
use crate::mount::serve::{Job, serve};
use crate::mount::{MountError, MountOptions, mountinfo};
use crate::sys::process;
use crate::volume::{self, Access, VolumeError};

/// How long a mount waits for the daemon of the last one, which may still be writing its seals.
const TAKE_OVER: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(50);

/// Mount a volume.
#[derive(Debug, Clone, Args)]
pub struct MountArgs {
    /// Make the volume and the mountpoint where they are missing
    #[arg(long)]
    pub init: bool,
    /// Directory that holds the encrypted files
    #[arg(value_name = "CIPHERDIR")]
    pub ciphertext: PathBuf,
    /// Empty directory on which the plain files appear
    #[arg(value_name = "MOUNTPOINT")]
    pub mountpoint: PathBuf,
    /// Stay in the foreground; the log goes to standard error
    #[arg(short, long)]
    pub foreground: bool,
    /// Refuse every change
    #[arg(short, long)]
    pub read_only: bool,
    /// Let other users in, as far as the files' permissions allow (always so for root)
    #[arg(long)]
    pub allow_other: bool,
    /// Mount options, comma-separated: ro, nosuid, nodev, noexec, noatime, allow_other, fsname=NAME, …
    #[arg(short, long = "options", value_name = "OPT,…")]
    pub options: Vec<OsString>,
    /// Where the background process writes its log [default: ~/.local/state/cmkfs/VOLUME-ID.log]
    #[arg(long, value_name = "FILE")]
    pub log: Option<PathBuf>,
}

impl MountArgs {
    /// The options of `-o` together with the flags that say the same.
    ///
    /// # Errors
    /// An option that is not known.
    pub fn mount_options(&self) -> Result<MountOptions, OptionError> {
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

/// Runs the command: `open_keys` opens the key directory, asking for its passphrase if need be, and `create` makes a volume.
/// Gives the process's exit code: the background process has said itself why it failed.
///
/// # Errors
/// Why the volume cannot be mounted.
pub fn run<K, E>(
    args: &MountArgs,
    open_keys: impl FnOnce(&MountOptions) -> Result<Arc<K>, E>,
    create: impl FnOnce(&Path, &K) -> Result<(), E>,
) -> Result<u8, E>
where
    K: KeyPort + 'static,
    E: From<MountError> + From<OptionError> + From<VolumeError>,
{
    let options = args.mount_options()?;
    if !args.foreground && !daemon::is_child() {
        return Ok(match daemon::start()? {
            Outcome::Ready => 0,
            Outcome::Failed(code) => code,
        });
    }
    process::protect_memory();
    process::prepare_for_serving();
    let ciphertext = absolute(&args.ciphertext)?;
    let is_new = options.init && make_directories::<E>(&ciphertext, &args.mountpoint)?;
    let place = Place::check(&args.mountpoint, &ciphertext)?;
    let keys = open_keys(&options)?;
    if is_new {
        create(&ciphertext, &keys)?;
    }
    let access = if options.read_only() {
        Access::ReadOnly
    } else {
        Access::ReadWrite
    };
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
        place,
        source,
        options,
    };
    serve(job, || log.as_ref().map_or(Ok(()), daemon::detach))?;
    Ok(0)
}

/// The path as the user wrote it, from the root on.
fn absolute(path: &Path) -> Result<PathBuf, MountError> {
    std::path::absolute(path).map_err(|source| MountError::Unreachable {
        path: path.to_owned(),
        source,
    })
}

/// For `--init`: makes what is missing and says whether a volume has to be made, too.
fn make_directories<E>(ciphertext: &Path, mountpoint: &Path) -> Result<bool, E>
where
    E: From<MountError> + From<VolumeError>,
{
    let failed = |path: &Path, source: io::Error| MountError::Unreachable {
        path: path.to_owned(),
        source,
    };
    fs::create_dir_all(ciphertext).map_err(|error| failed(ciphertext, error))?;
    match fs::create_dir_all(mountpoint) {
        Ok(()) => {}
        // A dead mount is there, as `Place::check` will find.
        Err(error)
            if error.kind() != io::ErrorKind::NotConnected
                && fs::symlink_metadata(mountpoint).is_err() =>
        {
            return Err(failed(mountpoint, error).into());
        }
        Err(_) => {}
    }
    if volume::exists(ciphertext)? {
        return Ok(false);
    }
    let mut entries = fs::read_dir(ciphertext).map_err(|error| failed(ciphertext, error))?;
    if entries.next().is_some() {
        return Err(VolumeError::NotEmpty {
            path: ciphertext.to_owned(),
        }
        .into());
    }
    Ok(true)
}

/// Opens the volume; where its last mount is gone but its process is still finishing, waits for that.
fn open_when_free<K: KeyPort + 'static>(
    ciphertext: &Path,
    keys: &Arc<K>,
    access: Access,
) -> Result<FileSystem, VolumeError> {
    let until = Instant::now() + TAKE_OVER;
    loop {
        let result = volume::open(ciphertext, Arc::clone(keys) as Arc<dyn KeyPort>, access);
        let in_use = matches!(result, Err(VolumeError::InUse { .. }));
        if !in_use || Instant::now() >= until || is_mounted(ciphertext) {
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
