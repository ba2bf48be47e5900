//! The operations that are counted, each on a volume of its own in which everything happened once before.

use std::ffi::OsStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cmkfs::crypto::counted;
use cmkfs::format::envelope::{EncryptionContext, ObjectKind};
use cmkfs::fs::backing::Backing;
use cmkfs::fs::{
    AllocateMode, Attributes, FileSystem, Fill, HandleId, NodeId, OpenFlags, ROOT_NODE, RenameMode,
    Seek, SetAttributes,
};
use cmkfs::ids::{ObjectId, VolumeId};
use cmkfs::kms::service::KeyService;
use cmkfs::volume::keys::ServicePort;
use cmkfs::volume::{Access, Volume, open_observed, open_observed_in_memory};
use rustix::io::Errno;
use tempfile::TempDir;

use crate::meter::{Cost, CountingPort, Meter};
use crate::support::{DEFAULT_ALIAS, MODE, TestVolume, WRITE, caller, key_service};

const READ: OpenFlags = OpenFlags {
    write: false,
    truncate: false,
};
const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// Where the backing directory is taken to lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lies {
    OnADisk,
    InMemory,
}

/// A key directory for all volumes, in a state in which what was read of it is believed to be as it was: soon after a change
/// its files are read anew each time.
pub struct Keys {
    service: Arc<KeyService>,
    _directory: TempDir,
}

impl Keys {
    pub fn new() -> Self {
        let directory = tempfile::tempdir_in("/dev/shm").unwrap();
        let service = key_service(&directory.path().join("keys"));
        let context = EncryptionContext {
            volume: VolumeId::random(),
            object: ObjectId::random(),
            kind: ObjectKind::File,
        };
        let key = DEFAULT_ALIAS.parse().unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let before = counted::so_far();
            let (_, envelope) = service.generate_data_key(&key, &context).unwrap();
            service.decrypt_data_key(&envelope, &context).unwrap();
            // Sealed and opened, and no record besides.
            if (counted::so_far() - before).aead == 2 {
                break;
            }
            assert!(Instant::now() < deadline, "the key directory is read anew");
            std::thread::sleep(Duration::from_millis(5));
        }
        Self {
            service,
            _directory: directory,
        }
    }
}

/// A volume in use, and what it costs.
pub struct Bed {
    fs: Volume,
    meter: Meter,
    _volume: TestVolume,
}

impl Bed {
    /// A volume in whose root a file was made, overwritten and sealed, so that what is done once a mount is done.
    pub fn new(lies: Lies, keys: &Keys) -> Self {
        let directory = tempfile::tempdir_in("/dev/shm").unwrap();
        let volume = TestVolume::with_keys(directory, Arc::clone(&keys.service));
        let meter = Meter::default();
        let port = Arc::new(CountingPort {
            port: ServicePort::new(Arc::clone(&volume.keys)),
            meter: meter.clone(),
        });
        let open = match lies {
            Lies::OnADisk => open_observed,
            Lies::InMemory => open_observed_in_memory,
        };
        let backing = Backing::observed(Box::new(meter.clone()));
        let fs = open(
            &volume.cipher(),
            &volume.keys,
            port,
            Access::ReadWrite,
            backing,
        );
        let bed = Self {
            fs: fs.unwrap(),
            meter,
            _volume: volume,
        };
        let (node, handle) = bed.create("before", 8 * KIB);
        bed.fs.sync(handle, false).unwrap();
        bed.fs.write(handle, 0, &[1; 4096]).unwrap();
        bed.fs.release(handle);
        bed.settle(node);
        bed
    }

    fn cost<T>(&self, work: impl FnOnce(&FileSystem) -> T) -> Cost {
        self.meter.cost(|| work(&self.fs))
    }

    fn create(&self, name: &str, bytes: usize) -> (NodeId, HandleId) {
        let made = self
            .fs
            .create(caller(), ROOT_NODE, OsStr::new(name), MODE, WRITE);
        let (found, opened) = made.unwrap();
        if bytes > 0 {
            self.fs.write(opened.handle, 0, &vec![7; bytes]).unwrap();
        }
        (found.node, opened.handle)
    }

