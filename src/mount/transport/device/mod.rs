//! The device transport: requests are read from `/dev/fuse` and answered there. Going to sleep and being woken costs more than
//! most answers, so while requests come close together whoever reads goes on asking for a while before it sleeps; and where
//! one program asks for one thing after the other, whoever answers it does so on its processor.
//!
//! [`crew`] who reads and who rests · [`pace`] which requests take long · [`affinity`] workers and programs on the same
//! processor, [`whereabouts`] which one that is · [`message`] requests and answers as bytes.

mod affinity;
mod crew;
mod message;
mod pace;
mod whereabouts;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::company::{Best, Company, Others};
use super::dispatch::{self, Outcome, Reply};
use super::handover::Guard;
use super::handshake;
use super::workers::Workers;
use parking_lot::Mutex;

use crate::mount::protocol::{Header, Opcode, split};
use crate::mount::session::{Answer, Service};
use affinity::Affinity;
use crew::{Crew, Number};
use message::{Buffers, Read};
use pace::{Expected, Kind, Pace};

/// How long to go on asking before going to sleep.
const SPIN: Duration = Duration::from_micros(100);
/// Rests of the processor between two questions: the device's lock is for the askers too.
const PAUSES: u32 = 16;
/// Requests that came further apart are not worth it, the time included that it takes to be woken; not the time for which a
/// worker stood back.
const CLOSE: Duration = Duration::from_micros(200);
/// Threads that answer: enough that a few slow fsyncs do not keep everybody else waiting.
const WORKERS: std::ops::RangeInclusive<usize> = 4..=16;

/// What the workers share.
#[derive(Debug)]
struct Device {
    device: Arc<OwnedFd>,
    service: Arc<Service>,
    crew: Crew,
    pace: Pace,
    company: Mutex<Company>,
    /// Who answered last.
    last: AtomicUsize,
    /// Over workers that stand back for those they answer.
    guard: Arc<Guard>,
    /// With one processor there is nobody to come closer while we ask.
    may_spin: bool,
}

/// Starts the threads that serve a device whose handshake is done.
///
/// # Errors
/// Where memory or threads cannot be had.
pub(super) fn start(
    device: Arc<OwnedFd>,
    service: Arc<Service>,
    guard: Arc<Guard>,
    workers: &Workers,
) -> io::Result<()> {
    let processors = std::thread::available_parallelism().map_or(2, usize::from);
    let size = processors.clamp(*WORKERS.start(), *WORKERS.end());
    let readers = processors.min(size);
    let shared = Arc::new(Device {
        device,
        service,
        crew: Crew::new(size, readers),
        pace: Pace::default(),
        company: Mutex::new(Company::of(readers)),
        last: AtomicUsize::new(0),
        guard,
        may_spin: processors > 1,
    });
    for me in 0..shared.crew.size() {
        let buffers = Buffers::new()?;
        let shared = Arc::clone(&shared);
        workers.start(move || shared.work(me, buffers))?;
    }
    workers.start_beside("cmkfs-watch", move || shared.crew.watch())
}

/// What a worker knows of those who ask it.
struct Askers<'a> {
    ear: Ear,
    /// Somebody waited for the last answer.
    were_awaited: bool,
    /// The request after it was there as soon as it was asked for.
    was_there: bool,
    affinity: Affinity<'a>,
}

impl Device {
    fn work(&self, me: Number, mut buffers: Buffers) -> io::Result<()> {
        let result = self.read_and_answer(me, &mut buffers);
        self.crew.end();
        self.guard.end();
        result
    }

    fn read_and_answer(&self, me: Number, buffers: &mut Buffers) -> io::Result<()> {
        let mut askers = Askers {
            ear: Ear::default(),
            were_awaited: false,
            was_there: false,
            affinity: Affinity::new(&self.guard),
        };
        while self.crew.report(me) {
            match self.next(me, buffers, &mut askers)? {
                Read::Request(length) => {
                    self.answer(me, buffers, length, &mut askers);
                    askers.ear.answered = Some(Instant::now());
                }
                Read::Empty => {}
                Read::End => return Ok(()),
            }
            if self.several_ask() || !self.crew.is_on_duty(me) {
                askers.affinity.leave();
            }
        }
        Ok(())
    }

    /// The next request. Empty where another is on duty instead.
    fn next(&self, me: Number, buffers: &mut Buffers, askers: &mut Askers<'_>) -> io::Result<Read> {
        let device = self.device.as_fd();
        askers.was_there = false;
        if self.several_ask() {
            self.crew.call_help();
        } else {
            if !askers.affinity.has_met() {
                let heard = self.wait_awake(device, &askers.ear)?;
                if heard == Heard::Nothing {
                    // Whoever asks next may be anywhere, and this processor another's.
                    askers.affinity.leave();
                }
                let tells = askers.were_awaited && !askers.affinity.has_tried();
                askers.was_there = heard == Heard::AtOnce && tells;
            }
            self.crew.take_leave(me);
            if !self.crew.is_on_duty(me) {
                return Ok(Read::Empty);
            }
        }
        self.crew.quiet();
        let read = buffers.read(device);
        self.crew.busy();
        askers.ear.heard(Instant::now());
        read
    }

