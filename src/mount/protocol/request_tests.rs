//! Requests from bytes put together by hand, as the kernel's structures have them, whole and cut short.

use proptest::prelude::*;

use super::*;
use crate::fs::Caller;
use crate::mount::protocol::init::InitFlags;
use crate::mount::protocol::message;

/// The area of a ring in which the operation's own structure lies.
const AREA: usize = 128;

/// A request, and what it has to be read as.
struct Sample {
    opcode: Opcode,
    own: Vec<u8>,
    rest: Vec<u8>,
    expected: Request<'static>,
    /// Bytes of the body without which it is no request, where some may be left out.
    needed: Option<usize>,
}

fn sample(
    opcode: Opcode,
    own: &[&[u8]],
    rest: &'static [u8],
    expected: Request<'static>,
) -> Sample {
    Sample {
        opcode,
        own: own.concat(),
        rest: rest.to_vec(),
        expected,
        needed: None,
    }
}

const fn w(number: u32) -> [u8; 4] {
    number.to_ne_bytes()
}

const fn d(number: u64) -> [u8; 8] {
    number.to_ne_bytes()
}

fn name(name: &'static str) -> &'static OsStr {
    OsStr::new(name)
}

fn setattr_bytes(valid: u32, atime: (i64, u32), mtime: (i64, u32)) -> Vec<u8> {
    [
        &w(valid)[..],
        &w(0),
        &d(11),
        &d(12),
        &d(99),
        &atime.0.to_ne_bytes(),
        &mtime.0.to_ne_bytes(),
        &d(98),
        &w(atime.1),
        &w(mtime.1),
        &w(97),
        &w(0o100_644),
        &w(0),
        &w(13),
        &w(14),
        &w(0),
    ]
    .concat()
}

fn init_bytes(flags: u32, flags2: u32) -> Vec<u8> {
    let mut bytes = [w(7), w(45), w(131_072), w(flags), w(flags2)].concat();
    bytes.resize(64, 0);
    bytes
}

/// Bytes of a `fuse_read_in` (or `fuse_write_in`) of 5 bytes at 6 through handle 7.
fn read_or_write(flags: u32) -> Vec<u8> {
    [&d(7)[..], &d(6), &w(5), &w(flags), &d(99), &w(98), &w(0)].concat()
}

#[rustfmt::skip]
fn names() -> Vec<Sample> {
    vec![
        sample(Opcode::LOOKUP, &[], b"a name\0", Request::Lookup { name: name("a name") }),
        sample(Opcode::UNLINK, &[], b"u\0", Request::Unlink { name: name("u") }),
        sample(Opcode::RMDIR, &[], b"r\0", Request::Rmdir { name: name("r") }),
        sample(Opcode::SYMLINK, &[], b"new\0../to\0",
            Request::Symlink { name: name("new"), target: name("../to") }),
        sample(Opcode::MKNOD, &[&w(0o20_600), &w(0x0103), &w(0o22), &w(0)], b"null\0",
            Request::Mknod { name: name("null"), mode: 0o20_600, device: 0x0103, umask: 0o22 }),
        sample(Opcode::MKDIR, &[&w(0o755), &w(0o27)], b"dir\0",
            Request::Mkdir { name: name("dir"), mode: 0o755, umask: 0o27 }),
        sample(Opcode::RENAME, &[&d(9)], b"old\0new\0",
            Request::Rename { name: name("old"), new_parent: 9, new_name: name("new"), flags: 0 }),
        sample(Opcode::RENAME2, &[&d(9), &w(2), &w(0)], b"old\0new\0",
            Request::Rename { name: name("old"), new_parent: 9, new_name: name("new"), flags: 2 }),
        sample(Opcode::LINK, &[&d(8)], b"other\0", Request::Link { node: 8, name: name("other") }),
        sample(Opcode::CREATE, &[&w(0o1102), &w(0o100_640), &w(0o7), &w(1)], b"file\0",
            Request::Create {
                name: name("file"), flags: 0o1102, mode: 0o100_640, umask: 0o7, kill_privileges: true,
            }),
        sample(Opcode::SETXATTR, &[&w(3), &w(1), &w(1), &w(0)], b"user.a\0v\0w",
            Request::Setxattr { name: name("user.a"), value: b"v\0w", flags: 1, kill_sgid: true }),
        sample(Opcode::SETXATTR, &[&w(0), &w(2), &w(0), &w(0)], b"user.b\0",
            Request::Setxattr { name: name("user.b"), value: b"", flags: 2, kill_sgid: false }),
        sample(Opcode::GETXATTR, &[&w(64), &w(0)], b"user.a\0",
            Request::Getxattr { name: name("user.a"), size: 64 }),
        sample(Opcode::REMOVEXATTR, &[], b"user.a\0", Request::Removexattr { name: name("user.a") }),
    ]
}

#[rustfmt::skip]
fn handles() -> Vec<Sample> {
    let (handle, offset, size) = (7, 6, 5);
    vec![
        sample(Opcode::GETATTR, &[&w(0), &w(0), &d(7)], b"", Request::Getattr { handle: None }),
        sample(Opcode::GETATTR, &[&w(1), &w(0), &d(7)], b"", Request::Getattr { handle: Some(7) }),
        sample(Opcode::STATX, &[&w(1), &w(0), &d(7), &w(3), &w(0xfff)], b"",
            Request::Statx { handle: Some(7), mask: 0xfff }),
        sample(Opcode::STATX, &[&w(0), &w(0), &d(7), &w(3), &w(1)], b"",
            Request::Statx { handle: None, mask: 1 }),
        sample(Opcode::OPEN, &[&w(0o1001), &w(1)], b"",
            Request::Open { flags: 0o1001, kill_privileges: true }),
        sample(Opcode::OPEN, &[&w(2), &w(0)], b"", Request::Open { flags: 2, kill_privileges: false }),
        sample(Opcode::OPENDIR, &[&w(0o200_000), &w(0)], b"", Request::Opendir { flags: 0o200_000 }),
        sample(Opcode::READ, &[&read_or_write(0)], b"", Request::Read { handle, offset, size }),
        sample(Opcode::READDIR, &[&read_or_write(0)], b"", Request::Readdir { handle, offset, size }),
        sample(Opcode::READDIRPLUS, &[&read_or_write(0)], b"",
            Request::Readdirplus { handle, offset, size }),
        sample(Opcode::WRITE, &[&read_or_write(1)], b"d\0ta!",
            Request::Write { handle, offset, data: b"d\0ta!", kill_privileges: false }),
        sample(Opcode::WRITE, &[&read_or_write(4)], b"data!",
            Request::Write { handle, offset, data: b"data!", kill_privileges: true }),
        sample(Opcode::RELEASE, &[&d(7), &w(1), &w(2), &d(3)], b"", Request::Release { handle }),
        sample(Opcode::RELEASEDIR, &[&d(7), &w(1), &w(2), &d(3)], b"", Request::Releasedir { handle }),
        sample(Opcode::FLUSH, &[&d(7), &w(0), &w(0), &d(3)], b"", Request::Flush),
        sample(Opcode::FSYNC, &[&d(7), &w(1), &w(0)], b"", Request::Fsync { handle, data_only: true }),
        sample(Opcode::FSYNCDIR, &[&d(7), &w(0), &w(0)], b"",
            Request::Fsyncdir { handle, data_only: false }),
        sample(Opcode::FALLOCATE, &[&d(7), &d(6), &d(8), &w(3), &w(0)], b"",
            Request::Fallocate { handle, offset, length: 8, mode: 3 }),
        sample(Opcode::LSEEK, &[&d(7), &d(6), &w(4), &w(0)], b"",
            Request::Lseek { handle, offset, whence: 4 }),
    ]
}

#[rustfmt::skip]
fn others() -> Vec<Sample> {
    let all = 0b1111_1111;
    let set = SetattrRequest {
        handle: Some(11),
        mode: Some(0o100_644),
        uid: Some(13),
        gid: Some(14),
        size: Some(12),
        atime: Some(SetTime::Now),
        mtime: Some(SetTime::At(FileTime { seconds: -1, nanoseconds: 999_999_999 })),
        kill_privileges: false,
    };
    let nothing = SetattrRequest {
        handle: None,
        mode: None,
        uid: None,
        gid: None,
        size: None,
        atime: None,
        mtime: None,
        kill_privileges: true,
    };
    let offered = InitRequest {
        major: 7,
        minor: 45,
        max_readahead: 131_072,
        flags: InitFlags::ASYNC_READ | InitFlags::INIT_EXT | InitFlags::OVER_IO_URING,
    };
    let init = sample(Opcode::INIT, &[&init_bytes(1 << 30 | 1, 1 << 9)], b"", Request::Init(offered));
    let tmpfile = sample(Opcode::TMPFILE, &[&w(0o2), &w(0o100_600), &w(0o22), &w(0)], b"/\0",
        Request::Tmpfile { flags: 2, mode: 0o100_600, umask: 0o22 });
    vec![
        sample(Opcode::FORGET, &[&d(3)], b"", Request::Forget { lookups: 3 }),
        sample(Opcode::BATCH_FORGET, &[&w(0), &w(0)], b"",
            Request::BatchForget(Forgets { bytes: b"" })),
        sample(Opcode::BATCH_FORGET, &[&w(2), &w(0)], b"0123456789abcdef0123456789ABCDEF",
            Request::BatchForget(Forgets { bytes: b"0123456789abcdef0123456789ABCDEF" })),
        sample(Opcode::SETATTR, &[&setattr_bytes(all, (5, u32::MAX), (-1, 999_999_999))], b"",
            Request::Setattr(set)),
        sample(Opcode::SETATTR, &[&setattr_bytes(1 << 11, (5, u32::MAX), (5, u32::MAX))], b"",
            Request::Setattr(nothing)),
        sample(Opcode::READLINK, &[], b"", Request::Readlink),
        sample(Opcode::STATFS, &[], b"", Request::Statfs),
        sample(Opcode::SYNCFS, &[&d(0)], b"", Request::Syncfs),
        sample(Opcode::LISTXATTR, &[&w(0), &w(0)], b"", Request::Listxattr { size: 0 }),
        sample(Opcode::INTERRUPT, &[&d(77)], b"", Request::Interrupt { unique: 77 }),
        sample(Opcode::DESTROY, &[], b"", Request::Destroy),
        Sample { needed: Some(20), ..init },
        Sample { needed: Some(16), ..tmpfile },
    ]
}

fn samples() -> Vec<Sample> {
    [names(), handles(), others()]
        .into_iter()
        .flatten()
        .collect()
}

fn header(opcode: Opcode, length: usize) -> Vec<u8> {
    [
        &w(u32::try_from(length).unwrap())[..],
        &w(opcode.0),
        &d(1001),
        &d(5),
        &w(1000),
        &w(100),
        &w(4242),
        &[0; 4],
    ]
    .concat()
}

fn device_message(sample: &Sample) -> Vec<u8> {
    let length = Header::SIZE + sample.own.len() + sample.rest.len();
    [
        header(sample.opcode, length),
        sample.own.clone(),
        sample.rest.clone(),
    ]
    .concat()
}

fn read(bytes: &[u8]) -> Result<Request<'_>, Malformed> {
    let (header, own, rest) = message(bytes)?;
    decode(&header, own, rest)
}

