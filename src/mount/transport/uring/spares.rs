//! Workers in reserve. A worker that waits for dirty pages takes its entry along, and somebody has to be left in its queue to
//! take those pages; but entries that are there from the start are used from the start, and more of them than processors
//! can work on are slower than a few.

use std::collections::VecDeque;

use parking_lot::{Condvar, Mutex};

use crate::fs::NodeId;

/// Those that have no queue yet.
#[derive(Debug)]
pub(super) struct Spares {
    state: Mutex<State>,
    called: Condvar,
}

/// Where one is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Call {
    /// The queue.
    pub(super) queue: usize,
    /// The file that is waited for.
    pub(super) node: NodeId,
}

#[derive(Debug)]
struct State {
    /// Those that nobody has called.
    left: usize,
    /// Those that nobody follows yet.
    calls: VecDeque<Call>,
    have_ended: bool,
}

impl Spares {
    /// So many.
    pub(super) const fn new(count: usize) -> Self {
        Self {
            state: Mutex::new(State {
                left: count,
                calls: VecDeque::new(),
                have_ended: false,
            }),
            called: Condvar::new(),
        }
    }

    /// Calls one, for good. Says whether there was one.
    pub(super) fn call(&self, call: Call) -> bool {
        let mut state = self.state.lock();
        if state.left == 0 || state.have_ended {
            return false;
        }
        state.left -= 1;
        state.calls.push_back(call);
        self.called.notify_one();
        true
    }

    /// Waits to be called; `None` where the mount is gone.
    pub(super) fn wait(&self) -> Option<Call> {
        let mut state = self.state.lock();
        loop {
            if let Some(call) = state.calls.pop_front() {
                return Some(call);
            }
            if state.have_ended {
                return None;
            }
            self.called.wait(&mut state);
        }
    }

    /// Nobody is called any more.
    pub(super) fn end(&self) {
        self.state.lock().have_ended = true;
        self.called.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_called_once_and_all_end() {
        let call = |queue| Call { queue, node: 100 };
        let spares = Spares::new(2);
        assert!(spares.call(call(7)));
        assert!(spares.call(call(8)));
        assert!(!spares.call(call(9)));
        assert_eq!(spares.wait(), Some(call(7)));
        std::thread::scope(|scope| {
            let waiting = [scope.spawn(|| spares.wait()), scope.spawn(|| spares.wait())];
            while !spares.state.lock().calls.is_empty() {
                std::thread::yield_now();
            }
            spares.end();
            let mut told = waiting.map(|thread| thread.join().unwrap());
            told.sort_unstable();
            assert_eq!(told, [None, Some(call(8))]);
        });
        assert_eq!(spares.wait(), None);
        let spares = Spares::new(1);
        spares.end();
        assert!(!spares.call(call(7)));
    }
}
