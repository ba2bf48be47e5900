//! What is offered and what is taken, as bytes; and kernels of other ages.

use super::*;

fn offer(major: u32, minor: u32, flags: u32, flags2: u32) -> Vec<u8> {
    let numbers = [major, minor, 131_072, flags, flags2];
    let mut bytes = numbers.map(u32::to_ne_bytes).concat();
    bytes.resize(64, 0);
    bytes
}

fn request(major: u32, minor: u32) -> InitRequest {
    InitRequest {
        major,
        minor,
        max_readahead: 0,
        flags: InitFlags::empty(),
    }
}

#[test]
fn the_upper_flags_count_where_there_are_any() {
    let extended = InitRequest::decode(&offer(7, 45, 1 << 30 | 1, 1 << 9)).unwrap();
    let expected = InitFlags::ASYNC_READ | InitFlags::INIT_EXT | InitFlags::OVER_IO_URING;
    assert_eq!(extended.flags, expected);
    let plain = InitRequest::decode(&offer(7, 45, 1, 1 << 9)).unwrap();
    assert_eq!(plain.flags, InitFlags::ASYNC_READ);
    assert_eq!(
        (plain.major, plain.minor, plain.max_readahead),
        (7, 45, 131_072)
    );
}

#[test]
fn flags_that_nobody_knows_are_kept() {
    let request = InitRequest::decode(&offer(7, 99, u32::MAX, u32::MAX)).unwrap();
    assert_eq!(request.flags.bits(), u64::MAX);
}

#[test]
fn an_offer_of_the_older_form_is_shorter() {
    let bytes = offer(7, 33, 1, 0);
    let request = InitRequest::decode(&bytes[..16]).unwrap();
    assert_eq!(request.flags, InitFlags::ASYNC_READ);
    assert_eq!(InitRequest::decode(&bytes[..15]), Err(Malformed::Short));
    let extended = offer(7, 45, 1 << 30, 0);
    assert_eq!(InitRequest::decode(&extended[..19]), Err(Malformed::Short));
    assert!(InitRequest::decode(&extended[..20]).is_ok());
}

#[test]
fn of_another_major_version_only_the_version_is_read() {
    let bytes = offer(8, 0, u32::MAX, u32::MAX);
    assert_eq!(InitRequest::decode(&bytes[..8]), Ok(request(8, 0)));
    assert_eq!(InitRequest::decode(&bytes), Ok(request(8, 0)));
    assert_eq!(InitRequest::decode(&bytes[..7]), Err(Malformed::Short));
}

#[test]
fn the_older_of_two_versions_is_spoken() {
    let common = |minor| Ok(Version::Common { minor });
    assert_eq!(request(7, 33).version(), common(33));
    assert_eq!(request(7, 44).version(), common(44));
    assert_eq!(request(7, 45).version(), common(45));
    assert_eq!(request(7, 99).version(), common(45));
    assert_eq!(request(8, 0).version(), Ok(Version::AskAgain));
}

#[test]
fn a_kernel_that_is_too_old_is_told_what_is_needed() {
    for (major, minor) in [(7, 32), (7, 0), (6, 99), (0, 0)] {
        let error = request(major, minor).version().unwrap_err();
        assert_eq!(error, InitError::TooOld { major, minor });
    }
    let error = InitError::TooOld { major: 7, minor: 9 };
    assert_eq!(
        error.to_string(),
        "the kernel speaks FUSE 7.9; at least 7.33 (Linux 5.13) is needed"
    );
}

fn reply(flags: InitFlags) -> [u8; REPLY_SIZE] {
    init(&InitReply {
        minor: 44,
        max_readahead: 1,
        flags,
        max_background: 2,
        congestion_threshold: 3,
        max_write: 4,
        time_gran: 5,
        max_pages: 6,
    })
}

/// A `fuse_init_out` of major version 7.
fn reply_bytes(
    numbers: [u32; 3],
    short: [u16; 2],
    more: [u32; 2],
    pages: u16,
    high: u32,
) -> Vec<u8> {
    let mut bytes = 7_u32.to_ne_bytes().to_vec();
    bytes.extend(numbers.map(u32::to_ne_bytes).concat());
    bytes.extend(short.map(u16::to_ne_bytes).concat());
    bytes.extend(more.map(u32::to_ne_bytes).concat());
    bytes.extend([pages, 0].map(u16::to_ne_bytes).concat());
    bytes.extend(high.to_ne_bytes());
    bytes.resize(64, 0);
    bytes
}

#[test]
fn the_answer_has_its_bytes() {
    let low = InitFlags::ASYNC_READ | InitFlags::SETXATTR_EXT;
    let expected = reply_bytes([44, 1, 1 << 29 | 1], [2, 3], [4, 5], 6, 0);
    assert_eq!(reply(low)[..], expected);
}

#[test]
fn upper_flags_are_taken_with_their_sign() {
    let flags = InitFlags::ASYNC_READ | InitFlags::OVER_IO_URING;
    let expected = reply_bytes([44, 1, 1 << 30 | 1], [2, 3], [4, 5], 6, 1 << 9);
    assert_eq!(reply(flags)[..], expected);
    assert_eq!(reply(flags | InitFlags::INIT_EXT)[..], expected);
}

#[test]
fn a_newer_major_version_hears_the_own_one() {
    assert_eq!(
        other_major()[..],
        reply_bytes([45, 0, 0], [0; 2], [0; 2], 0, 0)
    );
}

/// `FUSE_…` in `linux/fuse.h`.
#[test]
fn features_have_the_kernels_bits() {
    let bits = [
        (InitFlags::ASYNC_READ, 0),
        (InitFlags::ATOMIC_O_TRUNC, 3),
        (InitFlags::BIG_WRITES, 5),
        (InitFlags::DONT_MASK, 6),
        (InitFlags::AUTO_INVAL_DATA, 12),
        (InitFlags::DO_READDIRPLUS, 13),
        (InitFlags::READDIRPLUS_AUTO, 14),
        (InitFlags::ASYNC_DIO, 15),
        (InitFlags::WRITEBACK_CACHE, 16),
        (InitFlags::PARALLEL_DIROPS, 18),
        (InitFlags::HANDLE_KILLPRIV, 19),
        (InitFlags::POSIX_ACL, 20),
        (InitFlags::MAX_PAGES, 22),
        (InitFlags::CACHE_SYMLINKS, 23),
        (InitFlags::EXPLICIT_INVAL_DATA, 25),
        (InitFlags::SUBMOUNTS, 27),
        (InitFlags::HANDLE_KILLPRIV_V2, 28),
        (InitFlags::SETXATTR_EXT, 29),
        (InitFlags::INIT_EXT, 30),
        (InitFlags::SECURITY_CTX, 32),
        (InitFlags::CREATE_SUPP_GROUP, 34),
        (InitFlags::HAS_EXPIRE_ONLY, 35),
        (InitFlags::DIRECT_IO_ALLOW_MMAP, 36),
        (InitFlags::NO_EXPORT_SUPPORT, 38),
        (InitFlags::HAS_RESEND, 39),
        (InitFlags::OVER_IO_URING, 41),
        (InitFlags::REQUEST_TIMEOUT, 42),
    ];
    for (flag, bit) in bits {
        assert_eq!(flag.bits(), 1 << bit, "{flag:?}");
    }
}
