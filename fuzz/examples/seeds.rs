//! Writes the first inputs of every target into `corpus`: real structures, made by cmkfs itself. The fuzzer goes on from
//! there. `cargo run --example seeds` in this folder.

use std::fs;
use std::path::{Path, PathBuf};

use cmkfs::crypto::envelope::{DataKey, WrappingKey};
use cmkfs::crypto::object::ObjectKeys;
use cmkfs::crypto::{header, name, symlink};
use cmkfs::format::backup::{BackupHeader, Entry};
use cmkfs::format::ciphertext::{Ciphertext, CiphertextHeader};
use cmkfs::format::envelope::{EncryptionContext, ObjectKind};
use cmkfs::format::header::{KeyBinding, SealedState};
use cmkfs::format::journal;
use cmkfs::format::keystore::{Protection, RecordHeader, StoreFile};
use cmkfs::format::names::to_text;
use cmkfs::format::slot::{Entry as SlotEntry, SLOT_LEN, Slot};
use cmkfs::format::symlink::Stored;
use cmkfs::format::volume::feature;
use cmkfs::ids::{BackupId, KeyStoreId, MaterialId, ObjectId, VolumeId};
use cmkfs::kms::policy::Policy;
use cmkfs::mount::confine::Confinement;
use cmkfs::mount::control::protocol::{
    Bound, Failed, KeyInUse, LeaseState, MountStats, Obeyed, Prepared, Progress, Reason, Request,
    Response, Status,
};
use cmkfs::mount::protocol::{Header, Opcode};
use cmkfs::mount::stats::OperationStats;
use cmkfs_fuzz::targets::keystore::{KEY, alias_record, key_record};
use serde::Serialize;

const VOLUME: VolumeId = VolumeId([1; 16]);

fn put(target: &str, name: &str, bytes: impl AsRef<[u8]>) {
    let folder: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target);
    fs::create_dir_all(&folder).expect("a folder");
    fs::write(folder.join(name), bytes).expect("a file");
}

fn volume_structures() {
    let wrapping = WrappingKey::new(KEY, MaterialId([4; 32]), &DataKey::take(&mut [5; 32]));
    let data_key = DataKey::take(&mut [6; 32]);
    let object = ObjectId([2; 16]);
    let wrap = |kind| {
        wrapping.wrap(
            &data_key,
            &EncryptionContext {
                volume: VOLUME,
                object,
                kind,
            },
        )
    };
    let keys = |kind| ObjectKeys::new(&data_key, kind);
    let file = header::seal_volume(
        &keys(ObjectKind::Volume),
        VOLUME,
        KeyStoreId([3; 16]),
        feature::JOURNAL,
        wrap(ObjectKind::Volume),
    );
    put("volume", "volume", file.encode());
    let state = |binding, size, dirty| SealedState {
        size,
        epoch: 3,
        sparse: dirty,
        dirty,
        binding,
    };
    let alias = state(
        Some(KeyBinding::Alias("alias/cmkfs/default".to_owned())),
        0,
        false,
    );
    let states = [
        ("alias", ObjectKind::Directory, alias),
        (
            "key",
            ObjectKind::Directory,
            state(Some(KeyBinding::Key(KEY)), 0, false),
        ),
        ("file", ObjectKind::File, state(None, 240_000, false)),
        ("dirty", ObjectKind::File, state(None, 1, true)),
    ];
    for (name, kind, state) in &states {
        let sealed =
            header::seal(&keys(*kind), *kind, object, wrap(*kind), state).expect("a header");
        put("header", name, sealed.encode());
        put(
            "header",
            &format!("state-{name}"),
            state.encode().expect("a state"),
        );
    }
    put("header", "envelope", wrap(ObjectKind::File).encode());
    let entry = |length| SlotEntry {
        nonce: [1; 12],
        tag: [2; 16],
        length,
    };
    put(
        "file_journal",
        "two-blocks",
        journal::encode(3, 56, &[entry(4096), entry(7)]),
    );
    let mut page = [0; SLOT_LEN * 3];
    Slot::HOLE.superseded_by(entry(4096)).encode(&mut page);
    Slot::HOLE
        .superseded_by(entry(4096))
        .superseded_by(entry(7))
        .encode(&mut page[SLOT_LEN..]);
    put("slots", "three", page);
    for (name, target) in [("short", &b"some/where"[..]), ("long", &[b't'; 1500])] {
        let record = symlink::seal(
            &keys(ObjectKind::Symlink),
            object,
            wrap(ObjectKind::Symlink),
            target,
        );
        put("symlink", name, record.encode());
        put(
            "symlink",
            &format!("{name}-text"),
            Stored::Inline(record).to_text(),
        );
    }
    put(
        "symlink",
        "side-text",
        Stored::Side {
            object,
            length: 4000,
        }
        .to_text(),
    );
    put(
        "names",
        "object",
        to_text(&name::seal(&keys(ObjectKind::Directory), b"a name")),
    );
    for own in [
        "cmkfs.volume",
        "cmkfs.dir",
        "cmkfs.tmp.x",
        "cmkfs.long.AAAA",
        "cmkfs.long.AAAA.name",
        "a.b",
    ] {
        put("names", own, own);
    }
    for name in [
        "user.a",
        "trusted.overlay.opaque",
        "security.capability",
        "system.posix_acl_access",
        "user.cmkfs.AAAA",
    ] {
        put("xattr", name, name);
    }
    let ciphertext = Ciphertext {
        header: CiphertextHeader::new(KEY, MaterialId([4; 32]), [1; 12]),
        bytes: b"a secret".to_vec(),
        tag: [2; 16],
    };
    put("ciphertext", "ciphertext", ciphertext.encode());
    for kind in 0..6_u8 {
        put(
            "sealed",
            &format!("flipped-{kind}"),
            [&[kind + 60][..], b"0123456789ab", &[0, 20, 0, 1, 0, 0]].concat(),
        );
        put(
            "sealed",
            &format!("whole-{kind}"),
            [&[kind + 60][..], b"0123456789ab"].concat(),
        );
    }
}

