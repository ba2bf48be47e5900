//! Key policies and grants on the command line: what is put is what is got, who is refused and how it is said, as more than
//! one user of the machine.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use assert_cmd::cargo::cargo_bin;
use serde_json::{Value, json};
use tempfile::TempDir;

const USAGE: i32 = 2;
const NOT_FOUND: i32 = 3;
const STATE: i32 = 5;
const DENIED: i32 = 12;

/// Users that need not exist, to whom the key directory can belong.
const OWNER: u32 = 54_321;
const OTHER_GROUP: u32 = 54_322;

struct Keys {
    temp: TempDir,
    program: PathBuf,
    /// User and supplementary group.
    identity: Option<(u32, u32)>,
}

impl Keys {
    fn new() -> Self {
        Self {
            temp: tempfile::tempdir().unwrap(),
            program: cargo_bin!("cmkfs").to_path_buf(),
            identity: None,
        }
    }

    /// Everything belongs to [`OWNER`], and commands run as them.
    fn of_another_user() -> Self {
        let mut keys = Self::new();
        // That user may not be able to reach the build directory.
        let program = keys.temp.path().join("cmkfs");
        let copied = Command::new("cp").arg(&keys.program).arg(&program).status();
        assert!(copied.unwrap().success());
        chown(keys.temp.path(), Some(OWNER), None)
            .expect("commands are run as other users, which takes root");
        keys.program = program;
        keys.identity = Some((OWNER, OTHER_GROUP));
        keys
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = match self.identity {
            Some((user, group)) => {
                let mut command = Command::new("setpriv");
                command
                    .args([format!("--reuid={user}"), format!("--regid={user}")])
                    .arg(format!("--groups={group}"))
                    .arg(&self.program);
                command
            }
            None => Command::new(&self.program),
        };
        command
            .args(args)
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("HOME", self.temp.path())
            .env("CMKFS_KEYS", self.temp.path().join("keys"))
            .current_dir(self.temp.path())
            .stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// What a command prints that must succeed and complain of nothing.
    fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {output:?}");
        text(&output.stdout)
    }

    fn json(&self, args: &[&str]) -> Value {
        let args = [args, &["--output", "json"]].concat();
        serde_json::from_str(&self.ok(&args)).unwrap()
    }

    /// What a command says that must fail with `code`.
    fn fails(&self, code: i32, args: &[&str]) -> String {
        let output = self.run(args);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {output:?}");
        text(&output.stderr)
    }

    fn new_key(&self) -> String {
        self.ok(&["-q", "key", "create"]).trim().to_owned()
    }

