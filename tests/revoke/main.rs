//! A mount obeys its keys, live: what is open, cached or being read stops when the key is disabled, and goes on when it is
//! enabled again.

#[path = "../common/mod.rs"]
mod common;

mod maps;
mod mounts;
mod names;
mod readers;
mod several;
mod writers;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::process::Output;
use std::time::Instant;

use common::{DEADLINE, Volume, eventually, succeed};

const KEY: &str = "alias/cmkfs/default";
const SIZE: usize = 300_000;
/// The exit code where a mount has not said that it obeys.
const UNANSWERED: i32 = 11;

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

/// What a command printed as JSON.
fn json(printed: &str) -> serde_json::Value {
    serde_json::from_str(printed).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn an_open_file_that_is_cached_stops_and_goes_on_with_its_key() {
    let volume = Volume::mounted();
    fs::write(volume.path("file"), vec![7; SIZE]).unwrap();
    let file = File::open(volume.path("file")).unwrap();
    assert_eq!(read(&file).unwrap(), vec![7; SIZE]);
    disable(&volume);
    assert!(is_revoked(&read(&file)));
    assert!(is_revoked(&File::open(volume.path("file"))));
    assert!(is_revoked(&File::create(volume.path("other"))));
    assert!(is_revoked(&fs::write(volume.path("file"), "")));
    enable(&volume);
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
    assert!(is_revoked(&read(&file)));
    enable(&volume);
    assert!(read(&file).is_ok());
    drop(file);
    volume.remount();
    assert_eq!(fs::read(volume.path("file")).unwrap(), vec![9; SIZE]);
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
    assert!(is_revoked(&list()));
    assert!(is_revoked(&fs::read_link(volume.path("link"))));
    assert!(is_revoked(&fs::metadata(volume.path("folder/file"))));
    enable(&volume);
    assert!(list().is_ok());
    assert_eq!(fs::read(volume.path("link")).unwrap(), b"text");
}

#[test]
fn a_mount_without_its_key_is_looked_at_and_unmounted_as_usual() {
    let volume = Volume::mounted();
    fs::write(volume.path("file"), "text").unwrap();
    disable(&volume);
    assert!(is_revoked(&fs::read(volume.path("file"))));
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
fn a_change_that_no_command_announces_is_noticed_soon() {
    let volume = Volume::mounted();
    fs::write(volume.path("file"), vec![1; SIZE]).unwrap();
    let file = File::open(volume.path("file")).unwrap();
    let listed = json(&volume.succeed(&["key", "list", "--output", "json"]));
    let id = listed["Keys"][0]["KeyId"].as_str().unwrap().to_owned();
    let record = volume.folder().join("keys/keys").join(id).join("key");
    disable(&volume);
    let disabled = fs::read(&record).unwrap();
    enable(&volume);
    read(&file).unwrap();
    // As a backup that is put back, or another host, would.
    let aside = record.with_file_name("aside");
    fs::write(&aside, disabled).unwrap();
    fs::set_permissions(&aside, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    fs::rename(aside, record).unwrap();
    let start = Instant::now();
    eventually("the file is refused", || is_revoked(&read(&file)));
    println!("refused after {:?}", start.elapsed());
    assert!(start.elapsed() < DEADLINE / 10);
    assert!(is_revoked(&fs::metadata(volume.path("file"))));
}
