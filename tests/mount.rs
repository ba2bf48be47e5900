//! How mounts come and go: every way to mount and unmount, and what may stand in the way.

mod common;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirEntryExt, FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cmkfs::mount::mountinfo;
use common::{Volume, device, eventually, succeed};
use rustix::process::Signal;
use rustix::thread::CapabilitySet;

const NOBODY: u32 = 65534;

#[test]
fn the_command_returns_when_the_mount_answers_and_unmount_when_the_volume_is_free() {
    let volume = Volume::new();
    let outside = device(&volume.mountpoint());
    volume.mount(&[]);
    assert_ne!(device(&volume.mountpoint()), outside);
    fs::write(volume.path("file"), "text").unwrap();
    volume.unmount();
    assert_eq!(volume.daemon(), None);
    assert!(!volume.path("file").exists());
    volume.mount(&[]);
    assert_eq!(fs::read_to_string(volume.path("file")).unwrap(), "text");
}

#[test]
fn umount_ends_the_daemon() {
    let volume = Volume::mounted();
    succeed(Command::new("umount").arg(volume.mountpoint()));
    volume.wait_until_free();
    volume.mount(&[]);
    succeed(
        Command::new("fusermount3")
            .arg("-u")
            .arg(volume.mountpoint()),
    );
    volume.wait_until_free();
}

#[test]
fn signals_unmount_cleanly() {
    let volume = Volume::new();
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        volume.mount(&[]);
        fs::write(volume.path("file"), format!("{signal:?}")).unwrap();
        volume.signal(signal);
        volume.wait_until_free();
        volume.mount(&[]);
        assert_eq!(
            fs::read_to_string(volume.path("file")).unwrap(),
            format!("{signal:?}")
        );
        volume.unmount();
    }
}

#[test]
fn a_signal_while_the_mount_is_in_use_lets_the_last_user_finish() {
    let volume = Volume::mounted();
    let mut file = File::create(volume.path("file")).unwrap();
    volume.signal(Signal::TERM);
    eventually("the mountpoint is free", || !volume.is_mounted());
    file.write_all(b"still here").unwrap();
    file.sync_all().unwrap();
    drop(file);
    volume.wait_until_free();
    volume.mount(&[]);
    assert_eq!(fs::read(volume.path("file")).unwrap(), b"still here");
}

#[test]
fn a_second_signal_ends_at_once() {
    let volume = Volume::mounted();
    let _file = File::create(volume.path("file")).unwrap();
    volume.signal(Signal::TERM);
    eventually("the mountpoint is free", || !volume.is_mounted());
    volume.signal(Signal::TERM);
    eventually("the daemon is gone", || volume.daemon().is_none());
}

#[test]
fn the_foreground_command_ends_with_the_mount() {
    let volume = Volume::new();
    let mut command = volume.command(&["mount", "--foreground", "CIPHERDIR", "MOUNTPOINT"]);
    let mut foreground = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(foreground.stderr.take().unwrap()).lines();
    // The mountpoint is taken somewhat earlier.
    let is_ready = |line: io::Result<String>| line.unwrap().contains("mounted on");
    assert!(log.by_ref().any(is_ready));
    volume.unmount();
    assert!(foreground.wait().unwrap().success());
}

#[test]
fn a_busy_mount_is_refused_with_the_name_of_who_holds_it() {
    let volume = Volume::mounted();
    let mut holder = Command::new("sleep")
        .arg("60")
        .current_dir(volume.mountpoint())
        .spawn()
        .unwrap();
    let said = volume.fail(&["unmount", "MOUNTPOINT"]);
    assert!(
        said.contains("sleep") && said.contains(&holder.id().to_string()),
        "{said}"
    );
    assert!(volume.is_mounted());
    volume.succeed(&["unmount", "--lazy", "MOUNTPOINT"]);
    assert!(!volume.is_mounted());
    holder.kill().unwrap();
    holder.wait().unwrap();
    volume.wait_until_free();
}

