//! Published test vectors, through the code that the filesystem uses: AES-256-GCM-SIV (RFC 8452, Wycheproof) and
//! HKDF-SHA256 (RFC 5869, Wycheproof). Each test counts what it ran, so that none can pass by running nothing.

use cmkfs::crypto::aead::AeadKey;
use cmkfs::crypto::kdf::{Kdf, Purpose};
use cmkfs::secret::Secret;
use sha2::{Digest, Sha256};
use wycheproof::TestResult;

fn hex(text: &str) -> Vec<u8> {
    if text == "-" {
        return Vec::new();
    }
    assert_eq!(text.len() % 2, 0);
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(byte).collect()
}

fn key(bytes: &[u8]) -> AeadKey {
    AeadKey::new(&Secret::take(&mut bytes.try_into().unwrap()))
}

/// Both directions, in place and from buffer to buffer.
fn assert_seals_and_opens(
    key: &AeadKey,
    nonce: &[u8; 12],
    aad: &[u8],
    plain: &[u8],
    sealed: &[u8],
    tag: &[u8],
) {
    let mut buffer = plain.to_vec();
    assert_eq!(key.seal(nonce, aad, &mut buffer), tag);
    assert_eq!(buffer, sealed);
    let mut other = vec![0; plain.len()];
    assert_eq!(key.seal_to(nonce, aad, plain, &mut other), tag);
    assert_eq!(other, sealed);
    key.open(nonce, aad, &mut buffer, tag.try_into().unwrap())
        .unwrap();
    assert_eq!(buffer, plain);
}

#[test]
fn aes_256_gcm_siv_gives_the_results_of_rfc_8452() {
    let mut run = 0;
    let lines = include_str!("vectors/rfc8452.txt").lines();
    for line in lines.filter(|line| !line.starts_with('#')) {
        let fields: Vec<_> = line.split(' ').map(hex).collect();
        let [secret, nonce, aad, plain, result] = &fields[..] else {
            panic!("five fields: {line}")
        };
        let nonce = nonce[..].try_into().unwrap();
        let (sealed, tag) = result.split_at(plain.len());
        assert_seals_and_opens(&key(secret), nonce, aad, plain, sealed, tag);
        run += 1;
    }
    assert_eq!(run, EXPECTED_RFC_8452);
}

/// Appendix C.2 has 24 vectors, C.3 two.
const EXPECTED_RFC_8452: usize = 26;

#[test]
fn aes_256_gcm_siv_agrees_with_wycheproof() {
    let set = wycheproof::aead::TestSet::load(wycheproof::aead::TestName::AesGcmSiv).unwrap();
    let (mut valid, mut invalid) = (0, 0);
    for group in set.test_groups.iter().filter(|group| group.key_size == 256) {
        for test in &group.tests {
            let Ok(nonce) = <&[u8; 12]>::try_from(&test.nonce[..]) else {
                // Our nonces are arrays of twelve bytes: another length cannot be asked for.
                assert_eq!(test.result, TestResult::Invalid);
                continue;
            };
            let key = key(&test.key);
            if test.result == TestResult::Valid {
                assert_seals_and_opens(&key, nonce, &test.aad, &test.pt, &test.ct, &test.tag);
                valid += 1;
                continue;
            }
            let Ok(tag) = test.tag[..].try_into() else {
                continue;
            };
            let mut buffer = test.ct.to_vec();
            assert!(
                key.open(nonce, &test.aad, &mut buffer, tag).is_err(),
                "case {}",
                test.tc_id
            );
            assert_eq!(
                buffer,
                test.ct[..],
                "case {}: ciphertext, not unauthenticated plaintext",
                test.tc_id
            );
            invalid += 1;
        }
    }
    assert!(
        valid >= 50 && invalid >= 20,
        "{valid} valid, {invalid} invalid"
    );
}

