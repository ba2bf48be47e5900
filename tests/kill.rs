//! The daemon is killed with SIGKILL in the middle of writes, round after round on the same volume: every byte that was
//! acknowledged is there, and every block reads as it was before or after the write in flight. And wherever the daemon and the
//! kernel wait for each other when it is killed, nobody hangs.

mod common;
#[path = "kill/held.rs"]
mod held;

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use common::{Volume, eventually, succeed};
use held::Held;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

const ROUNDS: u32 = 50;
const BLOCK: usize = 4096;
/// Blocks of the file that is overwritten: several groups.
const BLOCKS: usize = 400;
const WRITERS: usize = 2;

/// What may be found in a block: the version acknowledged last, or one that was under way when the daemon died.
#[derive(Clone, Debug, Default)]
struct Expected {
    acknowledged: u64,
    under_way: Option<u64>,
}

/// A page-aligned block-sized buffer is what O_DIRECT wants; a run of them lies in one allocation.
struct Pages {
    bytes: Vec<u8>,
    start: usize,
}

impl Pages {
    fn new(blocks: usize) -> Self {
        let bytes = vec![0_u8; (blocks + 1) * BLOCK];
        let start = bytes.as_ptr().align_offset(BLOCK);
        Self { bytes, start }
    }

    fn get(&mut self, blocks: usize) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + blocks * BLOCK]
    }
}

/// The content of a block at a version: every byte follows from both.
fn fill(block: usize, version: u64, page: &mut [u8]) {
    let seed = version.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ block as u64;
    for (i, word) in page.chunks_exact_mut(8).enumerate() {
        word.copy_from_slice(&seed.wrapping_add(i as u64).to_le_bytes());
    }
}

fn holds(block: usize, version: u64, page: &[u8]) -> bool {
    let mut expected = [0; BLOCK];
    if version > 0 {
        fill(block, version, &mut expected);
    }
    page == expected
}

fn open(path: &Path, flags: i32) -> std::io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .custom_flags(flags)
        .open(path)
}

/// Overwrites runs of blocks between `first` and `end` until the daemon is gone. Directly: what write(2) acknowledges has
/// passed through the daemon.
fn overwrite(
    path: &Path,
    (first, end): (usize, usize),
    expected: &Mutex<Vec<Expected>>,
    versions: &AtomicU64,
    acknowledged: &AtomicU64,
    mut choose: impl FnMut(usize) -> usize,
) {
    // The daemon may be dead before this thread has begun.
    let Ok(file) = open(path, libc::O_DIRECT) else {
        return;
    };
    let mut pages = Pages::new(end - first);
    loop {
        let start = first + choose(end - first);
        let longest = if choose(4) == 0 { 150 } else { 3 };
        let count = 1 + choose((end - start).min(longest));
        let version = versions.fetch_add(1, Ordering::Relaxed);
        let data = pages.get(count);
        for (page, block) in data.chunks_exact_mut(BLOCK).zip(start..) {
            fill(block, version, page);
            expected.lock().unwrap()[block].under_way = Some(version);
        }
        if file.write_all_at(data, (start * BLOCK) as u64).is_err() {
            return;
        }
        for block in &mut expected.lock().unwrap()[start..start + count] {
            *block = Expected {
                acknowledged: version,
                under_way: None,
            };
        }
        acknowledged.fetch_add(1, Ordering::Relaxed);
    }
}

/// Appends lines through the page cache and syncs each; the last line number that was synced.
fn append(path: &Path, mut line: u64, synced: &AtomicU64) {
    let Ok(file) = open(path, 0) else { return };
    loop {
        line += 1;
        let text = format!("{line:015}\n");
        let done = file
            .write_all_at(text.as_bytes(), (line - 1) * 16)
            .and_then(|()| file.sync_data());
        if done.is_err() {
            return;
        }
        synced.store(line, Ordering::Relaxed);
    }
}

