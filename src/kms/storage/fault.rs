//! For tests: lets the n-th file operation of this thread fail, once or from there on.
//!
//! From there on is what a killed process leaves behind: nothing that comes later is done, and a write is cut in half.

use std::cell::Cell;
use std::io;

/// How file operations fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::kms) enum Fault {
    /// One operation fails with this errno.
    Once(i32),
    /// It and all that come after it.
    Killed,
}

#[derive(Clone, Copy)]
enum Plan {
    None,
    After(u32, Fault),
    /// It has come to pass; the process goes on, or not.
    Passed {
        dead: bool,
    },
}

thread_local! {
    static PLAN: Cell<Plan> = const { Cell::new(Plan::None) };
}

/// Runs `job`, in which the operation after `n` others fails. Says whether there were that many.
pub(in crate::kms) fn inject<T>(n: u32, fault: Fault, job: impl FnOnce() -> T) -> (T, bool) {
    PLAN.set(Plan::After(n, fault));
    let result = job();
    (
        result,
        matches!(PLAN.replace(Plan::None), Plan::Passed { .. }),
    )
}

/// Called before each operation.
pub(super) fn before() -> io::Result<()> {
    match PLAN.get() {
        Plan::None | Plan::Passed { dead: false } => Ok(()),
        Plan::Passed { dead: true } => Err(io::Error::other("killed")),
        Plan::After(0, fault) => {
            PLAN.set(Plan::Passed {
                dead: fault == Fault::Killed,
            });
            Err(match fault {
                Fault::Once(errno) => io::Error::from_raw_os_error(errno),
                Fault::Killed => io::Error::other("killed"),
            })
        }
        Plan::After(left, fault) => {
            PLAN.set(Plan::After(left - 1, fault));
            Ok(())
        }
    }
}

/// How much of a write comes about: half of it where the process dies in it.
pub(super) fn cut(bytes: &[u8]) -> io::Result<&[u8]> {
    let dies = matches!(PLAN.get(), Plan::After(0, Fault::Killed));
    match before() {
        Err(_) if dies => Ok(bytes.get(..bytes.len() / 2).unwrap_or_default()),
        Err(error) => Err(error),
        Ok(()) => Ok(bytes),
    }
}
