//! A volume for the filesystem that is compiled here: its directory in memory, and keys that are always there.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::crypto::envelope::{DataKey, WrappingKey};
use crate::format::envelope::{EncryptionContext, Envelope};
use crate::format::header::KeyBinding;
use crate::fs::backing::Backing;
use crate::fs::keys::{KeyPort, KeyUnavailable};
use crate::fs::settings::{Overwrites, Settings};
use crate::fs::{Caller, FileSystem, FsResult, HandleId, NewMode, NodeId, OpenFlags, ROOT_NODE};
use crate::ids::{KeyId, MaterialId, VolumeId};

pub const KEY: KeyId = KeyId([1; 16]);
const VOLUME: VolumeId = VolumeId([2; 16]);
pub const WRITE: OpenFlags = OpenFlags {
    write: true,
    truncate: false,
};

/// Keys of one CMK, without a key directory.
struct Port(WrappingKey);

impl KeyPort for Port {
    fn generate_data_key(
        &self,
        _: &KeyBinding,
        context: &EncryptionContext,
    ) -> Result<(DataKey, Envelope), KeyUnavailable> {
        let key = DataKey::random().map_err(|_| KeyUnavailable::Store)?;
        let envelope = self.0.wrap(&key, context);
        Ok((key, envelope))
    }

    fn unwrap_data_key(
        &self,
        envelope: &Envelope,
        context: &EncryptionContext,
    ) -> Result<DataKey, KeyUnavailable> {
        let opened = self.0.unwrap(envelope, context);
        opened.map_err(|_| KeyUnavailable::Rejected)
    }

    fn rewrap_data_key(
        &self,
        _: &KeyBinding,
        _: &Envelope,
        _: &EncryptionContext,
    ) -> Result<Option<Envelope>, KeyUnavailable> {
        Ok(None)
    }

    fn check(&self, _: &KeyId) -> Result<(), KeyUnavailable> {
        Ok(())
    }
}

/// A volume that goes with the value.
pub struct TestVolume(tempfile::TempDir);

impl TestVolume {
    pub fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let dir = if memory.is_dir() {
            tempfile::tempdir_in(memory)
        } else {
            tempfile::tempdir()
        };
        let volume = Self(dir.expect("a directory"));
        let binding = KeyBinding::Key(KEY);
        FileSystem::make_root(&volume.root(), VOLUME, port(), &binding).expect("a volume");
        volume
    }

    fn root(&self) -> OwnedFd {
        std::fs::File::open(self.path())
            .expect("it was made")
            .into()
    }

    fn path(&self) -> PathBuf {
        self.0.path().to_owned()
    }

    pub fn open(&self) -> FileSystem {
        let settings = Settings {
            read_only: false,
            volatile: false,
            spare_descriptors: 64,
            overwrites: Overwrites::Journaled,
        };
        let backing = Backing::default();
        FileSystem::attach(self.root(), VOLUME, port(), backing, settings).expect("a volume")
    }
}

fn port() -> Arc<dyn KeyPort> {
    let material = DataKey::take(&mut [3; 32]);
    Arc::new(Port(WrappingKey::new(KEY, MaterialId([4; 32]), &material)))
}

pub fn caller() -> Caller {
    Caller {
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        pid: 0,
    }
}

/// Makes a file, and leaves it open.
pub fn create(fs: &FileSystem, name: &str) -> (NodeId, HandleId) {
    let mode = NewMode {
        permissions: 0o644,
        umask: 0,
    };
    let made = fs.create(caller(), ROOT_NODE, OsStr::new(name), mode, WRITE);
    let (found, opened) = made.expect("a new file");
    (found.node, opened.handle)
}

/// Opens a file, reads it whole, and closes it.
pub fn content(fs: &FileSystem, node: NodeId) -> FsResult<Vec<u8>> {
    let handle = fs.open(caller(), node, OpenFlags::default())?.handle;
    let mut content = vec![0; 20_000];
    let length = fs.read(handle, 0, &mut content);
    fs.release(handle);
    content.truncate(length?);
    Ok(content)
}
