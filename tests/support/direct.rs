//! A tree behind the bare core: each path is walked by lookups, each operation one call or open, call, release.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use cmkfs::fs::backing::Backing;
use cmkfs::fs::{
    AllocateMode, Attributes, FileKind, FileSystem, FileTime, Fill, FsResult, HandleId, NewMode,
    NodeId, OpenFlags, ROOT_NODE, RenameMode, Seek, SetAttributes, SetTime, XattrMode,
};
use rustix::io::Errno;

use super::tree::{Answer, Mode, Range, Seen, Tree, assert_holes_are_zeros};
use super::{TestVolume, WRITE, caller};
use cmkfs::volume::Volume;

/// Entries listed less than so long ago come without attributes.
const LATELY: Duration = Duration::from_secs(30);

const READ: OpenFlags = OpenFlags {
    write: false,
    truncate: false,
};

pub struct Direct {
    pub volume: TestVolume,
    open: Option<Volume>,
    held: Vec<(NodeId, HandleId)>,
    /// One entry for each lookup that the core counts.
    looked_up: RefCell<Vec<NodeId>>,
    /// Makes the backing calls of each new beginning.
    backing: Box<dyn Fn() -> Backing>,
}

fn answer<T>(result: FsResult<T>) -> Answer<T> {
    result.map_err(|error| error.errno())
}

impl Direct {
    pub fn new() -> Self {
        Self::on(TestVolume::new(), Backing::default)
    }

    /// A volume that is there, opened with these backing calls.
    pub fn on(volume: TestVolume, backing: impl Fn() -> Backing + 'static) -> Self {
        let open = Some(volume.open_with(backing()));
        Self {
            volume,
            open,
            held: Vec::new(),
            looked_up: RefCell::default(),
            backing: Box::new(backing),
        }
    }

    /// Gives back every lookup, as the kernel does for what nobody uses.
    pub fn forget_all(&self) {
        for node in self.looked_up.take() {
            self.fs().forget(node, 1);
        }
    }

    /// Counts the lookup that an answer stands for.
    pub fn found(&self, result: FsResult<Attributes>) -> Answer<Attributes> {
        let found = answer(result)?;
        self.looked_up.borrow_mut().push(found.node);
        Ok(found)
    }

    fn reopen(&mut self) {
        self.open = None;
        self.looked_up.take();
        self.open = Some(self.volume.open_with((self.backing)()));
    }

    /// Ends the filesystem without a word.
    pub fn into_volume(mut self) -> TestVolume {
        self.open = None;
        self.volume
    }

    pub fn fs(&self) -> &FileSystem {
        self.open.as_ref().unwrap()
    }

    /// The inode number of what is at a path.
    pub fn see_node(&self, path: &str) -> NodeId {
        self.walk(path).unwrap().node
    }

    /// The same, where it may fail.
    pub fn look_up(&self, path: &str) -> Answer<NodeId> {
        Ok(self.walk(path)?.node)
    }

    /// A file is held open.
    pub fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    /// The node and the handle of the file held open last.
    pub fn held_last(&self) -> Option<(NodeId, HandleId)> {
        self.held.last().copied()
    }

    /// Syncs the file held open last.
    pub fn sync_held(&self) -> Answer<()> {
        let (_, handle) = *self.held.last().ok_or(Errno::BADF)?;
        answer(self.fs().sync(handle, false))
    }

    /// The open volume.
    pub fn open_volume(&self) -> &Volume {
        self.open.as_ref().unwrap()
    }

    /// Ends the filesystem cleanly, and opens it anew once `work` is done with the volume.
    pub fn while_closed<T>(&mut self, work: impl FnOnce(&TestVolume) -> T) -> T {
        self.release_held();
        self.fs().shutdown().unwrap();
        self.open = None;
        let result = work(&self.volume);
        self.reopen();
        result
    }

    /// Ends the filesystem cleanly and opens it anew.
    pub fn remount(&mut self) {
        self.release_held();
        self.fs().shutdown().unwrap();
        self.reopen();
    }

    /// Opens the filesystem anew without having ended it, as after a SIGKILL.
    pub fn remount_killed(&mut self) {
        self.held.clear();
        self.reopen();
    }

