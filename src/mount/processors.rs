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

/// Lets this thread run on one of these only, or on those of them that it may.
///
/// # Errors
/// Where none of them is online.
pub fn sit_on(processors: &[usize]) -> rustix::io::Result<()> {
    let mut set = CpuSet::new();
    for processor in processors
        .iter()
        .filter(|number| **number < CpuSet::MAX_CPU)
    {
        set.set(*processor);
    }
    rustix::thread::sched_setaffinity(None, &set)
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
}
