//! The state table of AWS KMS through the program: every command that touches a key, in every state a key can be in.

mod key_program;

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Output;

use key_program::{Keys, text};

/// The exit code of every refusal by a key's state or kind.
const STATE: i32 = 5;

/// The state before.
#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Enabled,
    Disabled,
    PendingDeletion,
    PendingImport,
}
use State::{Disabled, Enabled, PendingDeletion, PendingImport};

#[derive(Debug, Clone, Copy, PartialEq)]
enum Origin {
    Generated,
    External,
}
use Origin::{External, Generated};

/// What a command does: it succeeds and leaves this state, or it says this of the key.
type Cell = Result<State, &'static str>;

const D: Cell = Err("is disabled");
const PD: Cell = Err("is pending deletion");
const PI: Cell = Err("is pending import");
const ND: Cell = Err("is not pending deletion");
const U: Cell = Err("is not possible for key");
const KEPT: [Cell; 4] = [
    Ok(Enabled),
    Ok(Disabled),
    Ok(PendingDeletion),
    Ok(PendingImport),
];
const USE: [Cell; 4] = [Ok(Enabled), D, PD, PI];
const WRITE: [Cell; 4] = [Ok(Enabled), Ok(Disabled), PD, Ok(PendingImport)];

/// CreateGrant.
const GRANT: &str = "grant create ID --grantee-principal user:0 --operations Decrypt";

/// A key in a state, with an alias, a policy, a grant, a secret encrypted under it before, and another key beside it.
struct Subject<'a> {
    keys: &'a Keys,
    id: String,
    other: String,
    alias: String,
    material: PathBuf,
    secret: PathBuf,
    policy: PathBuf,
    grant: String,
    origin: Origin,
}

impl<'a> Subject<'a> {
    fn new(keys: &'a Keys, other: &str, origin: Origin, state: State) -> Self {
        let name = uuid();
        let alias = format!("alias/{name}");
        let path = |what: &str| keys.temp.path().join(format!("{name}.{what}"));
        let mut subject = Self {
            keys,
            id: keys
                .ok(&[
                    "-q",
                    "key",
                    "create",
                    "--alias",
                    &alias,
                    "--origin",
                    match origin {
                        Generated => "CMKFS",
                        External => "EXTERNAL",
                    },
                ])
                .trim()
                .to_owned(),
            other: other.to_owned(),
            alias,
            material: path("material"),
            secret: path("secret"),
            policy: path("policy"),
            grant: String::new(),
            origin,
        };
        fs::write(&subject.material, random()).unwrap();
        if origin == External {
            subject.ok("key import ID --material MATERIAL");
        }
        let plain = keys.temp.path().join("plain");
        fs::write(&plain, "a secret").unwrap();
        let encrypted = subject.run("key encrypt ID", Some(&plain));
        assert!(encrypted.status.success(), "{encrypted:?}");
        fs::write(&subject.secret, encrypted.stdout).unwrap();
        let policy = subject.run("policy get ID", None);
        fs::write(&subject.policy, policy.stdout).unwrap();
        let grant = subject.run(&format!("-q {GRANT}"), None);
        assert!(grant.status.success(), "{grant:?}");
        text(&grant.stdout).trim().clone_into(&mut subject.grant);
        match state {
            Enabled => {}
            Disabled => subject.ok("key disable ID"),
            PendingDeletion => subject.ok("key schedule-deletion ID"),
            PendingImport => subject.ok("key delete-imported-key-material ID"),
        }
        assert_eq!(subject.state(), state);
        subject
    }

    /// Runs a command line in which ID, OTHER, ALIAS, MATERIAL, POLICY, GRANT and FRESH stand for what they say.
    fn run(&self, line: &str, input: Option<&PathBuf>) -> Output {
        let fresh = self.keys.temp.path().join(uuid());
        let args: Vec<&str> = line
            .split(' ')
            .map(|word| match word {
                "ID" => &self.id,
                "OTHER" => &self.other,
                "ALIAS" => &self.alias,
                "MATERIAL" => self.material.to_str().unwrap(),
                "POLICY" => self.policy.to_str().unwrap(),
                "GRANT" => &self.grant,
                "FRESH" => fresh.to_str().unwrap(),
                word => word,
            })
            .collect();
        let mut command = self.keys.command(&args);
        if let Some(input) = input {
            command.stdin(File::open(input).unwrap());
        }
        command.output().unwrap()
    }

    fn ok(&self, line: &str) {
        let output = self.run(line, None);
        assert!(output.status.success(), "{line}: {output:?}");
    }

    fn state(&self) -> State {
        let described = self.keys.json(&["key", "describe", &self.id]);
        let metadata = &described["KeyMetadata"];
        let state = metadata["KeyState"].as_str().unwrap();
        assert_eq!(metadata["Enabled"], state == "Enabled");
        match state {
            "Enabled" => Enabled,
            "Disabled" => Disabled,
            "PendingDeletion" => PendingDeletion,
            "PendingImport" => PendingImport,
            other => panic!("{other}"),
        }
    }

