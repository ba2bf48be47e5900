//! Sealed records: AES-256-GCM-SIV under the store's record key, bound to the store, the kind, the place and the counter.
//!
//! Knows nothing of what a record says, nor of files.

use zeroize::Zeroizing;

use crate::crypto::aead::AeadKey;
use crate::crypto::chain::{ChainKey, Link};
use crate::crypto::kdf::{Kdf, Purpose};
use crate::crypto::random;
use crate::format::codec::FormatError;
use crate::format::keystore::{RECORD_NONCE, RecordHeader};
use crate::ids::KeyStoreId;
use crate::secret::Secret;

/// What a record holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum RecordKind {
    /// A CMK's record.
    Key = 1,
    /// A CMK's material.
    Material = 2,
    /// An alias.
    Alias = 3,
    /// Where the audit log ends.
    AuditHead = 4,
    /// An operation that is to be finished.
    Journal = 5,
}

/// A record that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum UnsealError {
    #[error(transparent)]
    Format(#[from] FormatError),
    #[error("it holds another kind of record than belongs in its place")]
    Kind,
    #[error("it comes from another key directory ({0})")]
    OtherStore(KeyStoreId),
    #[error("it was edited, or put in the place of another")]
    Authentication,
}

/// An opened record.
pub(super) struct Unsealed {
    /// How often the record was written.
    pub counter: u64,
    /// What it says.
    pub payload: Zeroizing<Vec<u8>>,
}

/// Seals and opens the records of one key directory, and chains its audit log.
pub(super) struct Sealer {
    store: KeyStoreId,
    key: AeadKey,
    chain: ChainKey,
}

impl Sealer {
    pub(super) fn new(store: KeyStoreId, root_key: &Secret<32>) -> Self {
        let kdf = Kdf::new(root_key);
        Self {
            store,
            key: AeadKey::new(&kdf.derive(Purpose::Record)),
            chain: ChainKey::new(&kdf.derive(Purpose::Audit)),
        }
    }

    /// The link before the first line of the audit log.
    pub(super) fn first_link(&self) -> Link {
        self.chain.link(&[], self.store.as_bytes())
    }

    /// The link of a line of the audit log.
    pub(super) fn link(&self, previous: &Link, line: &[u8]) -> Link {
        self.chain.link(previous, line)
    }

    pub(super) const fn store(&self) -> KeyStoreId {
        self.store
    }

    /// Seals `payload` as the record at `place`, a path relative to the key directory.
    pub(super) fn seal(
        &self,
        kind: RecordKind,
        place: &str,
        counter: u64,
        payload: &[u8],
    ) -> Vec<u8> {
        // A description of 8,192 characters and 50 tags are far below 4 GiB.
        let len = u32::try_from(payload.len()).expect("records are small");
        let header = RecordHeader::new(self.store, kind as u8, counter, len, random::nonce());
        let mut sealed = header.encode().to_vec();
        let start = sealed.len();
        // In one piece, so that growing leaves no copy of the payload behind.
        sealed.reserve_exact(payload.len() + 16);
        sealed.extend_from_slice(payload);
        let aad = aad(&sealed[..RECORD_NONCE], place);
        let tag = self.key.seal(&header.nonce, &aad, &mut sealed[start..]);
        sealed.extend_from_slice(&tag);
        sealed
    }

    /// Opens the record at `place`.
    pub(super) fn open(
        &self,
        kind: RecordKind,
        place: &str,
        sealed: &[u8],
    ) -> Result<Unsealed, UnsealError> {
        let (header, ciphertext, tag) = RecordHeader::split(sealed)?;
        if header.store_id() != self.store {
            return Err(UnsealError::OtherStore(header.store_id()));
        }
        if header.kind != kind as u8 {
            return Err(UnsealError::Kind);
        }
        let aad = aad(&header.encode()[..RECORD_NONCE], place);
        let mut payload = Zeroizing::new(ciphertext.to_vec());
        self.key
            .open(&header.nonce, &aad, &mut payload, &tag)
            .map_err(|_| UnsealError::Authentication)?;
        Ok(Unsealed {
            counter: header.counter,
            payload,
        })
    }
}

fn aad(header: &[u8], place: &str) -> Vec<u8> {
    [header, place.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sealer() -> Sealer {
        Sealer::new(KeyStoreId::random(), &Secret::random().unwrap())
    }

    proptest! {
        #[test]
        fn what_was_sealed_opens_in_its_own_place_only(
            payload in proptest::collection::vec(any::<u8>(), 0..600),
            place in "[a-z/]{1,20}",
            counter: u64,
        ) {
            let sealer = sealer();
            let sealed = sealer.seal(RecordKind::Key, &place, counter, &payload);
            let opened = sealer.open(RecordKind::Key, &place, &sealed).unwrap();
            prop_assert_eq!(&*opened.payload, &payload);
            prop_assert_eq!(opened.counter, counter);
            let elsewhere = place.clone() + "x";
            prop_assert!(sealer.open(RecordKind::Key, &elsewhere, &sealed).is_err());
            prop_assert!(sealer.open(RecordKind::Alias, &place, &sealed).is_err());
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(sealer().open(RecordKind::Key, "keys/x", &bytes).is_err());
        }
    }

    #[test]
    fn another_kind_or_store_in_the_header_does_not_open() {
        let sealer = sealer();
        let mut sealed = sealer.seal(RecordKind::Key, "keys/x", 1, b"payload");
        sealed[10] = RecordKind::Alias as u8;
        let opened = sealer.open(RecordKind::Alias, "keys/x", &sealed);
        assert!(matches!(opened, Err(UnsealError::Authentication)));
        let other = Sealer::new(KeyStoreId::random(), &Secret::random().unwrap());
        let sealed = other.seal(RecordKind::Key, "keys/x", 1, b"payload");
        let opened = sealer.open(RecordKind::Key, "keys/x", &sealed);
        assert!(matches!(opened, Err(UnsealError::OtherStore(id)) if id == other.store()));
    }
}