fn line(name: &str, message: &impl Serialize) {
    let mut text = serde_json::to_vec(message).expect("JSON");
    text.push(b'\n');
    put("control", name, text);
}

fn messages() {
    line("prepare", &Request::Prepare { key_id: KEY });
    line("obey", &Request::Obey { key_id: KEY });
    line(
        "bind",
        &Request::Bind {
            node: 7,
            key: "alias/a".to_owned(),
        },
    );
    line("status", &Request::Status);
    line("stats", &Request::Stats);
    line(
        "rewrap",
        &Request::Rewrap {
            directory: 1,
            to: Some("alias/a".to_owned()),
        },
    );
    line("rekey", &Request::Rekey { directory: 1 });
    let mountpoint = "/mnt/\u{fffd}".to_owned();
    line(
        "progress",
        &Response::Progress(Progress {
            done: 1,
            total: 2,
            what: "files".to_owned(),
        }),
    );
    line(
        "prepared",
        &Response::Prepared(Prepared {
            mountpoint: mountpoint.clone(),
            is_complete: true,
        }),
    );
    let obeyed = Obeyed {
        mountpoint: mountpoint.clone(),
        volume_id: VOLUME,
        key_id: KEY,
        lease: LeaseState::Disabled,
        data_keys_dropped: 1,
        inodes_invalidated: 2,
        names_invalidated: 3,
        is_flushed: true,
        milliseconds: 4,
    };
    line("obeyed", &Response::Obeyed(obeyed));
    line(
        "bound",
        &Response::Bound(Bound {
            mountpoint: mountpoint.clone(),
            binding: "alias/a".to_owned(),
        }),
    );
    let read = OperationStats {
        operation: "read".to_owned(),
        count: 3,
        errors: 1,
        total_nanoseconds: 7_000,
        p50_nanoseconds: 1_000,
        p99_nanoseconds: 5_000,
        max_nanoseconds: 5_000,
        bytes: 8_192,
    };
    line(
        "stats-answer",
        &Response::Stats(MountStats {
            mountpoint: mountpoint.clone(),
            operations: vec![read],
        }),
    );
    let status = Status {
        process_id: 1,
        mountpoint,
        ciphertext: "/srv/cipher".to_owned(),
        volume_id: VOLUME,
        read_only: false,
        keys: vec![KeyInUse {
            key_id: KEY,
            lease: LeaseState::Held,
            data_keys: 5,
        }],
        inodes: 1,
        open_files: 2,
        open_directories: 3,
        confinement: Confinement::default(),
        locked_key_bytes: 65536,
        unlocked_key_bytes: 0,
    };
    line("status-answer", &Response::Status(status));
    line(
        "failed",
        &Response::Failed(Failed {
            reason: Reason::NotEmpty,
            message: "no".to_owned(),
        }),
    );
}

