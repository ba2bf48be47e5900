//! One worker: a ring, a queue, one request at a time. A READ is read from the backing file into the payload and decrypted
//! there; the content of a WRITE is encrypted from it.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use parking_lot::Mutex;
use rustix::io::Errno;

use super::errno;
use crate::mount::processors;
use crate::mount::protocol::ring::{self, Command, HEADERS};
use crate::mount::session::{Answer, Service};
use crate::mount::transport::dispatch::{self, Outcome, Reply};
use crate::sys::ring::Ring;

/// What the workers share.
pub(super) struct Shared {
    pub(super) device: Arc<OwnedFd>,
    pub(super) service: Arc<Service>,
    pub(super) queues: Vec<Queue>,
    /// Hears when the kernel goes back to the device.
    pub(super) given_up: Box<dyn Fn(Errno) + Send + Sync>,
}

/// The workers of one queue.
pub(super) struct Queue(Mutex<Counts>);

struct Counts {
    workers: usize,
    /// Those of them that wait for dirty pages.
    waiting: usize,
}

impl Queue {
    pub(super) fn new(workers: usize) -> Self {
        Self(Mutex::new(Counts {
            workers,
            waiting: 0,
        }))
    }
}

/// Serves a queue with a ring until the mount is gone.
pub(super) fn work(shared: &Arc<Shared>, queue: usize, mut ring: Ring) -> io::Result<()> {
    let Ok(number) = u16::try_from(queue) else {
        return Ok(());
    };
    if let Err(error) = processors::sit_on(&[queue]) {
        // Offline, or not allowed for this process: it runs where it may.
        log::debug!("a worker does not sit on processor {queue}: {error}");
    }
    ring.enable()?;
    let register = ring::command(number, 0);
    ring.submit(shared.device(), Command::Register as u32, register)?;
    let mut is_registered = false;
    loop {
        match errno(ring.wait()?) {
            None => is_registered = true,
            // The mount is gone, or this entry was taken back with its request.
            Some(Errno::NOTCONN | Errno::CANCELED | Errno::NODEV | Errno::CONNABORTED) => {
                return Ok(());
            }
            Some(Errno::NOENT) if is_registered => return Ok(()),
            Some(refused) if !is_registered => {
                (shared.given_up)(refused);
                return Ok(());
            }
            Some(error) => return Err(error.into()),
        }
        let (commit, answer) = answer(shared, queue, &mut ring)?;
        let command = ring::command(number, commit);
        ring.submit(shared.device(), Command::CommitAndFetch as u32, command)?;
        // Sent.
        drop(answer);
    }
}

/// Answers the request in the ring's memory: its number, and what is dropped when the answer is sent.
fn answer<'a>(
    shared: &'a Arc<Shared>,
    queue: usize,
    ring: &mut Ring,
) -> io::Result<(u64, Option<Answer<'a>>)> {
    let (headers, payload) = ring.areas();
    let headers = headers.get_mut(..HEADERS).unwrap_or_default();
    let arrived = ring::arrived(headers).map_err(io::Error::other)?;
    let (header, commit) = (arrived.header, arrived.commit_id);
    let length = (arrived.payload_length as usize).min(payload.len());
    let arg0 = arrived.arg0;
    let outcome = if dispatch::fills(header.opcode) {
        dispatch::fill(&shared.service, &header, arg0, payload)
    } else {
        dispatch::answer(&shared.service, &header, arg0, &payload[..length])
    };
    let (reply, answer) = match outcome {
        Outcome::Said(reply, answer) => (reply, answer),
        Outcome::Waiting(answer, seek) => {
            let begun = answer.hand_over();
            let waited = wait(shared, queue);
            let answer = shared.service.take_over(begun);
            (seek.answer(&answer, waited), Some(answer))
        }
        // The rings carry nothing of this kind.
        Outcome::Nothing => (Reply::Filled(0), None),
    };
    let (errno, length) = match &reply {
        Reply::Error(errno) => (Some(*errno), 0),
        Reply::Filled(length) => (None, *length),
        Reply::Fixed(fixed) => (None, put(payload, fixed)?),
        Reply::Bytes(bytes) => (None, put(payload, bytes)?),
    };
    ring::answer(headers, header.unique, errno, length).map_err(io::Error::other)?;
    Ok((commit, answer))
}

fn put(payload: &mut [u8], bytes: &[u8]) -> io::Result<usize> {
    let place = payload.get_mut(..bytes.len());
    place
        .ok_or_else(|| io::Error::other("an answer is longer than the kernel's memory for it"))?
        .copy_from_slice(bytes);
    Ok(bytes.len())
}

/// Waits for dirty pages, with another worker left in the queue to take them.
///
/// # Errors
/// EAGAIN where there is none.
fn wait(shared: &Shared, queue: usize) -> Result<(), Errno> {
    let place = shared.queues.get(queue).ok_or(Errno::IO)?;
    {
        let mut counts = place.0.lock();
        if counts.waiting + 1 >= counts.workers {
            return Err(Errno::AGAIN);
        }
        counts.waiting += 1;
    }
    let written = shared.service.write_back();
    place.0.lock().waiting -= 1;
    written
}
