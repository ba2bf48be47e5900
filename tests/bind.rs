//! Many keys in one mounted volume: a bound directory opens and closes with its key, programs move files in and out of it,
//! and what is dead is shown and purged.

mod common;

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

use common::{Volume, eventually, succeed};
use serde_json::Value;

const SECRET: &str = "alias/secret";
const PUBLIC: &str = "alias/public";

/// A mounted volume with two keys, and a directory bound to each.
fn volume() -> Volume {
    let volume = Volume::mounted();
    for (alias, folder) in [(SECRET, "secret"), (PUBLIC, "public")] {
        volume.succeed(&["key", "create", "--alias", alias]);
        fs::create_dir(volume.path(folder)).unwrap();
        bind(&volume, folder, alias);
    }
    volume
}

fn bind(volume: &Volume, folder: &str, key: &str) {
    let folder = volume.path(folder);
    volume.succeed(&["bind", folder.to_str().unwrap(), key]);
}

fn info(volume: &Volume) -> Value {
    let text = volume.succeed(&["volume", "info", "CIPHERDIR", "--output", "json"]);
    serde_json::from_str(&text).unwrap()
}

/// Files, directories and symlinks under the key that an alias stands for.
fn under(volume: &Volume, alias: &str) -> [u64; 3] {
    let info = info(volume);
    let keys = info["Keys"].as_array().unwrap();
    let is_it = |key: &&Value| key["Aliases"].as_array().unwrap().contains(&alias.into());
    let Some(key) = keys.iter().find(is_it) else {
        return [0; 3];
    };
    let sum = |field: &str| {
        let materials = key["Materials"].as_array().unwrap().iter();
        materials
            .map(|material| material[field].as_u64().unwrap())
            .sum()
    };
    ["Files", "Directories", "Symlinks"].map(sum)
}

fn key_id(volume: &Volume, alias: &str) -> String {
    let text = volume.succeed(&["key", "describe", alias, "--output", "json"]);
    let described: Value = serde_json::from_str(&text).unwrap();
    described["KeyMetadata"]["KeyId"]
        .as_str()
        .unwrap()
        .to_owned()
}

fn names(path: &Path) -> io::Result<Vec<String>> {
    let entries = fs::read_dir(path)?.collect::<io::Result<Vec<_>>>()?;
    let name = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
    let mut names: Vec<_> = entries.iter().map(name).collect();
    names.sort();
    Ok(names)
}

fn is_revoked<T>(result: &io::Result<T>) -> bool {
    let error = result.as_ref().err().and_then(io::Error::raw_os_error);
    error == Some(libc::EKEYREVOKED)
}

fn mv(volume: &Volume, from: &str, to: &str) {
    let (from, to) = (volume.path(from), volume.path(to));
    succeed(volume.program("mv").arg(from).arg(to));
}

#[test]
fn disabling_a_key_closes_its_subtree_alone_names_included() {
    let volume = volume();
    fs::create_dir(volume.path("secret/plans")).unwrap();
    fs::write(volume.path("secret/plans/one"), "secret text").unwrap();
    fs::write(volume.path("public/news"), "public text").unwrap();
    fs::write(volume.path("other"), "other text").unwrap();
    assert_eq!(names(&volume.path("secret")).unwrap(), ["plans"]);
    volume.succeed(&["key", "disable", SECRET]);
    for path in ["secret", "secret/plans"] {
        let listed = names(&volume.path(path));
        assert!(is_revoked(&listed), "{path}: {listed:?}");
    }
    assert!(is_revoked(&fs::read(volume.path("secret/plans/one"))));
    assert!(is_revoked(&fs::write(volume.path("secret/new"), "text")));
    assert!(is_revoked(&fs::create_dir(volume.path("secret/new"))));
    assert_eq!(
        fs::read(volume.path("public/news")).unwrap(),
        b"public text"
    );
    assert_eq!(fs::read(volume.path("other")).unwrap(), b"other text");
    fs::write(volume.path("public/more"), "text").unwrap();
    volume.succeed(&["key", "enable", SECRET]);
    eventually("the subtree is open", || {
        fs::read(volume.path("secret/plans/one")).is_ok_and(|text| text == b"secret text")
    });
    assert!(!volume.path("secret/new").exists());
}

