//! Changes of keys, and the mounts that have to obey them. Every command that changes what a key may be used for goes
//! through [`change`]: it asks all mounts to write what is dirty while the key still works, changes the key, and waits until
//! each mount has said what it did about it.

use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

use clap::Args;
use serde::{Deserialize, Serialize};

use super::args::Global;
use super::message::CliError;
use super::output::{self, Format};
use crate::ids::{KeyId, KeyStoreId};
use crate::kms::key::KeyRef;
use crate::kms::{KeyService, KmsError};
use crate::mount::control::client::{self, AskError};
use crate::mount::control::protocol::{LeaseState, Obeyed, Request, Response};
use crate::mount::liveness::Life;
use crate::mount::mountinfo::{self, Mount};
use crate::mount::mountpoint::{daemon_of, holders_of};
use crate::volume;

/// The options of every command that mounts have to obey.
#[derive(Debug, Clone, Copy, Args)]
pub struct ObeyArgs {
    /// How long to wait for running mounts to obey, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub timeout: u64,
}

/// How long a mount without a daemon may take to say so.
const PATIENCE: Duration = Duration::from_secs(2);
/// Mounts may take this part of the time to write what is dirty before the key is changed.
const PREPARATION: u32 = 3;

/// What the mounts of a key directory have said about a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Obedience {
    /// The key.
    pub key_id: KeyId,
    /// What each mount did.
    pub mounts: Vec<Obeyed>,
    /// Mounts of which nobody knows.
    pub unanswered: Vec<Unanswered>,
}

/// A mount that did not say that it obeys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Unanswered {
    /// The daemon, if there is one.
    pub process_id: Option<u32>,
    /// What it serves, where that can be found out.
    pub mountpoint: Option<String>,
    /// Why.
    pub reason: String,
}

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            process_id,
            mountpoint,
            reason,
        } = self;
        match (mountpoint, process_id) {
            (Some(path), Some(id)) => write!(f, "{path} (process {id}) has not obeyed: {reason}"),
            (Some(path), None) => write!(f, "{path} has not obeyed: {reason}"),
            (None, Some(id)) => write!(f, "the mount of process {id} has not obeyed: {reason}"),
            (None, None) => write!(f, "{reason}"),
        }
    }
}

/// Has every mount write what is dirty under a key, makes the change, and has every mount obey it. Neither waits longer than
/// `args` says, and no mount can keep the change from being made.
///
/// # Errors
/// Why it was not made. That a mount does not obey is in the result, for [`Obedience::report`].
pub fn change<T>(
    service: &KeyService,
    args: ObeyArgs,
    key_id: KeyId,
    make: impl FnOnce() -> Result<T, CliError>,
) -> Result<(T, Obedience), CliError> {
    let start = Instant::now();
    let patience = Duration::from_secs(args.timeout);
    prepare(service, key_id, start + patience / PREPARATION);
    let made = make()?;
    Ok((made, announce(service, key_id, start + patience)))
}

/// As [`change`], of a key as it was asked for.
///
/// # Errors
/// Why the change was not made.
pub fn change_key<T>(
    service: &KeyService,
    args: ObeyArgs,
    key: &KeyRef,
    make: impl FnOnce(&KeyRef) -> Result<T, KmsError>,
) -> Result<(T, Obedience), CliError> {
    // Not described: who may change it need not be allowed to read about it, and a full disk takes no record of reading.
    let id = match service.resolve(key) {
        Ok(id) => id,
        // The operation itself says so, and writes it down.
        Err(error) => return Err(make(key).err().unwrap_or(error).into()),
    };
    change(service, args, id, || Ok(make(&id.into())?))
}

/// Has every mount write what is dirty under a key, while it works. What cannot be written is a warning: the change must not
/// depend on it.
pub fn prepare(service: &KeyService, key_id: KeyId, deadline: Instant) {
    let asked = match client::ask_all(service.dir(), &Request::Prepare { key_id }, deadline) {
        Ok(asked) => asked,
        Err(error) => return log::warn!("running mounts cannot be asked: {error}"),
    };
    for asked in asked {
        match asked.result {
            Ok(Response::Prepared(prepared)) if prepared.is_complete => {}
            Ok(Response::Prepared(prepared)) => log::warn!(
                "{}: not everything could be written in time; what was not is refused to its writer",
                prepared.mountpoint
            ),
            // It is asked again after the change, and that is what counts.
            Ok(_) | Err(_) => log::debug!("{} did not prepare", asked.socket.display()),
        }
    }
}

