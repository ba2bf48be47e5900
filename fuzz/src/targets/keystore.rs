//! The key directory. It is laid out by hand here, as docs/KEYSTORE.md says, with hostile content under valid seals: so
//! what lies behind the seals is reached.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use cmkfs::clock::{ManualClock, Timestamp};
use cmkfs::crypto::aead::AeadKey;
use cmkfs::crypto::chain::ChainKey;
use cmkfs::crypto::kdf::{Kdf, Purpose, alias_digest, material_id};
use cmkfs::crypto::passphrase::{Argon2Params, Passphrase};
use cmkfs::format::backup::{AAD_LEN, BackupHeader, Entry};
use cmkfs::format::keystore::{Protection, RECORD_NONCE, RecordHeader, StoreFile};
use cmkfs::ids::{BackupId, KeyId, KeyStoreId};
use cmkfs::kms::audit::query::Filter;
use cmkfs::kms::backup::Backup;
use cmkfs::kms::error::KmsError;
use cmkfs::kms::key::KeyRef;
use cmkfs::kms::root::PassphraseSource;
use cmkfs::kms::rotation::IncludeKeyMaterial;
use cmkfs::kms::service::KeyService;
use cmkfs::secret::Secret;

const STORE: KeyStoreId = KeyStoreId([0x51; 16]);
/// The key of the directory. Its id is the same in every run, so that inputs mean the same in every run.
pub const KEY: KeyId = KeyId([0x4b; 16]);
const MATERIAL: [u8; 32] = [9; 32];
const ALIAS: &str = "alias/cmkfs/default";
const NOW: Timestamp = Timestamp(1_800_000_000_000);

struct NoPassphrase;

impl PassphraseSource for NoPassphrase {
    fn existing(&self, dir: &Path) -> Result<Passphrase, KmsError> {
        Err(KmsError::WrongPassphrase {
            dir: dir.to_owned(),
        })
    }

    fn chosen(&self, dir: &Path) -> Result<Passphrase, KmsError> {
        self.existing(dir)
    }
}

/// The files of a key directory, by their places in it.
type Files = BTreeMap<String, Vec<u8>>;

fn root_key() -> Secret<32> {
    Secret::take(&mut [7; 32])
}

fn sealed(kind: u8, place: &str, counter: u64, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("inputs are small");
    let header = RecordHeader::new(STORE, kind, counter, length, [3; 12]);
    let mut bytes = header.encode().to_vec();
    let aad = [&bytes[..RECORD_NONCE], place.as_bytes()].concat();
    let mut ciphertext = payload.to_vec();
    let key = AeadKey::new(&Kdf::new(&root_key()).derive(Purpose::Record));
    let tag = key.seal(&header.nonce, &aad, &mut ciphertext);
    bytes.extend(ciphertext);
    bytes.extend(tag);
    bytes
}

fn key_place() -> String {
    format!("keys/{KEY}/key")
}

fn alias_place() -> String {
    let digits = alias_digest(ALIAS).map(|byte| format!("{byte:02x}"));
    format!("aliases/{}", digits.concat())
}

