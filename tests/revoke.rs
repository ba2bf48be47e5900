//! A mount obeys its keys, live: what is open, cached or being read stops when the key is disabled, and goes on when it is
//! enabled again.

mod common;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use common::{DEADLINE, Volume, eventually, succeed};

const KEY: &str = "alias/cmkfs/default";
const SIZE: usize = 300_000;

fn disable(volume: &Volume) {
    volume.succeed(&["key", "disable", KEY]);
}

fn enable(volume: &Volume) {
    volume.succeed(&["key", "enable", KEY]);
}

fn is_revoked<T>(result: &io::Result<T>) -> bool {
    let error = result.as_ref().err().and_then(io::Error::raw_os_error);
    error == Some(libc::EKEYREVOKED)
}

fn read(file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; SIZE];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

#[test]
fn an_open_file_that_is_cached_stops_and_goes_on_with_its_key() {
    let volume = Volume::mounted();
    fs::write(volume.path("file"), vec![7; SIZE]).unwrap();
    let file = File::open(volume.path("file")).unwrap();
    assert_eq!(read(&file).unwrap(), vec![7; SIZE]);
    disable(&volume);
    eventually("the open file is refused", || is_revoked(&read(&file)));
    assert!(is_revoked(&File::open(volume.path("file"))));
    assert!(is_revoked(&File::create(volume.path("other"))));
    assert!(is_revoked(&fs::write(volume.path("file"), "")));
    enable(&volume);
    eventually("the open file is readable", || read(&file).is_ok());
    assert_eq!(read(&file).unwrap(), vec![7; SIZE]);
    assert!(!volume.path("other").exists());
}

#[test]
fn what_was_written_before_the_revocation_is_kept() {
    let volume = Volume::mounted();
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(volume.path("file"))
        .unwrap();
    file.write_all_at(&vec![9; SIZE], 0).unwrap();
    disable(&volume);
    eventually("the file is refused", || is_revoked(&read(&file)));
    enable(&volume);
    eventually("the file is readable", || read(&file).is_ok());
    drop(file);
    volume.remount();
    assert_eq!(fs::read(volume.path("file")).unwrap(), vec![9; SIZE]);
}

#[test]
fn nothing_is_readable_once_the_revocation_has_come_about_whoever_was_reading() {
    let volume = Volume::mounted();
    let names = ["a", "b", "c", "d"];
    for name in names {
        fs::write(volume.path(name), vec![5; SIZE]).unwrap();
    }
    let files: Vec<_> = names
        .iter()
        .map(|name| File::open(volume.path(name)).unwrap())
        .collect();
    for _ in 0..5 {
        let (over, leaked) = (AtomicBool::new(false), AtomicBool::new(false));
        let (over, leaked) = (&over, &leaked);
        std::thread::scope(|scope| {
            for file in &files {
                scope.spawn(move || {
                    let mut refused = false;
                    while !over.load(Ordering::Relaxed) {
                        match read(file) {
                            Ok(_) if refused => leaked.store(true, Ordering::Relaxed),
                            Ok(_) => {
                                let _ = rustix::fs::fadvise(
                                    file,
                                    0,
                                    None,
                                    rustix::fs::Advice::DontNeed,
                                );
                            }
                            Err(_) => refused = true,
                        }
                    }
                });
            }
            disable(&volume);
            eventually("everything is refused", || {
                files.iter().all(|file| is_revoked(&read(file)))
            });
            let until = Instant::now() + std::time::Duration::from_millis(200);
            while Instant::now() < until {
                assert!(files.iter().all(|file| is_revoked(&read(file))));
            }
            over.store(true, Ordering::Relaxed);
        });
        assert!(!leaked.load(Ordering::Relaxed));
        enable(&volume);
        eventually("everything is readable", || {
            files.iter().all(|file| read(file).is_ok())
        });
    }
}

#[test]
fn names_and_links_are_refused_too() {
    let volume = Volume::mounted();
    fs::create_dir(volume.path("folder")).unwrap();
    fs::write(volume.path("folder/file"), "text").unwrap();
    std::os::unix::fs::symlink("folder/file", volume.path("link")).unwrap();
    assert_eq!(fs::read(volume.path("link")).unwrap(), b"text");
    assert_eq!(fs::read_dir(volume.path("folder")).unwrap().count(), 1);
    disable(&volume);
    let list = || fs::read_dir(volume.path("folder"))?.collect::<io::Result<Vec<_>>>();
    eventually("the listing is refused", || is_revoked(&list()));
    assert!(is_revoked(&fs::read_link(volume.path("link"))));
    assert!(fs::metadata(volume.path("folder/file")).is_err());
    enable(&volume);
    eventually("the listing is there", || list().is_ok());
    assert_eq!(fs::read(volume.path("link")).unwrap(), b"text");
}

#[test]
fn a_mount_without_its_key_is_looked_at_and_unmounted_as_usual() {
    let volume = Volume::mounted();
    fs::write(volume.path("file"), "text").unwrap();
    disable(&volume);
    eventually("the file is refused", || {
        fs::read(volume.path("file")).is_err()
    });
    for program in ["df", "mountpoint", "stat"] {
        succeed(volume.program(program).arg(volume.mountpoint()));
    }
    volume.unmount();
    assert_eq!(volume.daemon(), None);
    assert!(
        volume
            .fail(&["mount", "CIPHERDIR", "MOUNTPOINT"])
            .contains("key enable")
    );
    enable(&volume);
    volume.mount(&[]);
    assert_eq!(fs::read(volume.path("file")).unwrap(), b"text");
}

#[test]
fn a_revocation_comes_about_soon() {
    let volume = Volume::mounted();
    fs::write(volume.path("file"), vec![1; SIZE]).unwrap();
    let file = File::open(volume.path("file")).unwrap();
    disable(&volume);
    let start = Instant::now();
    eventually("the file is refused", || is_revoked(&read(&file)));
    println!("refused after {:?}", start.elapsed());
    assert!(start.elapsed() < DEADLINE / 10);
}
