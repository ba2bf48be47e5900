//! Where a program goes on that is answered. It waited on the processor of the worker that answers it, and the kernel leaves
//! it there only if that has nothing else to do; otherwise it sends it to an idle one, and to wake that one, and the next
//! worker there, takes longer than to answer. A worker whose program asks for one thing after the other has nothing else to
//! do. So it stands back (`SCHED_IDLE`) while it hands an answer over, and the program goes on where it was. Where the
//! program has asked for the next thing already, it stays so.
//!
//! While a worker stands back, everybody else who wants its processor goes first. So that this holds nobody up, it stops for
//! a while where it took long ([`Trust`]), and is called back where it takes too long ([`Guard`]).

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rustix::thread::Pid;

use crate::mount::processors;
use crate::sys::scheduling::{self, Policy};

/// A program that waits for one answer after the other takes less until it asks for the next.
const PROMPT: Duration = Duration::from_millis(1);
/// How many threads want a processor, behind the third slash (proc_loadavg(5)).
const LOAD: &str = "/proc/loadavg";
/// How often is looked whether a worker has to be called back, while any stands back.
const WATCH: Duration = Duration::from_millis(5);

/// Calls workers back that others keep from the processor.
#[derive(Debug)]
pub(super) struct Guard {
    start: Instant,
    /// [`OFF`], [`ASLEEP`], [`WATCHING`] or [`IN_USE`].
    state: AtomicU8,
    marks: Mutex<Vec<Arc<Mark>>>,
    woken: Condvar,
    /// `None` where the system does not say.
    load: Option<File>,
    processors: usize,
}

/// Nobody may stand back: it is not possible, or the mount is gone.
const OFF: u8 = 0;
/// None has for a while, and none is watched.
const ASLEEP: u8 = 1;
/// None has since it was looked last.
const WATCHING: u8 = 2;
/// One has.
const IN_USE: u8 = 3;

/// What a worker lets the guard know.
#[derive(Debug)]
struct Mark {
    thread: Pid,
    /// Nanoseconds from [`Guard::start`] to when it last did something while it stood back; 0 where it does not.
    since: AtomicU64,
    /// The guard has called it back.
    was_called: AtomicBool,
}

impl Guard {
    /// For workers that may stand back, where threads of this process can.
    pub(super) fn new() -> Self {
        let state = if is_possible() { ASLEEP } else { OFF };
        Self {
            start: Instant::now(),
            state: AtomicU8::new(state),
            marks: Mutex::default(),
            woken: Condvar::new(),
            load: File::open(LOAD).ok(),
            processors: processors::given().len(),
        }
    }

    /// The calling thread's way of handing over.
    pub(super) fn worker(&self) -> Handover<'_> {
        let mark = Arc::new(Mark {
            thread: rustix::thread::gettid(),
            since: AtomicU64::new(0),
            was_called: AtomicBool::new(false),
        });
        self.marks.lock().push(Arc::clone(&mark));
        Handover {
            guard: self,
            mark,
            stands_back: false,
            trust: Trust::default(),
        }
    }

    /// Watches over the workers until [`Guard::end`].
    pub(super) fn watch(&self) {
        let mut marks = self.marks.lock();
        loop {
            match self.state.load(Ordering::Acquire) {
                OFF => {
                    marks.iter().for_each(|mark| mark.call_back());
                    return;
                }
                ASLEEP => {
                    self.woken.wait(&mut marks);
                    continue;
                }
                _ => {}
            }
            self.change(IN_USE, WATCHING);
            self.woken.wait_for(&mut marks, WATCH);
            let now = self.now();
            let standing_back = marks.iter().filter(|mark| mark.is_watched(now)).count();
            if standing_back == 0 {
                self.change(WATCHING, ASLEEP);
            }
        }
    }

    /// The mount is gone.
    pub(super) fn end(&self) {
        let _marks = self.marks.lock();
        self.state.store(OFF, Ordering::Release);
        self.woken.notify_all();
    }

    /// Somebody is about to stand back. Says whether that may be.
    fn watches(&self) -> bool {
        match self.state.load(Ordering::Relaxed) {
            OFF => return false,
            IN_USE => return true,
            _ => {}
        }
        if self.change(WATCHING, IN_USE) {
            return true;
        }
        let _marks = self.marks.lock();
        let is_on = self.change(ASLEEP, IN_USE) || self.state.load(Ordering::Acquire) != OFF;
        self.woken.notify_all();
        is_on
    }

    /// Or has never begun.
    fn has_ended(&self) -> bool {
        self.state.load(Ordering::Acquire) == OFF
    }

    /// Whether others want as many processors as there are; with fewer, one is left for them that is not the calling thread's.
    fn others_want_all(&self) -> bool {
        self.wanting() > self.processors
    }

    /// Whether anybody wants one but the calling thread, this one or another.
    fn others_want_any(&self) -> bool {
        self.wanting() > 1
    }

    /// How many threads want a processor; very many where that is not known.
    fn wanting(&self) -> usize {
        let mut text = [0; 64];
        let load = self.load.as_ref().and_then(|load| {
            let length = load.read_at(&mut text, 0).ok()?;
            wanting(text.get(..length)?)
        });
        load.unwrap_or(usize::MAX)
    }

    fn change(&self, from: u8, to: u8) -> bool {
        let changed = self
            .state
            .compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire);
        changed.is_ok()
    }

    /// Never 0.
    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos())
            .unwrap_or(u64::MAX)
            .max(1)
    }
}

