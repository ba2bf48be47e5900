//! What `cmkfs status --stats` says a mount was asked, against what it was asked.

mod common;

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt, symlink};
use std::path::Path;
use std::time::Instant;

use cmkfs::mount::control::protocol::{Failed, Reason, Request, Response, Status};
use cmkfs::mount::control::registry::Socket;
use cmkfs::mount::control::server::{Reporter, Server};
use common::{Volume, eventually};
use indicatif::{HumanBytes, HumanCount};
use rustix::fs::{SeekFrom, XattrFlags};
use rustix::io::Errno;
use serde_json::Value;

const PAGE: usize = 4096;

fn asked(volume: &Volume) -> Vec<Value> {
    let said = volume.succeed(&["status", "--stats", "MOUNTPOINT", "--output", "json"]);
    let said: Value = serde_json::from_str(&said).unwrap();
    said[0]["Operations"].as_array().expect("figures").clone()
}

fn number(operation: &Value, field: &str) -> u64 {
    operation[field].as_u64().expect("a number")
}

/// Count, errors and bytes of each operation.
fn figures(volume: &Volume) -> BTreeMap<String, [u64; 3]> {
    let figures = |operation: &Value| {
        let name = operation["Operation"].as_str().unwrap().to_owned();
        let all = ["Count", "Errors", "Bytes"].map(|field| number(operation, field));
        (name, all)
    };
    asked(volume).iter().map(figures).collect()
}

/// Does something, and checks that just these requests have come of it: count, errors, bytes. A request is counted when its
/// answer is sent already, so some may be awaited.
fn expect(volume: &Volume, requests: &[(&str, [u64; 3])], work: impl FnOnce()) {
    let before = figures(volume);
    work();
    let count = |figures: &BTreeMap<String, [u64; 3]>, name: &str| {
        figures.get(name).copied().unwrap_or_default()
    };
    eventually("all requests are counted", || {
        let now = figures(volume);
        let has_come = |(name, [more, ..]): &(&str, [u64; 3])| {
            count(&now, name)[0] >= count(&before, name)[0] + more
        };
        requests.iter().all(has_come)
    });
    let now = figures(volume);
    for (name, more) in requests {
        let (now, before) = (count(&now, name), count(&before, name));
        let came: Vec<_> = now.iter().zip(before).map(|(now, old)| now - old).collect();
        assert_eq!(came, more, "{name}: count, errors, bytes");
    }
}

/// Past the page cache, so that each call is one request.
fn direct(path: &Path) -> File {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true);
    options.custom_flags(libc::O_DIRECT).open(path).unwrap()
}

#[test]
fn names_are_counted_one_by_one_with_those_that_failed() {
    let volume = Volume::mounted();
    let requests = [
        ("mkdir", [2, 0, 0]),
        ("create", [2, 0, 0]),
        ("release", [2, 0, 0]),
        ("rename", [1, 0, 0]),
        ("link", [1, 0, 0]),
        ("symlink", [1, 0, 0]),
        ("readlink", [1, 0, 12]),
        ("rmdir", [2, 1, 0]),
        ("unlink", [1, 0, 0]),
        ("statfs", [1, 0, 0]),
    ];
    expect(&volume, &requests, || {
        for directory in ["a", "b"] {
            fs::create_dir(volume.path(directory)).unwrap();
        }
        for file in ["a/one", "a/two"] {
            drop(File::create(volume.path(file)).unwrap());
        }
        fs::rename(volume.path("a/one"), volume.path("a/three")).unwrap();
        fs::hard_link(volume.path("a/two"), volume.path("a/four")).unwrap();
        symlink("where/to/go!", volume.path("link")).unwrap();
        fs::read_link(volume.path("link")).unwrap();
        fs::remove_dir(volume.path("a")).unwrap_err();
        fs::remove_dir(volume.path("b")).unwrap();
        fs::remove_file(volume.path("a/two")).unwrap();
        rustix::fs::statvfs(volume.mountpoint()).unwrap();
    });
}

