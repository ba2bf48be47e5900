//! The daemon is killed while a command has it obey a change of a key: the command ends, with success where the mount had
//! obeyed or is gone for good, or with the exit code that says that nobody has, and the change is made.

mod common;

use std::fs::{self, File};
use std::io::Read;
use std::process::Stdio;
use std::time::{Duration, Instant};

use common::{DEADLINE, Volume, eventually};

const KEY: &str = "alias/cmkfs/default";
/// The exit code where a mount has not said that it obeys.
const UNANSWERED: i32 = 11;
const ROUNDS: u64 = 16;

#[test]
fn a_command_whose_mount_is_killed_while_it_obeys_ends_and_has_made_the_change() {
    let volume = Volume::mounted();
    let content = vec![7; 3_000_000];
    let mut codes = Vec::new();
    for round in 0..ROUNDS {
        fs::write(volume.path(format!("{round}")), &content).unwrap();
        // What is cached of a file that is open outlives the daemon; then the command has to say so.
        let mut held = (round % 2 == 0).then(|| File::open(volume.path("0")).unwrap());
        if let Some(file) = &mut held {
            file.read_exact(&mut [0; 10]).unwrap();
        }
        let mut command = volume.command(&["key", "disable", KEY]);
        let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let started = Instant::now();
        let mut child = command.spawn().unwrap();
        // Not a wait for something to come about: the moment of the kill is what is tried out.
        std::thread::sleep(Duration::from_micros(500 + round * 2500));
        volume.kill();
        while child.try_wait().unwrap().is_none() {
            let is_late = started.elapsed() > DEADLINE;
            if is_late {
                child.kill().unwrap();
            }
            assert!(!is_late, "round {round}: the command hangs");
            std::thread::sleep(Duration::from_millis(1));
        }
        let ended = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        let code = ended.status.code();
        assert!(
            code == Some(0) || code == Some(UNANSWERED),
            "round {round}: {code:?}: {said}"
        );
        codes.push(code);
        let described = volume.succeed(&["key", "describe", KEY]);
        assert!(described.contains("Disabled"), "round {round}: {described}");
        drop(held);
        volume.succeed(&["key", "enable", KEY]);
        volume.succeed(&["audit", "verify"]);
        eventually("the volume is mounted again", || {
            let mounted = volume.run(&["mount", "CIPHERDIR", "MOUNTPOINT"]);
            mounted.status.success()
        });
    }
    println!("{codes:?}");
    for round in 0..ROUNDS {
        let name = format!("{round}");
        assert!(fs::metadata(volume.path(&name)).is_ok(), "{name}");
    }
    volume.unmount();
}
