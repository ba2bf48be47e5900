//! Listings against the bytes that the kernel's structures have.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::fs::{Attributes, FileTime};
use crate::mount::protocol::reply;

fn name(name: &str) -> &OsStr {
    OsStr::new(name)
}

fn dirent(node: u64, next: u64, kind: u32, name: &[u8]) -> Vec<u8> {
    let length = u32::try_from(name.len()).unwrap();
    let mut bytes = [
        &node.to_ne_bytes()[..],
        &next.to_ne_bytes(),
        &length.to_ne_bytes(),
        &kind.to_ne_bytes(),
        name,
    ]
    .concat();
    while bytes.len() % 8 != 0 {
        bytes.push(0);
    }
    bytes
}

fn attributes(node: u64) -> Attributes {
    let time = FileTime {
        seconds: 1,
        nanoseconds: 2,
    };
    Attributes {
        node,
        size: 0,
        blocks: 0,
        atime: time,
        mtime: time,
        ctime: time,
        kind: FileKind::File,
        permissions: 0o600,
        links: 1,
        uid: 0,
        gid: 0,
        device: 0,
    }
}

#[test]
fn entries_follow_each_other_at_multiples_of_8() {
    let mut buffer = [0xa5; 200];
    let mut listing = Listing::new(&mut buffer);
    assert!(listing.is_empty());
    assert!(listing.entry(1, 1, FileKind::Directory, name(".")));
    assert!(listing.entry(9, 2, FileKind::File, name("12345678")));
    assert!(listing.entry(8, 3, FileKind::Symlink, name("link")));
    let expected = [
        dirent(1, 1, 4, b"."),
        dirent(9, 2, 8, b"12345678"),
        dirent(8, 3, 10, b"link"),
    ]
    .concat();
    assert_eq!(listing.len(), expected.len());
    assert_eq!(expected.len(), 96);
    assert_eq!(buffer[..96], expected);
    assert_eq!(buffer[96..], [0xa5; 104]);
}

#[test]
fn an_entry_with_attributes_begins_with_them() {
    let mut buffer = [0xa5; 400];
    let mut listing = Listing::new(&mut buffer);
    let valid = Duration::from_secs(60);
    let entry = reply::entry(Some(&attributes(9)), valid);
    let alone = reply::entry(None, valid);
    assert!(listing.entry_plus(&entry, 9, 1, FileKind::File, name("file")));
    assert!(listing.entry_plus(&alone, 1, 2, FileKind::Directory, name("..")));
    let expected = [
        entry.as_bytes(),
        &dirent(9, 1, 8, b"file"),
        alone.as_bytes(),
        &dirent(1, 2, 4, b".."),
    ]
    .concat();
    assert_eq!(expected.len(), 320);
    assert_eq!(listing.len(), 320);
    assert_eq!(buffer[..320], expected);
}

#[test]
fn an_entry_that_does_not_fit_leaves_no_trace() {
    let long = "n".repeat(255);
    let size = 24 + 256;
    for room in 0..size {
        let mut buffer = vec![0xa5; room];
        let mut listing = Listing::new(&mut buffer);
        assert!(!listing.entry(1, 1, FileKind::File, name(&long)));
        assert_eq!(listing.len(), 0);
        assert!(buffer.iter().all(|byte| *byte == 0xa5));
    }
    let mut buffer = vec![0xa5; size];
    let mut listing = Listing::new(&mut buffer);
    assert!(listing.entry(1, 1, FileKind::File, name(&long)));
    assert!(!listing.entry(1, 1, FileKind::File, name("n")));
    assert_eq!(listing.len(), size);
    assert_eq!(buffer, dirent(1, 1, 8, long.as_bytes()));
}

proptest! {
    /// As the kernel reads it: one entry after another, until what is left is no entry.
    #[test]
    fn what_fits_is_all_there(
        room in 0_usize..2000,
        lengths in prop::collection::vec((1_usize..=255, any::<bool>()), 0..20),
    ) {
        let mut buffer = vec![0xa5; room];
        let mut listing = Listing::new(&mut buffer);
        let mut expected = Vec::new();
        for (number, (length, plus)) in (1..).zip(lengths) {
            let own = "x".repeat(length);
            let entry = reply::entry(Some(&attributes(number)), Duration::from_secs(1));
            let bytes = dirent(number, number, 8, own.as_bytes());
            let bytes = if plus { [entry.as_bytes(), &bytes].concat() } else { bytes };
            let fits = expected.len() + bytes.len() <= room;
            let taken = if plus {
                listing.entry_plus(&entry, number, number, FileKind::File, name(&own))
            } else {
                listing.entry(number, number, FileKind::File, name(&own))
            };
            prop_assert_eq!(taken, fits);
            if fits {
                expected.extend(bytes);
            }
        }
        let used = listing.len();
        prop_assert_eq!(&buffer[..used], &expected);
        prop_assert!(buffer[used..].iter().all(|byte| *byte == 0xa5));
    }
}