/// The operation's own structure as it lies in a ring: something else may still be behind it.
fn in_area(own: &[u8]) -> Vec<u8> {
    let mut area = own.to_vec();
    area.resize(AREA, 0xa5);
    area
}

#[test]
fn a_request_of_the_device_is_read_as_it_was_sent() {
    for sample in samples() {
        let bytes = device_message(&sample);
        assert_eq!(read(&bytes), Ok(sample.expected), "{}", sample.opcode);
        let header = Header::decode(&bytes).unwrap();
        let expected = Header {
            length: u32::try_from(bytes.len()).unwrap(),
            opcode: sample.opcode,
            unique: 1001,
            node: 5,
            caller: Caller {
                uid: 1000,
                gid: 100,
                pid: 4242,
            },
            extensions: 0,
        };
        assert_eq!(header, expected);
    }
}

#[test]
fn a_request_of_a_ring_is_read_as_it_was_sent() {
    for sample in samples() {
        let header = Header::decode(&device_message(&sample)).unwrap();
        let area = in_area(&sample.own);
        let request = decode(&header, &area, &sample.rest);
        assert_eq!(request, Ok(sample.expected), "{}", sample.opcode);
    }
}

#[test]
fn a_buffer_to_be_filled_is_not_looked_at() {
    for opcode in [Opcode::READ, Opcode::READDIR, Opcode::READDIRPLUS] {
        assert!(opcode.fills_buffer());
        let header = Header::decode(&header(opcode, 80)).unwrap();
        let area = in_area(&read_or_write(0));
        assert_eq!(
            decode(&header, &area, &[0xa5; 8192]),
            decode(&header, &area, &[])
        );
    }
}

