//! One worker: a ring, a queue, one request at a time. A READ is read from the backing file into the payload and decrypted
//! there; the content of a WRITE is encrypted from it.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use rustix::io::Errno;

use super::errno;
use super::spares::{Call, Spares};
use crate::fs::NodeId;
use crate::mount::processors::{Place, Seat};
use crate::mount::protocol::ring::{self, Command, HEADERS};
use crate::mount::session::{Answer, Service};
use crate::mount::transport::company::{Best, Company, Origin, Others};
use crate::mount::transport::dispatch::{self, Outcome, Reply};
use crate::mount::transport::handover::Guard;
use crate::sys::ring::Ring;

/// What the workers share.
pub(super) struct Shared {
    pub(super) device: Arc<OwnedFd>,
    pub(super) service: Arc<Service>,
    pub(super) queues: Vec<Queue>,
    pub(super) spares: Spares,
    /// Over workers that stand back for those they answer.
    pub(super) guard: Arc<Guard>,
    /// Hears when the kernel goes back to the device.
    pub(super) given_up: Box<dyn Fn(Errno) + Send + Sync>,
}

/// The workers of one queue.
pub(super) struct Queue {
    counts: Mutex<Counts>,
    /// Which of them answered last ([`Role::number`]).
    last: AtomicUsize,
}

struct Counts {
    workers: usize,
    /// Those of them that wait for dirty pages.
    waiting: usize,
}

impl Queue {
    pub(super) fn new(workers: usize) -> Self {
        Self {
            counts: Mutex::new(Counts {
                workers,
                waiting: 0,
            }),
            last: AtomicUsize::new(0),
        }
    }
}

/// What a worker is, with its number.
#[derive(Debug, Clone, Copy)]
pub(super) enum Role {
    /// One of a queue from the start.
    OfQueue(usize),
    /// One that was called, while somebody waits for this file.
    Spare(usize, NodeId),
}

impl Role {
    /// Whether it is the first of its queue.
    const fn is_first(self) -> bool {
        matches!(self, Self::OfQueue(0))
    }

    /// Its number among those of its queue.
    const fn number(self) -> usize {
        match self {
            Self::OfQueue(number) => 2 * number,
            Self::Spare(number, _) => 2 * number + 1,
        }
    }
}

/// Serves a queue with a ring until the mount is gone.
pub(super) fn work(shared: &Arc<Shared>, queue: usize, me: Role, mut ring: Ring) -> io::Result<()> {
    let (Ok(number), Some(place)) = (u16::try_from(queue), shared.queues.get(queue)) else {
        return Ok(());
    };
    let _leaving = Leaving { shared, place };
    let mut seat = Seat::default();
    seat.sit(Place::At(queue));
    let is_enough = place.counts.lock().workers >= seat.given().len();
    let mut company = Company::of(1);
    let mut handover = shared.guard.worker();
    ring.enable()?;
    let register = ring::command(number, 0);
    ring.submit(shared.device(), Command::Register as u32, register)?;
    if let Role::Spare(number, node) = me {
        log::debug!("a spare worker has come to queue {queue}");
        // To an entry that comes later the kernel gives nothing that waits already; only who answers takes of that. So it
        // gets something to answer.
        match shared.service.nudge(node, number) {
            Ok(true) => {}
            Ok(false) => log::debug!("no nudge: the file is gone"),
            Err(error) => log::warn!("the kernel does not take a nudge: {error}"),
        }
    }
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
                if let Role::OfQueue(_) = me {
                    (shared.given_up)(refused);
                }
                return Ok(());
            }
            Some(error) => return Err(error.into()),
        }
        let Answered {
            commit,
            content,
            origin,
            is_awaited,
            answer,
        } = answer(shared, queue, &mut ring)?;
        let command = ring::command(number, commit);
        if let Some(answer) = &answer {
            answer.stop_the_clock();
        }
        handover.begin(is_awaited && company.is_one_that_waits(content));
        ring.submit(shared.device(), Command::CommitAndFetch as u32, command)?;
        // Sent.
        drop(answer);
        let was_last = place.last.swap(me.number(), Ordering::Relaxed) == me.number();
        let others = match (ring.has_come(), was_last) {
            (true, _) => Others::Queued,
            (false, false) => Others::AtWork,
            (false, true) => Others::None,
        };
        handover.end(ring.is_coming());
        seat.sit(seat_for(
            company.best(others, content, origin),
            queue,
            me,
            is_enough,
        ));
    }
}

