//! What the tests that work on the core without FUSE share: a real key directory and a real volume in a temporary place.
#![allow(dead_code, reason = "each test binary uses its own part")]

pub mod direct;
pub mod history;
pub mod posix;
pub mod tree;
pub mod upkeep;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cmkfs::clock::SystemClock;
use cmkfs::crypto::passphrase::Passphrase;
use cmkfs::fs::backing::Backing;
use cmkfs::fs::{Caller, FileSystem, NewMode, NodeId, OpenFlags};
use cmkfs::ids::KeyId;
use cmkfs::kms::error::KmsError;
use cmkfs::kms::key::{CreateKeyRequest, KeyRef};
use cmkfs::kms::root::{NewProtection, PassphraseSource};
use cmkfs::kms::service::KeyService;
use cmkfs::volume::census::Census;
use cmkfs::volume::keys::ServicePort;
use cmkfs::volume::{self, Access, Volume};

/// Opened for writing.
pub const WRITE: OpenFlags = OpenFlags {
    write: true,
    truncate: false,
};
/// The mode of what is made.
pub const MODE: NewMode = NewMode {
    permissions: 0o644,
    umask: 0,
};

/// The user of this process.
pub fn caller() -> Caller {
    Caller {
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        pid: 0,
    }
}

/// Makes a file of so many bytes.
pub fn write(fs: &FileSystem, parent: NodeId, name: &str, bytes: usize) -> NodeId {
    let name = OsStr::new(name);
    let (found, opened) = fs.create(caller(), parent, name, MODE, WRITE).unwrap();
    if bytes > 0 {
        fs.write(opened.handle, 0, &vec![7; bytes]).unwrap();
    }
    fs.release(opened.handle);
    found.node
}

/// Makes a directory.
pub fn mkdir(fs: &FileSystem, parent: NodeId, name: &str) -> NodeId {
    let made = fs.make_directory(caller(), parent, OsStr::new(name), MODE);
    made.unwrap().node
}

/// The alias every test volume is bound to.
pub const DEFAULT_ALIAS: &str = "alias/cmkfs/default";

struct NoPassphrase;

impl PassphraseSource for NoPassphrase {
    fn existing(&self, _: &Path) -> Result<Passphrase, KmsError> {
        unreachable!("a test store has a root key file")
    }

    fn chosen(&self, _: &Path) -> Result<Passphrase, KmsError> {
        unreachable!("a test store has a root key file")
    }
}

/// Opens the key directory at `dir`; makes it where there is none.
pub fn key_service(dir: &Path) -> Arc<KeyService> {
    let clock = Arc::new(SystemClock);
    let (service, _) =
        KeyService::open_or_create(dir, NewProtection::RootKeyFile, &NoPassphrase, clock).unwrap();
    Arc::new(service)
}

/// A volume and its key directory, gone when dropped.
pub struct TestVolume {
    pub dir: tempfile::TempDir,
    pub keys: Arc<KeyService>,
}

impl TestVolume {
    pub fn new() -> Self {
        Self::within(tempfile::tempdir().unwrap())
    }

    /// One that lies in memory: for thousands of beginnings, none of which is to wait for a disk.
    pub fn in_memory() -> Self {
        Self::within(tempfile::tempdir_in("/dev/shm").unwrap())
    }

    fn within(dir: tempfile::TempDir) -> Self {
        let keys = key_service(&dir.path().join("keys"));
        Self::with_keys(dir, keys)
    }

    /// A volume in `dir` whose key directory may lie elsewhere.
    pub fn with_keys(dir: tempfile::TempDir, keys: Arc<KeyService>) -> Self {
        let volume = Self { dir, keys };
        let key = DEFAULT_ALIAS.parse().unwrap();
        volume::create(&volume.cipher(), &volume.keys, &key).unwrap();
        volume
    }

    pub fn cipher(&self) -> PathBuf {
        self.dir.path().join("cipher")
    }

    pub fn open(&self) -> Volume {
        self.open_with(Backing::default())
    }

    /// Opens it with these backing calls.
    pub fn open_with(&self, backing: Backing) -> Volume {
        let port = Arc::new(ServicePort::new(Arc::clone(&self.keys)));
        let access = Access::ReadWrite;
        volume::open_observed(&self.cipher(), &self.keys, port, access, backing).unwrap()
    }

    /// Makes a key that `alias` stands for from now on.
    pub fn new_key(&self, alias: &str) -> KeyId {
        let key = self.keys.create_key(CreateKeyRequest::default());
        let key = key.unwrap().key_id;
        let alias = alias.parse().unwrap();
        if self.keys.update_alias(&alias, &KeyRef::Id(key)).is_err() {
            self.keys.create_alias(&alias, &KeyRef::Id(key)).unwrap();
        }
        key
    }

    /// What each key guards.
    pub fn census(&self) -> Census {
        Census::take(&self.cipher(), &mut |_| {}).unwrap()
    }

    /// The only regular backing file that is not cmkfs's own.
    pub fn only_backing_file(&self) -> PathBuf {
        let entries = std::fs::read_dir(self.cipher())
            .unwrap()
            .map(|entry| entry.unwrap());
        let objects = entries.filter(|entry| !entry.file_name().to_string_lossy().contains('.'));
        let mut objects = objects.map(|entry| entry.path());
        let only = objects.next().expect("one object");
        assert_eq!(objects.next(), None, "no second object");
        only
    }
}
