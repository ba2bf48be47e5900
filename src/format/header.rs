//! The 512-byte header of a file or directory: who it is, its wrapped data key, and its sealed state.
//!
//! Bytes only; `crypto::header` seals and opens. Offsets are those of docs/FORMAT.md, "Header".

use bincode::{Decode, Encode};

use super::codec::{self, FormatError};
use super::envelope::{ENVELOPE_LEN, Envelope, ObjectKind};
use crate::ids::{KeyId, ObjectId};

/// Bytes of a header: one sector, so that a power cut leaves it whole, old or new.
pub const HEADER_LEN: usize = 512;
/// Offset of the magic (8 bytes).
pub const MAGIC_AT: usize = 0;
/// Offset of the format version (u16).
pub const VERSION_AT: usize = 8;
/// Offset of the object kind (u8).
pub const KIND_AT: usize = 10;
/// Offset of the flags (u8, zero in version 1).
pub const FLAGS_AT: usize = 11;
/// Offset of the object id (16 bytes).
pub const OBJECT_ID_AT: usize = 12;
/// Offset of the envelope (124 bytes).
pub const ENVELOPE_AT: usize = 28;
/// Offset of the nonce of the sealed state (12 bytes). All before it is AAD.
pub const NONCE_AT: usize = 152;
/// Offset of the sealed state (332 bytes).
pub const STATE_AT: usize = 164;
/// Bytes of the sealed state.
pub const STATE_LEN: usize = 332;
/// Offset of the tag (16 bytes).
pub const TAG_AT: usize = 496;

/// First bytes of every header.
pub const MAGIC: [u8; 8] = *b"cmkfsobj";
/// The format version this code reads and writes.
pub const VERSION: u16 = 1;
const WHAT: &str = "object header";

/// A header, its state still sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Header {
    magic: [u8; 8],
    version: u16,
    kind: u8,
    flags: u8,
    object_id: [u8; 16],
    envelope: Envelope,
    /// Nonce of the sealed state.
    pub nonce: [u8; 12],
    /// The sealed state, encrypted.
    pub state: [u8; STATE_LEN],
    /// Tag over the sealed state and all before the nonce.
    pub tag: [u8; 16],
}

impl Header {
    /// A header whose state is yet to be sealed.
    #[must_use]
    pub const fn new(kind: ObjectKind, object: ObjectId, envelope: Envelope) -> Self {
        Self {
            magic: MAGIC,
            version: VERSION,
            kind: kind as u8,
            flags: 0,
            object_id: object.0,
            envelope,
            nonce: [0; 12],
            state: [0; STATE_LEN],
            tag: [0; 16],
        }
    }

    /// The object.
    #[must_use]
    pub const fn object_id(&self) -> ObjectId {
        ObjectId(self.object_id)
    }

    /// The object's wrapped data key.
    #[must_use]
    pub const fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    /// The stored bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        codec::encode(self)
    }

    /// Reads the header of an object of the given kind.
    ///
    /// # Errors
    /// [`FormatError`] for anything but a version 1 header of that kind.
    pub fn decode(kind: ObjectKind, bytes: &[u8]) -> Result<Self, FormatError> {
        let header: Self = codec::decode(WHAT, HEADER_LEN, bytes)?;
        if header.magic != MAGIC {
            return Err(FormatError::Magic { what: WHAT });
        }
        if header.version != VERSION {
            return Err(FormatError::Version {
                what: WHAT,
                version: header.version,
            });
        }
        if header.kind != kind as u8 {
            return Err(FormatError::Field {
                what: WHAT,
                field: "kind",
            });
        }
        if header.flags != 0 {
            return Err(FormatError::Field {
                what: WHAT,
                field: "flags",
            });
        }
        Ok(header)
    }
}

/// Bytes authenticated together with the sealed state: all that stands before its nonce.
pub const AAD: std::ops::Range<usize> = 0..NONCE_AT;

/// The CMK under which new objects of a directory are wrapped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyBinding {
    /// Whatever CMK the alias names when something is wrapped.
    Alias(String),
    /// This CMK.
    Key(KeyId),
}

/// Longest alias in bytes: `alias/` and 256 characters.
pub const ALIAS_MAX: usize = 262;

