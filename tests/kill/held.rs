//! A mount whose workers can be held in the middle of a request: each logs the request that it has taken before it works on
//! it, and the log is a pipe, which can be full.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

use crate::common::{DEADLINE, POLL, Volume, eventually, stacks};

/// The smallest pipe: one page.
const ROOM: usize = 4096;

pub struct Held<'a> {
    volume: &'a Volume,
    daemon: Child,
    write: File,
    read: File,
    reader: Option<JoinHandle<Vec<u8>>>,
    stop: Arc<AtomicBool>,
}

impl<'a> Held<'a> {
    /// Mounts in the foreground; the log is read.
    pub fn mount(volume: &'a Volume) -> Self {
        let (read, log) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        assert_eq!(fcntl_setpipe_size(&log, ROOM).unwrap(), ROOM);
        // Of their own, so that the daemon's end is not made non-blocking.
        let again = |descriptor: i32, write: bool| {
            let mut options = File::options();
            options.read(!write).write(write);
            let options = options.custom_flags(libc::O_NONBLOCK);
            options.open(format!("/proc/self/fd/{descriptor}")).unwrap()
        };
        let write = again(log.as_raw_fd(), true);
        let read = again(read.as_raw_fd(), false);
        let mut command = volume.command(&["mount", "--foreground", "CIPHERDIR", "MOUNTPOINT"]);
        let daemon = command
            .env("CMKFS_LOG", "off,fuser=debug,cmkfs::mount::transport=trace")
            .stdout(Stdio::null())
            .stderr(Stdio::from(log))
            .spawn()
            .unwrap();
        let mut held = Self {
            volume,
            daemon,
            write,
            read,
            reader: None,
            stop: Arc::default(),
        };
        held.go_on();
        eventually("the mount is there", || {
            let mut look = volume.program("stat");
            let look = look.arg(volume.mountpoint()).stdout(Stdio::null());
            volume.is_mounted() && look.status().unwrap().success()
        });
        held
    }

    fn go_on(&mut self) {
        self.stop.store(false, Ordering::Relaxed);
        let (stop, mut log) = (Arc::clone(&self.stop), self.read.try_clone().unwrap());
        self.reader = Some(std::thread::spawn(move || {
            let mut said = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                // Nothing there, or nobody yet.
                let _ = log.read_to_end(&mut said);
                std::thread::sleep(POLL);
            }
            said
        }));
    }

    /// Reads no more, and returns what was logged.
    fn stop(&mut self) -> String {
        self.stop.store(true, Ordering::Relaxed);
        let said = self.reader.take().unwrap().join().unwrap();
        String::from_utf8_lossy(&said).into_owned()
    }

    /// How long the last line that names a request is.
    pub fn length_of(&mut self, request: &str) -> usize {
        let until = Instant::now() + DEADLINE;
        loop {
            let said = self.stop();
            self.go_on();
            if let Some(line) = said.lines().rfind(|line| line.contains(request)) {
                return line.len() + 1;
            }
            assert!(Instant::now() < until, "no {request} in {said:?}");
            std::thread::sleep(POLL);
        }
    }

    /// Holds every worker at its next request, when so many bytes more have been logged.
    pub fn hold(&mut self, room: usize) {
        self.stop();
        let filling = vec![b'.'; ROOM - room];
        eventually("the log is full", || {
            let _ = self.read.read_to_end(&mut Vec::new());
            self.write.write(&filling).is_ok_and(|n| n == filling.len())
        });
    }

    /// Waits until a worker is held with a request in its hands.
    pub fn wait_for_worker(&self) {
        self.wait_for_thread(&["fuser-", "cmkfs-worker"], "pipe_write");
    }

    /// Waits until a thread of the daemon with one of these names is where its kernel stack says this.
    pub fn wait_for_thread(&self, names: &[&str], place: &str) {
        let is_there = |thread: &std::path::Path| {
            let read = |file: &str| fs::read_to_string(thread.join(file)).unwrap_or_default();
            let is_one = names.iter().any(|name| read("comm").starts_with(name));
            is_one && read("stack").contains(place)
        };
        let pid = self.volume.daemon().expect("a daemon");
        let until = Instant::now() + DEADLINE;
        let threads = || fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        while !threads().flatten().any(|thread| is_there(&thread.path())) {
            let is_late = Instant::now() >= until;
            assert!(
                !is_late,
                "none of {names:?} is in {place}:\n{}",
                stacks(pid)
            );
            std::thread::sleep(POLL);
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if self.reader.is_some() {
            self.stop();
        }
        // Whoever waits for the log is let go.
        let _ = self.read.read_to_end(&mut Vec::new());
        let _ = self.daemon.kill();
        let until = Instant::now() + DEADLINE;
        while matches!(self.daemon.try_wait(), Ok(None)) && Instant::now() < until {
            std::thread::sleep(POLL);
        }
    }
}