#[test]
fn the_directory_above_a_closed_one_is_listed_as_before() {
    let volume = volume();
    fs::write(volume.path("secret/file"), "text").unwrap();
    let list = || succeed(volume.program("ls").arg("-ln").arg(volume.mountpoint()));
    let before = list();
    volume.succeed(&["key", "disable", SECRET]);
    assert_eq!(list(), before);
    volume.remount();
    assert_eq!(list(), before, "mounted without its key, too");
    assert!(fs::metadata(volume.path("secret")).unwrap().is_dir());
    assert!(is_revoked(&names(&volume.path("secret"))));
    for program in ["df", "stat"] {
        succeed(volume.program(program).arg(volume.path("secret")));
    }
    succeed(
        volume
            .program("chmod")
            .arg("700")
            .arg(volume.path("secret")),
    );
    mv(&volume, "secret", "renamed");
    volume.succeed(&["key", "enable", SECRET]);
    eventually("it is open", || {
        fs::read(volume.path("renamed/file")).is_ok_and(|text| text == b"text")
    });
}

#[test]
fn moving_across_bindings_encrypts_anew() {
    let volume = volume();
    fs::create_dir(volume.path("tree")).unwrap();
    fs::write(volume.path("tree/file"), vec![7; 300_000]).unwrap();
    std::os::unix::fs::symlink("file", volume.path("tree/link")).unwrap();
    assert_eq!(under(&volume, SECRET), [0, 1, 0]);
    mv(&volume, "tree", "secret/tree");
    assert_eq!(under(&volume, SECRET), [1, 2, 1]);
    assert_eq!(
        fs::read(volume.path("secret/tree/file")).unwrap(),
        vec![7; 300_000]
    );
    mv(&volume, "secret/tree/file", "public/file");
    mv(&volume, "secret/tree/link", "public/link");
    assert_eq!(under(&volume, SECRET), [0, 2, 0]);
    assert_eq!(under(&volume, PUBLIC), [1, 1, 1]);
    mv(&volume, "secret/tree", "public/tree");
    assert_eq!(under(&volume, SECRET), [0, 1, 0]);
    assert_eq!(under(&volume, PUBLIC), [1, 2, 1]);
    volume.succeed(&["key", "disable", SECRET]);
    assert_eq!(
        fs::read(volume.path("public/link")).unwrap(),
        vec![7; 300_000]
    );
    let linked = fs::hard_link(volume.path("public/file"), volume.path("linked"));
    assert_eq!(linked.unwrap_err().raw_os_error(), Some(libc::EXDEV));
}

#[test]
fn a_directory_moves_whole_where_it_is_bound_alike() {
    let volume = volume();
    fs::create_dir(volume.path("also")).unwrap();
    bind(&volume, "also", SECRET);
    fs::create_dir(volume.path("also/below")).unwrap();
    fs::write(volume.path("also/below/file"), "text").unwrap();
    let inode = |path: &str| fs::metadata(volume.path(path)).unwrap().ino();
    let (below, also) = (inode("also/below"), inode("also"));
    mv(&volume, "also/below", "secret/below");
    mv(&volume, "also", "secret/also");
    assert_eq!((inode("secret/below"), inode("secret/also")), (below, also));
    assert_eq!(fs::read(volume.path("secret/below/file")).unwrap(), b"text");
}

