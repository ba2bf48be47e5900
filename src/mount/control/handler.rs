//! What each request does in a mount. This is the place to add one: a variant of `Request`, one of `Response`, an arm here.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use super::protocol::{
    Bound, Failed, KeyInUse, LeaseState, MountStats, Obeyed, Prepared, Reason, Request, Response,
    Status,
};
use super::server::{Reporter, failed};
use crate::fs::keys::KeyUnavailable;
use crate::ids::KeyId;
use crate::kms::KeyService;
use crate::kms::key::KeyRef;
use crate::mount::mountpoint::Mounted;
use crate::mount::revoke::Watcher;
use crate::mount::session::Notifier;
use crate::mount::stats::Stats;
use crate::mount::transport::InUse;
use crate::sys::locked;
use crate::volume::keys::binding_of;
use crate::volume::sweep::Progress;
use crate::volume::{Volume, VolumeError, rekey, rewrap, verify};

/// A running mount, as its control socket sees it.
pub struct Handler {
    /// The volume.
    pub volume: Arc<Volume>,
    /// Its keys.
    pub keys: Arc<KeyService>,
    /// Tells the kernel what it has to drop.
    pub notifier: Notifier,
    /// What withdraws keys and gives them back.
    pub watcher: Arc<Watcher>,
    /// The mount.
    pub mounted: Arc<Mounted>,
    /// What it was asked.
    pub stats: Arc<Stats>,
    /// How it is asked.
    pub transport: InUse,
}

impl std::fmt::Debug for Handler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handler").finish_non_exhaustive()
    }
}

impl Handler {
    /// Does what is asked. `reporter` is for what takes long.
    #[must_use]
    pub fn answer(&self, request: Request, reporter: &Reporter<'_>) -> Response {
        match request {
            Request::Prepare { key_id } => self.prepare(key_id),
            Request::Obey { key_id } => self.obey(key_id),
            Request::Bind { node, key } => self.bind(node, &key),
            Request::Status => self.status(),
            Request::Stats => Response::Stats(MountStats {
                mountpoint: self.mountpoint(),
                operations: self.stats.list(),
            }),
            Request::Rekey { directory } => {
                let mut progress = listened_to(reporter, "objects");
                match rekey::rekey(&self.volume, directory, &mut progress) {
                    Ok(report) => Response::Rekeyed(report),
                    Err(error) => refused(&error),
                }
            }
            Request::Rewrap { directory, to } => self.rewrap(directory, to.as_deref(), reporter),
            Request::Verify { directory } => self.verify(directory, reporter),
        }
    }

    fn verify(&self, directory: u64, reporter: &Reporter<'_>) -> Response {
        let mut watch = |event: verify::Event<'_>| {
            let is_heard = match event {
                verify::Event::Progress(totals) => {
                    let bytes = format!("objects, {} bytes", totals.bytes);
                    reporter.report(totals.objects(), 0, &bytes)
                }
                verify::Event::Found(finding) => reporter.tell(&Response::Finding(finding.clone())),
            };
            if is_heard {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        };
        match verify::verify(&self.volume, directory, verify::Mode::InUse, &mut watch) {
            // They were told one by one: there may be more of them than one line holds.
            Ok(report) => Response::Verified(verify::Report {
                findings: Vec::new(),
                ..report
            }),
            Err(error) => refused(&error),
        }
    }

    fn prepare(&self, key_id: KeyId) -> Response {
        Response::Prepared(Prepared {
            mountpoint: self.mountpoint(),
            is_complete: self.watcher.prepare(key_id),
        })
    }

    fn obey(&self, key_id: KeyId) -> Response {
        let (lease, withdrawal) = self.watcher.obey(key_id);
        if lease == Err(KeyUnavailable::Store) {
            return failed(
                "the key store cannot be read; the log of the mount says why".to_owned(),
            );
        }
        Response::Obeyed(Obeyed {
            mountpoint: self.mountpoint(),
            volume_id: self.volume.volume_id(),
            key_id,
            lease: lease.into(),
            data_keys_dropped: withdrawal.data_keys,
            inodes_invalidated: withdrawal.inodes,
            names_invalidated: withdrawal.names,
            is_flushed: withdrawal.is_flushed,
            milliseconds: u64::try_from(withdrawal.took.as_millis()).unwrap_or(u64::MAX),
        })
    }

