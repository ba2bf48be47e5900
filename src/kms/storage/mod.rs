//! Files of the key directory: reading with a stamp, atomic replacement, permissions. Knows nothing of keys.
//!
//! `lock` the right to change them · `log_file` a file that grows at its end · `owner` whose new files are ·
//! `fault` failures, for tests.
//!
//! Everything that writes here runs under [`Lock`], so one fixed name for what is not finished yet is enough, and
//! whatever bears that name is a leftover of a process that died.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use zeroize::Zeroizing;

use super::error::KmsError;

#[cfg(test)]
pub(super) mod fault;
mod lock;
mod log_file;
mod owner;

pub(super) use lock::{LOCK, Lock};
pub(super) use log_file::LogFile;

/// The name of what is being written; names with a leading dot are never records.
pub(super) const UNFINISHED: &str = ".new";
/// No file of a key directory comes near this; a larger one is not read into memory.
const MAX_FILE: u64 = 1 << 20;
/// Two changes closer together than this can bear the same times. Coarser than any kernel tick.
const TICK_NS: i128 = 50_000_000;

/// What changes when a file changes: device, inode, size, mtime, ctime.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    dev: u64,
    ino: u64,
    size: u64,
    mtime: (i64, i64),
    ctime: (i64, i64),
}

impl Stamp {
    fn of(meta: &fs::Metadata) -> Self {
        Self {
            dev: meta.dev(),
            ino: meta.ino(),
            size: meta.size(),
            mtime: (meta.mtime(), meta.mtime_nsec()),
            ctime: (meta.ctime(), meta.ctime_nsec()),
        }
    }

    /// Whether any later change must give another stamp: the last one is more than a tick before `since`.
    /// This is the filesystem's time, so it is compared with the machine's clock and not with an injected one.
    fn settled(&self, since: SystemTime) -> bool {
        let since = since
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_nanos().cast_signed());
        let changed = i128::from(self.ctime.0) * 1_000_000_000 + i128::from(self.ctime.1);
        changed + TICK_NS < since
    }
}

/// A file as it was read.
pub(super) struct Snapshot {
    pub bytes: Zeroizing<Vec<u8>>,
    pub stamp: Stamp,
    /// Whether the same stamp later on proves that nothing has changed.
    pub settled: bool,
}

/// The stamp of a file or directory that may be missing.
pub(super) fn stat(path: &Path) -> Result<Option<Stamp>, KmsError> {
    match fs::metadata(path) {
        Ok(meta) => Ok(Some(Stamp::of(&meta))),
        Err(error) if missing(&error) => Ok(None),
        Err(error) => Err(KmsError::io("look at", path)(error)),
    }
}

/// Reads a file that may be missing.
pub(super) fn read(path: &Path) -> Result<Option<Snapshot>, KmsError> {
    read_up_to(path, MAX_FILE)
}

/// Reads a file of at most `limit` bytes that may be missing.
pub(super) fn read_up_to(path: &Path, limit: u64) -> Result<Option<Snapshot>, KmsError> {
    let since = SystemTime::now();
    let io = || KmsError::io("read", path);
    // Without waiting: a pipe in the place of a record would let everybody wait for its writer.
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path);
    let mut file = match opened {
        Ok(file) => file,
        Err(error) if missing(&error) => return Ok(None),
        Err(error) => return Err(io()(error)),
    };
    let meta = file.metadata().map_err(io())?;
    if !meta.is_file() {
        return Err(KmsError::damaged(path, "it is not a regular file"));
    }
    if meta.size() > limit {
        return Err(KmsError::damaged(path, "it is too large to be a record"));
    }
    let stamp = Stamp::of(&meta);
    // Room for all of it at once, so that growing leaves no copy of a secret behind; a file that grows meanwhile is cut.
    let mut bytes = Zeroizing::new(Vec::with_capacity(meta.size() as usize + 32));
    (&mut file)
        .take(meta.size())
        .read_to_end(&mut bytes)
        .map_err(io())?;
    Ok(Some(Snapshot {
        bytes,
        stamp,
        settled: stamp.settled(since),
    }))
}