#[test]
fn errors_reach_the_terminal() {
    let volume = Volume::new();
    let said = volume.fail(&["mount", "CIPHERDIR", "missing"]);
    assert!(
        said.contains("missing") && said.contains("does not exist") && said.contains("mkdir"),
        "{said}"
    );
    fs::write(volume.folder().join("file"), "").unwrap();
    assert!(
        volume
            .fail(&["mount", "CIPHERDIR", "file"])
            .contains("not a directory")
    );
    assert!(
        volume
            .fail(&["mount", "home", "MOUNTPOINT"])
            .contains("home")
    );
    assert!(
        volume
            .fail(&["mount", "CIPHERDIR", "CIPHERDIR"])
            .contains("within each other")
    );
    assert!(
        volume
            .fail(&["mount", "-o", "wibble", "CIPHERDIR", "MOUNTPOINT"])
            .contains("wibble")
    );
    assert!(
        volume
            .fail(&["mount", "--log", "/proc/log", "CIPHERDIR", "MOUNTPOINT"])
            .contains("/proc/log")
    );
    assert!(
        volume
            .fail(&["unmount", "MOUNTPOINT"])
            .contains("no cmkfs volume")
    );
    assert!(!volume.is_mounted() && volume.daemon().is_none());
}

#[test]
fn a_volume_is_mounted_once() {
    let volume = Volume::mounted();
    let daemon = volume.daemon().unwrap().to_string();
    fs::create_dir(volume.folder().join("second")).unwrap();
    let said = volume.fail(&["mount", "CIPHERDIR", "second"]);
    assert!(said.contains(&daemon), "{said}");
    let said = volume.fail(&["mount", "CIPHERDIR", "MOUNTPOINT"]);
    assert!(
        said.contains("already mounted") && said.contains(&daemon),
        "{said}"
    );
}

#[test]
fn a_mount_whose_daemon_was_killed_is_taken_over() {
    let volume = Volume::mounted();
    fs::write(volume.path("file"), "text").unwrap();
    File::open(volume.path("file")).unwrap().sync_all().unwrap();
    volume.kill();
    eventually("nobody answers", || {
        rustix::fs::statfs(volume.mountpoint()).is_err()
    });
    volume.mount(&[]);
    assert_eq!(fs::read_to_string(volume.path("file")).unwrap(), "text");
    volume.unmount();
    assert!(!volume.is_mounted());
}

#[test]
fn init_makes_what_is_missing_and_spares_what_is_there() {
    let volume = Volume::bare(None);
    volume.succeed(&["mount", "--init", "CIPHERDIR", "MOUNTPOINT"]);
    fs::write(volume.path("file"), "text").unwrap();
    volume.unmount();
    volume.succeed(&["mount", "--init", "CIPHERDIR", "MOUNTPOINT"]);
    assert_eq!(fs::read_to_string(volume.path("file")).unwrap(), "text");
    volume.unmount();
    fs::create_dir(volume.folder().join("mine")).unwrap();
    fs::write(volume.folder().join("mine/letter"), "text").unwrap();
    for arguments in [
        &["mount", "--init", "mine", "MOUNTPOINT"][..],
        &["init", "mine"],
    ] {
        assert!(volume.fail(arguments).contains("not empty"));
    }
    assert_eq!(
        fs::read_dir(volume.folder().join("mine")).unwrap().count(),
        1
    );
}

#[test]
fn a_mount_below_survives() {
    let volume = Volume::new();
    succeed(
        Command::new("mount")
            .args(["-t", "tmpfs", "none"])
            .arg(volume.mountpoint()),
    );
    fs::write(volume.path("below"), "").unwrap();
    volume.mount(&[]);
    assert!(!volume.path("below").exists());
    succeed(Command::new("umount").arg(volume.mountpoint()));
    volume.wait_until_free();
    assert!(volume.path("below").exists());
    volume.mount(&[]);
    volume.signal(Signal::TERM);
    volume.wait_until_free();
    assert!(volume.path("below").exists());
}

#[test]
fn a_mount_above_survives_and_the_one_below_is_not_ended() {
    let volume = Volume::mounted();
    succeed(
        Command::new("mount")
            .args(["-t", "tmpfs", "none"])
            .arg(volume.mountpoint()),
    );
    fs::write(volume.path("above"), "").unwrap();
    assert!(
        volume
            .fail(&["unmount", "MOUNTPOINT"])
            .contains("no cmkfs volume")
    );
    assert!(volume.path("above").exists() && volume.daemon().is_some());
    succeed(Command::new("umount").arg(volume.mountpoint()));
    volume.unmount();
}