fn check(volume: &Volume, expected: &mut [Expected], synced: u64) {
    let content = std::fs::read(volume.path("blocks")).unwrap();
    assert_eq!(content.len(), BLOCKS * BLOCK);
    for ((block, page), expected) in content.chunks_exact(BLOCK).enumerate().zip(expected) {
        let candidates = [Some(expected.acknowledged), expected.under_way];
        let found = candidates
            .into_iter()
            .flatten()
            .find(|version| holds(block, *version, page));
        let found =
            found.unwrap_or_else(|| panic!("block {block} is neither old nor new: {expected:?}"));
        *expected = Expected {
            acknowledged: found,
            under_way: None,
        };
    }
    let lines = std::fs::read_to_string(volume.path("lines")).unwrap();
    let numbers: Vec<u64> = lines.lines().map(|line| line.parse().unwrap()).collect();
    assert!(
        numbers.len() as u64 >= synced,
        "{} lines of {synced} that were synced",
        numbers.len()
    );
    assert!(
        numbers.iter().copied().eq(1..=numbers.len() as u64),
        "every line whole and in its place"
    );
}

#[test]
fn a_killed_daemon_loses_nothing_it_acknowledged() {
    let volume = Volume::mounted();
    open(&volume.path("blocks"), 0)
        .unwrap()
        .set_len((BLOCKS * BLOCK) as u64)
        .unwrap();
    let mut expected = vec![Expected::default(); BLOCKS];
    let versions = AtomicU64::new(1);
    let synced = AtomicU64::new(0);
    File::create(volume.path("lines")).unwrap();
    let mut random = TestRunner::new_with_rng(
        Config::default(),
        TestRng::deterministic_rng(RngAlgorithm::ChaCha),
    );
    for round in 0..ROUNDS {
        let kill_after = (1..200_u64).new_tree(&mut random).unwrap().current();
        let acknowledged = AtomicU64::new(0);
        let shared = Mutex::new(std::mem::take(&mut expected));
        let lines = std::fs::metadata(volume.path("lines")).unwrap().len() / 16;
        std::thread::scope(|scope| {
            for writer in 0..WRITERS {
                let part = BLOCKS / WRITERS;
                let range = (writer * part, (writer + 1) * part);
                let mut state = u64::from(round) << 8 | writer as u64 | 1;
                let choose = move |below: usize| {
                    // xorshift: any spread will do.
                    state ^= state << 13;
                    state ^= state >> 7;
                    state ^= state << 17;
                    (state % below as u64) as usize
                };
                let (volume, shared, versions, acknowledged) =
                    (&volume, &shared, &versions, &acknowledged);
                scope.spawn(move || {
                    overwrite(
                        &volume.path("blocks"),
                        range,
                        shared,
                        versions,
                        acknowledged,
                        choose,
                    );
                });
            }
            let (lines_path, synced) = (volume.path("lines"), &synced);
            scope.spawn(move || append(&lines_path, lines, synced));
            volume.while_used(|| {
                eventually("enough was written", || {
                    acknowledged.load(Ordering::Relaxed) >= kill_after
                });
                volume.kill();
            });
        });
        expected = shared.into_inner().unwrap();
        volume.mount(&[]);
        check(&volume, &mut expected, synced.load(Ordering::Relaxed));
        if round % 10 == 9 {
            // And after a clean end nothing of the recovery is left to see.
            volume.remount();
            check(&volume, &mut expected, synced.load(Ordering::Relaxed));
        }
    }
}

