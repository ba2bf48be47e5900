//! Where keys lie in the memory of a live mount, and that they are gone when their CMK is withdrawn. Read as root through
//! `/proc/PID/mem`, which is what a core image would hold.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::process::Stdio;
use std::sync::Arc;

use cmkfs::clock::SystemClock;
use cmkfs::crypto::envelope::DataKey;
use cmkfs::crypto::kdf::{Kdf, Purpose};
use cmkfs::crypto::passphrase::Passphrase;
use cmkfs::format::envelope::{EncryptionContext, ObjectKind};
use cmkfs::format::header::Header;
use cmkfs::kms::KeyService;
use cmkfs::kms::error::KmsError;
use cmkfs::kms::root::PassphraseSource;
use cmkfs::secret::Secret;
use cmkfs::volume::glance;

use crate::USER;
use crate::common::{Volume, succeed};

struct NoPassphrase;

impl PassphraseSource for NoPassphrase {
    fn existing(&self, _: &std::path::Path) -> Result<Passphrase, KmsError> {
        unreachable!("the key directory has none")
    }

    fn chosen(&self, _: &std::path::Path) -> Result<Passphrase, KmsError> {
        unreachable!("the key directory has none")
    }
}

/// A mounted volume under imported material, so that the test knows what to look for.
fn imported(identity: Option<(u32, u32)>) -> (Volume, Secret<32>, String) {
    let volume = Volume::bare(identity);
    let create = ["-q", "key", "create", "--origin", "EXTERNAL"];
    let key = volume.succeed(&create).trim().to_owned();
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).unwrap();
    let material = volume.folder().join("material");
    fs::write(&material, bytes).unwrap();
    let path = material.to_str().unwrap();
    volume.succeed(&["key", "import", &key, "--material", path]);
    fs::remove_file(&material).unwrap();
    volume.succeed(&["init", "CIPHERDIR", "--key", &key]);
    fs::create_dir(volume.mountpoint()).unwrap();
    if let Some((user, group)) = identity {
        std::os::unix::fs::chown(volume.mountpoint(), Some(user), Some(group)).unwrap();
    }
    volume.mount(&[]);
    (volume, Secret::take(&mut bytes), key)
}

/// The data key of the one file in the root of the volume.
fn data_key(volume: &Volume) -> DataKey {
    let keys = volume.folder().join("keys");
    let service = KeyService::open(&keys, &NoPassphrase, Arc::new(SystemClock)).unwrap();
    let files = fs::read_dir(volume.ciphertext()).unwrap();
    let headers = files.filter_map(|entry| {
        let bytes = fs::read(entry.unwrap().path()).ok()?;
        Header::decode(ObjectKind::File, bytes.get(..512)?).ok()
    });
    let headers: Vec<_> = headers.collect();
    let [header] = &headers[..] else {
        panic!("one file")
    };
    let context = EncryptionContext {
        volume: glance(&volume.ciphertext()).unwrap().volume_id(),
        object: header.object_id(),
        kind: ObjectKind::File,
    };
    service
        .decrypt_data_key(header.envelope(), &context)
        .unwrap()
}

/// Most pages hold nothing, and that is seen at once.
fn holds(bytes: &[u8], secret: &[u8; 32]) -> bool {
    const PAGE: usize = 4096;
    let pages = (0..bytes.len()).step_by(PAGE);
    let mut used = pages.filter(|at| bytes[*at..*at + PAGE] != [0; PAGE]);
    used.any(|at| {
        // A secret may begin on the page before.
        let part = &bytes[at.saturating_sub(31)..bytes.len().min(at + PAGE + 31)];
        let begins = |at: &usize| part[*at] == secret[0] && part[*at..].starts_with(secret);
        (0..part.len()).any(|at| begins(&at))
    })
}