fn texts() {
    put("policy", "default", Policy::default_for(1000).as_str());
    put(
        "policy",
        "conditions",
        r#"{"Version":"2012-10-17","Statement":[{"Sid":"a","Effect":"Allow","Principal":"*","Action":["kms:Decrypt","kms:Describe*"],"Resource":"*","Condition":{"StringEquals":{"kms:EncryptionContext:kind":["file","directory"]},"Bool":{"kms:BypassPolicyLockoutSafetyCheck":"true"},"DateLessThan":{"aws:CurrentTime":"2030-01-01T00:00:00Z"}}},{"Effect":"Deny","Principal":{"User":["1000","root"],"Group":7},"Action":"kms:*","Resource":"*"}]}"#,
    );
    let id = "ab".repeat(32);
    put(
        "grant",
        "grant",
        format!(
            r#"{{"GrantId":"{id}","Name":"n","CreationDate":1700000000000,"IssuingAccount":"user:0","GranteePrincipal":"user:1000","RetiringPrincipal":"group:7","Operations":["Encrypt","Decrypt"],"Constraints":{{"EncryptionContextSubset":{{"a":"b"}}}}}}"#
        ),
    );
    for (number, text) in [
        KEY.to_string().as_str(),
        "alias/a",
        "alias/cmkfs/default",
        "user:root",
        "group:7",
        "*",
        &id,
    ]
    .iter()
    .enumerate()
    {
        put("identifiers", &number.to_string(), text);
    }
    put(
        "mountinfo",
        "root",
        "22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw",
    );
    put(
        "mountinfo",
        "cmkfs",
        r"40 22 0:35 / /mnt/a\040b\134c rw,nosuid,nodev,relatime shared:20 master:1 - fuse.cmkfs /srv/cipher rw,user_id=1000,group_id=1000,allow_other",
    );
    for (number, text) in [
        "ro,nosuid,noatime",
        r"keys=/srv/a\,b\\c,log=/var/log/x",
        "fsname=a b,allow_other,init",
        "defaults,x-systemd.automount,_netdev",
    ]
    .iter()
    .enumerate()
    {
        put("mount_options", &number.to_string(), text);
    }
}

