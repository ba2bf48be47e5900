//! Whatever is asked about an object of a withdrawn key is refused, and its names are gone from the kernel.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::PathBuf;

use rustix::fs::{AtFlags, Dir, XattrFlags};

use super::common::{Volume, eventually, succeed};
use super::{disable, enable, is_revoked, json};

fn get_xattr(path: &PathBuf, name: &str) -> io::Result<usize> {
    Ok(rustix::fs::getxattr(path, name, &mut [0; 100])?)
}

/// Something that is asked of the kernel.
type Question<'a> = Box<dyn Fn() -> io::Result<()> + 'a>;

#[test]
fn whatever_is_asked_is_refused() {
    let volume = Volume::mounted();
    let (folder, file, link) = (
        volume.path("folder"),
        volume.path("folder/file"),
        volume.path("link"),
    );
    fs::create_dir(&folder).unwrap();
    fs::write(&file, "text").unwrap();
    symlink("folder/file", &link).unwrap();
    let names = ["user.a", "security.b"];
    for name in names {
        for path in [&folder, &file] {
            rustix::fs::setxattr(path, name, b"value", XattrFlags::empty()).unwrap();
        }
    }
    let handle = &File::options().read(true).write(true).open(&file).unwrap();
    let place = File::options()
        .read(true)
        .custom_flags(libc::O_PATH)
        .open(&folder)
        .unwrap();
    let closed = File::options()
        .read(true)
        .custom_flags(libc::O_PATH)
        .open(&link)
        .unwrap();
    let listing = File::open(&folder).unwrap();
    let list = |listing: &File| -> io::Result<usize> {
        let entries: Result<Vec<_>, _> = Dir::read_from(listing)?.collect();
        Ok(entries?.len())
    };
    assert_eq!(list(&listing).unwrap(), 3);
    let stat_at = |directory: &File, name: &str| {
        rustix::fs::statat(directory, name, AtFlags::empty())
            .map(drop)
            .map_err(io::Error::from)
    };
    let mut asked: Vec<(String, Question<'_>)> = vec![
        (
            "stat of the folder".into(),
            Box::new(|| fs::metadata(&folder).map(drop)),
        ),
        (
            "stat of the file".into(),
            Box::new(|| fs::metadata(&file).map(drop)),
        ),
        (
            "stat of the link".into(),
            Box::new(|| fs::symlink_metadata(&link).map(drop)),
        ),
        (
            "stat by the handle".into(),
            Box::new(|| handle.metadata().map(drop)),
        ),
        (
            "stat in the folder".into(),
            Box::new(|| stat_at(&place, "file")),
        ),
        (
            "a name that is not there".into(),
            Box::new(|| fs::metadata(folder.join("none")).map(drop)),
        ),
        (
            "readlink".into(),
            Box::new(|| fs::read_link(&link).map(drop)),
        ),
        ("open".into(), Box::new(|| File::open(&file).map(drop))),
        (
            "listing".into(),
            Box::new(|| fs::read_dir(&folder).map(drop)),
        ),
        (
            "listing of the root".into(),
            Box::new(|| fs::read_dir(volume.mountpoint()).map(drop)),
        ),
        (
            "listing by the handle".into(),
            Box::new(|| list(&listing).map(drop)),
        ),
        (
            "chmod".into(),
            Box::new(|| handle.set_permissions(fs::Permissions::from_mode(0o600))),
        ),
        ("truncate".into(), Box::new(|| handle.set_len(1))),
        (
            "write".into(),
            Box::new(|| std::os::unix::fs::FileExt::write_all_at(handle, b"x", 0)),
        ),
        ("unlink".into(), Box::new(|| fs::remove_file(&file))),
        (
            "rename".into(),
            Box::new(|| fs::rename(&file, volume.path("other"))),
        ),
        (
            "link".into(),
            Box::new(|| fs::hard_link(&file, volume.path("other"))),
        ),
        (
            "mkdir".into(),
            Box::new(|| fs::create_dir(volume.path("other"))),
        ),
        (
            "symlink".into(),
            Box::new(|| symlink("x", volume.path("other"))),
        ),
    ];
    for name in names {
        for path in [&folder, &file] {
            let what = format!("getxattr {name} of {}", path.display());
            asked.push((what, Box::new(move || get_xattr(path, name).map(drop))));
        }
    }
    let by_handle = || rustix::fs::fgetxattr(handle, "security.b", &mut [0_u8; 100]);
    asked.push((
        "getxattr by the handle".into(),
        Box::new(move || Ok(by_handle().map(drop)?)),
    ));
    let names_by_handle = || rustix::fs::flistxattr(handle, &mut [0_u8; 100]);
    asked.push((
        "listxattr".into(),
        Box::new(move || Ok(names_by_handle().map(drop)?)),
    ));
    disable(&volume);
    for (what, ask) in &asked {
        let answer = ask();
        assert!(is_revoked(&answer), "{what}: {answer:?}");
    }
    enable(&volume);
    assert_eq!(fs::read(&link).unwrap(), b"text");
    assert_eq!(get_xattr(&file, "security.b").unwrap(), 5);
    assert_eq!(list(&listing).unwrap(), 3);
    drop(closed);
}

#[test]
fn the_kernel_forgets_the_names() {
    let volume = Volume::mounted();
    // As many as several threads share.
    for number in 0..1500 {
        fs::write(volume.path(number.to_string()), "text").unwrap();
    }
    // Long enough for a file beside the entry that keeps it.
    fs::write(volume.path("n".repeat(250)), "text").unwrap();
    symlink("1", volume.path("link")).unwrap();
    assert_eq!(fs::read(volume.path("link")).unwrap(), b"text");
    let inodes = || {
        let status = volume.succeed(&["status", "MOUNTPOINT", "--output", "json"]);
        json(&status)[0]["Inodes"].as_u64().unwrap()
    };
    assert_eq!(inodes(), 1503);
    let said = volume.succeed(&["key", "disable", super::KEY, "--output", "json"]);
    assert_eq!(json(&said)["Mounts"][0]["NamesInvalidated"], 1502);
    // The kernel says so by forgetting the inodes; the root stays.
    eventually("nothing but the root is known", || inodes() == 1);
    enable(&volume);
}

#[test]
fn a_process_in_a_withdrawn_folder_keeps_its_place() {
    let volume = Volume::mounted();
    fs::create_dir_all(volume.path("a/b")).unwrap();
    fs::write(volume.path("a/b/file"), "text").unwrap();
    let mut shell = volume.program("sh");
    shell.current_dir(volume.path("a/b")).args([
        "-euc",
        "cat file > /dev/null; $CMKFS key disable $KEY; ! cat file; $CMKFS key enable $KEY; /bin/pwd; cat file",
    ]);
    shell
        .env("CMKFS", env!("CARGO_BIN_EXE_cmkfs"))
        .env("KEY", super::KEY);
    let said = succeed(&mut shell);
    let mut lines = said.lines().rev();
    assert_eq!(lines.next(), Some("text"));
    let path = volume.path("a/b").canonicalize().unwrap();
    assert_eq!(lines.next(), path.to_str());
}
