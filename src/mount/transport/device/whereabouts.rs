//! On which processor the program is that asks for one thing after the other. A worker that sits there stands back while it
//! hands an answer over ([`handover`](super::super::handover)), and when it goes on the program has asked for the next thing:
//! they have met. The device does not say where who asks is, so processors are tried until they meet.

/// So many answers without meeting where they have met before, and another processor is tried: programs do other things, too.
const MISSES: u32 = 2;
/// Of more processors none is tried: to find the right one would take too long.
const MOST_PROCESSORS: usize = 16;
/// Answers for which nothing is tried after none was right, and [`MORE`] times as many each time until [`LONGEST_REST`].
const REST: u32 = 256;
const MORE: u32 = 4;
const LONGEST_REST: u32 = 16_384;

/// Where one worker sits for the program it answers.
#[derive(Debug, Default)]
pub(super) struct Whereabouts {
    /// Of the processors that may be tried, the one it is on.
    place: usize,
    /// Whether they have met there.
    is_known: bool,
    /// Answers since they have.
    misses: u32,
    /// Processors that were tried since then.
    tried: usize,
    rest: u32,
    rested: u32,
}

impl Whereabouts {
    /// Which of so many processors to answer the next request on; `None`: any, and without standing back.
    pub(super) fn place(&mut self, processors: usize) -> Option<usize> {
        if self.rest > 0 {
            self.rest -= 1;
            return None;
        }
        let may_try = (1..=MOST_PROCESSORS).contains(&processors);
        may_try.then(|| self.place % processors)
    }

    /// An answer was handed over on the place of so many, and they have met or not.
    pub(super) fn learn(&mut self, has_met: bool, processors: usize) {
        if has_met {
            (self.is_known, self.misses, self.tried) = (true, 0, 0);
            self.rested = 0;
            return;
        }
        self.misses += 1;
        if self.is_known && self.misses < MISSES {
            return;
        }
        (self.is_known, self.misses) = (false, 0);
        self.place = (self.place + 1) % processors.max(1);
        self.tried += 1;
        if self.tried > processors {
            self.tried = 0;
            self.rested = (MORE * self.rested).clamp(REST, LONGEST_REST);
            self.rest = self.rested;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where answers were handed over, for a program that is where it is.
    fn places(whereabouts: &mut Whereabouts, program: usize, answers: usize) -> Vec<Option<usize>> {
        let mut places = Vec::new();
        for _ in 0..answers {
            let place = whereabouts.place(4);
            if let Some(place) = place {
                whereabouts.learn(place == program, 4);
            }
            places.push(place);
        }
        places
    }

    #[test]
    fn a_program_is_found_and_followed() {
        let mut whereabouts = Whereabouts::default();
        let found = places(&mut whereabouts, 2, 6);
        assert_eq!(found, [0, 1, 2, 2, 2, 2].map(Some));
        let followed = places(&mut whereabouts, 0, 6);
        assert_eq!(followed, [2, 2, 3, 0, 0, 0].map(Some));
        // Once elsewhere does not count.
        whereabouts.learn(false, 4);
        assert_eq!(places(&mut whereabouts, 0, 2), [Some(0); 2]);
    }

    #[test]
    fn one_that_is_nowhere_is_looked_for_less_and_less() {
        let mut whereabouts = Whereabouts::default();
        for expected in [256, 1024, 4096, 16_384, 16_384] {
            let tried = places(&mut whereabouts, 9, 5);
            assert!(tried.iter().all(Option::is_some));
            let rest = places(&mut whereabouts, 9, expected);
            assert!(rest.iter().all(Option::is_none), "{expected}");
        }
        for none in [0, MOST_PROCESSORS + 1] {
            assert_eq!(Whereabouts::default().place(none), None);
        }
    }
}