impl Mark {
    /// Whether the worker stands back. It is called back if it has for too long.
    fn is_watched(&self, now: u64) -> bool {
        let since = self.since.load(Ordering::Acquire);
        if since != 0 && !is_prompt(since, now) {
            self.call_back();
        }
        since != 0
    }

    fn call_back(&self) {
        if self.was_called.swap(true, Ordering::AcqRel) {
            return;
        }
        if let Err(error) = scheduling::set_policy(Some(self.thread), Policy::Other) {
            log::warn!("a worker that stands back cannot be called: {error}");
        }
    }
}

/// How many threads want a processor: `0.20 0.18 0.12 1/80 11206`.
fn wanting(load: &[u8]) -> Option<usize> {
    let running = str::from_utf8(load).ok()?.split(' ').nth(3)?;
    running.split('/').next()?.parse().ok()
}

fn is_prompt(since: u64, now: u64) -> bool {
    u128::from(now.saturating_sub(since)) <= PROMPT.as_nanos()
}

/// Whether threads of this process can stand back, and come back again.
fn is_possible() -> bool {
    // On a thread of its own: it may not come back.
    let tried = std::thread::Builder::new().spawn(|| {
        if scheduling::policy()? != Some(Policy::Other) {
            return Ok(false);
        }
        scheduling::set_policy(None, Policy::Idle)?;
        scheduling::set_policy(None, Policy::Other)?;
        Ok(true)
    });
    match tried.map(std::thread::JoinHandle::join) {
        Ok(Ok(Ok(is_possible))) => is_possible,
        Ok(Ok(Err(error))) | Err(error) => {
            log::debug!("workers do not stand back for those they answer: {error}");
            false
        }
        Ok(Err(_panicked)) => false,
    }
}

/// How one worker hands its answers over.
#[derive(Debug)]
pub(super) struct Handover<'a> {
    guard: &'a Guard,
    mark: Arc<Mark>,
    stands_back: bool,
    trust: Trust,
}

