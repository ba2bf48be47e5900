//! How often this thread has asked for cryptography: what tests hold an operation's cost against. Counted in debug builds
//! only, so that it costs nothing where speed matters.

use std::cell::Cell;
use std::ops::Sub;

/// Calls that one thread has made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counted {
    /// Steps of HKDF: extracting from a secret, or expanding to a key.
    pub kdf: u64,
    /// AEAD keys that were expanded.
    pub keys: u64,
    /// Buffers that were sealed or opened under an AEAD key, refused ones among them.
    pub aead: u64,
}

const NONE: Counted = Counted {
    kdf: 0,
    keys: 0,
    aead: 0,
};

thread_local! {
    static SO_FAR: Cell<Counted> = const { Cell::new(NONE) };
}

/// What this thread has asked for so far: always nothing in a release build.
#[must_use]
pub fn so_far() -> Counted {
    SO_FAR.get()
}

/// Notes a call, by what `count` adds to.
pub(super) fn note(count: impl FnOnce(&mut Counted)) {
    if cfg!(debug_assertions) {
        let mut counted = SO_FAR.get();
        count(&mut counted);
        SO_FAR.set(counted);
    }
}

impl Sub for Counted {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            kdf: self.kdf - before.kdf,
            keys: self.keys - before.keys,
            aead: self.aead - before.aead,
        }
    }
}
