//! Clients of the control socket that mean no good.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Gid, Uid};

use crate::common::Volume;

fn socket(volume: &Volume) -> PathBuf {
    let folder = volume.folder().join("keys/mounts");
    let mut entries = fs::read_dir(folder).unwrap();
    let entry = entries.find_map(|entry| {
        let path = entry.unwrap().path();
        path.extension()
            .is_some_and(|extension| extension == "sock")
            .then(|| path.file_name().unwrap().to_owned())
    });
    // A socket's address has little room.
    let short = volume.folder().join("s");
    if fs::symlink_metadata(&short).is_err() {
        std::os::unix::fs::symlink("keys/mounts", &short).unwrap();
    }
    short.join(entry.unwrap())
}

fn connect(path: &Path) -> UnixStream {
    let stream = UnixStream::connect(path).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    stream
}

/// The mount goes on, and answers others at once.
fn assert_answers(volume: &Volume) {
    let start = Instant::now();
    let said = volume.succeed(&["status", "MOUNTPOINT"]);
    assert!(said.contains("LEASE"), "it has not answered: {said}");
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
    fs::write(volume.path("file"), "x").unwrap();
}

#[test]
fn another_user_is_turned_away_though_the_path_lets_him_in() {
    let volume = Volume::mounted();
    let socket = socket(&volume);
    let real = socket.canonicalize().unwrap();
    for path in real.ancestors().take(4) {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
    }
    let ask = |path: &Path| {
        let mut stream = connect(path);
        let asked = stream.write_all(b"{\"Request\":\"Status\"}\n");
        let mut answer = String::new();
        // Turned away before or after it could ask.
        let heard = asked.and_then(|()| stream.read_to_string(&mut answer));
        (heard, answer)
    };
    let (_, answer) = ask(&socket);
    assert!(
        answer.contains("MountPoint") || answer.contains("Mountpoint"),
        "{answer}"
    );
    let of_another = std::thread::spawn({
        let socket = socket.clone();
        move || {
            // Of this thread only.
            let (user, group) = (Uid::from_raw(1002), Gid::from_raw(2002));
            rustix::thread::set_thread_res_gid(group, group, group).unwrap();
            rustix::thread::set_thread_res_uid(user, user, user).unwrap();
            ask(&socket).1
        }
    });
    assert_eq!(of_another.join().unwrap(), "");
    assert!(
        volume.log().contains("user 1002 was turned away"),
        "{}",
        volume.log()
    );
    fs::set_permissions(
        volume.folder().join("keys"),
        fs::Permissions::from_mode(0o700),
    )
    .unwrap();
    assert_answers(&volume);
}

#[test]
fn garbage_half_requests_and_silence_keep_nobody_else_waiting() {
    let volume = Volume::mounted();
    let socket = socket(&volume);
    for garbage in [
        &b"\0\xff\xfe garbage\n"[..],
        b"\n",
        b"[]\n",
        b"{\"Request\":\"Explode\"}\n",
        &[b' '; 1 << 20],
    ] {
        let mut stream = connect(&socket);
        // It may have hung up before it has heard all.
        let _ = stream.write_all(garbage);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.is_empty() || answer.contains("Failed"), "{answer}");
    }
    assert_answers(&volume);
    let silent: Vec<_> = (0..200).map(|_| connect(&socket)).collect();
    assert_answers(&volume);
    let half: Vec<_> = (0..200)
        .map(|_| {
            let mut stream = connect(&socket);
            // Those that came first have been turned away by now.
            let _ = stream.write_all(b"{\"Request\":");
            stream
        })
        .collect();
    assert_answers(&volume);
    drop((silent, half));
}

#[test]
fn thousands_of_connections_cost_no_memory_and_no_descriptors() {
    let volume = Volume::mounted();
    let socket = socket(&volume);
    let pid = volume.daemon().unwrap().to_string();
    let figures = || {
        let resident = crate::status_of(&pid, "VmRSS");
        let resident: u64 = resident.trim_end_matches(" kB").parse().unwrap();
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
        (resident, descriptors)
    };
    let (memory, descriptors) = figures();
    for n in 0..5000_u32 {
        let mut stream = connect(&socket);
        if n % 2 == 0 {
            let _ = stream.write_all(b"{\"Request\":\"Sta");
        }
    }
    assert_answers(&volume);
    crate::common::eventually("the connections are closed", || {
        figures().1 <= descriptors + 8
    });
    let (after, _) = figures();
    assert!(
        after < memory + 30_000,
        "{memory} kB before, {after} kB after"
    );
}
