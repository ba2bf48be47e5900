//! `cmkfs status`: what is mounted, by whom it is served, and which keys it uses. The mounts of this key directory say so
//! themselves; of others only what the kernel knows.

use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use super::args::Global;
use super::keystore;
use super::message::CliError;
use super::output::{self, Format, OutputArgs};
use crate::ids::{KeyId, VolumeId};
use crate::mount::confine::Confinement;
use crate::mount::control::client;
use crate::mount::control::protocol::{KeyInUse, LeaseState, Request, Response, Status};
use crate::mount::mountpoint::{answers, daemon_of, locate};
use crate::mount::{MountError, mountinfo};
use crate::volume;

/// How long a mount may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// The arguments of `cmkfs status`.
#[derive(Debug, Clone, Args)]
pub struct StatusArgs {
    /// Only the volume that is mounted here.
    #[arg(value_name = "MOUNTPOINT")]
    pub mountpoint: Option<PathBuf>,
    /// How to print it.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// One mounted volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct MountStatus {
    /// The ciphertext directory, or what `fsname` said.
    source: String,
    mountpoint: String,
    /// The volume, where its directory can be read.
    volume_id: Option<VolumeId>,
    /// The key that wraps the volume's own.
    key_id: Option<KeyId>,
    /// The process that serves it, as far as it can be found out.
    process_id: Option<u32>,
    read_only: bool,
    /// Whether that process is alive and answers.
    answers: bool,
    /// What it says of itself, where it belongs to this key directory.
    #[serde(flatten)]
    inside: Option<Inside>,
    #[serde(skip)]
    life: Life,
}

/// What only the mount itself knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Inside {
    /// The keys in use.
    keys: Vec<KeyInUse>,
    /// Inodes in memory.
    inodes: u64,
    open_files: u64,
    open_directories: u64,
    /// What its process has given up.
    confinement: Confinement,
    locked_key_bytes: u64,
    unlocked_key_bytes: u64,
}

/// Whether a mount's process does its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Life {
    Answers,
    /// It takes longer than anybody wants to wait: stopped, or very busy.
    Silent,
    Dead,
}

impl Life {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Answers => "mounted",
            Self::Silent => "silent",
            Self::Dead => "dead",
        }
    }
}

/// Runs `cmkfs status`.
///
/// # Errors
/// Where `/proc` cannot be read, or nothing of ours is mounted at the mountpoint asked for.
pub fn run(global: &Global, args: &StatusArgs) -> Result<(), CliError> {
    let mounts = list(global, args)?;
    match (args.output.output, &mounts[..]) {
        (Format::Json, _) => output::json(&mounts),
        (Format::Table, [mount]) if args.mountpoint.is_some() => print_one(mount),
        (Format::Table, _) => print_all(&mounts),
    }
}

fn print_all(mounts: &[MountStatus]) -> Result<(), CliError> {
    let row = |mount: &MountStatus| {
        [
            mount.source.clone(),
            mount.mountpoint.clone(),
            text(mount.volume_id),
            text(mount.process_id),
            access(mount).to_owned(),
            mount.life.as_str().to_owned(),
            mount.inside.as_ref().map_or_else(String::new, summary),
        ]
    };
    output::table(
        [
            "SOURCE",
            "MOUNTPOINT",
            "VOLUME",
            "PROCESS",
            "ACCESS",
            "STATE",
            "KEYS",
        ],
        mounts.iter().map(row),
    )
}

fn print_one(mount: &MountStatus) -> Result<(), CliError> {
    let inside = mount.inside.as_ref();
    let figure = |of: fn(&Inside) -> u64| text(inside.map(of));
    output::fields([
        ("Source", mount.source.clone()),
        ("Mountpoint", mount.mountpoint.clone()),
        ("VolumeId", text(mount.volume_id)),
        ("KeyId", text(mount.key_id)),
        ("ProcessId", text(mount.process_id)),
        ("Access", access(mount).to_owned()),
        ("State", mount.life.as_str().to_owned()),
        ("Inodes", figure(|inside| inside.inodes)),
        ("OpenFiles", figure(|inside| inside.open_files)),
        ("OpenDirectories", figure(|inside| inside.open_directories)),
        ("Memory", inside.map_or_else(String::new, memory)),
        ("Confinement", inside.map_or_else(String::new, confined)),
    ])?;
    let Some(inside) = inside else {
        return Ok(());
    };
    output::line("")?;
    let row = |key: &KeyInUse| {
        [
            key.key_id.to_string(),
            lease(key.lease).to_owned(),
            key.data_keys.to_string(),
        ]
    };
    output::table(
        ["KEY ID", "LEASE", "DATA KEYS"],
        inside.keys.iter().map(row),
    )
}

/// What stays out of swap.
fn memory(inside: &Inside) -> String {
    match inside.unlocked_key_bytes {
        0 => "keys locked".to_owned(),
        bytes => format!("{bytes} bytes of keys NOT locked: raise the limit (ulimit -l)"),
    }
}