    fn create_temporary(&self) -> (NodeId, HandleId) {
        let made = self.fs.create_temporary(caller(), ROOT_NODE, MODE, WRITE);
        let (found, opened) = made.unwrap();
        (found.node, opened.handle)
    }

    /// A file that is closed and sealed, and that the transport remembers.
    fn file(&self, name: &str, bytes: usize) -> NodeId {
        let (node, handle) = self.create(name, bytes);
        self.fs.release(handle);
        self.fs.seal_now();
        node
    }

    /// As [`Bed::file`], but the transport has forgotten it.
    fn cold_file(&self, name: &str, bytes: usize) {
        let node = self.file(name, bytes);
        self.settle(node);
    }

    /// Seals what is closed, and has the transport forget this inode.
    fn settle(&self, node: NodeId) {
        self.fs.seal_now();
        self.fs.forget(node, 1);
    }

    /// An open handle on a sealed file.
    fn handle(&self, bytes: usize, flags: OpenFlags) -> (NodeId, HandleId) {
        let node = self.file("f", bytes);
        (node, self.open(node, flags))
    }

    fn open(&self, node: NodeId, flags: OpenFlags) -> HandleId {
        self.fs.open(caller(), node, flags).unwrap().handle
    }

    fn directory(&self, name: &str) -> NodeId {
        let made = self
            .fs
            .make_directory(caller(), ROOT_NODE, OsStr::new(name), MODE);
        made.unwrap().node
    }
}

fn lookup(fs: &FileSystem, parent: NodeId, name: &str) -> Result<Attributes, Errno> {
    fs.lookup(parent, OsStr::new(name))
        .map_err(|error| error.errno())
}

fn read(fs: &FileSystem, handle: HandleId, offset: u64, bytes: usize) {
    let mut buffer = vec![0; bytes];
    assert_eq!(fs.read(handle, offset, &mut buffer).unwrap(), bytes);
}

/// open, read, release of a small file.
fn read_file(fs: &FileSystem, node: NodeId) {
    let handle = fs.open(caller(), node, READ).unwrap().handle;
    read(fs, handle, 0, KIB);
    fs.release(handle);
}

fn set_size(fs: &FileSystem, node: NodeId, size: u64) {
    let changes = SetAttributes {
        size: Some(size),
        ..SetAttributes::default()
    };
    fs.set_attributes(caller(), node, None, &changes).unwrap();
}

fn rename(fs: &FileSystem, old: &str, new: &str) {
    let (old, new) = (OsStr::new(old), OsStr::new(new));
    fs.rename(ROOT_NODE, old, ROOT_NODE, new, RenameMode::Replace)
        .unwrap();
}

/// opendir, as many readdir as it takes, closedir. How many entries there were.
fn list(fs: &FileSystem, node: NodeId, plus: Option<Duration>) -> usize {
    let handle = fs.open_directory(node).unwrap();
    let mut count = 0;
    let mut receive = |_: cmkfs::fs::DirectoryEntry<'_>| {
        count += 1;
        Fill::Taken
    };
    if let Some(lately) = plus {
        fs.read_directory_plus(handle, 0, lately, &mut receive)
            .unwrap();
    } else {
        fs.read_directory(handle, 0, &mut receive).unwrap();
    }
    fs.release_directory(handle);
    count
}

/// What an entry adds to a listing of two, "." and "..".
fn entry_of_listing(bed: &Bed, plus: Option<Duration>) -> Cost {
    let directory = bed.directory("d");
    list(&bed.fs, directory, plus);
    let base = bed.cost(|fs| assert_eq!(list(fs, directory, plus), 2));
    for number in 0..100 {
        let name = format!("f{number}");
        let name = OsStr::new(&name);
        let made = bed.fs.create(caller(), directory, name, MODE, WRITE);
        let (found, opened) = made.unwrap();
        bed.fs.release(opened.handle);
        bed.settle(found.node);
    }
    if plus.is_some_and(|lately| !lately.is_zero()) {
        list(&bed.fs, directory, plus);
    }
    let all = bed.cost(|fs| assert_eq!(list(fs, directory, plus), 102));
    all.of_each(&base, 100)
}

