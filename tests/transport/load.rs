//! More than a transport has room for.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Barrier;

use cmkfs::sys::scheduling::Policy;
use rustix::fs::SeekFrom;

use super::common::daemon::Figures;
use super::common::{Volume, eventually, succeed};
use super::{TRANSPORTS, mounted};

/// Far more than there are workers, or entries in the rings of a queue.
const THREADS: usize = 100;

#[test]
fn more_programs_at_once_than_there_are_workers_are_all_answered() {
    for transport in TRANSPORTS {
        let volume = mounted(transport);
        let start = Barrier::new(THREADS);
        std::thread::scope(|scope| {
            for number in 0..THREADS {
                let path = volume.path(number.to_string());
                let start = &start;
                scope.spawn(move || {
                    let content = vec![u8::try_from(number).unwrap(); 200_000];
                    let file = File::create_new(&path).unwrap();
                    start.wait();
                    file.write_all_at(&content, 0).unwrap();
                    file.sync_all().unwrap();
                    assert!(fs::read(&path).unwrap() == content);
                });
            }
        });
        assert_eq!(fs::read_dir(volume.mountpoint()).unwrap().count(), THREADS);
    }
}

/// Each of these seeks waits for dirty pages to be written, which others have to take meanwhile.
#[test]
fn seeks_in_files_that_are_being_written_wait_for_their_pages_and_see_them() {
    const SEEKERS: usize = 20;
    for transport in TRANSPORTS {
        let volume = mounted(transport);
        let start = Barrier::new(SEEKERS);
        std::thread::scope(|scope| {
            for number in 0..SEEKERS {
                let path = volume.path(number.to_string());
                let start = &start;
                scope.spawn(move || {
                    // All in one queue, which is left without workers but for those that step in.
                    sit_on_the_first_processor();
                    let file = File::create_new(&path).unwrap();
                    start.wait();
                    for round in 0..5 {
                        let offset = (round * 10 + 5) << 20;
                        file.write_all_at(&[1; 4096], offset).unwrap();
                        let data = rustix::fs::seek(&file, SeekFrom::Data(offset - 4096)).unwrap();
                        assert_eq!(data, offset, "{transport}");
                        let hole = rustix::fs::seek(&file, SeekFrom::Hole(offset)).unwrap();
                        assert_eq!(hole, offset + 4096, "{transport}");
                    }
                });
            }
        });
    }
}

fn sit_on_the_first_processor() {
    let mut allowed = rustix::thread::sched_getaffinity(None).unwrap();
    let first = (0..rustix::thread::CpuSet::MAX_CPU).find(|number| allowed.is_set(*number));
    allowed.clear();
    allowed.set(first.unwrap());
    rustix::thread::sched_setaffinity(None, &allowed).unwrap();
}

#[test]
fn a_load_leaves_no_descriptor_handle_or_thread_behind() {
    for transport in TRANSPORTS {
        let volume = mounted(transport);
        work(&volume, "warm");
        let threads = |volume: &Volume| {
            let pid = volume.daemon().unwrap();
            fs::read_dir(format!("/proc/{pid}/task")).unwrap().count()
        };
        let (before, threads_before) = (Figures::of(&volume), threads(&volume));
        for round in 0..5 {
            work(&volume, &round.to_string());
        }
        eventually("all is closed", || {
            let now = Figures::of(&volume);
            now.open_files == 0 && now.open_directories == before.open_directories
        });
        // Closed files wait to be sealed with their descriptors.
        super::common::daemon::seal(&volume);
        eventually("no descriptor is left", || {
            Figures::of(&volume).descriptors <= before.descriptors
        });
        assert!(threads(&volume) <= threads_before, "{transport}");
    }
}

/// Where the threads of a process may run, and how they are ranked.
fn threads(process: u32) -> Vec<(String, Option<Policy>)> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let told = tasks.filter_map(|task| {
        let task = task.unwrap().path();
        let status = fs::read_to_string(task.join("status")).ok()?;
        let (_, rest) = status.split_once("Cpus_allowed_list:")?;
        let allowed = rest.lines().next()?.trim().to_owned();
        let stat = fs::read_to_string(task.join("stat")).ok()?;
        // The second field may have spaces in it.
        let (_, rest) = stat.rsplit_once(')')?;
        let policy: i32 = rest.split_whitespace().nth(38)?.parse().ok()?;
        let mut policies = [Policy::Other, Policy::Idle].into_iter();
        Some((allowed, policies.find(|one| one.number() == policy)))
    });
    told.collect()
}

