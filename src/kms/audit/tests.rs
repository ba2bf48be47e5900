//! Tests of the audit log: what is written down, and that every change of it shows.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::identity::Identity;
use crate::ids::KeyId;
use crate::kms::KmsError;
use crate::kms::key::CreateKeyRequest;
use crate::kms::service::KeyService;
use crate::kms::service::tests::{fresh, reopen};

fn lines(dir: &Path) -> Vec<Value> {
    let log = fs::read_to_string(dir.join("audit/log")).unwrap();
    log.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn new_key(service: &KeyService) -> KeyId {
    let request = CreateKeyRequest::default();
    service.create_key(request).unwrap().key_id
}

fn damage(service: &KeyService) -> Option<String> {
    service.verify_audit().damage.map(|error| error.to_string())
}

/// A key directory whose log has a dozen lines.
fn with_history() -> (tempfile::TempDir, KeyService) {
    let (dir, service) = fresh();
    for _ in 0..2 {
        let id = new_key(&service);
        service.disable_key(&id.into()).unwrap();
        service.describe_key(&id.into()).unwrap();
        service.enable_key(&id.into()).unwrap();
    }
    assert_eq!(service.verify_audit().events, 11);
    assert_eq!(damage(&service), None);
    (dir, service)
}

#[test]
fn an_operation_is_written_down_with_cloudtrails_fields() {
    let (dir, service) = fresh();
    let service = service.acting_as(Identity::named("alice", 1001));
    let id = new_key(&service);
    service.disable_key(&id.into()).unwrap();
    let found = lines(dir.path());
    let names: Vec<&str> = found
        .iter()
        .map(|line| line["eventName"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "CreateKeyStore",
            "CreateKey",
            "CreateAlias",
            "CreateKey",
            "DisableKey"
        ]
    );
    let last = &found[4];
    let expected = [
        ("eventSource", "kms.cmkfs".into()),
        ("eventTime", "2023-11-14T22:13:20.000Z".into()),
        ("readOnly", false.into()),
        ("eventType", "CmkfsApiCall".into()),
        ("eventCategory", "Management".into()),
        ("sequenceNumber", 5.into()),
    ];
    for (field, value) in expected {
        let value: Value = value;
        assert_eq!(last[field], value, "{field}");
    }
    assert_eq!(last["userIdentity"]["userName"], "alice");
    assert_eq!(last["userIdentity"]["uid"], 1001);
    assert_eq!(last["requestParameters"]["keyId"], id.to_string());
    let arn = last["resources"][0]["ARN"].as_str().unwrap();
    assert!(arn.ends_with(&format!(":key/{id}")), "{arn}");
    assert!(last.get("errorCode").is_none());
    let created = &found[3]["additionalEventData"]["keyMaterialId"];
    assert_eq!(created.as_str().unwrap().len(), 64);
    let mut ids: Vec<&str> = found
        .iter()
        .map(|line| line["eventID"].as_str().unwrap())
        .collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), found.len());
}

#[test]
fn what_is_refused_is_written_down_with_the_reason() {
    let (dir, service) = fresh();
    let nobody = KeyId::random();
    let alias = "alias/cmkfs/x".parse().unwrap();
    assert!(service.disable_key(&nobody.into()).is_err());
    assert!(service.describe_key(&nobody.into()).is_err());
    assert!(service.create_alias(&alias, &nobody.into()).is_err());
    let found = lines(dir.path());
    let refused: Vec<(&str, &str)> = found[3..]
        .iter()
        .map(|line| {
            let field = |name: &str| line[name].as_str().unwrap();
            (field("eventName"), field("errorCode"))
        })
        .collect();
    assert_eq!(
        refused,
        [
            ("DisableKey", "NotFoundException"),
            ("DescribeKey", "NotFoundException"),
            ("CreateAlias", "InvalidAliasNameException"),
        ]
    );
    assert_eq!(found[3]["requestParameters"]["keyId"], nobody.to_string());
    assert!(
        found[3]["errorMessage"]
            .as_str()
            .unwrap()
            .contains("not found")
    );
    assert_eq!(found[5]["requestParameters"]["aliasName"], "alias/cmkfs/x");
}

#[test]
fn the_caller_is_whoever_runs_the_process() {
    let (dir, service) = fresh();
    service.list_keys().unwrap();
    let found = lines(dir.path());
    let identity = &found.last().unwrap()["userIdentity"];
    assert_eq!(identity["uid"], rustix::process::getuid().as_raw());
    assert_eq!(identity["processId"], std::process::id());
    let executable = std::env::current_exe().unwrap();
    assert_eq!(identity["executable"], executable.to_str().unwrap());
}

