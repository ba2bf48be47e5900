//! Argon2id (RFC 9106): turns a passphrase into a key. Owns the limits of what a stored parameter may ask for.

use argon2::{Algorithm, Argon2, Params, Version};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::secret::Secret;

/// Bytes of a salt.
pub const SALT_LEN: usize = 16;

/// A passphrase: zeroizes when dropped, does not print, does not clone.
pub struct Passphrase(Zeroizing<Vec<u8>>);

impl Passphrase {
    /// Takes the bytes over, whatever they are: no normalization.
    #[must_use]
    pub fn new(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self(bytes)
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl PartialEq for Passphrase {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_slice().ct_eq(other.0.as_slice()).into()
    }
}

impl std::fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Passphrase(…)")
    }
}

/// The cost of guessing a passphrase once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Argon2Params {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

/// Argon2 parameters outside of what cmkfs is willing to compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "argon2id parameters out of range (memory {memory_kib} KiB, {passes} passes, {lanes} lanes)"
)]
pub struct Argon2RangeError {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

impl Argon2Params {
    /// RFC 9106, section 4, second recommended option: 64 MiB, 3 passes, 4 lanes.
    pub const RECOMMENDED: Self = Self {
        memory_kib: 64 * 1024,
        passes: 3,
        lanes: 4,
    };

    /// The least that Argon2 can do: no protection at all. For tests only.
    pub const CHEAP_AND_INSECURE: Self = Self {
        memory_kib: 8,
        passes: 1,
        lanes: 1,
    };

    /// Checks stored parameters: a hostile file must not be able to ask for all memory or an hour of work.
    ///
    /// # Errors
    /// [`Argon2RangeError`] above 1 GiB, 16 passes or 8 lanes, or below what Argon2 needs.
    pub const fn new(memory_kib: u32, passes: u32, lanes: u32) -> Result<Self, Argon2RangeError> {
        let params = Self {
            memory_kib,
            passes,
            lanes,
        };
        if matches!((memory_kib, passes, lanes), (8..=1_048_576, 1..=16, 1..=8))
            && memory_kib >= 8 * lanes
        {
            Ok(params)
        } else {
            Err(Argon2RangeError {
                memory_kib,
                passes,
                lanes,
            })
        }
    }

    /// Memory, in KiB.
    #[must_use]
    pub const fn memory_kib(&self) -> u32 {
        self.memory_kib
    }

    /// Passes over that memory.
    #[must_use]
    pub const fn passes(&self) -> u32 {
        self.passes
    }

    /// Lanes the memory is divided into.
    #[must_use]
    pub const fn lanes(&self) -> u32 {
        self.lanes
    }

    /// Derives 32 bytes from a passphrase.
    ///
    /// # Errors
    /// [`Argon2RangeError`] where the passphrase is longer than Argon2 takes (4 GiB).
    pub fn stretch(
        &self,
        passphrase: &Passphrase,
        salt: &[u8; SALT_LEN],
    ) -> Result<Secret<32>, Argon2RangeError> {
        let error = |_| Argon2RangeError {
            memory_kib: self.memory_kib,
            passes: self.passes,
            lanes: self.lanes,
        };
        let params =
            Params::new(self.memory_kib, self.passes, self.lanes, Some(32)).map_err(error)?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let mut key = Zeroizing::new([0; 32]);
        argon2
            .hash_password_into(&passphrase.0, salt, key.as_mut_slice())
            .map_err(error)?;
        Ok(Secret::take(&mut key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_parameters_are_refused() {
        let fine = Argon2Params::RECOMMENDED;
        assert_eq!(
            Argon2Params::new(fine.memory_kib, fine.passes, fine.lanes),
            Ok(fine)
        );
        for (memory, passes, lanes) in [
            (u32::MAX, 3, 4),
            (1_048_577, 3, 4),
            (65_536, 17, 4),
            (65_536, 0, 4),
            (65_536, 3, 0),
            (65_536, 3, 9),
            (7, 1, 1),
            (8, 1, 2),
        ] {
            assert!(Argon2Params::new(memory, passes, lanes).is_err());
        }
    }

    #[test]
    fn the_key_follows_from_passphrase_salt_and_cost() {
        let phrase = |text: &str| Passphrase::new(Zeroizing::new(text.into()));
        let cheap = Argon2Params::CHEAP_AND_INSECURE;
        let key = cheap.stretch(&phrase("correct horse"), &[1; 16]).unwrap();
        let costlier = Argon2Params::new(16, 1, 1).unwrap();
        assert_eq!(
            cheap.stretch(&phrase("correct horse"), &[1; 16]).unwrap(),
            key
        );
        assert_ne!(
            cheap.stretch(&phrase("correct horsf"), &[1; 16]).unwrap(),
            key
        );
        assert_ne!(
            cheap.stretch(&phrase("correct horse"), &[2; 16]).unwrap(),
            key
        );
        assert_ne!(
            costlier
                .stretch(&phrase("correct horse"), &[1; 16])
                .unwrap(),
            key
        );
    }
}