#[test]
fn read_only_mounts_refuse_changes() {
    let volume = Volume::mounted();
    fs::write(volume.path("file"), "text").unwrap();
    volume.unmount();
    for options in [&["--read-only"][..], &["-o", "ro"]] {
        volume.mount(options);
        assert_eq!(fs::read_to_string(volume.path("file")).unwrap(), "text");
        let error = fs::write(volume.path("other"), "").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EROFS));
        assert!(
            volume
                .succeed(&["status", "--output", "json"])
                .contains("\"ReadOnly\": true")
        );
        volume.unmount();
    }
}

#[test]
fn source_and_options_show_as_they_were_given() {
    let volume = Volume::new();
    volume.mount(&["-o", "noexec,noatime,suid"]);
    let mount = mountinfo::at(&volume.mountpoint()).unwrap().unwrap();
    assert_eq!(Path::new(&mount.source), volume.ciphertext());
    assert_eq!(mount.options, "rw,nodev,noexec,noatime");
    volume.unmount();
    volume.mount(&["-o", r"fsname=my data\, suid"]);
    let mount = mountinfo::at(&volume.mountpoint()).unwrap().unwrap();
    assert_eq!(mount.source, "my data, suid");
    assert_eq!(mount.options, "rw,nosuid,nodev,relatime");
    let daemon = volume.daemon().unwrap();
    assert!(
        volume
            .succeed(&["status", "--output", "json"])
            .contains(&daemon.to_string())
    );
    volume.unmount();
    assert_eq!(volume.daemon(), None);
}

#[test]
fn a_source_with_comma_and_space_is_no_option() {
    let volume = Volume::new();
    let odd = volume.folder().join("c, suid");
    fs::rename(volume.ciphertext(), &odd).unwrap();
    volume.succeed(&["mount", odd.to_str().unwrap(), "MOUNTPOINT"]);
    let mount = mountinfo::at(&volume.mountpoint()).unwrap().unwrap();
    assert_eq!(
        (Path::new(&mount.source), &*mount.options),
        (&*odd, "rw,nosuid,nodev,relatime")
    );
    volume.unmount();
}

#[test]
fn an_ordinary_user_mounts_through_fusermount3() {
    let volume = Volume::bare(Some((NOBODY, NOBODY)));
    volume.succeed(&[
        "mount",
        "--init",
        "-o",
        r"fsname=a\,b",
        "CIPHERDIR",
        "MOUNTPOINT",
    ]);
    let mount = mountinfo::at(&volume.mountpoint()).unwrap().unwrap();
    assert_eq!(mount.source, "a,b");
    assert!(mount.is_cmkfs() && mount.options.contains("nosuid,nodev"));
    succeed(volume.program("sh").args([
        "-c",
        "echo text > plain/file; test $(stat -c %u plain/file) = 65534",
    ]));
    // Not even root gets in without allow_other.
    assert!(fs::read(volume.path("file")).is_err());
    volume.unmount();
    assert_eq!(volume.daemon(), None);
    volume.succeed(&["mount", "CIPHERDIR", "MOUNTPOINT"]);
    volume.signal(Signal::TERM);
    volume.wait_until_free();
    volume.succeed(&["mount", "CIPHERDIR", "MOUNTPOINT"]);
    volume.kill();
    volume.succeed(&["mount", "CIPHERDIR", "MOUNTPOINT"]);
    assert_eq!(succeed(volume.program("cat").arg("plain/file")), "text\n");
    succeed(volume.program("fusermount3").args(["-u", "plain"]));
    volume.wait_until_free();
}

#[test]
fn a_missing_helper_is_named_with_its_package() {
    let volume = Volume::bare(Some((NOBODY, NOBODY)));
    let mut command = volume.command(&["mount", "--init", "CIPHERDIR", "MOUNTPOINT"]);
    // setpriv itself has to be found.
    let setpriv = volume.folder().join("bin");
    fs::create_dir(&setpriv).unwrap();
    let found = succeed(Command::new("sh").args(["-c", "command -v setpriv"]));
    std::os::unix::fs::symlink(found.trim(), setpriv.join("setpriv")).unwrap();
    let output = command.env("PATH", &setpriv).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && said.contains("fusermount3") && said.contains("fuse3"),
        "{said}"
    );
}

