//! Who reads the device, and who rests. Reading and answering by one thread saves the wake-up of another at each request; but
//! somebody has to be there for the next request when one takes long. So one reads and answers, others rest, and the duty of
//! reading is passed on: before a request that will take long, after one that did ([`Crew::watch`]), and to one more where
//! requests are waiting. At all times somebody is on duty, or all are busy.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

/// How long whoever is on duty may be busy with one request before another takes over.
const STUCK: Duration = Duration::from_millis(1);
/// Ticks without a request after which the watch sleeps until it is needed.
const QUIET_TICKS: u32 = 20;

/// One of the crew, by number.
pub(super) type Number = usize;

#[derive(Debug, Default)]
struct Member {
    /// When it began the request that it is busy with while on duty, in nanoseconds since the crew came together; 0: it is not.
    busy_since: AtomicU64,
    /// Changed under [`Crew::roster`] only.
    is_on_duty: AtomicBool,
    called: Condvar,
}

#[derive(Debug)]
struct Roster {
    resting: Vec<Number>,
    on_duty: usize,
    has_ended: bool,
}

/// The threads that answer requests from the device.
#[derive(Debug)]
pub(super) struct Crew {
    members: Box<[Member]>,
    roster: Mutex<Roster>,
    /// How many may be on duty at once.
    most: usize,
    start: Instant,
    watch: Watch,
}

#[derive(Debug, Default)]
struct Watch {
    is_asleep: AtomicBool,
    turn: Mutex<()>,
    needed: Condvar,
    /// Whether somebody is waiting for requests with nothing to do.
    is_quiet: AtomicBool,
}

impl Crew {
    /// So many, of whom `most` may read at once. Number 0 is on duty.
    pub(super) fn new(size: usize, most: usize) -> Self {
        let members: Box<[Member]> = (0..size.max(1)).map(|_| Member::default()).collect();
        members[0].is_on_duty.store(true, Ordering::Relaxed);
        Self {
            members,
            roster: Mutex::new(Roster {
                resting: Vec::with_capacity(size),
                on_duty: 1,
                has_ended: false,
            }),
            most,
            start: Instant::now(),
            watch: Watch::default(),
        }
    }

    pub(super) fn size(&self) -> usize {
        self.members.len()
    }

    /// Returns when `me` is on duty, and says false when there is nothing left to do.
    pub(super) fn report(&self, me: Number) -> bool {
        let member = &self.members[me];
        let mut roster = self.roster.lock();
        if !member.is_on_duty.load(Ordering::Relaxed) && !roster.has_ended {
            if roster.on_duty == 0 {
                roster.on_duty = 1;
                member.is_on_duty.store(true, Ordering::Relaxed);
            } else {
                roster.resting.push(me);
                while !member.is_on_duty.load(Ordering::Relaxed) && !roster.has_ended {
                    member.called.wait(&mut roster);
                }
            }
        }
        !roster.has_ended
    }

    /// Whether `me` is on duty still: the watch may have called another.
    pub(super) fn is_on_duty(&self, me: Number) -> bool {
        self.members[me].is_on_duty.load(Ordering::Relaxed)
    }

    /// Leaves the duty to another. Stays on duty where everybody else is busy.
    pub(super) fn hand_over(&self, me: Number) {
        let mut roster = self.roster.lock();
        self.relieve(&mut roster, me);
    }

    fn relieve(&self, roster: &mut Roster, who: Number) -> bool {
        if !self.is_on_duty(who) {
            return false;
        }
        let Some(next) = roster.resting.pop() else {
            return false;
        };
        self.members[who].is_on_duty.store(false, Ordering::Relaxed);
        self.call(next);
        true
    }

    fn call(&self, next: Number) {
        let next = &self.members[next];
        next.is_on_duty.store(true, Ordering::Relaxed);
        next.called.notify_one();
    }

    /// Calls one more to read beside those on duty.
    pub(super) fn call_help(&self) {
        let mut roster = self.roster.lock();
        if roster.on_duty < self.most
            && let Some(next) = roster.resting.pop()
        {
            roster.on_duty += 1;
            self.call(next);
        }
    }

    /// Takes leave where others are on duty and there is not enough to do.
    pub(super) fn take_leave(&self, me: Number) {
        let mut roster = self.roster.lock();
        if roster.on_duty > 1 && self.is_on_duty(me) {
            roster.on_duty -= 1;
            self.members[me].is_on_duty.store(false, Ordering::Relaxed);
        }
    }

    /// `me` begins a request while on duty.
    pub(super) fn begin(&self, me: Number, now: Instant) {
        let since = u64::try_from(now.duration_since(self.start).as_nanos()).unwrap_or(u64::MAX);
        self.members[me]
            .busy_since
            .store(since | 1, Ordering::Relaxed);
    }

    /// It has ended.
    pub(super) fn finish(&self, me: Number) {
        self.members[me].busy_since.store(0, Ordering::Relaxed);
    }

    /// Whoever is on duty goes to sleep until a request comes.
    pub(super) fn quiet(&self) {
        self.watch.is_quiet.store(true, Ordering::Relaxed);
    }

