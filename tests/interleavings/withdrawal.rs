//! A CMK is withdrawn under whoever reads, looks up, makes and moves: what is under way ends whole, what comes later is
//! refused, and what was acknowledged is there when the CMK comes back.

use std::ffi::OsStr;
use std::sync::Arc;

use shuttle::sync::atomic::{AtomicBool, Ordering};
use shuttle::thread;

use crate::explore;
use crate::fs::keys::KeyUnavailable;
use crate::fs::{FileSystem, FsError, FsResult, HandleId, NewMode, ROOT_NODE, RenameMode};
use crate::volume::{KEY, TestVolume, WRITE, caller, content, create};

const REASON: KeyUnavailable = KeyUnavailable::PendingDeletion;

fn name(name: &str) -> &OsStr {
    OsStr::new(name)
}

/// A withdrawal is the only thing that goes wrong.
fn is_done<T>(result: FsResult<T>) -> bool {
    match result {
        Ok(_) => true,
        Err(FsError::Key(why)) => {
            assert_eq!(why, REASON);
            false
        }
        Err(error) => panic!("{error}"),
    }
}

fn reads_whole(fs: &FileSystem, handle: HandleId) -> bool {
    let mut buffer = [0xaa; 9000];
    let read = is_done(fs.read(handle, 0, &mut buffer));
    assert!(!read || buffer == [1; 9000], "plaintext, or none of it");
    read
}

#[test]
fn nothing_is_read_or_found_once_a_withdrawal_has_returned() {
    explore(400, || {
        let volume = TestVolume::new();
        let fs = Arc::new(volume.open());
        let (node, handle) = create(&fs, "f");
        fs.write(handle, 0, &[1; 9000]).expect("a write");
        let is_gone = Arc::new(AtomicBool::new(false));
        let users = [0, 1].map(|user| {
            let (fs, is_gone) = (Arc::clone(&fs), Arc::clone(&is_gone));
            thread::spawn(move || {
                for _ in 0..2 {
                    // Asked before, so that what follows began after the withdrawal had returned.
                    let must_fail = is_gone.load(Ordering::SeqCst);
                    let done = match user {
                        0 => reads_whole(&fs, handle),
                        _ => is_done(fs.lookup(ROOT_NODE, name("f"))),
                    };
                    assert!(!(done && must_fail), "served after the withdrawal");
                }
            })
        });
        let withdrawn = fs.withdraw(KEY, REASON);
        is_gone.store(true, Ordering::SeqCst);
        assert!(withdrawn.data_keys > 0 && withdrawn.nodes.contains(&node));
        assert_eq!(
            fs.leases().data_keys(KEY),
            0,
            "no data key is left in memory"
        );
        for user in users {
            user.join().expect("no panic");
        }
        assert_eq!(fs.leases().data_keys(KEY), 0, "none came back");
        fs.leases().restore(KEY);
        assert!(reads_whole(&fs, handle));
    });
}

#[test]
fn a_withdrawal_and_a_return_lose_no_acknowledged_name_and_stop_nobody() {
    explore(200, || {
        let volume = TestVolume::new();
        let fs = Arc::new(volume.open());
        let (_, handle) = create(&fs, "f");
        fs.release(handle);
        let mover = {
            let fs = Arc::clone(&fs);
            let mode = RenameMode::NoReplace;
            thread::spawn(move || {
                is_done(fs.rename(ROOT_NODE, name("f"), ROOT_NODE, name("g"), mode))
            })
        };
        let maker = {
            let fs = Arc::clone(&fs);
            let mode = NewMode {
                permissions: 0o755,
                umask: 0,
            };
            thread::spawn(move || is_done(fs.make_directory(caller(), ROOT_NODE, name("d"), mode)))
        };
        fs.withdraw(KEY, REASON);
        fs.leases().restore(KEY);
        let (moved, made) = (
            mover.join().expect("no panic"),
            maker.join().expect("no panic"),
        );
        let is_there = |path: &str| match fs.lookup(ROOT_NODE, name(path)) {
            Ok(_) => true,
            Err(error) => {
                assert_eq!(error.errno(), rustix::io::Errno::NOENT);
                false
            }
        };
        let is_moved = is_there("g");
        assert_ne!(is_moved, is_there("f"), "it has one of its names");
        assert!(is_moved || !moved, "an acknowledged rename");
        // One that was refused may have come to its answer only.
        assert!(is_there("d") || !made, "an acknowledged directory");
        fs.shutdown().expect("a clean end");
    });
}

#[test]
fn two_withdrawals_and_a_return_leave_a_key_that_works_or_one_that_does_not() {
    explore(200, || {
        let volume = TestVolume::new();
        let fs = Arc::new(volume.open());
        let (node, handle) = create(&fs, "f");
        fs.write(handle, 0, &[1; 9000]).expect("a write");
        let others = [true, false].map(|withdraws| {
            let fs = Arc::clone(&fs);
            thread::spawn(move || {
                if withdraws {
                    drop(fs.withdraw(KEY, REASON));
                } else {
                    fs.leases().restore(KEY);
                }
            })
        });
        let opened = fs.open(caller(), node, WRITE);
        if let Ok(opened) = opened {
            is_done(fs.write(opened.handle, 0, &[1; 100]));
            fs.release(opened.handle);
        }
        fs.withdraw(KEY, REASON);
        for other in others {
            other.join().expect("no panic");
        }
        let state = fs.leases().state(KEY);
        assert_eq!(reads_whole(&fs, handle), state.is_ok());
        assert_eq!(fs.leases().any_revoked(), state.is_err());
        fs.leases().restore(KEY);
        assert!(content(&fs, node).expect("it is read") == [1; 9000]);
    });
}
