//! `cmkfs key`: customer master keys. What can be typed, and who does it: `create` · `show` list and describe · `switch` enable and disable ·
//! `deletion` · `material` import · `rotation` · `tags` · `crypto` encrypt and decrypt.

mod create;
mod crypto;
mod deletion;
mod material;
mod rotation;
mod show;
mod switch;
mod tags;

use clap::Subcommand;

use super::args::Global;
use super::message::CliError;
use super::output::OutputArgs;
use crate::kms::key::KeyRef;

/// The commands of `cmkfs key`.
#[derive(Debug, Subcommand)]
pub enum KeyCommand {
    /// Make a key (and, the first time, the key directory with its default key).
    Create(create::CreateArgs),
    /// List the keys.
    List(OutputArgs),
    /// Show what is known of a key.
    Describe {
        /// Key id or alias/NAME.
        key: KeyRef,
        /// How to print it.
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Make a disabled key usable again, in running mounts too.
    Enable(switch::SwitchArgs),
    /// Make a key unusable until it is enabled again, in running mounts too.
    Disable(switch::SwitchArgs),
    /// Make a key unusable now, and delete it with its material and aliases after a waiting period.
    ScheduleDeletion(deletion::ScheduleArgs),
    /// Keep a key that was to be deleted. It is disabled then.
    CancelDeletion {
        /// Key id or alias/NAME.
        key: KeyRef,
    },
    /// Give a key of origin EXTERNAL its material.
    Import(material::ImportArgs),
    /// Delete imported material, at once: the key is unusable until the same material is imported again.
    DeleteImportedKeyMaterial(material::DeleteArgs),
    /// Give a key a new material now. The old ones stay for what is encrypted under them.
    Rotate {
        /// Key id or alias/NAME.
        key: KeyRef,
    },
    /// Give a key a new material every so often.
    EnableRotation(rotation::EnableArgs),
    /// Do so no longer.
    DisableRotation {
        /// Key id or alias/NAME.
        key: KeyRef,
    },
    /// Show whether a key is rotated by itself, and when next.
    GetRotationStatus {
        /// Key id or alias/NAME.
        key: KeyRef,
        /// How to print it.
        #[command(flatten)]
        output: OutputArgs,
    },
    /// List when and how a key was rotated.
    ListRotations(rotation::ListArgs),
    /// Add tags to a key.
    Tag(tags::TagArgs),
    /// Remove tags from a key.
    Untag(tags::UntagArgs),
    /// Give a key another description.
    UpdateDescription(tags::DescriptionArgs),
    /// Encrypt a small secret, up to 4,096 bytes, from standard input to standard output.
    Encrypt(crypto::EncryptArgs),
    /// Decrypt what `cmkfs key encrypt` made, from standard input to standard output.
    Decrypt(crypto::DecryptArgs),
    /// Decrypt, and encrypt under another key; the plaintext does not appear.
    ReEncrypt(crypto::ReEncryptArgs),
}

/// Runs `cmkfs key`.
///
/// # Errors
/// Why it failed.
pub fn run(global: &Global, command: KeyCommand) -> Result<(), CliError> {
    match command {
        KeyCommand::Create(args) => create::run(global, args),
        KeyCommand::List(output) => show::list(global, output.output),
        KeyCommand::Describe { key, output } => show::describe(global, &key, output.output),
        KeyCommand::Enable(args) => switch::enable(global, &args),
        KeyCommand::Disable(args) => switch::disable(global, &args),
        KeyCommand::ScheduleDeletion(args) => deletion::schedule(global, &args),
        KeyCommand::CancelDeletion { key } => deletion::cancel(global, &key),
        KeyCommand::Import(args) => material::import(global, &args),
        KeyCommand::DeleteImportedKeyMaterial(args) => material::delete(global, &args),
        KeyCommand::Rotate { key } => rotation::rotate(global, &key),
        KeyCommand::EnableRotation(args) => rotation::enable(global, &args),
        KeyCommand::DisableRotation { key } => rotation::disable(global, &key),
        KeyCommand::GetRotationStatus { key, output } => {
            rotation::status(global, &key, output.output)
        }
        KeyCommand::ListRotations(args) => rotation::list(global, &args),
        KeyCommand::Tag(args) => tags::tag(global, args),
        KeyCommand::Untag(args) => tags::untag(global, &args),
        KeyCommand::UpdateDescription(args) => tags::describe(global, args),
        KeyCommand::Encrypt(args) => crypto::encrypt(global, args),
        KeyCommand::Decrypt(args) => crypto::decrypt(global, args),
        KeyCommand::ReEncrypt(args) => crypto::re_encrypt(global, args),
    }
}