/// What the process has given up, and what it could not.
fn confined(inside: &Inside) -> String {
    let confinement = &inside.confinement;
    let capabilities = match &confinement.capabilities[..] {
        [] => "no capabilities".to_owned(),
        some => format!("{} capabilities", some.len()),
    };
    let all = [
        (confinement.no_new_privileges, "new privileges"),
        (confinement.system_calls, "system calls"),
        (confinement.files, "files"),
    ];
    let (done, missing): (Vec<_>, Vec<_>) = all.iter().partition(|(done, _)| *done);
    let names = |list: Vec<&(bool, &str)>| {
        let names: Vec<_> = list.iter().map(|(_, name)| *name).collect();
        names.join(", ")
    };
    let mut text = capabilities;
    if !done.is_empty() {
        text = format!("{text}; restricted: {}", names(done));
    }
    if !missing.is_empty() {
        text = format!("{text}; not restricted: {}", names(missing));
    }
    text
}

const fn access(mount: &MountStatus) -> &'static str {
    if mount.read_only { "ro" } else { "rw" }
}

fn text(value: Option<impl ToString>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}

/// How many keys are held, and which are not.
fn summary(inside: &Inside) -> String {
    let withdrawn = inside
        .keys
        .iter()
        .filter(|key| key.lease != LeaseState::Held);
    let withdrawn: Vec<_> = withdrawn
        .map(|key| format!("{} {}", key.key_id, lease(key.lease)))
        .collect();
    let held = inside.keys.len() - withdrawn.len();
    std::iter::once(format!("{held} held"))
        .chain(withdrawn)
        .collect::<Vec<_>>()
        .join(", ")
}

const fn lease(lease: LeaseState) -> &'static str {
    match lease {
        LeaseState::Held => "held",
        LeaseState::Disabled => "disabled",
        LeaseState::PendingDeletion => "pending deletion",
        LeaseState::NoMaterial => "without material",
        LeaseState::Expired => "expired",
        LeaseState::Rejected => "rejected",
        LeaseState::Denied => "denied",
        LeaseState::StoreUnreadable => "key store unreadable",
    }
}

/// What is mounted, in the order of mounting.
fn list(global: &Global, args: &StatusArgs) -> Result<Vec<MountStatus>, MountError> {
    let only = args.mountpoint.as_deref().map(locate).transpose()?;
    let unreadable = |source| MountError::Unreachable {
        path: "/proc/self/mountinfo".into(),
        source,
    };
    let mounts = mountinfo::list().map_err(unreadable)?;
    let wanted = |mount: &mountinfo::Mount| {
        mount.is_cmkfs() && only.as_ref().is_none_or(|only| mount.mountpoint == *only)
    };
    let answers = ask(global);
    let found: Vec<_> = mounts
        .iter()
        .filter(|mount| wanted(mount))
        .map(|mount| status(mount, &answers))
        .collect();
    match only {
        Some(only) if found.is_empty() => Err(MountError::NotMounted(only)),
        _ => Ok(found),
    }
}

/// What the mounts of this key directory say of themselves. Where there is none, or it is somebody else's, nothing.
fn ask(global: &Global) -> Vec<Status> {
    let Ok(keys) = keystore::locate(global) else {
        return Vec::new();
    };
    let asked = client::ask_all(&keys, &Request::Status, Instant::now() + PATIENCE);
    let asked = asked.unwrap_or_else(|error| {
        log::debug!("{}: {error}", keys.display());
        Vec::new()
    });
    let said = asked.into_iter().filter_map(|asked| match asked.result {
        Ok(Response::Status(status)) => Some(status),
        _ => None,
    });
    said.collect()
}

fn status(mount: &mountinfo::Mount, answers: &[Status]) -> MountStatus {
    let volume = volume::glance(Path::new(&mount.source));
    let mountpoint = mount.mountpoint.to_string_lossy().into_owned();
    let answer = answers
        .iter()
        .find(|status| status.mountpoint == mountpoint);
    let life = match answer {
        Some(_) => Life::Answers,
        None => life(&mount.mountpoint),
    };
    MountStatus {
        volume_id: answer
            .map(|status| status.volume_id)
            .or_else(|| Some(volume.as_ref()?.volume_id())),
        key_id: volume.as_ref().map(|volume| volume.envelope().key_id()),
        source: mount.source.to_string_lossy().into_owned(),
        mountpoint,
        process_id: answer
            .map(|status| status.process_id)
            .or_else(|| daemon_of(mount)),
        read_only: mount.is_read_only(),
        answers: life == Life::Answers,
        inside: answer.map(|status| Inside {
            keys: status.keys.clone(),
            inodes: status.inodes,
            open_files: status.open_files,
            open_directories: status.open_directories,
            confinement: status.confinement.clone(),
            locked_key_bytes: status.locked_key_bytes,
            unlocked_key_bytes: status.unlocked_key_bytes,
        }),
        life,
    }
}

/// Asks the kernel, which asks the process; in a thread of its own, because one that is stopped never answers.
fn life(mountpoint: &Path) -> Life {
    let (sender, receiver) = channel();
    let path = mountpoint.to_owned();
    let spawned = std::thread::Builder::new().spawn(move || {
        // Nobody waits any more where it took too long.
        let _ = sender.send(answers(&path));
    });
    match spawned.map(|_| receiver.recv_timeout(PATIENCE)) {
        Ok(Ok(true)) => Life::Answers,
        Ok(Ok(false)) => Life::Dead,
        Ok(Err(_)) | Err(_) => Life::Silent,
    }
}