#[test]
fn every_request_that_is_cut_short_is_refused() {
    for sample in samples() {
        let body = [&sample.own[..], &sample.rest].concat();
        let needed = sample.needed.unwrap_or(body.len());
        for length in 0..needed {
            let cut = &body[..length];
            let bytes = [&header(sample.opcode, Header::SIZE + length), cut].concat();
            assert!(read(&bytes).is_err(), "{} {length}", sample.opcode);
        }
        let whole = device_message(&sample);
        for length in 0..whole.len() {
            assert!(
                read(&whole[..length]).is_err(),
                "{} {length}",
                sample.opcode
            );
        }
        let header = Header::decode(&whole).unwrap();
        if sample.needed.is_none() {
            for length in 0..sample.rest.len() {
                let cut = decode(&header, &in_area(&sample.own), &sample.rest[..length]);
                assert!(cut.is_err(), "{} {length}", sample.opcode);
            }
        }
        let needed = sample.needed.unwrap_or(sample.own.len());
        for length in 0..needed {
            let cut = decode(&header, &sample.own[..length], &sample.rest);
            assert_eq!(cut, Err(Malformed::Short), "{} {length}", sample.opcode);
        }
    }
}

#[test]
fn nothing_may_follow_the_last_argument() {
    for sample in samples() {
        if sample.needed.is_some() || sample.opcode.fills_buffer() {
            continue;
        }
        let header = Header::decode(&device_message(&sample)).unwrap();
        let more = [&sample.rest[..], b"x"].concat();
        assert!(
            decode(&header, &sample.own, &more).is_err(),
            "{}",
            sample.opcode
        );
        let more = [&sample.rest[..], b"x\0"].concat();
        assert!(
            decode(&header, &sample.own, &more).is_err(),
            "{}",
            sample.opcode
        );
    }
}

