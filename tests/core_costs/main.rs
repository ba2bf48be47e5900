//! What every operation costs: backing calls by kind, data keys asked of the key service, steps of HKDF, AEAD keys expanded
//! and buffers sealed or opened. Exact, so that none of it can creep: who makes an operation cheaper, or finds a reason why
//! it has to cost more, changes the table with it.
//!
//! What the table leaves out: calls by which cmkfs looks through a directory for its own ends (whether it is empty, what
//! lies aside), descriptors that are closed, and fstatfs(2) where a directory is made.
//!
//! Cryptography is counted in debug builds only.
#![cfg(debug_assertions)]

#[path = "../support/mod.rs"]
mod support;

mod meter;
mod operations;

use operations::{Bed, Keys, Lies, OPERATIONS};

/// As on a disk, and in memory; `SAME` where there is no difference.
#[rustfmt::skip]
const TABLE: &[(&str, &str, &str)] = &[
    ("lookup, there", "stat 1; aead 1", SAME),
    ("lookup, absent", "stat 1; aead 1", SAME),
    ("lookup, first in a directory", "open 2, stat 1, read 2; data key 1, kdf 5, key 2, aead 3", SAME),
    ("getattr, closed", "stat 1", SAME),
    ("getattr, open", "stat 1", SAME),
    ("getxattr, absent, in the clear", "getxattr 1", SAME),
    ("getxattr, absent, encrypted", "open 1, stat 1, read 1, getxattr 1; data key 1, kdf 6, key 3, aead 3", SAME),
    ("create", "open 1, stat 1; aead 1", SAME),
    ("first write of 1 KiB", "write 1; data key 1, kdf 5, key 2, aead 3", SAME),
    ("close of a new file", "", SAME),
    ("fsync of a new file", "sync 1", SAME),
    ("sealing, once", "open 1, sync 1", SAME),
    ("sealing, each file", "stat 1, write 1, change 1, getxattr 1; kdf 1, key 1, aead 1", SAME),
    ("open, read 1 KiB, close, cold", "open 1, stat 2, read 2; data key 1, kdf 5, key 2, aead 4", SAME),
    ("open, read 1 KiB, close, again", "open 1, stat 1, read 2; data key 1, kdf 5, key 2, aead 3", SAME),
    ("open, read 1 KiB, close, open elsewhere", "read 1; aead 1", SAME),
    ("read of 4 KiB, first in its group", "read 2; aead 1", SAME),
    ("read of 4 KiB", "read 1; aead 1", SAME),
    ("read of 1 MiB, first", "read 1; aead 256", SAME),
    ("read of 1 MiB", "read 1; aead 256", SAME),
    ("write of 1 MiB, new file", "write 1; data key 1, kdf 5, key 2, aead 258", SAME),
    ("write of 1 MiB, appended", "write 2; aead 256", SAME),
    ("write of 4 KiB, appended", "write 2; aead 1", SAME),
    ("write of 100 bytes, appended", "open 1, read 1, write 1, resize 1, change 1; aead 2", "read 1, write 1; aead 2"),
    ("overwrite of 4 KiB, first", "open 1, write 2, sync 1, change 1; kdf 1, key 1, aead 2", "write 3, sync 1; kdf 1, key 1, aead 2"),
    ("overwrite of 4 KiB", "write 1, change 1; aead 1", "write 2; aead 1"),
    ("overwrite of 100 bytes", "read 1, write 1, change 1; aead 2", "read 1, write 2; aead 2"),
    ("overwrite of 1 MiB", "read 4, write 1, change 1; aead 256", "read 4, write 1; aead 256"),
    ("fdatasync after an overwrite", "sync 1", SAME),
    ("fsync after an overwrite", "sync 2", "sync 1"),
    ("sealing after an overwrite", "open 1, stat 2, remove 1, read 1, write 4, sync 4, change 2, getxattr 2; kdf 2, key 2, aead 2", "open 1, stat 1, write 1, sync 1, change 1, getxattr 1; kdf 1, key 1, aead 1"),
    ("truncate to 0", "open 1, stat 2, read 1, resize 1, getxattr 1; data key 1, kdf 5, key 2, aead 2", SAME),
    ("truncate to half", "open 1, stat 2, read 1, write 1, resize 1, sync 1; data key 1, kdf 6, key 3, aead 3", SAME),
    ("truncate to twice", "open 1, stat 2, read 1, write 1, resize 1, sync 1; data key 1, kdf 6, key 3, aead 3", SAME),
    ("punch of 64 KiB", "write 2, resize 1, sync 2; kdf 1, key 1, aead 1", "write 2, resize 1, sync 1; kdf 1, key 1, aead 1"),
    ("punch of 50 GiB, a hole", "read 2, write 2, resize 3, seek 1, sync 1", "read 2, write 2, resize 3, seek 1"),
    ("SEEK_HOLE", "read 4", SAME),
    ("unlink, known", "open 1, stat 1, remove 1; aead 1", SAME),
    ("unlink, not known", "stat 1, remove 1; aead 1", SAME),
    ("forget after unlink", "", SAME),
    ("mkdir", "open 2, stat 3, make 1, rename 1, write 1, sync 1, change 1; data key 1, kdf 5, key 2, aead 3", SAME),
    ("rmdir", "open 4, stat 2, remove 2, rename 1; aead 1", SAME),
    ("rename", "stat 2, rename 1; aead 2", SAME),
    ("rename over a file", "open 1, stat 2, rename 1; aead 2", SAME),
    ("link", "stat 1, make 1; aead 1", SAME),
    ("create without a name", "open 2, stat 1", SAME),
    ("first write of 4 KiB to a file without a name", "write 1; data key 1, kdf 5, key 2, aead 3", SAME),
    ("link of a file without a name", "stat 1, make 1; aead 1", SAME),
    ("close of a file without a name, forgotten", "stat 1", SAME),
    ("symlink", "stat 1, make 1; data key 1, kdf 4, key 1, aead 3", SAME),
    ("readlink", "readlink 1; data key 1, kdf 4, key 1, aead 2", SAME),
    ("readdir of an empty directory", "open 1, list 2, seek 1", SAME),
    ("readdir, each entry", "aead 1", SAME),
    ("readdirplus of an empty directory", "open 1, list 2, seek 1", SAME),
    ("readdirplus, each entry", "stat 1; aead 1", SAME),
    ("readdirplus, each entry told lately", "aead 1", SAME),
];

const SAME: &str = "=";

fn check(lies: Lies) {
    let keys = Keys::new();
    let mut wrong = Vec::new();
    for (at, (name, operation)) in OPERATIONS.iter().enumerate() {
        let found = operation(&Bed::new(lies, &keys)).to_string();
        let wanted = match TABLE.get(at) {
            Some((operation, on_a_disk, in_memory)) if operation == name => match lies {
                Lies::InMemory if *in_memory != SAME => in_memory,
                Lies::InMemory | Lies::OnADisk => on_a_disk,
            },
            _ => "(no such line here)",
        };
        if found != wanted {
            wrong.push(format!("{name}\n  wanted {wanted}\n  found  {found}"));
        }
    }
    assert!(wrong.is_empty(), "{lies:?}:\n{}", wrong.join("\n"));
    assert_eq!(TABLE.len(), OPERATIONS.len(), "a line for each operation");
}

#[test]
fn every_operation_on_a_disk_costs_what_the_table_says() {
    check(Lies::OnADisk);
}

#[test]
fn every_operation_in_memory_costs_what_the_table_says() {
    check(Lies::InMemory);
}