/// A command that withdraws the volume's key, under way.
fn withdrawing(volume: &Volume) -> Child {
    volume
        .command(&["key", "disable", "alias/cmkfs/default"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// The daemon is killed: it dies, whoever waited for it goes on, and the next mount works.
fn killed(volume: &Volume, command: Option<Child>) {
    volume.kill();
    if let Some(mut command) = command {
        eventually("the command has ended", || {
            command.try_wait().unwrap().is_some()
        });
    }
    eventually("nobody answers", || {
        let said = shell(volume, "stat -f plain").output().unwrap();
        String::from_utf8_lossy(&said.stderr).contains("not connected")
    });
    assert!(volume.is_mounted(), "a dead mount stays");
    volume.succeed(&["key", "enable", "alias/cmkfs/default"]);
    volume.mount(&[]);
    let script = "echo new > plain/file; cat plain/file";
    assert_eq!(succeed(&mut shell(volume, script)), "new\n");
}

/// A script of the volume's user.
fn shell(volume: &Volume, script: &str) -> Command {
    let mut shell = volume.program("sh");
    shell.env("LC_ALL", "C").args(["-c", script]);
    shell
}

#[test]
fn a_daemon_that_is_killed_while_pages_are_written_back_leaves_nobody_hanging() {
    let volume = Volume::new();
    let mut held = Held::mount(&volume);
    std::fs::write(volume.path("file"), vec![1; 1 << 20]).unwrap();
    held.hold(0);
    let command = withdrawing(&volume);
    held.wait_for_thread(&["cmkfs-writeback"], "");
    held.wait_for_worker();
    killed(&volume, Some(command));
}

#[test]
fn a_daemon_that_is_killed_while_a_page_under_read_is_dropped_leaves_nobody_hanging() {
    let volume = Volume::new();
    killed_while_a_page_is_dropped(&volume);
}

/// Where the kernel's files for connections are.
struct Connections(bool);

impl Connections {
    fn new() -> Self {
        let path = "/sys/fs/fuse/connections";
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let is_there = mounts.lines().any(|line| line.contains(path));
        if !is_there {
            let flags = rustix::mount::MountFlags::empty();
            rustix::mount::mount("none", path, "fusectl", flags, None).unwrap();
        }
        Self(!is_there)
    }
}

impl Drop for Connections {
    fn drop(&mut self) {
        if self.0 {
            let flags = rustix::mount::UnmountFlags::DETACH;
            let _ = rustix::mount::unmount("/sys/fs/fuse/connections", flags);
        }
    }
}

#[test]
fn an_ordinary_users_daemon_that_is_killed_leaves_nobody_hanging_where_the_kernel_shows_connections()
 {
    let _connections = Connections::new();
    let volume = Volume::bare(Some((65534, 65534)));
    volume.succeed(&["init", "CIPHERDIR"]);
    succeed(volume.program("mkdir").arg(volume.mountpoint()));
    killed_while_a_page_is_dropped(&volume);
}

fn killed_while_a_page_is_dropped(volume: &Volume) {
    volume.mount(&[]);
    succeed(&mut shell(volume, "head -c 100000 /dev/zero > plain/file"));
    volume.unmount();
    let mut held = Held::mount(volume);
    // Closing is asked of the daemon once, and never again, or ending would have to wait for it.
    let script = ": < plain/file; exec 3< plain/file; echo open; read go; head -c 4096 <&3 2>&1";
    let mut reader = shell(volume, script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(reader.stdout.take().unwrap()).lines();
    assert_eq!(said.next().unwrap().unwrap(), "open");
    held.hold(0);
    volume.while_used(|| {
        reader.stdin.take().unwrap().write_all(b"\n").unwrap();
        held.wait_for_worker();
        let command = withdrawing(volume);
        held.wait_for_thread(&["cmkfs-"], "fuse_reverse_inval_inode");
        killed(volume, Some(command));
    });
    let said = said.next().unwrap().unwrap();
    assert!(said.contains("error reading"), "{said}");
    assert!(!reader.wait().unwrap().success());
}

#[test]
fn a_daemon_that_is_killed_while_a_seek_waits_for_pages_leaves_nobody_hanging() {
    let volume = Volume::new();
    let mut held = Held::mount(&volume);
    let file = File::create(volume.path("file")).unwrap();
    let seek = || rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(0));
    file.write_all_at(&[1; 8192], 0).unwrap();
    assert_eq!(seek(), Ok(8192));
    // The seek is taken by a worker, and handed on to who asks the kernel: what that asks for is taken by another.
    let line = held.length_of("LSEEK");
    file.write_all_at(&[1; 8192], 8192).unwrap();
    held.hold(line + 10);
    std::thread::scope(|scope| {
        let seeking = scope.spawn(seek);
        volume.while_used(|| {
            held.wait_for_worker();
            killed(&volume, None);
        });
        assert!(seeking.join().unwrap().is_err());
    });
}