#[test]
fn a_name_is_neither_empty_nor_without_an_end() {
    let refused = |opcode, own: &[u8], rest: &[u8]| {
        let header = Header::decode(&header(opcode, 80)).unwrap();
        decode(&header, own, rest).unwrap_err()
    };
    for rest in [&b""[..], b"\0", b"name"] {
        assert_eq!(refused(Opcode::LOOKUP, &[], rest), Malformed::Name);
        assert_eq!(refused(Opcode::MKDIR, &[0; 8], rest), Malformed::Name);
    }
    for rest in [&b"a\0"[..], b"a\0\0", b"a\0b", b"\0b\0"] {
        assert_eq!(refused(Opcode::SYMLINK, &[], rest), Malformed::Name);
        assert_eq!(refused(Opcode::RENAME2, &[0; 16], rest), Malformed::Name);
    }
    assert_eq!(refused(Opcode::LOOKUP, &[], b"a\0b\0"), Malformed::Trailing);
}

#[test]
fn data_are_as_long_as_the_structure_says() {
    let header = Header::decode(&header(Opcode::WRITE, 85)).unwrap();
    for length in [0, 4, 6, 4096] {
        let written = decode(&header, &read_or_write(0), &vec![0; length]).unwrap_err();
        assert_eq!(written, Malformed::Data);
    }
    let huge = [&d(7)[..], &d(6), &w(u32::MAX), &w(0), &d(0), &d(0)].concat();
    assert_eq!(decode(&header, &huge, b"data"), Err(Malformed::Data));
}

#[test]
fn what_the_kernel_writes_back_is_told_from_what_programs_write() {
    let write = Header::decode(&header(Opcode::WRITE, 85)).unwrap();
    for (flags, expected) in [(0, false), (1, true), (4, false), (5, true)] {
        assert_eq!(is_write_back(&write, &read_or_write(flags)), expected);
    }
    assert!(!is_write_back(&write, &read_or_write(1)[..39]));
    let read = Header::decode(&header(Opcode::READ, 80)).unwrap();
    assert!(!is_write_back(&read, &read_or_write(1)));
}

