//! Whether a report still holds: what was changed in it, in the log, and in the key directory since.

use std::fs;

use cmkfs::crypto::chain::fingerprint;
use serde_json::Value;

use super::{Case, DAMAGED, result};

fn put(case: &Case, report: &Value) {
    let text = serde_json::to_vec_pretty(report).unwrap();
    fs::write(case.volume.folder().join("report.json"), text).unwrap();
}

#[test]
fn a_report_that_was_changed_shows_even_with_a_digest_that_fits() {
    let case = Case::imported();
    let report = case.erased();
    let (_, code) = case.verify("report.json");
    assert_eq!(code, 0);
    let changes: [fn(&mut Value); 4] = [
        |report| report["StartedAt"] = "2020-01-01T00:00:00Z".into(),
        |report| report["Warnings"] = Value::Array(Vec::new()),
        |report| report["Attempts"][0]["Before"]["Decrypts"] = false.into(),
        |report| report["Extra"] = 1.into(),
    ];
    for change in changes {
        let mut changed = report.clone();
        change(&mut changed);
        put(&case, &changed);
        let (checked, code) = case.verify("report.json");
        assert_eq!(code, DAMAGED, "{checked}");
        assert_eq!(result(&checked, "Report"), "FAILED");
        assert_eq!(result(&checked, "Report in the log"), "FAILED");
        let fields = changed.as_object_mut().unwrap();
        fields.remove("ReportSha256");
        let digest = fingerprint(&serde_json::to_vec(&changed).unwrap());
        let digest = hex::encode(digest);
        changed["ReportSha256"] = digest.into();
        put(&case, &changed);
        let (checked, code) = case.verify("report.json");
        assert_eq!(code, DAMAGED, "{checked}");
        assert_eq!(result(&checked, "Report"), "OK");
        assert_eq!(result(&checked, "Report in the log"), "FAILED");
    }
    // Laid out otherwise, it is the same report.
    let path = case.volume.folder().join("report.json");
    fs::write(path, serde_json::to_vec(&report).unwrap()).unwrap();
    let (checked, code) = case.verify("report.json");
    assert_eq!(code, 0, "{checked}");
}

#[test]
fn material_that_was_imported_again_shows() {
    let case = Case::imported();
    case.erased();
    case.import("material");
    let (checked, code) = case.verify("report.json");
    assert_eq!(code, DAMAGED);
    for check in ["Key", "Materials", "Imports", "Attempts", "Volume"] {
        assert_eq!(result(&checked, check), "FAILED", "{check}");
    }
    for check in ["Report", "Report in the log", "Events", "Audit log"] {
        assert_eq!(result(&checked, check), "OK", "{check}");
    }
    // Gone once more, it was back meanwhile all the same.
    case.volume.succeed(&case.erase("again.json"));
    let (checked, code) = case.verify("report.json");
    assert_eq!(code, DAMAGED);
    assert_eq!(result(&checked, "Imports"), "FAILED");
    assert_eq!(result(&checked, "Materials"), "OK");
    let (checked, code) = case.verify("again.json");
    assert_eq!(code, 0, "{checked}");
}

#[test]
fn an_audit_log_that_was_changed_shows() {
    let case = Case::imported();
    case.erased();
    let log = case.volume.folder().join("keys/audit/log");
    let text = fs::read_to_string(&log).unwrap();
    let changed = text.replace("DeleteImportedKeyMaterial", "DeleteImportedKeyMateriaI");
    assert_ne!(text, changed);
    fs::write(&log, changed).unwrap();
    let output = case.volume.run(&["erase", "--verify", "report.json"]);
    assert_eq!(output.status.code(), Some(DAMAGED), "{output:?}");
}

#[test]
fn what_is_no_report_is_refused() {
    let case = Case::imported();
    case.erased();
    let folder = case.volume.folder();
    for (name, text) in [
        ("empty.json", ""),
        ("other.json", "{\"A\":1}"),
        ("list.json", "[]"),
    ] {
        fs::write(folder.join(name), text).unwrap();
        let said = case.volume.fail(&["erase", "--verify", name]);
        assert!(said.contains("no report"), "{said}");
    }
    let said = case.volume.fail(&["erase", "--verify", "report.txt"]);
    assert!(said.contains("not the text"), "{said}");
    let other = Case::imported();
    let report = folder.join("report.json");
    let (checked, code) = other.verify(report.to_str().unwrap());
    assert_eq!(code, DAMAGED);
    assert_eq!(result(&checked, "Key directory"), "FAILED");
}

#[test]
fn a_backup_is_named_and_what_it_brings_back_shows() {
    let case = Case::imported();
    let folder = case.volume.folder();
    fs::write(folder.join("passphrase"), "correct horse").unwrap();
    let passphrase = ["--backup-passphrase-file", "passphrase"];
    let backup = [&["keys", "backup", "backup"][..], &passphrase].concat();
    case.volume.succeed(&backup);
    let report = case.erased();
    let backups = report["Backups"].as_array().unwrap();
    assert_eq!(backups.len(), 1, "{backups:?}");
    assert_eq!(
        backups[0]["KeyMaterialId"],
        report["Materials"][0]["KeyMaterialId"]
    );
    assert!(report["Warnings"].to_string().contains("backup"));
    let (checked, code) = case.verify("report.json");
    assert_eq!(code, 0, "{checked}");
    let restore = ["keys", "restore", "backup", "--include-deleted"];
    case.volume.succeed(&[&restore[..], &passphrase].concat());
    let (checked, code) = case.verify("report.json");
    assert_eq!(code, DAMAGED);
    assert_eq!(result(&checked, "Materials"), "FAILED");
    assert_eq!(result(&checked, "Attempts"), "FAILED");
}

#[test]
fn what_a_policy_denies_is_not_erased_and_leaves_no_report() {
    let case = Case::imported();
    let policy = case.volume.succeed(&["policy", "get", &case.key]);
    let mut policy: Value = serde_json::from_str(&policy).unwrap();
    let deny = serde_json::json!({
        "Effect": "Deny",
        "Principal": "*",
        "Action": "kms:DeleteImportedKeyMaterial",
        "Resource": "*",
    });
    policy["Statement"].as_array_mut().unwrap().push(deny);
    let file = case.volume.folder().join("policy");
    fs::write(&file, policy.to_string()).unwrap();
    case.volume
        .succeed(&["policy", "put", &case.key, file.to_str().unwrap()]);
    let said = case.volume.fail(&case.erase("report.json"));
    assert!(said.contains("DeleteImportedKeyMaterial"), "{said}");
    assert_eq!(case.state(), "Enabled");
    assert!(!case.volume.folder().join("report.json").exists());
    assert!(!case.volume.folder().join("report.txt").exists());
}
