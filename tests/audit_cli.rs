//! The audit log on the command line: what it shows, what it refuses, how it is begun anew; and on a disk that is full.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use assert_cmd::cargo::cargo_bin;
use serde_json::Value;
use tempfile::TempDir;

const FAILURE: i32 = 1;
const USAGE: i32 = 2;
const NOT_FOUND: i32 = 3;
const DAMAGED: i32 = 9;

struct Keys {
    temp: TempDir,
}

impl Keys {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let keys = Self { temp };
        keys.ok(&["keys", "init"]);
        keys
    }

    fn dir(&self) -> PathBuf {
        self.temp.path().join("keys")
    }

    fn log(&self) -> PathBuf {
        self.dir().join("audit/log")
    }

    fn run(&self, args: &[&str]) -> Output {
        run_in(&self.dir(), args)
    }

    fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {output:?}");
        text(&output.stdout)
    }

    fn fails(&self, code: i32, args: &[&str]) -> String {
        let output = self.run(args);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {output:?}");
        text(&output.stderr)
    }

    fn records(&self, filter: &[&str]) -> Vec<Value> {
        let args = [&["audit", "show", "--output", "json"], filter].concat();
        let shown: Value = serde_json::from_str(&self.ok(&args)).unwrap();
        shown["Records"].as_array().unwrap().clone()
    }

    fn names(&self, filter: &[&str]) -> Vec<String> {
        let records = self.records(filter);
        let name = |record: &Value| record["eventName"].as_str().unwrap().to_owned();
        records.iter().map(name).collect()
    }

    fn new_key(&self, alias: &str) -> String {
        let made = self.ok(&["-q", "key", "create", "--alias", alias]);
        made.trim().to_owned()
    }
}

fn run_in(keys: &Path, args: &[&str]) -> Output {
    Command::new(cargo_bin!("cmkfs"))
        .args(args)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("CMKFS_KEYS", keys)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn what_was_done_and_refused_is_shown_and_can_be_picked_by_key_event_user_and_time() {
    let keys = Keys::new();
    let (one, two) = (keys.new_key("alias/one"), keys.new_key("alias/two"));
    keys.ok(&["key", "disable", &one]);
    keys.ok(&["alias", "update", "alias/one", &two]);
    keys.fails(NOT_FOUND, &["key", "disable", "alias/none"]);
    assert_eq!(
        keys.names(&[]),
        [
            "CreateKeyStore",
            "CreateKey",
            "CreateAlias",
            "CreateKey",
            "CreateKey",
            "DisableKey",
            "UpdateAlias",
            "DisableKey"
        ]
    );
    assert_eq!(keys.names(&["--key", &one]), ["CreateKey", "DisableKey"]);
    assert_eq!(
        keys.names(&["--key", "alias/two"]),
        ["CreateKey", "UpdateAlias"]
    );
    assert_eq!(
        keys.names(&["--event", "disablekey", "--last", "1"]),
        ["DisableKey"]
    );
    assert_eq!(keys.names(&["--errors"]), ["DisableKey"]);
    let refused = &keys.records(&["--errors"])[0];
    assert_eq!(refused["errorCode"], "NotFoundException");
    assert_eq!(refused["requestParameters"]["keyId"], "alias/none");
    let uid = rustix::process::getuid().as_raw().to_string();
    assert_eq!(keys.names(&["--user", &uid]).len(), 8);
    assert!(keys.names(&["--user", "nobody-of-this-name"]).is_empty());
    assert_eq!(keys.names(&["--since", "1h"]).len(), 8);
    assert!(keys.names(&["--until", "1h"]).is_empty());
    assert!(keys.names(&["--since", "9000-01-01"]).is_empty());
    keys.fails(USAGE, &["audit", "show", "--since", "yesterday"]);

    let table = keys.ok(&["audit", "show"]);
    assert_eq!(table.lines().count(), 9);
    assert!(table.starts_with("TIME "), "{table}");
    let last = table.lines().last().unwrap();
    for part in ["DisableKey", "alias/none", "NotFoundException"] {
        assert!(last.contains(part), "{last}");
    }
    assert_eq!(keys.ok(&["audit", "verify"]), "8 events are whole\n");
}

#[test]
fn a_changed_log_is_shown_named_and_refused_until_it_is_begun_anew() {
    let keys = Keys::new();
    let id = keys.new_key("alias/a");
    let whole = fs::read_to_string(keys.log()).unwrap();
    let lines: Vec<&str> = whole.split_inclusive('\n').collect();
    fs::write(keys.log(), lines[..3].concat()).unwrap();
    for args in [
        &["audit", "verify"][..],
        &["audit", "show"],
        &["keys", "verify"],
        &["key", "disable", &id],
        &["key", "list"],
    ] {
        let said = keys.fails(DAMAGED, args);
        assert!(said.contains("audit/log"), "{args:?}: {said}");
    }
    let said = keys.fails(DAMAGED, &["key", "list"]);
    assert!(said.contains("`cmkfs audit restart`"), "{said}");
    let shown = keys.run(&["audit", "show"]);
    assert_eq!(
        text(&shown.stdout).lines().count(),
        4,
        "what is left is shown"
    );

    let said = keys.ok(&["audit", "restart"]);
    assert!(said.contains("audit/damaged-1"), "{said}");
    let old = fs::read_to_string(keys.dir().join("audit/damaged-1/log")).unwrap();
    assert_eq!(old, lines[..3].concat());
    keys.ok(&["key", "disable", &id]);
    assert_eq!(keys.names(&[]), ["RestartAuditLog", "DisableKey"]);
    let restarted = &keys.records(&[])[0]["additionalEventData"];
    assert_eq!(restarted["wholeEvents"], 3);
    assert!(
        restarted["damage"]
            .as_str()
            .unwrap()
            .contains("4 lines were written")
    );
    keys.ok(&["audit", "verify"]);
    let said = keys.fails(USAGE, &["audit", "restart"]);
    assert!(said.contains("is whole"), "{said}");
}

/// A small filesystem in memory. Needs the right to mount, which the other tests of mounts need too.
struct SmallDisk {
    temp: TempDir,
}

impl SmallDisk {
    fn new(bytes: &str) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let options = format!("size={bytes},mode=700");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(temp.path())
            .status()
            .unwrap();
        assert!(mounted.success(), "a tmpfs can be mounted");
        Self { temp }
    }

    fn fill(&self) -> PathBuf {
        let path = self.temp.path().join("filler");
        let mut file = fs::File::create(&path).unwrap();
        let _ = std::io::copy(&mut std::io::repeat(1), &mut file);
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.temp.path()).status();
    }
}

