//! Secret bytes: they zeroize when dropped, never print, never clone by accident, compare in constant time.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroize;

use crate::sys::locked::Locked;

/// `N` secret bytes in memory for secrets, so that moving the value leaves no copy behind.
pub struct Secret<const N: usize>(Locked<[u8; N]>);

impl<const N: usize> Secret<N> {
    /// Takes the bytes over and wipes the caller's copy.
    #[must_use]
    pub fn take(bytes: &mut [u8; N]) -> Self {
        let secret = Self::fill_with(|secret| secret.copy_from_slice(bytes));
        bytes.zeroize();
        secret
    }

    /// Fills a new secret in place.
    #[must_use]
    pub fn fill_with(fill: impl FnOnce(&mut [u8; N])) -> Self {
        let mut secret = Self(Locked::new([0; N]));
        fill(&mut secret.0);
        secret
    }

    /// `N` fresh bytes from the operating system's CSPRNG.
    ///
    /// # Errors
    /// Where the operating system gives no randomness.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut secret = Self(Locked::new([0; N]));
        getrandom::fill(secret.0.as_mut_slice())?;
        Ok(secret)
    }

    /// The bytes themselves. The dangerous door: whoever calls it answers for where they go.
    #[must_use]
    pub fn expose(&self) -> &[u8; N] {
        &self.0
    }
}

impl<const N: usize> PartialEq for Secret<N> {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_slice().ct_eq(other.0.as_slice()).into()
    }
}

impl<const N: usize> Eq for Secret<N> {}

impl<const N: usize> fmt::Debug for Secret<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret<{N}>(…)")
    }
}

/// Makes an expanded key and puts it into memory for secrets. Where it was made, on the stack, is overwritten.
#[must_use]
pub fn locked<T>(make: impl FnOnce() -> T) -> Locked<T> {
    leaving_nothing(|| Locked::new(make()))
}

/// Runs `work`, and overwrites what it has left on the stack.
pub fn leaving_nothing<T>(work: impl FnOnce() -> T) -> T {
    let result = aside(work);
    overwrite_stack();
    result
}

/// A frame of its own, which lies where [`overwrite_stack`] writes next.
#[inline(never)]
fn aside<T>(work: impl FnOnce() -> T) -> T {
    work()
}

#[inline(never)]
fn overwrite_stack() {
    // An expanded key has a kilobyte; making it takes a few of them.
    [0_u64; 1024].zeroize();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taking_wipes_the_source_and_nothing_prints() {
        let mut bytes = [7; 32];
        let secret = Secret::take(&mut bytes);
        assert_eq!(bytes, [0; 32]);
        assert_eq!(secret.expose(), &[7; 32]);
        assert_eq!(format!("{secret:?}"), "Secret<32>(…)");
    }
}
