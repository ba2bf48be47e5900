//! rsync, tar and cp: a tree with everything a Unix tree can hold, there and back.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixListener;
use std::path::Path;

use crate::common::Volume;
use crate::{needs, script};

/// Every name, kind, mode, owner, size, time to the nanosecond, link count and symlink target below a directory. The size
/// and link count of a directory are the filesystem's own affair.
const LISTING: &str = r"find . \( -type d -printf '%p %y %m %U %G %T@\0' \) -o -printf '%p %y %m %U %G %T@ %s %n %l\0' | sort -z | tr '\0' '\n'";

fn listing(directory: &Path) -> String {
    script(directory, LISTING)
}

/// There is nothing that rsync would do to make `to` equal to `from`. (Without the negative window it takes times that are
/// less than a second apart for equal, and does not even set them.)
fn assert_same(from: &Path, to: &Path) {
    let todo = script(
        Path::new("/"),
        &format!(
            "rsync -n -aHAXi --checksum --modify-window=-1 --delete {}/ {}/",
            from.display(),
            to.display()
        ),
    );
    assert_eq!(
        todo,
        "",
        "rsync finds differences between {} and {}",
        from.display(),
        to.display()
    );
    assert!(
        listing(from) == listing(to),
        "{}\n---\n{}",
        listing(from),
        listing(to)
    );
}

fn make_tree(root: &Path) {
    fs::create_dir(root).unwrap();
    let name = |bytes: &[u8]| root.join(OsStr::from_bytes(bytes));
    for (n, odd) in [
        &b"spaces and\nnewline"[..],
        b"-dash",
        b"\xff\xfe\x80 not utf-8",
        "Ünïcödé 目録".as_bytes(),
        &[b'x'; 255],
        &[0xe4; 255],
        b"*?[\\'\"",
        b"a",
        b"...",
    ]
    .iter()
    .enumerate()
    {
        fs::write(name(odd), vec![n as u8; n * 3000]).unwrap();
    }
    let deep = root
        .join("deep")
        .join("x".repeat(200))
        .join("y".repeat(255));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("z".repeat(180)), "deep").unwrap();
    let sparse = File::create(root.join("sparse")).unwrap();
    sparse.write_all_at(b"begin", 0).unwrap();
    sparse.write_all_at(b"middle", 5_000_001).unwrap();
    sparse.set_len(20_000_000).unwrap();
    let target = "/long".repeat(800);
    std::os::unix::fs::symlink(&target[..4000], root.join("long-link")).unwrap();
    std::os::unix::fs::symlink(OsStr::from_bytes(b"\xff/nowhere"), root.join("link")).unwrap();
    UnixListener::bind(root.join("socket")).unwrap();
    script(
        root,
        "echo text > file; ln file hard; mkdir dir; ln file dir/harder; ln link dir/hard-link
         mkfifo fifo; mknod null c 1 3; mknod block b 7 200; mkdir empty; mkdir locked
         echo secret > locked/file; chmod 000 locked/file locked
         setfattr -n user.note -v 'a value' file
         setfattr -n user.note -v 0x00ff00 dir
         setfattr -n \"user.$(printf 'n%.0s' {1..200})\" -v \"$(printf 'v%.0s' {1..1000})\" file
         setfattr -n user.empty file
         setfattr -n trusted.note -v root dir
         setfacl -m u:1001:rwx,g:1002:r,m:rx file
         setfacl -m u:1001:rwx,d:u:1003:rw,d:g::r dir
         touch owned; chown 1001:1002 owned; chmod 6751 owned
         chown -h 1003:1004 link
         mkdir shared; chmod 3775 shared; chown 0:1002 shared
         head -c 1000000 /dev/urandom > random
         touch -d '2001-02-03 04:05:06.123456789' random
         touch -d '1969-12-31 23:00:00.5' spaces*
         touch -h -d '2010-01-01 00:00:00.000000001' link long-link
         touch -d '2020-02-02 02:02:02.222222222' dir empty fifo null .",
    );
}

#[test]
fn rsync_there_and_back_finds_no_difference() {
    needs(&[("rsync", "rsync"), ("setfacl", "acl"), ("setfattr", "attr")]);
    let volume = Volume::mounted();
    let (source, there, back) = (
        volume.folder().join("source"),
        volume.path("there"),
        volume.folder().join("back"),
    );
    make_tree(&source);
    script(
        volume.folder(),
        "rsync -aHAX --modify-window=-1 source/ plain/there/",
    );
    assert_same(&source, &there);
    volume.remount();
    assert_same(&source, &there);
    // Read and list everything, then look once more: reading changes nothing but access times.
    script(&there, "find . -type f -print0 | xargs -0 cat > /dev/null");
    volume.remount();
    assert_same(&source, &there);
    script(
        volume.folder(),
        "rsync -aHAXS --modify-window=-1 plain/there/ back/",
    );
    assert_same(&source, &back);
    // Nothing is to be sent a second time, and a change is.
    let again = script(
        volume.folder(),
        "rsync -aHAXi --modify-window=-1 source/ plain/there/",
    );
    assert_eq!(again, "");
    script(
        volume.folder(),
        "echo changed > source/file; rm -r source/deep; setfacl -b source/dir
         rsync -aHAX --modify-window=-1 --delete --inplace source/ plain/there/",
    );
    assert_same(&source, &there);
}

#[test]
fn tar_there_and_back_finds_no_difference() {
    needs(&[
        ("tar", "tar"),
        ("rsync", "rsync"),
        ("setfacl", "acl"),
        ("setfattr", "attr"),
    ]);
    let volume = Volume::mounted();
    let (source, there) = (volume.folder().join("source"), volume.path("there"));
    make_tree(&source);
    // tar stores no sockets.
    fs::remove_file(source.join("socket")).unwrap();
    fs::create_dir(&there).unwrap();
    script(
        volume.folder(),
        "touch -d '2020-02-02 02:02:02.222222222' source
         how='--format=posix --xattrs --xattrs-include=* --acls --sparse --numeric-owner'
         tar -C source $how -cf there.tar .
         tar -C plain/there $how -xpf there.tar
         tar -C plain/there $how -df there.tar",
    );
    assert_same(&source, &there);
    volume.remount();
    assert_same(&source, &there);
    script(
        volume.folder(),
        "how='--format=posix --xattrs --xattrs-include=* --acls --sparse --numeric-owner'
         tar -C plain/there $how -df there.tar
         tar -C plain/there $how -cf plain/back.tar .
         mkdir back
         tar -C back $how -xpf plain/back.tar",
    );
    assert_same(&source, &volume.folder().join("back"));
}

#[test]
fn cp_keeps_holes_and_content() {
    let volume = Volume::mounted();
    script(
        &volume.mountpoint(),
        "truncate -s 50M sparse
         printf head | dd of=sparse conv=notrunc status=none
         printf tail | dd of=sparse bs=1 seek=40000000 conv=notrunc status=none
         for how in '--sparse=always' '--sparse=auto --reflink=auto' '-a'; do
             cp $how sparse copy
             cmp sparse copy
             sync copy
             test $(stat -c %b copy) -lt 2048
             rm copy
         done
         cp --sparse=never --reflink=auto sparse full
         cmp sparse full
         if cp --reflink=always sparse clone 2> said; then exit 1; fi
         grep -q 'Operation not supported' said",
    );
    volume.remount();
    script(
        &volume.mountpoint(),
        "cmp sparse full; test $(stat -c %b sparse) -lt 2048; cp --sparse=always full again; test $(stat -c %b again) -lt 2048",
    );
}
