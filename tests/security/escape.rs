//! Whoever may write to the backing directory puts symlinks, pipes, devices and links there, also while the mount is at work:
//! nothing outside of it is read, made or changed. What lies outside is kept where the mount's own process may go, so that it
//! is its code that keeps out of there, not Landlock.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use rustix::fs::{AtFlags, CWD, Dev, FileType, Mode, XattrFlags, makedev, mknodat};

use crate::common::Volume;
use crate::seconds;

/// What can be seen of everything below a directory. No read and no change leaves it as it is.
fn picture(folder: &Path) -> BTreeMap<PathBuf, String> {
    let mut seen = BTreeMap::new();
    let mut pending = vec![folder.to_owned()];
    while let Some(path) = pending.pop() {
        let stat = fs::symlink_metadata(&path).unwrap();
        // Before it is listed.
        let text = format!(
            "{:o} {}:{} {} links {} bytes {}.{} {}.{} {}.{}",
            stat.mode(),
            stat.uid(),
            stat.gid(),
            stat.nlink(),
            stat.size(),
            stat.atime(),
            stat.atime_nsec(),
            stat.mtime(),
            stat.mtime_nsec(),
            stat.ctime(),
            stat.ctime_nsec()
        );
        seen.insert(path.clone(), text);
        if stat.is_dir() {
            pending.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        }
    }
    seen
}

/// Something outside, with files that nobody has read since they were written.
fn vault(volume: &Volume) -> PathBuf {
    let vault = volume.folder().join("vault");
    fs::create_dir_all(vault.join("dir/sub")).unwrap();
    for name in ["secret", "dir/secret", "dir/x"] {
        fs::write(vault.join(name), "top secret").unwrap();
    }
    fs::set_permissions(vault.join("secret"), fs::Permissions::from_mode(0o600)).unwrap();
    // Listing changes their atime once.
    picture(&vault);
    vault
}

/// The backing object behind a path in the mount, which has the same number.
fn backing(volume: &Volume, name: &str) -> PathBuf {
    let number = fs::symlink_metadata(volume.path(name)).unwrap().ino();
    let mut entries = fs::read_dir(volume.ciphertext()).unwrap();
    entries
        .find_map(|entry| {
            let entry = entry.unwrap();
            (entry.metadata().unwrap().ino() == number).then(|| entry.path())
        })
        .unwrap()
}

/// Puts a symlink in an object's place and the object back, over and over.
fn swap(object: &Path, aside: &Path, target: &Path, stop: &AtomicBool, rounds: &AtomicU64) {
    while !stop.load(Ordering::Relaxed) {
        if fs::rename(object, aside).is_ok() {
            let _ = symlink(target, object);
            std::thread::yield_now();
            let _ = fs::remove_file(object);
            let _ = fs::rename(aside, object);
        }
        rounds.fetch_add(1, Ordering::Relaxed);
        std::thread::yield_now();
    }
}

