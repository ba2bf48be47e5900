//! A mount obeys the policy and the grants of its keys, live: it loses a key that its user may no longer use, and gets it back.

mod common;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cmkfs::clock::SystemClock;
use cmkfs::crypto::passphrase::Passphrase;
use cmkfs::kms::root::PassphraseSource;
use cmkfs::kms::{KeyService, KmsError};
use common::{Volume, eventually};
use serde_json::{Value, json};

const SIZE: usize = 300_000;
const DENIED: i32 = 12;

/// A mounted volume under a key of its own, and that key's id.
fn mounted() -> (Volume, String) {
    let volume = Volume::bare(None);
    let key = volume.succeed(&["-q", "key", "create"]).trim().to_owned();
    volume.succeed(&["init", "CIPHERDIR", "--key", &key]);
    fs::create_dir(volume.mountpoint()).unwrap();
    volume.mount(&[]);
    (volume, key)
}

fn policy(statements: &Value) -> String {
    json!({"Version": "2012-10-17", "Statement": statements}).to_string()
}

fn allow(actions: &Value) -> Value {
    json!({"Effect": "Allow", "Principal": "*", "Action": actions, "Resource": "*"})
}

fn deny(actions: &Value, condition: &Value) -> Value {
    json!({"Effect": "Deny", "Principal": "*", "Action": actions, "Resource": "*", "Condition": condition})
}

fn put(volume: &Volume, key: &str, policy: &str) -> String {
    let file = volume.folder().join("policy.json");
    fs::write(&file, policy).unwrap();
    volume.succeed(&["policy", "put", key, file.to_str().unwrap()])
}

fn read(file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; SIZE];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

fn is_denied<T>(result: &io::Result<T>) -> bool {
    let error = result.as_ref().err().and_then(io::Error::raw_os_error);
    error == Some(libc::EACCES)
}

/// A file of the volume that is open and in the page cache.
fn cached_file(volume: &Volume) -> File {
    fs::write(volume.path("file"), vec![7; SIZE]).unwrap();
    let file = File::open(volume.path("file")).unwrap();
    assert_eq!(read(&file).unwrap(), vec![7; SIZE]);
    file
}

fn assert_denied(volume: &Volume, file: &File) {
    assert!(is_denied(&read(file)), "an open, cached file");
    assert!(is_denied(&File::open(volume.path("file"))));
    assert!(is_denied(&File::create(volume.path("other"))));
    assert!(is_denied(
        &fs::read_dir(volume.mountpoint()).and_then(Iterator::collect::<io::Result<Vec<_>>>)
    ));
}

fn assert_allowed(volume: &Volume, file: &File) {
    assert_eq!(read(file).unwrap(), vec![7; SIZE]);
    assert_eq!(fs::read(volume.path("file")).unwrap(), vec![7; SIZE]);
}

#[test]
fn a_policy_that_denies_decrypt_takes_the_key_from_a_running_mount_and_its_end_gives_it_back() {
    let (volume, key) = mounted();
    let file = cached_file(&volume);
    let open = volume.succeed(&["policy", "get", &key]);
    let denies = policy(&json!([
        allow(&json!("kms:*")),
        deny(&json!("kms:Decrypt"), &json!({}))
    ]));
    for _ in 0..3 {
        let said = put(&volume, &key, &denies);
        assert!(said.contains(" wiped, "), "{said}");
        // The command has waited for the mount: nothing to poll for.
        assert_denied(&volume, &file);
        let said = put(&volume, &key, &open);
        assert!(said.contains("may use it"), "{said}");
        assert_allowed(&volume, &file);
    }
}

/// The key directory's owner, without the command line and its control socket.
struct Nothing;

impl PassphraseSource for Nothing {
    fn existing(&self, _: &std::path::Path) -> Result<Passphrase, KmsError> {
        unreachable!("the key directory has no passphrase")
    }
    fn chosen(&self, _: &std::path::Path) -> Result<Passphrase, KmsError> {
        unreachable!("the key directory is there")
    }
}