#[test]
fn what_cannot_be_bound_is_refused_with_advice() {
    let volume = volume();
    fs::write(volume.path("secret/file"), "text").unwrap();
    let refused = |path: &Path, key: &str, advice: &str| {
        let said = volume.fail(&["bind", path.to_str().unwrap(), key]);
        assert!(said.contains(advice), "{said}");
    };
    refused(&volume.path("secret"), PUBLIC, "make a new directory");
    refused(&volume.path("secret/file"), PUBLIC, "no directory");
    refused(&volume.path("missing"), PUBLIC, "No such file");
    refused(volume.folder(), PUBLIC, "in no mounted volume");
    let empty = volume.path("empty");
    fs::create_dir(&empty).unwrap();
    refused(&empty, "alias/unknown", "alias list");
    volume.succeed(&["key", "disable", PUBLIC]);
    refused(&empty, PUBLIC, "key enable");
    fs::write(empty.join("file"), "under its old key").unwrap();
    volume.unmount();
    volume.mount(&["--read-only"]);
    volume.succeed(&["key", "enable", PUBLIC]);
    fs::create_dir(volume.folder().join("elsewhere")).unwrap();
    let said = volume.fail(&["bind", volume.path("secret").to_str().unwrap(), SECRET]);
    assert!(said.contains("not empty"), "{said}");
}

#[test]
fn a_directory_that_is_in_use_can_be_bound() {
    let volume = volume();
    fs::create_dir(volume.path("here")).unwrap();
    succeed(
        volume
            .program("setfattr")
            .args(["-n", "user.a", "-v", "1"])
            .arg(volume.path("here")),
    );
    let before = fs::metadata(volume.path("here")).unwrap();
    let script = "read go; echo text > file && mkdir below && echo more > below/file && ls && getfattr --only-values -n user.a .";
    let mut shell = Command::new("sh");
    shell.args(["-ec", script]).current_dir(volume.path("here"));
    shell.stdin(Stdio::piped()).stdout(Stdio::piped());
    let shell = shell.spawn().unwrap();
    let opened = fs::File::open(volume.path("here")).unwrap();
    bind(&volume, "here", SECRET);
    let mut shell = shell;
    let mut input = shell.stdin.take().unwrap();
    input.write_all(b"go\n").unwrap();
    drop(input);
    let output = shell.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stdout), "below\nfile\n1");
    assert_eq!(under(&volume, SECRET), [2, 3, 0]);
    assert_eq!(opened.metadata().unwrap().ino(), before.ino());
    opened.sync_all().unwrap();
    drop(opened);
    volume.remount();
    assert_eq!(fs::read(volume.path("here/below/file")).unwrap(), b"more\n");
}

#[test]
fn the_root_of_an_empty_volume_can_be_bound() {
    let volume = Volume::mounted();
    volume.succeed(&["key", "create", "--alias", SECRET]);
    bind(&volume, "", SECRET);
    fs::write(volume.path("file"), "text").unwrap();
    assert_eq!(under(&volume, SECRET), [1, 1, 0]);
    assert_eq!(info(&volume)["RootBinding"], SECRET);
    volume.remount();
    assert_eq!(fs::read(volume.path("file")).unwrap(), b"text");
}