#[test]
fn a_name_that_is_not_there_is_looked_up_without_an_error() {
    let volume = Volume::mounted();
    expect(&volume, &[("lookup", [1, 0, 0])], || {
        fs::metadata(volume.path("nothing")).unwrap_err();
    });
}

#[test]
fn of_what_was_listed_lately_nothing_is_asked_again() {
    const FILES: u64 = 20;
    let volume = Volume::mounted();
    // What is closed after a listing is told again by the next.
    expect(&volume, &[("release", [FILES, 0, 0])], || {
        for number in 0..FILES {
            fs::write(volume.path(format!("{number}")), "abc").unwrap();
        }
    });
    // As `ls -l` does.
    let list = || {
        let mut seen = 0;
        for entry in fs::read_dir(volume.mountpoint()).unwrap() {
            let path = entry.unwrap().path();
            assert_eq!(fs::symlink_metadata(&path).unwrap().len(), 3);
            let acl = rustix::fs::lgetxattr(path, c"system.posix_acl_access", &mut [0; 64][..]);
            assert_eq!(acl, Err(Errno::NODATA));
            seen += 1;
        }
        assert_eq!(seen, FILES);
    };
    list();
    // fuser has no entries without attributes; with those the kernel forgets what it knows of ACLs.
    let acls = if volume.transport() == "fuser" {
        FILES
    } else {
        0
    };
    let requests = [
        ("opendir", [1, 0, 0]),
        ("lookup", [0, 0, 0]),
        // Of the directory: that it is read changes its time of access.
        ("getattr", [1, 0, 0]),
        ("getxattr", [acls, acls, 0]),
    ];
    expect(&volume, &requests, list);
}

#[test]
fn the_bytes_of_reads_and_writes_are_those_of_their_content() {
    let volume = Volume::mounted();
    let requests = [
        ("create", [1, 0, 0]),
        ("write", [7, 0, 7 * PAGE as u64]),
        ("read", [5, 0, 5 * PAGE as u64]),
        ("fsync", [3, 0, 0]),
        ("release", [1, 0, 0]),
    ];
    expect(&volume, &requests, || {
        let file = direct(&volume.path("file"));
        let mut page = vec![7; PAGE];
        for place in 0..7 {
            file.write_all_at(&page, place * PAGE as u64).unwrap();
        }
        for place in 0..5 {
            file.read_exact_at(&mut page, place * PAGE as u64).unwrap();
        }
        for _ in 0..3 {
            file.sync_all().unwrap();
        }
    });
    // Through the page cache the kernel decides in how many requests, but not how much.
    let content = vec![5; 3_000_001];
    let before = figures(&volume);
    fs::write(volume.path("cached"), &content).unwrap();
    File::open(volume.path("cached"))
        .unwrap()
        .sync_all()
        .unwrap();
    eventually("all of the content is counted", || {
        let written = figures(&volume)["write"][2] - before["write"][2];
        assert!(written <= content.len() as u64);
        written == content.len() as u64
    });
}

#[test]
fn extended_attributes_carry_their_values() {
    let volume = Volume::mounted();
    let path = volume.path("file");
    let (name, missing): (&CStr, &CStr) = (c"user.colour", c"user.none");
    let file = File::create(&path).unwrap();
    let requests = [
        ("setxattr", [2, 1, 5]),
        // The value, its size alone, one that is not there.
        ("getxattr", [3, 1, 5]),
        ("listxattr", [1, 0, 12]),
        ("removexattr", [2, 1, 0]),
    ];
    expect(&volume, &requests, || {
        let set = |flags| rustix::fs::fsetxattr(&file, name, b"green", flags);
        set(XattrFlags::CREATE).unwrap();
        assert_eq!(set(XattrFlags::CREATE), Err(Errno::EXIST));
        let mut room = [0_u8; 64];
        let get = |name, room: &mut [u8]| rustix::fs::fgetxattr(&file, name, room);
        assert_eq!(get(name, &mut room), Ok(5));
        assert_eq!(rustix::fs::fgetxattr_query(&file, name), Ok(5));
        assert_eq!(get(missing, &mut room), Err(Errno::NODATA));
        assert_eq!(rustix::fs::flistxattr(&file, &mut room), Ok(12));
        rustix::fs::fremovexattr(&file, name).unwrap();
        let again = rustix::fs::fremovexattr(&file, name);
        assert_eq!(again, Err(Errno::NODATA));
    });
}

