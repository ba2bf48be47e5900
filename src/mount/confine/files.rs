//! Files that a mount's process can reach (Landlock): its ciphertext, its key directory, its own mount, and to read only, what
//! the C library and the kernel tell of users and processes. Not other people's files, whatever a symlink says.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, PathBeneath, PathFd, RestrictionStatus, Ruleset,
    RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};

use super::place_of;

/// The newest rules that this code knows. An older kernel leaves out what it lacks.
const KNOWN: ABI = ABI::V6;

/// What is read of the system at work: users and groups for policies (and what libraries look them up with), processes.
const READ: [&str; 9] = [
    "/proc",
    "/etc",
    "/usr",
    "/lib",
    "/lib64",
    "/run",
    "/var/lib/sss",
    "/nix/store",
    "/gnu/store",
];

/// Where a mount's process works.
#[derive(Debug, Clone, Copy)]
pub struct Reach<'a> {
    /// The encrypted files.
    pub ciphertext: &'a Path,
    /// The key directory.
    pub keys: &'a Path,
    /// The root of the mount.
    pub mountpoint: &'a Path,
    /// Where the kernel is told how far to read ahead.
    pub readahead: &'a Path,
}

/// Lets this thread and those it starts open, make and remove nothing else.
pub(super) fn restrict(reach: &Reach<'_>) -> Result<(), String> {
    let status = rules(reach).map_err(|error| error.to_string())?;
    match status.ruleset {
        RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => Ok(()),
        RulesetStatus::NotEnforced => Err("this kernel has no Landlock".to_owned()),
    }
}

fn rules(reach: &Reach<'_>) -> Result<RestrictionStatus, RulesetError> {
    let all = AccessFs::from_all(KNOWN);
    let list = AccessFs::ReadDir;
    let write = AccessFs::WriteFile | AccessFs::Truncate;
    let mut rules = Ruleset::default()
        .handle_access(all)?
        .handle_access(AccessNet::from_all(KNOWN))?
        .scope(Scope::from_all(KNOWN))?
        .create()?;
    // No program is ever started from there.
    let stored = all & !BitFlags::from(AccessFs::Execute);
    rules = allow(rules, reach.ciphertext, stored)?;
    for place in place_of(reach.keys) {
        rules = allow(rules, &place, stored)?;
    }
    // Of the mount itself the kernel would ask what it is, and nobody answers yet.
    if let Some(above) = reach.mountpoint.parent() {
        rules = allow(rules, above, list)?;
    }
    rules = allow(rules, reach.readahead, write)?;
    rules = allow(rules, Path::new("/dev/null"), write | AccessFs::ReadFile)?;
    for path in READ.map(PathBuf::from) {
        rules = allow(rules, &path, AccessFs::ReadFile | AccessFs::ReadDir)?;
    }
    rules.restrict_self()
}

/// A path that is not there needs no rule.
fn allow(
    rules: RulesetCreated,
    path: &Path,
    access: impl Into<BitFlags<AccessFs>>,
) -> Result<RulesetCreated, RulesetError> {
    match PathFd::new(path) {
        Ok(opened) => rules.add_rule(PathBeneath::new(opened, access)),
        Err(error) => {
            log::debug!("{error}");
            Ok(rules)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::ErrorKind;

    use super::*;

    #[test]
    fn what_lies_elsewhere_cannot_be_reached_not_even_by_a_symlink() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["cipher", "place/keys", "mounts/m", "other"] {
            fs::create_dir_all(path(name)).unwrap();
        }
        fs::write(path("other/secret"), "secret").unwrap();
        fs::write(path("readahead"), "128").unwrap();
        std::os::unix::fs::symlink(path("other/secret"), path("cipher/link")).unwrap();
        // Of this thread only.
        let restricted = || {
            rustix::thread::set_no_new_privs(true).unwrap();
            let (ciphertext, keys) = (path("cipher"), path("place/keys"));
            let (mountpoint, readahead) = (path("mounts/m"), path("readahead"));
            restrict(&Reach {
                ciphertext: &ciphertext,
                keys: &keys,
                mountpoint: &mountpoint,
                readahead: &readahead,
            })
            .unwrap();
            let refused = |result: std::io::Result<()>| {
                assert_eq!(result.unwrap_err().kind(), ErrorKind::PermissionDenied);
            };
            refused(fs::read(path("other/secret")).map(drop));
            refused(fs::read(path("cipher/link")).map(drop));
            refused(fs::write(path("other/new"), ""));
            refused(fs::write(path("mounts/new"), ""));
            refused(fs::remove_file(path("other/secret")));
            refused(fs::rename(path("other/secret"), path("cipher/secret")));
            refused(fs::write("/etc/cmkfs-test", ""));
            fs::write(path("cipher/new"), "").unwrap();
            fs::create_dir(path("cipher/dir")).unwrap();
            fs::rename(path("cipher/new"), path("cipher/dir/new")).unwrap();
            // A key directory that came back from a backup is another one.
            fs::remove_dir(&keys).unwrap();
            fs::create_dir(&keys).unwrap();
            fs::write(keys.join("store"), "").unwrap();
            fs::read_dir(&mountpoint).unwrap();
            fs::write(&readahead, "1024").unwrap();
            fs::read("/etc/passwd").unwrap();
            fs::read("/proc/self/mountinfo").unwrap();
        };
        std::thread::scope(|scope| scope.spawn(restricted).join().unwrap());
    }
}
