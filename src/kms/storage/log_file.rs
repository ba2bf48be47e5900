//! A file that grows at its end, and two places of fixed size that are written over: what an audit log is made of.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use super::fault;
use crate::kms::error::KmsError;

/// An open file that is written in the middle or at its end.
pub(in crate::kms) struct LogFile {
    path: PathBuf,
    file: File,
}

impl LogFile {
    /// Opens a file that must be there.
    pub(in crate::kms) fn open(path: &Path) -> Result<Self, KmsError> {
        Self::open_for(path, true)
    }

    /// Opens a file that must be there, to read it only.
    pub(in crate::kms) fn open_to_read(path: &Path) -> Result<Self, KmsError> {
        Self::open_for(path, false)
    }

    fn open_for(path: &Path, write: bool) -> Result<Self, KmsError> {
        let opened = OpenOptions::new()
            .read(true)
            .write(write)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(path);
        match opened {
            Ok(file) => {
                let is_file = file.metadata().map_err(KmsError::io("look at", path))?;
                if !is_file.is_file() {
                    return Err(KmsError::damaged(path, "it is not a regular file"));
                }
                Ok(Self {
                    path: path.to_owned(),
                    file,
                })
            }
            Err(error) if super::missing(&error) => Err(KmsError::damaged(path, "it is missing")),
            Err(error) => Err(KmsError::io("open", path)(error)),
        }
    }

    /// That it is not what cmkfs wrote.
    pub(in crate::kms) fn damaged(&self, why: &str) -> KmsError {
        KmsError::damaged(&self.path, why)
    }

    /// The file itself, to be read from its beginning.
    pub(in crate::kms) fn into_file(self) -> File {
        self.file
    }

    /// Its length in bytes.
    pub(in crate::kms) fn len(&self) -> Result<u64, KmsError> {
        let meta = self.file.metadata();
        Ok(meta.map_err(KmsError::io("look at", &self.path))?.len())
    }

    /// Fills `buffer` with what stands at `offset`.
    pub(in crate::kms) fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), KmsError> {
        self.file
            .read_exact_at(buffer, offset)
            .map_err(KmsError::io("read", &self.path))
    }

    /// Takes room for `length` bytes from `offset` on, so that writing them cannot fail for lack of space.
    /// The file's length stays.
    pub(in crate::kms) fn reserve(&self, offset: u64, length: u64) -> Result<(), KmsError> {
        let taken =
            fault::before().map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO));
        let taken = taken
            .and_then(|()| fallocate(&self.file, FallocateFlags::KEEP_SIZE, offset, length.max(1)));
        match taken {
            // Not every filesystem can; there the write itself says so.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            Err(errno) => Err(KmsError::io("make room in", &self.path)(errno.into())),
        }
    }

    /// Writes at `offset`; may be cut short by a crash.
    pub(in crate::kms) fn append_at(&self, bytes: &[u8], offset: u64) -> Result<(), KmsError> {
        fault::cut(bytes)
            .and_then(|bytes| self.file.write_all_at(bytes, offset))
            .map_err(KmsError::io("write", &self.path))
    }

    /// Writes what lies within one sector: there whole or not at all.
    pub(in crate::kms) fn write_sector(&self, bytes: &[u8], offset: u64) -> Result<(), KmsError> {
        fault::before()
            .and_then(|()| self.file.write_all_at(bytes, offset))
            .map_err(KmsError::io("write", &self.path))
    }

    /// Cuts it to `length` bytes.
    pub(in crate::kms) fn truncate(&self, length: u64) -> Result<(), KmsError> {
        fault::before()
            .and_then(|()| self.file.set_len(length))
            .map_err(KmsError::io("cut", &self.path))
    }

    /// Makes its content durable.
    pub(in crate::kms) fn sync(&self) -> Result<(), KmsError> {
        fault::before()
            .and_then(|()| self.file.sync_data())
            .map_err(KmsError::io("sync", &self.path))
    }
}
