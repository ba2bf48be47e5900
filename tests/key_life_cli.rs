//! A key's life through the program: what it prints, reads and refuses, and what it does about time that has passed.

mod key_program;

use std::fs::{self, File};
use std::path::Path;
use std::process::{Output, Stdio};
use std::sync::Arc;

use cmkfs::clock::{Clock, ManualClock, SystemClock, Timestamp};
use cmkfs::crypto::passphrase::Passphrase;
use cmkfs::kms::KmsError;
use cmkfs::kms::deletion::PendingWindow;
use cmkfs::kms::import::{ImportRequest, ImportedMaterial};
use cmkfs::kms::key::{CreateKeyRequest, KeyRef, Origin};
use cmkfs::kms::root::{NewProtection, PassphraseSource};
use cmkfs::kms::rotation::RotationPeriod;
use cmkfs::kms::service::KeyService;
use key_program::{Keys, text};
use serde_json::Value;

const USAGE: i32 = 2;
const NOT_FOUND: i32 = 3;
const STATE: i32 = 5;
const DAMAGED: i32 = 9;
const DAY: i64 = 86_400_000;

struct NoPassphrase;

impl PassphraseSource for NoPassphrase {
    fn existing(&self, _: &Path) -> Result<Passphrase, KmsError> {
        unreachable!("there is a root key file")
    }

    fn chosen(&self, _: &Path) -> Result<Passphrase, KmsError> {
        unreachable!("there is a root key file")
    }
}

/// The key directory as it was some days ago, to do there what the program finds today.
fn days_ago(keys: &Keys, days: i64) -> (KeyService, Timestamp) {
    let then = Timestamp(SystemClock.now().0 - days * DAY);
    let clock = Arc::new(ManualClock::new(then));
    let opened = KeyService::open_or_create(
        &keys.dir(),
        NewProtection::RootKeyFile,
        &NoPassphrase,
        clock,
    );
    (opened.unwrap().0, then)
}

fn new_key(service: &KeyService, origin: Origin) -> KeyRef {
    let request = CreateKeyRequest {
        origin,
        ..CreateKeyRequest::default()
    };
    service.create_key(request).unwrap().key_id.into()
}

fn random() -> [u8; 32] {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).unwrap();
    bytes
}

fn with_input(keys: &Keys, args: &[&str], input: &[u8]) -> Output {
    let path = keys.temp.path().join("input");
    fs::write(&path, input).unwrap();
    let mut command = keys.command(args);
    command.stdin(File::open(path).unwrap()).output().unwrap()
}

fn metadata(keys: &Keys, key: &str) -> Value {
    keys.json(&["key", "describe", key])["KeyMetadata"].clone()
}

#[test]
fn a_key_whose_day_has_come_is_gone_with_its_aliases_for_any_command() {
    let keys = Keys::new();
    let (service, _) = days_ago(&keys, 8);
    let key = new_key(&service, Origin::Cmkfs);
    service
        .create_alias(&"alias/old".parse().unwrap(), &key)
        .unwrap();
    let seven = PendingWindow::new(7).unwrap();
    service.schedule_key_deletion(&key, seven).unwrap();
    drop(service);
    let id = key.name();
    assert!(keys.file_of(&id).exists());
    assert!(!keys.ok(&["alias", "list"]).contains("alias/old"));
    assert!(!keys.file_of(&id).parent().unwrap().exists());
    keys.fails(NOT_FOUND, &["key", "cancel-deletion", &id]);
    keys.ok(&["keys", "verify"]);
}

#[test]
fn a_deletion_that_still_waits_is_shown_and_can_be_cancelled() {
    let keys = Keys::new();
    let (service, then) = days_ago(&keys, 6);
    let key = new_key(&service, Origin::Cmkfs);
    let seven = PendingWindow::new(7).unwrap();
    service.schedule_key_deletion(&key, seven).unwrap();
    let id = key.name();
    let shown = metadata(&keys, &id);
    assert_eq!(shown["KeyState"], "PendingDeletion");
    assert_eq!(shown["PendingDeletionWindowInDays"], 7);
    let date = jiff::Timestamp::from_millisecond(then.0 + 7 * DAY).unwrap();
    let date = format!("{date:.3}");
    assert_eq!(shown["DeletionDate"], date);
    assert!(keys.ok(&["key", "describe", &id]).contains(&date));
    let said = keys.ok(&["key", "cancel-deletion", &id]);
    assert_eq!(
        said,
        format!("Cancelled the deletion of key {id}; it is disabled now\n")
    );
    let shown = metadata(&keys, &id);
    assert_eq!(shown["KeyState"], "Disabled");
    assert!(shown.get("DeletionDate").is_none());
}