#[test]
fn the_helper_of_mount_mounts_from_fstab_style_arguments() {
    let volume = Volume::new();
    let helper = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/mount.fuse.cmkfs");
    let mut command = volume.program(&helper);
    command
        .env("CMKFS", env!("CARGO_BIN_EXE_cmkfs"))
        .arg(volume.ciphertext())
        .arg(volume.mountpoint());
    succeed(command.args(["-n", "-o", "rw,noexec,_netdev,x-systemd.automount"]));
    let mount = mountinfo::at(&volume.mountpoint()).unwrap().unwrap();
    assert_eq!(mount.options, "rw,noexec,relatime");
    let mut command = volume.program(helper);
    command.args(["none".as_ref(), volume.mountpoint().as_os_str()]);
    succeed(command.args(["-o", "remount,ro,noexec,user_id=0"]));
    let mount = mountinfo::at(&volume.mountpoint()).unwrap().unwrap();
    assert_eq!(mount.options, "ro,noexec,relatime");
    assert!(fs::write(volume.path("file"), "").is_err());
    volume.unmount();
}

#[test]
fn a_mount_may_have_as_many_dirty_pages_as_a_disk_where_its_process_need_not_wait_for_them() {
    const THROTTLED_LOCALLY: u64 = 0x0010_0000; // PF_LOCAL_THROTTLE, linux/include/linux/sched.h
    let volume = Volume::mounted();
    let device = common::device(&volume.mountpoint());
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let setting = |name| fs::read_to_string(format!("/sys/class/bdi/{major}:{minor}/{name}"));
    assert_eq!(setting("read_ahead_kb").unwrap(), "1024\n");
    let capabilities = rustix::thread::capabilities(None).unwrap().effective;
    let may_be_spared = capabilities.contains(CapabilitySet::SYS_RESOURCE);
    let strict_limit = if may_be_spared { "0\n" } else { "1\n" };
    assert_eq!(setting("strict_limit").unwrap(), strict_limit);
    let tasks = Path::new("/proc").join(volume.daemon().unwrap().to_string());
    for task in fs::read_dir(tasks.join("task")).unwrap() {
        let stat = fs::read_to_string(task.unwrap().path().join("stat")).unwrap();
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        let flags = fields.split(' ').nth(6).unwrap().parse::<u64>().unwrap();
        assert_eq!(flags & THROTTLED_LOCALLY != 0, may_be_spared, "{stat}");
    }
}

#[test]
fn the_daemon_keeps_no_folder_and_no_terminal() {
    let volume = Volume::mounted();
    let process = Path::new("/proc").join(volume.daemon().unwrap().to_string());
    assert_eq!(fs::read_link(process.join("cwd")).unwrap(), Path::new("/"));
    for descriptor in ["fd/0", "fd/1"] {
        assert_eq!(
            fs::read_link(process.join(descriptor)).unwrap(),
            Path::new("/dev/null")
        );
    }
    assert_eq!(fs::read_to_string(process.join("comm")).unwrap(), "cmkfs\n");
    let limits = fs::read_to_string(process.join("limits")).unwrap();
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"))
        .unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"));
    eventually("the log says so", || volume.log().contains("mounted on"));
}

#[test]
fn mounting_again_waits_for_a_daemon_that_is_still_finishing() {
    let volume = Volume::mounted();
    let file = File::create(volume.path("file")).unwrap();
    volume.succeed(&["unmount", "--lazy", "MOUNTPOINT"]);
    let first = volume.daemon();
    assert!(first.is_some());
    let mut second = volume
        .command(&["mount", "CIPHERDIR", "MOUNTPOINT"])
        .spawn()
        .unwrap();
    // It cannot be seen waiting; that it has not failed after a while is all there is.
    let patience = Instant::now() + Duration::from_millis(500);
    while Instant::now() < patience {
        assert_eq!(second.try_wait().unwrap(), None);
        std::thread::yield_now();
    }
    drop(file);
    assert!(second.wait().unwrap().success());
    assert_ne!(volume.daemon(), first);
}

#[test]
fn data_and_holes_are_found_in_a_file_whose_pages_are_dirty() {
    let volume = Volume::mounted();
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(volume.path("sparse"))
        .unwrap();
    let page = [7; 4096];
    for round in 0..500_u64 {
        let at = (round * 4 + 2) * 4096;
        file.write_all_at(&page, at).unwrap();
        let found = rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(at - 4096)).unwrap();
        assert_eq!(found, at);
        assert_eq!(
            rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(at)).unwrap(),
            at + 4096
        );
    }
}