#[test]
fn on_a_full_disk_nothing_is_done_unrecorded_but_keys_can_be_disabled() {
    let disk = SmallDisk::new("2m");
    let keys = disk.temp.path().join("keys");
    let run = |args: &[&str]| run_in(&keys, args);
    let made = run(&["-q", "key", "create"]);
    assert!(made.status.success(), "{made:?}");
    let id = text(&made.stdout).trim().to_owned();
    let new = |more: &[&str]| {
        let made = run(&[&["-q", "key", "create"], more].concat());
        assert!(made.status.success(), "{made:?}");
        text(&made.stdout).trim().to_owned()
    };
    let (scheduled, granted) = (new(&[]), new(&[]));
    let external = new(&["--origin", "EXTERNAL"]);
    let material = disk.temp.path().join("material");
    let bytes: [u8; 32] = std::array::from_fn(|at| (at as u8).wrapping_mul(167) ^ 3);
    fs::write(&material, bytes).unwrap();
    let material = material.to_str().unwrap();
    let imported = run(&["key", "import", &external, "--material", material]);
    assert!(imported.status.success(), "{imported:?}");
    let grantee = ["--grantee-principal", "user:1", "--operations", "Decrypt"];
    let grant = run(&[&["-q", "grant", "create", &granted][..], &grantee].concat());
    let grant = text(&grant.stdout).trim().to_owned();
    let filler = disk.fill();
    // What is left of the block that the log ends in, too.
    while run(&["key", "list"]).status.success() {}
    for args in [
        &["key", "create"][..],
        &["key", "list"],
        &["key", "enable", &id],
    ] {
        let refused = run(args);
        assert_eq!(
            refused.status.code(),
            Some(FAILURE),
            "{args:?}: {refused:?}"
        );
        let said = text(&refused.stderr);
        assert!(said.contains("No space left"), "{said}");
        assert!(said.contains("make room"), "{said}");
    }
    for args in [
        &["key", "disable", &id][..],
        &["key", "schedule-deletion", &scheduled],
        &["key", "delete-imported-key-material", &external],
        &["grant", "revoke", &granted, &grant],
    ] {
        let done = run(args);
        assert!(done.status.success(), "{args:?}: {done:?}");
    }
    assert!(!keys.join("journal").exists());
    let verified = run(&["audit", "verify"]);
    assert!(verified.status.success(), "{verified:?}");
    fs::remove_file(filler).unwrap();
    let described = run(&["key", "describe", &id]);
    assert!(
        text(&described.stdout).contains("Disabled"),
        "{described:?}"
    );
    let whole = run(&["keys", "verify"]);
    assert!(whole.status.success(), "{whole:?}");
    let made = run(&["key", "create"]);
    assert!(made.status.success(), "{made:?}");
    assert!(keys.join("audit/reserve").exists());
}