/// RFC 2104, written out.
fn hmac(key: &[u8], message: &[&[u8]]) -> [u8; 32] {
    let mut block = [0; 64];
    if key.len() > 64 {
        block[..32].copy_from_slice(&Sha256::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let mut inner = Sha256::new().chain_update(block.map(|byte| byte ^ 0x36));
    for part in message {
        inner.update(part);
    }
    Sha256::new()
        .chain_update(block.map(|byte| byte ^ 0x5c))
        .chain_update(inner.finalize())
        .finalize()
        .into()
}

/// RFC 5869, written out; `None` past 255 hashes' worth of output.
fn hkdf(salt: &[u8], secret: &[u8], info: &[u8], length: usize) -> Option<Vec<u8>> {
    let key = hmac(salt, &[secret]);
    let mut output = Vec::new();
    let mut last = Vec::new();
    for counter in 1..=u8::try_from(length.div_ceil(32)).ok()? {
        last = hmac(&key, &[&last, info, &[counter]]).to_vec();
        output.extend_from_slice(&last);
    }
    output.truncate(length);
    Some(output)
}

#[test]
fn the_reference_hkdf_gives_the_results_of_rfc_5869() {
    // Appendix A.1, A.2 and A.3.
    let range = |from: u8, to: u8| (from..=to).collect::<Vec<u8>>();
    let cases = [
        (
            vec![0x0b; 22],
            range(0x00, 0x0c),
            range(0xf0, 0xf9),
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
        ),
        (
            range(0x00, 0x4f),
            range(0x60, 0xaf),
            range(0xb0, 0xff),
            "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09\
             da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87",
        ),
        (
            vec![0x0b; 22],
            Vec::new(),
            Vec::new(),
            "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
        ),
    ];
    for (secret, salt, info, output) in cases {
        let output = hex(output);
        assert_eq!(hkdf(&salt, &secret, &info, output.len()), Some(output));
    }
}

#[test]
fn the_reference_hkdf_agrees_with_wycheproof() {
    let set = wycheproof::hkdf::TestSet::load(wycheproof::hkdf::TestName::HkdfSha256).unwrap();
    let (mut valid, mut invalid) = (0, 0);
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let output = hkdf(&test.salt, &test.ikm, &test.info, test.size);
        if test.result.must_fail() {
            assert_eq!(output, None, "case {}", test.tc_id);
            invalid += 1;
        } else {
            assert_eq!(
                output.as_deref(),
                Some(&test.okm[..]),
                "case {}",
                test.tc_id
            );
            valid += 1;
        }
    }
    assert!(
        valid >= 50 && invalid >= 1,
        "{valid} valid, {invalid} invalid"
    );
}

const PURPOSES: [(Purpose, &str); 14] = [
    (Purpose::Wrap, "cmkfs v1 wrap"),
    (Purpose::Encrypt, "cmkfs v1 encrypt"),
    (Purpose::Commit, "cmkfs v1 commit"),
    (Purpose::Content, "cmkfs v1 content"),
    (Purpose::Header, "cmkfs v1 header"),
    (Purpose::Name, "cmkfs v1 name"),
    (Purpose::Link, "cmkfs v1 link"),
    (Purpose::XattrName, "cmkfs v1 xattr name"),
    (Purpose::XattrValue, "cmkfs v1 xattr value"),
    (Purpose::Volume, "cmkfs v1 volume"),
    (Purpose::Record, "cmkfs v1 record"),
    (Purpose::Audit, "cmkfs v1 audit"),
    (Purpose::Backup, "cmkfs v1 backup"),
    (Purpose::Root, "cmkfs v1 root"),
];

/// Fails to compile when a purpose is added: then it belongs into [`PURPOSES`].
const fn is_listed(purpose: Purpose) {
    match purpose {
        Purpose::Wrap
        | Purpose::Encrypt
        | Purpose::Commit
        | Purpose::Content
        | Purpose::Header
        | Purpose::Name
        | Purpose::Link
        | Purpose::XattrName
        | Purpose::XattrValue
        | Purpose::Volume
        | Purpose::Record
        | Purpose::Audit
        | Purpose::Backup
        | Purpose::Root => {}
    }
}

#[test]
fn every_derived_key_is_the_hkdf_output_of_its_own_label() {
    let mut seen = std::collections::HashSet::new();
    for seed in 0..=32_u8 {
        let secret: [u8; 32] = std::array::from_fn(|at| seed.wrapping_mul(37) ^ at as u8);
        let kdf = Kdf::new(&Secret::take(&mut secret.clone()));
        for (purpose, label) in PURPOSES {
            is_listed(purpose);
            assert_eq!(purpose.info(), label.as_bytes());
            let expected = |length| hkdf(&[], &secret, label.as_bytes(), length).unwrap();
            assert_eq!(kdf.derive::<16>(purpose).expose()[..], expected(16));
            assert_eq!(kdf.derive::<32>(purpose).expose()[..], expected(32));
            assert_eq!(kdf.derive::<80>(purpose).expose()[..], expected(80));
            assert!(seen.insert(expected(32)), "{label}: a key of its own");
        }
    }
    assert_eq!(seen.len(), 33 * PURPOSES.len());
    let documented = include_str!("../docs/FORMAT.md");
    for (_, label) in PURPOSES {
        assert!(documented.contains(&format!("| `{label}` |")), "{label}");
    }
}
