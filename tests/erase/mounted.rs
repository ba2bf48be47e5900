//! Erasing a key under a running mount.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;

use rustix::process::Signal;
use serde_json::json;

use super::{Case, UNANSWERED, result};
use crate::common::eventually;

const SIZE: usize = 200_000;

fn read(file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; SIZE];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

fn errno<T>(result: io::Result<T>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

#[test]
fn an_imported_key_is_erased_under_a_mount_and_open_files_give_nothing_any_more() {
    let case = Case::imported();
    let volume = &case.volume;
    volume.mount(&[]);
    fs::write(volume.path("file"), vec![7; SIZE]).unwrap();
    let file = File::options()
        .read(true)
        .write(true)
        .open(volume.path("file"))
        .unwrap();
    assert_eq!(read(&file).unwrap(), vec![7; SIZE]);
    file.write_all_at(b"dirty", 0).unwrap();
    let report = case.erased();
    assert_eq!(errno(read(&file)), Some(libc::ENOKEY));
    assert_eq!(errno(File::open(volume.path("file"))), Some(libc::ENOKEY));

    assert_eq!(report["Status"], "ERASED");
    assert_eq!(report["KeyState"], "PendingImport");
    assert_eq!(report["Sanitization"]["Technique"], "Cryptographic Erase");
    assert_eq!(report["Materials"][0]["IsGone"], true);
    assert_eq!(report["Materials"][0]["BytesOverwritten"], 100);
    let mount = &report["Mounts"]["Mounts"][0];
    assert_eq!(mount["Mountpoint"], volume.mountpoint().to_str().unwrap());
    assert_eq!(mount["Lease"], "NoMaterial");
    assert_eq!(mount["IsFlushed"], true);
    assert!(mount["DataKeysDropped"].as_u64().unwrap() > 0);
    let seen = &report["Volumes"][0];
    assert_eq!(seen["LostInAll"]["Files"], 1);
    assert_eq!(seen["LostInAll"]["Bytes"], SIZE);
    assert_eq!(seen["IsWhole"], true);
    assert_eq!(seen["Mountpoints"], json!([volume.mountpoint()]));
    let attempts = report["Attempts"].as_array().unwrap();
    assert_eq!(attempts.len(), 1);
    assert_eq!(attempts[0]["Before"], json!({"Decrypts": true}));
    assert_eq!(attempts[0]["After"]["Decrypts"], false);
    assert_eq!(
        attempts[0]["After"]["ErrorCode"],
        "KMSInvalidStateException"
    );
    assert!(case.materials().is_empty());
    let text = fs::read_to_string(volume.folder().join("report.txt")).unwrap();
    assert!(
        text.contains(&case.key) && text.contains("Cryptographic Erase"),
        "{text}"
    );
    assert!(!text.contains("unrecoverable"));
    let (checked, code) = case.verify("report.json");
    assert_eq!(
        (checked["Result"].as_str(), code),
        (Some("OK"), 0),
        "{checked}"
    );
    assert_eq!(result(&checked, "Mounts"), "OK");
}

#[test]
fn one_key_of_several_takes_its_own_files_and_the_names_below_them() {
    let case = Case::imported();
    let volume = &case.volume;
    volume.mount(&[]);
    let create = ["-q", "key", "create", "--origin", "EXTERNAL"];
    let secret = volume.succeed(&create).trim().to_owned();
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).unwrap();
    fs::write(volume.folder().join("secret"), bytes).unwrap();
    volume.succeed(&["key", "import", &secret, "--material", "secret"]);
    fs::create_dir(volume.path("bound")).unwrap();
    let bound = volume.path("bound");
    volume.succeed(&["bind", bound.to_str().unwrap(), &secret]);
    fs::write(volume.path("bound/lost"), vec![1; 5000]).unwrap();
    fs::create_dir(volume.path("bound/inner")).unwrap();
    let inner = volume.path("bound/inner");
    volume.succeed(&["bind", inner.to_str().unwrap(), &case.key]);
    fs::write(volume.path("bound/inner/nameless"), vec![2; 300]).unwrap();
    fs::write(volume.path("stays"), "text").unwrap();
    let erase = [
        "erase",
        &secret,
        "--yes",
        "--key-id",
        &secret,
        "--report",
        "report.json",
    ];
    let shown = volume.succeed(&erase);
    assert!(shown.contains("LOSES ITS NAME"), "{shown}");
    let report = case.report("report.json");
    let seen = &report["Volumes"][0];
    assert_eq!(seen["LostInAll"]["Files"], 1);
    assert_eq!(seen["LostInAll"]["Bytes"], 5000);
    assert_eq!(seen["Nameless"]["Files"], 1);
    assert_eq!(seen["Stays"]["Bytes"], 4);
    assert_eq!(seen["IsWhole"], false);
    assert_eq!(
        seen["Bindings"],
        json!([{"Path": "/bound", "Binding": secret}])
    );
    assert_eq!(seen["OtherKeys"], json!([case.key]));
    assert_eq!(fs::read(volume.path("stays")).unwrap(), b"text");
    assert_eq!(
        errno(fs::read(volume.path("bound/lost"))),
        Some(libc::ENOKEY)
    );
    let (checked, code) = case.verify("report.json");
    assert_eq!(code, 0, "{checked}");
}

#[test]
fn a_mount_that_does_not_answer_is_named_and_the_second_run_completes_it() {
    let case = Case::imported();
    let volume = &case.volume;
    volume.mount(&[]);
    fs::write(volume.path("file"), "text").unwrap();
    volume.signal(Signal::STOP);
    let arguments = [case.erase("first.json"), vec!["--timeout", "2"]].concat();
    let output = volume.run(&arguments);
    volume.signal(Signal::CONT);
    assert_eq!(output.status.code(), Some(UNANSWERED), "{output:?}");
    assert!(case.materials().is_empty());
    let report = case.report("first.json");
    assert_eq!(report["Status"], "ERASED");
    let unanswered = &report["Mounts"]["Unanswered"][0];
    assert_eq!(unanswered["ProcessId"], volume.daemon().unwrap());
    let not_checked = report["NotChecked"].to_string();
    assert!(not_checked.contains("has mounted"), "{not_checked}");
    eventually("the file is refused", || {
        errno(fs::read(volume.path("file"))) == Some(libc::ENOKEY)
    });
    volume.succeed(&case.erase("second.json"));
    let report = case.report("second.json");
    assert_eq!(report["Mounts"]["Unanswered"], json!([]));
    assert_eq!(report["Mounts"]["Mounts"][0]["Lease"], "NoMaterial");
    let (checked, code) = case.verify("second.json");
    assert_eq!(code, 0, "{checked}");
}

#[test]
fn a_report_is_not_written_into_what_is_erased() {
    let case = Case::imported();
    case.volume.mount(&[]);
    let inside = case.volume.path("report.json");
    let said = case.volume.fail(&case.erase(inside.to_str().unwrap()));
    assert!(said.contains("lies in a volume that is erased"), "{said}");
    assert_eq!(case.state(), "Enabled");
    assert!(!inside.exists());
}
