//! What the tests of the key commands share: the program on a key directory of its own.
#![allow(dead_code, reason = "each test program uses its own part")]

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use assert_cmd::cargo::cargo_bin;
use serde_json::Value;
use tempfile::TempDir;

/// A key directory, made by the first command that needs one.
pub struct Keys {
    /// Where it lies, and whatever else a test puts there.
    pub temp: TempDir,
}

impl Keys {
    /// A place for a key directory.
    pub fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        Self { temp }
    }

    /// Where the key directory is or will be.
    pub fn dir(&self) -> PathBuf {
        self.temp.path().join("keys")
    }

    /// The program, with nothing in its environment that matters to it.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(cargo_bin!("cmkfs"));
        command
            .args(args)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("CMKFS_KEYS", self.dir())
            .stdin(Stdio::null());
        command
    }

    /// Runs the program.
    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// What a command prints that must succeed and complain of nothing.
    pub fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {output:?}");
        text(&output.stdout)
    }

    /// What a command prints with `--output json`, which must succeed.
    pub fn json(&self, args: &[&str]) -> Value {
        let args = [args, &["--output", "json"]].concat();
        serde_json::from_str(&self.ok(&args)).unwrap()
    }

    /// What a command says that must fail with `code`.
    pub fn fails(&self, code: i32, args: &[&str]) -> String {
        let output = self.run(args);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {output:?}");
        text(&output.stderr)
    }

    /// The id of a new key.
    pub fn new_key(&self) -> String {
        self.ok(&["-q", "key", "create"]).trim().to_owned()
    }

    /// Where the record of a key lies.
    pub fn file_of(&self, id: &str) -> PathBuf {
        self.dir().join("keys").join(id).join("key")
    }
}

/// Output as text.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}
