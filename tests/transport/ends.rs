//! The end of a mount that is being written to and read from: nobody hangs, and nothing that was acknowledged is lost.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::Signal;

use super::common::{Volume, eventually};
use super::{TRANSPORTS, mount, mounted};

/// Threads of each kind.
const THREADS: usize = 3;

/// Programs at work on a mount until they are told to stop or get an error.
struct Load<'a> {
    mountpoint: PathBuf,
    stop: &'a AtomicBool,
    /// Rounds of each writer that fsync(2) has acknowledged.
    acknowledged: [AtomicU64; THREADS],
    reads: AtomicU64,
}

impl<'a> Load<'a> {
    fn new(volume: &Volume, stop: &'a AtomicBool) -> Self {
        Self {
            mountpoint: volume.mountpoint(),
            stop,
            acknowledged: Default::default(),
            reads: AtomicU64::new(0),
        }
    }

    fn path(&self, writer: usize) -> PathBuf {
        self.mountpoint.join(format!("file {writer}"))
    }

    /// Appends numbers, each acknowledged by fsync(2) before the next.
    fn write(&self, writer: usize) -> io::Result<()> {
        let mut file = File::create(self.path(writer))?;
        for round in 1.. {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            file.write_all(format!("{round:0>15}\n").repeat(256).as_bytes())?;
            file.sync_all()?;
            self.acknowledged[writer].store(round, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Makes, lists, reads and removes.
    fn rummage(&self, number: usize) -> io::Result<()> {
        let folder = self.mountpoint.join(format!("folder {number}"));
        while !self.stop.load(Ordering::Relaxed) {
            fs::create_dir(&folder)?;
            for name in 0..20 {
                fs::write(folder.join(name.to_string()), [7; 10_000])?;
            }
            for entry in fs::read_dir(&folder)? {
                assert_eq!(fs::read(entry?.path())?, [7; 10_000]);
            }
            fs::remove_dir_all(&folder)?;
            self.reads.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Runs it while `end` brings the mount to its end. What each thread came to.
    fn run(&self, end: impl FnOnce()) -> Vec<io::Result<()>> {
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS)
                .flat_map(|number| {
                    [
                        scope.spawn(move || self.write(number)),
                        scope.spawn(move || self.rummage(number)),
                    ]
                })
                .collect();
            let _stopped = Stopped(self.stop);
            eventually("all are at work", || {
                let has_begun = |count: &AtomicU64| count.load(Ordering::Relaxed) > 0;
                self.acknowledged.iter().all(has_begun) && has_begun(&self.reads)
            });
            end();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        })
    }

    /// All that was acknowledged is there.
    fn check(&self) {
        for writer in 0..THREADS {
            let acknowledged = self.acknowledged[writer].load(Ordering::Relaxed);
            let mut block = [0; 4096];
            let file = File::open(self.path(writer)).unwrap();
            for round in 1..=acknowledged {
                file.read_exact_at(&mut block, (round - 1) * 4096).unwrap();
                let expected = format!("{round:0>15}\n").repeat(256);
                assert!(
                    block == expected.as_bytes(),
                    "round {round} of {acknowledged}"
                );
            }
        }
    }
}

/// Has the load end, also where a test fails in the middle of it.
struct Stopped<'a>(&'a AtomicBool);

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_busy_mount_is_not_unmounted_but_detached_by_sigterm_and_nothing_is_lost() {
    for transport in TRANSPORTS {
        let volume = mounted(transport);
        let stop = AtomicBool::new(false);
        let load = Load::new(&volume, &stop);
        let results = load.run(|| {
            let said = volume.fail(&["unmount", "MOUNTPOINT"]);
            assert!(said.contains("is in use by"), "{said}");
            volume.signal(Signal::TERM);
            eventually("it is detached", || !volume.is_mounted());
            stop.store(true, Ordering::Relaxed);
        });
        // Writers go on with the files that they have open; whoever works by names finds none any more.
        for result in results.into_iter().step_by(2) {
            result.unwrap();
        }
        volume.wait_until_free();
        mount(&volume, transport);
        load.check();
        volume.unmount();
        volume.succeed(&["verify", "CIPHERDIR"]);
    }
}

#[test]
fn a_daemon_that_is_killed_at_work_leaves_errors_and_no_hang() {
    for transport in TRANSPORTS {
        let volume = mounted(transport);
        for _ in 0..3 {
            let stop = AtomicBool::new(false);
            let load = Load::new(&volume, &stop);
            for result in load.run(|| volume.kill()) {
                let error = result.expect_err("nobody answers any more");
                assert!(is_of_a_dead_mount(&error), "{error}");
            }
            mount(&volume, transport);
            load.check();
            for entry in fs::read_dir(volume.mountpoint()).unwrap() {
                let path = entry.unwrap().path();
                let removed = if path.is_dir() {
                    fs::remove_dir_all(&path)
                } else {
                    fs::remove_file(&path)
                };
                removed.unwrap();
            }
        }
        volume.unmount();
        volume.succeed(&["verify", "CIPHERDIR", "--repair"]);
        volume.succeed(&["verify", "CIPHERDIR"]);
    }
}

#[test]
fn a_connection_that_is_aborted_ends_the_daemon_with_errors_and_no_hang() {
    let control = Control::mounted();
    for transport in TRANSPORTS {
        let volume = mounted(transport);
        let stop = AtomicBool::new(false);
        let load = Load::new(&volume, &stop);
        let minor = rustix::fs::minor(volume.mountpoint().metadata().unwrap().dev());
        for result in load.run(|| control.abort(minor)) {
            let error = result.expect_err("nobody answers any more");
            // Whoever asked for nothing just then finds the mount detached, and an empty directory in its place. What was
            // acknowledged is looked for below.
            let is_detached = error.kind() == io::ErrorKind::NotFound && !volume.is_mounted();
            assert!(is_of_a_dead_mount(&error) || is_detached, "{error}");
        }
        volume.wait_until_free();
        mount(&volume, transport);
        load.check();
        volume.unmount();
        volume.succeed(&["verify", "CIPHERDIR"]);
    }
}

#[test]
fn mounts_come_and_go_without_a_rest() {
    for transport in TRANSPORTS {
        let volume = mounted(transport);
        for round in 0..10 {
            fs::write(volume.path(round.to_string()), [1; 5000]).unwrap();
            volume.unmount();
            mount(&volume, transport);
        }
        for round in 0..10 {
            assert_eq!(fs::read(volume.path(round.to_string())).unwrap(), [1; 5000]);
        }
    }
}

/// EIO is what a page says that could not be written; ECANCELED what the kernel says of a request on its way into a ring.
fn is_of_a_dead_mount(error: &io::Error) -> bool {
    let known = [
        libc::ENOTCONN,
        libc::ECONNABORTED,
        libc::ECANCELED,
        libc::EIO,
    ];
    error
        .raw_os_error()
        .is_some_and(|errno| known.contains(&errno))
}

/// The kernel's directory of FUSE connections.
struct Control(tempfile::TempDir);

impl Control {
    fn mounted() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let flags = rustix::mount::MountFlags::empty();
        rustix::mount::mount("none", folder.path(), "fusectl", flags, None).unwrap();
        Self(folder)
    }

    fn abort(&self, connection: u32) {
        let path = self.0.path().join(connection.to_string()).join("abort");
        fs::write(path, "1").unwrap();
        // Long enough for whoever would be stuck to be.
        std::thread::sleep(Duration::from_millis(50));
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let path: &Path = self.0.path();
        let _ = rustix::mount::unmount(path, rustix::mount::UnmountFlags::DETACH);
    }
}
