//! Commands that change keys and what lies under them, at random, and what each of them may say.

use std::fs;
use std::path::PathBuf;
use std::process::Output;

use crate::common::Volume;
use crate::random::Random;
use crate::watch::Watched;

/// The key of the root.
pub const DEFAULT: &str = "alias/cmkfs/default";
/// Directories that are bound to an alias of the same name.
pub const BOUND: [&str; 3] = ["one", "two", "imported"];

const DONE: i32 = 0;
const FAILURE: i32 = 1;
const STATE: i32 = 5;
const LIMIT: i32 = 6;

/// The keys of a volume.
pub struct Keys<'a> {
    volume: &'a Volume,
    /// Generated keys; the last is a spare one that an alias is pointed at.
    generated: Vec<String>,
    imported: String,
    material: PathBuf,
}

impl<'a> Keys<'a> {
    /// Makes them, and binds directories to them.
    pub fn new(volume: &'a Volume) -> Self {
        let create = |options: &[&str]| {
            let args = [&["-q", "key", "create"], options].concat();
            volume.succeed(&args).trim().to_owned()
        };
        let generated = [
            &["--alias", "alias/one"][..],
            &["--alias", "alias/two"],
            &[],
        ];
        let generated = generated.map(create).to_vec();
        let imported = create(&["--origin", "EXTERNAL", "--alias", "alias/imported"]);
        let material = volume.folder().join("material");
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).unwrap();
        fs::write(&material, bytes).unwrap();
        let keys = Self {
            volume,
            generated,
            imported,
            material,
        };
        volume.succeed(&keys.import());
        for name in BOUND {
            let path = volume.path(name);
            fs::create_dir(&path).unwrap();
            volume.succeed(&["bind", path.to_str().unwrap(), &format!("alias/{name}")]);
        }
        keys
    }

    fn import(&self) -> [&str; 5] {
        let material = self.material.to_str().unwrap();
        ["key", "import", &self.imported, "--material", material]
    }

    /// Takes a key away, and gives it back or leaves it so for now; or rotates it.
    pub fn change(&self, watch: (usize, &Watched), random: &mut Random) {
        let run = |args: &[&str], codes: &[i32]| self.run(watch, args, codes);
        let mut all: Vec<&str> = self.generated.iter().map(String::as_str).collect();
        all.extend([DEFAULT, self.imported.as_str()]);
        let key = *random.of(&all);
        let may_be_otherwise = [DONE, STATE];
        match random.below(6) {
            0 if key != DEFAULT => {
                run(&["key", "schedule-deletion", key], &may_be_otherwise);
                std::thread::sleep(random.pause(50));
                run(&["key", "cancel-deletion", key], &may_be_otherwise);
            }
            1 => {
                let delete = ["key", "delete-imported-key-material", &self.imported];
                run(&delete, &may_be_otherwise);
                std::thread::sleep(random.pause(50));
                run(&self.import(), &may_be_otherwise);
            }
            2 | 3 if key != self.imported => {
                run(&["key", "rotate", key], &[DONE, STATE, LIMIT]);
                return;
            }
            _ => {
                run(&["key", "disable", key], &may_be_otherwise);
                std::thread::sleep(random.pause(200));
            }
        }
        run(&["key", "enable", key], &may_be_otherwise);
        std::thread::sleep(random.pause(300));
    }

    /// Points an alias elsewhere, wraps and encrypts anew, looks at everything.
    pub fn work(&self, watch: (usize, &Watched), random: &mut Random) {
        let run = |args: &[&str], codes: &[i32]| self.run(watch, args, codes);
        let folder = self.volume.path(*random.of(&BOUND));
        let folder = folder.to_str().unwrap();
        // A key may be refused meanwhile: then something is left to do, and is told.
        let may_be_left = [DONE, FAILURE, STATE];
        match random.below(8) {
            0 | 1 => {
                let to = &self.generated[1 + random.below(2)];
                run(&["alias", "update", "alias/two", to], &[DONE, STATE]);
            }
            2 => drop(run(&["rewrap", "MOUNTPOINT"], &may_be_left)),
            3 => drop(run(&["rewrap", folder], &may_be_left)),
            4 => {
                let to = format!("alias/{}", random.of(&BOUND));
                run(&["rewrap", folder, "--to", &to], &may_be_left);
            }
            5 => drop(run(&["rekey", folder], &may_be_left)),
            6 => drop(run(&["rekey", "MOUNTPOINT"], &may_be_left)),
            _ => {
                run(&["volume", "info", "CIPHERDIR"], &[DONE]);
                run(&["audit", "verify"], &[DONE]);
                run(&["keys", "verify"], &[DONE]);
            }
        }
    }

    fn run(&self, (thread, watched): (usize, &Watched), args: &[&str], codes: &[i32]) -> Output {
        let output = watched.run(thread, &args.join(" "), || self.volume.run(args));
        let said = String::from_utf8_lossy(&output.stderr);
        let code = output.status.code();
        let is_expected = code.is_some_and(|code| codes.contains(&code));
        assert!(
            is_expected || watched.is_broken(),
            "{args:?}: {code:?}: {said}"
        );
        for bad in ["panicked", "fails authentication", "damaged", "os error 74"] {
            assert!(!said.contains(bad), "{args:?}: {said}");
        }
        output
    }

    /// Gives every key back.
    pub fn restore(&self) {
        let all = self.generated.iter().map(String::as_str);
        for key in all.chain([DEFAULT, self.imported.as_str()]) {
            // Those that are not to be deleted, and those that have their material, need nothing.
            self.volume.run(&["key", "cancel-deletion", key]);
            if key == self.imported {
                self.volume.run(&self.import());
            }
            self.volume.succeed(&["key", "enable", key]);
        }
    }
}