    /// Asks for a while whether a request is there, where they come close together.
    fn wait_awake(&self, device: BorrowedFd<'_>, ear: &Ear) -> io::Result<Heard> {
        if message::is_waiting(device)? {
            return Ok(Heard::AtOnce);
        }
        if self.may_spin && ear.is_close {
            let until = Instant::now() + SPIN;
            while Instant::now() < until {
                if message::is_waiting(device)? {
                    return Ok(Heard::Later);
                }
                for _ in 0..PAUSES {
                    std::hint::spin_loop();
                }
            }
        }
        Ok(Heard::Nothing)
    }

    /// Whether several requests at once are to be answered, lately.
    fn several_ask(&self) -> bool {
        self.company.lock().roams()
    }

    /// Whether another request is waiting.
    fn is_waiting(&self) -> bool {
        message::is_waiting(self.device.as_fd()).unwrap_or(false)
    }

    fn answer(&self, me: Number, buffers: &mut Buffers, length: usize, askers: &mut Askers<'_>) {
        let (request, memory) = buffers.both(length);
        let Ok(header) = Header::decode(request) else {
            log::error!("the kernel sent {length} bytes that are no request");
            return;
        };
        let body = request.get(Header::SIZE..).unwrap_or_default();
        let Ok((arg0, rest)) = split(header.opcode, body) else {
            log::error!("the kernel sent a request that cannot be read: {header:?}");
            let malformed = Reply::Error(rustix::io::Errno::IO);
            return message::send(&self.device, header.unique, &malformed, &[]);
        };
        let content = dispatch::content_length(&header, arg0, rest);
        let mut waits = false;
        askers.were_awaited = header.opcode.is_awaited();
        if askers.were_awaited {
            // One that was there before the last answer was out, or is while this one is waited for, is somebody else's.
            let was_last = self.last.swap(me, Ordering::Relaxed) == me;
            let is_alone = was_last && !askers.was_there && !self.is_waiting();
            let others = if is_alone {
                Others::None
            } else {
                Others::AtWork
            };
            let origin = dispatch::origin(&header, arg0);
            let mut company = self.company.lock();
            let best = company.best(others, content, origin);
            waits = askers.ear.is_close && company.is_one_that_waits(content);
            drop(company);
            if best != Best::AtHome {
                askers.affinity.leave();
            }
        }
        let kind = Kind::new(header.opcode, content);
        match self.pace.expect(kind) {
            Expected::Short => {}
            Expected::Long => {
                if self.is_waiting() {
                    askers.affinity.leave();
                    self.crew.hand_over(me);
                }
            }
            Expected::VeryLong => {
                askers.affinity.leave();
                self.crew.hand_over(me);
            }
        }
        let begun = Instant::now();
        self.crew.begin(me, begun);
        // What a program does while the worker stands back is none of it.
        let mut took = None;
        let outcome = if header.opcode.fills_buffer() {
            dispatch::fill(&self.service, &header, arg0, memory)
        } else {
            dispatch::answer(&self.service, &header, arg0, rest)
        };
        let unique = header.unique;
        match outcome {
            Outcome::Said(reply, answer) => {
                askers.affinity.begin(waits && self.crew.is_on_duty(me));
                if askers.affinity.stands_back() {
                    took = Some(begun.elapsed());
                    answer.iter().for_each(Answer::stop_the_clock);
                }
                message::send(&self.device, unique, &reply, memory);
                drop(answer);
                askers.affinity.end(|| self.is_waiting());
            }
            Outcome::Waiting(answer, seek) => {
                let (service, device) = (Arc::clone(&self.service), Arc::clone(&self.device));
                askers.affinity.pass();
                let begun = answer.hand_over();
                self.service.after_write_back(move |waited| {
                    let answer = service.take_over(begun);
                    message::send(&device, unique, &seek.answer(&answer, waited), &[]);
                });
            }
            Outcome::Nothing => askers.affinity.pass(),
        }
        self.crew.finish(me);
        self.pace
            .learn(kind, took.unwrap_or_else(|| begun.elapsed()));
        if matches!(header.opcode, Opcode::FORGET | Opcode::BATCH_FORGET) {
            self.service.rest_from_forgets();
        }
    }
}

/// When a request was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heard {
    AtOnce,
    Later,
    Nothing,
}

/// How close together requests come, as one worker hears them.
#[derive(Debug, Default)]
struct Ear {
    answered: Option<Instant>,
    is_close: bool,
}

impl Ear {
    fn heard(&mut self, now: Instant) {
        self.is_close = self
            .answered
            .is_some_and(|answered| now.duration_since(answered) < CLOSE);
    }
}

/// Shakes hands over a descriptor of a fresh mount.
///
/// # Errors
/// Where the kernel's protocol is not spoken, or the mount is gone already.
pub(super) fn shake_hands(
    device: BorrowedFd<'_>,
    is_read_only: bool,
    with_rings: bool,
) -> io::Result<handshake::Agreed> {
    let mut buffers = Buffers::new()?;
    let Read::Request(length) = buffers.read(device)? else {
        return Err(io::Error::other("the mount was gone before it began"));
    };
    let (request, _) = buffers.both(length);
    let (unique, reply, result) = handshake::answer(request, is_read_only, with_rings)?;
    message::send(device, unique, &reply, &[]);
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_close_when_the_next_comes_soon_after_an_answer() {
        let now = Instant::now();
        let mut ear = Ear::default();
        ear.heard(now);
        assert!(!ear.is_close, "the first is not");
        ear.answered = Some(now);
        ear.heard(now + CLOSE / 2);
        assert!(ear.is_close);
        ear.heard(now + CLOSE);
        assert!(!ear.is_close);
    }
}
