//! The areas of a ring's entry, byte by byte.

use super::*;
use crate::mount::protocol::{Opcode, Request, decode};

/// An entry's headers with a RELEASE of handle 7.
fn headers() -> Vec<u8> {
    let mut bytes = vec![0xa5; 288];
    let mut put = |at: usize, part: &[u8]| bytes[at..at + part.len()].copy_from_slice(part);
    put(0, &64_u32.to_ne_bytes());
    put(4, &Opcode::RELEASE.0.to_ne_bytes());
    put(8, &1001_u64.to_ne_bytes());
    put(36, &[0; 4]);
    put(128, &7_u64.to_ne_bytes());
    put(256, &0_u64.to_ne_bytes());
    put(264, &1002_u64.to_ne_bytes());
    put(272, &12_u32.to_ne_bytes());
    bytes
}

#[test]
fn a_request_is_found_in_its_areas() {
    let bytes = headers();
    let arrived = arrived(&bytes).unwrap();
    assert_eq!(arrived.header.opcode, Opcode::RELEASE);
    assert_eq!(arrived.header.unique, 1001);
    assert_eq!(arrived.arg0, &bytes[128..256]);
    assert_eq!(arrived.commit_id, 1002);
    assert_eq!(arrived.payload_length, 12);
    let request = decode(&arrived.header, arrived.arg0, &[]);
    assert_eq!(request, Ok(Request::Release { handle: 7 }));
}

#[test]
fn a_reply_lies_where_the_request_was() {
    let mut bytes = headers();
    answer(&mut bytes, 1001, None, 4096).unwrap();
    let mut expected = headers();
    expected[..4].copy_from_slice(&4112_u32.to_ne_bytes());
    expected[4..8].copy_from_slice(&[0; 4]);
    expected[8..16].copy_from_slice(&1001_u64.to_ne_bytes());
    expected[272..276].copy_from_slice(&4096_u32.to_ne_bytes());
    assert_eq!(bytes, expected);
}

#[test]
fn an_error_has_no_payload() {
    let mut bytes = headers();
    answer(&mut bytes, 1001, Some(Errno::NOENT), 4096).unwrap();
    assert_eq!(bytes[..4], 16_u32.to_ne_bytes());
    assert_eq!(bytes[4..8], (-2_i32).to_ne_bytes());
    assert_eq!(bytes[272..276], [0; 4]);
}

#[test]
fn headers_have_one_size() {
    assert_eq!(HEADERS, 288);
    for length in [0, 1, 40, 127, 128, 256, 287, 289, 4096] {
        let mut bytes = vec![0; length];
        assert_eq!(arrived(&bytes), Err(Malformed::Length), "{length}");
        assert_eq!(answer(&mut bytes, 1, None, 0), Err(Malformed::Length));
        assert!(bytes.iter().all(|byte| *byte == 0));
    }
    // All zero: a header without a length.
    assert_eq!(arrived(&[0; 288]), Err(Malformed::Length));
}

#[test]
fn a_command_fills_its_area() {
    let mut expected = [0; 80];
    expected[8..16].copy_from_slice(&0x0102_0304_0506_0708_u64.to_ne_bytes());
    expected[16..18].copy_from_slice(&3_u16.to_ne_bytes());
    assert_eq!(command(3, 0x0102_0304_0506_0708), expected);
    assert_eq!(command(0, 0), [0; 80]);
    assert_eq!(Command::Register as u32, 1);
    assert_eq!(Command::CommitAndFetch as u32, 2);
}

#[test]
fn a_payload_holds_whatever_may_come() {
    assert_eq!(payload_size(0, 0, 4096), 8192);
    assert_eq!(payload_size(1 << 20, 256, 4096), 1 << 20);
    assert_eq!(payload_size(1 << 20, 257, 4096), (1 << 20) + 4096);
    assert_eq!(payload_size((1 << 20) + 1, 256, 4096), (1 << 20) + 1);
}
