//! Where a worker's next request is best answered: what it had to do lately tells.
//!
//! On the processor that asks, where a program waits for one answer after the other: no other processor has to be woken. On
//! any, where the program goes on meanwhile, as it does when the kernel reads ahead or writes back for it (long requests), or
//! when it has many at once (requests that other workers have too: of workers that wait at a ring the kernel takes the one that
//! came last, so one program that waits always has the same; the device has one such account for all its workers). And by one
//! worker there and all others away from it, where more wait than there are workers: whoever asks so much has to wait now and
//! then, and its processor would be idle, while workers that may go anywhere share another.

/// Bytes of content from which on a request is long.
const LONG: usize = 128 << 10;
/// So many requests more in company than alone, and a worker roams until they are even again.
const ENOUGH: u32 = 8;
/// After so many it finds out anew, at home: a worker that is elsewhere is slower to come back, so others are called where one
/// would do. Each time in vain it waits [`MORE`] times as long, up to [`LONGEST`]: a try costs, for at home it gets its turn
/// after whoever else wants that processor.
const LONG_ENOUGH: u32 = 512;
const MORE: u32 = 2;
const LONGEST: u32 = 8192;
/// So many requests in company then, and it roams again.
const TRIES: u32 = 3;
/// With as many requests in company more than alone as this, nobody is taken for a program that waits, until it has been at
/// home for [`SETTLED`] times as many requests as it takes to roam.
const FEW: u32 = ENOUGH / 2;
const SETTLED: u32 = 2;
/// A request behind which the next was there already outweighs so many others: more wait than there are workers while it is
/// so behind more than one in three.
const MANY: u32 = 2;

/// Whoever else has requests, when one is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Others {
    /// Nobody.
    None,
    /// Another worker has one.
    AtWork,
    /// The next was there already.
    Queued,
}

/// Who causes a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// A program's; also what the kernel reads ahead of it.
    Program,
    /// The kernel's, which writes many at once; whoever caused it goes on, or waits for all of it.
    WriteBack,
}

/// Where a request is best answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Best {
    /// On the processor that asks.
    AtHome,
    /// On any.
    Anywhere,
    /// By one worker on the processor that asks, by all others on any but that.
    Spread,
}

/// What a worker had to do lately.
#[derive(Debug)]
pub(super) struct Company {
    /// Up with each request before or behind which others came, down with each that came alone.
    others: u32,
    /// Up with each request of a program behind which the next was there already, down with each other one.
    queued: u32,
    /// They have become [`ENOUGH`], and are not even again.
    spreads: bool,
    /// With how many of them it roams.
    limit: u32,
    roams: bool,
    /// Requests since it does, or does not any more.
    since: u32,
    /// After how many it finds out anew.
    enough: u32,
}

impl Company {
    /// One account for so many workers. Each of them but one may have to answer a request before it notices that it is not
    /// needed.
    pub(super) fn of(workers: usize) -> Self {
        let rest = u32::try_from(workers.saturating_sub(1)).unwrap_or(u32::MAX / 4);
        Self {
            others: 0,
            queued: 0,
            spreads: false,
            limit: ENOUGH + rest,
            roams: false,
            since: 0,
            enough: LONG_ENOUGH,
        }
    }