/// Tells every mount that a key has changed, and waits until each has said what it did.
#[must_use]
pub fn announce(service: &KeyService, key_id: KeyId, deadline: Instant) -> Obedience {
    let mut obedience = Obedience {
        key_id,
        mounts: Vec::new(),
        unanswered: Vec::new(),
    };
    let asked = client::ask_all(service.dir(), &Request::Obey { key_id }, deadline);
    let asked = asked.unwrap_or_else(|error| {
        obedience.unanswered.push(Unanswered {
            process_id: None,
            mountpoint: None,
            reason: format!("running mounts cannot be listed: {error}"),
        });
        Vec::new()
    });
    for asked in asked {
        let reason = match asked.result {
            Ok(Response::Obeyed(obeyed)) => {
                obedience.mounts.push(obeyed);
                continue;
            }
            Ok(_) => "it gave another answer than it was asked for".to_owned(),
            Err(error @ AskError::Silent) => format!("{error} in time"),
            Err(error) => error.to_string(),
        };
        obedience.unanswered.push(Unanswered {
            process_id: Some(asked.process_id),
            mountpoint: mountpoint_of(asked.process_id),
            reason,
        });
    }
    // Whoever can obey has by now.
    if service.key_status(key_id).is_err() {
        obedience
            .unanswered
            .extend(dead_and_in_use(service.store_id()));
    }
    obedience
}

/// Mounts whose daemon was killed, and that programs still use: what the kernel had cached of open files they can go on
/// reading, and nobody is left who could have it dropped.
fn dead_and_in_use(store: KeyStoreId) -> Vec<Unanswered> {
    let mounts = mountinfo::list().unwrap_or_default();
    let is_dead = |mount: &&Mount| {
        mount.is_cmkfs()
            && may_be_of(mount, store)
            && daemon_of(mount).is_none()
            && Life::of(mount, PATIENCE) != Life::Answers
    };
    let in_use = mounts.iter().filter(is_dead).filter_map(|mount| {
        let holders = holders_of(mount);
        let names: Vec<_> = holders.iter().map(ToString::to_string).collect();
        (!names.is_empty()).then(|| Unanswered {
            process_id: None,
            mountpoint: Some(mount.mountpoint.to_string_lossy().into_owned()),
            reason: format!(
                "its daemon is gone, and what is cached of open files stays readable to {}",
                names.join(", ")
            ),
        })
    });
    in_use.collect()
}

/// Whether the volume of a mount belongs to this key directory, as far as its volume file can be read.
fn may_be_of(mount: &Mount, store: KeyStoreId) -> bool {
    volume::glance(Path::new(&mount.source)).is_none_or(|volume| volume.key_store_id() == store)
}

impl Obedience {
    /// Says what was done, and what each mount did about it.
    ///
    /// # Errors
    /// [`CliError::Unanswered`] where a mount has not said that it obeys.
    pub fn conclude(self, global: &Global, format: Format, done: &str) -> Result<(), CliError> {
        match format {
            Format::Json => {
                output::json(&self)?;
                self.check()
            }
            Format::Table => {
                output::done(global, done)?;
                self.report(global)
            }
        }
    }

    /// Prints what each mount did, a line each.
    ///
    /// # Errors
    /// [`CliError::Unanswered`] where a mount has not said that it obeys.
    pub fn report(self, global: &Global) -> Result<(), CliError> {
        for obeyed in &self.mounts {
            output::done(global, &line(obeyed))?;
        }
        self.check()
    }

    /// Fails where a mount has not said that it obeys.
    ///
    /// # Errors
    /// [`CliError::Unanswered`].
    pub fn check(self) -> Result<(), CliError> {
        if self.unanswered.is_empty() {
            Ok(())
        } else {
            Err(CliError::Unanswered(self.unanswered))
        }
    }
}

/// What a mount did, in words.
#[must_use]
pub fn line(obeyed: &Obeyed) -> String {
    let Obeyed {
        mountpoint,
        lease,
        data_keys_dropped,
        inodes_invalidated,
        names_invalidated,
        is_flushed,
        milliseconds,
        ..
    } = obeyed;
    if *lease == LeaseState::Held {
        return format!("{mountpoint}: may use it");
    }
    let unwritten = if *is_flushed || *data_keys_dropped == 0 {
        ""
    } else {
        "; not everything could be written before"
    };
    let data_keys = output::count(*data_keys_dropped, "data key", "data keys");
    let inodes = output::count(*inodes_invalidated, "inode", "inodes");
    let names = output::count(*names_invalidated, "name", "names");
    format!(
        "{mountpoint}: {data_keys} wiped, {inodes} and {names} dropped, in {milliseconds} ms{unwritten}"
    )
}

fn mountpoint_of(process_id: u32) -> Option<String> {
    let mounts = mountinfo::list().unwrap_or_default();
    let served = |mount: &&Mount| mount.is_cmkfs() && daemon_of(mount) == Some(process_id);
    let mount = mounts.iter().find(served)?;
    Some(mount.mountpoint.to_string_lossy().into_owned())
}
