//! The ring transport: FUSE-over-io-uring (Linux 6.14). Each processor has a queue, and its requests are answered on that
//! processor, where nobody on another one has to be woken; long ones and many at once also, or only, on others. What the rings
//! do not carry (FORGET, INTERRUPT, and everything if the kernel gives the rings up) goes through the device transport, which
//! runs beside.
//!
//! A worker has a ring with one entry: an entry of a worker that is busy would hold up the request that the kernel puts there.
//! [`worker`] answers, on a processor that [`company`](super::company) chooses; [`spares`] step in for workers that wait for others.

mod spares;
mod worker;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::io::Errno;

use super::handover::Guard;
use super::workers::Workers;
use crate::mount::processors;
use crate::mount::protocol::ring::{self, Command};
use crate::mount::session::{MAX_WRITE, Service};
use crate::sys::ring::Ring;
use spares::Spares;
use worker::{Queue, Role, Shared};

/// Workers for each processor: one that waits for the disk does not keep others from going on. Of more than these, as many
/// as there are requests would be at work at once, each with its own memory: measured, that is slower.
const WORKERS: usize = 4;
/// With more processors than this, half as many for each: threads for processors that are seldom all busy cost memory.
const MANY_PROCESSORS: usize = 8;
/// With more than this the device does as well.
const MOST_PROCESSORS: usize = 256;
/// More of them, all processors together, for those that wait for dirty pages.
const SPARE: usize = 64;

/// Rings that are made already: the mount's process may make none later (`mount::confine`).
#[derive(Debug)]
pub(super) struct Rings {
    /// For each queue.
    queues: Vec<Vec<Ring>>,
    spare: Vec<Ring>,
}

/// Why there are none.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoRings {
    #[error("the number of processors is not known, or over {MOST_PROCESSORS}")]
    Processors,
    #[error("this process may not run on every processor")]
    Kept,
    #[error("rings cannot be made: {0}")]
    Make(#[source] io::Error),
    #[error("the kernel does not take rings: {0}")]
    Refused(Errno),
}

impl Rings {
    /// Makes them, and tries whether the kernel takes rings for this device. That has to be before INIT: it says so then by
    /// asking to try later, and afterwards it would keep every request back until it has its rings.
    pub(super) fn new(device: BorrowedFd<'_>) -> Result<Self, NoRings> {
        let possible = processors::possible().ok_or(NoRings::Processors)?;
        if possible > MOST_PROCESSORS {
            return Err(NoRings::Processors);
        }
        // Requests wait in the queue of the processor that asks, and some are found there only from it.
        if !processors::may_use_all() {
            return Err(NoRings::Kept);
        }
        try_one(device)?;
        let online = processors::online();
        let many = if possible > MANY_PROCESSORS {
            WORKERS / 2
        } else {
            WORKERS
        };
        let make = |count: usize| -> Result<Vec<Ring>, NoRings> {
            let rings = (0..count).map(|_| Ring::new(payload()));
            rings.collect::<io::Result<_>>().map_err(NoRings::Make)
        };
        let queues =
            (0..possible).map(|queue| make(if online.contains(&queue) { many } else { 1 }));
        Ok(Self {
            queues: queues.collect::<Result<_, _>>()?,
            spare: make(SPARE)?,
        })
    }
}

fn payload() -> usize {
    // What was asked for; the kernel may have agreed to less.
    ring::payload_size(MAX_WRITE, 0, 4096)
}

fn try_one(device: BorrowedFd<'_>) -> Result<(), NoRings> {
    let mut ring = Ring::new(payload()).map_err(NoRings::Make)?;
    ring.enable().map_err(NoRings::Make)?;
    ring.submit(device, Command::Register as u32, ring::command(0, 0))
        .map_err(NoRings::Make)?;
    match errno(ring.wait().map_err(NoRings::Make)?) {
        Some(Errno::AGAIN) => Ok(()),
        Some(refused) => Err(NoRings::Refused(refused)),
        None => Err(NoRings::Refused(Errno::PROTO)),
    }
}

/// What a command has ended with.
fn errno(result: i32) -> Option<Errno> {
    (result < 0).then(|| Errno::from_raw_os_error(-result))
}

/// Starts the workers. They have their rings taken by the kernel, which sends requests their way once each queue has one.
///
/// # Errors
/// Where threads cannot be had.
pub(super) fn start(
    rings: Rings,
    device: Arc<OwnedFd>,
    service: Arc<Service>,
    guard: Arc<Guard>,
    workers: &Workers,
    given_up: impl Fn(Errno) + Send + Sync + 'static,
) -> io::Result<()> {
    let queues = rings.queues.iter();
    let shared = Arc::new(Shared {
        device,
        service,
        queues: queues.map(|rings| Queue::new(rings.len())).collect(),
        spares: Spares::new(rings.spare.len()),
        guard,
        given_up: Box::new(given_up),
    });
    for (number, rings) in rings.queues.into_iter().enumerate() {
        for (me, ring) in rings.into_iter().enumerate() {
            let shared = Arc::clone(&shared);
            workers.start(move || worker::work(&shared, number, Role::OfQueue(me), ring))?;
        }
    }
    for (me, ring) in rings.spare.into_iter().enumerate() {
        let shared = Arc::clone(&shared);
        workers.start(move || match shared.spares.wait() {
            Some(call) => worker::work(&shared, call.queue, Role::Spare(me, call.node), ring),
            None => Ok(()),
        })?;
    }
    Ok(())
}

impl Shared {
    fn device(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}
