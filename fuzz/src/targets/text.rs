//! What people and other programs write: control messages, policies, grants, names, options, `/proc`, reports.

use std::ffi::OsStr;
use std::fmt::{Debug, Display};
use std::io::{BufReader, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::str::FromStr;

use cmkfs::cli::erase::report;
use cmkfs::clock::Timestamp;
use cmkfs::ids::{KeyId, KeyStoreId, MaterialId, ObjectId, VolumeId};
use cmkfs::kms::alias::AliasName;
use cmkfs::kms::caller::Caller;
use cmkfs::kms::grant::{Grant, GrantId};
use cmkfs::kms::import::ImportedMaterial;
use cmkfs::kms::key::KeyRef;
use cmkfs::kms::policy::{Policy, Principal, Request as Asked, evaluate::evaluate};
use cmkfs::mount::control::protocol::{self, REQUEST_MAX, RESPONSE_MAX, Request, Response};
use cmkfs::mount::mountinfo::Mount;
use cmkfs::mount::options::MountOptions;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Requests and answers on a control socket: what is read is read again from what is said.
pub fn control(bytes: &[u8]) {
    said_again::<Request>(bytes, REQUEST_MAX);
    said_again::<Response>(bytes, RESPONSE_MAX);
}

fn said_again<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8], limit: usize) {
    let mut stream = BufReader::with_capacity(16, bytes.chain(std::io::repeat(b' ')));
    let Ok(Some(message)) = protocol::receive::<T>(&mut stream, limit) else {
        return;
    };
    let mut line = Vec::new();
    protocol::send(&mut line, &message).expect("it was read");
    assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
    let again = protocol::receive::<T>(&mut &line[..], line.len() + 1);
    assert_eq!(again.expect("a line"), Some(message));
}

fn callers() -> [Caller; 2] {
    [0, 1000].map(|uid| Caller {
        uid,
        user: (uid == 1000).then(|| "somebody".to_owned()),
        groups: Vec::new(),
    })
}

fn is_allowed(policy: &Policy, grants: &[Grant], caller: &Caller, action: &'static str) -> bool {
    evaluate(policy, grants, caller, &Asked::new(action), Timestamp(0)).is_ok()
}

/// Key policies: kept word by word; what does not allow allows nothing, and a denial of everything denies everything.
pub fn policy(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let Ok(policy) = Policy::parse(text) else {
        return;
    };
    assert_eq!(policy.as_str(), text);
    let stored = serde_json::to_vec(&policy).expect("text");
    assert_eq!(
        serde_json::from_slice::<Policy>(&stored).expect("text"),
        policy
    );
    let is_plain = !text.contains('\\');
    for caller in callers() {
        for action in ["Encrypt", "PutKeyPolicy", "CreateGrant"] {
            if is_allowed(&policy, &[], &caller, action) {
                assert!(!is_plain || text.contains("Allow"));
            }
        }
    }
}

/// A grant allows what it lists, to whom it names, and is kept as it is.
pub fn grant(bytes: &[u8]) {
    let Ok(grant) = serde_json::from_slice::<Grant>(bytes) else {
        return;
    };
    let stored = serde_json::to_vec(&grant).expect("it was read");
    assert_eq!(
        serde_json::from_slice::<Grant>(&stored).expect("it was written"),
        grant
    );
    // Of nobody who asks here.
    let policy = Policy::parse(
        r#"{"Statement":{"Effect":"Allow","Principal":{"User":7},"Action":"kms:*","Resource":"*"}}"#,
    )
    .expect("a policy");
    for caller in callers() {
        for action in [
            "Encrypt",
            "Decrypt",
            "CreateGrant",
            "DescribeKey",
            "PutKeyPolicy",
        ] {
            let allowed = is_allowed(&policy, std::slice::from_ref(&grant), &caller, action);
            let listed = action
                .parse()
                .is_ok_and(|operation| grant.operations.contains(&operation));
            assert!(listed || !allowed, "{action} is not listed");
        }
    }
}