/// A seek in a file that is being written is answered by another thread than the one that had it first.
#[test]
fn seeks_are_counted_once_whoever_answers_them() {
    let volume = Volume::mounted();
    fs::write(volume.path("file"), vec![1; PAGE]).unwrap();
    let reader = File::open(volume.path("file")).unwrap();
    expect(&volume, &[("lseek", [2, 1, 0])], || {
        let seek = |to| rustix::fs::seek(&reader, to);
        assert_eq!(seek(SeekFrom::Hole(0)), Ok(PAGE as u64));
        assert_eq!(seek(SeekFrom::Data(PAGE as u64)), Err(Errno::NXIO));
    });
    let writer = OpenOptions::new()
        .write(true)
        .open(volume.path("file"))
        .unwrap();
    writer.write_all_at(&[2; PAGE], PAGE as u64).unwrap();
    expect(&volume, &[("lseek", [2, 1, 0])], || {
        let seek = |to| rustix::fs::seek(&writer, to);
        assert_eq!(seek(SeekFrom::Hole(0)), Ok(2 * PAGE as u64));
        assert_eq!(seek(SeekFrom::Data(2 * PAGE as u64)), Err(Errno::NXIO));
    });
}

#[test]
fn times_lie_within_the_time_that_has_passed_and_the_longest_together_come_first() {
    let volume = Volume::new();
    let clock = Instant::now();
    volume.mount(&[]);
    let file = direct(&volume.path("file"));
    for place in 0..200 {
        file.write_all_at(&[3; PAGE], place * PAGE as u64).unwrap();
    }
    let operations = asked(&volume);
    let passed = u64::try_from(clock.elapsed().as_nanos()).unwrap();
    let mut last = u64::MAX;
    for operation in &operations {
        let [p50, p99, max, total] = ["P50", "P99", "Max", "Total"]
            .map(|name| number(operation, &format!("{name}Nanoseconds")));
        assert!(0 < p50 && p50 <= p99 && p99 <= max && max <= total);
        assert!(max <= passed && total <= last, "{operation}");
        assert!(total <= max.saturating_mul(number(operation, "Count")));
        last = total;
    }
    assert!(operations.len() >= 3, "{operations:?}");
}

/// What a cell of the table stands for, and how much of it the unit cuts off.
fn nanoseconds(cell: &str) -> (f64, f64) {
    let (value, unit) = cell.split_once(' ').unwrap();
    let unit = match unit {
        "ns" => 1.0,
        "µs" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        other => panic!("{other}"),
    };
    let step = if value.contains('.') { 0.1 } else { 1.0 };
    (value.parse::<f64>().unwrap() * unit, step * unit)
}

#[test]
fn the_table_says_in_units_what_json_says_exactly() {
    let volume = Volume::mounted();
    fs::write(volume.path("file"), vec![1; 100_000]).unwrap();
    File::open(volume.path("file")).unwrap().sync_all().unwrap();
    fs::remove_dir(volume.path("nothing")).unwrap_err();
    fs::remove_dir(volume.path("file")).unwrap_err();
    let mut said = (Vec::new(), String::new());
    // Nothing may have come between.
    eventually("the mount is at rest", || {
        let before = asked(&volume);
        let table = volume.succeed(&["status", "--stats", "MOUNTPOINT"]);
        said = (asked(&volume), table);
        said.0 == before
    });
    let (operations, table) = said;
    let rows = table
        .lines()
        .skip_while(|line| !line.starts_with("OPERATION"));
    let rows: Vec<Vec<_>> = rows
        .skip(1)
        .map(|row| {
            let cells = row.split("  ").map(str::trim);
            cells.filter(|cell| !cell.is_empty()).collect()
        })
        .collect();
    assert_eq!(rows.len(), operations.len(), "{table}");
    for (row, operation) in rows.iter().zip(&operations) {
        assert_eq!(row[0], operation["Operation"]);
        let counts = ["Count", "Errors"].map(|name| HumanCount(number(operation, name)));
        assert_eq!(row[1..3], counts.map(|count| count.to_string()));
        for (cell, name) in row[3..7].iter().zip(["Total", "P50", "P99", "Max"]) {
            #[allow(clippy::cast_precision_loss, reason = "seconds at most")]
            let exact = number(operation, &format!("{name}Nanoseconds")) as f64;
            let (shown, step) = nanoseconds(cell);
            let is_so = shown <= exact + 0.5 && exact < shown + step + 0.5;
            assert!(is_so, "{name} of {}: {cell} for {exact}", row[0]);
        }
        let bytes = number(operation, "Bytes");
        let bytes = (bytes > 0).then(|| HumanBytes(bytes).to_string());
        assert_eq!(row.get(7).copied(), bytes.as_deref());
    }
    let plain = volume.succeed(&["status", "MOUNTPOINT"]);
    assert!(!plain.contains("OPERATION"), "only where it is asked for");
    let json = volume.succeed(&["status", "--output", "json"]);
    assert!(!json.contains("Operations"), "{json}");
}