impl std::fmt::Display for KeyBinding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Alias(alias) => f.write_str(alias),
            Self::Key(key) => key.fmt(f),
        }
    }
}

/// What a header seals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedState {
    /// Plaintext size in bytes: exact while clean, a lower bound while dirty. 0 for directories.
    pub size: u64,
    /// Counts the headers written for this object.
    pub epoch: u64,
    /// The file may have holes.
    pub sparse: bool,
    /// The file is being changed, or was when the last one who changed it went away.
    pub dirty: bool,
    /// Directories: the CMK for what is created inside.
    pub binding: Option<KeyBinding>,
}

const SPARSE: u8 = 1;
const DIRTY: u8 = 2;
const BINDING_NONE: u8 = 0;
const BINDING_ALIAS: u8 = 1;
const BINDING_KEY: u8 = 2;

/// Offsets inside the sealed state.
pub mod state {
    /// Plaintext size (u64).
    pub const SIZE_AT: usize = 0;
    /// Epoch (u64).
    pub const EPOCH_AT: usize = 8;
    /// Bit 0 sparse, bit 1 dirty (u8).
    pub const FLAGS_AT: usize = 16;
    /// 0 none, 1 alias, 2 key id (u8).
    pub const BINDING_KIND_AT: usize = 17;
    /// Bytes of the binding (u16).
    pub const BINDING_LEN_AT: usize = 18;
    /// The binding (262 bytes, zero-filled); zeros follow to the end.
    pub const BINDING_AT: usize = 20;
}

impl SealedState {
    /// The bytes to be sealed.
    ///
    /// # Errors
    /// [`FormatError::Field`] for an alias longer than [`ALIAS_MAX`].
    pub fn encode(&self) -> Result<[u8; STATE_LEN], FormatError> {
        let mut bytes = [0; STATE_LEN];
        bytes[state::SIZE_AT..][..8].copy_from_slice(&self.size.to_le_bytes());
        bytes[state::EPOCH_AT..][..8].copy_from_slice(&self.epoch.to_le_bytes());
        bytes[state::FLAGS_AT] = u8::from(self.sparse) * SPARSE + u8::from(self.dirty) * DIRTY;
        let (kind, binding): (u8, &[u8]) = match &self.binding {
            None => (BINDING_NONE, &[]),
            Some(KeyBinding::Alias(alias)) => (BINDING_ALIAS, alias.as_bytes()),
            Some(KeyBinding::Key(key)) => (BINDING_KEY, key.as_bytes()),
        };
        let too_long = FormatError::Field {
            what: WHAT,
            field: "key binding",
        };
        let length = u16::try_from(binding.len())
            .ok()
            .filter(|_| binding.len() <= ALIAS_MAX)
            .ok_or(too_long)?;
        bytes[state::BINDING_KIND_AT] = kind;
        bytes[state::BINDING_LEN_AT..][..2].copy_from_slice(&length.to_le_bytes());
        bytes[state::BINDING_AT..][..binding.len()].copy_from_slice(binding);
        Ok(bytes)
    }

    /// Reads authenticated bytes.
    ///
    /// # Errors
    /// [`FormatError::Field`] for what version 1 never writes.
    pub fn decode(bytes: &[u8; STATE_LEN]) -> Result<Self, FormatError> {
        let field = |field| FormatError::Field { what: WHAT, field };
        let u64_at = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(word)
        };
        let flags = bytes[state::FLAGS_AT];
        if flags & !(SPARSE | DIRTY) != 0 {
            return Err(field("state flags"));
        }
        let length = usize::from(u16::from_le_bytes([
            bytes[state::BINDING_LEN_AT],
            bytes[state::BINDING_LEN_AT + 1],
        ]));
        if length > ALIAS_MAX {
            return Err(field("key binding"));
        }
        let (binding, padding) = bytes[state::BINDING_AT..].split_at(length);
        if padding.iter().any(|byte| *byte != 0) {
            return Err(field("padding"));
        }
        let binding = match bytes[state::BINDING_KIND_AT] {
            BINDING_NONE if binding.is_empty() => None,
            BINDING_ALIAS => {
                let alias = std::str::from_utf8(binding).map_err(|_| field("key binding"))?;
                Some(KeyBinding::Alias(alias.to_owned()))
            }
            BINDING_KEY => Some(KeyBinding::Key(KeyId(
                binding.try_into().map_err(|_| field("key binding"))?,
            ))),
            _ => return Err(field("key binding")),
        };
        Ok(Self {
            size: u64_at(state::SIZE_AT),
            epoch: u64_at(state::EPOCH_AT),
            sparse: flags & SPARSE != 0,
            dirty: flags & DIRTY != 0,
            binding,
        })
    }
}

