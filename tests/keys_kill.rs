//! Commands that change keys, killed at random moments: the key directory is in the old or the new state, its audit log is
//! whole, and the next command works.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use assert_cmd::cargo::cargo_bin;
use serde_json::Value;

fn command(keys: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(cargo_bin!("cmkfs"));
    command
        .args(args)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("CMKFS_KEYS", keys)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn run(keys: &Path, args: &[&str]) -> Output {
    command(keys, args).output().unwrap()
}

fn ok(keys: &Path, args: &[&str]) -> String {
    let output = run(keys, args);
    assert!(output.status.success(), "{args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn json(keys: &Path, args: &[&str]) -> Value {
    serde_json::from_str(&ok(keys, &[args, &["--output", "json"]].concat())).unwrap()
}

/// How often each operation that changes something was done, by the audit log.
fn done(keys: &Path, name: &str) -> usize {
    let records = json(keys, &["audit", "show", "--event", name]);
    let records = records["Records"].as_array().unwrap();
    let done = records
        .iter()
        .filter(|record| record.get("errorCode").is_none());
    done.count()
}

/// Everything but the audit log that can be seen of the keys.
fn seen(keys: &Path) -> (Value, Value) {
    (json(keys, &["key", "list"]), json(keys, &["alias", "list"]))
}

/// Random enough for moments: splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}

/// The commands that come before one.
type Before<'a> = &'a [&'a [&'a str]];

#[test]
fn commands_that_are_killed_leave_the_old_or_the_new_state_and_a_whole_audit_log() {
    let temp = tempfile::tempdir().unwrap();
    let keys = &temp.path().join("keys");
    let id = ok(keys, &["-q", "key", "create", "--alias", "alias/a"]);
    let id = id.trim().to_owned();
    let started = Instant::now();
    ok(keys, &["key", "enable", &id]);
    // Twice what a command takes here, so that some are killed at their beginning and some not at all.
    let span = u64::try_from(started.elapsed().as_micros()).unwrap() * 2;
    let mut random = Random(std::process::id().into());
    let (mut killed, mut changed) = (0, 0);
    for round in 0..120 {
        let other = format!("alias/r{round}");
        let (name, args): (&str, Vec<&str>) = match round % 6 {
            0 => ("DisableKey", vec!["key", "disable", &id]),
            1 => ("EnableKey", vec!["key", "enable", &id]),
            2 => ("CreateKey", vec!["key", "create", "--alias", &other]),
            3 => ("CreateAlias", vec!["alias", "create", &other, &id]),
            4 => ("UpdateAlias", vec!["alias", "update", "alias/a", &id]),
            _ => ("DeleteAlias", vec!["alias", "delete", "alias/a"]),
        };
        if run(keys, &["key", "describe", "alias/a"]).status.code() == Some(3) {
            ok(keys, &["alias", "create", "alias/a", &id]);
        }
        let (before, done_before) = (seen(keys), done(keys, name));
        let mut child = command(keys, &args).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_micros(random.below(span));
        while Instant::now() < deadline && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        let _ = child.kill();
        let ended = child.wait_with_output().unwrap();
        killed += usize::from(ended.status.code().is_none());

        let after = seen(keys);
        let new = done(keys, name) - done_before;
        assert!(new <= 1, "{args:?}: written down {new} times");
        if after != before {
            assert_eq!(new, 1, "{args:?}: done, but not written down");
            changed += 1;
        }
        if ended.status.success() {
            assert_eq!(new, 1, "{args:?}: reported, but not written down");
        }
        if new == 1 && name.starts_with("Create") {
            assert_ne!(after, before, "{args:?}: written down, but not done");
        }
        ok(keys, &["audit", "verify"]);
        let verified = json(keys, &["keys", "verify"]);
        assert!(verified["Damaged"].as_array().unwrap().is_empty());
        assert!(!keys.join("journal").exists());
        let staged = fs::read_dir(keys.join(".staged")).unwrap().count();
        assert_eq!(staged, 0, "{args:?}: something lies about");
    }
    assert!(killed > 10, "only {killed} were killed");
    assert!(changed > 10, "only {changed} came about");
}

/// Runs a command and kills it at a moment that is drawn from `span`.
fn kill_at_random(keys: &Path, args: &[&str], random: &mut Random, span: u64) -> Output {
    let mut child = command(keys, args).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_micros(random.below(span));
    while Instant::now() < deadline && child.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
    let _ = child.kill();
    child.wait_with_output().unwrap()
}

/// The key directory is whole, and nothing lies about in it.
fn assert_whole(keys: &Path, args: &[&str]) {
    ok(keys, &["audit", "verify"]);
    let verified = json(keys, &["keys", "verify"]);
    let damaged = verified["Damaged"].as_array().unwrap();
    assert!(damaged.is_empty(), "{args:?}: {damaged:?}");
    assert!(!keys.join("journal").exists(), "{args:?}");
    let staged = fs::read_dir(keys.join(".staged")).unwrap().count();
    assert_eq!(staged, 0, "{args:?}: something lies about");
}

/// Everything that commands show of two keys: metadata, policy, materials.
fn all_seen(keys: &Path, ids: [&str; 2]) -> Vec<Value> {
    let mut all = vec![json(keys, &["alias", "list"])];
    for id in ids {
        all.push(json(keys, &["key", "describe", id]));
        all.push(json(keys, &["policy", "get", id]));
        all.push(json(keys, &["key", "list-rotations", id, "--all"]));
    }
    all
}

#[test]
fn every_operation_on_a_key_that_is_killed_is_done_or_not_done() {
    let temp = tempfile::tempdir().unwrap();
    let keys = &temp.path().join("keys");
    let made = |options: &[&str]| {
        let args = [&["-q", "key", "create"], options].concat();
        ok(keys, &args).trim().to_owned()
    };
    let id = made(&["--alias", "alias/a"]);
    let imported = made(&["--origin", "EXTERNAL"]);
    let material = temp.path().join("material");
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).unwrap();
    fs::write(&material, bytes).unwrap();
    let material = material.to_str().unwrap();
    let import = ["key", "import", &imported, "--material", material];
    let delete = ["key", "delete-imported-key-material", &imported];
    let schedule = ["key", "schedule-deletion", &id];
    let cancel = ["key", "cancel-deletion", &id];
    let policy = temp.path().join("policy");
    let owner = ok(keys, &["policy", "get", &id]);
    let policy_path = policy.to_str().unwrap().to_owned();
    // The operation, its command, and what has to be done before, if anything.
    let operations: [(&str, Vec<&str>, Before<'_>); 8] = [
        ("ImportKeyMaterial", import.to_vec(), &[&delete]),
        ("DeleteImportedKeyMaterial", delete.to_vec(), &[&import]),
        ("RotateKeyOnDemand", vec!["key", "rotate", &id], &[]),
        ("ScheduleKeyDeletion", schedule.to_vec(), &[]),
        ("CancelKeyDeletion", cancel.to_vec(), &[&schedule]),
        ("TagResource", vec!["key", "tag", &id, "round=ROUND"], &[]),
        (
            "UpdateAlias",
            vec!["alias", "update", "alias/a", "TARGET"],
            &[],
        ),
        (
            "PutKeyPolicy",
            vec!["policy", "put", &id, &policy_path],
            &[],
        ),
    ];
    let mut random = Random(std::process::id().into());
    let (mut killed, mut changed, mut unchanged) = (0, 0, 0);
    for round in 0..96 {
        let (name, args, before) = &operations[round % operations.len()];
        // Whatever an earlier round left; those that are so already say so.
        for args in [&cancel[..], &["key", "enable", &id], &import] {
            run(keys, args);
        }
        for args in *before {
            ok(keys, args);
        }
        // Something else each time, so that it can be seen whether it came about.
        fs::write(&policy, owner.replace("Owner", &format!("Owner{round}"))).unwrap();
        let pair = format!("round={round}");
        let target = if (round / operations.len()).is_multiple_of(2) {
            &imported
        } else {
            &id
        };
        let args: Vec<&str> = args
            .iter()
            .map(|arg| match *arg {
                "round=ROUND" => pair.as_str(),
                "TARGET" => target.as_str(),
                other => other,
            })
            .collect();
        let (seen, done_before) = (all_seen(keys, [&id, &imported]), done(keys, name));
        let started = Instant::now();
        run(keys, &["key", "describe", &id]);
        let span = u64::try_from(started.elapsed().as_micros()).unwrap() * 4;
        let ended = kill_at_random(keys, &args, &mut random, span);
        killed += usize::from(ended.status.code().is_none());
        // What is killed half way is finished by whoever comes next, here this.
        assert_whole_after(keys, &args);
        let after = all_seen(keys, [&id, &imported]);
        let new = done(keys, name) - done_before;
        assert!(new <= 1, "{args:?}: written down {new} times");
        if after == seen {
            unchanged += 1;
        } else {
            assert_eq!(new, 1, "{args:?}: done, but not written down");
            changed += 1;
        }
        if ended.status.success() {
            assert_eq!(new, 1, "{args:?}: reported, but not written down");
        }
    }
    assert!(killed > 10, "only {killed} were killed");
    assert!(changed > 10 && unchanged > 2, "{changed} and {unchanged}");
}

fn assert_whole_after(keys: &Path, args: &[&str]) {
    ok(keys, &["key", "list"]);
    assert_whole(keys, args);
}

#[test]
fn a_backup_or_a_restore_that_is_killed_leaves_a_whole_file_and_a_whole_key_directory() {
    let temp = tempfile::tempdir().unwrap();
    let keys = &temp.path().join("keys");
    for number in 0..5 {
        ok(
            keys,
            &["key", "create", "--alias", &format!("alias/{number}")],
        );
    }
    let phrase = temp.path().join("phrase");
    fs::write(&phrase, "a passphrase for the test\n").unwrap();
    let with = ["--backup-passphrase-file", phrase.to_str().unwrap()];
    let file = temp.path().join("backup");
    let file = file.to_str().unwrap();
    let backup = [&["keys", "backup", file, "--force"][..], &with].concat();
    let restore = [&["keys", "restore", file][..], &with].concat();
    let started = Instant::now();
    ok(keys, &backup);
    let span = u64::try_from(started.elapsed().as_micros()).unwrap() * 6 / 5;
    let mut random = Random(std::process::id().into());
    let mut killed = 0;
    for _ in 0..12 {
        let ended = kill_at_random(keys, &backup, &mut random, span);
        killed += usize::from(ended.status.code().is_none());
        // The old one or the new one, and whole.
        ok(keys, &restore);
        assert_whole(keys, &backup);
    }
    for _ in 0..12 {
        let fresh = &temp.path().join("fresh");
        let ended = kill_at_random(fresh, &restore, &mut random, span);
        killed += usize::from(ended.status.code().is_none());
        ok(fresh, &restore);
        assert_whole(fresh, &restore);
        assert_eq!(
            json(fresh, &["alias", "list"]),
            json(keys, &["alias", "list"])
        );
        fs::remove_dir_all(fresh).unwrap();
    }
    assert!(killed > 6, "only {killed} were killed");
}

#[test]
fn a_key_directory_whose_making_is_killed_is_made_by_the_next_command() {
    let started = Instant::now();
    let first = tempfile::tempdir().unwrap();
    ok(&first.path().join("keys"), &["keys", "init"]);
    let span = u64::try_from(started.elapsed().as_micros()).unwrap();
    let mut random = Random(std::process::id().into());
    for _ in 0..40 {
        let temp = tempfile::tempdir().unwrap();
        let keys = &temp.path().join("keys");
        let mut child = command(keys, &["keys", "init"]).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_micros(random.below(span));
        while Instant::now() < deadline && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        let _ = child.kill();
        child.wait().unwrap();
        ok(keys, &["keys", "init"]);
        assert_eq!(ok(keys, &["audit", "verify"]), "3 events are whole\n");
        let verified = json(keys, &["keys", "verify"]);
        assert_eq!(
            (&verified["Keys"], &verified["Aliases"]),
            (&1.into(), &1.into())
        );
    }
}
