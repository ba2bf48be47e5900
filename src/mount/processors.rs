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

/// Where a thread runs: on one processor, or on any that it was given.
#[derive(Debug)]
pub struct Seat {
    own: CpuSet,
    any: CpuSet,
    is_own: bool,
}

impl Seat {
    /// Has this thread run on `processor`, where it may: it may not on one that is offline, or that its process was kept from.
    #[must_use]
    pub fn take(processor: usize) -> Self {
        let any = rustix::thread::sched_getaffinity(None).unwrap_or_else(|error| {
            log::debug!("the system does not say where a thread may run: {error}");
            CpuSet::new()
        });
        let mut own = CpuSet::new();
        if processor < CpuSet::MAX_CPU && any.is_set(processor) {
            own.set(processor);
        }
        let mut seat = Self {
            own,
            any,
            is_own: false,
        };
        seat.sit(true);
        seat
    }

    /// Has the thread run on its own processor from now on, or on any.
    pub fn sit(&mut self, own: bool) {
        if own == self.is_own || self.own.count() == 0 {
            return;
        }
        let processors = if own { &self.own } else { &self.any };
        match rustix::thread::sched_setaffinity(None, processors) {
            Ok(()) => self.is_own = own,
            // Its processor may have gone offline, and come again.
            Err(error) => log::debug!("a thread cannot change its processors: {error}"),
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
        let allowed = || rustix::thread::sched_getaffinity(None).unwrap();
        let given = allowed();
        let first = (0..CpuSet::MAX_CPU).find(|number| given.is_set(*number));
        let mut seat = Seat::take(first.unwrap());
        assert_eq!(allowed().count(), 1);
        assert!(allowed().is_set(first.unwrap()));
        assert_eq!(may_use_all(), online().len() == 1);
        seat.sit(false);
        assert_eq!(allowed(), given);
        seat.sit(true);
        assert_eq!(allowed().count(), 1);
        // Kept from all but that one, it does not go elsewhere.
        let elsewhere = (0..CpuSet::MAX_CPU).find(|number| !given.is_set(*number));
        let mut seat = Seat::take(elsewhere.unwrap());
        seat.sit(false);
        seat.sit(true);
        assert_eq!(allowed().count(), 1);
        assert!(allowed().is_set(first.unwrap()));
    }
}