#[test]
fn a_deletion_is_asked_for_in_days_and_answered_with_a_date() {
    let keys = Keys::new();
    let id = keys.new_key();
    for bad in ["6", "31", "-7", "week"] {
        let args = [
            "key",
            "schedule-deletion",
            &id,
            "--pending-window-days",
            bad,
        ];
        keys.fails(USAGE, &args);
    }
    keys.ok(&["alias", "create", "alias/doomed", &id]);
    let scheduled = keys.json(&["key", "schedule-deletion", "alias/doomed"]);
    assert_eq!(scheduled["KeyId"], id.as_str());
    assert_eq!(scheduled["KeyState"], "PendingDeletion");
    assert_eq!(scheduled["PendingWindowInDays"], 30);
    let date: jiff::Timestamp = scheduled["DeletionDate"].as_str().unwrap().parse().unwrap();
    let ahead = date.as_millisecond() - SystemClock.now().0;
    assert!((30 * DAY - 600_000..=30 * DAY).contains(&ahead), "{ahead}");
    let said = keys.fails(STATE, &["key", "enable", &id]);
    assert!(said.contains("`cmkfs key cancel-deletion"), "{said}");
}

#[test]
fn expired_material_is_destroyed_by_the_first_command_and_named_as_expired() {
    let keys = Keys::new();
    let (service, then) = days_ago(&keys, 2);
    let key = new_key(&service, Origin::External);
    let mut bytes = random();
    let path = keys.temp.path().join("material");
    fs::write(&path, bytes).unwrap();
    let request = ImportRequest {
        material: ImportedMaterial::take(&mut bytes).unwrap(),
        valid_to: Some(Timestamp(then.0 + DAY)),
        import_type: None,
    };
    service.import_key_material(&key, &request).unwrap();
    let id = key.name();
    let folder = keys.file_of(&id).parent().unwrap().to_owned();
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 2);
    for _ in 0..2 {
        let output = with_input(&keys, &["key", "encrypt", &id], b"x");
        assert_eq!(output.status.code(), Some(STATE));
        let said = text(&output.stderr);
        assert!(said.contains("its key material has expired"), "{said}");
        assert!(said.contains("`cmkfs key import"), "{said}");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
    }
    let material = path.to_str().unwrap();
    let args = [
        "key",
        "import",
        &id,
        "--material",
        material,
        "--valid-to",
        "1h",
    ];
    keys.ok(&args);
    let shown = metadata(&keys, &id);
    assert_eq!(shown["KeyState"], "Enabled");
    assert_eq!(shown["ExpirationModel"], "KEY_MATERIAL_EXPIRES");
    assert!(shown["ValidTo"].is_string());
}

#[test]
fn a_rotation_that_is_due_is_done_by_the_first_command() {
    let keys = Keys::new();
    let (service, _) = days_ago(&keys, 95);
    let key = new_key(&service, Origin::Cmkfs);
    let ninety = RotationPeriod::new(90).unwrap();
    service.enable_key_rotation(&key, ninety).unwrap();
    let id = key.name();
    let listed = keys.json(&["key", "list-rotations", &id]);
    let rotations = listed["Rotations"].as_array().unwrap();
    assert_eq!(rotations.len(), 1);
    assert_eq!(rotations[0]["RotationType"], "AUTOMATIC");
    assert_eq!(rotations[0]["KeyMaterialState"], "CURRENT");
    assert_eq!(rotations[0]["KeyId"], id.as_str());
    let material = &rotations[0]["KeyMaterialId"];
    assert_eq!(metadata(&keys, &id)["CurrentKeyMaterialId"], *material);
}