#[test]
fn no_flipped_byte_of_the_log_goes_unnoticed() {
    let (dir, service) = with_history();
    let path = dir.path().join("audit/log");
    let whole = fs::read(&path).unwrap();
    let mut line = 1;
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        fs::write(&path, flipped).unwrap();
        let said = damage(&service).unwrap_or_else(|| panic!("byte {at}"));
        // A lost line break makes one line of two.
        assert!(said.contains(&format!("line {line} ")), "byte {at}: {said}");
        line += usize::from(whole[at] == b'\n');
    }
    fs::write(&path, whole).unwrap();
    assert_eq!(damage(&service), None);
}

#[test]
fn lines_that_are_cut_off_left_out_doubled_or_exchanged_are_noticed_and_nothing_is_done_on_top() {
    let (dir, service) = with_history();
    let path = dir.path().join("audit/log");
    let whole = fs::read(&path).unwrap();
    let lines: Vec<&[u8]> = whole.split_inclusive(|byte| *byte == b'\n').collect();
    for at in 0..lines.len() {
        fs::write(&path, lines[..at].concat()).unwrap();
        let said = damage(&service).unwrap();
        assert!(said.contains(&format!("ends after line {at};")), "{said}");
        // The next one to write notices, too.
        let refused = service.list_keys().unwrap_err();
        assert_eq!(refused.code(), "NotRecorded");
        let refused = service.create_key(CreateKeyRequest::default()).unwrap_err();
        assert_eq!(refused.code(), "NotRecorded");
        fs::write(&path, [&lines[..at], &lines[at + 1..]].concat().concat()).unwrap();
        assert!(damage(&service).is_some(), "{at} left out");
        fs::write(
            &path,
            [&lines[..at], &lines[at.saturating_sub(1)..]]
                .concat()
                .concat(),
        )
        .unwrap();
        assert_eq!(damage(&service).is_some(), at > 0, "{at} doubled");
        if at > 0 {
            let mut exchanged = lines.clone();
            exchanged.swap(at - 1, at);
            fs::write(&path, exchanged.concat()).unwrap();
            assert!(damage(&service).is_some(), "{at} exchanged");
        }
    }
    fs::write(&path, [&whole[..], lines[3]].concat()).unwrap();
    assert!(
        damage(&service)
            .unwrap()
            .contains("line 12 was not written by cmkfs")
    );
    fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    assert!(damage(&service).is_some());
    fs::remove_file(&path).unwrap();
    assert!(damage(&service).is_some());
    assert!(service.list_keys().is_err());
    fs::write(&path, &whole).unwrap();
    assert_eq!(damage(&service), None);
    assert_eq!(service.list_keys().unwrap().items.len(), 3);
}

#[test]
fn no_flipped_byte_of_the_head_and_no_older_place_of_it_go_unnoticed() {
    let (dir, service) = with_history();
    let path = dir.path().join("audit/head");
    let whole = fs::read(&path).unwrap();
    for place in [0, 4096] {
        for at in place..place + 116 {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            fs::write(&path, flipped).unwrap();
            assert!(damage(&service).unwrap().contains("audit/head"), "{at}");
            assert!(service.list_keys().is_err());
        }
    }
    // The log cut by one line, with the older of the two places copied over the newer.
    let log = fs::read(dir.path().join("audit/log")).unwrap();
    let cut = log[..log.len() - 1]
        .iter()
        .rposition(|byte| *byte == b'\n')
        .unwrap()
        + 1;
    fs::write(dir.path().join("audit/log"), &log[..cut]).unwrap();
    for (from, to) in [(0, 4096), (4096, 0)] {
        let mut copied = whole.clone();
        copied.copy_within(from..from + 4096, to);
        fs::write(&path, copied).unwrap();
        assert!(damage(&service).is_some());
    }
    fs::write(&path, &whole[..4096]).unwrap();
    assert!(damage(&service).is_some());
    fs::write(&path, whole).unwrap();
    fs::write(dir.path().join("audit/log"), log).unwrap();
    assert_eq!(damage(&service), None);
}

#[test]
fn what_a_crash_left_behind_the_end_is_no_damage_and_its_removal_is_written_down() {
    for left in [&b"{\"eventVersion\":\"1.1"[..], &[0; 700], b"{\"a\":1}\n"] {
        let (dir, service) = with_history();
        let path = dir.path().join("audit/log");
        let whole = fs::read(&path).unwrap();
        fs::write(&path, [&whole[..], left].concat()).unwrap();
        let found = service.verify_audit();
        // A whole line that does not belong there is no remains of a crash.
        let is_line = left.ends_with(b"\n");
        assert_eq!(found.unfinished, !is_line);
        assert_eq!(found.damage.is_some(), is_line);
        service.list_keys().unwrap();
        let found = lines(dir.path());
        assert_eq!(found.len(), 13);
        assert_eq!(found[11]["eventName"], "RepairAuditLog");
        assert_eq!(found[11]["eventType"], "CmkfsServiceEvent");
        assert_eq!(found[11]["additionalEventData"]["removedBytes"], left.len());
        assert_eq!(damage(&service), None);
    }
}

