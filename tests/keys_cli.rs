//! The command line of the key path, run as people run it: what it prints, how it exits, what many of it do at once.

mod key_program;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use key_program::{Keys, text};
use serde_json::Value;

const NOT_FOUND: i32 = 3;
const EXISTS: i32 = 4;
const USAGE: i32 = 2;
const PASSPHRASE: i32 = 7;
const PERMISSIONS: i32 = 8;
const DAMAGED: i32 = 9;

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_key_is_created_listed_described_disabled_and_enabled() {
    let keys = Keys::new();
    let output = keys.run(&[
        "key",
        "create",
        "--alias",
        "alias/photos",
        "--description",
        "My photos",
        "--tag",
        "team=a",
        "--tag",
        "site=b=c",
    ]);
    assert!(output.status.success(), "{output:?}");
    let made = format!("Created key directory {}\n", keys.dir().display());
    assert_eq!(text(&output.stderr), made);
    let printed = text(&output.stdout);
    let id = printed
        .strip_prefix("Created key ")
        .and_then(|rest| rest.strip_suffix(" (alias/photos)\n"))
        .unwrap();

    let listed = keys.ok(&["key", "list"]);
    let row = listed.lines().find(|line| line.starts_with(id)).unwrap();
    for cell in ["Enabled", "CUSTOMER", "alias/photos", "My photos"] {
        assert!(row.contains(cell), "{row}");
    }
    assert!(listed.contains("alias/cmkfs/default"), "{listed}");

    for key in [id, "alias/photos"] {
        let described = keys.json(&["key", "describe", key]);
        let metadata = &described["KeyMetadata"];
        assert_eq!(metadata["KeyId"], id);
        assert_eq!(metadata["KeyState"], "Enabled");
        assert_eq!(metadata["Enabled"], true);
        assert_eq!(metadata["Origin"], "CMKFS");
        assert_eq!(metadata["Description"], "My photos");
        assert_eq!(metadata["Tags"][0]["TagKey"], "site");
        assert_eq!(metadata["Tags"][0]["TagValue"], "b=c");
        let material = metadata["CurrentKeyMaterialId"].as_str().unwrap();
        assert_eq!(material.len(), 64);
        assert!(keys.ok(&["key", "describe", key]).contains("team=a"));
    }

    let disabled = keys.ok(&["key", "disable", "alias/photos"]);
    assert_eq!(disabled, format!("Disabled key {id}\n"));
    let state = |key: &str| keys.json(&["key", "describe", key])["KeyMetadata"]["KeyState"].clone();
    assert_eq!(state(id), "Disabled");
    assert_eq!(
        keys.ok(&["key", "enable", id]),
        format!("Enabled key {id}\n")
    );
    assert_eq!(state(id), "Enabled");
    assert_eq!(keys.ok(&["-q", "key", "disable", id]), "");
    assert_eq!(state("alias/photos"), "Disabled");
}

#[test]
fn listings_in_json_bear_awss_field_names() {
    let keys = Keys::new();
    let id = keys.new_key();
    let listed = keys.json(&["key", "list"]);
    let listed = listed["Keys"].as_array().unwrap();
    assert_eq!(listed.len(), 2);
    assert!(listed.iter().any(|key| key["KeyId"] == id.as_str()));
    let default = listed.iter().find(|key| key["KeyManager"] == "CMKFS");
    let default = default.unwrap()["KeyId"].as_str().unwrap();
    let aliases = keys.json(&["alias", "list"]);
    assert_eq!(aliases["Aliases"][0]["AliasName"], "alias/cmkfs/default");
    assert_eq!(aliases["Aliases"][0]["TargetKeyId"], default);
    assert_eq!(
        keys.json(&["alias", "list", &id])["Aliases"],
        Value::Array(vec![])
    );
}

#[test]
fn an_alias_is_created_updated_and_deleted() {
    let keys = Keys::new();
    let (one, two) = (keys.new_key(), keys.new_key());
    let said = keys.ok(&["alias", "create", "alias/a", &one]);
    assert_eq!(said, format!("Created alias/a for key {one}\n"));
    let refused = keys.fails(EXISTS, &["alias", "create", "alias/a", &two]);
    assert!(refused.contains(&one), "{refused}");
    assert!(
        refused.contains("hint: `cmkfs alias update alias/a KEY`"),
        "{refused}"
    );
    let said = keys.ok(&["alias", "update", "alias/a", &two]);
    assert_eq!(said, format!("Updated alias/a: now for key {two}\n"));
    assert!(keys.ok(&["alias", "list", &two]).contains("alias/a"));
    assert_eq!(
        keys.ok(&["alias", "delete", "alias/a"]),
        "Deleted alias/a\n"
    );
    keys.fails(NOT_FOUND, &["alias", "delete", "alias/a"]);
    keys.ok(&["key", "describe", &two]);
    let refused = keys.fails(USAGE, &["alias", "delete", "alias/cmkfs/default"]);
    assert!(refused.contains("reserved"), "{refused}");
}