fn missing(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// The names in a directory, in order, but for those with a leading dot. A missing directory is an empty one.
pub(super) fn names(dir: &Path) -> Result<Vec<String>, KmsError> {
    let io = || KmsError::io("list", dir);
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if missing(&error) => return Ok(Vec::new()),
        Err(error) => return Err(io()(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(io())?.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with('.') {
            names.push(name.into_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// What tests let fail; nothing else does.
#[cfg(not(test))]
mod fault {
    pub(super) fn before() -> std::io::Result<()> {
        Ok(())
    }

    pub(super) fn cut(bytes: &[u8]) -> std::io::Result<&[u8]> {
        Ok(bytes)
    }
}

/// All names in a directory, those with a leading dot among them. A missing directory is an empty one.
pub(super) fn all_names(dir: &Path) -> Result<Vec<std::ffi::OsString>, KmsError> {
    let names = match fs::read_dir(dir) {
        Ok(entries) => entries.map(|entry| Ok(entry?.file_name())).collect(),
        Err(error) if missing(&error) => Ok(Vec::new()),
        Err(error) => Err(error),
    };
    names.map_err(KmsError::io("list", dir))
}

/// Writes `dir/name` for its owner only: old or new after a crash, and durable on return.
pub(super) fn replace(dir: &Path, name: &str, bytes: &[u8]) -> Result<(), KmsError> {
    let unfinished = dir.join(UNFINISHED);
    discard(&unfinished)?;
    create(&unfinished, bytes)?;
    rename(&unfinished, &dir.join(name))?;
    sync(dir)
}

/// Moves a file or directory, in the place of what is there.
pub(super) fn rename(from: &Path, to: &Path) -> Result<(), KmsError> {
    fault::before()
        .and_then(|()| fs::rename(from, to))
        .map_err(KmsError::io("replace", to))
}

/// Moves a file to a name that must be free.
pub(super) fn rename_to_free(from: &Path, to: &Path) -> Result<(), KmsError> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    use rustix::io::Errno;
    let moved = renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE);
    match moved {
        // Filesystems over a network cannot do that, but know hard links.
        Err(Errno::INVAL | Errno::NOSYS) => fs::hard_link(from, to)
            .and_then(|()| fs::remove_file(from))
            .map_err(KmsError::io("create", to)),
        moved => moved.map_err(|errno| KmsError::io("create", to)(errno.into())),
    }
}

/// Writes a new file for the owner of its directory only, and syncs it.
pub(super) fn create(path: &Path, bytes: &[u8]) -> Result<(), KmsError> {
    let mut file = fault::before()
        .and_then(|()| {
            OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(path)
        })
        .map_err(KmsError::io("create", path))?;
    owner::inherit(&file, path)?;
    fault::cut(bytes)
        .and_then(|bytes| file.write_all(bytes))
        .map_err(KmsError::io("write", path))?;
    fault::before()
        .and_then(|()| file.sync_all())
        .map_err(KmsError::io("sync", path))
}

/// Makes a directory for its owner only.
pub(super) fn make_dir(path: &Path) -> Result<(), KmsError> {
    fault::before()
        .and_then(|()| DirBuilder::new().mode(0o700).create(path))
        .map_err(KmsError::io("create", path))?;
    owner::inherit_directory(path)
}

/// Makes a directory and those above it, for their owner only; those that exist stay as they are.
pub(super) fn make_dir_all(path: &Path) -> Result<(), KmsError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(KmsError::io("create", path))?;
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync(parent),
        _ => Ok(()),
    }
}

/// Makes what was created, renamed or removed in a directory durable.
pub(super) fn sync(dir: &Path) -> Result<(), KmsError> {
    fault::before()
        .and_then(|()| File::open(dir))
        .and_then(|dir| dir.sync_all())
        .map_err(KmsError::io("sync", dir))
}

/// Removes a file, or a directory with all that is in it; neither need exist.
pub(super) fn discard(path: &Path) -> Result<(), KmsError> {
    let result = fault::before().and_then(|()| match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    });
    match result {
        Err(error) if !missing(&error) => Err(KmsError::io("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Overwrites a file, removes it, and makes both durable; a directory with all that is in it. Neither need be there.
///
/// What the medium keeps of it elsewhere (flash translation, copy-on-write, snapshots) is beyond reach.
pub(super) fn destroy(path: &Path) -> Result<(), KmsError> {
    match fs::symlink_metadata(path) {
        Err(error) if missing(&error) => return Ok(()),
        Err(error) => return Err(KmsError::io("look at", path)(error)),
        Ok(meta) if meta.is_dir() => {
            for entry in fs::read_dir(path).map_err(KmsError::io("list", path))? {
                destroy(&entry.map_err(KmsError::io("list", path))?.path())?;
            }
        }
        Ok(meta) if meta.is_file() => {
            let zeros = vec![0; usize::try_from(meta.len().min(MAX_FILE)).unwrap_or(0)];
            fault::before()
                .and_then(|()| OpenOptions::new().write(true).open(path))
                .and_then(|mut file| file.write_all(&zeros).and_then(|()| file.sync_all()))
                .map_err(KmsError::io("overwrite", path))?;
        }
        Ok(_) => {}
    }
    discard(path)?;
    path.parent().map_or(Ok(()), sync)
}

/// Whether nothing at all is in a directory.
pub(super) fn is_empty(dir: &Path) -> Result<bool, KmsError> {
    let mut entries = fs::read_dir(dir).map_err(KmsError::io("list", dir))?;
    Ok(entries.next().is_none())
}

/// Takes a directory's group and others their rights.
pub(super) fn make_private(dir: &Path) -> Result<(), KmsError> {
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700))
        .map_err(KmsError::io("make private", dir))
}

/// Refuses what its group or others may read or write.
pub(super) fn check_private(path: &Path) -> Result<(), KmsError> {
    let meta = fs::metadata(path).map_err(KmsError::io("look at", path))?;
    let mode = meta.mode() & 0o7777;
    if mode & 0o077 == 0 {
        Ok(())
    } else {
        Err(KmsError::Permissions {
            path: path.to_owned(),
            mode,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leftovers_of_either_type_do_not_stand_in_the_way() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(UNFINISHED), "half").unwrap();
        replace(dir.path(), "a", b"one").unwrap();
        fs::create_dir_all(dir.path().join(UNFINISHED).join("x")).unwrap();
        replace(dir.path(), "a", b"two").unwrap();
        assert_eq!(*read(&dir.path().join("a")).unwrap().unwrap().bytes, b"two");
        assert_eq!(names(dir.path()).unwrap(), ["a"]);
        assert!(!dir.path().join(UNFINISHED).exists());
    }

    #[test]
    fn a_file_changed_a_moment_ago_is_not_settled() {
        let dir = tempfile::tempdir().unwrap();
        replace(dir.path(), "a", b"one").unwrap();
        let stamp = stat(&dir.path().join("a")).unwrap().unwrap();
        let changed = UNIX_EPOCH
            + std::time::Duration::new(
                stamp.ctime.0.cast_unsigned(),
                u32::try_from(stamp.ctime.1).unwrap(),
            );
        let ms = std::time::Duration::from_millis;
        assert!(!stamp.settled(changed));
        assert!(!stamp.settled(changed + ms(50)));
        assert!(stamp.settled(changed + ms(51)));
        assert!(!stamp.settled(changed - ms(1000)));
    }
}
