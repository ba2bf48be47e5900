//! The model test, without FUSE: random histories on the core and on a plain directory give the same answers and leave
//! the same tree, before and after the filesystem was closed and opened again.

mod support;

use proptest::prelude::*;
use support::direct::Direct;
use support::history::{Operation, histories_with_temporaries, run_on};
use support::posix::Posix;
use support::tree::{Tree, snapshot};

fn plain_directory() -> (tempfile::TempDir, Posix) {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let dir = tempfile::tempdir().unwrap();
    let tree = Posix::new(dir.path());
    (dir, tree)
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
