//! Seals and opens object headers, and authenticates the volume file. Facts: docs/FORMAT.md, "Header", "Volume file".

use super::aead::AuthenticationError;
use super::kdf::Purpose;
use super::object::ObjectKeys;
use super::random;
use crate::format::codec::FormatError;
use crate::format::envelope::{Envelope, ObjectKind};
use crate::format::header::{AAD, Header, SealedState};
use crate::format::volume::{NONCE_AT, VolumeFile};
use crate::ids::{KeyStoreId, ObjectId, VolumeId};

/// A header that cannot be trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// It fails authentication.
    #[error(transparent)]
    Authentication(#[from] AuthenticationError),
    /// It is authentic, and says what this version does not know.
    #[error(transparent)]
    Format(#[from] FormatError),
}

/// Seals `state` into a header, under a fresh nonce.
///
/// # Errors
/// [`FormatError`] for a key binding that is too long.
pub fn seal(
    keys: &ObjectKeys,
    kind: ObjectKind,
    object: ObjectId,
    envelope: Envelope,
    state: &SealedState,
) -> Result<Header, FormatError> {
    let mut header = Header::new(kind, object, envelope);
    header.state = state.encode()?;
    header.nonce = random::nonce();
    let bytes = header.encode();
    header.tag = keys
        .derive(Purpose::Header)
        .seal(&header.nonce, &bytes[AAD], &mut header.state);
    Ok(header)
}

/// Opens the sealed state of a header.
///
/// # Errors
/// [`HeaderError`] where the header is not what was sealed under these keys.
pub fn open(keys: &ObjectKeys, header: &Header) -> Result<SealedState, HeaderError> {
    let bytes = header.encode();
    let mut state = header.state;
    keys.derive(Purpose::Header)
        .open(&header.nonce, &bytes[AAD], &mut state, &header.tag)?;
    Ok(SealedState::decode(&state)?)
}

/// Makes an authenticated volume file.
#[must_use]
pub fn seal_volume(
    keys: &ObjectKeys,
    volume: VolumeId,
    key_store: KeyStoreId,
    features: u32,
    envelope: Envelope,
) -> VolumeFile {
    let mut file = VolumeFile::new(volume, key_store, features, envelope);
    file.nonce = random::nonce();
    let bytes = file.encode();
    file.tag = keys.main().seal(&file.nonce, &bytes[..NONCE_AT], &mut []);
    file
}

/// Authenticates a volume file.
///
/// # Errors
/// [`AuthenticationError`] where it is not what was made under this volume key.
pub fn verify_volume(keys: &ObjectKeys, file: &VolumeFile) -> Result<(), AuthenticationError> {
    let bytes = file.encode();
    keys.main()
        .open(&file.nonce, &bytes[..NONCE_AT], &mut [], &file.tag)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::envelope::DataKey;
    use crate::format::header::KeyBinding;
    use crate::format::volume::feature;
    use crate::ids::{KeyId, MaterialId};

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
    fn header_round_trips_and_every_flipped_bit_is_refused() {
        let keys = ObjectKeys::new(&DataKey::random().unwrap(), ObjectKind::Directory);
        let binding = Some(KeyBinding::Alias("alias/secret".to_owned()));
        let state = SealedState {
            size: 5,
            epoch: 6,
            sparse: true,
            dirty: true,
            binding,
        };
        let header = seal(
            &keys,
            ObjectKind::Directory,
            ObjectId([9; 16]),
            envelope(),
            &state,
        )
        .unwrap();
        assert_eq!(open(&keys, &header).unwrap(), state);
        let bytes = header.encode();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            let opened =
                Header::decode(ObjectKind::Directory, &flipped).map(|header| open(&keys, &header));
            assert!(!matches!(opened, Ok(Ok(_))), "bit {bit}");
        }
    }

    #[test]
    fn volume_file_is_authenticated_bit_by_bit() {
        let keys = ObjectKeys::new(&DataKey::random().unwrap(), ObjectKind::Volume);
        let file = seal_volume(
            &keys,
            VolumeId([7; 16]),
            KeyStoreId([8; 16]),
            feature::JOURNAL,
            envelope(),
        );
        assert_eq!(verify_volume(&keys, &file), Ok(()));
        let bytes = file.encode();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes;
            flipped[bit / 8] ^= 1 << (bit % 8);
            let verified = VolumeFile::decode(&flipped).map(|file| verify_volume(&keys, &file));
            assert!(!matches!(verified, Ok(Ok(()))), "bit {bit}");
        }
    }
}
