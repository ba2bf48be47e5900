//! Handles survive what happens to names.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, fchown};
use std::time::{Duration, SystemTime};

use crate::common::Volume;

fn create(volume: &Volume, name: &str) -> File {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true);
    options.open(volume.path(name)).unwrap()
}

#[test]
fn a_handle_survives_renaming() {
    let volume = Volume::mounted();
    fs::create_dir(volume.path("elsewhere")).unwrap();
    let mut file = create(&volume, "old");
    file.write_all(b"before ").unwrap();
    fs::rename(volume.path("old"), volume.path("elsewhere/new")).unwrap();
    file.write_all(b"after").unwrap();
    fs::rename(volume.path("elsewhere"), volume.path("there")).unwrap();
    file.sync_all().unwrap();
    assert_eq!(fs::read(volume.path("there/new")).unwrap(), b"before after");
    file.set_permissions(Permissions::from_mode(0o640)).unwrap();
    assert_eq!(
        fs::metadata(volume.path("there/new")).unwrap().mode() & 0o777,
        0o640
    );
    drop(file);
    volume.remount();
    assert_eq!(fs::read(volume.path("there/new")).unwrap(), b"before after");
}

#[test]
fn a_handle_survives_unlinking_and_every_operation_on_it_works() {
    let volume = Volume::mounted();
    for replaced in [false, true] {
        let mut file = create(&volume, "file");
        file.write_all(&[7; 10_000]).unwrap();
        if replaced {
            fs::write(volume.path("other"), "other").unwrap();
            fs::rename(volume.path("other"), volume.path("file")).unwrap();
        } else {
            fs::remove_file(volume.path("file")).unwrap();
        }
        let metadata = file.metadata().unwrap();
        assert_eq!((metadata.nlink(), metadata.len()), (0, 10_000));
        file.write_all(&[8; 10_000]).unwrap();
        file.set_permissions(Permissions::from_mode(0o604)).unwrap();
        fchown(&file, Some(1001), Some(1002)).unwrap();
        let time = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
        file.set_times(fs::FileTimes::new().set_accessed(time).set_modified(time))
            .unwrap();
        rustix::fs::fsetxattr(
            &file,
            "user.note",
            b"value",
            rustix::fs::XattrFlags::empty(),
        )
        .unwrap();
        let metadata = file.metadata().unwrap();
        assert_eq!(
            (metadata.mode() & 0o777, metadata.uid(), metadata.gid()),
            (0o604, 1001, 1002)
        );
        assert_eq!(
            (metadata.modified().unwrap(), metadata.accessed().unwrap()),
            (time, time)
        );
        let mut value = [0; 5];
        assert_eq!(rustix::fs::fgetxattr(&file, "user.note", &mut value), Ok(5));
        assert_eq!(&value, b"value");
        file.set_len(15_000).unwrap();
        file.set_len(30_000).unwrap();
        file.sync_all().unwrap();
        let mut read = Vec::new();
        file.seek(SeekFrom::Start(0)).unwrap();
        file.read_to_end(&mut read).unwrap();
        let expected = [vec![7; 10_000], vec![8; 5000], vec![0; 15_000]].concat();
        assert!(read == expected);
        // Opened again through /proc, it is the same file.
        let again = File::open(format!(
            "/proc/self/fd/{}",
            std::os::fd::AsRawFd::as_raw_fd(&file)
        ))
        .unwrap();
        assert_eq!(again.metadata().unwrap().ino(), metadata.ino());
        let mut start = [0; 3];
        again.read_exact_at(&mut start, 9_999).unwrap();
        assert_eq!(start, [7, 8, 8]);
        if replaced {
            assert_eq!(fs::read(volume.path("file")).unwrap(), b"other");
        } else {
            assert!(!volume.path("file").exists());
        }
    }
    volume.unmount();
    let left = fs::read_dir(volume.ciphertext()).unwrap();
    let objects = left.filter(|entry| {
        !entry
            .as_ref()
            .unwrap()
            .file_name()
            .to_string_lossy()
            .contains('.')
    });
    assert_eq!(
        objects.count(),
        1,
        "nothing of an unlinked file is left behind"
    );
}

#[test]
fn a_directory_that_was_removed_can_still_be_looked_at() {
    let volume = Volume::mounted();
    fs::create_dir(volume.path("gone")).unwrap();
    let directory = File::open(volume.path("gone")).unwrap();
    fs::remove_dir(volume.path("gone")).unwrap();
    assert!(directory.metadata().unwrap().is_dir());
    let error = rustix::fs::mkdirat(directory.as_fd(), "child", rustix::fs::Mode::from(0o755));
    assert_eq!(error, Err(rustix::io::Errno::NOENT));
    // A new one of the same name is another.
    fs::create_dir(volume.path("gone")).unwrap();
    fs::write(volume.path("gone/file"), "text").unwrap();
    assert_ne!(
        directory.metadata().unwrap().ino(),
        fs::metadata(volume.path("gone")).unwrap().ino()
    );
}