#[test]
fn a_key_directory_that_cannot_be_written_shows_its_log_and_gives_no_key() {
    let disk = SmallDisk::new("2m");
    let keys = disk.temp.path().join("keys");
    assert!(run_in(&keys, &["keys", "init"]).status.success());
    let remount = |how: &str| {
        let done = Command::new("mount")
            .args(["-o", how])
            .arg(disk.temp.path())
            .status();
        assert!(done.unwrap().success());
    };
    remount("remount,ro");
    for args in [&["audit", "show"][..], &["audit", "verify"]] {
        let output = run_in(&keys, args);
        assert!(output.status.success(), "{args:?}: {output:?}");
    }
    let refused = run_in(&keys, &["key", "list"]);
    assert_eq!(refused.status.code(), Some(FAILURE));
    let said = text(&refused.stderr);
    assert!(
        said.contains("audit log") && said.contains("writable"),
        "{said}"
    );
    remount("remount,rw");
    assert!(run_in(&keys, &["key", "list"]).status.success());
}

#[test]
fn keys_are_backed_up_and_restored_on_the_command_line() {
    let keys = Keys::new();
    let id = keys.new_key("alias/a");
    let file = keys.temp.path().join("backup");
    let secret = keys.temp.path().join("secret");
    fs::write(&secret, "far away\n").unwrap();
    let (file, secret) = (file.to_str().unwrap(), secret.to_str().unwrap());
    let with = ["--backup-passphrase-file", secret];
    let said = keys.ok(&[&["keys", "backup", file][..], &with].concat());
    assert!(
        said.starts_with("Backed up 2 keys with 2 key materials"),
        "{said}"
    );
    let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(file).unwrap());
    assert_eq!(mode & 0o777, 0o600);
    let said = keys.fails(4, &[&["keys", "backup", file][..], &with].concat());
    assert!(said.contains("--force"), "{said}");
    let json = keys.ok(&[
        &["keys", "backup", file, "--force", "--output", "json"][..],
        &with,
    ]
    .concat());
    let json: Value = serde_json::from_str(&json).unwrap();
    let sum = Command::new("sha256sum").arg(file).output().unwrap();
    assert!(text(&sum.stdout).starts_with(json["Sha256"].as_str().unwrap()));
    let remembered = keys.records(&["--event", "BackupKeys", "--last", "1"]);
    let remembered = &remembered[0]["additionalEventData"];
    assert_eq!(remembered["sha256"], json["Sha256"]);
    assert_eq!(remembered["backupId"], json["BackupId"]);
    assert_eq!(remembered["keys"].as_array().unwrap().len(), 2);

    fs::remove_dir_all(keys.dir().join("keys").join(&id)).unwrap();
    let said = keys.ok(&[&["keys", "restore", file][..], &with].concat());
    assert!(
        said.starts_with("Restored 1 keys, 1 key materials and 0 aliases"),
        "{said}"
    );
    keys.ok(&["key", "describe", "alias/a"]);

    fs::remove_dir_all(keys.dir()).unwrap();
    keys.fails(
        7,
        &[
            "keys",
            "restore",
            file,
            "--backup-passphrase-command",
            "echo wrong",
        ],
    );
    assert!(!keys.dir().exists());
    keys.ok(&[&["keys", "restore", file][..], &with].concat());
    keys.ok(&["key", "describe", "alias/a"]);
    assert_eq!(keys.names(&[])[..2], ["CreateKeyStore", "RestoreKeys"]);
    keys.ok(&["keys", "verify"]);

    let whole = fs::read(file).unwrap();
    fs::write(file, &whole[..whole.len() / 2]).unwrap();
    let said = keys.fails(DAMAGED, &[&["keys", "restore", file][..], &with].concat());
    assert!(said.contains("backup"), "{said}");
}

#[test]
fn a_change_of_a_key_that_is_not_there_is_written_down_whatever_the_command() {
    let keys = Keys::new();
    let policy = keys.temp.path().join("policy.json");
    fs::write(&policy, "{}").unwrap();
    let policy = policy.to_str().unwrap();
    let grant = "0".repeat(64);
    for (name, args) in [
        ("PutKeyPolicy", &["policy", "put", "alias/none", policy][..]),
        ("RevokeGrant", &["grant", "revoke", "alias/none", &grant]),
        ("RetireGrant", &["grant", "retire", "alias/none", &grant]),
        ("DisableKey", &["key", "disable", "alias/none"]),
    ] {
        keys.fails(NOT_FOUND, args);
        let records = keys.records(&["--event", name, "--errors"]);
        assert_eq!(records.len(), 1, "{name}");
        assert_eq!(records[0]["errorCode"], "NotFoundException");
        assert_eq!(records[0]["requestParameters"]["keyId"], "alias/none");
    }
}
