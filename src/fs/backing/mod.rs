//! The directory that holds the ciphertext: every system call the core makes on it, and nothing else.
//!
//! An [`Observer`] sees each call before it is made, may refuse it, and is told what it has changed. Calls that a signal
//! interrupts are repeated; short reads and writes are completed.

mod observer;

use std::ffi::{CStr, CString};
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::num::NonZeroU64;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    self, AtFlags, FallocateFlags, FileType, Gid, Mode, OFlags, RawDir, RenameFlags, Stat,
    StatxFlags, StatxTimestamp, Timestamps, Uid, XattrFlags,
};
use rustix::io::{Errno, retry_on_intr};

pub use self::observer::{Call, Effect, Observer};
use crate::sys::{writeback, xattr};

/// Where a backing object is found.
#[derive(Debug, Clone, Copy)]
pub enum At<'a> {
    /// Under this name in this directory.
    Name(BorrowedFd<'a>, &'a CStr),
    /// Behind this descriptor, which may be O_PATH: the object has lost its name.
    Fd(BorrowedFd<'a>),
}

impl At<'_> {
    /// A path that reaches the object itself (the last component is never followed by the calls that take it).
    fn path(&self) -> CString {
        let path = match self {
            Self::Name(directory, name) => {
                let mut path = format!("/proc/self/fd/{}/", directory.as_raw_fd()).into_bytes();
                path.extend_from_slice(name.to_bytes());
                path
            }
            Self::Fd(fd) => format!("/proc/self/fd/{}", fd.as_raw_fd()).into_bytes(),
        };
        // A CStr and a number have no zero byte inside.
        CString::new(path).unwrap_or_default()
    }
}

type Io<T> = Result<T, Errno>;

/// The backing calls.
#[derive(Default)]
pub struct Backing(Option<Box<dyn Observer>>);

impl std::fmt::Debug for Backing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Backing")
    }
}

impl Backing {
    /// The calls, each shown to `observer` first.
    #[must_use]
    pub fn observed(observer: Box<dyn Observer>) -> Self {
        Self(Some(observer))
    }

    fn gate(&self, call: Call) -> Io<()> {
        self.0
            .as_ref()
            .map_or(Ok(()), |observer| observer.before(call))
    }

    fn room(&self) -> usize {
        self.0
            .as_ref()
            .map_or(usize::MAX, |observer| observer.room().max(1))
    }

    fn done(&self, effect: Effect<'_>) {
        if let Some(observer) = &self.0 {
            observer.done(effect);
        }
    }

    pub(super) fn open(
        &self,
        directory: impl AsFd,
        name: &CStr,
        flags: OFlags,
        mode: u32,
    ) -> Io<OwnedFd> {
        self.gate(Call::Open)?;
        // Not even a named pipe that somebody put in a file's place keeps us waiting.
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file =
            retry_on_intr(|| fs::openat(&directory, name, flags, Mode::from_raw_mode(mode)))?;
        if flags.contains(OFlags::CREATE) {
            let directory = directory.as_fd();
            self.done(Effect::Made { directory, name });
        }
        if flags.contains(OFlags::TRUNC) {
            let (file, length) = (file.as_fd(), 0);
            self.done(Effect::Resized { file, length });
        }
        Ok(file)
    }

    /// Makes a file in a directory, without a name there. It goes with its last descriptor unless it is linked before.
    /// EOPNOTSUPP where the filesystem has no such files.
    pub(super) fn open_unnamed(&self, directory: impl AsFd, mode: u32) -> Io<OwnedFd> {
        self.gate(Call::Open)?;
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(mode);
        let file = match retry_on_intr(|| fs::openat(&directory, c".", flags, mode)) {
            // O_TMPFILE was not understood, open(2) says: a directory cannot be opened for writing.
            Err(Errno::ISDIR) => return Err(Errno::OPNOTSUPP),
            opened => opened?,
        };
        let made = file.as_fd();
        self.done(Effect::MadeUnnamed { file: made });
        Ok(file)
    }

    /// Opens again what an O_PATH descriptor refers to.
    pub(super) fn reopen(&self, fd: BorrowedFd<'_>, flags: OFlags) -> Io<OwnedFd> {
        self.gate(Call::Open)?;
        let path = At::Fd(fd).path();
        retry_on_intr(|| fs::open(&path, flags | OFlags::CLOEXEC, Mode::empty()))
    }

