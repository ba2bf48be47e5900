//! Replies against the bytes that the kernel's structures have.

use super::*;
use crate::mount::protocol::IntoBytes;

const VALID: Duration = Duration::new(60, 5);

fn attributes() -> Attributes {
    let time = |seconds, nanoseconds| FileTime {
        seconds,
        nanoseconds,
    };
    Attributes {
        node: 0x0102_0304_0506_0708,
        size: 10,
        blocks: 11,
        atime: time(-1, 999_999_999),
        mtime: time(13, 14),
        ctime: time(i64::MIN, 15),
        kind: FileKind::CharDevice,
        permissions: 0o4755,
        links: 16,
        uid: 17,
        gid: 18,
        device: 0x0123_4567,
    }
}

const fn w(number: u32) -> [u8; 4] {
    number.to_ne_bytes()
}

const fn d(number: u64) -> [u8; 8] {
    number.to_ne_bytes()
}

/// A `fuse_attr` with what [`attributes`] says.
fn attr_bytes() -> Vec<u8> {
    [
        &d(0x0102_0304_0506_0708)[..],
        &d(10),
        &d(11),
        &(-1_i64).to_ne_bytes(),
        &d(13),
        &i64::MIN.to_ne_bytes(),
        &w(999_999_999),
        &w(14),
        &w(15),
        &w(0o024_755),
        &w(16),
        &w(17),
        &w(18),
        &w(0x0123_4567),
        &w(4096),
        &w(0),
    ]
    .concat()
}

#[test]
fn an_entry_has_the_node_twice_and_its_time_twice() {
    let node = 0x0102_0304_0506_0708;
    let head = [&d(node)[..], &d(0), &d(60), &d(60), &w(5), &w(5)].concat();
    let expected = [head, attr_bytes()].concat();
    assert_eq!(expected.len(), 128);
    let entry = entry(Some(&attributes()), VALID);
    assert_eq!(entry.as_bytes(), expected);
    let open = open(7, false);
    let expected = [&expected[..], &d(7), &d(0)].concat();
    assert_eq!(created(entry, open).as_bytes(), expected);
}

#[test]
fn a_name_that_is_not_there_has_node_0_and_is_remembered() {
    let head = [&d(0)[..], &d(0), &d(60), &d(60), &w(5), &w(5)].concat();
    let expected = [head, vec![0; 88]].concat();
    assert_eq!(entry(None, VALID).as_bytes(), expected);
}

#[test]
fn attributes_are_shown_as_they_are() {
    let expected = [&d(60)[..], &w(5), &w(0), &attr_bytes()].concat();
    assert_eq!(expected.len(), 104);
    assert_eq!(attr(&attributes(), VALID).as_bytes(), expected);
}

#[test]
fn statx_has_a_birth_where_it_is_known() {
    let time =
        |seconds: i64, nanoseconds| [&seconds.to_ne_bytes()[..], &w(nanoseconds), &w(0)].concat();
    let expected = |mask, birth: Vec<u8>| {
        [
            &d(60)[..],
            &w(5),
            &w(0),
            &[0; 16],
            &w(mask),
            &w(4096),
            &d(0),
            &w(16),
            &w(17),
            &w(18),
            &0o024_755_u16.to_ne_bytes(),
            &[0; 2],
            &d(0x0102_0304_0506_0708),
            &d(10),
            &d(11),
            &d(0),
            &time(-1, 999_999_999),
            &birth,
            &time(i64::MIN, 15),
            &time(13, 14),
            // The major number is in the middle of the 32 bits, the minor one around it.
            &w(0x345),
            &w(0x1267),
            &[0; 120],
        ]
        .concat()
    };
    let known = FileTime {
        seconds: -5,
        nanoseconds: 6,
    };
    let with = expected(0xfff, time(-5, 6));
    assert_eq!(with.len(), 288);
    assert_eq!(statx(&attributes(), Some(known), VALID).as_bytes(), with);
    let without = expected(0x7ff, time(0, 0));
    assert_eq!(statx(&attributes(), None, VALID).as_bytes(), without);
}

#[test]
fn devices_are_numbered_as_by_the_c_library() {
    for (major, minor) in [(1, 3), (8, 0), (0xfff, 0xf_ffff), (259, 0x1_2345)] {
        let device = u32::try_from(libc::makedev(major, minor)).unwrap();
        assert_eq!(device_numbers(device), (major, minor));
    }
}

#[test]
fn every_kind_has_its_type() {
    let kinds = [
        (FileKind::File, 0o100_000),
        (FileKind::Directory, 0o040_000),
        (FileKind::Symlink, 0o120_000),
        (FileKind::Fifo, 0o010_000),
        (FileKind::Socket, 0o140_000),
        (FileKind::CharDevice, 0o020_000),
        (FileKind::BlockDevice, 0o060_000),
    ];
    for (kind, bits) in kinds {
        let attributes = Attributes {
            kind,
            permissions: 0o7777,
            ..attributes()
        };
        assert_eq!(attr_of(&attributes).mode, bits | 0o7777);
    }
}

#[test]
fn small_replies_have_their_bytes() {
    let kept = [&d(7)[..], &w(2), &w(0)].concat();
    assert_eq!(open(7, true).as_bytes(), kept);
    let not_kept = [&d(7)[..], &w(0), &w(0)].concat();
    assert_eq!(open(7, false).as_bytes(), not_kept);
    assert_eq!(written(9).as_bytes(), [w(9), w(0)].concat());
    assert_eq!(xattr_size(9).as_bytes(), [w(9), w(0)].concat());
    assert_eq!(offset(9).as_bytes(), d(9));
    let statistics = FilesystemStatistics {
        blocks: 1,
        blocks_free: 2,
        blocks_available: 3,
        files: 4,
        files_free: 5,
        block_size: 6,
        name_max: 7,
        fragment_size: 8,
    };
    let expected = [
        &d(1)[..],
        &d(2),
        &d(3),
        &d(4),
        &d(5),
        &w(6),
        &w(7),
        &w(8),
        &[0; 28],
    ]
    .concat();
    assert_eq!(expected.len(), 80);
    assert_eq!(statfs(&statistics).as_bytes(), expected);
}

#[test]
fn a_header_counts_itself_and_its_body() {
    let header = |length, error: i32| [&w(length)[..], &error.to_ne_bytes(), &d(99)].concat();
    assert_eq!(out_header(99, None, 0)[..], header(16, 0));
    assert_eq!(out_header(99, None, 144)[..], header(160, 0));
    assert_eq!(out_header(99, Some(Errno::NOENT), 144)[..], header(16, -2));
}

#[test]
fn an_error_of_the_kernels_own_is_never_answered() {
    for number in [512, 4095] {
        let errno = Errno::from_raw_os_error(number);
        let expected = out_header(1, Some(Errno::IO), 0);
        assert_eq!(out_header(1, Some(errno), 0), expected);
    }
    let last = Errno::from_raw_os_error(511);
    assert_eq!(out_header(1, Some(last), 0)[4..8], (-511_i32).to_ne_bytes());
}