#[test]
fn errors_say_what_failed_why_and_what_to_do_next() {
    let keys = Keys::new();
    let nothing = keys.fails(NOT_FOUND, &["key", "list"]);
    let dir = keys.dir();
    let dir = dir.display();
    assert_eq!(
        nothing,
        format!(
            "error: there is no key directory at {dir}\n  hint: `cmkfs keys init` makes one; --keys DIR or CMKFS_KEYS names another\n"
        )
    );
    assert!(!keys.dir().exists());
    keys.ok(&["keys", "init"]);
    let unknown = keys.fails(NOT_FOUND, &["key", "describe", "alias/secret"]);
    assert!(
        unknown.starts_with(&format!(
            "error: alias/secret not found in {dir}\n  hint: `cmkfs alias list` and"
        )),
        "{unknown}"
    );
    let id = "00000000-0000-4000-8000-000000000000";
    let unknown = keys.fails(NOT_FOUND, &["key", "disable", id]);
    assert!(
        unknown.contains(&format!("key {id} not found in {dir}")),
        "{unknown}"
    );
    for bad in ["secret", "alias/a b", "alias/", "ABCDEF"] {
        keys.fails(USAGE, &["key", "describe", bad]);
    }
    keys.fails(USAGE, &["key", "create", "--tag", "no-value"]);
    keys.fails(
        USAGE,
        &["key", "create", "--description", &"x".repeat(8193)],
    );
    keys.fails(USAGE, &["frobnicate"]);
}

#[test]
fn a_passphrase_comes_from_a_file_or_a_command() {
    let keys = Keys::new();
    let file = keys.temp.path().join("passphrase");
    fs::write(&file, "correct horse\n").unwrap();
    let by_file = ["--passphrase-file", file.to_str().unwrap()];
    let with = |options: &[&str], args: &[&'static str]| {
        keys.run(&[options, args].concat()).status.code().unwrap()
    };
    assert_eq!(with(&by_file, &["keys", "init", "--passphrase"]), 0);
    assert!(!keys.dir().join("root.key").exists());
    assert_eq!(with(&by_file, &["key", "create"]), 0);
    let right = ["--passphrase-command", "printf 'correct horse\\r\\n'"];
    assert_eq!(with(&right, &["key", "list"]), 0);
    for command in [
        "echo wrong horse",
        "exit 3",
        "true",
        "printf 'correct horse'; exit 1",
    ] {
        let options = ["--passphrase-command", command];
        assert_eq!(with(&options, &["key", "list"]), PASSPHRASE, "{command}");
    }
    let wrong = keys.fails(
        PASSPHRASE,
        &["--passphrase-command", "echo wrong", "key", "list"],
    );
    assert!(wrong.contains("wrong passphrase for"), "{wrong}");
    fs::remove_file(&file).unwrap();
    assert_eq!(with(&by_file, &["key", "list"]), PASSPHRASE);
}

#[test]
fn an_existing_key_directory_is_not_said_to_have_a_passphrase_when_it_has_none() {
    let keys = Keys::new();
    keys.ok(&["keys", "init"]);
    let again = keys.ok(&["keys", "init"]);
    assert!(again.contains("exists already"), "{again}");
    let options = ["--passphrase-command", "echo x"];
    let args = [&options[..], &["keys", "init", "--passphrase"]].concat();
    let refused = keys.fails(EXISTS, &args);
    assert!(refused.contains("has no passphrase"), "{refused}");
}

#[test]
fn the_key_directory_is_private_and_must_stay_so() {
    let keys = Keys::new();
    let id = keys.new_key();
    let root_key = keys.dir().join("root.key");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&keys.dir()), 0o700);
    assert_eq!(mode(&root_key), 0o600);
    assert_eq!(mode(&keys.file_of(&id)), 0o600);
    set_mode(&root_key, 0o640);
    let refused = keys.fails(PERMISSIONS, &["key", "list"]);
    let remedy = format!("`chmod 600 {}`", root_key.display());
    assert!(refused.contains(&remedy), "{refused}");
    set_mode(&root_key, 0o600);
    set_mode(&keys.dir(), 0o755);
    for command in [["key", "list"], ["key", "create"], ["keys", "init"]] {
        let refused = keys.fails(PERMISSIONS, &command);
        let remedy = format!("`chmod 700 {}`", keys.dir().display());
        assert!(refused.contains(&remedy), "{refused}");
    }
    set_mode(&keys.dir(), 0o700);
    keys.ok(&["key", "list"]);
}