#[test]
fn rotation_is_scheduled_listed_and_done_on_demand() {
    let keys = Keys::new();
    let id = keys.new_key();
    for bad in ["89", "2561", "0", "-1", "year"] {
        keys.fails(
            USAGE,
            &["key", "enable-rotation", &id, "--period-days", bad],
        );
    }
    let said = keys.ok(&["key", "enable-rotation", &id, "--period-days", "90"]);
    assert_eq!(
        said,
        format!("Enabled rotation of key {id} every 90 days\n")
    );
    let shown = metadata(&keys, &id);
    assert_eq!(shown["KeyRotationEnabled"], true);
    assert_eq!(shown["RotationPeriodInDays"], 90);
    assert!(shown["NextRotationDate"].is_string());
    let first = shown["CurrentKeyMaterialId"].as_str().unwrap().to_owned();
    let said = keys.ok(&["key", "rotate", &id]);
    let second = metadata(&keys, &id)["CurrentKeyMaterialId"].clone();
    let second = second.as_str().unwrap();
    assert_eq!(
        said,
        format!("Rotated key {id}: its current key material is {second}\n")
    );
    let table = keys.ok(&["key", "list-rotations", &id]);
    assert!(
        table.contains("ON_DEMAND") && table.contains(second),
        "{table}"
    );
    assert!(!table.contains(&first), "{table}");
    assert!(
        keys.ok(&["key", "list-rotations", &id, "--all"])
            .contains(&first)
    );
    keys.ok(&["key", "disable-rotation", &id]);
    assert_eq!(metadata(&keys, &id)["KeyRotationEnabled"], false);
}