#[test]
fn a_log_of_another_key_directory_is_noticed() {
    let (mine, service) = with_history();
    let (theirs, _other) = with_history();
    for file in ["audit/log", "audit/head"] {
        fs::copy(theirs.path().join(file), mine.path().join(file)).unwrap();
    }
    assert!(damage(&service).is_some());
    assert!(service.list_keys().is_err());
}

#[test]
fn many_writers_at_once_make_one_chain() {
    let (dir, service) = fresh();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let service = reopen(dir.path());
                for _ in 0..10 {
                    new_key(&service);
                    service.list_keys().unwrap();
                    let nobody = service.enable_key(&KeyId::random().into());
                    assert!(matches!(nobody, Err(KmsError::NotFoundException { .. })));
                }
            });
        }
        // Whoever verifies meanwhile sees a whole log.
        scope.spawn(|| {
            while service.verify_audit().events < 100 {
                assert_eq!(damage(&service), None);
            }
        });
    });
    assert_eq!(service.verify_audit().events, 3 + 4 * 10 * 3);
    assert_eq!(damage(&service), None);
}

#[test]
fn no_secret_gets_into_the_log() {
    use crate::clock::SystemClock;
    use crate::kms::import::{ImportRequest, ImportedMaterial};
    use crate::kms::key::Origin;
    use crate::kms::root::NewProtection;
    use crate::kms::service::tests::{Says, context};
    const PASSPHRASE: &str = "open, says me";
    let dir = tempfile::tempdir().unwrap();
    let protection =
        NewProtection::Passphrase(crate::crypto::passphrase::Argon2Params::CHEAP_AND_INSECURE);
    let clock = std::sync::Arc::new(SystemClock);
    let open = || KeyService::open(dir.path(), &Says(PASSPHRASE), clock.clone());
    KeyService::open_or_create(dir.path(), protection, &Says(PASSPHRASE), clock.clone()).unwrap();
    assert!(KeyService::open(dir.path(), &Says("not this one"), clock.clone()).is_err());
    let service = open().unwrap();
    let request = CreateKeyRequest {
        origin: Origin::External,
        ..CreateKeyRequest::default()
    };
    let key = service.create_key(request).unwrap().key_id.into();
    let material: [u8; 32] = std::array::from_fn(|at| (at as u8).wrapping_mul(167) ^ 91);
    let import = |mut bytes: [u8; 32]| {
        let request = ImportRequest {
            material: ImportedMaterial::take(&mut bytes).unwrap(),
            valid_to: None,
            import_type: None,
        };
        service.import_key_material(&key, &request)
    };
    import(material).unwrap();
    let other = material.map(|byte| byte ^ 0x55);
    import(other).unwrap_err();
    let context = context();
    let (data_key, envelope) = service.generate_data_key(&key, &context).unwrap();
    service.decrypt_data_key(&envelope, &context).unwrap();
    let backup = dir.path().join("backup");
    let params = crate::crypto::passphrase::Argon2Params::CHEAP_AND_INSECURE;
    let of_backup = "far away and long ago";
    let phrase = crate::crypto::passphrase::Passphrase::new(of_backup.as_bytes().to_vec().into());
    service.backup(&backup, false, params, &phrase).unwrap();
    service.delete_imported_key_material(&key, None).unwrap();
    service.disable_key(&key).unwrap_err();
    drop(service);
    let log = fs::read(dir.path().join("audit/log")).unwrap();
    let text = String::from_utf8(log).unwrap().to_ascii_lowercase();
    for (what, secret) in [
        ("material", &material[..]),
        ("refused material", &other),
        ("data key", data_key.expose().as_slice()),
        ("passphrase", PASSPHRASE.as_bytes()),
        ("wrong passphrase", b"not this one"),
        ("backup's passphrase", of_backup.as_bytes()),
    ] {
        for window in secret.windows(9) {
            for shown in ways_to_show(window) {
                let shown = shown.to_ascii_lowercase();
                assert!(!text.contains(&shown), "{what}: {shown}");
            }
        }
    }
    assert!(text.contains("importkeymaterial") && text.contains("generatedatakey"));
}

/// Bytes as they are, in hexadecimal, in Base64 wherever they begin in it, and as JSON lists them.
fn ways_to_show(bytes: &[u8]) -> Vec<String> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let hex = hex::encode(bytes);
    let list: Vec<String> = bytes.iter().map(ToString::to_string).collect();
    let base64 = bytes.chunks_exact(3).flat_map(|three| {
        let number = three
            .iter()
            .fold(0, |sum, byte| sum << 8 | usize::from(*byte));
        [18, 12, 6, 0].map(|shift| char::from(DIGITS[number >> shift & 63]))
    });
    let base64: String = base64.collect();
    let url = base64.replace('+', "-").replace('/', "_");
    let mut ways = vec![hex, list.join(","), base64, url];
    ways.extend(std::str::from_utf8(bytes).map(str::to_owned));
    ways
}
