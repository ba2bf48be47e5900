//! Bytes that say what they are: every 16 of them hold the file they were written to, their place in it, and the version.

use std::ops::Range;

const RECORD: u64 = 16;

/// The bytes of one version of a file at these places.
pub fn bytes(file: u32, version: u64, range: Range<u64>) -> Vec<u8> {
    let first = range.start / RECORD * RECORD;
    let mut bytes = Vec::with_capacity((range.end - first + RECORD) as usize);
    let mut at = first;
    while at < range.end {
        bytes.extend_from_slice(&file.to_le_bytes());
        bytes.extend_from_slice(&((at / RECORD) as u32).to_le_bytes());
        bytes.extend_from_slice(&(version + 1).to_le_bytes());
        at += RECORD;
    }
    let skipped = (range.start - first) as usize;
    bytes.truncate((range.end - first) as usize);
    bytes.drain(..skipped);
    bytes
}

/// What bytes that begin at a multiple of 16 say of themselves, runs of equal kind joined.
pub fn describe(start: u64, bytes: &[u8]) -> String {
    let mut runs: Vec<(usize, String)> = Vec::new();
    for (n, record) in bytes.chunks(RECORD as usize).enumerate() {
        let said = said_by(start / RECORD + n as u64, record);
        if runs.last().is_none_or(|(_, last)| *last != said) {
            runs.push((n * RECORD as usize, said));
        }
    }
    let shown: Vec<_> = runs
        .iter()
        .take(12)
        .map(|(at, said)| format!("{at}: {said}"))
        .collect();
    let more = if runs.len() > shown.len() {
        ", …"
    } else {
        ""
    };
    format!("{} bytes [{}{more}]", bytes.len(), shown.join(", "))
}

fn said_by(place: u64, record: &[u8]) -> String {
    if record.iter().all(|byte| *byte == 0) {
        return "zeros".to_owned();
    }
    if record.len() < RECORD as usize {
        return "a part".to_owned();
    }
    let word = |at: usize| u32::from_le_bytes(record[at..at + 4].try_into().unwrap());
    let version = u64::from_le_bytes(record[8..].try_into().unwrap());
    if u64::from(word(4)) != place {
        return format!("mixed or misplaced ({record:02x?})");
    }
    format!("file {:x} version {}", word(0), version.wrapping_sub(1))
}

#[test]
fn bytes_of_any_place_are_a_part_of_the_whole() {
    let whole = bytes(7, 3, 0..100);
    assert_eq!(bytes(7, 3, 37..91), whole[37..91]);
    assert_eq!(describe(0, &whole[..96]), "96 bytes [0: file 7 version 3]");
}
