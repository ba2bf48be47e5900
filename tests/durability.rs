//! What fsync makes durable, told by the syncs of the backing that it makes.

mod support;

use std::ffi::OsStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cmkfs::fs::backing::{Backing, Call, Observer};
use cmkfs::fs::{Caller, FileSystem, NewMode, NodeId, OpenFlags, ROOT_NODE};
use cmkfs::volume::{self, Access};
use rustix::io::Errno;
use support::TestVolume;

struct Syncs(Arc<AtomicUsize>);

impl Observer for Syncs {
    fn before(&self, call: Call) -> Result<(), Errno> {
        if call == Call::Sync {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}

const MODE: NewMode = NewMode {
    permissions: 0o700,
    umask: 0,
};

fn caller() -> Caller {
    Caller {
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        pid: 0,
    }
}

fn make_directory(fs: &FileSystem, parent: NodeId, name: &str) -> NodeId {
    fs.make_directory(caller(), parent, OsStr::new(name), MODE)
        .unwrap()
        .node
}

/// Syncs that fsync of a new file in `parent` makes.
fn syncs_of_a_file_in(fs: &FileSystem, parent: NodeId, name: &str, syncs: &AtomicUsize) -> usize {
    let write = OpenFlags {
        write: true,
        truncate: false,
    };
    let created = fs.create(caller(), parent, OsStr::new(name), MODE, write);
    let handle = created.unwrap().1.handle;
    fs.write(handle, 0, b"data").unwrap();
    let before = syncs.load(Ordering::Relaxed);
    fs.sync(handle, false).unwrap();
    let made = syncs.load(Ordering::Relaxed) - before;
    fs.release(handle);
    made
}

#[test]
fn fsync_reaches_the_headers_above_even_if_the_kernel_forgot_the_directories_meanwhile() {
    let volume = TestVolume::new();
    let syncs = Arc::new(AtomicUsize::new(0));
    let observer = Backing::observed(Box::new(Syncs(Arc::clone(&syncs))));
    let port = Arc::new(volume::keys::ServicePort::new(Arc::clone(&volume.keys)));
    let fs = volume::open_observed(
        &volume.cipher(),
        &volume.keys,
        port,
        Access::ReadWrite,
        observer,
    )
    .unwrap();
    let outer = make_directory(&fs, ROOT_NODE, "outer");
    let inner = make_directory(&fs, outer, "inner");
    fs.forget(inner, 1);
    fs.forget(outer, 1);
    let outer = fs.lookup(ROOT_NODE, OsStr::new("outer")).unwrap().node;
    let inner = fs.lookup(outer, OsStr::new("inner")).unwrap().node;
    // The file, header and entries of both directories, and the entries of the one that was there before.
    assert_eq!(syncs_of_a_file_in(&fs, inner, "first", &syncs), 6);
    // Once is enough.
    assert_eq!(syncs_of_a_file_in(&fs, inner, "second", &syncs), 1);

    // What the background has synced need not be synced again, and is let go.
    let other = make_directory(&fs, ROOT_NODE, "other");
    fs.shutdown().unwrap();
    assert_eq!(syncs_of_a_file_in(&fs, other, "third", &syncs), 1);
    let gone = make_directory(&fs, ROOT_NODE, "gone");
    fs.forget(gone, 1);
    fs.remove_directory(ROOT_NODE, OsStr::new("gone")).unwrap();
    assert_eq!(fs.attributes(gone, None).unwrap_err().errno(), Errno::STALE);
}