    /// A request has come after that.
    pub(super) fn busy(&self) {
        self.watch.is_quiet.store(false, Ordering::SeqCst);
        if self.watch.is_asleep.load(Ordering::SeqCst) {
            let _turn = self.watch.turn.lock();
            self.watch.needed.notify_one();
        }
    }

    /// There are no more requests: everybody goes home.
    pub(super) fn end(&self) {
        let mut roster = self.roster.lock();
        roster.has_ended = true;
        for member in &self.members {
            member.called.notify_one();
        }
        drop(roster);
        self.busy();
    }

    fn has_ended(&self) -> bool {
        self.roster.lock().has_ended
    }

    /// Looks now and then whether all on duty are stuck in a request, and calls others then. Ends with the crew. While
    /// nothing is asked it sleeps.
    pub(super) fn watch(&self) {
        let mut quiet_ticks = 0;
        while !self.has_ended() {
            if quiet_ticks >= QUIET_TICKS {
                self.sleep();
                quiet_ticks = 0;
            }
            std::thread::sleep(STUCK);
            self.relieve_stuck();
            if self.watch.is_quiet.load(Ordering::Relaxed) {
                quiet_ticks += 1;
            } else {
                quiet_ticks = 0;
            }
        }
    }

    fn sleep(&self) {
        let mut turn = self.watch.turn.lock();
        self.watch.is_asleep.store(true, Ordering::SeqCst);
        while self.watch.is_quiet.load(Ordering::SeqCst) && !self.has_ended() {
            self.watch.needed.wait(&mut turn);
        }
        self.watch.is_asleep.store(false, Ordering::SeqCst);
    }

    fn relieve_stuck(&self) {
        let now = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let is_stuck = |member: &Member| {
            let since = member.busy_since.load(Ordering::Relaxed);
            since != 0 && u128::from(now.saturating_sub(since)) > STUCK.as_nanos()
        };
        for (number, member) in self.members.iter().enumerate() {
            if is_stuck(member) && member.is_on_duty.load(Ordering::Relaxed) {
                self.relieve(&mut self.roster.lock(), number);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::mpsc::{Receiver, channel};

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(30);

    /// A crew of which number 0 is the test itself; the others report, and say so.
    fn crew(size: usize, most: usize) -> (Arc<Crew>, Receiver<Number>) {
        let crew = Arc::new(Crew::new(size, most));
        let (tell, told) = channel();
        for me in 1..size {
            let (crew, tell) = (Arc::clone(&crew), tell.clone());
            std::thread::spawn(move || {
                while crew.report(me) {
                    tell.send(me).unwrap();
                    // Busy for as long as it is on duty.
                    while crew.is_on_duty(me) && !crew.has_ended() {
                        std::thread::yield_now();
                    }
                }
            });
        }
        assert!(crew.report(0));
        let until = Instant::now() + DEADLINE;
        while crew.roster.lock().resting.len() < size - 1 {
            assert!(Instant::now() < until);
            std::thread::yield_now();
        }
        (crew, told)
    }

    #[test]
    fn the_duty_goes_to_one_who_rests_and_stays_where_nobody_does() {
        let (crew, told) = crew(2, 1);
        crew.hand_over(0);
        assert!(!crew.is_on_duty(0));
        assert_eq!(told.recv_timeout(DEADLINE), Ok(1));
        let alone = Crew::new(1, 1);
        alone.hand_over(0);
        assert!(alone.is_on_duty(0) && alone.report(0));
        crew.end();
        assert!(!crew.report(0));
    }

    #[test]
    fn help_comes_as_long_as_more_may_be_on_duty_and_leaves_when_it_is_not_needed() {
        let (crew, told) = crew(3, 2);
        crew.call_help();
        crew.call_help();
        let helper = told.recv_timeout(DEADLINE).unwrap();
        assert!(crew.is_on_duty(0) && crew.is_on_duty(helper));
        assert!(told.try_recv().is_err());
        crew.take_leave(helper);
        assert!(!crew.is_on_duty(helper));
        crew.take_leave(0);
        assert!(crew.is_on_duty(0), "the last one stays");
        crew.end();
    }

    #[test]
    fn whoever_is_stuck_is_relieved_and_whoever_is_not_stays() {
        let (crew, told) = crew(2, 1);
        crew.relieve_stuck();
        assert!(crew.is_on_duty(0));
        let watching = Arc::clone(&crew);
        let watch = std::thread::spawn(move || watching.watch());
        crew.begin(0, Instant::now());
        assert_eq!(told.recv_timeout(DEADLINE), Ok(1));
        assert!(!crew.is_on_duty(0));
        crew.finish(0);
        crew.end();
        watch.join().unwrap();
    }

    #[test]
    fn the_watch_sleeps_when_it_is_quiet_and_wakes_when_it_is_not() {
        let (crew, _told) = crew(2, 1);
        let watching = Arc::clone(&crew);
        let watch = std::thread::spawn(move || watching.watch());
        crew.quiet();
        let until = Instant::now() + DEADLINE;
        while !crew.watch.is_asleep.load(Ordering::SeqCst) {
            assert!(Instant::now() < until);
            std::thread::yield_now();
        }
        crew.busy();
        while crew.watch.is_asleep.load(Ordering::SeqCst) {
            assert!(Instant::now() < until);
            std::thread::yield_now();
        }
        crew.end();
        watch.join().unwrap();
    }
}