#[test]
fn the_key_directory_is_found_by_option_variable_and_xdg_in_that_order() {
    let keys = Keys::new();
    let temp = keys.temp.path();
    let init = |env: &[(&str, &Path)], args: &[&str], expected: &Path| {
        let mut command = keys.command(&[args, &["keys", "init"]].concat());
        command.env_remove("CMKFS_KEYS").envs(env.iter().copied());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert!(expected.join("store").is_file(), "{}", expected.display());
    };
    let (home, xdg, by_env) = (temp.join("home"), temp.join("xdg"), temp.join("env"));
    init(
        &[("HOME", &home)],
        &[],
        &home.join(".local/share/cmkfs/keys"),
    );
    let env = [("HOME", &*home), ("XDG_DATA_HOME", &xdg)];
    init(&env, &[], &xdg.join("cmkfs/keys"));
    let env = [("XDG_DATA_HOME", &*xdg), ("CMKFS_KEYS", &by_env)];
    init(&env, &[], &by_env);
    let by_option = temp.join("option");
    init(&env, &["--keys", by_option.to_str().unwrap()], &by_option);
    let mut homeless = keys.command(&["keys", "init"]);
    let output = homeless.env_remove("CMKFS_KEYS").output().unwrap();
    assert_eq!(output.status.code(), Some(USAGE));
    assert!(text(&output.stderr).contains("--keys DIR"));
}

#[test]
fn a_damaged_record_is_named_and_hides_no_other_key() {
    let keys = Keys::new();
    let (bad, good) = (keys.new_key(), keys.new_key());
    keys.ok(&["keys", "verify"]);
    let path = keys.file_of(&bad);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, bytes).unwrap();
    for args in [["key", "list"], ["keys", "verify"]] {
        let said = keys.fails(DAMAGED, &args);
        assert!(
            said.contains(&format!("error: {} is damaged", path.display())),
            "{said}"
        );
    }
    let output = keys.run(&["key", "list", "--output", "json"]);
    let listed: Value = serde_json::from_slice(&output.stdout).unwrap();
    let ids = listed["Keys"].as_array().unwrap();
    assert_eq!(ids.len(), 2);
    assert!(ids.iter().any(|key| key["KeyId"] == good.as_str()));
    keys.fails(DAMAGED, &["key", "enable", &bad]);
    keys.ok(&["key", "disable", &good]);
    keys.new_key();
}

#[test]
fn many_first_users_at_once_make_one_key_directory() {
    for round in 0..4 {
        let keys = Keys::new();
        let spawn = |_| {
            let mut command = keys.command(&["-q", "keys", "init"]);
            command.stderr(Stdio::piped()).spawn().unwrap()
        };
        let all: Vec<_> = (0..8).map(spawn).collect();
        for child in all {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "round {round}: {output:?}");
        }
        let listed = keys.json(&["key", "list"]);
        assert_eq!(listed["Keys"].as_array().unwrap().len(), 1);
        keys.ok(&["keys", "verify"]);
    }
}

#[test]
fn many_creators_at_once_lose_no_key() {
    let keys = Keys::new();
    let create = || {
        let ids = (0..5).map(|_| keys.new_key());
        ids.collect::<Vec<_>>()
    };
    let mut made: Vec<String> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..8).map(|_| scope.spawn(create)).collect();
        all.into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect()
    });
    let listed = keys.json(&["key", "list"]);
    let mut listed: Vec<String> = listed["Keys"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|key| key["KeyManager"] == "CUSTOMER")
        .map(|key| key["KeyId"].as_str().unwrap().to_owned())
        .collect();
    made.sort_unstable();
    listed.sort_unstable();
    assert_eq!(made.len(), 40);
    assert_eq!(listed, made);
    let verified = keys.json(&["keys", "verify"]);
    assert_eq!(verified["Keys"], 41);
    assert_eq!(verified["KeyMaterials"], 41);
    assert_eq!(verified["Damaged"], Value::Array(vec![]));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let keys = Keys::new();
    keys.ok(&["keys", "init"]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = keys.command(&["key", "list"]);
    let output = command.stdout(writer).stderr(Stdio::piped());
    let output = output.spawn().unwrap().wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn man_pages_and_completions_come_from_the_same_definitions() {
    let keys = Keys::new();
    assert!(keys.ok(&["generate", "man", "-"]).contains(".TH cmkfs 1"));
    let dir = keys.temp.path().to_str().unwrap().to_owned();
    keys.ok(&["generate", "man", &dir]);
    let page = fs::read_to_string(keys.temp.path().join("cmkfs-key-create.1")).unwrap();
    assert!(page.contains("description"), "{page}");
    for shell in ["bash", "zsh", "fish"] {
        assert!(
            keys.ok(&["generate", "completions", shell])
                .contains("describe")
        );
    }
    keys.fails(1, &["generate", "man", "/nonexistent"]);
    let help = keys.ok(&["--help"]);
    assert!(
        help.contains("wrong passphrase, or none to be had"),
        "{help}"
    );
}