/// Everything that can be done to a path in the mount. Errors are what is to be expected.
fn everything(volume: &Volume, round: u64) {
    let path = |name: &str| volume.path(name);
    let attribute = |path: &Path| {
        let _ = rustix::fs::setxattr(path, "user.a", b"value", XattrFlags::empty());
        let _ = rustix::fs::setxattr(path, "trusted.a", b"value", XattrFlags::empty());
        let _ = rustix::fs::setxattr(path, "security.a", b"value", XattrFlags::empty());
        let _ = rustix::fs::getxattr(path, "user.a", &mut [0_u8; 100]);
        let _ = rustix::fs::listxattr(path, &mut [0_u8; 1000]);
        let _ = rustix::fs::removexattr(path, "trusted.a");
    };
    for name in ["file", "dir/x", "link", "dir"] {
        let path = path(name);
        let _ = fs::symlink_metadata(&path);
        let _ = fs::read(&path);
        let _ = fs::read_link(&path);
        let _ = fs::write(&path, round.to_string());
        if let Ok(mut file) = OpenOptions::new().append(true).open(&path) {
            let _ = file.write_all(b"more");
            let _ = file.set_len(round % 9000);
            let _ = file.sync_all();
            let _ = file.read_at(&mut [0; 100], 0);
        }
        // The target of the link in the mount is not there.
        if name != "link" {
            let _ = fs::set_permissions(&path, fs::Permissions::from_mode(0o666));
            attribute(&path);
        }
        let _ = std::os::unix::fs::lchown(&path, Some(1234), Some(1234));
        let now = rustix::fs::Timestamps {
            last_access: rustix::fs::Timespec {
                tv_sec: 1,
                tv_nsec: 0,
            },
            last_modification: rustix::fs::Timespec {
                tv_sec: 2,
                tv_nsec: 0,
            },
        };
        let _ = rustix::fs::utimensat(CWD, &path, &now, AtFlags::SYMLINK_NOFOLLOW);
        let _ = fs::hard_link(&path, volume.path("linked"));
        let _ = fs::remove_file(volume.path("linked"));
    }
    let _ = fs::read_dir(path("dir")).map(Iterator::count);
    for name in ["dir/new", "dir/secret"] {
        let _ = fs::write(path(name), "new");
        let _ = fs::remove_file(path(name));
    }
    let _ = fs::create_dir(path("dir/sub"));
    let _ = fs::remove_dir(path("dir/sub"));
    let _ = symlink("anywhere", path("dir/symlink"));
    let _ = fs::remove_file(path("dir/symlink"));
    let _ = fs::rename(path("dir/x"), path("dir/y"));
    let _ = fs::rename(path("dir/y"), path("dir/x"));
    let _ = rustix::fs::mkdirat(CWD, path("dir/made"), Mode::from_raw_mode(0o777));
    let _ = fs::rename(path("dir/made"), path("moved"));
    let _ = fs::remove_dir(path("moved"));
}