#[test]
fn who_waits_for_nobody_in_particular_may_be_woken_on_any_processor() {
    let volume = mounted("device");
    let daemon = volume.daemon().unwrap();
    let before = threads(daemon);
    let (anywhere, _) = before.first().unwrap();
    for round in 0..3 {
        for number in 0..5_000 {
            let absent = volume.path(format!("{round} {number}"));
            absent.metadata().unwrap_err();
        }
        eventually("all threads are as they were", || {
            let mut now = threads(daemon).into_iter();
            now.all(|(allowed, policy)| allowed == *anywhere && policy == Some(Policy::Other))
        });
    }
}

fn work(volume: &Volume, name: &str) {
    let folder = volume.path(name);
    fs::create_dir(&folder).unwrap();
    std::thread::scope(|scope| {
        for number in 0..8 {
            let path = folder.join(number.to_string());
            scope.spawn(move || {
                fs::write(&path, [3; 100_000]).unwrap();
                assert_eq!(fs::read(&path).unwrap().len(), 100_000);
            });
        }
    });
    fs::remove_dir_all(&folder).unwrap();
}

/// A program whose pages must not take more than a few MiB writes and maps far more than that.
#[test]
fn a_program_with_little_memory_writes_and_reads_much() {
    const LIMIT: u64 = 24 << 20;
    for transport in TRANSPORTS {
        let volume = mounted(transport);
        let group = Group::new(LIMIT);
        let script = format!(
            "echo $$ > {}/cgroup.procs && dd if=/dev/zero bs=1M count=192 2>&1 | tr '\\0' x > {1} && \
             cmp -n 201326592 {1} {1}",
            group.0.display(),
            volume.path("big").display()
        );
        succeed(volume.program("sh").args(["-c", &script]));
        let length = fs::metadata(volume.path("big")).unwrap().len();
        assert!(length >= 192 << 20, "{transport}: {length}");
        let file = File::open(volume.path("big")).unwrap();
        let mut block = [0; 4096];
        for at in (0..192 << 20).step_by(1 << 20) {
            file.read_exact_at(&mut block, at).unwrap();
            assert!(
                block[100..].iter().all(|byte| *byte == b'x'),
                "{transport} at {at}"
            );
        }
    }
}

/// A memory cgroup, version 2 or 1.
struct Group(std::path::PathBuf);

impl Group {
    fn new(limit: u64) -> Self {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("cmkfs-test-{}-{number}", std::process::id());
        let root = Path::new("/sys/fs/cgroup");
        let (parent, file) = if root.join("cgroup.controllers").exists() {
            // Refused where it is on already for good.
            let _ = fs::write(root.join("cgroup.subtree_control"), "+memory");
            (root.to_owned(), "memory.max")
        } else {
            (root.join("memory"), "memory.limit_in_bytes")
        };
        let path = parent.join(name);
        fs::create_dir(&path).expect("memory cgroups, which this test needs");
        let group = Self(path);
        fs::write(group.0.join(file), limit.to_string()).expect("a limit of memory");
        group
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        eventually("the group is empty", || {
            fs::remove_dir(&self.0).is_ok() || !self.0.exists()
        });
    }
}

/// Processors go and come back while programs are at work; and one is missing when a mount begins.
#[test]
fn processors_that_go_and_come_take_nothing_with_them() {
    let Some(processor) = Processor::last() else {
        eprintln!("NOT TESTED: this machine cannot switch a processor off");
        return;
    };
    for transport in TRANSPORTS {
        let volume = mounted(transport);
        std::thread::scope(|scope| {
            let working =
                scope.spawn(|| (0..20).for_each(|round| work(&volume, &round.to_string())));
            while !working.is_finished() {
                processor.switch(false);
                std::thread::sleep(std::time::Duration::from_millis(50));
                processor.switch(true);
                std::thread::sleep(std::time::Duration::from_millis(50));
            }
        });
        work(&volume, "all are back");
        volume.unmount();
        processor.switch(false);
        super::mount(&volume, transport);
        work(&volume, "one is missing");
        processor.switch(true);
        work(&volume, "it has come");
        volume.unmount();
        volume.succeed(&["verify", "CIPHERDIR"]);
    }
}

/// A processor that can be switched off, and is on again afterwards.
struct Processor(std::path::PathBuf);

impl Processor {
    fn last() -> Option<Self> {
        let number = cmkfs::mount::processors::online().pop()?;
        let path = format!("/sys/devices/system/cpu/cpu{number}/online").into();
        let processor = Self(path);
        // Not the only one, and not where nobody may.
        (number > 0 && fs::write(&processor.0, "1").is_ok()).then_some(processor)
    }

    fn switch(&self, on: bool) {
        // EBUSY: somebody is bound to it who must not be moved.
        let _ = fs::write(&self.0, if on { "1" } else { "0" });
    }
}

impl Drop for Processor {
    fn drop(&mut self) {
        self.switch(true);
    }
}