fn seal_of(bed: &Bed, files: usize) -> Cost {
    for number in 0..files {
        let (_, handle) = bed.create(&format!("{number} of {files}"), KIB);
        bed.fs.release(handle);
    }
    bed.cost(FileSystem::seal_now)
}

type Operation = (&'static str, fn(&Bed) -> Cost);

/// All of them, in the order of the table.
pub const OPERATIONS: &[Operation] = &[
    ("lookup, there", |bed| {
        bed.cold_file("f", KIB);
        bed.cost(|fs| lookup(fs, ROOT_NODE, "f").unwrap())
    }),
    ("lookup, absent", |bed| {
        bed.cost(|fs| assert_eq!(lookup(fs, ROOT_NODE, "f").err(), Some(Errno::NOENT)))
    }),
    ("lookup, first in a directory", |bed| {
        let directory = bed.directory("d");
        bed.fs.forget(directory, 1);
        let directory = lookup(&bed.fs, ROOT_NODE, "d").unwrap().node;
        bed.cost(|fs| lookup(fs, directory, "f").err())
    }),
    ("getattr, closed", |bed| {
        let node = bed.file("f", KIB);
        bed.cost(|fs| fs.attributes(node, None).unwrap())
    }),
    ("getattr, open", |bed| {
        let (node, handle) = bed.handle(KIB, READ);
        bed.cost(|fs| fs.attributes(node, Some(handle)).unwrap())
    }),
    ("getxattr, absent, in the clear", |bed| {
        let node = bed.file("f", KIB);
        bed.cost(|fs| fs.get_xattr(node, OsStr::new("security.capability")).err())
    }),
    ("getxattr, absent, encrypted", |bed| {
        let node = bed.file("f", KIB);
        bed.cost(|fs| fs.get_xattr(node, OsStr::new("user.absent")).err())
    }),
    ("create", |bed| bed.cost(|_| bed.create("f", 0))),
    ("first write of 1 KiB", |bed| {
        let (_, handle) = bed.create("f", 0);
        bed.cost(|fs| fs.write(handle, 0, &[7; KIB]).unwrap())
    }),
    ("close of a new file", |bed| {
        let (_, handle) = bed.create("f", KIB);
        bed.cost(|fs| fs.release(handle))
    }),
    ("fsync of a new file", |bed| {
        let (_, handle) = bed.create("f", KIB);
        bed.cost(|fs| fs.sync(handle, false).unwrap())
    }),
    ("sealing, once", |bed| {
        // Each file more costs the same, so this is what is left of one.
        let (one, two) = (seal_of(bed, 1), seal_of(bed, 2));
        let each = two.of_each(&one, 1);
        one.of_each(&each, 1)
    }),
    ("sealing, each file", |bed| {
        let one = seal_of(bed, 1);
        seal_of(bed, 11).of_each(&one, 10)
    }),
    ("open, read 1 KiB, close, cold", |bed| {
        bed.cold_file("f", KIB);
        bed.cost(|fs| read_file(fs, lookup(fs, ROOT_NODE, "f").unwrap().node))
    }),
    ("open, read 1 KiB, close, again", |bed| {
        let node = bed.file("f", KIB);
        read_file(&bed.fs, node);
        bed.cost(|fs| read_file(fs, node))
    }),
    ("open, read 1 KiB, close, open elsewhere", |bed| {
        let (node, handle) = bed.handle(KIB, READ);
        read(&bed.fs, handle, 0, KIB);
        bed.cost(|fs| read_file(fs, node))
    }),
    ("read of 4 KiB, first in its group", |bed| {
        let (_, handle) = bed.handle(4 * MIB, READ);
        bed.cost(|fs| read(fs, handle, 3 << 20, 4 * KIB))
    }),
    ("read of 4 KiB", |bed| {
        let (_, handle) = bed.handle(MIB, READ);
        read(&bed.fs, handle, 0, 4 * KIB);
        bed.cost(|fs| read(fs, handle, 64 << 10, 4 * KIB))
    }),
    ("read of 1 MiB, first", |bed| {
        let (_, handle) = bed.handle(MIB, READ);
        bed.cost(|fs| read(fs, handle, 0, MIB))
    }),
    ("read of 1 MiB", |bed| {
        let (_, handle) = bed.handle(MIB, READ);
        read(&bed.fs, handle, 0, MIB);
        bed.cost(|fs| read(fs, handle, 0, MIB))
    }),
    ("write of 1 MiB, new file", |bed| {
        let (_, handle) = bed.create("f", 0);
        bed.cost(|fs| fs.write(handle, 0, &vec![7; MIB]).unwrap())
    }),
    ("write of 1 MiB, appended", |bed| {
        let (_, handle) = bed.create("f", MIB);
        bed.cost(|fs| fs.write(handle, 1 << 20, &vec![7; MIB]).unwrap())
    }),
    ("write of 4 KiB, appended", |bed| {
        let (_, handle) = bed.create("f", 8 * KIB);
        bed.cost(|fs| fs.write(handle, 8 << 10, &[7; 4 * KIB]).unwrap())
    }),
    ("write of 100 bytes, appended", |bed| {
        let (_, handle) = bed.create("f", 100);
        bed.cost(|fs| fs.write(handle, 100, &[7; 100]).unwrap())
    }),
    ("overwrite of 4 KiB, first", |bed| {
        let (_, handle) = bed.handle(MIB, WRITE);
        bed.cost(|fs| fs.write(handle, 64 << 10, &[9; 4 * KIB]).unwrap())
    }),
    ("overwrite of 4 KiB", |bed| {
        let (_, handle) = bed.handle(MIB, WRITE);
        bed.fs.write(handle, 0, &[9; 4 * KIB]).unwrap();
        bed.cost(|fs| fs.write(handle, 64 << 10, &[9; 4 * KIB]).unwrap())
    }),
    ("overwrite of 100 bytes", |bed| {
        let (_, handle) = bed.handle(MIB, WRITE);
        bed.fs.write(handle, 0, &[9; 4 * KIB]).unwrap();
        bed.cost(|fs| fs.write(handle, 64 << 10, &[9; 100]).unwrap())
    }),
    ("overwrite of 1 MiB", |bed| {
        let (_, handle) = bed.handle(2 * MIB, WRITE);
        bed.fs.write(handle, 0, &[9; 4 * KIB]).unwrap();
        bed.cost(|fs| fs.write(handle, 0, &vec![9; MIB]).unwrap())
    }),
    ("fdatasync after an overwrite", |bed| {
        let (_, handle) = bed.handle(MIB, WRITE);
        bed.fs.write(handle, 0, &[9; 4 * KIB]).unwrap();
        bed.fs.sync(handle, true).unwrap();
        bed.fs.write(handle, 0, &[9; 4 * KIB]).unwrap();
        bed.cost(|fs| fs.sync(handle, true).unwrap())
    }),
    ("fsync after an overwrite", |bed| {
        let (_, handle) = bed.handle(MIB, WRITE);
        bed.fs.write(handle, 0, &[9; 4 * KIB]).unwrap();
        bed.fs.sync(handle, false).unwrap();
        bed.fs.write(handle, 0, &[9; 4 * KIB]).unwrap();
        bed.cost(|fs| fs.sync(handle, false).unwrap())
    }),
    ("sealing after an overwrite", |bed| {
        let (_, handle) = bed.handle(MIB, WRITE);
        bed.fs.write(handle, 0, &[9; 4 * KIB]).unwrap();
        bed.fs.release(handle);
        bed.cost(FileSystem::seal_now)
    }),
    ("truncate to 0", |bed| {
        let node = bed.file("f", MIB);
        bed.cost(|fs| set_size(fs, node, 0))
    }),
    ("truncate to half", |bed| {
        let node = bed.file("f", MIB);
        bed.cost(|fs| set_size(fs, node, 1 << 19))
    }),
    ("truncate to twice", |bed| {
        let node = bed.file("f", MIB);
        bed.cost(|fs| set_size(fs, node, 2 << 20))
    }),
    ("punch of 64 KiB", |bed| {
        let (_, handle) = bed.handle(MIB, WRITE);
        let punch = |fs: &FileSystem| {
            let hole = AllocateMode::PunchHole;
            fs.allocate(handle, hole, 64 << 10, 64 << 10).unwrap();
        };
        bed.cost(punch)
    }),
    ("punch of 50 GiB, a hole", |bed| {
        let (node, handle) = bed.handle(MIB, WRITE);
        set_size(&bed.fs, node, 100 << 30);
        let punch = |fs: &FileSystem| {
            let hole = AllocateMode::PunchHole;
            fs.allocate(handle, hole, 1 << 30, 50 << 30).unwrap();
        };
        bed.cost(punch)
    }),
    ("SEEK_HOLE", |bed| {
        let (_, handle) = bed.handle(MIB, READ);
        bed.cost(|fs| fs.seek(handle, 0, Seek::Hole).unwrap())
    }),
    ("unlink, known", |bed| {
        bed.file("f", KIB);
        bed.cost(|fs| fs.remove_file(ROOT_NODE, OsStr::new("f")).unwrap())
    }),
    ("unlink, not known", |bed| {
        bed.cold_file("f", KIB);
        bed.cost(|fs| fs.remove_file(ROOT_NODE, OsStr::new("f")).unwrap())
    }),
    ("forget after unlink", |bed| {
        let node = bed.file("f", KIB);
        bed.fs.remove_file(ROOT_NODE, OsStr::new("f")).unwrap();
        bed.cost(|fs| fs.forget(node, 1))
    }),
    ("mkdir", |bed| bed.cost(|_| bed.directory("d"))),
    ("rmdir", |bed| {
        bed.directory("d");
        bed.cost(|fs| fs.remove_directory(ROOT_NODE, OsStr::new("d")).unwrap())
    }),
    ("rename", |bed| {
        bed.file("f", KIB);
        bed.cost(|fs| rename(fs, "f", "g"))
    }),
    ("rename over a file", |bed| {
        bed.file("f", KIB);
        bed.file("g", KIB);
        bed.cost(|fs| rename(fs, "f", "g"))
    }),
    ("link", |bed| {
        let node = bed.file("f", KIB);
        bed.cost(|fs| fs.link(node, ROOT_NODE, OsStr::new("g")).unwrap())
    }),
    ("create without a name", |bed| {
        bed.cost(|_| bed.create_temporary())
    }),
    ("first write of 4 KiB to a file without a name", |bed| {
        let (_, handle) = bed.create_temporary();
        bed.cost(|fs| fs.write(handle, 0, &[7; 4 * KIB]).unwrap())
    }),
    ("link of a file without a name", |bed| {
        let (node, handle) = bed.create_temporary();
        bed.fs.write(handle, 0, &[7; 4 * KIB]).unwrap();
        bed.cost(|fs| fs.link(node, ROOT_NODE, OsStr::new("f")).unwrap())
    }),
    ("close of a file without a name, forgotten", |bed| {
        let (node, handle) = bed.create_temporary();
        bed.fs.write(handle, 0, &[7; 4 * KIB]).unwrap();
        bed.fs.forget(node, 1);
        bed.cost(|fs| fs.release(handle))
    }),
    ("symlink", |bed| {
        let (name, target) = (OsStr::new("s"), OsStr::new("target"));
        bed.cost(|fs| fs.make_symlink(caller(), ROOT_NODE, name, target).unwrap())
    }),
    ("readlink", |bed| {
        let (name, target) = (OsStr::new("s"), OsStr::new("target"));
        let made = bed.fs.make_symlink(caller(), ROOT_NODE, name, target);
        let node = made.unwrap().node;
        bed.cost(|fs| fs.read_link(node).unwrap())
    }),
    ("readdir of an empty directory", |bed| {
        let directory = bed.directory("d");
        list(&bed.fs, directory, None);
        bed.cost(|fs| list(fs, directory, None))
    }),
    ("readdir, each entry", |bed| entry_of_listing(bed, None)),
    ("readdirplus of an empty directory", |bed| {
        let directory = bed.directory("d");
        list(&bed.fs, directory, Some(Duration::ZERO));
        bed.cost(|fs| list(fs, directory, Some(Duration::ZERO)))
    }),
    ("readdirplus, each entry", |bed| {
        entry_of_listing(bed, Some(Duration::ZERO))
    }),
    ("readdirplus, each entry told lately", |bed| {
        entry_of_listing(bed, Some(Duration::MAX))
    }),
];