#[test]
fn forgets_are_counted_before_they_are_read() {
    let header = Header::decode(&header(Opcode::BATCH_FORGET, 80)).unwrap();
    let two = [d(5), d(1), d(6), d(u64::MAX)].concat();
    let refused = |count: u32, rest| decode(&header, &[w(count), w(0)].concat(), rest).unwrap_err();
    for count in [0, 1, 3, 1 << 28, u32::MAX] {
        assert_eq!(refused(count, &two), Malformed::Data, "{count}");
    }
    let own = [w(2), w(0)].concat();
    let Ok(Request::BatchForget(forgets)) = decode(&header, &own, &two) else {
        panic!("two inodes are given back");
    };
    assert_eq!(forgets.len(), 2);
    assert_eq!(forgets.collect::<Vec<_>>(), [(5, 1), (6, u64::MAX)]);
}

fn times(valid: u32, time: (i64, u32)) -> Result<[Option<SetTime>; 2], Malformed> {
    let header = Header::decode(&header(Opcode::SETATTR, 128)).unwrap();
    match decode(&header, &setattr_bytes(valid, time, time), &[])? {
        Request::Setattr(set) => Ok([set.atime, set.mtime]),
        other => panic!("{other:?}"),
    }
}

#[test]
fn times_before_1970_are_exact() {
    for seconds in [i64::MIN, -2, -1, 0, 1, i64::MAX] {
        for nanoseconds in [0, 1, 999_999_999] {
            let at = Some(SetTime::At(FileTime {
                seconds,
                nanoseconds,
            }));
            assert_eq!(times(1 << 4 | 1 << 5, (seconds, nanoseconds)), Ok([at, at]));
        }
    }
}

#[test]
fn a_time_has_less_than_a_second_of_nanoseconds() {
    let wrong = (0, 1_000_000_000);
    assert_eq!(times(1 << 4, wrong), Err(Malformed::Time));
    assert_eq!(times(1 << 5, wrong), Err(Malformed::Time));
    let now = Some(SetTime::Now);
    assert_eq!(times(1 << 4 | 1 << 7, wrong), Ok([now, None]));
    assert_eq!(times(1 << 5 | 1 << 8, wrong), Ok([None, now]));
    // "Now" alone changes nothing.
    assert_eq!(times(1 << 7 | 1 << 8, wrong), Ok([None, None]));
}

#[test]
fn a_message_is_as_long_as_its_header_says() {
    let mut bytes = [&header(Opcode::LOOKUP, 42)[..], b"a\0"].concat();
    assert_eq!(read(&bytes), Ok(Request::Lookup { name: name("a") }));
    for length in [0, 39, 40, 41, 43, u32::MAX] {
        bytes[..4].copy_from_slice(&w(length));
        assert_eq!(read(&bytes), Err(Malformed::Length), "{length}");
    }
    for length in 0..Header::SIZE {
        assert_eq!(Header::decode(&bytes[..length]), Err(Malformed::Short));
    }
}

#[test]
fn extensions_are_no_arguments() {
    let mut bytes = [&header(Opcode::MKDIR, 66)[..], &[0; 8], b"d\0", &[7; 16]].concat();
    bytes[36..38].copy_from_slice(&2_u16.to_ne_bytes());
    let expected = Request::Mkdir {
        name: name("d"),
        mode: 0,
        umask: 0,
    };
    assert_eq!(read(&bytes), Ok(expected));
    bytes[36..38].copy_from_slice(&3_u16.to_ne_bytes());
    assert_eq!(read(&bytes), Err(Malformed::Short));
}

#[test]
fn what_is_not_taken_apart_is_still_told_apart() {
    let kinds = [
        (Opcode::COPY_FILE_RANGE, Request::CopyFileRange),
        (Opcode::COPY_FILE_RANGE_64, Request::CopyFileRange),
        (Opcode::IOCTL, Request::Ioctl),
        (Opcode::POLL, Request::Poll),
        (Opcode::NOTIFY_REPLY, Request::NotifyReply),
        (Opcode::ACCESS, Request::Unknown),
        (Opcode::SETLKW, Request::Unknown),
        (Opcode(7), Request::Unknown),
        (Opcode(4096), Request::Unknown),
    ];
    for (opcode, expected) in kinds {
        let bytes = [&header(opcode, 43)[..], b"abc"].concat();
        assert_eq!(read(&bytes), Ok(expected), "{opcode}");
    }
}

