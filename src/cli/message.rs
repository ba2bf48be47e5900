//! Errors for people: what failed, why, and what to do next. The only place that gives advice.

use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::bind::BindError;
use super::obey::Unanswered;
use super::output;
use crate::crypto::known_answer::WrongAnswer;
use crate::ids::KeyId;
use crate::kms::KmsError;
use crate::kms::key::KeyRef;
use crate::kms::state::{InvalidState, Unsupported};
use crate::mount::MountError;
use crate::mount::control::client::AskError;
use crate::mount::control::protocol::{Failed, Reason};
use crate::mount::options::{self, OptionError};
use crate::volume::{self, VolumeError};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The cipher does not work here.
    #[error(transparent)]
    Cipher(#[from] WrongAnswer),
    /// The key service refused or failed.
    #[error(transparent)]
    Kms(#[from] KmsError),
    /// Some of what was to be read is damaged; the rest was shown.
    #[error("{} of the key directory's files cannot be used", .0.len())]
    Damaged(Vec<KmsError>),
    /// A directory cannot be bound to a key.
    #[error("cannot bind {}: {}", path.display(), why)]
    Bind {
        /// The directory.
        path: PathBuf,
        /// Why not.
        why: BindError,
    },
    /// A path that no mounted volume holds.
    #[error("{} is in no mounted volume", .0.display())]
    NotInAVolume(PathBuf),
    /// The mount cannot be spoken to.
    #[error("the mount on {} cannot be reached through the key directory {}", mountpoint.display(), keys.display())]
    Unreached {
        /// Where the volume is mounted.
        mountpoint: PathBuf,
        /// The key directory.
        keys: PathBuf,
    },
    /// Some objects of a volume cannot be read; the rest was shown.
    #[error("{} objects of the volume cannot be read", .0.count)]
    DamagedObjects(volume::census::Damaged),
    /// What is stored in a volume is not all as it was written.
    #[error("the volume is damaged in {}", output::count(*.damaged, "place", "places"))]
    Unsound {
        /// Findings.
        damaged: u64,
    },
    /// Not everything in a volume could be looked at, or healed.
    #[error("not everything was verified: {}", .0.join("; "))]
    Unverified(Vec<String>),
    /// Some files could not be removed.
    #[error("{} files could not be removed", .0.len())]
    Unremoved(Vec<(PathBuf, io::Error)>),
    /// Nobody gave the id of the key that was to be erased.
    #[error("not confirmed with the id of the key: nothing was done")]
    NotConfirmed {
        /// The key.
        key: KeyId,
    },
    /// The erasure was done, and something does not look as it should.
    #[error("the erasure is not complete: {}", .0.join("; "))]
    NotErased(Vec<String>),
    /// A report says what is not so.
    #[error("the report {} does not hold", .0.display())]
    ReportFails(PathBuf),
    /// Something else has the name of the report.
    #[error("cannot write the report to {}: it exists already", .0.display())]
    ReportExists(PathBuf),
    /// The report would go with what is erased.
    #[error("cannot write the report to {}: it lies in a volume that is erased", .0.display())]
    ReportInside(PathBuf),
    /// A file that is no report.
    #[error("{} is no report of an erasure: {}", .0.display(), .1)]
    NoReport(PathBuf, String),
    /// What cannot be undone was not confirmed, and not done.
    #[error("not confirmed: nothing was done")]
    Unconfirmed,
    /// The key directory is there, but not protected as asked for.
    #[error("the key directory {} exists already and has no passphrase", dir.display())]
    KeysExist {
        /// The key directory.
        dir: PathBuf,
    },
    /// A mount failed.
    #[error(transparent)]
    Mount(#[from] MountError),
    /// A mount option cannot be taken.
    #[error(transparent)]
    Option(#[from] OptionError),
    /// A volume cannot be made or opened.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// A process started by this one has said what failed, and ended with this exit code.
    #[error("the mount process ended with exit code {0}")]
    Reported(u8),
    /// A key was changed, and these mounts have not said that they obey.
    #[error("{}", list(.0))]
    Unanswered(Vec<Unanswered>),
    /// A mount said why it does not do what it was asked.
    #[error("{0}")]
    Refused(Failed),
    /// A mount did not answer.
    #[error("process {process_id}, which serves the mount: {source}")]
    Unheard {
        /// The daemon.
        process_id: u32,
        /// Why.
        source: AskError,
    },
    /// Something is left to be done.
    #[error("the {what} is not complete: {}", reasons.join("\n  "))]
    Incomplete {
        /// What was to be done.
        what: &'static str,
        /// What is left, and why.
        reasons: Vec<String>,
    },
    /// Nothing says where the key directory is.
    #[error("cannot tell where the key directory is: neither HOME nor XDG_DATA_HOME is set")]
    NoHome,
    /// Standard output cannot be written.
    #[error("cannot write to standard output: {0}")]
    Output(#[source] io::Error),
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// A verb.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
}

/// So many of a long list of things that went wrong are shown.
const SHOWN: usize = 20;

/// Tells the user on standard error; says nothing of a reader who went away.
pub fn print(error: &CliError) {
    if matches!(error, CliError::Reported(_)) {
        return;
    }
    if matches!(error, CliError::Output(error) if error.kind() == ErrorKind::BrokenPipe) {
        return;
    }
    let mut text = String::new();
    if let CliError::Damaged(damaged) = error {
        for each in damaged {
            text += &format!("error: {each}\n");
        }
    }
    if let CliError::DamagedObjects(damaged) = error {
        for (path, why) in damaged.paths.iter().take(SHOWN) {
            text += &format!("error: {}: {why}\n", path.display());
        }
    }
    if let CliError::Unremoved(failed) = error {
        for (path, why) in failed.iter().take(SHOWN) {
            text += &format!("error: {}: {why}\n", path.display());
        }
    }
    text += &format!("error: {error}\n");
    if let Some(hint) = hint(error) {
        text += &format!("  hint: {hint}\n");
    }
    // Nobody is left to tell if this fails.
    let _ = io::stderr().write_all(text.as_bytes());
}

fn hint(error: &CliError) -> Option<String> {
    match error {
        CliError::Cipher(_) => Some(
            "its AES instructions are at fault, or how a virtual machine presents them; nothing is wrong with keys or volumes: use them on another machine".to_owned(),
        ),
        CliError::Kms(error) => kms_hint(error),
        CliError::Damaged(_) => Some(RESTORE.to_owned()),
        CliError::DamagedObjects(_) => {
            Some("bring these files back from a backup of the volume".to_owned())
        }
        CliError::Unsound { .. } => Some(
            "bring these files back from a backup of the volume, or remove them; cmkfs never removes what may hold user data".to_owned(),
        ),
        CliError::Unverified(_) => Some(
            "what was looked at is sound; run it again when the causes are gone: `cmkfs key list` shows the state of every key".to_owned(),
        ),
        CliError::Bind { why, .. } => match why {
            BindError::NotEmpty => Some(
                "make a new directory, bind that, and move there what is in this one: moving encrypts it anew".to_owned(),
            ),
            BindError::Refused(AskError::Failed(failed)) => reason_hint(failed.reason),
            BindError::NotADirectory | BindError::Refused(_) => None,
        },
        CliError::NotInAVolume(_) => {
            Some("only a directory of a mounted volume can be named here; `cmkfs status` shows what is mounted".to_owned())
        }
        CliError::Unreached { .. } => Some(
            "name the key directory it was mounted with: --keys DIR or CMKFS_KEYS; `cmkfs status` shows whether it answers".to_owned(),
        ),
        CliError::NotConfirmed { key } => Some(format!(
            "type {key} when asked on the terminal, or give it with --yes --key-id {key}"
        )),
        CliError::NotErased(_) => Some(
            "run the same command again; `cmkfs erase --verify REPORT` shows what does not hold".to_owned(),
        ),
        CliError::ReportFails(_) => Some(
            "its checks above say what does not; `cmkfs audit show --key KEY` shows what was done with the key since".to_owned(),
        ),
        CliError::ReportInside(_) | CliError::ReportExists(_) => {
            Some("nothing was done; give another name with --report FILE".to_owned())
        }
        CliError::NoReport(..) => Some("name the JSON file that `cmkfs erase` wrote, not the text".to_owned()),
        CliError::Unconfirmed => Some("--yes answers the question".to_owned()),
        CliError::KeysExist { .. } => {
            Some("give another directory with --keys DIR to have one with a passphrase".to_owned())
        }
        CliError::Unanswered(_) => Some(
            "the key is changed, and no mount that starts now is given it; a mount that only was slow notices by itself; to be certain, end the programs that use it and its process, and unmount it"
                .to_owned(),
        ),
        CliError::Refused(failed) => reason_hint(failed.reason),
        CliError::Unheard { .. } => Some(
            "what is done stays done; run it again to go on, with the volume mounted or not".to_owned(),
        ),
        CliError::Incomplete { .. } => Some(
            "what is done stays done; run it again to go on once the causes are gone; do not delete old key material before"
                .to_owned(),
        ),
        CliError::NoHome => Some("name it with --keys DIR or CMKFS_KEYS".to_owned()),
        CliError::Mount(error) => error.hint(),
        CliError::Option(error) => match error {
            OptionError::Unknown(_) => Some(format!("known options: {}", options::known())),
            OptionError::NoValue(_) | OptionError::Value(_) | OptionError::Transport(..) => None,
        },
        CliError::Volume(error) => volume_hint(error),
        CliError::Output(_)
        | CliError::Io { .. }
        | CliError::Reported(_)
        | CliError::Unremoved(_) => None,
    }
}

fn list(unanswered: &[Unanswered]) -> String {
    let lines: Vec<_> = unanswered.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

fn volume_hint(error: &VolumeError) -> Option<String> {
    let text = match error {
        VolumeError::NotEmpty { .. } => "give an empty directory, or one that does not exist yet",
        VolumeError::NotAVolume { .. } => {
            "`cmkfs init CIPHERDIR` or `cmkfs mount --init` makes one"
        }
        VolumeError::InUse { .. } => {
            "one process at a time may change a volume; `cmkfs status` shows where it is mounted, `cmkfs unmount` frees it"
        }
        VolumeError::WrongKeyStore { .. } => {
            "name the key directory it was made with: --keys DIR or CMKFS_KEYS"
        }
        VolumeError::Dead { path, .. } => {
            return Some(format!(
                "if no backup of the key is left, `rm -r {}` removes what remains of it",
                path.display()
            ));
        }
        VolumeError::Damaged { .. } => "bring the file back from a backup of the volume",
        VolumeError::Keys(error) => return kms_hint(error),
        VolumeError::Filesystem { source, .. } => return reason_hint(source.into()),
        VolumeError::Io { .. } => return None,
    };
    Some(text.to_owned())
}

/// The same whether this process or a mount has met with it.
fn reason_hint(reason: Reason) -> Option<String> {
    let text = match reason {
        Reason::KeyState => {
            "`cmkfs key list` shows the state of every key; one that is disabled is enabled with `cmkfs key enable KEY`"
        }
        Reason::Denied => "`cmkfs policy get KEY` and `cmkfs grant list KEY` show who may do what",
        Reason::InUse => {
            "one rewrap, rekey or verification at a time works on a mounted volume: wait for the other"
        }
        Reason::Damaged => "bring the file back from a backup of the volume",
        Reason::NotFound | Reason::NotEmpty | Reason::NotADirectory | Reason::Other => {
            return None;
        }
    };
    Some(text.to_owned())
}

fn state_hint(key: KeyId, why: InvalidState) -> String {
    match why {
        InvalidState::PendingDeletion => {
            format!("`cmkfs key cancel-deletion {key}` keeps it; it is disabled then")
        }
        InvalidState::NotPendingDeletion => format!("`cmkfs key describe {key}` shows its state"),
        InvalidState::PendingImport | InvalidState::Expired => format!(
            "`cmkfs key import {key} --material FILE` brings it back; `cmkfs key list-rotations {key} --all` shows which material is wanting"
        ),
        InvalidState::RotationPending => {
            format!("`cmkfs key rotate {key}` makes it the current one")
        }
        InvalidState::NoNewMaterial => format!(
            "import one first: `cmkfs key import {key} --material FILE --import-type NEW_KEY_MATERIAL`"
        ),
    }
}

const RESTORE: &str =
    "everything else in the key directory stays usable; bring these files back from a backup of it";

const AUDIT_LOG: &str = "find out who changed it, with `cmkfs audit show` and `cmkfs audit verify`; then bring it back from a backup, or `cmkfs audit restart` moves it aside and begins a new one";

fn is_audit_log(path: &Path) -> bool {
    path.parent()
        .is_some_and(|parent| parent.ends_with("audit"))
}

fn kms_hint(error: &KmsError) -> Option<String> {
    let text = match error {
        KmsError::AccessDeniedException { key, .. } => format!(
            "whoever may perform kms:PutKeyPolicy or kms:CreateGrant on the key can allow it; `cmkfs policy get {key}` and `cmkfs grant list {key}` show who may do what"
        ),
        KmsError::MalformedPolicyDocumentException(_) => {
            "`cmkfs policy get KEY` prints a policy to begin with; `cmkfs policy put --help` shows what one can say"
                .to_owned()
        }
        KmsError::InvalidGrantIdException { key, .. } => {
            format!("`cmkfs grant list {key}` shows the grants there are")
        }
        KmsError::NotFoundException { key, .. } => match key {
            KeyRef::Id(_) => {
                "`cmkfs key list` shows the keys there are; --keys DIR or CMKFS_KEYS names another key directory"
            }
            KeyRef::Alias(_) => {
                "`cmkfs alias list` and `cmkfs key list` show what there is; --keys DIR or CMKFS_KEYS names another key directory"
            }
        }
        .to_owned(),
        KmsError::AlreadyExistsException { alias, .. } => {
            format!("`cmkfs alias update {alias} KEY` points it at another key")
        }
        KmsError::DisabledException { key } => format!("`cmkfs key enable {key}` enables it"),
        KmsError::KMSInvalidStateException { key, why } => state_hint(*key, *why),
        KmsError::UnsupportedOperationException { why, .. } => match why {
            Unsupported::Generated => {
                "`cmkfs key create --origin EXTERNAL` makes a key for material of your own".to_owned()
            }
            Unsupported::Imported => {
                "import new material with `cmkfs key import KEY --import-type NEW_KEY_MATERIAL`, then `cmkfs key rotate KEY`"
                    .to_owned()
            }
            Unsupported::Managed => {
                "make a key of your own with `cmkfs key create`, and move data to it with `cmkfs rewrap CIPHERDIR --to KEY`; the default key can be disabled".to_owned()
            }
        },
        KmsError::LimitExceededException { .. } => return None,
        KmsError::InvalidAliasNameException { .. } => {
            "an alias looks like alias/NAME: 1 to 256 letters, digits, \"/\", \"_\" and \"-\", not beginning with alias/cmkfs/"
                .to_owned()
        }
        KmsError::ValidationException(_) | KmsError::TagException(_) => return None,
        KmsError::InvalidCiphertextException(_) => {
            "what was encrypted with --context K=V needs the same to be decrypted; it may also have been changed, or come from elsewhere"
                .to_owned()
        }
        KmsError::IncorrectKeyException { named, .. } => {
            format!("name that key, or none: `cmkfs key decrypt {named}`")
        }
        KmsError::IncorrectKeyMaterialException { key, .. } => format!(
            "`cmkfs key list-rotations {key} --all` shows the materials it had; one to rotate to is imported with --import-type NEW_KEY_MATERIAL"
        ),
        KmsError::NoMaterial { .. } => "bring the file back from a backup of the key directory".to_owned(),
        KmsError::NoStore { .. } => {
            "`cmkfs keys init` makes one; --keys DIR or CMKFS_KEYS names another".to_owned()
        }
        KmsError::NotAKeyDirectory { .. } => "give an empty directory, or one that does not exist yet".to_owned(),
        KmsError::Damaged { path, .. } if is_audit_log(path) => AUDIT_LOG.to_owned(),
        KmsError::Damaged { .. } => {
            "bring the file back from a backup of the key directory; `cmkfs keys verify` shows what else is damaged"
                .to_owned()
        }
        KmsError::WrongStore { .. } => {
            "put the right key directory back, or start again with the one that is there now".to_owned()
        }
        KmsError::WrongPassphrase { .. } => {
            "try again; a passphrase that is lost cannot be replaced, and neither can the keys under it".to_owned()
        }
        KmsError::NoPassphrase { .. } => {
            "it can also be given with --passphrase-file FILE or --passphrase-command CMD".to_owned()
        }
        KmsError::Permissions { path, .. } => {
            let mode = if path.is_dir() { "700" } else { "600" };
            format!("`chmod {mode} {}`, and ask yourself who may have read it", path.display())
        }
        KmsError::NotRecorded(source) => match &**source {
            KmsError::Damaged { path, .. } if is_audit_log(path) => AUDIT_LOG.to_owned(),
            _ => "what cannot be written down is not done: make room, or make the key directory writable".to_owned(),
        },
        KmsError::Unfinished(_) => {
            "the next command that opens the key directory finishes it, once it can".to_owned()
        }
        KmsError::Io { source, .. } => match source.kind() {
            ErrorKind::AlreadyExists => "give another name, or --force to replace it".to_owned(),
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                "nothing was changed; make room on the disk that holds the key directory. Keys can be disabled even now".to_owned()
            }
            ErrorKind::PermissionDenied => {
                "the key directory belongs to another user, or --keys DIR or CMKFS_KEYS names the wrong one".to_owned()
            }
            _ => return None,
        },
        KmsError::Random(_) => return None,
    };
    Some(text)
}
