//! The model test, without FUSE: random histories on the core and on a plain directory give the same answers and leave
//! the same tree, before and after the filesystem was closed and opened again.

mod support;

use proptest::prelude::*;
use support::direct::Direct;
use support::history::{Data, Operation, histories_with_temporaries, run_on};
use support::posix::Posix;
use support::tree::{Tree, snapshot};

fn plain_directory() -> (tempfile::TempDir, Posix) {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let dir = tempfile::tempdir().unwrap();
    let tree = Posix::new(dir.path());
    (dir, tree)
}

/// What is left to do in the background when a file is closed is no change of it.
#[test]
fn a_file_keeps_the_time_it_is_given_while_it_is_sealed() {
    let a = || String::from("a");
    let write = || Operation::Write(a(), 0, Data::new(1, 200_000));
    let set_time = || Operation::SetMtime(a(), 1_000_000_000, 5);
    let create = || Operation::Create(a(), 0o600);
    let cut = |size| Operation::Truncate(a(), size);
    // Opened for writing, so that it is sealed.
    let open = || [Operation::Hold(a()), Operation::ReleaseHeld];
    for (killed, kept) in [
        (vec![], vec![create(), write(), set_time()]),
        (vec![], vec![create(), write(), cut(1), set_time()]),
        (vec![], vec![create(), write(), cut(100_000), set_time()]),
        (vec![create(), write()], vec![set_time()]),
        (vec![create(), write(), write()], vec![set_time()]),
        (vec![create(), write(), cut(1)], vec![set_time()]),
    ] {
        let mut core = Direct::new();
        for operation in &killed {
            run_on(&mut core, operation).unwrap();
        }
        core.remount_killed();
        for operation in kept.iter().chain(&open()) {
            run_on(&mut core, operation).unwrap();
        }
        let before = snapshot(&mut core);
        assert_eq!(before["a"].mtime, Some((1_000_000_000, 5)));
        core.remount();
        assert_eq!(snapshot(&mut core), before, "{killed:?} {kept:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None, max_shrink_iters: 4000, ..ProptestConfig::default() })]

    #[test]
    fn the_core_behaves_like_a_plain_directory(history in histories_with_temporaries(40)) {
        let (_dir, mut model) = plain_directory();
        let mut core = Direct::new();
        for operation in &history {
            if *operation == Operation::Remount {
                model.release_held();
                core.remount();
                continue;
            }
            if operation.paths().iter().any(|path| model.leads_through_symlink(path)) {
                continue;
            }
            prop_assert_eq!(run_on(&mut core, operation), run_on(&mut model, operation), "{:?}", operation);
        }
        prop_assert_eq!(snapshot(&mut core), snapshot(&mut model));
        core.remount();
        let tree = snapshot(&mut core);
        for (path, _) in tree.iter().filter(|(_, seen)| seen.kind == "file") {
            core.check_holes(path);
        }
        prop_assert_eq!(tree, snapshot(&mut model));
    }

    #[test]
    fn nothing_is_lost_when_the_process_dies_between_operations(history in histories_with_temporaries(25)) {
        let (_dir, mut model) = plain_directory();
        let mut core = Direct::new();
        for operation in &history {
            if *operation == Operation::Remount {
                model.release_held();
                core.remount_killed();
                continue;
            }
            if operation.paths().iter().any(|path| model.leads_through_symlink(path)) {
                continue;
            }
            prop_assert_eq!(run_on(&mut core, operation), run_on(&mut model, operation), "{:?}", operation);
        }
        core.remount_killed();
        prop_assert_eq!(snapshot(&mut core), snapshot(&mut model));
    }
}
