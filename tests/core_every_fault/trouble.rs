//! What goes wrong: the n-th backing call of a kind, or all from the n-th on, by an error such a call may come to.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use cmkfs::fs::backing::{Backing, Call, Observer};
use rustix::io::Errno;

/// A kind of trouble.
pub struct Trouble {
    pub error: Errno,
    /// Which calls may come to it.
    pub hits: fn(Call) -> bool,
    /// Every such call fails from then on, until it is over.
    pub lasts: bool,
    /// The first to fail is a write that takes some bytes before it does.
    pub takes_a_part: bool,
}

pub const fn once(error: Errno, hits: fn(Call) -> bool) -> Trouble {
    Trouble {
        error,
        hits,
        lasts: false,
        takes_a_part: false,
    }
}

pub const fn from_then_on(error: Errno, hits: fn(Call) -> bool) -> Trouble {
    Trouble {
        lasts: true,
        ..once(error, hits)
    }
}

pub const TROUBLES: [Trouble; 8] = [
    once(Errno::IO, |_| true),
    from_then_on(Errno::IO, |call| call != Call::Stat),
    once(Errno::NOSPC, takes_space),
    from_then_on(Errno::NOSPC, takes_space),
    Trouble {
        takes_a_part: true,
        ..from_then_on(Errno::NOSPC, takes_space)
    },
    once(Errno::DQUOT, takes_space),
    once(Errno::MFILE, |call| call == Call::Open),
    once(Errno::NOMEM, |_| true),
];

/// So many bytes of a write are taken before it fails.
pub const PART: usize = 700;

pub const fn takes_space(call: Call) -> bool {
    matches!(
        call,
        Call::Open | Call::Make | Call::Rename | Call::Write | Call::Resize | Call::WriteXattr
    )
}

thread_local! {
    /// What fails, for the volumes of this thread: the operation is run by it.
    pub static FAULT: Arc<Fault> = Arc::default();
}

/// The n-th call of a kind fails.
#[derive(Default)]
pub struct Fault {
    armed: AtomicBool,
    /// Which of [`TROUBLES`].
    which: AtomicUsize,
    left: AtomicI64,
    /// The write under way is to take a part.
    parts: AtomicBool,
    /// The calls since it was armed, as far as to the one that failed and some more.
    pub calls: Mutex<Vec<Call>>,
}

impl Fault {
    pub fn arm(&self, which: usize, n: i64) {
        self.which.store(which, Ordering::Relaxed);
        self.left.store(n, Ordering::Relaxed);
        self.calls.lock().unwrap().clear();
        self.armed.store(true, Ordering::Relaxed);
    }

    /// Says whether a call has failed.
    pub fn disarm(&self) -> bool {
        self.armed.store(false, Ordering::Relaxed);
        self.parts.store(false, Ordering::Relaxed);
        self.left.load(Ordering::Relaxed) < 0
    }
}

pub struct Failing(Arc<Fault>);

impl Observer for Failing {
    fn before(&self, call: Call) -> Result<(), Errno> {
        let trouble = &TROUBLES[self.0.which.load(Ordering::Relaxed)];
        if !self.0.armed.load(Ordering::Relaxed) || !(trouble.hits)(call) {
            return Ok(());
        }
        self.0.calls.lock().unwrap().push(call);
        match self.0.left.fetch_sub(1, Ordering::Relaxed) {
            0 if trouble.takes_a_part && call == Call::Write => {
                self.0.parts.store(true, Ordering::Relaxed);
                Ok(())
            }
            0 => Err(trouble.error),
            ..0 if trouble.lasts => Err(trouble.error),
            _ => Ok(()),
        }
    }

    fn room(&self) -> usize {
        if self.0.parts.swap(false, Ordering::Relaxed) {
            PART
        } else {
            usize::MAX
        }
    }
}

pub fn failing() -> Backing {
    Backing::observed(Box::new(Failing(FAULT.with(Arc::clone))))
}