    fn walk(&self, path: &str) -> Answer<Attributes> {
        let mut found = answer(self.fs().attributes(ROOT_NODE, None))?;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            match found.kind {
                FileKind::Directory => {}
                FileKind::Symlink => return Err(Errno::LOOP),
                _ => return Err(Errno::NOTDIR),
            }
            found = self.found(self.fs().lookup(found.node, OsStr::new(name)))?;
        }
        Ok(found)
    }

    fn parent<'a>(&self, path: &'a str) -> Answer<(NodeId, &'a OsStr)> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let parent = self.walk(parent)?;
        if parent.kind != FileKind::Directory {
            return Err(Errno::NOTDIR);
        }
        Ok((parent.node, OsStr::new(name)))
    }

    /// Fails with EEXIST where there is something, and with whatever else keeps it from being made.
    fn absent(&self, path: &str) -> Answer<()> {
        match self.walk(path) {
            Ok(_) => Err(Errno::EXIST),
            Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// What open(2) says before it comes to the filesystem.
    fn openable(&self, path: &str, write: bool) -> Answer<NodeId> {
        let found = self.walk(path)?;
        match found.kind {
            FileKind::Symlink => Err(Errno::LOOP),
            FileKind::Directory if write => Err(Errno::ISDIR),
            _ => Ok(found.node),
        }
    }

    fn with_open<T>(
        &self,
        path: &str,
        flags: OpenFlags,
        work: impl FnOnce(HandleId) -> FsResult<T>,
    ) -> Answer<T> {
        let node = self.openable(path, flags.write)?;
        let handle = answer(self.fs().open(caller(), node, flags))?.handle;
        let result = work(handle);
        self.fs().release(handle);
        answer(result)
    }

    fn set(&self, node: NodeId, changes: &SetAttributes) -> Answer<()> {
        answer(self.fs().set_attributes(caller(), node, None, changes)).map(drop)
    }

    fn content(&self, path: &str, size: u64) -> Answer<Vec<u8>> {
        let mut content = vec![0xaa; size as usize];
        let read = self.with_open(path, READ, |handle| self.fs().read(handle, 0, &mut content))?;
        assert_eq!(read as u64, size);
        Ok(content)
    }
}

impl Tree for Direct {
    fn create(&mut self, path: &str, mode: u32) -> Answer<()> {
        let (parent, name) = self.parent(path)?;
        self.absent(path)?;
        let mode = NewMode {
            permissions: mode,
            umask: 0o022,
        };
        let (found, opened) = answer(self.fs().create(caller(), parent, name, mode, WRITE))?;
        self.fs().release(opened.handle);
        self.found(Ok(found)).map(drop)
    }

    fn mkdir(&mut self, path: &str, mode: u32) -> Answer<()> {
        let (parent, name) = self.parent(path)?;
        let mode = NewMode {
            permissions: mode,
            umask: 0o022,
        };
        self.found(self.fs().make_directory(caller(), parent, name, mode))
            .map(drop)
    }

    fn symlink(&mut self, path: &str, target: &str) -> Answer<()> {
        let (parent, name) = self.parent(path)?;
        let target = OsStr::new(target);
        self.found(self.fs().make_symlink(caller(), parent, name, target))
            .map(drop)
    }

    fn link(&mut self, old: &str, new: &str) -> Answer<()> {
        let found = self.walk(old)?;
        let (parent, name) = self.parent(new)?;
        // The kernel looks whether the target exists before it looks at what is to be linked.
        self.absent(new)?;
        if found.kind == FileKind::Directory {
            return Err(Errno::PERM);
        }
        self.found(self.fs().link(found.node, parent, name))
            .map(drop)
    }

    fn unlink(&mut self, path: &str) -> Answer<()> {
        let (parent, name) = self.parent(path)?;
        answer(self.fs().remove_file(parent, name))
    }

    fn rmdir(&mut self, path: &str) -> Answer<()> {
        let (parent, name) = self.parent(path)?;
        answer(self.fs().remove_directory(parent, name))
    }

    fn rename(&mut self, old: &str, new: &str, mode: Mode) -> Answer<()> {
        let (parent, name) = self.parent(old)?;
        let (new_parent, new_name) = self.parent(new)?;
        let below = |a: &str, b: &str| b.strip_prefix(a).is_some_and(|rest| rest.starts_with('/'));
        // The order in which vfs_rename looks at things.
        self.walk(old)?;
        match self.absent(new) {
            Err(Errno::EXIST) if mode != Mode::NoReplace => {}
            other => other?,
        }
        if mode == Mode::Exchange {
            self.walk(new)?;
        }
        if below(old, new) {
            return Err(Errno::INVAL);
        }
        if below(new, old) {
            return Err(if mode == Mode::Exchange {
                Errno::INVAL
            } else {
                Errno::NOTEMPTY
            });
        }
        let mode = match mode {
            Mode::Replace => RenameMode::Replace,
            Mode::NoReplace => RenameMode::NoReplace,
            Mode::Exchange => RenameMode::Exchange,
        };
        answer(self.fs().rename(parent, name, new_parent, new_name, mode))
    }

    fn write(&mut self, path: &str, offset: u64, data: &[u8]) -> Answer<()> {
        self.with_open(path, WRITE, |handle| self.fs().write(handle, offset, data))
    }

    fn read(&mut self, path: &str, offset: u64, length: usize) -> Answer<Vec<u8>> {
        let found = self.walk(path)?;
        self.openable(path, false)?;
        if found.kind == FileKind::Directory {
            return Err(Errno::ISDIR);
        }
        let mut buffer = vec![0xaa; length];
        let read = self.with_open(path, READ, |handle| {
            self.fs().read(handle, offset, &mut buffer)
        })?;
        buffer.truncate(read);
        Ok(buffer)
    }

    fn truncate(&mut self, path: &str, size: u64) -> Answer<()> {
        let node = self.openable(path, true)?;
        self.set(
            node,
            &SetAttributes {
                size: Some(size),
                ..SetAttributes::default()
            },
        )
    }

    fn allocate(&mut self, path: &str, range: Range, offset: u64, length: u64) -> Answer<()> {
        let mode = match range {
            Range::Allocate => AllocateMode::Allocate,
            Range::KeepSize => AllocateMode::KeepSize,
            Range::Punch => AllocateMode::PunchHole,
            Range::Zero => AllocateMode::ZeroRange,
            Range::ZeroKeepSize => AllocateMode::ZeroRangeKeepSize,
        };
        self.with_open(path, WRITE, |handle| {
            self.fs().allocate(handle, mode, offset, length)
        })
    }

    fn chmod(&mut self, path: &str, mode: u32) -> Answer<()> {
        let node = self.openable(path, false)?;
        self.set(
            node,
            &SetAttributes {
                permissions: Some(mode as u16),
                ..SetAttributes::default()
            },
        )
    }

    fn set_mtime(&mut self, path: &str, seconds: i64, nanoseconds: u32) -> Answer<()> {
        let node = self.walk(path)?.node;
        let time = Some(SetTime::At(FileTime {
            seconds,
            nanoseconds,
        }));
        self.set(
            node,
            &SetAttributes {
                atime: time,
                mtime: time,
                ..SetAttributes::default()
            },
        )
    }

    fn set_xattr(&mut self, path: &str, name: &str, value: &[u8]) -> Answer<()> {
        let node = self.openable(path, false)?;
        answer(
            self.fs()
                .set_xattr(caller(), node, OsStr::new(name), value, XattrMode::Set),
        )
    }

    fn remove_xattr(&mut self, path: &str, name: &str) -> Answer<()> {
        let node = self.openable(path, false)?;
        answer(self.fs().remove_xattr(node, OsStr::new(name)))
    }

    fn hold(&mut self, path: &str) -> Answer<()> {
        let node = self.openable(path, true)?;
        let handle = answer(self.fs().open(caller(), node, WRITE))?.handle;
        self.held.push((node, handle));
        Ok(())
    }

    fn hold_temporary(&mut self, directory: &str, mode: u32) -> Answer<()> {
        let parent = self.walk(directory)?;
        if parent.kind != FileKind::Directory {
            return Err(Errno::NOTDIR);
        }
        let mode = NewMode {
            permissions: mode,
            umask: 0o022,
        };
        let made = self
            .fs()
            .create_temporary(caller(), parent.node, mode, WRITE);
        let (found, opened) = answer(made)?;
        self.held.push((found.node, opened.handle));
        self.found(Ok(found)).map(drop)
    }

    fn link_held(&mut self, path: &str) -> Answer<()> {
        let (node, _) = *self.held.last().ok_or(Errno::BADF)?;
        let (parent, name) = self.parent(path)?;
        self.absent(path)?;
        self.found(self.fs().link(node, parent, name)).map(drop)
    }

    fn write_held(&mut self, offset: u64, data: &[u8]) -> Answer<()> {
        let (_, handle) = *self.held.last().ok_or(Errno::BADF)?;
        answer(self.fs().write(handle, offset, data))
    }

    fn read_held(&mut self) -> Answer<Vec<u8>> {
        let (node, handle) = *self.held.last().ok_or(Errno::BADF)?;
        let size = answer(self.fs().attributes(node, Some(handle)))?.size;
        let mut content = vec![0xaa; size as usize];
        assert_eq!(
            answer(self.fs().read(handle, 0, &mut content))? as u64,
            size
        );
        Ok(content)
    }

    fn release_held(&mut self) {
        for (_, handle) in std::mem::take(&mut self.held) {
            self.fs().release(handle);
        }
    }

    fn list(&mut self, path: &str) -> Answer<Vec<String>> {
        let node = self.walk(path)?.node;
        let handle = answer(self.fs().open_directory(node))?;
        let mut names = Vec::new();
        let mut offset = 0;
        let listed = loop {
            // Three at a time, so that listings are interrupted and go on.
            let before = offset;
            let mut room = 3;
            let listed =
                answer(
                    self.fs()
                        .read_directory_plus(handle, offset, LATELY, &mut |entry| {
                            if room == 0 {
                                return Fill::Full;
                            }
                            room -= 1;
                            offset = entry.next_offset;
                            if let Some(found) = entry.attributes {
                                self.looked_up.borrow_mut().push(found.node);
                            }
                            names.push(String::from_utf8(entry.name.as_bytes().to_vec()).unwrap());
                            Fill::Taken
                        }),
                );
            if listed.is_err() || offset == before {
                break listed;
            }
        };
        self.fs().release_directory(handle);
        listed?;
        names.retain(|name| name != "." && name != "..");
        names.sort();
        Ok(names)
    }

    fn see(&mut self, path: &str) -> Answer<Seen> {
        let found = self.walk(path)?;
        let (kind, content) = match found.kind {
            FileKind::Directory => ("directory", Vec::new()),
            FileKind::Symlink => ("symlink", answer(self.fs().read_link(found.node))?),
            FileKind::Fifo => ("pipe", Vec::new()),
            _ => ("file", self.content(path, found.size)?),
        };
        let mut xattrs = BTreeMap::new();
        if kind != "symlink" {
            let names = answer(self.fs().list_xattrs(found.node))?;
            for name in names
                .split(|byte| *byte == 0)
                .filter(|name| !name.is_empty())
            {
                let value = answer(self.fs().get_xattr(found.node, OsStr::from_bytes(name)))?;
                xattrs.insert(name.to_vec(), value);
            }
        }
        Ok(Seen {
            kind,
            size: if kind == "directory" { 0 } else { found.size },
            mode: if kind == "symlink" {
                0
            } else {
                found.permissions.into()
            },
            links: if kind == "directory" {
                0
            } else {
                found.links.into()
            },
            mtime: (found.mtime.seconds < 1_500_000_000)
                .then_some((found.mtime.seconds, found.mtime.nanoseconds)),
            content,
            xattrs,
        })
    }

    fn check_holes(&mut self, path: &str) {
        let size = self.walk(path).unwrap().size;
        let content = self.content(path, size).unwrap();
        self.with_open(path, READ, |handle| {
            assert_holes_are_zeros(&content, |offset, data| {
                let what = if data { Seek::Data } else { Seek::Hole };
                answer(self.fs().seek(handle, offset, what))
            });
            Ok(())
        })
        .unwrap();
    }
}
