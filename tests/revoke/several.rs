//! Several keys in one volume: what is under the others goes on. The root binds an alias, and what is made after the alias
//! was pointed elsewhere is under another key.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags};

use super::common::Volume;
use super::{is_revoked, json};

const ALIAS: &str = "alias/volume";

/// A volume whose root and `old` are under one key; `new`, and `file` in both, are under another. The two keys.
fn volume() -> (Volume, String, String) {
    let volume = Volume::bare(None);
    let create = |arguments: &[&str]| {
        let made = volume.succeed(&[&["key", "create", "--output", "json"], arguments].concat());
        json(&made)["KeyMetadata"]["KeyId"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let old = create(&["--alias", ALIAS]);
    let new = create(&[]);
    volume.succeed(&["init", "CIPHERDIR", "--key", ALIAS]);
    fs::create_dir(volume.mountpoint()).unwrap();
    volume.mount(&[]);
    fs::create_dir(volume.path("old")).unwrap();
    fs::write(volume.path("old/first"), "old").unwrap();
    volume.succeed(&["alias", "update", ALIAS, &new]);
    fs::create_dir(volume.path("new")).unwrap();
    for folder in ["old", "new"] {
        fs::write(volume.path(folder).join("file"), "new").unwrap();
    }
    (volume, old, new)
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn what_is_under_another_key_goes_on() {
    let (volume, _, new) = volume();
    // So that the CMK of a file that was not opened yet has to be found out.
    volume.remount();
    let mut open = File::open(volume.path("old/first")).unwrap();
    let withdrawn = File::open(volume.path("new/file")).unwrap();
    volume.succeed(&["key", "disable", &new]);
    // A file under the key in a folder that is not: its name is the folder's, all else is its own. What is to be seen of a
    // folder from outside belongs to the one above.
    for path in ["new/file", "old/file"] {
        assert!(is_revoked(&fs::metadata(volume.path(path))), "{path}");
    }
    assert!(fs::metadata(volume.path("new")).unwrap().is_dir());
    for path in ["new", "new/file", "old/file"] {
        assert!(is_revoked(&File::open(volume.path(path))), "{path}");
    }
    assert!(is_revoked(&fs::read_dir(volume.path("new"))));
    assert!(is_revoked(&(&withdrawn).read(&mut [0; 10])));
    assert_eq!(names(&volume.path("old")), ["file", "first"]);
    assert_eq!(names(&volume.mountpoint()), ["new", "old"]);
    let mut text = String::new();
    open.read_to_string(&mut text).unwrap();
    assert_eq!(text, "old");
    fs::rename(volume.path("old/first"), volume.path("old/second")).unwrap();
    volume.succeed(&["key", "enable", &new]);
    assert_eq!(fs::read(volume.path("old/file")).unwrap(), b"new");
    assert_eq!((&withdrawn).read(&mut [0; 10]).unwrap(), 3);
}

#[test]
fn a_path_through_a_withdrawn_folder_leads_nowhere_and_what_is_open_behind_it_goes_on() {
    let (volume, old, _) = volume();
    let file = File::open(volume.path("new/file")).unwrap();
    let folder = File::open(volume.path("new")).unwrap();
    // The kernel knows all these names, and might go on using them.
    assert!(fs::metadata(volume.path("new/file")).is_ok());
    volume.succeed(&["key", "disable", &old]);
    for path in ["new/file", "new", "old/file"] {
        assert!(is_revoked(&fs::metadata(volume.path(path))), "{path}");
    }
    assert_eq!((&file).read(&mut [0; 10]).unwrap(), 3);
    assert_eq!(file.metadata().unwrap().len(), 3);
    rustix::fs::statat(&folder, "file", AtFlags::empty()).unwrap();
    let flags = OFlags::WRONLY | OFlags::CREATE;
    let made = rustix::fs::openat(&folder, "more", flags, Mode::RUSR | Mode::WUSR).unwrap();
    rustix::io::write(&made, b"more").unwrap();
    drop(made);
    volume.succeed(&["key", "enable", &old]);
    assert_eq!(fs::read(volume.path("new/more")).unwrap(), b"more");
}

#[test]
fn what_is_dirty_under_one_key_is_written_also_where_the_roots_is_withdrawn() {
    let (volume, old, new) = volume();
    let folder = File::open(volume.path("new")).unwrap();
    let flags = OFlags::RDWR | OFlags::CREATE;
    let mode = Mode::RUSR | Mode::WUSR;
    let file = rustix::fs::openat(&folder, "dirty", flags, mode).unwrap();
    volume.succeed(&["key", "disable", &old]);
    rustix::io::write(&file, b"dirty").unwrap();
    let said = volume.succeed(&["key", "disable", &new, "--output", "json"]);
    assert_eq!(json(&said)["Mounts"][0]["IsFlushed"], true, "{said}");
    volume.kill();
    drop((file, folder));
    volume.succeed(&["key", "enable", &old]);
    volume.succeed(&["key", "enable", &new]);
    volume.mount(&[]);
    assert_eq!(fs::read(volume.path("new/dirty")).unwrap(), b"dirty");
}