    /// Writes a policy of these statements, and returns its file.
    fn policy(&self, statements: &Value) -> String {
        let path = self.temp.path().join("policy.json");
        let policy = json!({"Version": "2012-10-17", "Statement": statements});
        fs::write(&path, policy.to_string()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn statement(sid: &str, effect: &str, principal: &Value, action: &Value) -> Value {
    json!({"Sid": sid, "Effect": effect, "Principal": principal, "Action": action, "Resource": "*"})
}

/// Everybody may do everything but this.
fn all_but(action: &str) -> Value {
    json!([
        statement("Everybody", "Allow", &json!("*"), &json!("kms:*")),
        statement("Not this", "Deny", &json!("*"), &json!(action)),
    ])
}

#[test]
fn what_is_put_is_what_is_got() {
    let keys = Keys::new();
    let id = keys.new_key();
    let default = keys.ok(&["policy", "get", &id]);
    let parsed: Value = serde_json::from_str(&default).unwrap();
    assert_eq!(parsed["Statement"][0]["Action"], "kms:*");
    assert_eq!(parsed["Statement"][0]["Effect"], "Allow");
    let answer = keys.json(&["policy", "get", &id]);
    assert_eq!(answer["PolicyName"], "default");
    assert_eq!(answer["Policy"], default.trim_end());

    let file = keys.policy(&all_but("kms:Encrypt"));
    let said = keys.ok(&["policy", "put", &id, &file]);
    assert_eq!(said, format!("Put the policy of key {id}\n"));
    let written = fs::read_to_string(&file).unwrap();
    assert_eq!(keys.ok(&["policy", "get", &id]).trim_end(), written);

    let mut put = keys.command(&["policy", "put", &id, "-", "--output", "json"]);
    let put = put.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut put = put.spawn().unwrap();
    put.stdin
        .take()
        .unwrap()
        .write_all(default.as_bytes())
        .unwrap();
    let output = put.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(said["KeyId"], id.as_str());
    assert_eq!(keys.ok(&["policy", "get", &id]), default);
    keys.ok(&["keys", "verify"]);
}

#[test]
fn a_refusal_says_who_may_not_do_what_with_which_key_and_why() {
    let keys = Keys::new();
    let id = keys.new_key();
    keys.ok(&["alias", "create", "alias/a", &id]);
    let file = keys.policy(&all_but("kms:DisableKey"));
    keys.ok(&["policy", "put", "alias/a", &file]);
    let said = keys.fails(DENIED, &["key", "disable", "alias/a"]);
    let me = text(&Command::new("id").arg("-u").output().unwrap().stdout);
    let expected = format!(
        "(uid {}) is not authorized to perform kms:DisableKey on key {id}: statement \"Not this\" of its key policy denies it\n",
        me.trim()
    );
    assert!(said.contains(&expected), "{said}");
    assert!(
        said.contains("hint: whoever may perform kms:PutKeyPolicy"),
        "{said}"
    );
    assert!(keys.ok(&["key", "describe", &id]).contains("Enabled"));
}

#[test]
fn the_policy_is_asked_before_the_state() {
    let keys = Keys::new();
    let id = keys.new_key();
    keys.ok(&["key", "disable", &id]);
    let grant = [
        "grant",
        "create",
        &id,
        "--grantee-principal",
        "user:0",
        "--operations",
        "Decrypt",
    ];
    keys.fails(STATE, &grant);
    let file = keys.policy(&all_but("kms:CreateGrant"));
    keys.ok(&["policy", "put", &id, &file]);
    keys.fails(DENIED, &grant);
}

#[test]
fn every_command_on_a_key_obeys_its_policy() {
    let keys = Keys::new();
    let (id, other) = (keys.new_key(), keys.new_key());
    keys.ok(&["alias", "create", "alias/a", &id]);
    let create = [
        "-q",
        "grant",
        "create",
        &id,
        "--grantee-principal",
        "user:0",
        "--operations",
        "Decrypt,DescribeKey",
    ];
    let grant = keys.ok(&create).trim().to_owned();
    let everything = keys.policy(&all_but("kms:Encrypt"));
    let everything_text = fs::read(&everything).unwrap();
    let file = everything.as_str();
    let commands: [(&str, &[&str]); 13] = [
        ("DescribeKey", &["key", "describe", &id]),
        ("DisableKey", &["key", "disable", &id]),
        ("EnableKey", &["key", "enable", &id]),
        ("CreateAlias", &["alias", "create", "alias/b", &id]),
        ("UpdateAlias", &["alias", "update", "alias/a", &id]),
        ("UpdateAlias", &["alias", "update", "alias/a", &other]),
        ("DeleteAlias", &["alias", "delete", "alias/a"]),
        ("ListAliases", &["alias", "list", &id]),
        ("GetKeyPolicy", &["policy", "get", &id]),
        ("CreateGrant", &create),
        ("ListGrants", &["grant", "list", &id]),
        ("RetireGrant", &["grant", "retire", &id, &grant]),
        ("RevokeGrant", &["grant", "revoke", &id, &grant]),
    ];
    for (action, command) in commands {
        keys.policy(&all_but(&format!("kms:{action}")));
        keys.ok(&["policy", "put", &id, file]);
        let said = keys.fails(DENIED, command);
        assert!(said.contains(&format!("kms:{action} ")), "{said}");
        fs::write(file, &everything_text).unwrap();
        keys.ok(&["policy", "put", &id, file]);
    }
    // What was refused has changed nothing; what is allowed works.
    assert_eq!(
        keys.json(&["grant", "list", &id])["Grants"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert!(keys.ok(&["alias", "list", &id]).contains("alias/a"));
    for (_, command) in commands {
        let code = keys.run(command).status.code();
        // The aliases and the grant are moved, deleted and taken away on the way.
        assert!(matches!(code, Some(0 | NOT_FOUND)), "{command:?}: {code:?}");
    }
}

#[test]
fn a_volume_cannot_be_made_under_a_key_whose_policy_denies_data_keys() {
    let keys = Keys::new();
    let id = keys.new_key();
    let file = keys.policy(&all_but("kms:GenerateDataKey"));
    keys.ok(&["policy", "put", &id, &file]);
    let said = keys.fails(DENIED, &["init", "cipher", "--key", &id]);
    assert!(said.contains("kms:GenerateDataKey"), "{said}");
}

#[test]
fn a_policy_that_cannot_be_used_changes_nothing() {
    let keys = Keys::new();
    let id = keys.new_key();
    let before = keys.ok(&["policy", "get", &id]);
    let nobody_else = json!([statement(
        "x",
        "Allow",
        &json!({"User": 12_345}),
        &json!("*")
    )]);
    let unknown = json!([statement(
        "x",
        "Allow",
        &json!({"User": [0, "no-such-user"]}),
        &json!("*")
    )]);
    let mistyped = json!([statement("x", "Allow", &json!("*"), &json!("kms:Decypt"))]);
    let mut odd = statement("x", "Allow", &json!("*"), &json!("*"));
    odd["Condition"] = json!({"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}});
    for (statements, complaint) in [
        (nobody_else, "could not change it again"),
        (unknown, "there is no such user"),
        (mistyped, "KMS has no such operation"),
        (json!([odd]), "not supported"),
        (json!([]), "at least one"),
    ] {
        let file = keys.policy(&statements);
        let said = keys.fails(USAGE, &["policy", "put", &id, &file]);
        assert!(said.contains(complaint), "{said}");
        assert!(said.contains("hint: `cmkfs policy get"), "{said}");
        assert_eq!(keys.ok(&["policy", "get", &id]), before);
    }
    let huge = keys.policy(&json!([statement(
        &"x".repeat(33_000),
        "Allow",
        &json!("*"),
        &json!("*")
    )]));
    let said = keys.fails(USAGE, &["policy", "put", &id, &huge]);
    assert!(said.contains("at most 32768 bytes"), "{said}");
    keys.fails(1, &["policy", "put", &id, "/nonexistent"]);
    let default = keys.policy(&all_but("kms:Encrypt"));
    keys.fails(STATE, &["policy", "put", "alias/cmkfs/default", &default]);
}

#[test]
fn whoever_insists_can_lock_themselves_out() {
    let keys = Keys::new();
    let id = keys.new_key();
    let file = keys.policy(&all_but("kms:PutKeyPolicy"));
    keys.fails(USAGE, &["policy", "put", &id, &file]);
    let insist = "--bypass-policy-lockout-safety-check";
    keys.ok(&["policy", "put", &id, &file, insist]);
    keys.fails(DENIED, &["policy", "put", &id, &file, insist]);
    keys.ok(&["key", "describe", &id]);
}

#[test]
fn grants_are_created_listed_retired_and_revoked() {
    let keys = Keys::new();
    let id = keys.new_key();
    let create = [
        "grant",
        "create",
        &id,
        "--grantee-principal",
        "group:root",
        "--retiring-principal",
        "user:7",
        "--operations",
        "Decrypt",
        "GenerateDataKey",
        "--encryption-context-subset",
        "kind=file",
        "--name",
        "nightly",
    ];
    let made = keys.json(&create);
    let grant = made["GrantId"].as_str().unwrap().to_owned();
    assert_eq!(grant.len(), 64);
    assert_eq!(
        keys.json(&create)["GrantId"],
        grant.as_str(),
        "the name makes it repeatable"
    );
    let listed = keys.json(&["grant", "list", &id]);
    let entry = &listed["Grants"][0];
    assert_eq!(entry["KeyId"], id.as_str());
    assert_eq!(entry["GrantId"], grant.as_str());
    assert_eq!(entry["Name"], "nightly");
    assert_eq!(entry["GranteePrincipal"], "group:root");
    assert_eq!(entry["RetiringPrincipal"], "user:7");
    assert_eq!(entry["Operations"], json!(["Decrypt", "GenerateDataKey"]));
    assert_eq!(
        entry["Constraints"],
        json!({"EncryptionContextSubset": {"kind": "file"}})
    );
    assert!(entry["CreationDate"].as_str().unwrap().ends_with('Z'));
    let table = keys.ok(&["grant", "list", &id]);
    for cell in [
        &*grant,
        "nightly",
        "group:root",
        "user:7",
        "Decrypt, GenerateDataKey",
        "has kind=file",
    ] {
        assert!(table.contains(cell), "{table}");
    }
    let revoked = keys.ok(&["grant", "revoke", &id, &grant]);
    assert_eq!(revoked, format!("Revoked a grant of key {id}\n"));
    for verb in ["revoke", "retire"] {
        let said = keys.fails(NOT_FOUND, &["grant", verb, &id, &grant]);
        assert!(said.contains(&format!("`cmkfs grant list {id}`")), "{said}");
    }
    let base = ["grant", "create", &id, "--grantee-principal"];
    for bad in [
        &["user:0"][..],
        &["alice", "--operations", "Decrypt"],
        &["*", "--operations", "Decrypt"],
        &["user:no-such-user", "--operations", "Decrypt"],
        &["user:0", "--operations", "PutKeyPolicy"],
        &[
            "user:0",
            "--operations",
            "Decrypt",
            "--encryption-context-equals",
            "kind",
        ],
        &["user:0", "--operations", "Decrypt", "--name", "a b"],
    ] {
        keys.fails(USAGE, &[&base, bad].concat());
    }
    keys.fails(USAGE, &["grant", "revoke", &id, "abc"]);
}

#[test]
fn policies_and_grants_tell_the_users_of_the_machine_apart() {
    let owner = Keys::of_another_user();
    let id = owner.new_key();
    // Root reaches the key directory as well, and has a say by default.
    let root = |args: &[&str]| {
        let mut command = Command::new(&owner.program);
        command
            .args(args)
            .env("CMKFS_KEYS", owner.temp.path().join("keys"));
        command.output().unwrap()
    };
    let describe = ["key", "describe", &id];
    assert!(root(&describe).status.success());
    let statements = json!([statement(
        "Owner",
        "Allow",
        &json!({"User": OWNER}),
        &json!("kms:*")
    )]);
    let file = owner.policy(&statements);
    owner.ok(&["policy", "put", &id, &file]);
    let refused = root(&describe);
    assert_eq!(refused.status.code(), Some(DENIED));
    let said = text(&refused.stderr);
    assert!(
        said.starts_with("error: user root (uid 0) is not authorized"),
        "{said}"
    );
    assert!(
        said.contains("no statement of its key policy and no grant allows it"),
        "{said}"
    );

    let create = [
        "-q",
        "grant",
        "create",
        &id,
        "--grantee-principal",
        "user:root",
        "--operations",
        "DescribeKey,RetireGrant",
    ];
    let grant = owner.ok(&create).trim().to_owned();
    assert!(root(&describe).status.success());
    assert_eq!(
        root(&["grant", "revoke", &id, &grant]).status.code(),
        Some(DENIED)
    );
    assert!(root(&["grant", "retire", &id, &grant]).status.success());
    assert_eq!(root(&describe).status.code(), Some(DENIED));
}

#[test]
fn a_policy_knows_the_supplementary_groups_of_its_caller() {
    let mut keys = Keys::of_another_user();
    let id = keys.new_key();
    let statements = json!([
        statement("Owner", "Allow", &json!({"User": OWNER}), &json!("kms:*")),
        statement(
            "Group",
            "Deny",
            &json!({"Group": OTHER_GROUP}),
            &json!("kms:DisableKey")
        ),
    ]);
    let file = keys.policy(&statements);
    keys.ok(&["policy", "put", &id, &file]);
    let said = keys.fails(DENIED, &["key", "disable", &id]);
    let who = format!("error: uid {OWNER} is not authorized");
    assert!(said.starts_with(&who), "{said}");
    keys.identity = Some((OWNER, OWNER));
    keys.ok(&["key", "disable", &id]);
}