#[test]
fn material_comes_from_a_file_or_standard_input_and_has_to_be_32_random_bytes() {
    let keys = Keys::new();
    let create = ["-q", "key", "create", "--origin", "EXTERNAL"];
    let id = keys.ok(&create).trim().to_owned();
    let shown = metadata(&keys, &id);
    assert_eq!(shown["Origin"], "EXTERNAL");
    assert_eq!(shown["KeyState"], "PendingImport");
    assert!(shown.get("CurrentKeyMaterialId").is_none());
    let import = ["key", "import", &id, "--material", "-"];
    let bytes = random();
    let with_line_break = [&bytes[..], b"\n"].concat();
    for bad in [
        &b""[..],
        &bytes[..31],
        &with_line_break,
        &[0; 32],
        &[0; 5000],
    ] {
        let output = with_input(&keys, &import, bad);
        assert_eq!(output.status.code(), Some(USAGE), "{output:?}");
        let said = text(&output.stderr);
        assert!(said.contains("this cannot be key material"), "{said}");
    }
    keys.fails(1, &["key", "import", &id, "--material", "/nonexistent"]);
    for bad in ["-1d", "366d", "2001-01-01T00:00:00Z", "soon"] {
        let expiry = format!("--valid-to={bad}");
        let output = with_input(&keys, &[&import[..], &[&expiry]].concat(), &bytes);
        assert_eq!(output.status.code(), Some(USAGE), "{bad}: {output:?}");
    }
    assert_eq!(metadata(&keys, &id)["KeyState"], "PendingImport");
    let output = with_input(&keys, &import, &bytes);
    assert!(output.status.success(), "{output:?}");
    let shown = metadata(&keys, &id);
    let material = shown["CurrentKeyMaterialId"].as_str().unwrap().to_owned();
    assert_eq!(
        text(&output.stdout),
        format!("Imported key material {material} of key {id}, which is enabled now\n")
    );
    assert_eq!(shown["ExpirationModel"], "KEY_MATERIAL_DOES_NOT_EXPIRE");
    let delete = ["key", "delete-imported-key-material", &id];
    let deleted = keys.json(&[&delete[..], &["--material-id", &material]].concat());
    assert_eq!(deleted["KeyId"], id.as_str());
    assert_eq!(deleted["KeyMaterialId"], material.as_str());
    let output = with_input(&keys, &import, &random());
    assert_eq!(output.status.code(), Some(USAGE), "{output:?}");
    let said = text(&output.stderr);
    assert!(
        said.contains("this is not the key material for key"),
        "{said}"
    );
    let unknown = "0".repeat(64);
    keys.fails(USAGE, &[&delete[..], &["--material-id", &unknown]].concat());
    assert!(with_input(&keys, &import, &bytes).status.success());

    let new = [&import[..], &["--import-type", "NEW_KEY_MATERIAL"]].concat();
    assert!(with_input(&keys, &new, &random()).status.success());
    let listed = keys.json(&["key", "list-rotations", &id, "--all"]);
    let states: Vec<_> = listed["Rotations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["KeyMaterialState"].as_str().unwrap())
        .collect();
    assert_eq!(states, ["CURRENT", "PENDING_ROTATION"]);
    keys.ok(&["key", "rotate", &id]);
    let said = keys.fails(STATE, &["key", "rotate", &id]);
    assert!(said.contains("--import-type NEW_KEY_MATERIAL"), "{said}");
}

#[test]
fn management_commands_take_an_alias_and_name_the_key() {
    let keys = Keys::new();
    let alias = "alias/a";
    let create = ["-q", "key", "create", "--alias", alias];
    let id = keys.ok(&create).trim().to_owned();
    for command in [
        &["key", "tag", alias, "team=a", "site=b=c"][..],
        &["key", "untag", alias, "team", "none"],
        &["key", "update-description", alias, "New"],
        &["key", "enable-rotation", alias],
        &["key", "disable-rotation", alias],
        &["key", "rotate", alias],
        &["key", "disable", alias],
        &["key", "enable", alias],
        &["key", "schedule-deletion", alias],
        &["key", "cancel-deletion", alias],
    ] {
        let said = keys.ok(command);
        assert!(said.contains(&id), "{command:?}: {said}");
    }
    let shown = metadata(&keys, &id);
    assert_eq!(shown["Description"], "New");
    let tags = shown["Tags"].as_array().unwrap();
    assert_eq!(tags.len(), 1);
    assert_eq!(tags[0]["TagValue"], "b=c");
    keys.fails(USAGE, &["key", "tag", alias]);
    keys.fails(USAGE, &["key", "tag", alias, "x=1", "x=2"]);
    let long = "x".repeat(8193);
    keys.fails(USAGE, &["key", "update-description", alias, &long]);
}

#[test]
fn a_small_secret_goes_in_and_comes_out_byte_by_byte() {
    let keys = Keys::new();
    let (id, other) = (keys.new_key(), keys.new_key());
    let secret: Vec<u8> = (0..4096).map(|at| (at % 256) as u8).collect();
    let context = ["--context", "for=tests", "--context", "by=x=y"];
    let reversed = ["--context", "by=x=y", "--context", "for=tests"];
    let encrypt = [&["key", "encrypt", &id][..], &context].concat();
    let output = with_input(&keys, &encrypt, &secret);
    assert!(output.status.success(), "{output:?}");
    let stored = output.stdout;
    assert_eq!(stored.len(), 4096 + 88);
    keys.ok(&["key", "rotate", &id]);
    let decrypt = |args: &[&str], stored: &[u8]| {
        let output = with_input(&keys, &[&["key", "decrypt"], args].concat(), stored);
        (output.status.code().unwrap(), output.stdout)
    };
    assert_eq!(decrypt(&reversed, &stored), (0, secret.clone()));
    let named = [&[&id[..]][..], &context].concat();
    assert_eq!(decrypt(&named, &stored), (0, secret.clone()));
    let wrong_key = [&[&other[..]][..], &context].concat();
    assert_eq!(decrypt(&wrong_key, &stored), (USAGE, vec![]));
    assert_eq!(
        decrypt(&["--context", "for=tests"], &stored),
        (DAMAGED, vec![])
    );
    assert_eq!(decrypt(&context, &stored[1..]), (DAMAGED, vec![]));
    assert_eq!(decrypt(&context, &[]), (DAMAGED, vec![]));
    let mut flipped = stored.clone();
    flipped[100] ^= 1;
    assert_eq!(decrypt(&context, &flipped), (DAMAGED, vec![]));
    for bad in [&b""[..], &[1; 4097], &[1; 100_000]] {
        let output = with_input(&keys, &encrypt, bad);
        assert_eq!(output.status.code(), Some(USAGE), "{output:?}");
    }
    let twice = [
        "key",
        "encrypt",
        &id,
        "--context",
        "a=1",
        "--context",
        "a=2",
    ];
    assert_eq!(with_input(&keys, &twice, b"x").status.code(), Some(USAGE));

    let mut moving = vec!["key", "re-encrypt", &other];
    moving.extend([
        "--source-context",
        "for=tests",
        "--source-context",
        "by=x=y",
    ]);
    let moved = with_input(&keys, &moving, &stored);
    assert!(moved.status.success(), "{moved:?}");
    assert_eq!(decrypt(&[&other], &moved.stdout), (0, secret));
}

#[test]
fn a_reader_of_a_secret_that_goes_away_is_no_error() {
    let keys = Keys::new();
    let id = keys.new_key();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let path = keys.temp.path().join("input");
    fs::write(&path, "x").unwrap();
    let mut command = keys.command(&["key", "encrypt", &id]);
    command.stdin(File::open(path).unwrap()).stdout(writer);
    let child = command.stderr(Stdio::piped()).spawn().unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(text(&output.stderr), "");
}
