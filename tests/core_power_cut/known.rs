//! Histories in which something was lost once.

use super::operation::Operation::{self, *};
use super::support::tree::Range;
use super::{JOURNAL, cut::Disk, cut::Order, power_cuts, run};

fn known() -> Vec<(&'static str, Vec<Operation>)> {
    let f = "f";
    vec![
        (
            "a header that comes after the length",
            vec![Create(f), Truncate(f, 1)],
        ),
        (
            "a directory's header that comes after what is in the directory",
            vec![MakeDirectory("d"), Create("d/f"), Create(f)],
        ),
        (
            "an attribute before its key",
            vec![Create(f), Sync(f, false), SetAttribute(f, 0)],
        ),
        (
            "a block written anew after a sync",
            vec![Create(f), Write(f, 0, 1), Remount, Append(f, 1)],
        ),
        (
            "a block punched in part after a sync",
            vec![
                Create(f),
                Append(f, 1),
                Truncate(f, 3277),
                Sync(f, false),
                Allocate(f, Range::Punch, 1, 1),
            ],
        ),
        (
            "a length that fdatasync passed over",
            vec![
                Create(f),
                Write(f, 4096, 1),
                Seal,
                Truncate(f, 4098),
                Sync(f, true),
            ],
        ),
        (
            "a hole that is filled as the file grows",
            vec![Create(f), Truncate(f, 1), Sync(f, false), Write(f, 0, 2)],
        ),
        (
            "a journal that goes before its file does",
            vec![
                Create(f),
                Write(f, 0, 100),
                Create("g"),
                Write("g", 0, 100),
                SyncDirectory(""),
                Sync("g", false),
                Write(f, 0, 50),
                Sync(f, false),
                Unlink(f),
                Write("g", 0, 50),
                Sync("g", false),
            ],
        ),
        (
            "a symlink's target that goes before the symlink does",
            vec![
                Symlink(f, 4000),
                SyncDirectory(""),
                Unlink(f),
                Symlink("g", 4000),
            ],
        ),
    ]
}

#[test]
fn what_was_lost_once_is_not_lost_again() {
    let disks = [
        JOURNAL,
        Disk {
            ordered: false,
            ..JOURNAL
        },
        Disk {
            torn: true,
            ordered: false,
            ..JOURNAL
        },
        Disk {
            order: Order::Loose,
            ..JOURNAL
        },
    ];
    for (what, history) in known() {
        for disk in disks {
            if let Err(error) = power_cuts(&run(&history).0, 48, disk, &[]) {
                panic!("{what}: {disk:?}: {error}");
            }
        }
    }
}

#[test]
fn what_was_recovered_from_a_journal_survives_the_next_power_cut() {
    let f = "f";
    let history = [
        Create(f),
        Truncate(f, 1),
        Sync(f, false),
        Chmod(f, 0o600),
        Write(f, 0, 229_376),
    ];
    let again = [Write(f, 3967, 129)];
    let loose = Disk {
        order: Order::Loose,
        ..JOURNAL
    };
    for _ in 0..20 {
        if let Err(error) = power_cuts(&run(&history).0, 200, loose, &again) {
            panic!("{error}");
        }
    }
}
