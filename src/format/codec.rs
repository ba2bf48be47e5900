//! The one bincode configuration of the format: little-endian, fixed-size integers, nothing variable.

use bincode::config::{Configuration, Fixint, LittleEndian, NoLimit};
use bincode::{Decode, Encode};

/// Bytes that are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// Shorter or longer than the structure.
    #[error("{what}: {actual} bytes where {expected} belong")]
    Length {
        /// The structure.
        what: &'static str,
        /// Its length in bytes.
        expected: usize,
        /// What was found.
        actual: usize,
    },
    /// The magic bytes are missing.
    #[error("{what}: not written by cmkfs (wrong magic)")]
    Magic {
        /// The structure.
        what: &'static str,
    },
    /// Written by a later version of cmkfs.
    #[error("{what}: format version {version} is unknown to this cmkfs")]
    Version {
        /// The structure.
        what: &'static str,
        /// The version found.
        version: u16,
    },
    /// A field holds what this version never writes.
    #[error("{what}: field {field} holds a value that is not allowed")]
    Field {
        /// The structure.
        what: &'static str,
        /// The field.
        field: &'static str,
    },
}

const CONFIG: Configuration<LittleEndian, Fixint, NoLimit> = bincode::config::standard()
    .with_little_endian()
    .with_fixed_int_encoding();

/// Encodes a fixed-size structure into exactly `N` bytes.
///
/// # Panics
/// Where `N` is not the structure's size: the tests of each structure hold the two together.
pub(crate) fn encode<const N: usize>(value: &impl Encode) -> [u8; N] {
    let mut bytes = [0; N];
    let written = bincode::encode_into_slice(value, &mut bytes, CONFIG);
    assert_eq!(written.ok(), Some(N), "a structure of exactly {N} bytes");
    bytes
}

/// Decodes a fixed-size structure from exactly its own bytes.
pub(crate) fn decode<T: Decode<()>>(
    what: &'static str,
    size: usize,
    bytes: &[u8],
) -> Result<T, FormatError> {
    let length = || FormatError::Length {
        what,
        expected: size,
        actual: bytes.len(),
    };
    if bytes.len() != size {
        return Err(length());
    }
    match bincode::decode_from_slice(bytes, CONFIG) {
        Ok((value, read)) if read == size => Ok(value),
        _ => Err(length()),
    }
}