fn key_directory() {
    put("keystore_records", "key", format!("\0{}", key_record()));
    put(
        "keystore_records",
        "alias",
        format!("\x01{}", alias_record()),
    );
    let full = key_record().replace(
        r#""Tags":{}"#,
        r#""Tags":{"a":"b"},"Deletion":{"DeletionDate":1900000000000,"PendingWindowInDays":7},"Rotation":{"RotationPeriodInDays":90,"NextRotationDate":1750000000000}"#,
    );
    put("keystore_records", "key-scheduled", format!("\0{full}"));
    put(
        "keystore_records",
        "key-pending",
        format!("\0{}", full.replace("Enabled", "PendingDeletion")),
    );
    put(
        "keystore_records",
        "key-imported",
        format!(
            "\0{}",
            key_record()
                .replace(r#""CMKFS","Tags"#, r#""EXTERNAL","Tags"#)
                .replace(
                    r#""CreationDate":1700000000000}]"#,
                    r#""CreationDate":1700000000000,"ValidTo":1750000000000}]"#
                )
        ),
    );
    let link = vec!["0"; 32].join(",");
    let end = format!(r#"{{"Sequence":0,"Length":0,"Link":[{link}]}}"#);
    let steps = format!(
        r#"[{{"Move":{{"from":".staged/0","to":"keys/{KEY}/key"}}}},{{"Destroy":{{"place":"keys/{KEY}/x"}}}},{{"Remove":{{"place":"aliases/x"}}}},{{"RemoveKey":{{"key":"{KEY}"}}}}]"#
    );
    put(
        "journal",
        "steps",
        format!(r#"{{"Audit":{{"Start":{end},"End":{end},"Lines":""}},"Steps":{steps}}}"#),
    );
    put(
        "journal",
        "nothing",
        format!(r#"{{"Audit":{{"Start":{end},"End":{end},"Lines":""}},"Steps":[]}}"#),
    );
    let event = format!(
        r#"{{"eventTime":"2026-01-02T03:04:05Z","eventName":"DeleteKey","userIdentity":{{"uid":0,"userName":"root"}},"requestParameters":{{"keyId":"{KEY}"}},"additionalEventData":{{"deletedKeyIds":["{KEY}"],"keys":[]}},"resources":[{{"ARN":"arn:cmkfs:kms:local:x:key/{KEY}"}}]}}"#
    );
    for (kind, name) in ["whole", "bytes", "edited"].iter().enumerate() {
        put(
            "audit_log",
            name,
            [
                &[kind as u8][..],
                event.as_bytes(),
                b"\n",
                event.as_bytes(),
                b"\n",
            ]
            .concat(),
        );
    }
    let mut entries = Vec::new();
    let place = format!("keys/{KEY}/key");
    Entry {
        kind: 1,
        counter: 1,
        place: &place,
        payload: key_record().as_bytes(),
    }
    .append_to(&mut entries);
    put("backup", "records", &entries);
    let header = BackupHeader::new(BackupId([1; 16]), KeyStoreId([2; 16]), 3);
    put(
        "backup",
        "framed",
        [&header.encode()[..], b"abc", &[0; 16]].concat(),
    );
    let mut store = StoreFile::new(KeyStoreId([0x51; 16]), Protection::Passphrase);
    (store.memory_kib, store.passes, store.lanes) = (8, 1, 1);
    let record = RecordHeader::new(KeyStoreId([0x51; 16]), 1, 1, 3, [0; 12]);
    for which in 0..8_u8 {
        put(
            "keystore_files",
            &format!("store-{which}"),
            [&[which][..], &store.encode()].concat(),
        );
        put(
            "keystore_files",
            &format!("record-{which}"),
            [&[which][..], &record.encode(), b"abc", &[0; 16]].concat(),
        );
    }
}

/// Bytes that mean something to the targets that take sequences: they come from a generator that gives the same each time.
fn sequences() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = |length: usize| -> Vec<u8> {
        let next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        };
        std::iter::repeat_with(next).take(length).collect()
    };
    for number in 0..40 {
        put("operations", &number.to_string(), bytes(40 + number * 6));
        put(
            "hostile_volume",
            &number.to_string(),
            bytes(8 * (1 + number % 4)),
        );
    }
    put("hostile_volume", "nothing", []);
    for number in 0..24 {
        put("recovery", &number.to_string(), bytes(40 + number * 10));
    }
    for number in 0..8 {
        put("power_cut", &number.to_string(), bytes(300));
    }
}

/// Plaintext that is sealed by the target; and what may become key material.
fn plaintexts() {
    put("unsealed", "name", b"\0name");
    put("unsealed", "attribute", b"\x01\x06user.avalue");
    let state = |binding| SealedState {
        size: 0,
        epoch: 1,
        sparse: false,
        dirty: false,
        binding: Some(binding),
    };
    let states = [
        ("alias", state(KeyBinding::Alias("alias/a".to_owned()))),
        ("key", state(KeyBinding::Key(KEY))),
    ];
    for (name, state) in states {
        let bytes = state.encode().expect("a state");
        put(
            "unsealed",
            &format!("state-{name}"),
            [&[2][..], &bytes].concat(),
        );
    }
    put("material", "text", b"01234567890123456789012345678901");
    let bytes: Vec<u8> = (0..32).map(|at: u8| at.wrapping_mul(87) ^ 0x5a).collect();
    put("material", "bytes", bytes);
}

/// Messages of the device, with a header that says who asks; and listings.
fn kernel() {
    let message = |opcode: Opcode, body: &[&[u8]]| {
        let body = body.concat();
        let length = u32::try_from(Header::SIZE + body.len()).expect("it is short");
        let mut bytes = [length, opcode.0, 9, 0, 1, 0, 1000, 100, 4242, 0]
            .map(u32::to_ne_bytes)
            .concat();
        bytes.extend(body);
        put("fuse_request", &opcode.name().to_lowercase(), bytes);
    };
    let words = |numbers: &[u32]| -> Vec<u8> {
        numbers
            .iter()
            .flat_map(|number| number.to_ne_bytes())
            .collect()
    };
    for opcode in [Opcode::LOOKUP, Opcode::UNLINK, Opcode::REMOVEXATTR] {
        message(opcode, &[b"name\0"]);
    }
    for opcode in [Opcode::STATFS, Opcode::READLINK, Opcode::DESTROY] {
        message(opcode, &[]);
    }
    message(Opcode::SYMLINK, &[b"name\0target\0"]);
    message(Opcode::FORGET, &[&words(&[1, 0])]);
    message(
        Opcode::BATCH_FORGET,
        &[&words(&[2, 0, 5, 0, 1, 0, 6, 0, 2, 0])],
    );
    message(Opcode::GETATTR, &[&words(&[1, 0, 7, 0])]);
    message(Opcode::STATX, &[&words(&[1, 0, 7, 0, 0, 0xfff])]);
    let mut change = words(&[0xbff, 0]);
    change.extend(words(&[7; 20]));
    message(Opcode::SETATTR, &[&change]);
    message(
        Opcode::MKNOD,
        &[&words(&[0o020_600, 0x103, 0o22, 0]), b"name\0"],
    );
    message(Opcode::MKDIR, &[&words(&[0o755, 0o22]), b"name\0"]);
    message(Opcode::RENAME2, &[&words(&[1, 0, 1, 0]), b"old\0new\0"]);
    message(Opcode::LINK, &[&words(&[5, 0]), b"name\0"]);
    message(Opcode::OPEN, &[&words(&[2, 1])]);
    message(
        Opcode::CREATE,
        &[&words(&[0o102, 0o644, 0o22, 1]), b"name\0"],
    );
    message(Opcode::TMPFILE, &[&words(&[2, 0o600, 0o22, 0]), b"/\0"]);
    let access = words(&[7, 0, 0, 0, 4, 0, 0, 0, 0, 0]);
    for opcode in [Opcode::READ, Opcode::READDIR, Opcode::READDIRPLUS] {
        message(opcode, &[&access]);
    }
    message(Opcode::WRITE, &[&access, b"data"]);
    message(Opcode::RELEASE, &[&words(&[7, 0, 0, 0, 0, 0])]);
    message(Opcode::FSYNC, &[&words(&[7, 0, 1, 0])]);
    message(Opcode::SETXATTR, &[&words(&[5, 1, 1, 0]), b"user.a\0value"]);
    message(Opcode::GETXATTR, &[&words(&[64, 0]), b"user.a\0"]);
    message(Opcode::FALLOCATE, &[&words(&[7, 0, 0, 0, 4096, 0, 3, 0])]);
    message(Opcode::LSEEK, &[&words(&[7, 0, 0, 0, 3, 0])]);
    message(Opcode::INTERRUPT, &[&words(&[9, 0])]);
    let mut offer = words(&[7, 45, 131_072, 1 << 30 | 1, 1 << 9]);
    offer.resize(64, 0);
    message(Opcode::INIT, &[&offer]);
    message(Opcode::IOCTL, &[&[0; 32]]);

    put("fuse_listing", "nothing", []);
    put(
        "fuse_listing",
        "small",
        [64, 0, 1, b'a', 2, b'b', b'c', 0x81, b'd'],
    );
    let mut many = vec![0, 8];
    for length in 1..100_u8 {
        many.push(length | (length % 2) << 7);
        many.extend(vec![b'n'; length.into()]);
    }
    put("fuse_listing", "many", many);
}

fn main() {
    kernel();
    volume_structures();
    messages();
    texts();
    key_directory();
    sequences();
    plaintexts();
}