const _: () = assert!(ENVELOPE_AT + ENVELOPE_LEN == NONCE_AT && TAG_AT + 16 == HEADER_LEN);
const _: () = assert!(STATE_AT + STATE_LEN == TAG_AT && state::BINDING_AT + ALIAS_MAX <= STATE_LEN);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::MaterialId;
    use proptest::prelude::*;

    fn envelope() -> Envelope {
        Envelope::new(
            KeyId([1; 16]),
            MaterialId([2; 32]),
            [3; 12],
            [4; 32],
            [5; 16],
            [6; 16],
        )
    }

    #[test]
    fn fields_lie_where_the_offsets_say() {
        let mut header = Header::new(ObjectKind::Directory, ObjectId([9; 16]), envelope());
        (header.nonce, header.state, header.tag) = ([7; 12], [8; STATE_LEN], [10; 16]);
        let bytes = header.encode();
        assert_eq!(&bytes[MAGIC_AT..VERSION_AT], b"cmkfsobj");
        assert_eq!(bytes[VERSION_AT..KIND_AT], [1, 0]);
        assert_eq!((bytes[KIND_AT], bytes[FLAGS_AT]), (2, 0));
        assert_eq!(bytes[OBJECT_ID_AT..ENVELOPE_AT], [9; 16]);
        assert_eq!(bytes[ENVELOPE_AT..NONCE_AT], envelope().encode());
        assert_eq!(bytes[NONCE_AT..STATE_AT], [7; 12]);
        assert_eq!(bytes[STATE_AT..TAG_AT], [8; STATE_LEN]);
        assert_eq!(bytes[TAG_AT..], [10; 16]);
        assert_eq!(
            Header::decode(ObjectKind::Directory, &bytes).unwrap(),
            header
        );
    }

    #[test]
    fn unknown_magic_version_kind_flags_and_length_are_refused() {
        let bytes = Header::new(ObjectKind::File, ObjectId([9; 16]), envelope()).encode();
        for at in [MAGIC_AT, VERSION_AT, KIND_AT, FLAGS_AT] {
            let mut changed = bytes;
            changed[at] ^= 0x40;
            assert!(
                Header::decode(ObjectKind::File, &changed).is_err(),
                "byte {at}"
            );
        }
        assert!(Header::decode(ObjectKind::Directory, &bytes).is_err());
        assert!(Header::decode(ObjectKind::File, &bytes[..511]).is_err());
    }

    fn binding() -> impl Strategy<Value = Option<KeyBinding>> {
        prop_oneof![
            Just(None),
            "alias/[a-zA-Z0-9/_-]{1,256}".prop_map(|alias| Some(KeyBinding::Alias(alias))),
            any::<[u8; 16]>().prop_map(|key| Some(KeyBinding::Key(KeyId(key)))),
        ]
    }

    proptest! {
        #[test]
        fn state_round_trips(size: u64, epoch: u64, sparse: bool, dirty: bool, binding in binding()) {
            let state = SealedState { size, epoch, sparse, dirty, binding };
            prop_assert_eq!(SealedState::decode(&state.encode().unwrap()).unwrap(), state);
        }
    }

    #[test]
    fn state_refuses_unknown_flags_bindings_and_padding() {
        let state = SealedState {
            size: 1,
            epoch: 2,
            sparse: true,
            dirty: false,
            binding: None,
        };
        let bytes = state.encode().unwrap();
        for (at, value) in [
            (state::FLAGS_AT, 4),
            (state::BINDING_KIND_AT, 3),
            (state::BINDING_AT, 1),
            (STATE_LEN - 1, 1),
        ] {
            let mut changed = bytes;
            changed[at] = value;
            assert!(SealedState::decode(&changed).is_err(), "byte {at}");
        }
    }
}
