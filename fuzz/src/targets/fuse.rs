//! What the kernel sends, and the listings that it is sent: the bytes of `mount/protocol`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use cmkfs::fs::FileKind;
use cmkfs::mount::protocol::init::{InitReply, Version, init};
use cmkfs::mount::protocol::reply::entry;
use cmkfs::mount::protocol::{
    Header, IntoBytes, Listing, Malformed, Opcode, Request, decode, message, ring, split,
};

/// The areas of a ring in which header and structure lie.
const AREA: usize = 128;
/// What may still lie behind them.
const LEFT_OVER: u8 = 0xa5;

/// A message of the device, whose header gives its length; and the same as it would lie in a ring.
pub fn request(bytes: &[u8]) {
    let Some(body) = bytes.get(Header::SIZE..) else {
        assert_eq!(Header::decode(bytes), Err(Malformed::Short));
        return;
    };
    let mut bytes = bytes.to_vec();
    let length = u32::try_from(bytes.len()).expect("inputs are short");
    bytes[..4].copy_from_slice(&length.to_ne_bytes());
    let header = Header::decode(&bytes).expect("it has its length");
    let whole = message(&bytes).and_then(|(header, own, rest)| decode(&header, own, rest));
    match split(header.opcode, body) {
        Err(error) => assert_eq!(whole, Err(error)),
        Ok((own, rest)) => {
            assert_eq!(whole, decode(&header, own, rest));
            // INIT comes over the device only; its length says which form it has.
            if header.opcode != Opcode::INIT && own.len() <= AREA {
                in_a_ring(&header, &bytes, own, rest, whole);
            }
        }
    }
    if let Ok(request) = whole {
        means_something(header.opcode, &request, body);
    }
}

fn in_a_ring(
    header: &Header,
    bytes: &[u8],
    own: &[u8],
    rest: &[u8],
    whole: Result<Request<'_>, Malformed>,
) {
    let mut headers = vec![LEFT_OVER; ring::HEADERS];
    headers[..Header::SIZE].copy_from_slice(&bytes[..Header::SIZE]);
    headers[AREA..AREA + own.len()].copy_from_slice(own);
    let arrived = ring::arrived(&headers).expect("all areas are there");
    assert_eq!(arrived.header, *header);
    assert_eq!(decode(header, arrived.arg0, rest), whole);
    if header.opcode.fills_buffer() && header.extensions == 0 {
        // The payload is as long as the answer may be.
        assert_eq!(decode(header, arrived.arg0, &[LEFT_OVER; 64]), whole);
    }
}

fn means_something(opcode: Opcode, request: &Request<'_>, body: &[u8]) {
    let is_name = |name: &OsStr| !name.is_empty() && !name.as_bytes().contains(&0);
    match *request {
        Request::Lookup { name }
        | Request::Unlink { name }
        | Request::Rmdir { name }
        | Request::Removexattr { name }
        | Request::Mknod { name, .. }
        | Request::Mkdir { name, .. }
        | Request::Link { name, .. }
        | Request::Create { name, .. }
        | Request::Setxattr { name, .. }
        | Request::Getxattr { name, .. } => assert!(is_name(name)),
        Request::Symlink { name, target } => assert!(is_name(name) && is_name(target)),
        Request::Rename { name, new_name, .. } => assert!(is_name(name) && is_name(new_name)),
        Request::BatchForget(forgets) => {
            assert_eq!(forgets.len(), forgets.count());
            assert!(forgets.count() * 16 + 8 <= body.len());
        }
        Request::Init(offer) => {
            let Ok(Version::Common { minor }) = offer.version() else {
                return;
            };
            assert!(minor <= offer.minor);
            let reply = init(&InitReply {
                minor,
                max_readahead: offer.max_readahead,
                flags: offer.flags,
                max_background: 1,
                congestion_threshold: 1,
                max_write: 1,
                time_gran: 1,
                max_pages: 1,
            });
            // Lower and upper features, where they lie in the answer.
            let low = u32::from_ne_bytes([reply[12], reply[13], reply[14], reply[15]]);
            let high = u32::from_ne_bytes([reply[32], reply[33], reply[34], reply[35]]);
            assert_eq!(u64::from(low) | u64::from(high) << 32, offer.flags.bits());
        }
        Request::Unknown => assert!(
            !Opcode::KNOWN.contains(&opcode) || matches!(opcode.0, 31..=34 | 37 | 41 | 48 | 49)
        ),
        _ => assert!(Opcode::KNOWN.contains(&opcode)),
    }
}

/// The room in bytes (two bytes), then names: a byte that says how long (with its upper bit: looked up), and so many bytes.
pub fn listing(bytes: &[u8]) {
    let Some((room, mut rest)) = bytes.split_at_checked(2) else {
        return;
    };
    let room = usize::from(u16::from_le_bytes([room[0], room[1]]) % 8192);
    let mut buffer = vec![LEFT_OVER; room];
    let mut listing = Listing::new(&mut buffer);
    let mut taken = Vec::new();
    let mut number = 0;
    let found = entry(None, Duration::from_secs(1));
    while let Some((first, after)) = rest.split_first() {
        let (plus, length) = (first & 0x80 != 0, usize::from(first & 0x7f));
        let (name, after) = after.split_at(length.min(after.len()));
        rest = after;
        number += 1;
        let (before, text) = (listing.len(), OsStr::from_bytes(name));
        let kind = FileKind::Symlink;
        let is_taken = if plus {
            listing.entry_plus(&found, number, number, kind, text)
        } else {
            listing.entry(number, number, kind, text)
        };
        if is_taken {
            taken.push((plus, number, name));
        } else {
            assert_eq!(listing.len(), before, "what did not fit left a trace");
        }
    }
    let used = listing.len();
    assert!(used <= room && used.is_multiple_of(8));
    assert!(buffer[used..].iter().all(|byte| *byte == LEFT_OVER));
    let mut left = &buffer[..used];
    for (plus, number, name) in taken {
        if plus {
            let (head, after) = left.split_at(found.as_bytes().len());
            assert_eq!(head, found.as_bytes());
            left = after;
        }
        let (head, after) = left.split_at(24);
        let length = u32::try_from(name.len()).expect("names are short");
        let expected = [
            &u64::to_ne_bytes(number)[..],
            &u64::to_ne_bytes(number),
            &length.to_ne_bytes(),
            &10_u32.to_ne_bytes(),
        ]
        .concat();
        assert_eq!(head, expected);
        let (text, after) = after.split_at(name.len());
        assert_eq!(text, name);
        let (padding, after) = after.split_at(name.len().next_multiple_of(8) - name.len());
        assert!(padding.iter().all(|byte| *byte == 0));
        left = after;
    }
    assert!(left.is_empty());
}
