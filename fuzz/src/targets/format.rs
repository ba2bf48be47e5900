//! What lies in a volume, as bytes: whatever is read is written back to the same bytes.

use cmkfs::format::ciphertext::Ciphertext;
use cmkfs::format::codec::FormatError;
use cmkfs::format::envelope::{Envelope, ObjectKind};
use cmkfs::format::header::{Header, STATE_LEN, SealedState};
use cmkfs::format::journal;
use cmkfs::format::layout::{MAX_SIZE, backing_length, block_count, block_length, plaintext_size};
use cmkfs::format::names::{BackingName, decoded_length, from_text, to_text};
use cmkfs::format::slot::{SLOT_LEN, Slot};
use cmkfs::format::symlink::{Stored, SymlinkRecord};
use cmkfs::format::volume::VolumeFile;
use cmkfs::format::xattr::{Storage, is_stored_name, stored_name};

/// Reads `bytes`, and writes them back.
fn canonical<T>(
    bytes: &[u8],
    decode: impl Fn(&[u8]) -> Result<T, FormatError>,
    encode: impl Fn(&T) -> Vec<u8>,
) -> Option<T> {
    let value = decode(bytes).ok()?;
    assert_eq!(encode(&value), bytes, "what was read is written back");
    Some(value)
}

/// The volume file.
pub fn volume(bytes: &[u8]) {
    canonical(bytes, VolumeFile::decode, |file| file.encode().to_vec());
}

/// The header of a file or directory, and what it seals: the binding of a directory among it.
pub fn header(bytes: &[u8]) {
    for kind in [ObjectKind::File, ObjectKind::Directory] {
        canonical(
            bytes,
            |bytes| Header::decode(kind, bytes),
            |header| header.encode().to_vec(),
        );
    }
    canonical(bytes, Envelope::decode, |envelope| {
        envelope.encode().to_vec()
    });
    if let Ok(state) = <&[u8; STATE_LEN]>::try_from(bytes) {
        canonical(
            state,
            |_| SealedState::decode(state),
            |state| state.encode().expect("it was read").to_vec(),
        );
    }
}

/// Slots, and the arithmetic of where they lie.
pub fn slots(bytes: &[u8]) {
    for stored in bytes.chunks_exact(SLOT_LEN) {
        let stored: &[u8; SLOT_LEN] = stored.try_into().expect("a chunk of that length");
        let slot = Slot::decode(stored);
        let mut written = [0xff; SLOT_LEN];
        slot.encode(&mut written);
        assert_eq!(written[..60], stored[..60]);
        assert_eq!(written[60..], [0; 4]);
        assert_eq!(Slot::decode(&written), slot);
    }
    if let Some(size) = bytes.first_chunk() {
        let backing = u64::from_le_bytes(*size);
        // Whatever length a hostile file has, a size comes of it.
        let behind = plaintext_size(backing);
        assert!(behind <= backing);
        let size = backing.min(MAX_SIZE);
        assert_eq!(plaintext_size(backing_length(size)), size);
        let last = block_count(size);
        assert_eq!(block_length(last, size), 0);
        assert!(last == 0 || block_length(last - 1, size) > 0);
    }
}

/// What a backing symlink holds, and a side file.
pub fn symlink(bytes: &[u8]) {
    canonical(bytes, SymlinkRecord::decode, SymlinkRecord::encode);
    let stored = canonical(bytes, Stored::from_text, |stored| {
        stored.to_text().into_bytes()
    });
    match (stored, Stored::target_length(bytes.len() as u64)) {
        (Some(Stored::Inline(record)), length) => {
            assert_eq!(length, Some(record.ciphertext.len() as u64));
        }
        (Some(Stored::Side { .. }), length) => assert_eq!(length, None),
        (None, _) => {}
    }
}

/// Names of the backing directory, and of attributes.
pub fn names(bytes: &[u8]) {
    if let Some(decoded) = from_text(bytes) {
        assert_eq!(to_text(&decoded).as_bytes(), bytes);
        assert_eq!(decoded.len(), decoded_length(bytes.len()));
    }
    assert_eq!(from_text(to_text(bytes).as_bytes()).as_deref(), Some(bytes));
    match BackingName::classify(bytes) {
        BackingName::Inline(name) => assert!(name == bytes && !name.contains(&b'.')),
        _ => assert!(bytes.contains(&b'.')),
    }
}

/// Names of extended attributes.
pub fn xattr(bytes: &[u8]) {
    if let Storage::Encrypted(namespace) = Storage::of(bytes) {
        assert!(bytes.starts_with(namespace.as_bytes()) && bytes.len() > namespace.len());
        let digest = *bytes.last_chunk::<16>().unwrap_or(&[7; 16]);
        let stored = stored_name(namespace, &digest);
        assert!(is_stored_name(stored.as_bytes()) && stored.len() <= 255);
    } else {
        assert!(!is_stored_name(bytes));
    }
}

/// What `cmkfs key encrypt` makes.
pub fn ciphertext(bytes: &[u8]) {
    canonical(bytes, Ciphertext::decode, Ciphertext::encode);
}

/// A record of a file's journal, up to its ciphertext.
pub fn file_journal(bytes: &[u8]) {
    let Some((head, rest)) = bytes.split_at_checked(journal::ENTRIES_AT) else {
        return;
    };
    let Some(head) = journal::RecordHead::decode(head) else {
        return;
    };
    assert!((1..=journal::BLOCKS_MAX).contains(&head.blocks()));
    let length = head.ciphertext_at() - journal::ENTRIES_AT;
    if let Some(stored) = rest.get(..length) {
        let entries: Vec<_> = journal::entries(stored).collect();
        let written = journal::encode(head.epoch, head.first, &entries);
        assert_eq!(written, bytes[..head.ciphertext_at()]);
    }
}
