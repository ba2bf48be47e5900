//! A tree behind system calls: a plain directory, or a mount.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;

use rustix::fs::{
    self, AtFlags, CWD, FallocateFlags, RenameFlags, SeekFrom, Timespec, Timestamps, XattrFlags,
};
use rustix::io::Errno;

use super::tree::{Answer, Mode, Range, Seen, Tree, assert_holes_are_zeros};

pub struct Posix {
    pub root: PathBuf,
    held: Vec<File>,
}

impl Posix {
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            held: Vec::new(),
        }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// A path leads through a symlink, so that it depends on where that points what it means.
    pub fn leads_through_symlink(&self, path: &str) -> bool {
        let mut ancestors = std::path::Path::new(path).ancestors().skip(1);
        ancestors.any(|ancestor| self.root.join(ancestor).is_symlink())
    }

    fn open(&self, path: &str, write: bool) -> Answer<File> {
        let mut options = OpenOptions::new();
        // Never follow a symlink out of what is being compared.
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        io(options
            .read(true)
            .write(write)
            .custom_flags(flags)
            .open(self.at(path)))
    }
}

fn io<T>(result: std::io::Result<T>) -> Answer<T> {
    result.map_err(|error| Errno::from_io_error(&error).expect("a system call's error"))
}

impl Tree for Posix {
    fn create(&mut self, path: &str, mode: u32) -> Answer<()> {
        let mut options = OpenOptions::new();
        io(options
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(self.at(path)))
        .map(drop)
    }

    fn mkdir(&mut self, path: &str, mode: u32) -> Answer<()> {
        io(std::fs::DirBuilder::new().mode(mode).create(self.at(path)))
    }

    fn symlink(&mut self, path: &str, target: &str) -> Answer<()> {
        fs::symlinkat(target, CWD, self.at(path))
    }

    fn link(&mut self, old: &str, new: &str) -> Answer<()> {
        fs::linkat(CWD, self.at(old), CWD, self.at(new), AtFlags::empty())
    }

    fn unlink(&mut self, path: &str) -> Answer<()> {
        fs::unlinkat(CWD, self.at(path), AtFlags::empty())
    }

    fn rmdir(&mut self, path: &str) -> Answer<()> {
        fs::unlinkat(CWD, self.at(path), AtFlags::REMOVEDIR)
    }

    fn rename(&mut self, old: &str, new: &str, mode: Mode) -> Answer<()> {
        let flags = match mode {
            Mode::Replace => RenameFlags::empty(),
            Mode::NoReplace => RenameFlags::NOREPLACE,
            Mode::Exchange => RenameFlags::EXCHANGE,
        };
        fs::renameat_with(CWD, self.at(old), CWD, self.at(new), flags)
    }

    fn write(&mut self, path: &str, offset: u64, data: &[u8]) -> Answer<()> {
        io(self.open(path, true)?.write_all_at(data, offset))
    }

    fn read(&mut self, path: &str, offset: u64, length: usize) -> Answer<Vec<u8>> {
        let file = self.open(path, false)?;
        let mut buffer = vec![0; length];
        let read = io(file.read_at(&mut buffer, offset))?;
        buffer.truncate(read);
        Ok(buffer)
    }

    fn truncate(&mut self, path: &str, size: u64) -> Answer<()> {
        fs::ftruncate(self.open(path, true)?, size)
    }

    fn allocate(&mut self, path: &str, range: Range, offset: u64, length: u64) -> Answer<()> {
        let keep = FallocateFlags::KEEP_SIZE;
        let flags = match range {
            Range::Allocate => FallocateFlags::empty(),
            Range::KeepSize => keep,
            Range::Punch => FallocateFlags::PUNCH_HOLE | keep,
            Range::Zero => FallocateFlags::ZERO_RANGE,
            Range::ZeroKeepSize => FallocateFlags::ZERO_RANGE | keep,
        };
        fs::fallocate(self.open(path, true)?, flags, offset, length)
    }

    fn chmod(&mut self, path: &str, mode: u32) -> Answer<()> {
        // By descriptor: chmod(2) would follow a symlink.
        io(self
            .open(path, false)?
            .set_permissions(std::fs::Permissions::from_mode(mode)))
    }

