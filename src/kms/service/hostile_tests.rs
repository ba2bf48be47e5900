//! Tests of the key service where things are not as they should be: another user's key directory, files that are no files, a
//! full disk, a log that is given up.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode};
use serde_json::Value;

use super::tests::{fresh, reopen};
use super::*;
use crate::kms::key::CreateKeyRequest;
use crate::kms::storage::fault::{Fault, inject};

fn new_key(service: &KeyService) -> KeyId {
    let request = CreateKeyRequest::default();
    service.create_key(request).unwrap().key_id
}

fn below(dir: &Path) -> Vec<PathBuf> {
    let mut found = vec![dir.to_owned()];
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.extend(below(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found
}

fn lines(dir: &Path) -> Vec<Value> {
    let log = fs::read_to_string(dir.join("audit/log")).unwrap();
    log.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn cut_the_log(dir: &Path) {
    let log = dir.join("audit/log");
    let length = fs::metadata(&log).unwrap().len();
    let file = fs::OpenOptions::new().write(true).open(log).unwrap();
    file.set_len(length - 10).unwrap();
}

#[test]
fn what_root_changes_in_somebodys_key_directory_stays_theirs() {
    const OWNER: (u32, u32) = (54_321, 54_322);
    let (dir, service) = fresh();
    drop(service);
    for path in below(dir.path()) {
        chown(path, Some(OWNER.0), Some(OWNER.1)).expect("this takes root");
    }
    fs::remove_file(dir.path().join("lock")).unwrap();
    fs::remove_file(dir.path().join("audit/reserve")).unwrap();
    let service = reopen(dir.path());
    let id = new_key(&service);
    service.disable_key(&id.into()).unwrap();
    service.enable_key(&id.into()).unwrap();
    service.rotate_key_on_demand(&id.into()).unwrap();
    let alias = "alias/a".parse().unwrap();
    service.create_alias(&alias, &id.into()).unwrap();
    cut_the_log(dir.path());
    service.restart_audit().unwrap();
    let found = below(dir.path());
    assert!(found.iter().any(|path| path.ends_with("damaged-1/log")));
    for path in found {
        let meta = fs::symlink_metadata(&path).unwrap();
        assert_eq!((meta.uid(), meta.gid()), OWNER, "{}", path.display());
    }
}

#[test]
fn a_pipe_in_the_place_of_a_file_is_an_error_and_nobody_waits_for_its_writer() {
    let (dir, service) = fresh();
    let id = new_key(&service);
    let material = service
        .describe_key(&id.into())
        .unwrap()
        .current_key_material_id
        .unwrap();
    let record = format!("keys/{id}/key");
    let material = format!("keys/{id}/{material}");
    for place in [
        "store",
        "root.key",
        "lock",
        "journal",
        "audit/log",
        "audit/head",
        &record,
        &material,
    ] {
        let (path, aside) = (dir.path().join(place), dir.path().join("aside"));
        let was_there = fs::rename(&path, &aside).is_ok();
        let mode = Mode::RUSR | Mode::WUSR;
        rustix::fs::mknodat(CWD, &path, FileType::Fifo, mode, 0).unwrap();
        let attempt = KeyService::open(dir.path(), &super::tests::Never, super::tests::clock())
            .and_then(|service| {
                let context = super::tests::context();
                service.generate_data_key(&id.into(), &context)?;
                service.flush_usage()?;
                service.disable_key(&id.into())
            });
        assert!(attempt.is_err(), "{place}");
        fs::remove_file(&path).unwrap();
        if was_there {
            fs::rename(&aside, &path).unwrap();
        }
    }
    reopen(dir.path()).disable_key(&id.into()).unwrap();
}

#[test]
fn the_lock_leads_nowhere_else() {
    let (dir, service) = fresh();
    let elsewhere = dir.path().join("elsewhere");
    fs::write(&elsewhere, "").unwrap();
    let lock = dir.path().join("lock");
    fs::remove_file(&lock).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &lock).unwrap();
    service.list_keys().unwrap_err();
}

#[test]
fn a_key_is_disabled_wherever_the_disk_is_found_to_be_full() {
    for n in 0.. {
        let (dir, service) = fresh();
        let id = new_key(&service);
        let (done, came_to_pass) = inject(n, Fault::Once(libc::ENOSPC), || {
            service.disable_key(&id.into())
        });
        assert!(done.is_ok(), "operation {n}: {done:?}");
        let key = reopen(dir.path()).describe_key(&id.into()).unwrap();
        assert_eq!(key.key_state, KeyState::Disabled);
        assert!(service.verify_audit().damage.is_none());
        let named = |line: &&Value| line["eventName"] == "DisableKey";
        assert_eq!(lines(dir.path()).iter().filter(named).count(), 1);
        if !came_to_pass {
            assert!(n > 8, "{n}");
            return;
        }
    }
}

#[test]
fn what_was_decided_for_a_log_that_is_given_up_is_told_by_the_new_one() {
    let mut told = 0;
    for n in 0.. {
        let (dir, service) = fresh();
        let id = new_key(&service);
        let (done, came_to_pass) = inject(n, Fault::Killed, || service.disable_key(&id.into()));
        if !came_to_pass {
            done.unwrap();
            break;
        }
        if !dir.path().join("journal").exists() {
            continue;
        }
        cut_the_log(dir.path());
        let service = reopen(dir.path());
        if service.restart_audit().is_err() {
            // The cut took only what was not acknowledged: the log is whole without it.
            continue;
        }
        let state = service.describe_key(&id.into()).unwrap().key_state;
        assert_eq!(state, KeyState::Disabled);
        let begun = &lines(dir.path())[0];
        assert_eq!(begun["eventName"], "RestartAuditLog");
        let unwritten = &begun["additionalEventData"]["unwrittenEvents"];
        assert_eq!(unwritten[0]["eventName"], "DisableKey", "{begun}");
        told += 1;
    }
    assert!(told > 0);
}

#[test]
fn room_that_is_kept_is_kept_whole() {
    let (dir, service) = fresh();
    let reserve = dir.path().join("audit/reserve");
    let whole = fs::metadata(&reserve).unwrap().len();
    fs::write(&reserve, "cut short").unwrap();
    new_key(&service);
    assert_eq!(fs::metadata(&reserve).unwrap().len(), whole);
}

#[test]
fn the_day_of_a_deletion_is_the_one_that_is_said() {
    let (_dir, service) = fresh();
    let id = new_key(&service);
    let said = service
        .schedule_key_deletion(&id.into(), crate::kms::deletion::PendingWindow::default())
        .unwrap();
    let key = service.describe_key(&id.into()).unwrap();
    assert_eq!(key.deletion_date, Some(said.deletion_date));
}