impl Handover<'_> {
    /// An answer is about to be sent, to a program that `waits` for nothing else.
    pub(super) fn begin(&mut self, waits: bool) {
        if self.stands_back && !self.was_prompt() {
            self.come_back();
        }
        let wishes = waits && self.is_worth_trying();
        if wishes {
            // Before the guard is told, lest it does not see it and goes to sleep.
            if !self.stands_back {
                self.mark.was_called.store(false, Ordering::Release);
            }
            self.mark.since.store(self.guard.now(), Ordering::Release);
        }
        if wishes && self.guard.watches() {
            self.stand_back();
        } else if self.stands_back || wishes {
            self.come_back();
        }
    }

    /// Whether it may at the next answer: not where threads of this process cannot, nor while others want the processors.
    pub(super) fn may_stand_back(&self) -> bool {
        self.trust.rest == 0 && !self.guard.has_ended()
    }

    /// Whether the worker stands back.
    pub(super) const fn stands_back(&self) -> bool {
        self.stands_back
    }

    /// The answer has been sent; the next request is there already, or not.
    pub(super) fn end(&mut self, next_is_there: bool) {
        if !self.stands_back {
            return;
        }
        if self.was_prompt() && next_is_there {
            self.mark.since.store(self.guard.now(), Ordering::Release);
        } else {
            self.come_back();
        }
    }

    /// The worker turns to something else.
    pub(super) fn leave(&mut self) {
        if self.stands_back {
            self.come_back();
        }
    }

    fn is_worth_trying(&mut self) -> bool {
        match self.trust.next() {
            Next::Rests => false,
            Next::Asks => {
                let others_want_all = self.guard.others_want_all();
                if others_want_all {
                    self.trust.rest();
                }
                !others_want_all
            }
            Next::Tries => true,
        }
    }

    fn stand_back(&mut self) {
        if self.stands_back {
            return;
        }
        match scheduling::set_policy(None, Policy::Idle) {
            Ok(()) => {
                self.stands_back = true;
                // It was called before it had gone, or nobody will call any more.
                let was_called = self.mark.was_called.load(Ordering::Acquire);
                if was_called || self.guard.has_ended() {
                    self.come_back();
                }
            }
            Err(error) => {
                log::debug!("a worker cannot stand back: {error}");
                self.mark.since.store(0, Ordering::Release);
            }
        }
    }

    /// Whether what it did since it said something was done in no time.
    fn was_prompt(&mut self) -> bool {
        let since = self.mark.since.load(Ordering::Relaxed);
        let was_called = self.mark.was_called.swap(false, Ordering::AcqRel);
        let was_prompt = is_prompt(since, self.guard.now()) && !was_called;
        // Where nobody else is there, it was the program that took its time, or the disk.
        if !was_prompt && self.guard.others_want_any() {
            self.trust.rest();
        }
        was_prompt
    }

    fn come_back(&mut self) {
        if self.stands_back
            && let Err(error) = scheduling::set_policy(None, Policy::Other)
        {
            log::warn!("a worker cannot stop standing back: {error}");
        }
        self.stands_back = false;
        self.mark.since.store(0, Ordering::Release);
    }
}

impl Drop for Handover<'_> {
    fn drop(&mut self) {
        self.come_back();
        // Its number may be another thread's soon.
        self.guard
            .marks
            .lock()
            .retain(|mark| !Arc::ptr_eq(mark, &self.mark));
    }
}

/// Whether to stand back: not where others want every processor. They would take the worker's share, and it would not get it
/// back when it is needed.
#[derive(Debug, Default)]
struct Trust {
    /// Answers until it is tried again.
    rest: u32,
    /// How many they were, last time.
    rested: u32,
    /// How often it was tried since, and was good.
    tried: u32,
}

/// What is best for the next answer.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// To stand back.
    Tries,
    /// To find out first what others want.
    Asks,
    /// To hand it over like any thread.
    Rests,
}

impl Trust {
    /// It asks before it tries so often.
    const TRIES: u32 = 256;
    /// So many answers are handed over in the ordinary way where others want the processors, and [`Trust::MORE`] times as many
    /// where they do again before it was good [`Trust::FORGIVEN`] times.
    const REST: u32 = 64;
    const MORE: u32 = 8;
    const FORGIVEN: u32 = 1024;
    const LONGEST_REST: u32 = 8192;

    fn next(&mut self) -> Next {
        if self.rest > 0 {
            self.rest -= 1;
            return Next::Rests;
        }
        let asks = self.tried.is_multiple_of(Self::TRIES);
        self.tried += 1;
        if self.tried == Self::FORGIVEN {
            (self.tried, self.rested) = (0, 0);
        }
        if asks { Next::Asks } else { Next::Tries }
    }

