//! What is sealed: an edited byte is refused, and never opens as something else; and what is sealed is not believed either.

use cmkfs::crypto::aead::AeadKey;
use cmkfs::crypto::envelope::{DataKey, WrappingKey};
use cmkfs::crypto::kdf::{Kdf, Purpose};
use cmkfs::crypto::object::ObjectKeys;
use cmkfs::crypto::{header, name, symlink, xattr};
use cmkfs::format::envelope::{EncryptionContext, Envelope, ObjectKind};
use cmkfs::format::header::{AAD, Header, KeyBinding, STATE_LEN, SealedState};
use cmkfs::format::symlink::SymlinkRecord;
use cmkfs::format::volume::{VolumeFile, feature};
use cmkfs::ids::{KeyId, KeyStoreId, MaterialId, ObjectId, VolumeId};

use super::edit::Edit;

const OBJECT: ObjectId = ObjectId([2; 16]);
const VOLUME: VolumeId = VolumeId([1; 16]);

fn keys(kind: ObjectKind) -> (ObjectKeys, Envelope, WrappingKey, EncryptionContext) {
    let wrapping = WrappingKey::new(
        KeyId([3; 16]),
        MaterialId([4; 32]),
        &DataKey::take(&mut [5; 32]),
    );
    let data_key = DataKey::take(&mut [6; 32]);
    let context = EncryptionContext {
        volume: VOLUME,
        object: OBJECT,
        kind,
    };
    let envelope = wrapping.wrap(&data_key, &context);
    (
        ObjectKeys::new(&data_key, kind),
        envelope,
        wrapping,
        context,
    )
}

/// One structure of a kind, edited: it opens as what was sealed, or not at all.
pub fn sealed(input: &[u8]) {
    let Some((kind, input)) = input.split_first() else {
        return;
    };
    let (secret, edits) = input.split_at(input.len().min(usize::from(*kind) / 6));
    let edits = Edit::list(edits);
    match kind % 6 {
        0 => edited_header(secret, &edits),
        1 => edited_volume(&edits),
        2 => edited_target(secret, &edits),
        3 => edited_name(secret, &edits),
        4 => edited_attribute(secret, &edits),
        _ => edited_envelope(&edits),
    }
}

fn edited_header(secret: &[u8], edits: &[Edit]) {
    let (keys, envelope, ..) = keys(ObjectKind::Directory);
    let state = SealedState {
        size: 0,
        epoch: secret.len() as u64,
        sparse: false,
        dirty: false,
        binding: Some(KeyBinding::Alias(
            String::from_utf8_lossy(secret).chars().take(60).collect(),
        )),
    };
    let sealed = header::seal(&keys, ObjectKind::Directory, OBJECT, envelope, &state);
    let sealed = sealed.expect("a short alias").encode();
    let stored = Edit::apply(edits, &sealed);
    match Header::decode(ObjectKind::Directory, &stored) {
        Ok(read) => match header::open(&keys, &read) {
            Ok(opened) => assert!(stored == sealed && opened == state),
            Err(_) => assert_ne!(stored, sealed),
        },
        Err(_) => assert_ne!(stored, sealed),
    }
}

fn edited_volume(edits: &[Edit]) {
    let (keys, envelope, ..) = keys(ObjectKind::Volume);
    let sealed = header::seal_volume(
        &keys,
        VOLUME,
        KeyStoreId([7; 16]),
        feature::JOURNAL,
        envelope,
    )
    .encode();
    let stored = Edit::apply(edits, &sealed);
    let opened = VolumeFile::decode(&stored)
        .ok()
        .filter(|file| header::verify_volume(&keys, file).is_ok());
    assert_eq!(opened.is_some(), stored == sealed);
}

