//! Where a worker's next request is best answered: what it had to do lately tells.
//!
//! On the processor that asks, where a program waits for one answer after the other: no other processor has to be woken. On
//! any, where the program goes on meanwhile, as it does when the kernel writes back for it (long requests), or when it has
//! many at once (requests that other workers have too: of workers that wait at a ring the kernel takes the one that came last,
//! so one program that waits always has the same; the device has one such account for all its workers). And away from it, where
//! the kernel reads ahead: the program copies there meanwhile what it got, and would have to stop for who reads on for it.

/// Bytes of content from which on a request is long.
const LONG: usize = 128 << 10;
/// So many requests more in company than alone, and a worker roams until they are even again.
const ENOUGH: u32 = 8;
/// After so many it finds out anew, at home: a worker that is elsewhere is slower to come back, so others are called where one
/// would do. Each time in vain it waits [`MORE`] times as long, up to [`LONGEST`]: those who use its home meanwhile keep it
/// waiting.
const LONG_ENOUGH: u32 = 512;
const MORE: u32 = 2;
const LONGEST: u32 = 8192;
/// So many requests in company, and it roams again. Meanwhile it does not stand back for others, who may keep its processor
/// from it for long.
const TRIES: u32 = 3;
/// With as many requests in company more than alone as this, nobody is taken for a program that waits.
const FEW: u32 = ENOUGH / 2;

/// Where a request is best answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Best {
    /// On the processor that asks.
    AtHome,
    /// On any.
    Anywhere,
    /// On any but that.
    Elsewhere,
}

/// What a worker had to do lately.
#[derive(Debug)]
pub(super) struct Company {
    /// Up with each request before or behind which others came, down with each that came alone.
    others: u32,
    roams: bool,
    /// Requests since it does.
    roamed: u32,
    /// After how many it finds out anew.
    enough: u32,
}

impl Default for Company {
    fn default() -> Self {
        Self {
            others: 0,
            roams: false,
            roamed: 0,
            enough: LONG_ENOUGH,
        }
    }
}

impl Company {
    /// Takes note of a request with so many bytes of content, asked for (`reads`) or brought, and says where the next is best
    /// answered.
    #[must_use]
    pub(super) fn best(&mut self, is_alone: bool, content: usize, reads: bool) -> Best {
        self.others = if is_alone {
            self.others.saturating_sub(1)
        } else {
            (self.others + 1).min(2 * ENOUGH)
        };
        if self.others == 0 {
            (self.roams, self.enough) = (false, LONG_ENOUGH);
        } else if !self.roams {
            (self.roams, self.roamed) = (self.others >= ENOUGH, 0);
        } else if self.roamed == self.enough {
            (self.roams, self.others) = (false, ENOUGH - TRIES);
            self.enough = (self.enough * MORE).min(LONGEST);
        }
        self.roamed += 1;
        match (self.roams, content < LONG) {
            (_, false) if reads => Best::Elsewhere,
            (false, true) => Best::AtHome,
            _ => Best::Anywhere,
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
    fn homes(company: &mut Company, is_alone: bool, times: usize) -> (usize, usize) {
        let mut waited = 0;
        let asked = (0..times).filter(|_| {
            let best = company.best(is_alone, 4096, true);
            waited += usize::from(company.is_one_that_waits(4096));
            best == Best::AtHome
        });
        (asked.count(), waited)
    }

    #[test]
    fn one_program_that_waits_is_answered_at_home() {
        let mut company = Company::default();
        assert_eq!(homes(&mut company, true, 100), (100, 100));
        // One of another now and then changes nothing.
        for _ in 0..100 {
            assert_eq!(homes(&mut company, false, 1), (1, 1));
            assert_eq!(homes(&mut company, true, 1), (1, 1));
        }
    }

    #[test]
    fn long_ones_are_left_to_other_processors_while_they_come() {
        let mut company = Company::default();
        assert_eq!(company.best(true, LONG, false), Best::Anywhere);
        assert_eq!(company.best(true, LONG, true), Best::Elsewhere);
        assert_eq!(company.best(true, LONG - 1, true), Best::AtHome);
        assert!(!company.is_one_that_waits(LONG));
        homes(&mut company, false, 2 * ENOUGH as usize);
        assert_eq!(company.best(true, 1 << 20, true), Best::Elsewhere);
        assert_eq!(company.best(true, 1 << 20, false), Best::Anywhere);
    }

    #[test]
    fn many_at_once_are_left_to_any_until_they_are_few_for_long() {
        let mut company = Company::default();
        let (enough, few, tries) = (ENOUGH as usize, FEW as usize, TRIES as usize);
        assert_eq!(homes(&mut company, false, 100), (enough - 1, few - 1));
        let even = 2 * enough - 1;
        assert_eq!(homes(&mut company, true, 100), (100 - even, 100 - even));
        // Every now and then it is tried again, by few requests, for which nobody stands back.
        let mut company = Company::default();
        homes(&mut company, false, enough);
        let mut asked = |roaming: u32| {
            homes(&mut company, false, roaming as usize - 1);
            homes(&mut company, false, tries + 1)
        };
        for roaming in [LONG_ENOUGH, 2 * LONG_ENOUGH, 4 * LONG_ENOUGH] {
            assert_eq!(asked(roaming), (tries, 0), "after {roaming}");
        }
        for _ in 0..10 {
            homes(&mut company, false, LONGEST as usize);
        }
        let longest = LONGEST as usize + tries;
        assert_eq!(homes(&mut company, false, 3 * longest), (3 * tries, 0));
        // One program that came to be alone meanwhile is found out then, though several workers answer it by turns.
        for _ in 0..LONGEST {
            homes(&mut company, true, 1);
            homes(&mut company, false, 1);
        }
        let alone = homes(&mut company, true, 2 * enough);
        assert!(alone.0 > 0 && alone.1 > 0, "{alone:?}");
    }
}
