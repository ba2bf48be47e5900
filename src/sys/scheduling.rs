//! How the kernel ranks a thread among those that want its processor (sched(7)).

use std::io;

use libc::{c_int, sched_param};
use rustix::thread::Pid;

/// A scheduling policy without priorities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// As any other thread (`SCHED_OTHER`).
    Other,
    /// Behind all others (`SCHED_IDLE`). A processor that works for such threads only counts as one that has nothing to do.
    /// Threads that it starts are so, too (sched(7), `SCHED_RESET_ON_FORK` is for real-time policies).
    Idle,
}

impl Policy {
    /// By which sched_setscheduler(2) knows it.
    #[must_use]
    pub const fn number(self) -> c_int {
        match self {
            Self::Other => libc::SCHED_OTHER,
            Self::Idle => libc::SCHED_IDLE,
        }
    }
}

/// The policy of the calling thread; `None` where it is neither of the two.
///
/// # Errors
/// Where the kernel does not say.
pub fn policy() -> io::Result<Option<Policy>> {
    // SAFETY: it takes a number, and 0 is the calling thread.
    let number = unsafe { libc::sched_getscheduler(0) };
    if number < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut known = [Policy::Other, Policy::Idle].into_iter();
    Ok(known.find(|policy| policy.number() == number))
}

/// Gives a thread a policy, the calling one for `None`. It keeps its nice value.
///
/// # Errors
/// EPERM: from idle back to other takes CAP_SYS_NICE, or an RLIMIT_NICE that allows its nice value.
pub fn set_policy(thread: Option<Pid>, policy: Policy) -> io::Result<()> {
    let none = sched_param { sched_priority: 0 };
    let thread = thread.map_or(0, |thread| thread.as_raw_nonzero().get());
    // SAFETY: `none` is readable for as long as the call takes.
    match unsafe { libc::sched_setscheduler(thread, policy.number(), &raw const none) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_has_the_policy_that_it_was_given() {
        let (mine, theirs) = (std::sync::mpsc::channel(), std::sync::mpsc::channel());
        let thread = std::thread::spawn(move || {
            assert_eq!(policy().unwrap(), Some(Policy::Other));
            set_policy(None, Policy::Idle).unwrap();
            assert_eq!(policy().unwrap(), Some(Policy::Idle));
            mine.0.send(rustix::thread::gettid()).unwrap();
            theirs.1.recv().unwrap();
            policy().unwrap()
        });
        let other = mine.1.recv().unwrap();
        set_policy(Some(other), Policy::Other).unwrap();
        theirs.0.send(()).unwrap();
        assert_eq!(thread.join().unwrap(), Some(Policy::Other));
        assert_eq!(policy().unwrap(), Some(Policy::Other));
    }
}
