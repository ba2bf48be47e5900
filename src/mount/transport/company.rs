//! Where a worker's next request is best answered: what it had to do lately tells.
//!
//! On the processor that asks, where a program waits for one answer after the other: no other processor has to be woken. On
//! any, where the program goes on meanwhile, as it does when the kernel reads ahead or writes back for it (long requests), or
//! when it has many at once (requests that other workers have too: of workers that wait at a ring the kernel takes the one that
//! came last, so one program that waits always has the same; the device has one such account for all its workers).

/// Bytes of content from which on a request is long.
const LONG: usize = 128 << 10;
/// So many requests more in company than alone, and a worker roams until they are even again.
const ENOUGH: u32 = 8;
/// After so many it stays at home for a while and finds out anew: a worker that is elsewhere is slower to come back, so others
/// are called where one would do.
const LONG_ENOUGH: u32 = 256;

/// What a worker had to do lately.
#[derive(Debug, Default)]
pub(super) struct Company {
    /// Up with each request before or behind which others came, down with each that came alone.
    others: u32,
    roams: bool,
    /// Requests since it does.
    roamed: u32,
}

impl Company {
    /// Takes note of a request with so many bytes of content, and says whether the next is best answered at home.
    #[must_use]
    pub(super) fn is_best_at_home(&mut self, is_alone: bool, content: usize) -> bool {
        self.others = if is_alone {
            self.others.saturating_sub(1)
        } else {
            (self.others + 1).min(2 * ENOUGH)
        };
        if !self.roams {
            (self.roams, self.roamed) = (self.others >= ENOUGH, 0);
        } else if self.others == 0 || self.roamed == LONG_ENOUGH {
            (self.roams, self.others) = (false, 0);
        }
        self.roamed += 1;
        !self.roams && content < LONG
    }

    /// Whether several at once are at work.
    pub(super) const fn roams(&self) -> bool {
        self.roams
    }

    /// Whether a request with so many bytes of content was one of a program that waits for one answer after the other.
    pub(super) const fn is_one_that_waits(&self, content: usize) -> bool {
        !self.roams && content < LONG
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_program_that_waits_is_answered_at_home() {
        let mut company = Company::default();
        for _ in 0..100 {
            assert!(company.is_best_at_home(true, 4096));
        }
        // One of another now and then changes nothing.
        for _ in 0..100 {
            assert!(company.is_best_at_home(false, 4096));
            assert!(company.is_best_at_home(true, 4096));
        }
    }

    #[test]
    fn long_ones_are_left_to_any_processor_while_they_come() {
        let mut company = Company::default();
        assert!(!company.is_best_at_home(true, LONG));
        assert!(!company.is_best_at_home(true, 1 << 20));
        assert!(company.is_best_at_home(true, LONG - 1));
    }

    #[test]
    fn many_at_once_are_too_until_they_are_few_for_long() {
        let mut company = Company::default();
        let homes = |company: &mut Company, is_alone, times: usize| {
            let asked = (0..times).filter(|_| company.is_best_at_home(is_alone, 4096));
            asked.count()
        };
        let enough = ENOUGH as usize;
        assert_eq!(homes(&mut company, false, 100), enough - 1);
        assert_eq!(homes(&mut company, true, 100), 100 - (2 * enough - 1));
        // Every now and then it is tried again.
        let mut company = Company::default();
        let round = enough - 1 + LONG_ENOUGH as usize;
        assert_eq!(homes(&mut company, false, 3 * round), 3 * (enough - 1) + 2);
    }
}