#[test]
fn a_listing_again_shows_what_has_changed_since() {
    let volume = Volume::mounted();
    let at = |name: &str| volume.path(name);
    let list = || {
        let entries = fs::read_dir(volume.mountpoint()).unwrap();
        let seen = entries.map(|entry| {
            let entry = entry.unwrap();
            let found = fs::symlink_metadata(entry.path()).unwrap();
            assert_eq!(entry.ino(), found.ino());
            assert_eq!(entry.file_type().unwrap(), found.file_type());
            let what = (found.len(), found.mode() & 0o777, found.nlink());
            (entry.file_name().into_string().unwrap(), what)
        });
        seen.collect::<BTreeMap<_, _>>()
    };
    for name in ["changed", "grown", "linked", "moved", "over", "removed"] {
        fs::write(at(name), "abc").unwrap();
        fs::set_permissions(at(name), fs::Permissions::from_mode(0o644)).unwrap();
    }
    fs::create_dir_all(at("folder/inner")).unwrap();
    symlink("changed", at("link")).unwrap();
    assert_eq!(list().len(), 8);
    assert_eq!(list().len(), 8);
    fs::set_permissions(at("changed"), fs::Permissions::from_mode(0o600)).unwrap();
    let mut grown = OpenOptions::new().append(true).open(at("grown")).unwrap();
    grown.write_all(b"de").unwrap();
    fs::hard_link(at("linked"), at("another")).unwrap();
    fs::rename(at("moved"), at("over")).unwrap();
    fs::remove_file(at("removed")).unwrap();
    fs::write(at("removed"), "").unwrap();
    fs::set_permissions(at("removed"), fs::Permissions::from_mode(0o640)).unwrap();
    let expected = [
        ("another", (3, 0o644, 2)),
        ("changed", (3, 0o600, 1)),
        ("folder", list()["folder"]),
        ("grown", (5, 0o644, 1)),
        ("link", (7, 0o777, 1)),
        ("linked", (3, 0o644, 2)),
        ("over", (3, 0o644, 1)),
        ("removed", (0, 0o640, 1)),
    ];
    let expected = BTreeMap::from(expected.map(|(name, what)| (name.to_owned(), what)));
    assert_eq!(list(), expected);
    drop(grown);
    assert_eq!(list(), expected);
}

#[test]
fn times_before_1970_are_kept() {
    let volume = Volume::mounted();
    fs::write(volume.path("file"), "").unwrap();
    succeed(
        Command::new("touch")
            .args(["-d", "1969-12-31 23:59:58.25 UTC"])
            .arg(volume.path("file")),
    );
    volume.remount();
    let metadata = fs::metadata(volume.path("file")).unwrap();
    assert_eq!((metadata.mtime(), metadata.mtime_nsec()), (-2, 250_000_000));
}

#[test]
fn the_root_of_a_mount_can_always_be_looked_at() {
    let volume = Volume::mounted();
    let figures = rustix::fs::statvfs(volume.mountpoint()).unwrap();
    assert!(figures.f_blocks > 0 && figures.f_namemax == 255);
    succeed(Command::new("mountpoint").arg(volume.mountpoint()));
}

#[test]
fn large_files_come_back_as_they_were_written() {
    let volume = Volume::mounted();
    let bytes: Vec<u8> = (0..5_000_017_u32)
        .map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    fs::write(volume.path("large"), &bytes).unwrap();
    volume.remount();
    let mut file = File::open(volume.path("large")).unwrap();
    let mut read = Vec::new();
    file.read_to_end(&mut read).unwrap();
    assert!(read == bytes);
    let mut tail = [0; 17];
    file.seek(SeekFrom::End(-17)).unwrap();
    file.read_exact(&mut tail).unwrap();
    assert_eq!(tail, bytes[bytes.len() - 17..]);
}

