//! Nonces from the operating system's CSPRNG, fetched a page at a time: a 1 MiB write needs 256 of them.

use std::cell::RefCell;

use super::aead::{NONCE_LEN, Nonce};

const BATCH: usize = 341;

struct Pool {
    bytes: [u8; BATCH * NONCE_LEN],
    next: usize,
}

thread_local! {
    static POOL: RefCell<Pool> = const { RefCell::new(Pool { bytes: [0; BATCH * NONCE_LEN], next: BATCH }) };
}

/// A fresh random 96-bit nonce.
///
/// # Panics
/// Where the operating system gives no randomness: encrypting without it would be worse than stopping. On Linux that
/// happens only where the `getrandom` system call is blocked, which shows at start when the first key is made.
#[must_use]
pub fn nonce() -> Nonce {
    POOL.with_borrow_mut(|pool| {
        if pool.next == BATCH {
            getrandom::fill(&mut pool.bytes).expect("getrandom(2) works");
            pool.next = 0;
        }
        let mut nonce = [0; NONCE_LEN];
        let at = pool.next * NONCE_LEN;
        nonce.copy_from_slice(&pool.bytes[at..at + NONCE_LEN]);
        pool.next += 1;
        nonce
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_nonce_comes_twice_across_batches() {
        let seen: std::collections::HashSet<Nonce> = (0..BATCH * 4).map(|_| nonce()).collect();
        assert_eq!(seen.len(), BATCH * 4);
    }
}