#[test]
fn swapping_backing_objects_for_symlinks_reads_and_changes_nothing_outside() {
    let volume = Volume::mounted();
    fs::write(volume.path("file"), vec![7; 10_000]).unwrap();
    fs::create_dir(volume.path("dir")).unwrap();
    fs::write(volume.path("dir/x"), "x").unwrap();
    symlink("nowhere", volume.path("link")).unwrap();
    let vault = vault(&volume);
    let before = picture(&vault);
    let aside = volume.folder().join("aside");
    fs::create_dir(&aside).unwrap();
    let stop = AtomicBool::new(false);
    let rounds = AtomicU64::new(0);
    let until = Instant::now() + seconds();
    let mut done = 0;
    std::thread::scope(|scope| {
        for (name, target) in [("file", "secret"), ("dir", "dir"), ("link", "secret")] {
            let object = backing(&volume, name);
            let (aside, target) = (aside.join(name), vault.join(target));
            let (stop, rounds) = (&stop, &rounds);
            scope.spawn(move || swap(&object, &aside, &target, stop, rounds));
        }
        while Instant::now() < until {
            everything(&volume, done);
            done += 1;
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert!(done > 2 && rounds.into_inner() > 100, "{done} rounds");
    assert_eq!(picture(&vault), before);
    // It is still a filesystem.
    fs::write(volume.path("after"), "after").unwrap();
    assert_eq!(fs::read(volume.path("after")).unwrap(), b"after");
}

#[test]
fn a_mount_that_finds_symlinks_in_its_backing_directory_does_not_follow_them() {
    let volume = Volume::mounted();
    fs::write(volume.path("file"), vec![7; 10_000]).unwrap();
    fs::create_dir(volume.path("dir")).unwrap();
    fs::write(volume.path("dir/x"), "x").unwrap();
    let (file, dir) = (backing(&volume, "file"), backing(&volume, "dir"));
    let vault = vault(&volume);
    volume.unmount();
    fs::remove_file(&file).unwrap();
    fs::remove_dir_all(&dir).unwrap();
    symlink(vault.join("secret"), &file).unwrap();
    symlink(vault.join("dir"), &dir).unwrap();
    // The headers too: what is read first, and what is written.
    let before = picture(&vault);
    volume.mount(&[]);
    for round in 0..3 {
        everything(&volume, round);
    }
    volume.run(&["volume", "info", "CIPHERDIR"]);
    volume.run(&["rewrap", "CIPHERDIR"]);
    volume.run(&["rekey", "CIPHERDIR"]);
    assert_eq!(picture(&vault), before);
    volume.unmount();
    fs::remove_file(volume.ciphertext().join("cmkfs.dir")).unwrap();
    symlink(vault.join("secret"), volume.ciphertext().join("cmkfs.dir")).unwrap();
    let _ = volume.run(&["mount", "CIPHERDIR", "MOUNTPOINT"]);
    let _ = fs::write(volume.path("new"), "new");
    assert_eq!(picture(&vault), before);
}

/// A script, which must end by itself. A pipe that is one in the mount, too, keeps its readers waiting, as it should.
fn promptly(volume: &Volume, script: &str) {
    let mut shell = volume.program("timeout");
    let output = shell
        .args(["10", "sh", "-c", script])
        .current_dir(volume.mountpoint())
        .output()
        .unwrap();
    assert_ne!(output.status.code(), Some(124), "{script} hangs");
}

#[test]
fn pipes_sockets_devices_and_foreign_files_in_a_files_place_are_errors_and_no_hang() {
    let other = Volume::mounted();
    fs::write(other.path("file"), vec![9; 10_000]).unwrap();
    other.unmount();
    let entries = fs::read_dir(other.ciphertext()).unwrap();
    let mut foreign = entries.map(|entry| entry.unwrap().path());
    let is_object = |path: &PathBuf| !path.file_name().unwrap().to_string_lossy().contains('.');
    let foreign = foreign.find(is_object).unwrap();

    let volume = Volume::mounted();
    type Replace<'a> = &'a dyn Fn(&Path);
    let kinds: [(&str, Replace<'_>); 6] = [
        ("fifo", &|path| make_node(path, FileType::Fifo, 0)),
        ("socket", &|path| make_node(path, FileType::Socket, 0)),
        ("null", &|path| {
            make_node(path, FileType::CharacterDevice, makedev(1, 3))
        }),
        ("directory", &|path| fs::create_dir(path).unwrap()),
        ("foreign", &|path| {
            fs::copy(&foreign, path).unwrap();
        }),
        ("loop", &|path| symlink(path, path).unwrap()),
    ];
    for (name, replace) in kinds {
        fs::write(volume.path(name), vec![7; 10_000]).unwrap();
        let object = backing(&volume, name);
        for remount in [false, true] {
            if remount {
                volume.remount();
            }
            let _ = fs::remove_file(&object);
            let _ = fs::remove_dir(&object);
            replace(&object);
            if name == "foreign" && remount {
                let read = File::open(volume.path(name));
                assert!(read.and_then(|mut file| file.read(&mut [0; 10])).is_err());
            }
            promptly(
                &volume,
                &format!(
                    "[ -p {name} ] && exit; cat {name}; echo x >> {name}; cat < {name}; ls -l {name}"
                ),
            );
            promptly(
                &volume,
                &format!(
                    "[ -p {name} ] || truncate -s 5 {name}; chmod 600 {name}; mv {name} b; mv b {name}; sync"
                ),
            );
        }
        promptly(&volume, &format!("rm -rf {name}"));
        fs::write(volume.path("after"), name).unwrap();
    }
}

/// Makes a pipe, a socket or a device that everybody may read and write.
fn make_node(path: &Path, kind: FileType, device: Dev) {
    mknodat(CWD, path, kind, Mode::empty(), device).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o666)).unwrap();
}

#[test]
fn the_content_of_an_outside_file_that_is_linked_into_the_backing_directory_stays() {
    let volume = Volume::mounted();
    fs::write(volume.path("file"), vec![7; 10_000]).unwrap();
    let object = backing(&volume, "file");
    volume.unmount();
    let outside = volume.folder().join("outside");
    fs::write(&outside, vec![5; 20_000]).unwrap();
    fs::remove_file(&object).unwrap();
    fs::hard_link(&outside, &object).unwrap();
    volume.mount(&[]);
    assert!(fs::read(volume.path("file")).is_err());
    assert!(
        OpenOptions::new()
            .append(true)
            .open(volume.path("file"))
            .and_then(|mut file| {
                file.write_all(b"x")?;
                file.sync_all()
            })
            .is_err()
    );
    fs::remove_file(volume.path("file")).unwrap();
    assert_eq!(fs::read(&outside).unwrap(), vec![5; 20_000]);
}