/// The record of the key, as a real one says it.
pub fn key_record() -> String {
    let id = material_id(&KEY, &Secret::take(&mut MATERIAL.clone()));
    let material = format!(r#"{{"KeyMaterialId":"{id}","CreationDate":1700000000000}}"#);
    format!(
        r#"{{"KeyId":"{KEY}","CreationDate":1700000000000,"KeyState":"Enabled","Description":"","KeyManager":"CUSTOMER","Origin":"CMKFS","Tags":{{}},"CurrentKeyMaterialId":"{id}","Materials":[{material}]}}"#
    )
}

/// The record of its alias.
pub fn alias_record() -> String {
    format!(
        r#"{{"AliasName":"{ALIAS}","TargetKeyId":"{KEY}","CreationDate":1700000000000,"LastUpdatedDate":1700000000000}}"#
    )
}

/// An audit log of these lines, each chained to the one before, and its head.
fn audit(lines: &[&str]) -> (Vec<u8>, Vec<u8>) {
    let chain = ChainKey::new(&Kdf::new(&root_key()).derive(Purpose::Audit));
    let mut link = chain.link(&[], STORE.as_bytes());
    let mut log = Vec::new();
    for (number, text) in (1..).zip(lines) {
        let covered = format!(
            "{},\"sequenceNumber\":{number}",
            text.strip_suffix('}').unwrap_or(text)
        );
        link = chain.link(&link, covered.as_bytes());
        let digits: String = link.iter().map(|byte| format!("{byte:02x}")).collect();
        log.extend(format!("{covered},\"chainValue\":\"{digits}\"}}\n").bytes());
    }
    let (sequence, length) = (lines.len() as u64, log.len() as u64);
    let payload = [&sequence.to_le_bytes()[..], &length.to_le_bytes(), &link].concat();
    let mut head = vec![0; 8192];
    for slot in 0..2 {
        let record = sealed(4, &format!("audit/head/{slot}"), slot, &payload);
        let at = slot as usize * 4096;
        head[at..at + record.len()].copy_from_slice(&record);
    }
    (log, head)
}

fn store_file() -> Vec<u8> {
    let mut file = StoreFile::new(STORE, Protection::RootKeyFile);
    file.nonce = [5; 12];
    let sealing = Kdf::new(&Secret::take(&mut [8; 32])).derive(Purpose::Root);
    let mut root = *root_key().expose();
    file.tag = AeadKey::new(&sealing).seal(&file.nonce, &file.aad(), &mut root);
    file.root_key = root;
    file.encode().to_vec()
}

fn material_place() -> String {
    let id = material_id(&KEY, &Secret::take(&mut MATERIAL.clone()));
    format!("keys/{KEY}/{id}")
}

/// A key directory in which nothing is wrong.
fn healthy() -> Files {
    let material = material_place();
    let (log, head) = audit(&[]);
    let files = [
        ("store".to_owned(), store_file()),
        ("root.key".to_owned(), vec![8; 32]),
        (
            key_place(),
            sealed(1, &key_place(), 1, key_record().as_bytes()),
        ),
        (material.clone(), sealed(2, &material, 1, &MATERIAL)),
        (
            alias_place(),
            sealed(3, &alias_place(), 1, alias_record().as_bytes()),
        ),
        ("audit/log".to_owned(), log),
        ("audit/head".to_owned(), head),
        ("lock".to_owned(), Vec::new()),
    ];
    files.into()
}

/// A key directory of these files, with something beside it that nobody may touch.
struct Laid(tempfile::TempDir);

impl Laid {
    fn out(files: &Files) -> Self {
        let outer = tempfile::tempdir().expect("a directory");
        let laid = Self(outer);
        fs::write(laid.0.path().join("beside"), b"beside").expect("a file");
        let mut private = DirBuilder::new();
        private.recursive(true).mode(0o700);
        for (place, bytes) in files {
            let path = laid.dir().join(place);
            private
                .create(path.parent().expect("below"))
                .expect("a directory");
            let mut options = OpenOptions::new();
            let file = options.write(true).create(true).mode(0o600).open(path);
            file.and_then(|mut file| file.write_all(bytes))
                .expect("a file");
        }
        laid
    }

    fn dir(&self) -> std::path::PathBuf {
        self.0.path().join("store")
    }

    fn open(&self) -> Result<KeyService, KmsError> {
        let clock = Arc::new(ManualClock::new(NOW));
        KeyService::open(&self.dir(), &NoPassphrase, clock)
    }

    fn has_left_the_rest_alone(&self) {
        let beside = fs::read(self.0.path().join("beside"));
        assert_eq!(beside.expect("it is there"), b"beside");
        let count = fs::read_dir(self.0.path()).expect("a directory").count();
        assert_eq!(count, 2, "nothing was put beside the key directory");
    }
}

/// Everything that reads records; and a change, which writes them.
fn exercise(service: &KeyService) {
    let key = KeyRef::Id(KEY);
    let described = service.describe_key(&key);
    if let Ok(metadata) = &described {
        assert_eq!(metadata.key_id, KEY, "a record opens in its own place");
    }
    let _ = (
        service.list_keys(),
        service.list_aliases(None),
        service.verify(),
    );
    let _ = (service.get_key_policy(&key), service.list_grants(&key));
    let _ = (
        service.get_key_rotation_status(&key),
        service.list_key_rotations(&key, IncludeKeyMaterial::AllKeyMaterial),
    );
    let _ = service.key_status(KEY);
    if let Ok(alias) = ALIAS.parse() {
        let _ = service.describe_key(&KeyRef::Alias(alias));
    }
    let describe = || {
        service.disable_key(&key).ok()?;
        Some(format!("{:?}", service.describe_key(&key)))
    };
    // The first change may do what is due as well.
    if let (Some(once), Some(again)) = (describe(), describe()) {
        assert_eq!(once, again, "what is written is what is read");
    }
}

/// Records that say anything, under a valid seal.
pub fn records(input: &[u8]) {
    let Some((kind, payload)) = input.split_first() else {
        return;
    };
    let mut files = healthy();
    let (kind, place) = match kind % 4 {
        0 => (1, key_place()),
        1 => (3, alias_place()),
        2 => (2, material_place()),
        _ => (4, "audit/head/1".to_owned()),
    };
    let record = sealed(kind, &place, 1, payload);
    match files.get_mut("audit/head").filter(|_| kind == 4) {
        // The newer of two, in its sector.
        Some(head) if record.len() <= 4096 => {
            head[4096..4096 + record.len()].copy_from_slice(&record)
        }
        Some(_) => return,
        None => _ = files.insert(place, record),
    }
    let laid = Laid::out(&files);
    if let Ok(service) = laid.open() {
        exercise(&service);
    }
    laid.has_left_the_rest_alone();
}

/// A journal that says anything, under a valid seal: it is finished, or nothing is changed; and nothing outside is touched.
pub fn journal(input: &[u8]) {
    let mut files = healthy();
    files.insert("journal".to_owned(), sealed(5, "journal", 1, input));
    files.insert(
        ".staged/0".to_owned(),
        sealed(1, &key_place(), 2, key_record().as_bytes()),
    );
    let laid = Laid::out(&files);
    if let Ok(service) = laid.open() {
        // One that cannot be finished stays, and stops every change.
        let is_finished = !laid.dir().join("journal").exists();
        let changed = service.disable_key(&KeyRef::Id(KEY));
        assert!(
            is_finished || changed.is_err(),
            "a journal is finished first"
        );
        exercise(&service);
    }
    laid.has_left_the_rest_alone();
}

/// The audit log: whole lines that say anything, or any bytes at all, behind the head of an empty or a short log.
pub fn audit_log(input: &[u8]) {
    let Some((kind, text)) = input.split_first() else {
        return;
    };
    let mut files = healthy();
    let text = String::from_utf8_lossy(text);
    let lines: Vec<&str> = text.split('\n').filter(|line| !line.is_empty()).collect();
    let (log, head) = audit(&lines);
    let original = log.clone();
    match kind % 3 {
        0 => {
            files.insert("audit/log".to_owned(), log);
            files.insert("audit/head".to_owned(), head);
        }
        1 => _ = files.insert("audit/log".to_owned(), text.as_bytes().to_vec()),
        _ => {
            // One byte of a whole log is another.
            let mut log = log;
            if let Some(at) = usize::from(*kind).checked_rem(log.len()) {
                log[at] ^= 1;
            }
            files.extend([
                ("audit/log".to_owned(), log),
                ("audit/head".to_owned(), head),
            ]);
        }
    }
    let laid = Laid::out(&files);
    if let Ok(service) = laid.open() {
        let is_original = fs::read(laid.dir().join("audit/log")).expect("it is there") == original;
        let verified = service.verify_audit();
        if kind % 3 == 0 {
            let events = lines.len() as u64;
            assert!(!is_original || verified.damage.is_some() || verified.events == events);
        } else if kind % 3 == 2 && !lines.is_empty() {
            assert!(
                is_original || verified.damage.is_some(),
                "an edited line shows"
            );
        }
        let filter = Filter {
            key: Some(KeyRef::Id(KEY)),
            ..Filter::default()
        };
        let read = service.audit_events(&Filter::default(), |event| {
            let _ = (
                event.key(),
                event.user(),
                event.time(),
                event.text_of("eventName"),
            );
            let _ = event.field("resources/0/ARN");
            Ok::<(), ()>(())
        });
        assert!(read.is_ok());
        let _ = service.audit_events(&filter, |_| Ok::<(), ()>(()));
        let _ = service.deleted_keys();
        let _ = service.known_backups_of(material_id(&KEY, &Secret::take(&mut MATERIAL.clone())));
    }
    laid.has_left_the_rest_alone();
}

/// Files of a key directory that hold any bytes, no seal over them.
pub fn files(input: &[u8]) {
    let Some((which, bytes)) = input.split_first() else {
        return;
    };
    if let Ok(file) = StoreFile::decode(bytes) {
        assert_eq!(file.encode()[..], *bytes);
    }
    if let Ok((header, payload, tag)) = RecordHeader::split(bytes) {
        assert_eq!([&header.encode()[..], payload, &tag].concat(), bytes);
    }
    let mut files = healthy();
    let place = files.keys().nth(usize::from(*which) % files.len()).cloned();
    let place = place.expect("there are files");
    let is_changed = files
        .insert(place.clone(), bytes.to_vec())
        .is_none_or(|old| old != bytes);
    let laid = Laid::out(&files);
    match laid.open() {
        Ok(service) => exercise(&service),
        Err(_) => assert!(is_changed, "what is healthy opens"),
    }
    laid.has_left_the_rest_alone();
}

/// Backups: any bytes, and any records under a valid seal.
pub fn backup(input: &[u8]) {
    if let Ok((header, payload, tag)) = BackupHeader::split(input) {
        assert_eq!([&header.encode()[..], payload, &tag].concat(), input);
    }
    let mut rest = input;
    let mut written = Vec::new();
    while let Ok(entry) = Entry::take_from(&mut rest) {
        entry.append_to(&mut written);
        assert_eq!(written, input[..input.len() - rest.len()]);
    }
    let place = tempfile::NamedTempFile::new().expect("a file");
    let refuse = || NoPassphrase.existing(Path::new(""));
    fs::write(place.path(), input).expect("a file");
    assert!(Backup::read(place.path(), refuse).is_err());
    if written == input {
        sealed_backup(input, place.path());
    }
}

fn sealed_backup(records: &[u8], path: &Path) {
    let passphrase = || Passphrase::new(b"passphrase".to_vec().into());
    let params = Argon2Params::CHEAP_AND_INSECURE;
    let mut header = BackupHeader::new(BackupId([1; 16]), STORE, records.len() as u64);
    header.memory_kib = params.memory_kib();
    header.passes = params.passes();
    header.lanes = params.lanes();
    let Ok(stretched) = params.stretch(&passphrase(), &header.salt) else {
        return;
    };
    let key = AeadKey::new(&Kdf::new(&stretched).derive(Purpose::Backup));
    let mut payload = records.to_vec();
    let tag = key.seal(&header.nonce, &header.encode()[..AAD_LEN], &mut payload);
    fs::write(path, [&header.encode()[..], &payload, &tag].concat()).expect("a file");
    let Ok(backup) = Backup::read(path, || Ok(passphrase())) else {
        return;
    };
    let laid = Laid::out(&healthy());
    if let Ok(service) = laid.open() {
        let _ = service.restore(&backup, true);
        exercise(&service);
    }
    laid.has_left_the_rest_alone();
}
