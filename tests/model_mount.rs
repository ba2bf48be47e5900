//! The model test through the kernel: random histories on a mount and on a plain directory give the same answers and leave
//! the same tree, before and after a remount.

mod common;
mod support;

use common::Volume;
use proptest::prelude::*;
use proptest::test_runner::{TestCaseError, TestRunner};
use support::history::{Operation, histories, histories_with_temporaries, run_on};
use support::posix::Posix;
use support::tree::{Tree, snapshot};

#[test]
fn a_mount_behaves_like_a_plain_directory() {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let volume = Volume::mounted();
    let config = ProptestConfig {
        failure_persistence: None,
        max_shrink_iters: 500,
        ..ProptestConfig::default()
    };
    let case = std::cell::Cell::new(0);
    // The fuser library has no request for files without a name.
    let histories = if volume.transport() == "fuser" {
        histories(40).boxed()
    } else {
        histories_with_temporaries(40).boxed()
    };
    TestRunner::new(config)
        .run(&histories, |history| {
            case.set(case.get() + 1);
            compare(&volume, case.get(), &history)
        })
        .unwrap_or_else(|failure| panic!("{failure}"));
}

fn compare(volume: &Volume, case: u32, history: &[Operation]) -> Result<(), TestCaseError> {
    let plain = tempfile::tempdir().unwrap();
    let mut model = Posix::new(plain.path());
    let root = volume.path(format!("case {case}"));
    std::fs::create_dir(&root).unwrap();
    let mut mounted = Posix::new(&root);
    for operation in history {
        if *operation == Operation::Remount {
            // Once in a while: a remount takes longer than all else.
            if case.is_multiple_of(8) {
                model.release_held();
                mounted.release_held();
                volume.remount();
            }
            continue;
        }
        if operation
            .paths()
            .iter()
            .any(|path| model.leads_through_symlink(path))
        {
            continue;
        }
        prop_assert_eq!(
            run_on(&mut mounted, operation),
            run_on(&mut model, operation),
            "{:?}",
            operation
        );
    }
    model.release_held();
    mounted.release_held();
    let expected = snapshot(&mut model);
    prop_assert_eq!(&snapshot(&mut mounted), &expected);
    if case.is_multiple_of(8) {
        volume.remount();
        prop_assert_eq!(&snapshot(&mut mounted), &expected);
    }
    for (path, _) in expected.iter().filter(|(_, seen)| seen.kind == "file") {
        mounted.check_holes(path);
    }
    std::fs::remove_dir_all(&root).unwrap();
    Ok(())
}
