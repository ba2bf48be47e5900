//! The life of a mount: mounted, answering, ended by a signal or by somebody's umount, sealed.

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};

use super::control::handler::Handler;
use super::control::registry::Socket;
use super::control::server::{Reporter, Server};
use super::error::MountError;
use super::mountpoint::{Mounted, Place};
use super::options::MountOptions;
use super::revoke::{self, Watcher};
use super::ticker::Ticker;
use super::transport::{self, Choice, Connected, InUse, Running};
use crate::kms::KeyService;
use crate::volume::Volume;

/// How often files that were closed or have gone quiet are sealed.
const SEALING: Duration = Duration::from_secs(2);

/// How often what was done with data keys is written into the audit log: at most a second late.
const RECORDING: Duration = Duration::from_millis(500);
/// How often deletions, expiries and rotations are done whose time has come.
const DUE: Duration = Duration::from_secs(1);

/// All that a mount needs.
pub struct Job {
    /// The opened volume.
    pub fs: Volume,
    /// Its keys.
    pub keys: Arc<KeyService>,
    /// Where commands reach the mount, since before the volume was opened.
    pub socket: Socket,
    /// Where to mount it.
    pub place: Place,
    /// What shows as the mount's source.
    pub source: OsString,
    /// How to mount it.
    pub options: MountOptions,
}

impl std::fmt::Debug for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job")
            .field("place", &self.place)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// Mounts, calls `ready` once the mount answers, and serves until it is unmounted by whomever. The volume is sealed and
/// closed when this returns.
///
/// # Errors
/// Why it cannot be mounted, or what ended it other than an unmount.
pub fn serve(job: Job, ready: impl FnOnce() -> Result<(), MountError>) -> Result<(), MountError> {
    let Job {
        fs,
        keys,
        socket,
        place,
        source,
        options,
    } = job;
    let fs = Arc::new(fs);
    // Taken before mounting, so that no signal can kill the process and leave a dead mount.
    let signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).map_err(MountError::Session)?;
    if options.enable_uring {
        // Before mounting: that is when the kernel says what it offers.
        transport::switch_on();
    }
    let (mut mounted, device) = Mounted::new(&place, &source, &options)?;
    mounted.lift_write_limit();
    let prepared = transport::prepare(options.transport, device.as_fd());
    // With one thread still, and all that it takes to mount behind it.
    mounted.confine(&fs.directory, keys.dir());
    let mounted = Arc::new(mounted);
    let result = Connected::new(Arc::clone(&fs), &mounted, device, prepared)
        .map_err(MountError::Session)
        .and_then(|connected| {
            run(
                &fs,
                Arc::clone(&keys),
                socket,
                &mounted,
                connected,
                signals,
                ready,
            )
        });
    if result.is_err() {
        // Nobody answers there any more.
        if let Err(error) = mounted.unmount(true) {
            log::error!("{error}");
        }
    }
    let shutdown = fs.shutdown().map_err(MountError::Shutdown);
    // Sealing may have used keys to the last. Should it fail, the service tries again when it goes.
    if let Err(error) = keys.flush_usage() {
        log::error!("{error}");
    }
    result.and(shutdown)
}

/// Says once that nothing can be written down, and once that it can again.
fn record_usage(keys: &KeyService, is_failing: &mut bool) {
    match keys.flush_usage() {
        Ok(()) if *is_failing => {
            log::info!("the audit log can be written again");
            *is_failing = false;
        }
        Err(error) if !*is_failing => {
            log::error!("{error}: no file is opened whose key is not in use already");
            *is_failing = true;
        }
        Ok(()) | Err(_) => {}
    }
}

fn run(
    fs: &Arc<Volume>,
    keys: Arc<KeyService>,
    socket: Socket,
    mounted: &Arc<Mounted>,
    connected: Connected,
    signals: Signals,
    ready: impl FnOnce() -> Result<(), MountError>,
) -> Result<(), MountError> {
    let session = connected.session().clone();
    let stats = session.service.stats();
    let in_use = connected.in_use();
    let watcher = Arc::new(Watcher::new(Arc::clone(fs), session.clone()));
    let (recorded, timely) = (Arc::clone(&keys), Arc::clone(&keys));
    let handler = Handler {
        volume: Arc::clone(fs),
        keys,
        notifier: session.notifier,
        watcher: Arc::clone(&watcher),
        mounted: Arc::clone(mounted),
        stats,
        transport: in_use.clone(),
    };
    let running = connected.serve().map_err(MountError::Session)?;
    let unmounter = Unmounter::start(Arc::clone(mounted), signals).map_err(MountError::Session)?;
    let sealed = Arc::clone(fs);
    let sealer = Ticker::start("cmkfs-seal", SEALING, move || sealed.seal_idle())
        .map_err(MountError::Session)?;
    let watcher = Ticker::start("cmkfs-keys", revoke::INTERVAL, move || watcher.step())
        .map_err(MountError::Session)?;
    let mut is_failing = false;
    let recorder = Ticker::start("cmkfs-audit", RECORDING, move || {
        record_usage(&recorded, &mut is_failing);
    })
    .map_err(MountError::Session)?;
    // On a thread of its own: it may have to wait for another process's change, and the watcher may not.
    let due =
        Ticker::start("cmkfs-due", DUE, move || timely.run_due()).map_err(MountError::Session)?;
    let answer = move |request, reporter: &Reporter<'_>| handler.answer(request, reporter);
    let server = Server::start(socket, answer).map_err(MountError::Session)?;
    let result = announce(mounted, &in_use, ready).and_then(|()| wait(running));
    drop((server, watcher, sealer, recorder, due));
    unmounter.stop();
    result
}

fn announce(
    mounted: &Mounted,
    in_use: &InUse,
    ready: impl FnOnce() -> Result<(), MountError>,
) -> Result<(), MountError> {
    mounted.raise_readahead();
    mounted.probe().map_err(|source| MountError::Silent {
        mountpoint: mounted.path().to_owned(),
        source,
    })?;
    ready()?;
    let Choice { name, reason } = in_use.choice();
    log::info!(
        "mounted on {}, transport {name}: {reason}",
        mounted.path().display()
    );
    Ok(())
}

fn wait(running: Running) -> Result<(), MountError> {
    let result = running.join().map_err(MountError::Session);
    log::info!("unmounted");
    result
}

/// Turns signals into a clean unmount.
struct Unmounter {
    handle: Handle,
    thread: JoinHandle<()>,
}

impl Unmounter {
    fn start(mounted: Arc<Mounted>, mut signals: Signals) -> io::Result<Self> {
        let handle = signals.handle();
        let thread = std::thread::Builder::new().name("cmkfs-signals".to_owned()).spawn(move || {
            let mut asked = false;
            for signal in signals.forever() {
                if asked {
                    log::error!("signal {signal} again: ending at once; the next mount recovers what is not sealed");
                    std::process::exit(1);
                }
                asked = true;
                log::info!("signal {signal}: unmounting");
                leave(&mounted);
            }
        })?;
        Ok(Self { handle, thread })
    }

    fn stop(self) {
        self.handle.close();
        // A thread that panicked has said so on the log.
        let _ = self.thread.join();
    }
}

fn leave(mounted: &Mounted) {
    match mounted.unmount(false) {
        Ok(()) => {}
        Err(error @ MountError::Busy { .. }) => {
            log::warn!("{error}: detaching; ending when the last of them does");
            if let Err(error) = mounted.unmount(true) {
                log::error!("{error}");
            }
        }
        Err(error) => log::error!("{error}"),
    }
}