#[test]
fn info_shows_bindings_keys_and_sums_of_a_mounted_volume() {
    let volume = volume();
    fs::write(volume.path("secret/file"), vec![1; 5000]).unwrap();
    succeed(&mut Command::new("sync"));
    let shown = info(&volume);
    assert_eq!(shown["RootBinding"], "alias/cmkfs/default");
    let bindings = shown["Bindings"].as_array().unwrap();
    let mut paths: Vec<_> = bindings
        .iter()
        .map(|bound| {
            (
                bound["Path"].as_str().unwrap(),
                bound["Binding"].as_str().unwrap(),
            )
        })
        .collect();
    paths.sort();
    let expected = [
        ("/", "alias/cmkfs/default"),
        ("/public", PUBLIC),
        ("/secret", SECRET),
    ];
    assert_eq!(paths, expected);
    let secret = key_id(&volume, SECRET);
    let keys = shown["Keys"].as_array().unwrap();
    let key = keys.iter().find(|key| key["KeyId"] == *secret).unwrap();
    assert_eq!(key["KeyState"], "Enabled");
    assert_eq!(key["Materials"][0]["Bytes"], 5000);
    assert_eq!(key["Materials"][0]["Files"], 1);
    volume.succeed(&["key", "disable", SECRET]);
    // A path in the mount stands for its volume.
    let table = volume.succeed(&["volume", "info", volume.path("secret").to_str().unwrap()]);
    for text in ["Disabled", &secret, PUBLIC, "/secret", "is disabled"] {
        assert!(table.contains(text), "{text}:\n{table}");
    }
    volume.unmount();
    assert_eq!(info(&volume)["Keys"], {
        let mut keys = shown["Keys"].clone();
        for key in keys.as_array_mut().unwrap() {
            if key["KeyId"] == *secret {
                key["KeyState"] = "Disabled".into();
            }
        }
        keys
    });
}

/// No line of the audit log speaks of a key that was deleted like that.
const UNKNOWN: &str = "--include-unknown-keys";

/// What is left in the key directory after a key was deleted.
fn delete(volume: &Volume, alias: &str) {
    let id = key_id(volume, alias);
    volume.succeed(&["alias", "delete", alias]);
    fs::remove_dir_all(volume.folder().join("keys/keys").join(id)).unwrap();
}

#[test]
fn a_purged_volume_is_mounted_and_clean() {
    let volume = volume();
    fs::create_dir(volume.path("secret/below")).unwrap();
    fs::write(volume.path("secret/below/file"), vec![1; 5000]).unwrap();
    fs::write(volume.path("public/file"), "text").unwrap();
    delete(&volume, SECRET);
    let purge = ["volume", "purge", "CIPHERDIR", UNKNOWN];
    assert!(volume.fail(&purge).contains("cmkfs unmount"));
    volume.unmount();
    let said = volume.fail(&purge);
    assert!(said.contains("--yes"), "nobody is there to ask: {said}");
    let dry = volume.succeed(&["volume", "purge", "CIPHERDIR", UNKNOWN, "--dry-run"]);
    assert!(dry.contains("Would remove 3 objects (4.88 KiB)"), "{dry}");
    volume.mount(&[]);
    assert_eq!(names(&volume.mountpoint()).unwrap(), ["public", "secret"]);
    let closed = names(&volume.path("secret")).unwrap_err();
    assert_eq!(closed.raw_os_error(), Some(libc::ENOKEY));
    volume.unmount();
    let done = volume.succeed(&["volume", "purge", "CIPHERDIR", UNKNOWN, "--yes"]);
    assert!(done.contains("Removed 3 objects (4.88 KiB)"), "{done}");
    let again = volume.succeed(&["volume", "purge", "CIPHERDIR", "--output", "json"]);
    let again: Value = serde_json::from_str(&again).unwrap();
    assert_eq!(again["Materials"], Value::Array(Vec::new()));
    volume.mount(&[]);
    assert_eq!(names(&volume.mountpoint()).unwrap(), ["public"]);
    assert_eq!(fs::read(volume.path("public/file")).unwrap(), b"text");
    assert_eq!(info(&volume)["Damaged"], 0);
}

#[test]
fn a_volume_none_of_which_can_be_opened_is_left_to_rm() {
    let volume = Volume::bare(None);
    volume.succeed(&["key", "create", "--alias", SECRET]);
    volume.succeed(&["init", "--key", SECRET, "CIPHERDIR"]);
    delete(&volume, SECRET);
    let said = volume.fail(&["volume", "purge", "CIPHERDIR", UNKNOWN, "--yes"]);
    assert!(said.contains("rm -r"), "{said}");
    assert!(volume.ciphertext().join("cmkfs.volume").exists());
}