#[test]
fn only_four_operations_have_no_reply() {
    let silent = (0..64).map(Opcode).filter(|opcode| !opcode.needs_reply());
    let expected = [
        Opcode::FORGET,
        Opcode::INTERRUPT,
        Opcode::NOTIFY_REPLY,
        Opcode::BATCH_FORGET,
    ];
    assert_eq!(silent.collect::<Vec<_>>(), expected);
}

#[test]
fn operations_are_known_by_name() {
    assert_eq!(Opcode::KNOWN.len(), 51);
    assert_eq!(Opcode(44).to_string(), "READDIRPLUS (44)");
    assert_eq!(Opcode(60).to_string(), "UNKNOWN (60)");
    let mut numbers: Vec<u32> = Opcode::KNOWN.iter().map(|opcode| opcode.0).collect();
    numbers.dedup();
    let gaps = (1..=53).filter(|number| !numbers.contains(number));
    assert_eq!(gaps.collect::<Vec<_>>(), [7, 19]);
}

/// `sizeof` of the structures in `linux/fuse.h`.
#[test]
fn structures_are_as_large_as_the_kernels() {
    let sizes = [
        (Opcode::FORGET, 8),
        (Opcode::BATCH_FORGET, 8),
        (Opcode::GETATTR, 16),
        (Opcode::STATX, 24),
        (Opcode::SETATTR, 88),
        (Opcode::MKNOD, 16),
        (Opcode::MKDIR, 8),
        (Opcode::RENAME, 8),
        (Opcode::RENAME2, 16),
        (Opcode::LINK, 8),
        (Opcode::OPEN, 8),
        (Opcode::CREATE, 16),
        (Opcode::READ, 40),
        (Opcode::WRITE, 40),
        (Opcode::RELEASE, 24),
        (Opcode::FLUSH, 24),
        (Opcode::FSYNC, 16),
        (Opcode::SYNCFS, 8),
        (Opcode::SETXATTR, 16),
        (Opcode::GETXATTR, 8),
        (Opcode::FALLOCATE, 32),
        (Opcode::LSEEK, 24),
        (Opcode::INTERRUPT, 8),
        (Opcode::LOOKUP, 0),
    ];
    for (opcode, size) in sizes {
        assert_eq!(own_structure(opcode), Some(size), "{opcode}");
    }
    assert_eq!(size_of::<wire::ForgetOne>(), 16);
    assert_eq!(Header::SIZE, 40);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    /// And both ways of getting a request agree about it.
    #[test]
    fn no_bytes_make_it_panic(
        opcode in prop_oneof![0_u32..60, Just(4096), any::<u32>()],
        mut body in prop::collection::vec(any::<u8>(), 0..200),
        text in prop_oneof![Just(None), prop::collection::vec(0_u8..4, 0..24).prop_map(Some)],
        extensions in prop_oneof![3 => Just(0_u16), 1 => 0_u16..4],
    ) {
        let opcode = Opcode(opcode);
        // Names are seldom found where nothing looks like one.
        if let (Some(text), Some(own)) = (text, own_structure(opcode)) {
            body.truncate(own);
            body.extend(text);
        }
        let mut bytes = header(opcode, Header::SIZE + body.len());
        bytes[36..38].copy_from_slice(&extensions.to_ne_bytes());
        let head = Header::decode(&bytes).unwrap();
        bytes.extend(&body);
        let whole = read(&bytes);
        if let Ok(Request::BatchForget(forgets)) = whole {
            prop_assert_eq!(forgets.len(), forgets.count());
        }
        match split(opcode, &body) {
            Err(error) => prop_assert_eq!(whole, Err(error)),
            Ok((own, rest)) => {
                prop_assert_eq!(whole, decode(&head, own, rest));
                if opcode != Opcode::INIT && own.len() <= AREA {
                    prop_assert_eq!(whole, decode(&head, &in_area(own), rest));
                }
            }
        }
    }
}