    fn set_mtime(&mut self, path: &str, seconds: i64, nanoseconds: u32) -> Answer<()> {
        let time = Timespec {
            tv_sec: seconds,
            tv_nsec: nanoseconds.into(),
        };
        let times = Timestamps {
            last_access: time,
            last_modification: time,
        };
        fs::utimensat(CWD, self.at(path), &times, AtFlags::SYMLINK_NOFOLLOW)
    }

    fn set_xattr(&mut self, path: &str, name: &str, value: &[u8]) -> Answer<()> {
        fs::fsetxattr(self.open(path, false)?, name, value, XattrFlags::empty())
    }

    fn remove_xattr(&mut self, path: &str, name: &str) -> Answer<()> {
        fs::fremovexattr(self.open(path, false)?, name)
    }

    fn hold(&mut self, path: &str) -> Answer<()> {
        let file = self.open(path, true)?;
        self.held.push(file);
        Ok(())
    }

    fn hold_temporary(&mut self, directory: &str, mode: u32) -> Answer<()> {
        let mut options = OpenOptions::new();
        let file = io(options
            .read(true)
            .write(true)
            .mode(mode)
            .custom_flags(libc::O_TMPFILE | libc::O_NOFOLLOW)
            .open(self.at(directory)))?;
        self.held.push(file);
        Ok(())
    }

    fn link_held(&mut self, path: &str) -> Answer<()> {
        let file = self.held.last().ok_or(Errno::BADF)?;
        let held = format!("/proc/self/fd/{}", file.as_raw_fd());
        fs::linkat(CWD, held, CWD, self.at(path), AtFlags::SYMLINK_FOLLOW)
    }

    fn write_held(&mut self, offset: u64, data: &[u8]) -> Answer<()> {
        self.held
            .last()
            .map_or(Err(Errno::BADF), |file| io(file.write_all_at(data, offset)))
    }

    fn read_held(&mut self) -> Answer<Vec<u8>> {
        let file = self.held.last().ok_or(Errno::BADF)?;
        let mut content = vec![0; fs::fstat(file)?.st_size as usize];
        io(file.read_exact_at(&mut content, 0))?;
        Ok(content)
    }

    fn release_held(&mut self) {
        self.held.clear();
    }

    fn list(&mut self, path: &str) -> Answer<Vec<String>> {
        let entries = io(std::fs::read_dir(self.at(path)))?;
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        Ok(names)
    }

    fn see(&mut self, path: &str) -> Answer<Seen> {
        let metadata = io(std::fs::symlink_metadata(self.at(path)))?;
        let (kind, content) = if metadata.is_dir() {
            ("directory", Vec::new())
        } else if metadata.is_symlink() {
            let target = io(std::fs::read_link(self.at(path)))?;
            ("symlink", target.as_os_str().as_bytes().to_vec())
        } else {
            ("file", io(std::fs::read(self.at(path)))?)
        };
        let mut xattrs = BTreeMap::new();
        if kind != "symlink" {
            let file = self.open(path, false)?;
            let mut names = vec![0; 65536];
            let length = fs::flistxattr(&file, &mut names)?;
            for name in names[..length]
                .split(|byte| *byte == 0)
                .filter(|name| !name.is_empty())
            {
                let mut value = vec![0; 65536];
                let length = fs::fgetxattr(&file, OsStr::from_bytes(name), &mut value)?;
                value.truncate(length);
                xattrs.insert(name.to_vec(), value);
            }
        }
        Ok(Seen {
            kind,
            size: if kind == "directory" {
                0
            } else {
                metadata.size()
            },
            mode: if kind == "symlink" {
                0
            } else {
                metadata.mode() & 0o7777
            },
            links: if kind == "directory" {
                0
            } else {
                metadata.nlink()
            },
            mtime: (metadata.mtime() < 1_500_000_000)
                .then(|| (metadata.mtime(), metadata.mtime_nsec() as u32)),
            content,
            xattrs,
        })
    }

    fn check_holes(&mut self, path: &str) {
        let content = std::fs::read(self.at(path)).unwrap();
        let file = self.open(path, false).unwrap();
        assert_holes_are_zeros(&content, |offset, data| {
            fs::seek(
                &file,
                if data {
                    SeekFrom::Data(offset)
                } else {
                    SeekFrom::Hole(offset)
                },
            )
        });
    }
}