#[test]
fn setuid_does_not_survive_a_change_by_an_ordinary_user() {
    let volume = Volume::new();
    volume.mount(&["-o", "suid"]);
    fs::set_permissions(volume.mountpoint(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(volume.folder(), fs::Permissions::from_mode(0o755)).unwrap();
    let file = volume.path("program");
    let as_nobody = |script: &str| -> String {
        let mut command = Command::new("setpriv");
        command.args([
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "sh",
            "-c",
            script,
        ]);
        succeed(command.current_dir(volume.mountpoint()))
    };
    let mode = || fs::metadata(&file).unwrap().mode() & 0o7777;
    for script in [
        "echo x >> program",
        "echo x > program",
        "truncate -s 1 program",
        "fallocate -l 5 program",
        "dd if=/dev/zero of=program bs=4096 count=1 conv=notrunc oflag=direct 2>/dev/null",
    ] {
        fs::write(&file, "text").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o6777)).unwrap();
        assert_eq!(mode(), 0o6777);
        as_nobody(script);
        assert_eq!(mode(), 0o777, "{script}");
    }
    fs::set_permissions(&file, fs::Permissions::from_mode(0o6777)).unwrap();
    fs::write(&file, "by root").unwrap();
    assert_eq!(mode(), 0o6777);
    std::os::unix::fs::chown(&file, Some(NOBODY), None).unwrap();
    assert_eq!(mode(), 0o777);
    // Running it looks at what the kernel has in its cache, and nowhere else.
    let id = succeed(Command::new("sh").args(["-c", "command -v id"]));
    for script in [
        "",
        "echo x >> program;",
        "fallocate -o 200000 -l 5 program;",
    ] {
        fs::copy(id.trim(), &file).unwrap();
        std::os::unix::fs::chown(&file, Some(0), None).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o4777)).unwrap();
        let user = as_nobody(&format!("{script} ./program -u"));
        assert_eq!(
            user.trim(),
            if script.is_empty() { "0" } else { "65534" },
            "{script}"
        );
    }
    // A file capability: version 2, effective, CAP_NET_RAW.
    let capability = [
        1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    let flags = rustix::fs::XattrFlags::empty();
    for script in [
        "echo x >> program",
        "echo x > program",
        "truncate -s 1 program",
    ] {
        rustix::fs::setxattr(&file, "security.capability", &capability, flags).unwrap();
        as_nobody(script);
        let mut value = [0; 20];
        let found = rustix::fs::getxattr(&file, "security.capability", &mut value);
        assert_eq!(found, Err(rustix::io::Errno::NODATA), "{script}");
    }
}

#[test]
fn files_without_an_selinux_label_say_that_there_are_none_until_one_is_seen() {
    // Where SELinux is on, the kernel answers.
    let filesystems = fs::read_to_string("/proc/filesystems").unwrap();
    assert!(!filesystems.contains("selinuxfs"), "SELinux is on here");
    let volume = Volume::mounted();
    let (one, another) = (volume.path("one"), volume.path("another"));
    fs::write(&one, "").unwrap();
    fs::write(&another, "").unwrap();
    let label = |file: &Path| {
        let mut value = [0; 16];
        let length = rustix::fs::getxattr(file, "security.selinux", &mut value[..])?;
        Ok(value[..length].to_vec())
    };
    assert_eq!(label(&one), Err(rustix::io::Errno::OPNOTSUPP));
    let flags = rustix::fs::XattrFlags::CREATE;
    rustix::fs::setxattr(&one, "security.selinux", b"a label", flags).unwrap();
    assert_eq!(label(&one), Ok(b"a label".to_vec()));
    assert_eq!(label(&another), Err(rustix::io::Errno::NODATA));
    volume.remount();
    assert_eq!(label(&another), Err(rustix::io::Errno::OPNOTSUPP));
    assert_eq!(label(&one), Ok(b"a label".to_vec()));
    assert_eq!(label(&another), Err(rustix::io::Errno::NODATA));
}

#[test]
fn what_only_devices_can_do_is_refused_as_elsewhere_and_the_log_stays_quiet() {
    let volume = Volume::mounted();
    let path = volume.path("file");
    fs::write(&path, "text").unwrap();
    let file = fs::File::open(&path).unwrap();
    assert_eq!(
        rustix::termios::tcgetattr(&file).err(),
        Some(rustix::io::Errno::NOTTY)
    );
    let mut waiting = [rustix::event::PollFd::new(
        &file,
        rustix::event::PollFlags::IN,
    )];
    assert_eq!(rustix::event::poll(&mut waiting, None), Ok(1));
    fs::copy(&path, volume.path("copy")).unwrap();
    assert_eq!(fs::read(volume.path("copy")).unwrap(), b"text");
    let log = volume.log();
    assert!(!log.contains("WARN"), "{log}");
}