#[test]
fn every_mount_of_several_has_its_own_table() {
    let volume = Volume::mounted();
    let (cipher, plain) = (
        volume.folder().join("cipher2"),
        volume.folder().join("plain2"),
    );
    let (cipher, plain) = (cipher.to_str().unwrap(), plain.to_str().unwrap());
    volume.succeed(&["mount", "--init", cipher, plain]);
    fs::create_dir(volume.path("only-here")).unwrap();
    let table = volume.succeed(&["status", "--stats"]);
    let ours = [volume.mountpoint(), plain.into()].map(|path| path.display().to_string());
    let blocks = table.split("Source ").filter(|block| {
        let names = |path: &String| block.lines().any(|line| line.ends_with(path));
        ours.iter().any(names)
    });
    let blocks: Vec<_> = blocks.collect();
    assert_eq!(blocks.len(), 2, "{table}");
    assert!(blocks.iter().all(|block| block.contains("OPERATION")));
    let with = blocks.iter().filter(|block| block.contains("mkdir"));
    assert_eq!(with.count(), 1, "{table}");
    volume.succeed(&["unmount", plain]);
}

/// A mount of a version that does not know the question, played by a socket beside the real mount.
#[test]
fn a_mount_of_an_older_version_is_shown_with_what_to_do() {
    let volume = Volume::mounted();
    let keys = volume.folder().join("old");
    fs::create_dir(&keys).unwrap();
    let mountpoint = volume.mountpoint().to_str().unwrap().to_owned();
    let answer = move |request, _: &Reporter<'_>| match request {
        Request::Status => Response::Status(Status {
            process_id: std::process::id(),
            mountpoint: mountpoint.clone(),
            ciphertext: String::new(),
            volume_id: "00000000-0000-0000-0000-000000000001".parse().unwrap(),
            read_only: false,
            keys: Vec::new(),
            inodes: 1,
            open_files: 0,
            open_directories: 0,
            transport: None,
            confinement: Default::default(),
            locked_key_bytes: 0,
            unlocked_key_bytes: 0,
        }),
        other => Response::Failed(Failed {
            reason: Reason::Other,
            message: format!("this is no request: unknown variant `{other:?}`"),
        }),
    };
    let _old = Server::start(Socket::bind(&keys).unwrap(), answer).unwrap();
    let keys = keys.to_str().unwrap();
    let table = volume.succeed(&["--keys", keys, "status", "--stats", "MOUNTPOINT"]);
    assert!(
        table.contains("too old") && table.contains("mounted"),
        "{table}"
    );
    let json = [
        "--keys",
        keys,
        "status",
        "--stats",
        "MOUNTPOINT",
        "--output",
        "json",
    ];
    let said: Value = serde_json::from_str(&volume.succeed(&json)).unwrap();
    let why = said[0]["OperationsUnknown"].as_str().unwrap();
    assert!(why.contains("too old"), "{why}");
    assert_eq!(
        (&said[0]["Operations"], &said[0]["Inodes"]),
        (&Value::Null, &Value::from(1))
    );
}
