//! `cmkfs status`: what is mounted, by whom it is served, which keys it uses, and what it was asked. The mounts of this key directory say so
//! themselves; of others only what the kernel knows.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use super::args::Global;
use super::keystore;
use super::message::CliError;
use super::output::{self, Format, OutputArgs};
use super::statistics::{self, Answers, Statistics};
use crate::ids::{KeyId, VolumeId};
use crate::mount::confine::Confinement;
use crate::mount::control::client;
use crate::mount::control::protocol::{KeyInUse, LeaseState, Request, Response, Status};
use crate::mount::liveness::Life;
use crate::mount::mountpoint::{daemon_of, locate};
use crate::mount::transport::Choice;
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
    /// Show also what the kernel has asked since it was mounted.
    ///
    /// A line for each kind of FUSE request, those that took the most time together first: how many there were, how many were
    /// answered with an error, how long they took together, which time half of them (P50) and 99 of 100 (P99) did not exceed,
    /// the longest, and how many bytes they carried. Times begin when a worker has the request in hand and end when the answer is sent;
    /// P50 and P99 may be up to an eighth too large. JSON has nanoseconds and bytes.
    #[arg(long)]
    pub stats: bool,
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
    /// What it was asked, where that is wanted.
    #[serde(flatten)]
    statistics: Option<Statistics>,
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
    /// How requests come to it, and why so.
    transport: Option<Choice>,
    /// What its process has given up.
    confinement: Confinement,
    locked_key_bytes: u64,
    unlocked_key_bytes: u64,
}

const fn word(life: Life) -> &'static str {
    match life {
        Life::Answers => "mounted",
        Life::Silent => "silent",
        Life::Dead => "dead",
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
        (Format::Table, [first, others @ ..]) if args.stats => {
            print_one(first)?;
            others.iter().try_for_each(|mount| {
                output::line("")?;
                print_one(mount)
            })
        }
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
            word(mount.life).to_owned(),
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
    print_state(mount)?;
    if let Some(inside) = &mount.inside {
        output::line("")?;
        print_keys(inside)?;
    }
    if let Some(statistics) = &mount.statistics {
        output::line("")?;
        statistics::print(statistics)?;
    }
    Ok(())
}

fn print_state(mount: &MountStatus) -> Result<(), CliError> {
    let inside = mount.inside.as_ref();
    let figure = |of: fn(&Inside) -> u64| text(inside.map(of));
    output::fields([
        ("Source", mount.source.clone()),
        ("Mountpoint", mount.mountpoint.clone()),
        ("VolumeId", text(mount.volume_id)),
        ("KeyId", text(mount.key_id)),
        ("ProcessId", text(mount.process_id)),
        ("Access", access(mount).to_owned()),
        ("State", word(mount.life).to_owned()),
        ("Inodes", figure(|inside| inside.inodes)),
        ("OpenFiles", figure(|inside| inside.open_files)),
        ("OpenDirectories", figure(|inside| inside.open_directories)),
        ("Transport", inside.map_or_else(String::new, transport)),
        ("Memory", inside.map_or_else(String::new, memory)),
        ("Confinement", inside.map_or_else(String::new, confined)),
    ])
}

fn print_keys(inside: &Inside) -> Result<(), CliError> {
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

/// How requests come, and why so.
fn transport(inside: &Inside) -> String {
    inside.transport.as_ref().map_or_else(
        || "not told by this version".to_owned(),
        |choice| format!("{} ({})", choice.name, choice.reason),
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
    // Without one, or with somebody else's, there is nobody to ask.
    let keys = keystore::locate(global).ok();
    let answers = keys.as_deref().map(ask).unwrap_or_default();
    let statistics = args.stats.then(|| {
        let asked = keys.as_deref().map(|keys| Answers::ask(keys, soon()));
        asked.unwrap_or_default()
    });
    let found: Vec<_> = mounts
        .iter()
        .filter(|mount| wanted(mount))
        .map(|mount| status(mount, &answers, statistics.as_ref()))
        .collect();
    match only {
        Some(only) if found.is_empty() => Err(MountError::NotMounted(only)),
        _ => Ok(found),
    }
}

fn soon() -> Instant {
    Instant::now() + PATIENCE
}

/// What the mounts of a key directory say of themselves.
fn ask(keys: &Path) -> Vec<Status> {
    let asked = client::ask_all(keys, &Request::Status, soon());
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

fn status(
    mount: &mountinfo::Mount,
    answers: &[Status],
    statistics: Option<&Answers>,
) -> MountStatus {
    let volume = volume::glance(Path::new(&mount.source));
    let mountpoint = mount.mountpoint.to_string_lossy().into_owned();
    let answer = answers
        .iter()
        .find(|status| status.mountpoint == mountpoint);
    let life = match answer {
        Some(_) => Life::Answers,
        None => Life::of(mount, PATIENCE),
    };
    let process_id = answer
        .map(|status| status.process_id)
        .or_else(|| daemon_of(mount));
    MountStatus {
        volume_id: answer
            .map(|status| status.volume_id)
            .or_else(|| Some(volume.as_ref()?.volume_id())),
        key_id: volume.as_ref().map(|volume| volume.envelope().key_id()),
        source: mount.source.to_string_lossy().into_owned(),
        statistics: statistics.map(|answers| answers.of(&mountpoint, process_id)),
        mountpoint,
        process_id,
        read_only: mount.is_read_only(),
        answers: life == Life::Answers,
        inside: answer.map(|status| Inside {
            keys: status.keys.clone(),
            inodes: status.inodes,
            open_files: status.open_files,
            open_directories: status.open_directories,
            transport: status.transport.clone(),
            confinement: status.confinement.clone(),
            locked_key_bytes: status.locked_key_bytes,
            unlocked_key_bytes: status.unlocked_key_bytes,
        }),
        life,
    }
}
