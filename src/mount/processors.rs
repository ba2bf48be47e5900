//! The processors of this machine, by number.

use std::fs;

use rustix::thread::CpuSet;

/// How many there may ever be, those included that are switched off or not plugged in; `None` where the system does not say.
#[must_use]
pub fn possible() -> Option<usize> {
    list("possible").map(|list| list.len())
}

/// Those that are switched on, or as good as nothing.
#[must_use]
pub fn online() -> Vec<usize> {
    list("online").unwrap_or_default()
}

/// Whether this process may run on each that is switched on.
#[must_use]
pub fn may_use_all() -> bool {
    rustix::thread::sched_getaffinity(None)
        .is_ok_and(|allowed| online().iter().all(|number| allowed.is_set(*number)))
}

fn list(which: &str) -> Option<Vec<usize>> {
    parse(&fs::read_to_string(format!("/sys/devices/system/cpu/{which}")).ok()?)
}

/// A list as the kernel writes it, `0-3,8`, as far as a set can hold its numbers.
fn parse(list: &str) -> Option<Vec<usize>> {
    let mut numbers = Vec::new();
    for range in list.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (first.parse::<usize>().ok()?, last.parse::<usize>().ok()?);
        numbers.extend((first..=last).take_while(|number| *number < CpuSet::MAX_CPU));
    }
    Some(numbers)
}

/// Those that the calling thread may run on.
#[must_use]
pub fn given() -> Vec<usize> {
    let set = rustix::thread::sched_getaffinity(None).unwrap_or_else(|error| {
        log::debug!("the system does not say where a thread may run: {error}");
        CpuSet::new()
    });
    let numbers = 0..CpuSet::MAX_CPU;
    numbers.filter(|number| set.is_set(*number)).collect()
}

/// Where the calling thread runs, of the processors that it was given.
#[derive(Debug)]
pub struct Seat {
    given: Vec<usize>,
    place: Place,
    /// Where it could not be since it was there. It is not tried again until it has been somewhere else: whoever looks for
    /// the best place does so for each request.
    refused: Option<Place>,
}

/// Where a thread may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Place {
    /// On any processor that it was given.
    #[default]
    Anywhere,
    /// On this one.
    At(usize),
    /// On any but this one.
    AwayFrom(usize),
}

impl Default for Seat {
    fn default() -> Self {
        Self {
            given: given(),
            place: Place::Anywhere,
            refused: None,
        }
    }
}

impl Seat {
    /// The processors it may be on.
    #[must_use]
    pub fn given(&self) -> &[usize] {
        &self.given
    }

    /// Has the thread run there from now on. It stays where it is where it may not: on a processor that is offline, or that
    /// its process was kept from; and where there is no other.
    pub fn sit(&mut self, place: Place) {
        if place == self.place || Some(place) == self.refused {
            return;
        }
        let allowed = self.given.iter().filter(|number| match place {
            Place::Anywhere => true,
            Place::At(own) => **number == own,
            Place::AwayFrom(other) => **number != other,
        });
        let mut set = CpuSet::new();
        allowed.for_each(|number| set.set(*number));
        if set.count() == 0 {
            return;
        }
        match rustix::thread::sched_setaffinity(None, &set) {
            Ok(()) => (self.place, self.refused) = (place, None),
            // Its processor may have gone offline, and come again.
            Err(error) => {
                log::debug!("a thread cannot change its processors: {error}");
                self.refused = Some(place);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_lists_are_understood() {
        assert_eq!(parse("0\n"), Some(vec![0]));
        assert_eq!(parse("0-1,4,6-7\n"), Some(vec![0, 1, 4, 6, 7]));
        assert_eq!(
            parse("0-99999999999").map(|list| list.len()),
            Some(CpuSet::MAX_CPU)
        );
        assert_eq!(parse(""), None);
        assert_eq!(parse("a-b"), None);
        assert!(possible().is_some_and(|count| count >= online().len()));
        assert!(!online().is_empty());
    }

    #[test]
    fn a_thread_sits_on_its_processor_or_on_any_it_was_given() {
        let all = given();
        let mut seat = Seat::default();
        assert_eq!(seat.given(), all);
        for own in all.iter().copied() {
            seat.sit(Place::At(own));
            assert_eq!(given(), [own]);
            assert_eq!(may_use_all(), online().len() == 1);
            seat.sit(Place::AwayFrom(own));
            let others = all.iter().copied().filter(|number| *number != own);
            let others: Vec<_> = others.collect();
            assert_eq!(given(), if others.is_empty() { vec![own] } else { others });
        }
        seat.sit(Place::Anywhere);
        assert_eq!(given(), all);
        // Kept from all but one, it does not go elsewhere.
        seat.sit(Place::At(all[0]));
        let mut kept = Seat::default();
        let elsewhere = (0..CpuSet::MAX_CPU).find(|number| *number != all[0]);
        let elsewhere = Place::At(elsewhere.unwrap());
        for place in [
            elsewhere,
            Place::AwayFrom(all[0]),
            Place::At(all[0]),
            Place::Anywhere,
        ] {
            kept.sit(place);
            assert_eq!(given(), [all[0]]);
        }
    }
}
