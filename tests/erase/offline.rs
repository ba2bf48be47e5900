//! Erasing a key without a mount: questions, refusals, generated keys, many materials, second runs.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use cmkfs::clock::{Clock, ManualClock, SystemClock, Timestamp};
use cmkfs::crypto::passphrase::Passphrase;
use cmkfs::kms::root::PassphraseSource;
use cmkfs::kms::{KeyService, KmsError};

use super::{Case, DAMAGED, result};

const DAY: i64 = 86_400_000;

struct NoPassphrase;

impl PassphraseSource for NoPassphrase {
    fn existing(&self, _: &Path) -> Result<Passphrase, KmsError> {
        unreachable!("a root key file unlocks it")
    }

    fn chosen(&self, _: &Path) -> Result<Passphrase, KmsError> {
        unreachable!("it is there already")
    }
}

/// Does what is due in the key directory so many days from now.
fn pass(case: &Case, days: i64) {
    let now = Timestamp(SystemClock.now().0 + days * DAY);
    let keys = case.volume.folder().join("keys");
    let clock = Arc::new(ManualClock::new(now));
    let service = KeyService::open(&keys, &NoPassphrase, clock).unwrap();
    service.run_due();
}

#[test]
fn nothing_is_erased_unless_the_key_is_named_by_its_id() {
    let case = Case::imported();
    let volume = &case.volume;
    let other = volume.succeed(&["-q", "key", "create", "--alias", "alias/other"]);
    let said = volume.fail(&["erase", &case.key]);
    assert!(
        said.contains("not confirmed") && said.contains("--yes --key-id"),
        "{said}"
    );
    for wrong in [other.trim(), "00000000-0000-4000-8000-000000000000"] {
        let said = volume.fail(&["erase", &case.key, "--yes", "--key-id", wrong]);
        assert!(said.contains("not confirmed"), "{said}");
    }
    for incomplete in [
        &["erase", &case.key, "--yes"][..],
        &["erase", &case.key, "--key-id", &case.key],
        &["erase", &case.key, "--yes", "--key-id", "alias/other"],
        &["erase"],
    ] {
        assert_eq!(volume.run(incomplete).status.code(), Some(2));
    }
    assert_eq!(case.state(), "Enabled");
    assert_eq!(case.materials().len(), 1);
    let names = fs::read_dir(volume.folder()).unwrap();
    let reports = names.filter(|entry| {
        let name = entry.as_ref().unwrap().file_name();
        name.to_string_lossy().starts_with("erase-")
    });
    assert_eq!(reports.count(), 0, "no report of what was not done");
}

