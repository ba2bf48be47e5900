//! A key's life under a running mount: what people see of a file at each of its turns, and what a mount does by itself.

mod common;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use common::{Volume, eventually};

/// A mounted volume whose files are under a key with imported material.
struct Imported {
    volume: Volume,
    material: PathBuf,
    id: String,
}

const ALIAS: &str = "alias/imported";

impl Imported {
    fn new() -> Self {
        let volume = Volume::bare(None);
        let create = [
            "-q", "key", "create", "--origin", "EXTERNAL", "--alias", ALIAS,
        ];
        let id = volume.succeed(&create).trim().to_owned();
        let material = volume.folder().join("material");
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).unwrap();
        fs::write(&material, bytes).unwrap();
        let imported = Self {
            volume,
            material,
            id,
        };
        imported.import(&[]);
        let volume = &imported.volume;
        volume.succeed(&["init", "CIPHERDIR", "--key", ALIAS]);
        fs::create_dir(volume.mountpoint()).unwrap();
        volume.mount(&[]);
        imported
    }

    fn import(&self, options: &[&str]) {
        let material = self.material.to_str().unwrap();
        let args = ["key", "import", ALIAS, "--material", material];
        self.volume.succeed(&[&args, options].concat());
    }

    /// How many material files there are.
    fn materials(&self) -> usize {
        let folder = self.volume.folder().join("keys/keys").join(&self.id);
        let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
        names.filter(|entry| entry.file_name().len() == 64).count()
    }
}

fn read(file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 7];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

fn errno<T>(result: &io::Result<T>) -> Option<i32> {
    result.as_ref().err().and_then(io::Error::raw_os_error)
}

#[test]
fn every_command_has_taken_effect_under_a_mount_when_it_returns() {
    let imported = Imported::new();
    let volume = &imported.volume;
    fs::write(volume.path("file"), "content").unwrap();
    let file = File::open(volume.path("file")).unwrap();
    let refused_with = |expected: i32| {
        assert_eq!(errno(&read(&file)), Some(expected));
        assert_eq!(errno(&File::open(volume.path("file"))), Some(expected));
        assert_eq!(errno(&File::create(volume.path("new"))), Some(expected));
    };
    let comes_back = || assert_eq!(read(&file).unwrap(), b"content");
    volume.succeed(&["key", "schedule-deletion", ALIAS]);
    refused_with(libc::EKEYREVOKED);
    volume.succeed(&["key", "cancel-deletion", ALIAS]);
    refused_with(libc::EKEYREVOKED);
    volume.succeed(&["key", "enable", ALIAS]);
    comes_back();
    volume.succeed(&["key", "delete-imported-key-material", ALIAS]);
    refused_with(libc::ENOKEY);
    imported.import(&[]);
    comes_back();
    drop(file);
    volume.remount();
    assert_eq!(fs::read(volume.path("file")).unwrap(), b"content");
}

#[test]
fn a_mount_refuses_expired_material_and_destroys_it_without_being_told() {
    let imported = Imported::new();
    let volume = &imported.volume;
    fs::write(volume.path("file"), "content").unwrap();
    let file = File::open(volume.path("file")).unwrap();
    assert_eq!(read(&file).unwrap(), b"content");
    imported.import(&["--valid-to", "3s"]);
    let is_expired = || errno(&read(&file)) == Some(libc::EKEYEXPIRED);
    eventually("the open file is expired", is_expired);
    eventually("the material is destroyed", || imported.materials() == 0);
    assert!(is_expired());
    assert_eq!(
        errno(&File::open(volume.path("file"))),
        Some(libc::EKEYEXPIRED)
    );
    imported.import(&[]);
    eventually("the open file is readable", || read(&file).is_ok());
    assert_eq!(read(&file).unwrap(), b"content");
}

#[test]
fn a_rotation_disturbs_no_mount_and_old_files_stay_readable() {
    let volume = Volume::mounted();
    fs::write(volume.path("old"), "old").unwrap();
    let file = File::options()
        .read(true)
        .write(true)
        .open(volume.path("old"))
        .unwrap();
    for round in 0..3_u8 {
        volume.succeed(&["key", "rotate", "alias/cmkfs/default"]);
        file.write_all_at(&[b'0' + round], 0).unwrap();
        fs::write(volume.path(format!("new{round}")), [round]).unwrap();
    }
    drop(file);
    volume.remount();
    assert_eq!(fs::read(volume.path("old")).unwrap(), b"2ld");
    for round in 0..3_u8 {
        assert_eq!(
            fs::read(volume.path(format!("new{round}"))).unwrap(),
            [round]
        );
    }
}