/// What each region of the daemon's memory is (`VmFlags` of smaps), and which of the secrets it holds.
fn search(volume: &Volume, secrets: &[(&'static str, &[u8; 32])]) -> Vec<(&'static str, String)> {
    let pid = volume.daemon().unwrap();
    let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
    let smaps = fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap();
    let mut found = Vec::new();
    let mut region = None;
    for line in smaps.lines() {
        let first = line.split(' ').next().unwrap_or_default();
        if let Some((from, to)) = first.split_once('-')
            && let (Ok(from), Ok(to)) = (u64::from_str_radix(from, 16), u64::from_str_radix(to, 16))
        {
            region = Some((from, to, line.to_owned()));
        }
        let (Some(flags), Some((from, to, name))) = (line.strip_prefix("VmFlags:"), &region) else {
            continue;
        };
        let mut bytes = vec![0; usize::try_from(to - from).unwrap()];
        // Guard pages and what the kernel maps cannot be read.
        if memory.read_exact_at(&mut bytes, *from).is_err() {
            continue;
        }
        for (what, secret) in secrets {
            if holds(&bytes, secret) {
                found.push((*what, format!("{name}: {}", flags.trim())));
            }
        }
    }
    found
}

fn assert_out_of_reach(identity: Option<(u32, u32)>) {
    let (volume, material, key) = imported(identity);
    // As the volume's user: nobody else gets in, not even root.
    let shell = |script: &str| {
        let mut shell = volume.program("timeout");
        shell.args(["20", "sh", "-c", &format!("cd plain && {script}")]);
        shell
    };
    succeed(&mut shell("head -c 10000 /dev/zero > file; sync file"));
    // Held open, so that its keys are in use.
    let mut held = volume
        .program("sh")
        .args(["-c", "exec 3< plain/file; echo held; read never"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    held.stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut [0; 5])
        .unwrap();
    succeed(&mut shell("cat file"));
    let data_key = data_key(&volume);
    let (derived, wrapping) = (Kdf::new(&data_key), Kdf::new(&material));
    let content = derived.derive::<32>(Purpose::Content);
    let header = derived.derive::<32>(Purpose::Header);
    let wrap = wrapping.derive::<32>(Purpose::Wrap);
    let secrets = [
        ("material", material.expose()),
        ("wrapping key", wrap.expose()),
        ("data key", data_key.expose()),
        ("content key", content.expose()),
        ("header key", header.expose()),
    ];
    let before = search(&volume, &secrets);
    // An expanded AES key begins with the key itself.
    assert!(
        before.iter().any(|(what, _)| *what == "content key"),
        "{before:?}"
    );
    for (what, region) in &before {
        for flag in ["lo", "dd", "wf"] {
            let flags = region.rsplit(": ").next().unwrap();
            assert!(
                flags.split(' ').any(|found| found == flag),
                "the {what} is in memory without {flag}: {region}"
            );
        }
    }
    volume.succeed(&["key", "disable", &key]);
    assert!(!shell("cat file").output().unwrap().status.success());
    assert_eq!(search(&volume, &secrets), []);
    // The same search finds them again.
    volume.succeed(&["key", "enable", &key]);
    succeed(&mut shell("cat file"));
    assert!(!search(&volume, &secrets).is_empty());
    drop(held.stdin.take());
    held.wait().unwrap();
}

#[test]
fn keys_of_roots_mount_lie_in_locked_memory_and_go_with_their_cmk() {
    assert_out_of_reach(None);
}

#[test]
fn keys_of_a_users_mount_lie_in_locked_memory_and_go_with_their_cmk() {
    assert_out_of_reach(Some(USER));
}

#[test]
fn another_process_of_the_same_user_reads_nothing_of_a_mounts_memory() {
    let volume = crate::of_user();
    let process = format!("/proc/{}", volume.daemon().unwrap());
    for file in ["mem", "environ", "maps", "auxv"] {
        let path = format!("{process}/{file}");
        let mut read = volume.program("head");
        let refused = read.args(["-c1", &path]).output().unwrap();
        let said = String::from_utf8(refused.stderr).unwrap();
        assert!(said.contains("Permission denied"), "{file}: {said}");
        // The same of a process that has asked for nothing.
        let own = format!("exec 3< /proc/$$/{file}");
        succeed(volume.program("sh").args(["-c", &own]));
    }
    let limits = fs::read_to_string(format!("{process}/limits")).unwrap();
    let core = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max core file size"));
    let core: Vec<_> = core.unwrap().split_whitespace().take(2).collect();
    assert_eq!(core, ["0", "0"]);
}

/// The keys of four hundred directories do not fit into what may be locked.
#[test]
fn keys_beyond_the_limit_of_locked_memory_still_work_and_are_told_of() {
    let volume = Volume::bare(Some(USER));
    volume.succeed(&["init", "CIPHERDIR"]);
    fs::create_dir(volume.mountpoint()).unwrap();
    std::os::unix::fs::chown(volume.mountpoint(), Some(USER.0), Some(USER.1)).unwrap();
    let mut limited = volume.program("prlimit");
    limited.arg("--memlock=131072:131072");
    limited.arg(volume.folder().join("cmkfs")).arg("mount");
    limited.args([volume.ciphertext(), volume.mountpoint()]);
    let output = limited.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let script = "cd plain; for n in $(seq 400); do mkdir d$n; echo $n > d$n/file; done";
    succeed(volume.program("sh").args(["-c", script]));
    let said = volume.succeed(&["status", "MOUNTPOINT", "--output", "json"]);
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert!(said[0]["UnlockedKeyBytes"].as_u64().unwrap() > 0, "{said}");
    assert!(said[0]["LockedKeyBytes"].as_u64().unwrap() <= 131_072);
    // On the terminal where it was so from the start, else in the log.
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &volume.log();
    assert_eq!(said.matches("no more memory can be locked").count(), 1);
}
