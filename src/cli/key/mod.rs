//! `cmkfs key`: customer master keys. What can be typed, and who does it: `create` · `show` list and describe ·
//! `deletion` · `tags`.

mod create;
mod deletion;
mod show;
mod tags;

use clap::Subcommand;

use super::args::Global;
use super::keystore;
use super::message::CliError;
use super::output::{self, OutputArgs};
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
    Enable {
        /// Key id or alias/NAME.
        key: KeyRef,
    },
    /// Make a key unusable until it is enabled again, in running mounts too.
    Disable {
        /// Key id or alias/NAME.
        key: KeyRef,
    },
    /// Make a key unusable now, and delete it with its material and aliases after a waiting period.
    ScheduleDeletion(deletion::ScheduleArgs),
    /// Keep a key that was to be deleted. It is disabled then.
    CancelDeletion {
        /// Key id or alias/NAME.
        key: KeyRef,
    },
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
        KeyCommand::Enable { key } => {
            let id = keystore::open(global)?.enable_key(&key)?;
            output::done(global, &format!("Enabled key {id}"))
        }
        KeyCommand::Disable { key } => {
            let id = keystore::open(global)?.disable_key(&key)?;
            output::done(global, &format!("Disabled key {id}"))
        }
        KeyCommand::ScheduleDeletion(args) => deletion::schedule(global, &args),
        KeyCommand::CancelDeletion { key } => deletion::cancel(global, &key),
    }
}
