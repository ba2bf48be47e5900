//! `cmkfs erase`, as people run it: what it shows before, what it asks, what it destroys, and whether its report holds.

#[path = "../common/mod.rs"]
mod common;

mod killed;
mod mounted;
mod offline;
mod reports;

use std::fs;
use std::path::{Path, PathBuf};

use common::Volume;
use serde_json::Value;

/// Something does not hold.
const DAMAGED: i32 = 9;
/// A mount did not answer.
const UNANSWERED: i32 = 11;

/// A volume all of which is under a key of its own.
struct Case {
    volume: Volume,
    key: String,
}

impl Case {
    /// Under imported material.
    fn imported() -> Self {
        let volume = Volume::bare(None);
        let create = ["-q", "key", "create", "--origin", "EXTERNAL"];
        let key = volume.succeed(&create).trim().to_owned();
        let case = Self { volume, key };
        case.import("material");
        case.make();
        case
    }

    /// Under generated material.
    fn generated() -> Self {
        let volume = Volume::bare(None);
        let key = volume.succeed(&["-q", "key", "create"]).trim().to_owned();
        let case = Self { volume, key };
        case.make();
        case
    }

    fn make(&self) {
        self.volume
            .succeed(&["init", "CIPHERDIR", "--key", &self.key]);
        fs::create_dir(self.volume.mountpoint()).unwrap();
    }

    /// Imports what is in a file, which is made with random bytes where it is not there.
    fn import(&self, name: &str) {
        let material = self.volume.folder().join(name);
        if !material.exists() {
            let mut bytes = [0; 32];
            getrandom::fill(&mut bytes).unwrap();
            fs::write(&material, bytes).unwrap();
        }
        let material = material.to_str().unwrap();
        let import = ["-q", "key", "import", &self.key, "--material", material];
        self.volume.succeed(&import);
    }

    /// The arguments that erase the key without a question, and write the report to a file of this name.
    fn erase<'a>(&'a self, report: &'a str) -> Vec<&'a str> {
        vec![
            "erase",
            &self.key,
            "--volume",
            "CIPHERDIR",
            "--yes",
            "--key-id",
            &self.key,
            "--report",
            report,
        ]
    }

    /// Erases the key; the report.
    fn erased(&self) -> Value {
        self.volume.succeed(&self.erase("report.json"));
        self.report("report.json")
    }

    fn report(&self, name: &str) -> Value {
        read(&self.volume.folder().join(name))
    }

    /// What the checks of a report say, and the exit code.
    fn verify(&self, name: &str) -> (Value, i32) {
        let output = self
            .volume
            .run(&["erase", "--verify", name, "--output", "json"]);
        let code = output.status.code().unwrap();
        let said = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {output:?}"));
        (said, code)
    }

    /// The files of the key's materials.
    fn materials(&self) -> Vec<PathBuf> {
        let folder = self.volume.folder().join("keys/keys").join(&self.key);
        let Ok(entries) = fs::read_dir(folder) else {
            return Vec::new();
        };
        let paths = entries.map(|entry| entry.unwrap().path());
        paths
            .filter(|path| path.file_name().unwrap().len() == 64)
            .collect()
    }

    fn state(&self) -> String {
        let described = self
            .volume
            .succeed(&["key", "describe", &self.key, "--output", "json"]);
        let described: Value = serde_json::from_str(&described).unwrap();
        described["KeyMetadata"]["KeyState"]
            .as_str()
            .unwrap()
            .to_owned()
    }
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// The result of one check.
fn result<'a>(checked: &'a Value, check: &str) -> &'a str {
    let checks = checked["Checks"].as_array().unwrap();
    let found = checks.iter().find(|found| found["Check"] == check);
    found.unwrap_or_else(|| panic!("no {check} in {checked}"))["Result"]
        .as_str()
        .unwrap()
}