    fn bind(&self, node: u64, key: &str) -> Response {
        let key: KeyRef = match key.parse() {
            Ok(key) => key,
            Err(error) => return failed(error.to_string()),
        };
        let binding = binding_of(&key);
        if let Err(error) = self.volume.bind(node, &binding) {
            return Response::Failed(Failed {
                reason: (&error).into(),
                message: error.to_string(),
            });
        }
        // Its times have changed without the kernel's doing.
        if let Err(error) = self.notifier.attributes(node) {
            log::warn!("the kernel keeps what it has cached of inode {node}: {error}");
        }
        log::info!("inode {node} is bound to {binding}");
        Response::Bound(Bound {
            mountpoint: self.mountpoint(),
            binding: binding.to_string(),
        })
    }

    fn status(&self) -> Response {
        let keys = self.volume.leases().list();
        let in_use = |key_id| self.volume.leases().data_keys(key_id);
        let figures = self.volume.figures();
        let key_memory = locked::usage();
        Response::Status(Status {
            process_id: std::process::id(),
            mountpoint: self.mountpoint(),
            ciphertext: text(&self.volume.directory),
            volume_id: self.volume.volume_id(),
            read_only: self.volume.read_only(),
            keys: keys
                .into_iter()
                .map(|(key_id, lease)| KeyInUse {
                    key_id,
                    lease: lease.into(),
                    data_keys: in_use(key_id),
                })
                .collect(),
            inodes: figures.inodes,
            open_files: figures.open_files,
            open_directories: figures.open_directories,
            transport: Some(self.transport.choice()),
            confinement: self.mounted.confinement().clone(),
            locked_key_bytes: key_memory.locked,
            unlocked_key_bytes: key_memory.unlocked,
        })
    }

    fn rewrap(&self, directory: u64, to: Option<&str>, reporter: &Reporter<'_>) -> Response {
        let to = match to.map(str::parse::<KeyRef>).transpose() {
            Ok(to) => to.as_ref().map(binding_of),
            Err(error) => return failed(error.to_string()),
        };
        let mut progress = listened_to(reporter, "objects");
        let volume = &self.volume;
        match rewrap::rewrap(volume, directory, to.as_ref(), &mut progress) {
            Ok(report) => Response::Rewrapped(report),
            Err(error) => refused(&error),
        }
    }

    fn mountpoint(&self) -> String {
        text(self.mounted.path())
    }
}

/// Reports progress, and breaks off where nobody listens any more.
fn listened_to(reporter: &Reporter<'_>, what: &str) -> impl FnMut(Progress) -> ControlFlow<()> {
    move |at| {
        if reporter.report(at.done, at.total, what) {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    }
}

fn refused(error: &VolumeError) -> Response {
    let reason = match error {
        VolumeError::Filesystem { source, .. } => source.into(),
        VolumeError::Damaged { .. } => Reason::Damaged,
        _ => Reason::Other,
    };
    let message = error.to_string();
    Response::Failed(Failed { reason, message })
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

impl From<Result<(), KeyUnavailable>> for LeaseState {
    fn from(lease: Result<(), KeyUnavailable>) -> Self {
        match lease {
            Ok(()) => Self::Held,
            Err(KeyUnavailable::Disabled) => Self::Disabled,
            Err(KeyUnavailable::PendingDeletion) => Self::PendingDeletion,
            Err(KeyUnavailable::NoMaterial) => Self::NoMaterial,
            Err(KeyUnavailable::Expired) => Self::Expired,
            Err(KeyUnavailable::Rejected) => Self::Rejected,
            Err(KeyUnavailable::Denied) => Self::Denied,
            Err(KeyUnavailable::Store) => Self::StoreUnreadable,
        }
    }
}