#[test]
fn a_policy_put_behind_the_mounts_back_is_obeyed_within_a_second() {
    let (volume, key) = mounted();
    let file = cached_file(&volume);
    let keys = volume.folder().join("keys");
    let service = KeyService::open(&keys, &Nothing, Arc::new(SystemClock)).unwrap();
    let key = key.parse().unwrap();
    let open = service.get_key_policy(&key).unwrap();
    let denies = policy(&json!([
        allow(&json!("kms:*")),
        deny(&json!("kms:*crypt"), &json!({}))
    ]));
    service.put_key_policy(&key, &denies, false).unwrap();
    let start = Instant::now();
    eventually("the open file is refused", || is_denied(&read(&file)));
    let took = start.elapsed();
    println!("refused after {took:?}");
    // Polled five times a second; the rest is patience with a loaded machine.
    assert!(took < Duration::from_secs(3), "{took:?}");
    service.put_key_policy(&key, open.as_str(), false).unwrap();
    eventually("the open file is readable", || read(&file).is_ok());
    assert_allowed(&volume, &file);
}

#[test]
fn a_mount_that_lives_on_a_grant_ends_with_it() {
    let (volume, key) = mounted();
    let file = cached_file(&volume);
    // Whoever looks after the key may not use it.
    let keeper = json!(["kms:*Policy", "kms:*Grant", "kms:*Grants"]);
    put(&volume, &key, &policy(&json!([allow(&keeper)])));
    assert_denied(&volume, &file);
    let user = format!("user:{}", rustix::process::geteuid().as_raw());
    for _ in 0..2 {
        let create = [
            "-q",
            "grant",
            "create",
            &key,
            "--grantee-principal",
            &user,
            "--operations",
            "Decrypt,GenerateDataKey",
        ];
        let grant = volume.succeed(&create).trim().to_owned();
        assert_allowed(&volume, &file);
        fs::write(volume.path("new"), "text").unwrap();
        volume.succeed(&["grant", "revoke", &key, &grant]);
        assert_denied(&volume, &file);
    }
}

#[test]
fn a_policy_can_single_out_a_volume() {
    let (volume, key) = mounted();
    let file = cached_file(&volume);
    let file_of = |policy: &str| {
        let path = volume.folder().join("policy.json");
        fs::write(&path, policy).unwrap();
        path.to_str().unwrap().to_owned()
    };
    // The mount's answer names its volume.
    let anything = file_of(&policy(&json!([allow(&json!("kms:*"))])));
    let said = volume.succeed(&["policy", "put", &key, &anything, "--output", "json"]);
    let said: Value = serde_json::from_str(&said).unwrap();
    let id = said["Mounts"][0]["VolumeId"].as_str().unwrap().to_owned();
    let not_in = |volume: &str| {
        let condition = json!({"StringEquals": {"kms:EncryptionContext:volume": volume}});
        policy(&json!([
            allow(&json!("kms:*")),
            deny(&json!("kms:Decrypt"), &condition)
        ]))
    };
    put(
        &volume,
        &key,
        &not_in("00000000-0000-4000-8000-000000000000"),
    );
    assert_allowed(&volume, &file);
    put(&volume, &key, &not_in(&id));
    assert_denied(&volume, &file);
}

#[test]
fn a_volume_whose_key_is_denied_is_not_mounted_and_the_refusal_says_why() {
    let (volume, key) = mounted();
    volume.unmount();
    let denies = policy(&json!([
        allow(&json!("kms:*")),
        deny(&json!("kms:Decrypt"), &json!({}))
    ]));
    put(&volume, &key, &denies);
    let output = volume.run(&["mount", "CIPHERDIR", "MOUNTPOINT"]);
    assert_eq!(output.status.code(), Some(DENIED), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("is not authorized to perform kms:Decrypt"),
        "{said}"
    );
    assert!(
        said.contains("hint: whoever may perform kms:PutKeyPolicy"),
        "{said}"
    );
}

#[test]
fn a_policy_against_some_objects_is_obeyed_wherever_a_data_key_is_asked_for() {
    let (volume, key) = mounted();
    fs::write(volume.path("file"), "text").unwrap();
    std::os::unix::fs::symlink("file", volume.path("link")).unwrap();
    volume.unmount();
    let condition = json!({"StringEquals": {"kms:EncryptionContext:kind": "file"}});
    let denies = policy(&json!([
        allow(&json!("kms:*")),
        deny(&json!("kms:Decrypt"), &condition)
    ]));
    put(&volume, &key, &denies);
    volume.mount(&[]);
    assert!(is_denied(&fs::read(volume.path("file"))));
    assert_eq!(
        fs::read_link(volume.path("link")).unwrap().to_str(),
        Some("file")
    );
}