fn edited_target(secret: &[u8], edits: &[Edit]) {
    let target = if secret.is_empty() { b"x" } else { secret };
    let (keys, envelope, ..) = keys(ObjectKind::Symlink);
    let sealed = symlink::seal(&keys, OBJECT, envelope, target).encode();
    let stored = Edit::apply(edits, &sealed);
    let opened = SymlinkRecord::decode(&stored)
        .ok()
        .and_then(|record| symlink::open(&keys, record).ok());
    assert_eq!(opened.is_some(), stored == sealed);
    assert!(opened.is_none_or(|opened| opened == target));
}

fn edited_name(secret: &[u8], edits: &[Edit]) {
    let mut plain: Vec<u8> = secret.to_vec();
    plain.retain(|byte| !matches!(byte, 0 | b'/'));
    plain.push(b'n');
    let (keys, ..) = keys(ObjectKind::Directory);
    let sealed = name::seal(&keys, &plain);
    assert_eq!(name::seal(&keys, &plain), sealed, "names can be looked up");
    let stored = Edit::apply(edits, &sealed);
    let opened = name::open(&keys, stored.clone()).ok();
    assert_eq!(opened.is_some(), stored == sealed);
    assert!(opened.is_none_or(|opened| opened == plain));
}

fn edited_attribute(secret: &[u8], edits: &[Edit]) {
    let (keys, ..) = keys(ObjectKind::File);
    let sealed = xattr::seal(&keys, b"user.a", secret);
    let stored = Edit::apply(edits, &sealed);
    let opened = xattr::open(&keys, &stored).ok();
    assert_eq!(opened.is_some(), stored == sealed);
    assert!(opened.is_none_or(|(name, value)| name == b"user.a" && value == secret));
}

fn edited_envelope(edits: &[Edit]) {
    let (_, envelope, wrapping, context) = keys(ObjectKind::File);
    let sealed = envelope.encode();
    let stored = Edit::apply(edits, &sealed);
    let opened = Envelope::decode(&stored)
        .ok()
        .and_then(|envelope| wrapping.unwrap(&envelope, &context).ok());
    assert_eq!(opened.is_some(), stored == sealed);
    assert!(opened.is_none_or(|key| *key.expose() == [6; 32]));
}

/// Any bytes, under a valid seal.
pub fn unsealed(input: &[u8]) {
    let Some((kind, plain)) = input.split_first() else {
        return;
    };
    let kdf = Kdf::new(&DataKey::take(&mut [6; 32]));
    let seal = |purpose, nonce: [u8; 12], aad: &[u8]| {
        let mut bytes = plain.to_vec();
        let tag = AeadKey::new(&kdf.derive(purpose)).seal(&nonce, aad, &mut bytes);
        (bytes, tag)
    };
    match kind % 3 {
        0 => {
            let (keys, ..) = keys(ObjectKind::Directory);
            let (bytes, tag) = seal(Purpose::Name, [0; 12], &[]);
            if let Ok(opened) = name::open(&keys, [&bytes[..], &tag].concat()) {
                assert!(plain.starts_with(&opened) && (1..=255).contains(&opened.len()));
                assert!(!opened.contains(&b'/') && !opened.contains(&0));
                assert!(opened != b"." && opened != b"..", "no name of an entry");
            }
        }
        1 => {
            let (keys, ..) = keys(ObjectKind::File);
            let (bytes, tag) = seal(Purpose::XattrValue, [1; 12], &[]);
            let stored = [&[1; 12][..], &bytes, &tag].concat();
            if let Ok((name, value)) = xattr::open(&keys, &stored) {
                assert_eq!(plain[1..], [name, value].concat());
            }
        }
        _ => {
            let (keys, envelope, ..) = keys(ObjectKind::Directory);
            let Ok(state) = <[u8; STATE_LEN]>::try_from(plain) else {
                return;
            };
            let mut header = Header::new(ObjectKind::Directory, OBJECT, envelope);
            let (bytes, tag) = seal(Purpose::Header, [0; 12], &header.encode()[AAD]);
            header.state.copy_from_slice(&bytes);
            header.tag = tag;
            if let Ok(opened) = header::open(&keys, &header) {
                assert_eq!(opened.encode().expect("it was read"), state);
            }
        }
    }
}