    /// Takes note of a request with so many bytes of content, and says where the next is best answered.
    #[must_use]
    pub(super) fn best(&mut self, others: Others, content: usize, origin: Origin) -> Best {
        self.others = if others == Others::None {
            self.others.saturating_sub(1)
        } else {
            (self.others + 1).min(2 * self.limit)
        };
        let is_long = content >= LONG;
        // Behind what the kernel writes back on its own account there is nobody who stops for it.
        let is_one_of_many = others == Others::Queued && !is_long && origin == Origin::Program;
        self.queued = if is_one_of_many {
            (self.queued + MANY).min(2 * ENOUGH)
        } else {
            self.queued.saturating_sub(1)
        };
        self.spreads = self.queued >= if self.spreads { 1 } else { ENOUGH };
        self.since = self.since.saturating_add(1);
        if self.others == 0 {
            self.enough = LONG_ENOUGH;
            self.change(false);
        } else if !self.roams && self.others >= self.limit {
            self.change(true);
        } else if !self.roams && self.since == SETTLED * self.limit {
            // At home for so long without having become as many: they are not more than one at a time.
            self.others = self.others.min(FEW - 1);
        } else if self.roams && !self.spreads && self.since >= self.enough {
            self.others = ENOUGH - TRIES;
            self.enough = (self.enough * MORE).min(LONGEST);
            self.change(false);
        }
        match (self.roams, is_long) {
            (false, false) => Best::AtHome,
            (true, false) if self.spreads => Best::Spread,
            _ => Best::Anywhere,
        }
    }

    const fn change(&mut self, roams: bool) {
        if roams != self.roams {
            (self.roams, self.since) = (roams, 0);
        }
    }

    /// Whether several at once are at work.
    pub(super) const fn roams(&self) -> bool {
        self.roams
    }

