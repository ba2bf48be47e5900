//! Who is compared, and the commands that make and mount each. Everyone runs with the settings its manual recommends; only
//! passwords are stretched less where that can be said, because mounting is not what is measured.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::mounted::Mounted;
use crate::programs::{self, Outcome, program};

/// What a contender is in the comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The backing directory itself.
    Floor,
    /// FUSE that does nothing else: what an encrypting filesystem is measured against.
    Ceiling,
    /// The same, asked by the kernel as much as cmkfs is: with extended attributes, and permissions that the kernel checks.
    Alike,
    /// It encrypts.
    Encrypting,
    /// It encrypts, in another way than by itself: compared where it is named.
    Variant,
}

/// One of those that are compared.
#[derive(Debug)]
pub struct Contender {
    /// As `--against` takes it.
    pub name: &'static str,
    /// What it is in the comparison.
    pub role: Role,
    /// Mounting takes seconds, so it stays mounted between measurements that need not be cold.
    pub slow_to_mount: bool,
    /// The command that prints its version; empty where there is none.
    version: &'static [&'static str],
    make: fn(&Place) -> Option<Command>,
    mount: fn(&Place) -> Option<Command>,
}

/// The directories of one contender.
#[derive(Debug)]
pub struct Place {
    /// What is stored.
    pub backing: PathBuf,
    /// Where it appears; the same where nothing is mounted.
    pub mountpoint: PathBuf,
    own: PathBuf,
}

const PASSWORD: &str = "bench";

/// All of them, in the order of the table.
pub static ALL: [Contender; 12] = [
    Contender {
        name: "plain",
        role: Role::Floor,
        slow_to_mount: false,
        version: &[],
        make: |_| None,
        mount: |_| None,
    },
    Contender {
        name: "passthrough",
        role: Role::Ceiling,
        slow_to_mount: false,
        version: &[PASSTHROUGH, "--version"],
        make: |_| None,
        mount: |place| Some(passthrough(place, "cache=always,no_writeback")),
    },
    Contender {
        name: "passthrough-writeback",
        role: Role::Ceiling,
        slow_to_mount: false,
        version: &[PASSTHROUGH, "--version"],
        make: |_| None,
        mount: |place| Some(passthrough(place, "cache=always,writeback")),
    },
    Contender {
        name: "passthrough-alike",
        role: Role::Alike,
        slow_to_mount: false,
        version: &[PASSTHROUGH, "--version"],
        make: |_| None,
        mount: |place| Some(passthrough(place, ALIKE)),
    },
    Contender {
        name: "cmkfs",
        role: Role::Encrypting,
        slow_to_mount: false,
        version: &[CMKFS, "--version"],
        make: |place| Some(init(place)),
        mount: |place| Some(cmkfs(place, "transport=auto")),
    },
    variant("cmkfs-uring", |place| {
        // The kernel says what it offers when a mount is made.
        Some(cmkfs(place, "transport=uring,enable-uring"))
    }),
    variant("cmkfs-device", |place| {
        Some(cmkfs(place, "transport=device"))
    }),
    variant("cmkfs-fuser", |place| Some(cmkfs(place, "transport=fuser"))),
    Contender {
        name: "gocryptfs",
        role: Role::Encrypting,
        slow_to_mount: false,
        version: &["gocryptfs", "--version"],
        make: |place| {
            let mut command = place.program("gocryptfs");
            command.args(["-q", "-init", "-scryptn", "10", "-passfile"]);
            command.arg(place.password()).arg(&place.backing);
            Some(command)
        },
        mount: |place| {
            let mut command = place.program("gocryptfs");
            command.args(["-q", "-fg", "-nosyslog", "-passfile"]);
            command.arg(place.password());
            command.arg(&place.backing).arg(&place.mountpoint);
            Some(command)
        },
    },
    Contender {
        name: "securefs",
        role: Role::Encrypting,
        slow_to_mount: false,
        version: &["securefs", "version"],
        make: |place| {
            let mut command = place.program("securefs");
            command.args(["create", "--rounds", "1", "--pass", PASSWORD]);
            command.arg(&place.backing);
            Some(command)
        },
        mount: |place| {
            let mut command = place.program("securefs");
            command.args(["mount", "--pass", PASSWORD]);
            command.arg(&place.backing).arg(&place.mountpoint);
            Some(command)
        },
    },
    Contender {
        name: "encfs",
        role: Role::Encrypting,
        slow_to_mount: true,
        version: &["encfs", "--version"],
        make: |_| None,
        mount: |place| {
            let mut command = place.program("encfs");
            command.args(["-f", "--standard", "--stdinpass"]);
            command.arg(&place.backing).arg(&place.mountpoint);
            Some(command)
        },
    },
    Contender {
        name: "cryfs",
        role: Role::Encrypting,
        slow_to_mount: true,
        version: &["cryfs", "--version"],
        make: |_| None,
        mount: |place| {
            let mut command = place.program("cryfs");
            command.arg("-f").arg(&place.backing).arg(&place.mountpoint);
            command.env("CRYFS_FRONTEND", "noninteractive");
            command.env("CRYFS_NO_UPDATE_CHECK", "true");
            Some(command)
        },
    },
];

