//! An erasure that is killed: the key is as before or without its materials, and running it again completes it.

use std::process::Stdio;
use std::time::{Duration, Instant};

use super::Case;

const ROUNDS: u32 = 16;

#[test]
fn a_killed_erasure_leaves_the_old_state_or_the_new_and_running_it_again_completes_it() {
    let measured = Case::imported();
    let start = Instant::now();
    measured.erased();
    let whole = start.elapsed();
    let (mut before, mut after) = (0, 0);
    for round in 0..ROUNDS {
        let case = Case::imported();
        let mut child = case
            .volume
            .command(&case.erase("report.json"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Spread over the time that it takes.
        let until = Instant::now() + whole * round / ROUNDS;
        while Instant::now() < until {
            std::thread::sleep(Duration::from_micros(200));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // Whatever a next command finishes, it is one state or the other.
        match (case.state().as_str(), case.materials().len()) {
            ("Enabled", 1) => before += 1,
            ("PendingImport", 0) => after += 1,
            other => panic!("{other:?}"),
        }
        case.volume.succeed(&["audit", "verify"]);
        let again = case.volume.run(&case.erase("report.json"));
        let said = String::from_utf8_lossy(&again.stderr);
        // Only a finished report is in the way.
        assert!(
            again.status.success() || said.contains("exists already"),
            "{said}"
        );
        assert!(case.materials().is_empty());
        let (checked, code) = case.verify("report.json");
        assert_eq!(code, 0, "{checked}");
        case.volume.succeed(&["audit", "verify"]);
    }
    println!("killed before: {before}, after: {after}");
}