    pub(super) fn stat(&self, at: At<'_>) -> Io<Stat> {
        self.gate(Call::Stat)?;
        match at {
            At::Name(directory, name) => fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW),
            At::Fd(fd) => fs::fstat(fd),
        }
    }

    /// When an object was made; `None` where its filesystem does not say.
    pub(super) fn birth_time(&self, at: At<'_>) -> Io<Option<StatxTimestamp>> {
        self.gate(Call::Stat)?;
        let wanted = StatxFlags::BTIME;
        let found = match at {
            At::Name(directory, name) => {
                fs::statx(directory, name, AtFlags::SYMLINK_NOFOLLOW, wanted)
            }
            At::Fd(fd) => fs::statx(fd, c"", AtFlags::EMPTY_PATH, wanted),
        }?;
        let is_known = found.stx_mask & wanted.bits() != 0;
        Ok(is_known.then_some(found.stx_btime))
    }

    pub(super) fn statvfs(&self, fd: impl AsFd) -> Io<fs::StatVfs> {
        self.gate(Call::Stat)?;
        fs::fstatvfs(fd)
    }

    pub(super) fn make_directory(&self, directory: impl AsFd, name: &CStr, mode: u32) -> Io<()> {
        self.gate(Call::Make)?;
        fs::mkdirat(&directory, name, Mode::from_raw_mode(mode))?;
        let directory = directory.as_fd();
        self.done(Effect::Made { directory, name });
        Ok(())
    }

    pub(super) fn make_node(
        &self,
        directory: impl AsFd,
        name: &CStr,
        kind: FileType,
        mode: u32,
        device: u64,
    ) -> Io<()> {
        self.gate(Call::Make)?;
        fs::mknodat(&directory, name, kind, Mode::from_raw_mode(mode), device)?;
        let directory = directory.as_fd();
        self.done(Effect::Made { directory, name });
        Ok(())
    }

    pub(super) fn make_symlink(&self, target: &str, directory: impl AsFd, name: &CStr) -> Io<()> {
        self.gate(Call::Make)?;
        fs::symlinkat(target, &directory, name)?;
        let directory = directory.as_fd();
        self.done(Effect::Made { directory, name });
        Ok(())
    }

    pub(super) fn link(&self, at: At<'_>, directory: impl AsFd, name: &CStr) -> Io<()> {
        self.gate(Call::Make)?;
        match at {
            At::Name(from, old) => fs::linkat(from, old, &directory, name, AtFlags::empty()),
            At::Fd(_) => fs::linkat(
                fs::CWD,
                at.path(),
                &directory,
                name,
                AtFlags::SYMLINK_FOLLOW,
            ),
        }?;
        let directory = directory.as_fd();
        self.done(Effect::Linked { directory, name });
        Ok(())
    }

    pub(super) fn remove(&self, directory: impl AsFd, name: &CStr) -> Io<()> {
        self.gate(Call::Remove)?;
        fs::unlinkat(&directory, name, AtFlags::empty())?;
        let directory = directory.as_fd();
        self.done(Effect::Removed { directory, name });
        Ok(())
    }

    pub(super) fn remove_directory(&self, directory: impl AsFd, name: &CStr) -> Io<()> {
        self.gate(Call::Remove)?;
        fs::unlinkat(&directory, name, AtFlags::REMOVEDIR)?;
        let directory = directory.as_fd();
        self.done(Effect::Removed { directory, name });
        Ok(())
    }

    pub(super) fn rename(
        &self,
        from: (BorrowedFd<'_>, &CStr),
        to: (BorrowedFd<'_>, &CStr),
        flags: RenameFlags,
    ) -> Io<()> {
        self.gate(Call::Rename)?;
        if flags.is_empty() {
            fs::renameat(from.0, from.1, to.0, to.1)?;
        } else {
            fs::renameat_with(from.0, from.1, to.0, to.1, flags)?;
        }
        self.done(Effect::Renamed { from, to, flags });
        Ok(())
    }

    pub(super) fn read_link(&self, at: At<'_>) -> Io<CString> {
        self.gate(Call::ReadLink)?;
        match at {
            At::Name(directory, name) => fs::readlinkat(directory, name, Vec::new()),
            At::Fd(fd) => fs::readlinkat(fd, c"", Vec::new()),
        }
    }

    /// Fills `buffer` from `offset`; fewer bytes only at the end of the file.
    pub(super) fn read(&self, fd: impl AsFd, buffer: &mut [u8], offset: u64) -> Io<usize> {
        let mut done = 0;
        while done < buffer.len() {
            self.gate(Call::Read)?;
            let rest = &mut buffer[done..];
            match retry_on_intr(|| rustix::io::pread(&fd, &mut *rest, offset + done as u64))? {
                0 => break,
                read => done += read,
            }
        }
        Ok(done)
    }

    /// Fills the buffers in turn from `offset`; fewer bytes only at the end of the file.
    pub(super) fn read_vectored(
        &self,
        fd: impl AsFd,
        buffers: &mut [IoSliceMut<'_>],
        offset: u64,
    ) -> Io<usize> {
        let mut buffers = buffers;
        let mut done = 0;
        while !buffers.is_empty() {
            self.gate(Call::Read)?;
            match retry_on_intr(|| rustix::io::preadv(&fd, buffers, offset + done as u64))? {
                0 => break,
                read => {
                    done += read;
                    IoSliceMut::advance_slices(&mut buffers, read);
                }
            }
        }
        Ok(done)
    }

    /// Writes all of `data`.
    pub(super) fn write(&self, fd: impl AsFd, data: &[u8], offset: u64) -> Io<()> {
        let mut done = 0;
        while done < data.len() {
            self.gate(Call::Write)?;
            let rest = &data[done..];
            let rest = &rest[..rest.len().min(self.room())];
            match retry_on_intr(|| rustix::io::pwrite(&fd, rest, offset + done as u64))? {
                0 => return Err(Errno::IO),
                written => {
                    self.wrote(fd.as_fd(), offset + done as u64, &rest[..written]);
                    done += written;
                }
            }
        }
        Ok(())
    }

    /// Writes all of the buffers, one after the other.
    pub(super) fn write_vectored(
        &self,
        fd: impl AsFd,
        buffers: &mut [IoSlice<'_>],
        offset: u64,
    ) -> Io<()> {
        let mut buffers = buffers;
        let mut done = 0;
        while !buffers.is_empty() {
            self.gate(Call::Write)?;
            let room = self.room();
            let whole: usize = buffers.iter().map(|buffer| buffer.len()).sum();
            let written = if room < whole {
                let first = &buffers[0][..buffers[0].len().min(room)];
                retry_on_intr(|| rustix::io::pwrite(&fd, first, offset + done as u64))
            } else {
                retry_on_intr(|| rustix::io::pwritev(&fd, buffers, offset + done as u64))
            };
            match written? {
                0 => return Err(Errno::IO),
                written => {
                    self.wrote_vectored(fd.as_fd(), offset + done as u64, buffers, written);
                    done += written;
                    IoSlice::advance_slices(&mut buffers, written);
                }
            }
        }
        Ok(())
    }

    fn wrote(&self, file: BorrowedFd<'_>, offset: u64, data: &[u8]) {
        self.done(Effect::Wrote { file, offset, data });
    }

    /// The first `written` bytes of the buffers.
    fn wrote_vectored(
        &self,
        file: BorrowedFd<'_>,
        offset: u64,
        buffers: &[IoSlice<'_>],
        written: usize,
    ) {
        let mut done = 0;
        for buffer in buffers {
            let part = &buffer[..buffer.len().min(written - done)];
            if part.is_empty() {
                return;
            }
            self.wrote(file, offset + done as u64, part);
            done += part.len();
        }
    }

    pub(super) fn truncate(&self, fd: impl AsFd, length: u64) -> Io<()> {
        self.gate(Call::Resize)?;
        retry_on_intr(|| fs::ftruncate(&fd, length))?;
        let file = fd.as_fd();
        self.done(Effect::Resized { file, length });
        Ok(())
    }

    pub(super) fn allocate(
        &self,
        fd: impl AsFd,
        flags: FallocateFlags,
        offset: u64,
        length: u64,
    ) -> Io<()> {
        self.gate(Call::Resize)?;
        retry_on_intr(|| fs::fallocate(&fd, flags, offset, length))?;
        self.done(Effect::Allocated {
            file: fd.as_fd(),
            flags,
            range: (offset, length),
        });
        Ok(())
    }

    /// The next offset at or after `offset` that holds data; `None` past the last.
    pub(super) fn seek_data(&self, fd: impl AsFd, offset: u64) -> Io<Option<u64>> {
        self.gate(Call::Seek)?;
        match fs::seek(fd, fs::SeekFrom::Data(offset)) {
            Ok(found) => Ok(Some(found)),
            Err(Errno::NXIO) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Moves a listing to a position.
    pub(super) fn seek_entries(&self, fd: impl AsFd, position: u64) -> Io<()> {
        self.gate(Call::Seek)?;
        fs::seek(fd, fs::SeekFrom::Start(position)).map(drop)
    }

    /// The next entries of a directory, as many as fit the buffer: whoever goes on when it is empty asks again.
    pub(super) fn entries<'a, Fd: AsFd>(
        &self,
        fd: Fd,
        buffer: &'a mut [MaybeUninit<u8>],
    ) -> Io<RawDir<'a, Fd>> {
        self.gate(Call::List)?;
        Ok(RawDir::new(fd, buffer))
    }

    /// Drops the first `length` bytes of a file from the page cache, where they have not been changed.
    pub(super) fn drop_cached(&self, fd: impl AsFd, length: u64) {
        // Advice: nothing depends on whether it is taken but how exact an answer is.
        let _ = fs::fadvise(fd, 0, NonZeroU64::new(length), fs::Advice::DontNeed);
    }

    pub(super) fn sync(&self, fd: impl AsFd, data_only: bool) -> Io<()> {
        self.gate(Call::Sync)?;
        retry_on_intr(|| {
            if data_only {
                fs::fdatasync(&fd)
            } else {
                fs::fsync(&fd)
            }
        })?;
        let file = fd.as_fd();
        self.done(Effect::Synced { file, data_only });
        Ok(())
    }

    /// Sends what was written to the device, so that it precedes the changes of metadata that follow. Where the backing
    /// filesystem keeps that order this is far cheaper than [`Backing::sync`], which has to follow where something was promised.
    pub(super) fn write_back(&self, fd: impl AsFd) -> Io<()> {
        self.gate(Call::Sync)?;
        let file = fd.as_fd();
        // These have the new length in their journal before a write-back ends. btrfs has not: there it takes a sync.
        const KEEP_ORDER: [u64; 3] = [0xEF53, 0x5846_5342, 0x0102_1994]; // ext4, xfs, tmpfs: statfs(2)
        let keeps_order = KEEP_ORDER.contains(&(fs::fstatfs(file)?.f_type as u64));
        if !keeps_order || retry_on_intr(|| writeback::write_back(file)).is_err() {
            retry_on_intr(|| fs::fdatasync(file))?;
        }
        self.done(Effect::Synced {
            file,
            data_only: true,
        });
        Ok(())
    }

    pub(super) fn sync_filesystem(&self, fd: impl AsFd) -> Io<()> {
        self.gate(Call::Sync)?;
        retry_on_intr(|| fs::syncfs(&fd))?;
        self.done(Effect::SyncedAll);
        Ok(())
    }

    pub(super) fn set_mode(&self, at: At<'_>, mode: u32) -> Io<()> {
        self.gate(Call::Change)?;
        let mode = Mode::from_raw_mode(mode);
        match at {
            At::Name(directory, name) => {
                // chmod(2) by name follows a symlink, and whoever may write to the backing directory could have put one
                // there that leads out of it.
                let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let object = fs::openat(directory, name, flags, Mode::empty())?;
                fs::chmodat(
                    fs::CWD,
                    At::Fd(object.as_fd()).path(),
                    mode,
                    AtFlags::empty(),
                )
            }
            At::Fd(fd) => by_path_if_needed(fs::fchmod(fd, mode), || {
                fs::chmodat(fs::CWD, at.path(), mode, AtFlags::empty())
            }),
        }?;
        self.done(Effect::Changed(at));
        Ok(())
    }

    pub(super) fn set_owner(&self, at: At<'_>, uid: Option<u32>, gid: Option<u32>) -> Io<()> {
        self.gate(Call::Change)?;
        let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
        match at {
            At::Name(directory, name) => {
                fs::chownat(directory, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
            }
            At::Fd(fd) => fs::chownat(fd, c"", uid, gid, AtFlags::EMPTY_PATH),
        }?;
        self.done(Effect::Changed(at));
        Ok(())
    }

    pub(super) fn set_times(&self, at: At<'_>, times: &Timestamps) -> Io<()> {
        self.gate(Call::Change)?;
        match at {
            At::Name(directory, name) => {
                fs::utimensat(directory, name, times, AtFlags::SYMLINK_NOFOLLOW)
            }
            At::Fd(fd) => by_path_if_needed(fs::futimens(fd, times), || {
                fs::utimensat(fs::CWD, at.path(), times, AtFlags::empty())
            }),
        }?;
        self.done(Effect::Changed(at));
        Ok(())
    }

    /// The value of an attribute.
    pub(super) fn get_xattr(&self, at: At<'_>, name: &CStr) -> Io<Vec<u8>> {
        self.gate(Call::ReadXattr)?;
        grow(|buffer| match at {
            At::Name(directory, object) => match xattr::get_at(directory, object, name, buffer) {
                Err(Errno::NOSYS) => fs::lgetxattr(at.path(), name, buffer),
                got => got,
            },
            At::Fd(fd) => match fs::fgetxattr(fd, name, &mut *buffer) {
                Err(Errno::BADF) => fs::getxattr(at.path(), name, buffer),
                got => got,
            },
        })
    }

    /// The names of all attributes, each followed by a zero byte.
    pub(super) fn list_xattrs(&self, at: At<'_>) -> Io<Vec<u8>> {
        self.gate(Call::ReadXattr)?;
        grow(|buffer| match at {
            At::Name(..) => fs::llistxattr(at.path(), buffer),
            At::Fd(fd) => match fs::flistxattr(fd, &mut *buffer) {
                Err(Errno::BADF) => fs::listxattr(at.path(), buffer),
                listed => listed,
            },
        })
    }

    pub(super) fn set_xattr(
        &self,
        at: At<'_>,
        name: &CStr,
        value: &[u8],
        flags: XattrFlags,
    ) -> Io<()> {
        self.gate(Call::WriteXattr)?;
        match at {
            At::Name(..) => fs::lsetxattr(at.path(), name, value, flags),
            At::Fd(_) => fs::setxattr(at.path(), name, value, flags),
        }?;
        let value = Some(value);
        self.done(Effect::Attribute { at, name, value });
        Ok(())
    }

    pub(super) fn remove_xattr(&self, at: At<'_>, name: &CStr) -> Io<()> {
        self.gate(Call::WriteXattr)?;
        match at {
            At::Name(..) => fs::lremovexattr(at.path(), name),
            At::Fd(_) => fs::removexattr(at.path(), name),
        }?;
        let value = None;
        self.done(Effect::Attribute { at, name, value });
        Ok(())
    }
}

/// What a call on an O_PATH descriptor refuses has to go by its path, which is longer.
fn by_path_if_needed(done: Io<()>, by_path: impl FnOnce() -> Io<()>) -> Io<()> {
    match done {
        Err(Errno::BADF) => by_path(),
        done => done,
    }
}

/// Calls with a buffer that grows until the answer fits; most answers fit the first.
fn grow(mut call: impl FnMut(&mut [u8]) -> Io<usize>) -> Io<Vec<u8>> {
    // Most attributes that are asked for are not there.
    let mut first = [0; 512];
    match call(&mut first) {
        Err(Errno::RANGE) => {}
        answer => return answer.map(|length| first[..length].to_vec()),
    }
    let mut buffer = vec![0; 2048];
    loop {
        match call(&mut buffer) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(buffer);
            }
            Err(Errno::RANGE) if buffer.len() < 1 << 17 => {
                let larger = buffer.len() * 4;
                buffer.resize(larger, 0);
            }
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_mode_is_not_set_through_a_symlink() {
        let dir = tempfile::tempdir().unwrap();
        let outside = dir.path().join("outside");
        std::fs::write(&outside, "").unwrap();
        let permissions = || std::fs::metadata(&outside).unwrap().permissions();
        std::fs::set_permissions(&outside, PermissionsExt::from_mode(0o600)).unwrap();
        symlink(&outside, dir.path().join("link")).unwrap();
        let directory = std::fs::File::open(dir.path()).unwrap();
        let backing = Backing::default();
        let set = |name| backing.set_mode(At::Name(directory.as_fd(), name), 0o666);
        assert_eq!(set(c"link"), Err(Errno::OPNOTSUPP));
        assert_eq!(permissions().mode() & 0o777, 0o600);
        set(c"outside").unwrap();
        assert_eq!(permissions().mode() & 0o777, 0o666);
    }

    #[test]
    fn a_filesystem_without_unnamed_files_and_times_of_birth_says_so() {
        let directory = std::fs::File::open("/proc").unwrap();
        let backing = Backing::default();
        let unnamed = backing.open_unnamed(&directory, 0o600).err();
        // Whoever may not write there is refused before.
        let expected = if rustix::process::geteuid().is_root() {
            Errno::OPNOTSUPP
        } else {
            Errno::ACCESS
        };
        assert_eq!(unnamed, Some(expected));
        let at = At::Name(directory.as_fd(), c"self");
        assert!(backing.birth_time(at).unwrap().is_none());
    }
}