/// What a mount of cmkfs offers, and its kernel asks for, that libfuse's example leaves out by itself.
const ALIKE: &str = "cache=always,writeback,xattr,default_permissions";
const CMKFS: &str = env!("CARGO_BIN_EXE_cmkfs");
/// Where scripts/bench compiles libfuse's example.
const PASSTHROUGH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/bench/passthrough_ll");

/// cmkfs, mounted in this way.
const fn variant(name: &'static str, mount: fn(&Place) -> Option<Command>) -> Contender {
    Contender {
        name,
        role: Role::Variant,
        slow_to_mount: false,
        version: &[CMKFS, "--version"],
        make: |place| Some(init(place)),
        mount,
    }
}

fn init(place: &Place) -> Command {
    let mut command = place.program(CMKFS);
    command.arg("init").arg(&place.backing);
    command
}

fn cmkfs(place: &Place, options: &str) -> Command {
    let mut command = place.program(CMKFS);
    command.args(["mount", "--foreground", "-o", options]);
    command.arg(&place.backing).arg(&place.mountpoint);
    command
}

fn passthrough(place: &Place, options: &str) -> Command {
    let mut command = place.program(PASSTHROUGH);
    // The backing directory of a bench is a temporary one, without a comma in its path.
    let source = format!("source={},{options}", place.backing.display());
    command.args(["-f", "-o", &source]).arg(&place.mountpoint);
    command
}

impl Place {
    /// New directories below `root`.
    pub fn new(root: &Path, contender: &Contender) -> Outcome<Self> {
        let own = root.join(contender.name);
        let backing = own.join("backing");
        let mountpoint = match contender.role {
            Role::Floor => backing.clone(),
            Role::Ceiling | Role::Alike | Role::Encrypting | Role::Variant => own.join("mount"),
        };
        let place = Self {
            backing,
            mountpoint,
            own,
        };
        let made = fs::create_dir_all(&place.backing)
            .and_then(|()| fs::create_dir_all(&place.mountpoint))
            .and_then(|()| fs::write(place.password(), format!("{PASSWORD}\n")));
        made.map_err(|error| format!("{}: {error}", place.own.display()))?;
        Ok(place)
    }

    /// With a home of its own: what is remembered of a volume goes with the bench.
    fn program(&self, name: &str) -> Command {
        let mut command = program(name);
        command.current_dir(&self.own).env("HOME", &self.own);
        command.env("CMKFS_KEYS", self.own.join("keys"));
        for variable in ["XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME"] {
            command.env_remove(variable);
        }
        command
    }

    fn password(&self) -> PathBuf {
        self.own.join("password")
    }
}

impl Contender {
    /// Makes its volume, where that is a step of its own.
    pub fn make(&self, place: &Place) -> Outcome<()> {
        match (self.make)(place) {
            Some(mut command) => programs::run(&mut command).map(drop),
            None => Ok(()),
        }
    }

    /// Mounts it; `None` where there is nothing to mount.
    pub fn mount(&self, place: &Place) -> Outcome<Option<Mounted>> {
        let Some(mut command) = (self.mount)(place) else {
            return Ok(None);
        };
        let password = fs::File::open(place.password());
        command.stdin(password.map_err(|error| format!("password: {error}"))?);
        Mounted::start(&mut command, &place.mountpoint, &place.own.join("log")).map(Some)
    }

    /// What its program says of its version, in one line.
    pub fn version(&self) -> String {
        let [name, arguments @ ..] = self.version else {
            return String::new();
        };
        let mut command = program(name);
        command.args(arguments).stderr(Stdio::piped());
        let Ok(output) = command.stdout(Stdio::piped()).output() else {
            return "not installed".to_owned();
        };
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        text.lines().next().unwrap_or_default().trim().to_owned()
    }
}
