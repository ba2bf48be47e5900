//! Exit codes. They are stable: scripts rely on them. [`HELP`] and the man page list them.

use std::io::ErrorKind;
use std::process::ExitCode;

use super::bind::BindError;
use super::message::CliError;
use crate::kms::KmsError;
use crate::mount::MountError;
use crate::mount::control::client::AskError;
use crate::mount::control::protocol::Reason;
use crate::volume::VolumeError;

/// The list, for `--help` and the man page.
pub const HELP: &str = "\
Exit codes:
   0  done
   1  the operating system refused something, or anything not below
   2  wrong usage: an argument, name or value that is not allowed
   3  no such key, alias or key directory
   4  it exists already
   5  the key's state does not allow it: disabled, pending deletion, without material
   6  a limit is reached
   7  wrong passphrase, or none to be had
   8  the key directory or root key file is open to other users
   9  something stored is damaged, does not belong together, or is not as a report says
  10  in use: by a mount, or a mount by a program
  11  a key was changed, but a mount has not said that it obeys
  12  the key's policy and grants do not allow it
  13  not everything could be verified: a key is refused, or something cannot be read";

const FAILURE: u8 = 1;
const USAGE: u8 = 2;
const NOT_FOUND: u8 = 3;
const EXISTS: u8 = 4;
const STATE: u8 = 5;
const LIMIT: u8 = 6;
const PASSPHRASE: u8 = 7;
const PERMISSIONS: u8 = 8;
const DAMAGED: u8 = 9;
const IN_USE: u8 = 10;
const UNANSWERED: u8 = 11;
const DENIED: u8 = 12;
const NOT_VERIFIED: u8 = 13;

/// The exit code of a failed command.
#[must_use]
pub fn of(error: &CliError) -> ExitCode {
    code(error).into()
}

/// The exit code of arguments that do not parse; zero where it was help that was asked for.
#[must_use]
pub fn of_usage(error: &clap::Error) -> ExitCode {
    if error.use_stderr() {
        USAGE.into()
    } else {
        ExitCode::SUCCESS
    }
}

fn code_of_kms(error: &KmsError) -> u8 {
    match error {
        KmsError::AccessDeniedException { .. } => DENIED,
        KmsError::NotFoundException { .. }
        | KmsError::InvalidGrantIdException { .. }
        | KmsError::NoStore { .. } => NOT_FOUND,
        KmsError::AlreadyExistsException { .. } => EXISTS,
        KmsError::DisabledException { .. }
        | KmsError::KMSInvalidStateException { .. }
        | KmsError::UnsupportedOperationException { .. }
        | KmsError::NoMaterial { .. } => STATE,
        KmsError::LimitExceededException { .. } => LIMIT,
        KmsError::InvalidAliasNameException { .. }
        | KmsError::MalformedPolicyDocumentException(_)
        | KmsError::ValidationException(_)
        | KmsError::TagException(_)
        | KmsError::IncorrectKeyException { .. }
        | KmsError::IncorrectKeyMaterialException { .. }
        | KmsError::NotAKeyDirectory { .. } => USAGE,
        KmsError::WrongPassphrase { .. } | KmsError::NoPassphrase { .. } => PASSPHRASE,
        KmsError::Permissions { .. } => PERMISSIONS,
        KmsError::InvalidCiphertextException { .. }
        | KmsError::Damaged { .. }
        | KmsError::WrongStore { .. } => DAMAGED,
        KmsError::NotRecorded(source) => code_of_kms(source),
        KmsError::Io { source, .. } if source.kind() == ErrorKind::AlreadyExists => EXISTS,
        KmsError::Io { .. } | KmsError::Unfinished(_) | KmsError::Random(_) => FAILURE,
    }
}

const fn code_of_mount(error: &MountError) -> u8 {
    match error {
        MountError::Missing(_) | MountError::NotMounted(_) => NOT_FOUND,
        MountError::NotADirectory(_) | MountError::Overlap { .. } => USAGE,
        MountError::AlreadyMounted { .. }
        | MountError::Busy { .. }
        | MountError::StillFinishing { .. } => IN_USE,
        MountError::Unreachable { .. }
        | MountError::ForeignStale { .. }
        | MountError::NoFuse(_)
        | MountError::Refused { .. }
        | MountError::Helper(_)
        | MountError::Unmount { .. }
        | MountError::Unmounter(_)
        | MountError::Syncer(_)
        | MountError::Control { .. }
        | MountError::Session(_)
        | MountError::Silent { .. }
        | MountError::Shutdown(_)
        | MountError::Log { .. }
        | MountError::Background(_)
        | MountError::Killed(_) => FAILURE,
    }
}

fn code_of_volume(error: &VolumeError) -> u8 {
    match error {
        VolumeError::NotEmpty { .. } => EXISTS,
        VolumeError::Dead { .. } => STATE,
        VolumeError::NotAVolume { .. } => NOT_FOUND,
        VolumeError::InUse { .. } => IN_USE,
        VolumeError::WrongKeyStore { .. } | VolumeError::Damaged { .. } => DAMAGED,
        VolumeError::Keys(error) => code_of_kms(error),
        VolumeError::Filesystem { source, .. } => code_of_reason(source.into()),
        VolumeError::Io { .. } => FAILURE,
    }
}

/// The same whether this process or a mount has met with it.
const fn code_of_reason(reason: Reason) -> u8 {
    match reason {
        Reason::KeyState => STATE,
        Reason::Denied => DENIED,
        Reason::NotFound => NOT_FOUND,
        Reason::NotEmpty => EXISTS,
        Reason::NotADirectory => USAGE,
        Reason::InUse => IN_USE,
        Reason::Damaged => DAMAGED,
        Reason::Other => FAILURE,
    }
}

fn code(error: &CliError) -> u8 {
    match error {
        CliError::Kms(error) => code_of_kms(error),
        CliError::Damaged(_)
        | CliError::DamagedObjects(_)
        | CliError::Unsound { .. }
        | CliError::NotErased(_)
        | CliError::ReportFails(_) => DAMAGED,
        CliError::Bind { why, .. } => match why {
            BindError::NotEmpty => EXISTS,
            BindError::NotADirectory => USAGE,
            BindError::Refused(AskError::Failed(failed)) => code_of_reason(failed.reason),
            BindError::Refused(_) => FAILURE,
        },
        CliError::Unverified(_) => NOT_VERIFIED,
        CliError::NotInAVolume(_) | CliError::Unreached { .. } => NOT_FOUND,
        CliError::Cipher(_)
        | CliError::Unremoved(_)
        | CliError::Unconfirmed
        | CliError::NotConfirmed { .. }
        | CliError::NoReport(..)
        | CliError::ReportInside(_) => FAILURE,
        CliError::KeysExist { .. } | CliError::ReportExists(_) => EXISTS,
        CliError::NoHome | CliError::Option(_) => USAGE,
        CliError::Mount(error) => code_of_mount(error),
        CliError::Volume(error) => code_of_volume(error),
        CliError::Unanswered(_) => UNANSWERED,
        CliError::Refused(failed) => code_of_reason(failed.reason),
        CliError::Unheard { .. } | CliError::Incomplete { .. } => FAILURE,
        CliError::Reported(code) => *code,
        // Whoever reads the output has seen enough.
        CliError::Output(error) if error.kind() == ErrorKind::BrokenPipe => 0,
        CliError::Output(_) | CliError::Io { .. } => FAILURE,
    }
}