    /// Whether a request with so many bytes of content was one of a program that waits for one answer after the other.
    pub(super) const fn is_one_that_waits(&self, content: usize) -> bool {
        !self.roams && self.others < FEW && content < LONG
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many short requests; how many of them had the next answered at home, and how many were taken for those of a program
    /// that waits.
    fn homes(company: &mut Company, others: Others, times: u32) -> (u32, u32) {
        let (mut at_home, mut waited) = (0, 0);
        for _ in 0..times {
            let best = company.best(others, 4096, Origin::Program);
            at_home += u32::from(best == Best::AtHome);
            waited += u32::from(company.is_one_that_waits(4096));
        }
        (at_home, waited)
    }

    #[test]
    fn one_program_that_waits_is_answered_at_home() {
        let mut company = Company::of(1);
        assert_eq!(homes(&mut company, Others::None, 100), (100, 100));
        // One of another now and then changes nothing.
        for _ in 0..100 {
            assert_eq!(homes(&mut company, Others::AtWork, 1), (1, 1));
            assert_eq!(homes(&mut company, Others::None, 1), (1, 1));
        }
        // However long it was alone, others who come are noticed.
        homes(&mut company, Others::None, 1);
        assert_eq!(
            homes(&mut company, Others::AtWork, 100),
            (ENOUGH - 1, FEW - 1)
        );
    }

    #[test]
    fn long_ones_are_left_to_other_processors_while_they_come() {
        let mut company = Company::of(1);
        let mut after = |content| company.best(Others::None, content, Origin::Program);
        assert_eq!(after(LONG), Best::Anywhere);
        assert_eq!(after(1 << 20), Best::Anywhere);
        assert_eq!(after(LONG - 1), Best::AtHome);
        assert_eq!(after(LONG), Best::Anywhere);
        assert!(!company.is_one_that_waits(LONG));
        homes(&mut company, Others::AtWork, 100);
        let best = company.best(Others::None, 1 << 20, Origin::WriteBack);
        assert_eq!(best, Best::Anywhere);
    }

    #[test]
    fn many_at_once_are_left_to_any_until_they_are_few_for_long() {
        let mut company = Company::of(1);
        assert_eq!(
            homes(&mut company, Others::AtWork, 100),
            (ENOUGH - 1, FEW - 1)
        );
        let even = 2 * ENOUGH - 1;
        assert_eq!(
            homes(&mut company, Others::None, 100),
            (100 - even, 100 - even)
        );
        // Every now and then it is tried again, by few requests, for which nobody stands back.
        let mut company = Company::of(1);
        homes(&mut company, Others::AtWork, ENOUGH);
        let mut tried_after = |roaming: u32| {
            assert_eq!(homes(&mut company, Others::AtWork, roaming - 1), (0, 0));
            assert_eq!(homes(&mut company, Others::AtWork, TRIES + 1), (TRIES, 0));
        };
        let mut roaming = LONG_ENOUGH;
        while roaming < LONGEST {
            tried_after(roaming);
            roaming *= MORE;
        }
        tried_after(LONGEST);
        tried_after(LONGEST);
    }

    #[test]
    fn who_comes_to_be_alone_is_found_out_and_waited_for() {
        let mut company = Company::of(1);
        homes(&mut company, Others::AtWork, 100);
        // As many alone as not: that does not end it by itself.
        let by_turns = |company: &mut Company, times: u32| {
            let pairs = (0..times)
                .map(|_| homes(company, Others::None, 1).1 + homes(company, Others::AtWork, 1).1);
            pairs.sum::<u32>()
        };
        assert_eq!(by_turns(&mut company, LONG_ENOUGH / 2 - 60), 0);
        by_turns(&mut company, 60 + SETTLED * ENOUGH);
        assert_eq!(by_turns(&mut company, 100), 200);
    }

    #[test]
    fn more_than_there_are_workers_are_shared_with_the_processor_that_asks() {
        let mut company = Company::of(1);
        let mut last = |others: Others, times: u32| {
            let bests = (0..times).map(|_| company.best(others, 4096, Origin::Program));
            bests.last().unwrap()
        };
        assert_eq!(last(Others::Queued, ENOUGH / MANY), Best::AtHome);
        // Once it roams, and while it is so for one in three, without a change.
        last(Others::AtWork, 2);
        last(Others::Queued, 1);
        last(Others::AtWork, 1);
        for _ in 0..LONGEST {
            assert_eq!(last(Others::AtWork, 1), Best::Spread);
            assert_eq!(last(Others::Queued, 1), Best::Spread);
            assert_eq!(last(Others::AtWork, 1), Best::Spread);
        }
        // Afterwards it finds out anew whether it is alone.
        assert_eq!(last(Others::AtWork, ENOUGH - 2), Best::Spread);
        assert_eq!(last(Others::AtWork, 1), Best::AtHome);
        assert_eq!(last(Others::Queued, TRIES), Best::Anywhere);
    }

    #[test]
    fn what_is_written_back_or_long_is_not_one_of_many() {
        for (content, origin) in [(4096, Origin::WriteBack), (LONG, Origin::Program)] {
            let mut company = Company::of(1);
            for _ in 0..100 {
                let best = company.best(Others::Queued, content, origin);
                assert_ne!(best, Best::Spread);
            }
            // Nor is it where a program asks at the same time.
            assert_eq!(
                company.best(Others::Queued, 4096, Origin::Program),
                Best::Anywhere
            );
        }
    }

    /// Several workers with one account, of whom one after the other takes a request, as those do that wait at the device.
    #[test]
    fn one_program_is_found_out_among_many_workers() {
        for workers in [1, 2, 3, 4, 8, 16] {
            let mut company = Company::of(workers);
            let mut on_duty: std::collections::VecDeque<_> = (0..workers).collect();
            homes(&mut company, Others::AtWork, 100);
            assert!(company.roams());
            let (mut last, mut at_home) = (0, 0);
            for _ in 0..4 * LONGEST {
                let me = on_duty.pop_front().unwrap();
                let others = if me == last {
                    Others::None
                } else {
                    Others::AtWork
                };
                let best = company.best(others, 4096, Origin::Program);
                at_home += u32::from(best == Best::AtHome);
                last = me;
                if company.roams() {
                    on_duty.push_back(me);
                    let called = (0..workers).filter(|other| !on_duty.contains(other));
                    let called: Vec<_> = called.collect();
                    on_duty.extend(called);
                } else if on_duty.is_empty() {
                    on_duty.push_back(me);
                }
            }
            assert!(at_home > 2 * LONGEST, "{workers}: {at_home}");
        }
    }
}