/// Where a worker of this queue sits for what is best. `is_enough`: the queue has a worker for each processor, so that others
/// are kept busy while one stays.
const fn seat_for(best: Best, queue: usize, me: Role, is_enough: bool) -> Place {
    match best {
        Best::AtHome => Place::At(queue),
        Best::Spread if is_enough && me.is_first() => Place::At(queue),
        Best::Spread if !is_enough => Place::Anywhere,
        Best::Anywhere => Place::Anywhere,
        Best::Spread => Place::AwayFrom(queue),
    }
}

/// A worker of a queue, which leaves when this is dropped: the mount is gone then, or its rings are.
struct Leaving<'a> {
    shared: &'a Shared,
    place: &'a Queue,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.place.counts.lock().workers -= 1;
        self.shared.spares.end();
    }
}

/// A request that is answered in the ring's memory.
struct Answered<'a> {
    /// Its number.
    commit: u64,
    /// Bytes that came with it or go with its answer.
    content: usize,
    /// Who caused it.
    origin: Origin,
    /// Whether a program waits for it.
    is_awaited: bool,
    /// What is dropped when the answer is sent.
    answer: Option<Answer<'a>>,
}

/// Answers the request in the ring's memory.
fn answer<'a>(shared: &'a Arc<Shared>, queue: usize, ring: &mut Ring) -> io::Result<Answered<'a>> {
    let (headers, payload) = ring.areas();
    let headers = headers.get_mut(..HEADERS).unwrap_or_default();
    let arrived = ring::arrived(headers).map_err(io::Error::other)?;
    let (header, commit) = (arrived.header, arrived.commit_id);
    let length = (arrived.payload_length as usize).min(payload.len());
    let arg0 = arrived.arg0;
    let origin = dispatch::origin(&header, arg0);
    let outcome = if header.opcode.fills_buffer() {
        dispatch::fill(&shared.service, &header, arg0, payload)
    } else {
        dispatch::answer(&shared.service, &header, arg0, &payload[..length])
    };
    let (reply, answer) = match outcome {
        Outcome::Said(reply, answer) => (reply, answer),
        Outcome::Waiting(answer, seek) => {
            let begun = answer.hand_over();
            let waited = wait(shared, queue, header.node);
            let answer = shared.service.take_over(begun);
            (seek.answer(&answer, waited), Some(answer))
        }
        // A nudge. The rings carry nothing else of this kind.
        Outcome::Nothing => (Reply::Filled(0), None),
    };
    let (errno, filled) = match &reply {
        Reply::Error(errno) => (Some(*errno), 0),
        Reply::Filled(length) => (None, *length),
        Reply::Fixed(fixed) => (None, put(payload, fixed)?),
        Reply::Bytes(bytes) => (None, put(payload, bytes)?),
    };
    ring::answer(headers, header.unique, errno, filled).map_err(io::Error::other)?;
    Ok(Answered {
        commit,
        content: length.max(filled),
        origin,
        is_awaited: header.opcode.is_awaited(),
        answer,
    })
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
/// EAGAIN where there is none, nor one in reserve.
fn wait(shared: &Shared, queue: usize, node: NodeId) -> Result<(), Errno> {
    let place = shared.queues.get(queue).ok_or(Errno::IO)?;
    {
        let mut counts = place.counts.lock();
        if counts.waiting + 1 >= counts.workers {
            if !shared.spares.call(Call { queue, node }) {
                return Err(Errno::AGAIN);
            }
            counts.workers += 1;
        }
        counts.waiting += 1;
    }
    let written = shared.service.write_back();
    place.counts.lock().waiting -= 1;
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_requests_the_first_worker_keeps_the_processor_that_asks_busy() {
        let spare = Role::Spare(0, 100);
        for (me, of_few, of_enough) in [
            (Role::OfQueue(0), Place::Anywhere, Place::At(7)),
            (Role::OfQueue(1), Place::Anywhere, Place::AwayFrom(7)),
            (spare, Place::Anywhere, Place::AwayFrom(7)),
        ] {
            assert_eq!(seat_for(Best::Spread, 7, me, false), of_few);
            assert_eq!(seat_for(Best::Spread, 7, me, true), of_enough);
            assert_eq!(seat_for(Best::AtHome, 7, me, true), Place::At(7));
            assert_eq!(seat_for(Best::Anywhere, 7, me, true), Place::Anywhere);
        }
    }
}
