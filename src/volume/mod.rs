//! Stub; replaced by the implementation.
#![allow(missing_docs, unused_variables, clippy::todo)]
use std::path::Path;
use std::sync::Arc;
use crate::fs::FileSystem;
use crate::ids::{VolumeId, KeyStoreId};
use crate::fs::keys::KeyPort;

#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    #[error("{path} is not empty")] NotEmpty { path: std::path::PathBuf },
    #[error("{path} holds no cmkfs volume")] NotAVolume { path: std::path::PathBuf },
    #[error("the volume in {path} is in use by process {pid:?}")] InUse { path: std::path::PathBuf, pid: Option<u32> },
    #[error("{path}: {source}")] Io { path: std::path::PathBuf, source: std::io::Error },
}
/// How a volume is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access { ReadWrite, ReadOnly }

/// Final form: `create(dir, &KeyService, &KeyRef)`, `open(dir, Arc<KeyService>, access)`; the lock is taken inside open (flock on cmkfs.volume) and held until the FileSystem is dropped.
pub fn create(directory: &Path) -> Result<VolumeId, VolumeError> { todo!() }
pub fn open(directory: &Path, keys: Arc<dyn KeyPort>, access: Access) -> Result<FileSystem, VolumeError> { todo!() }
pub fn exists(directory: &Path) -> Result<bool, VolumeError> { todo!() }
