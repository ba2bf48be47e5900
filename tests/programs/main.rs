//! Programs that people use, on a real mount: what they leave behind is compared with what they leave behind elsewhere.

#[path = "../common/mod.rs"]
mod common;

mod copies;
mod directories;
mod files;
mod fio;
mod git;
mod handles;
mod locks;
mod sqlite;
mod users;

use std::path::Path;
use std::process::Command;

use common::succeed;

/// How long a script may take, in seconds: a hang becomes a failure.
const PATIENCE: &str = "300";

/// Stops the test where a program is missing, and names the Debian package that has it.
fn needs(programs: &[(&str, &str)]) {
    for (program, package) in programs {
        let found = Command::new("sh")
            .args(["-c", &format!("command -v {program}")])
            .output()
            .unwrap();
        assert!(
            found.status.success(),
            "{program} is missing: apt-get install {package}"
        );
    }
}

/// Runs a bash script in a directory; it must succeed. What it printed.
fn script(directory: &Path, script: &str) -> String {
    let mut command = Command::new("timeout");
    command.args([PATIENCE, "bash", "-euo", "pipefail", "-c", script]);
    // The order of a sort, and messages that tests look at; no settings of whoever runs the tests.
    command
        .env("LC_ALL", "C")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1");
    succeed(command.current_dir(directory))
}
