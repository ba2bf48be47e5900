//! Whether AES-256-GCM-SIV gives what it has to on this processor: which instructions it uses is decided when it runs, and what
//! is written with a wrong cipher can be read by nobody.

use sha2::{Digest, Sha256};

use super::aead::{AeadKey, NONCE_LEN, Nonce, TAG_LEN, Tag};
use crate::secret::Secret;

/// As long as a block, and more than a whole number of whatever is encrypted at once.
const LENGTH: usize = 4097;
/// Computed by OpenSSL: key 0…31, nonce 0…11, no AAD, bytes 0…250 over and over.
const TAG: Tag = [
    0x6d, 0x7d, 0xfb, 0xe8, 0x23, 0x7f, 0xe6, 0x56, 0x73, 0x9f, 0x07, 0xf5, 0x49, 0x0c, 0x3f, 0xf0,
];
/// SHA-256 of the ciphertext.
const CIPHERTEXT: [u8; 32] = [
    0x63, 0xc1, 0x00, 0x8d, 0xa5, 0x17, 0x11, 0x89, 0x2f, 0x66, 0x38, 0xd2, 0x2b, 0xd1, 0x93, 0x1e,
    0x88, 0xd9, 0x58, 0x53, 0x88, 0xaf, 0x8b, 0xe1, 0x5c, 0x16, 0x38, 0xde, 0xc5, 0x34, 0x40, 0x01,
];

/// The cipher gives another answer than it has to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("AES-256-GCM-SIV gives wrong results on this processor; nothing was read or written")]
pub struct WrongAnswer;

/// Seals and opens a text of which the answer is known. Takes some microseconds.
///
/// # Errors
/// [`WrongAnswer`]: nothing must be encrypted or decrypted here.
pub fn check() -> Result<(), WrongAnswer> {
    check_against(&TAG, &CIPHERTEXT)
}

fn check_against(tag: &[u8; TAG_LEN], ciphertext: &[u8; 32]) -> Result<(), WrongAnswer> {
    let mut key = std::array::from_fn(|at| at as u8);
    let key = AeadKey::new(&Secret::take(&mut key));
    let nonce: Nonce = std::array::from_fn::<_, NONCE_LEN, _>(|at| at as u8);
    let plain: [u8; LENGTH] = std::array::from_fn(|at| (at % 251) as u8);
    let mut buffer = plain;
    let sealed_tag = key.seal(&nonce, &[], &mut buffer);
    let is_sealed = sealed_tag == *tag && Sha256::digest(buffer)[..] == *ciphertext;
    let is_opened = key.open(&nonce, &[], &mut buffer, &sealed_tag).is_ok() && buffer == plain;
    if is_sealed && is_opened {
        Ok(())
    } else {
        Err(WrongAnswer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_processor_gives_the_answer_of_another_implementation() {
        assert_eq!(check(), Ok(()));
    }

    #[test]
    fn a_wrong_tag_or_ciphertext_is_noticed() {
        let (mut tag, mut ciphertext) = (TAG, CIPHERTEXT);
        tag[15] ^= 1;
        assert_eq!(check_against(&tag, &CIPHERTEXT), Err(WrongAnswer));
        ciphertext[31] ^= 1;
        assert_eq!(check_against(&TAG, &ciphertext), Err(WrongAnswer));
    }
}