fn spelled<T: FromStr + Display + PartialEq + Debug>(text: &str) {
    let Ok(value) = text.parse::<T>() else {
        return;
    };
    let again = value.to_string();
    let read = again.parse::<T>().ok();
    assert_eq!(read.as_ref(), Some(&value), "{again} is {text}");
}

/// Ids, aliases and principals: what is shown is read as the same.
pub fn identifiers(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    spelled::<KeyId>(text);
    spelled::<VolumeId>(text);
    spelled::<ObjectId>(text);
    spelled::<KeyStoreId>(text);
    spelled::<MaterialId>(text);
    if let Ok(key) = text.parse::<KeyRef>() {
        assert_eq!(key.name(), text);
    }
    spelled::<Principal>(text);
    spelled::<GrantId>(text);
    if let Ok(alias) = text.parse::<AliasName>() {
        assert_eq!(alias.as_str(), text);
        assert!(
            text.len() <= cmkfs::format::header::ALIAS_MAX,
            "every alias can bind a directory"
        );
    }
}

/// A report of an erasure: one that is unchanged is written with the digest it was read with.
pub fn erase_report(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let Ok(read) = report::parse(text) else {
        return;
    };
    let (sealed, digest) = read.report.seal().expect("it was read");
    let sealed = String::from_utf8(sealed).expect("JSON is text");
    let again = report::parse(&sealed).expect("it was written");
    assert!(again.is_unchanged && again.digest == digest);
    assert_eq!(again.report.seal().expect("it was read").1, digest);
}

/// Key material from outside: 32 bytes that can be random, and the caller's copy is wiped whatever they are.
pub fn material(bytes: &[u8]) {
    let mut given = bytes.to_vec();
    let taken = ImportedMaterial::take(&mut given);
    assert!(given.iter().all(|byte| *byte == 0), "a copy is left");
    assert!(taken.is_err() || (bytes.len() == 32 && !bytes.is_ascii()));
}

fn escaped(bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    for byte in bytes {
        match byte {
            b' ' | b'\t' | b'\n' | b'\\' | b'#' => text.extend(format!("\\{byte:03o}").bytes()),
            _ => text.push(*byte),
        }
    }
    text
}

/// Lines of mountinfo: a place is found under the very bytes of its name.
pub fn mountinfo(bytes: &[u8]) {
    let Some(mount) = Mount::parse(bytes) else {
        return;
    };
    let _ = (mount.is_cmkfs(), mount.is_read_only(), mount.user());
    let head = format!("1 1 {}:{} / ", mount.device.0, mount.device.1);
    let mut line = head.into_bytes();
    line.extend(escaped(mount.mountpoint.as_os_str().as_bytes()));
    line.extend(format!(" {} - {} ", mount.options, mount.filesystem_type).bytes());
    line.extend(escaped(mount.source.as_bytes()));
    line.push(b' ');
    line.extend(mount.super_options.bytes());
    assert_eq!(Mount::parse(&line).as_ref(), Some(&mount));
}

/// Mount options: any value can be given, and says nothing but itself.
pub fn mount_options(bytes: &[u8]) {
    let given = OsStr::from_bytes(bytes);
    if let Ok(options) = MountOptions::parse([given]) {
        assert_eq!(MountOptions::parse([given, given]), Ok(options));
    }
    let mut list = b"ro,keys=".to_vec();
    for byte in bytes {
        if matches!(byte, b',' | b'\\') {
            list.push(b'\\');
        }
        list.push(*byte);
    }
    list.extend(b",nodev");
    let expected = MountOptions {
        keys: Some(std::ffi::OsString::from_vec(bytes.to_vec()).into()),
        ..MountOptions::parse([OsStr::new("ro,nodev")]).expect("known options")
    };
    assert_eq!(
        MountOptions::parse([OsStr::from_bytes(&list)]),
        Ok(expected)
    );
}
