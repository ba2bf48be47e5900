//! What threads do at the same time, in every order or in very many: the filesystem's own sources, compiled here with locks
//! that a scheduler looks through (`sync`), so that a deadlock or a lost answer is found and not waited for.
//!
//! `CMKFS_INTERLEAVINGS=n` explores n times as many schedules. A schedule that fails is printed; `shuttle::replay` repeats it.

mod files;
#[allow(
    dead_code,
    unused_imports,
    reason = "the filesystem's sources, of which a part is used"
)]
#[path = "../../src/fs/mod.rs"]
mod fs;
mod leases;
mod sync;
mod volume;
mod withdrawal;

// What the filesystem stands on.
use cmkfs::{crypto, format, ids, sys};

use std::sync::Arc;

use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, Runner};

fn factor() -> usize {
    std::env::var("CMKFS_INTERLEAVINGS").map_or(1, |text| text.parse().expect("a number"))
}

fn run(scheduler: impl Scheduler + 'static, scenario: &Arc<dyn Fn() + Send + Sync>) -> usize {
    let mut config = Config::new();
    // A data path with buffers for names and pages on the stack.
    config.stack_size = 1 << 20;
    config.max_steps = shuttle::MaxSteps::FailAfter(1_000_000);
    let scenario = Arc::clone(scenario);
    let work = move || scenario();
    sync::exploring(|| Runner::new(scheduler, config).run(work))
}

/// Runs `scenario` in so many orders: half of them at random, half with threads of which one is preferred, but for a few
/// moments. Both find what the other does not.
fn explore(schedules: usize, scenario: impl Fn() + Send + Sync + 'static) {
    let scenario: Arc<dyn Fn() + Send + Sync> = Arc::new(scenario);
    let half = schedules * factor() / 2;
    let done = run(RandomScheduler::new(half), &scenario);
    assert_eq!(done, half);
    assert_eq!(run(PctScheduler::new(3, half), &scenario), half);
}