/// Runs the command on a terminal and types `answer`.
fn typed(case: &Case, answer: &str) -> (String, i32) {
    let erase = format!(
        "{} erase {} --report report.json",
        env!("CARGO_BIN_EXE_cmkfs"),
        case.key
    );
    let mut command = case.volume.program("script");
    command.args(["-qec", &erase, "/dev/null"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(format!("{answer}\n").as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    drop(stdin);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    (said, output.status.code().unwrap())
}

#[test]
fn the_question_is_answered_with_the_id_and_with_nothing_else() {
    let case = Case::imported();
    let shorter = &case.key[..35];
    for wrong in ["y", "yes", "", shorter] {
        let (said, code) = typed(&case, wrong);
        assert!(said.contains("Type the key's id"), "{said}");
        assert_eq!(code, 1, "{wrong}: {said}");
        assert_eq!(case.materials().len(), 1);
    }
    let (said, code) = typed(&case, &case.key);
    assert_eq!(code, 0, "{said}");
    assert!(case.materials().is_empty());
    assert_eq!(case.report("report.json")["Status"], "ERASED");
}

#[test]
fn the_default_key_is_not_erased() {
    let case = Case::generated();
    let said = case.volume.fail(&["erase", "alias/cmkfs/default"]);
    assert!(said.contains("looked after by cmkfs"), "{said}");
    assert!(said.contains("hint:"), "{said}");
    let missing = "00000000-0000-4000-8000-000000000000";
    let output = case.volume.run(&["erase", missing]);
    assert_eq!(output.status.code(), Some(3));
}

#[test]
fn every_material_of_an_imported_key_is_destroyed_and_a_second_run_says_so() {
    let case = Case::imported();
    let import = |name: &str| {
        fs::write(case.volume.folder().join(name), {
            let mut bytes = [0; 32];
            getrandom::fill(&mut bytes).unwrap();
            bytes
        })
        .unwrap();
        case.volume.succeed(&[
            "key",
            "import",
            &case.key,
            "--material",
            name,
            "--import-type",
            "NEW_KEY_MATERIAL",
        ]);
    };
    import("second");
    case.volume.succeed(&["key", "rotate", &case.key]);
    import("third");
    assert_eq!(case.materials().len(), 3);
    let report = case.erased();
    assert_eq!(report["Materials"].as_array().unwrap().len(), 3);
    for material in report["Materials"].as_array().unwrap() {
        assert_eq!(material["IsGone"], true);
        assert_eq!(material["BytesBefore"], material["BytesOverwritten"]);
    }
    assert_eq!(report["AuditEvents"].as_array().unwrap().len(), 3);
    assert_eq!(report["Imports"].as_array().unwrap().len(), 3);
    // The volume is under the first material; for the current one a data key is made, which is tried, too.
    assert_eq!(report["Attempts"].as_array().unwrap().len(), 2);
    assert!(case.materials().is_empty());
    let said = case.volume.succeed(&case.erase("again.json"));
    assert!(said.contains("destroyed already"), "{said}");
    let again = case.report("again.json");
    assert_eq!(again["Status"], "ERASED");
    assert_eq!(again["Materials"][0]["BytesOverwritten"], 0);
    for name in ["report.json", "again.json"] {
        let (checked, code) = case.verify(name);
        assert_eq!(code, 0, "{checked}");
    }
}

#[test]
fn a_generated_key_waits_for_its_day_and_the_report_holds_before_and_after() {
    let case = Case::generated();
    let days = [
        case.erase("report.json"),
        vec!["--pending-window-days", "7"],
    ]
    .concat();
    let said = case.volume.succeed(&days);
    assert!(said.contains("cancel-deletion"), "{said}");
    let report = case.report("report.json");
    assert_eq!(report["Status"], "SCHEDULED");
    assert_eq!(report["KeyState"], "PendingDeletion");
    assert_eq!(report["Attempts"][0]["Before"]["Decrypts"], true);
    assert_eq!(report["Attempts"][0]["After"]["Decrypts"], false);
    assert_eq!(case.materials().len(), 1);
    let (checked, code) = case.verify("report.json");
    assert_eq!(
        (checked["Result"].as_str(), code),
        (Some("PENDING"), 0),
        "{checked}"
    );
    // Asked for again, it stays scheduled for the same day.
    case.volume.succeed(&case.erase("again.json"));
    assert_eq!(
        case.report("again.json")["DeletionDate"],
        report["DeletionDate"]
    );

    pass(&case, 8);
    assert!(case.materials().is_empty());
    let (checked, code) = case.verify("report.json");
    assert_eq!(
        (checked["Result"].as_str(), code),
        (Some("OK"), 0),
        "{checked}"
    );
    assert_eq!(result(&checked, "Materials"), "OK");
    let said = case.volume.succeed(&case.erase("deleted.json"));
    assert!(said.contains("was deleted already"), "{said}");
    let deleted = case.report("deleted.json");
    assert_eq!(deleted["Status"], "ERASED");
    assert_eq!(deleted["Materials"][0]["IsGone"], true);
    let (checked, code) = case.verify("deleted.json");
    assert_eq!(code, 0, "{checked}");
}

#[test]
fn a_deletion_that_was_cancelled_shows() {
    let case = Case::generated();
    case.erased();
    case.volume.succeed(&["key", "cancel-deletion", &case.key]);
    let (checked, code) = case.verify("report.json");
    assert_eq!(code, DAMAGED);
    assert_eq!(result(&checked, "Key"), "FAILED");
    case.volume.succeed(&["key", "enable", &case.key]);
    let (checked, _) = case.verify("report.json");
    assert_eq!(result(&checked, "Attempts"), "FAILED");
    assert_eq!(result(&checked, "Volume"), "FAILED");
}

#[test]
fn nothing_is_destroyed_where_the_report_cannot_be_written() {
    let case = Case::imported();
    let folder = case.volume.folder();
    fs::write(folder.join("taken.json"), "mine").unwrap();
    fs::write(folder.join("beside.txt"), "mine").unwrap();
    for name in ["taken.json", "beside.json", "nowhere/report.json"] {
        let said = case.volume.fail(&case.erase(name));
        assert!(said.contains("cannot write the report"), "{said}");
    }
    assert_eq!(case.state(), "Enabled");
    assert_eq!(case.materials().len(), 1);
    assert_eq!(fs::read(folder.join("taken.json")).unwrap(), b"mine");
    assert_eq!(fs::read(folder.join("beside.txt")).unwrap(), b"mine");
    case.erased();
    for name in ["report.json", "report.txt"] {
        let mode = fs::metadata(folder.join(name))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

#[test]
fn a_key_that_guards_nothing_known_is_tried_with_a_data_key_of_its_own() {
    let case = Case::imported();
    let erase = [
        "erase",
        &case.key,
        "--yes",
        "--key-id",
        &case.key,
        "--report",
        "report.json",
    ];
    case.volume.succeed(&erase);
    let report = case.report("report.json");
    assert_eq!(report["Volumes"].as_array().unwrap().len(), 0);
    assert_eq!(report["Attempts"][0]["Before"]["Decrypts"], true);
    assert_eq!(report["Attempts"][0]["After"]["Decrypts"], false);
    let not_counted = report["NotChecked"].to_string();
    assert!(not_counted.contains("not counted"), "{not_counted}");
}