    fn assert_cell(&self, line: &str, before: State, expected: Cell) {
        let input = matches!(
            line,
            "key decrypt ID" | "key re-encrypt OTHER" | "key encrypt ID"
        );
        let output = self.run(line, input.then_some(&self.secret));
        let case = format!("{line} in {before:?} of {:?}: {output:?}", self.origin);
        let said = text(&output.stderr);
        match expected {
            Ok(state) => {
                assert!(output.status.success(), "{case}");
                assert_eq!(said, "", "{case}");
                if line == "key decrypt ID" {
                    assert_eq!(output.stdout, b"a secret", "{case}");
                }
                assert_eq!(self.state(), state, "{case}");
            }
            Err(why) => {
                assert_eq!(output.status.code(), Some(STATE), "{case}");
                assert!(output.stdout.is_empty(), "{case}");
                let error = said.lines().next().unwrap();
                assert!(error.starts_with("error: "), "{case}");
                assert!(error.contains(why) && error.contains(&self.id), "{case}");
                assert!(said.contains("  hint: "), "{case}");
                assert_eq!(self.state(), before, "{case}");
            }
        }
    }
}

fn random() -> [u8; 32] {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).unwrap();
    bytes
}

fn uuid() -> String {
    cmkfs::ids::KeyId::random().to_string()
}

/// The rows: a command, and what it does to a key in each state.
fn rows(origin: Origin) -> Vec<(&'static str, [Cell; 4])> {
    let only = |which: Origin, row: [Cell; 4]| if origin == which { row } else { [U; 4] };
    let rotate = match origin {
        Generated => USE,
        // Nothing was imported to rotate to.
        External => [Err("has no new key material to rotate to"), D, PD, PI],
    };
    vec![
        ("key encrypt ID", USE),
        ("key decrypt ID", USE),
        ("key re-encrypt OTHER", USE),
        // GenerateDataKey.
        ("init FRESH --key ID", USE),
        ("key describe ID", KEPT),
        ("key get-rotation-status ID", KEPT),
        ("key list-rotations ID", KEPT),
        ("alias list ID", KEPT),
        ("policy get ID", KEPT),
        ("policy put ID POLICY", KEPT),
        (GRANT, USE),
        ("grant list ID", KEPT),
        ("grant retire ID GRANT", KEPT),
        ("grant revoke ID GRANT", KEPT),
        ("alias delete ALIAS", KEPT),
        // The key is the old target here, and the new one below.
        ("alias update ALIAS OTHER", KEPT),
        ("alias update ALIAS ID", WRITE),
        ("alias create alias/new ID", WRITE),
        ("key tag ID a=b", WRITE),
        ("key untag ID a", WRITE),
        ("key update-description ID new", WRITE),
        ("key enable ID", [Ok(Enabled), Ok(Enabled), PD, PI]),
        ("key disable ID", [Ok(Disabled), Ok(Disabled), PD, PI]),
        (
            "key schedule-deletion ID --pending-window-days 7",
            [
                Ok(PendingDeletion),
                Ok(PendingDeletion),
                PD,
                Ok(PendingDeletion),
            ],
        ),
        ("key cancel-deletion ID", [ND, ND, Ok(Disabled), ND]),
        (
            "key import ID --material MATERIAL",
            only(External, [Ok(Enabled), Ok(Enabled), PD, Ok(Enabled)]),
        ),
        (
            "key delete-imported-key-material ID",
            only(
                External,
                [
                    Ok(PendingImport),
                    Ok(PendingImport),
                    Ok(PendingDeletion),
                    Ok(PendingImport),
                ],
            ),
        ),
        ("key enable-rotation ID", only(Generated, USE)),
        ("key disable-rotation ID", only(Generated, USE)),
        ("key rotate ID", rotate),
    ]
}

fn assert_table(origin: Origin, states: &[State]) {
    let keys = Keys::new();
    let other = keys.new_key();
    for (line, row) in rows(origin) {
        for (state, expected) in [Enabled, Disabled, PendingDeletion, PendingImport]
            .into_iter()
            .zip(row)
        {
            if states.contains(&state) {
                let subject = Subject::new(&keys, &other, origin, state);
                subject.assert_cell(line, state, expected);
                if line.contains("alias/new") && expected.is_ok() {
                    keys.ok(&["alias", "delete", "alias/new"]);
                }
            }
        }
    }
    keys.ok(&["keys", "verify"]);
}

#[test]
fn every_command_does_what_the_table_says_to_a_generated_key() {
    assert_table(Generated, &[Enabled, Disabled, PendingDeletion]);
}

#[test]
fn every_command_does_what_the_table_says_to_a_key_with_imported_material() {
    assert_table(
        External,
        &[Enabled, Disabled, PendingDeletion, PendingImport],
    );
}

#[test]
fn the_default_key_can_be_disabled_but_not_deleted_nor_given_a_schedule() {
    let keys = Keys::new();
    keys.ok(&["keys", "init"]);
    let default = "alias/cmkfs/default";
    for refused in [
        &["key", "schedule-deletion", default][..],
        &["key", "enable-rotation", default],
        &["key", "disable-rotation", default],
        &["key", "delete-imported-key-material", default],
    ] {
        let said = keys.fails(STATE, refused);
        assert!(said.contains(" is not possible for key "), "{said}");
    }
    keys.ok(&["key", "disable", default]);
    keys.ok(&["key", "enable", default]);
    keys.ok(&["key", "rotate", default]);
    let described = keys.json(&["key", "describe", default]);
    assert_eq!(described["KeyMetadata"]["KeyRotationEnabled"], true);
    assert_eq!(described["KeyMetadata"]["RotationPeriodInDays"], 365);
}