    /// Others want the processors.
    fn rest(&mut self) {
        self.rested = (Self::MORE * self.rested).clamp(Self::REST, Self::LONGEST_REST);
        (self.rest, self.tried) = (self.rested, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> Policy {
        scheduling::policy().unwrap().unwrap()
    }

    /// Whatever else goes on here.
    fn tries() -> Trust {
        Trust {
            tried: 1,
            ..Trust::default()
        }
    }

    /// A guard over the calling thread, which takes CAP_SYS_NICE.
    fn guard() -> Guard {
        let guard = Guard::new();
        assert_ne!(guard.state.load(Ordering::Acquire), OFF, "CAP_SYS_NICE?");
        guard
    }

    fn eventually(what: &str, is_so: impl Fn() -> bool) {
        let clock = Instant::now();
        while !is_so() {
            assert!(clock.elapsed() < Duration::from_secs(30), "{what}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn a_worker_stands_back_until_nothing_waits_for_it() {
        let guard = guard();
        let mut handover = guard.worker();
        handover.trust = tries();
        handover.begin(false);
        assert_eq!(policy(), Policy::Other);
        handover.end(true);
        handover.begin(true);
        assert_eq!(policy(), Policy::Idle);
        // However long it took.
        handover.end(false);
        assert_eq!(policy(), Policy::Other);
        handover.trust = tries();
        handover.begin(true);
        assert_eq!(policy(), Policy::Idle);
        handover.begin(false);
        assert_eq!(policy(), Policy::Other);
        handover.trust = tries();
        handover.begin(true);
        drop(handover);
        assert_eq!(policy(), Policy::Other);
        let mut handover = guard.worker();
        assert!(handover.may_stand_back());
        guard.end();
        assert!(!handover.may_stand_back());
        handover.trust = tries();
        handover.begin(true);
        assert_eq!(policy(), Policy::Other);
    }

    #[test]
    fn one_that_does_not_come_back_is_called() {
        let guard = guard();
        std::thread::scope(|scope| {
            scope.spawn(|| guard.watch());
            let mut handover = guard.worker();
            for _ in 0..3 {
                handover.trust = tries();
                handover.begin(true);
                eventually("called", || policy() == Policy::Other);
                handover.end(true);
                assert!(!handover.stands_back);
            }
            drop(handover);
            assert!(guard.marks.lock().is_empty());
            guard.end();
        });
    }

    #[test]
    fn all_are_called_when_the_guard_goes() {
        let guard = guard();
        let mut handover = guard.worker();
        handover.trust = tries();
        handover.begin(true);
        assert_eq!(policy(), Policy::Idle);
        guard.end();
        guard.watch();
        assert_eq!(policy(), Policy::Other);
    }

    #[test]
    fn a_guard_sleeps_while_nobody_stands_back() {
        let guard = guard();
        std::thread::scope(|scope| {
            scope.spawn(|| guard.watch());
            let mut handover = guard.worker();
            for _ in 0..3 {
                handover.trust = tries();
                handover.begin(true);
                assert_ne!(guard.state.load(Ordering::Acquire), ASLEEP);
                handover.end(false);
                eventually("asleep", || guard.state.load(Ordering::Acquire) == ASLEEP);
            }
            drop(handover);
            guard.end();
        });
    }

    #[test]
    fn trust_is_lost_where_others_want_the_processors_and_longer_each_time() {
        let mut trust = Trust::default();
        let rests = |trust: &mut Trust| {
            let rests = (0..).take_while(|_| trust.next() == Next::Rests).count();
            u32::try_from(rests).unwrap()
        };
        for expected in [0, 64, 512, 4096, 8192, 8192] {
            // The one that ends the rest asks.
            assert_eq!(rests(&mut trust), expected);
            trust.rest();
        }
        assert_eq!(rests(&mut trust), Trust::LONGEST_REST);
        for number in 1..Trust::FORGIVEN {
            let asks = number.is_multiple_of(Trust::TRIES);
            let expected = if asks { Next::Asks } else { Next::Tries };
            assert_eq!(trust.next(), expected);
        }
        trust.rest();
        assert_eq!(rests(&mut trust), Trust::REST);
    }

    #[test]
    fn the_system_says_how_many_want_a_processor() {
        assert_eq!(wanting(b"0.20 0.18 0.12 3/80 11206\n"), Some(3));
        assert_eq!(wanting(b"0.20 0.18"), None);
        assert_eq!(wanting(b""), None);
        let guard = Guard {
            processors: 1,
            ..Guard::new()
        };
        let is_done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_done.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
            let (this, that) = (guard.others_want_any(), guard.others_want_all());
            is_done.store(true, Ordering::Relaxed);
            assert!(this && that);
        });
    }
}
