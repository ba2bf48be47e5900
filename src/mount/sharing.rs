//! Long work on many inodes, shared out among a few threads: it ends sooner, and whoever waits for it waits less.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, Scope, ScopedJoinHandle};

/// Of inodes that one thread takes at once.
const CHUNK: usize = 512;
/// More would mostly wait for each other in the kernel.
const THREADS: std::ops::RangeInclusive<usize> = 2..=4;

/// Does `work` on all of `items`, a few hundred at a time and about in their order, and returns what came of each part, in any
/// order. Where no thread can be started the caller does it alone.
pub fn share_out<T: Sync, R: Send>(items: &[T], work: impl Fn(&[T]) -> R + Sync) -> Vec<R> {
    if items.len() <= CHUNK {
        return items.chunks(CHUNK).map(work).collect();
    }
    let next = AtomicUsize::new(0);
    let take_turns = || {
        let mut done = Vec::new();
        while let Some(part) = items
            .chunks(CHUNK)
            .nth(next.fetch_add(1, Ordering::Relaxed))
        {
            done.push(work(part));
        }
        done
    };
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let threads = processors.clamp(*THREADS.start(), *THREADS.end());
    let helpers = threads.min(items.len().div_ceil(CHUNK));
    thread::scope(|scope| {
        let helpers: Vec<_> = (1..helpers)
            .filter_map(|_| start(scope, &take_turns))
            .collect();
        let mut done = take_turns();
        for helper in helpers {
            match helper.join() {
                Ok(part) => done.extend(part),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        done
    })
}

fn start<'scope, R: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    work: &'scope (impl Fn() -> R + Sync),
) -> Option<ScopedJoinHandle<'scope, R>> {
    let builder = thread::Builder::new().name("cmkfs-helper".to_owned());
    builder.spawn_scoped(scope, work).ok()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn all_is_done_once_however_much_it_is() {
        for count in [0, 1, CHUNK, CHUNK + 1, 20 * CHUNK + 7] {
            let items: Vec<usize> = (0..count).collect();
            let parts = share_out(&items, <[usize]>::to_vec);
            let done: Vec<usize> = parts.into_iter().flatten().collect();
            assert_eq!(done.len(), count);
            assert_eq!(done.iter().collect::<HashSet<_>>().len(), count);
        }
    }

    #[test]
    fn several_are_at_work() {
        let items = vec![0; 2 * CHUNK];
        // Each waits until both have come.
        let come = AtomicUsize::new(0);
        let until = Instant::now() + Duration::from_secs(30);
        share_out(&items, |_| {
            come.fetch_add(1, Ordering::Relaxed);
            while come.load(Ordering::Relaxed) < 2 {
                assert!(Instant::now() < until, "one works alone");
                thread::yield_now();
            }
        });
    }
}
