//! What can be typed: the one definition behind parsing, help, man pages and completions.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use super::alias::AliasCommand;
use super::audit::AuditCommand;
use super::bind::BindArgs;
use super::erase::EraseArgs;
use super::exit;
use super::generate::GenerateCommand;
use super::grant::GrantCommand;
use super::init::InitArgs;
use super::key::KeyCommand;
use super::keys::KeysCommand;
use super::mount::MountArgs;
use super::policy::PolicyCommand;
use super::rekey::RekeyArgs;
use super::rewrap::RewrapArgs;
use super::status::StatusArgs;
use super::unmount::{SecondArgs, UnmountArgs};
use super::volume::VolumeCommand;
use super::volume::verify::VerifyArgs;

/// An encrypting filesystem whose mounts obey their customer master keys, live.
#[derive(Debug, Parser)]
#[command(name = "cmkfs", version, after_long_help = exit::HELP, propagate_version = true)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// The key directory.
    ///
    /// Without it: $CMKFS_KEYS, else $XDG_DATA_HOME/cmkfs/keys, else ~/.local/share/cmkfs/keys.
    #[arg(long, value_name = "DIR", global = true)]
    pub keys: Option<PathBuf>,

    /// Read the key directory's passphrase from the first line of FILE.
    #[arg(
        long,
        value_name = "FILE",
        global = true,
        conflicts_with = "passphrase_command"
    )]
    pub passphrase_file: Option<PathBuf>,

    /// Read the key directory's passphrase from the first line that CMD prints (run by the shell).
    #[arg(long, value_name = "CMD", global = true)]
    pub passphrase_command: Option<String>,

    /// Print results and errors only.
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,

    /// Log more; twice for debugging. $CMKFS_LOG sets it more finely.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a volume (and, the first time, the key directory with its default key).
    Init(InitArgs),
    /// Mount a volume.
    Mount(MountArgs),
    /// Unmount a volume.
    Unmount(UnmountArgs),
    /// Show what is mounted.
    Status(StatusArgs),
    /// Wrap data keys anew, after a rotation or under another key; content stays as it is.
    Rewrap(RewrapArgs),
    /// Give files new data keys by encrypting their content anew.
    Rekey(RekeyArgs),
    /// Bind an empty directory of a mounted volume to a key: what is created in it is wrapped under that.
    Bind(BindArgs),
    /// Destroy a key's materials, and with them everything under the key; with a report. Or check such a report.
    Erase(EraseArgs),
    /// Verify everything that is stored in a volume: the same as `cmkfs volume verify`.
    Verify(VerifyArgs),
    /// Look at a volume as a whole, verify it, remove what is dead in it.
    #[command(subcommand)]
    Volume(VolumeCommand),
    /// Make, look at, enable and disable keys.
    #[command(subcommand)]
    Key(KeyCommand),
    /// Give keys names.
    #[command(subcommand)]
    Alias(AliasCommand),
    /// Say who may do what with a key.
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Let somebody do a few things with a key, without a change of its policy.
    #[command(subcommand)]
    Grant(GrantCommand),
    /// Make and check the key directory.
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Show what was done with keys, and check its record.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Unmounts for a mount's process, which starts it: `mount::unmounter`.
    #[command(hide = true)]
    Unmounter(SecondArgs),
    /// Asks a mount for the mount's process, which starts it: `mount::syncer`.
    #[command(hide = true)]
    Syncer(SecondArgs),
    /// Asks a mount whether it answers, for a command that must not wait for ever: `mount::liveness`.
    #[command(hide = true)]
    Probe(SecondArgs),
    /// Write man pages and shell completions.
    #[command(subcommand)]
    Generate(GenerateCommand),
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_contradicts_itself_nowhere() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_options_are_taken_before_and_after_the_command() {
        for line in [
            ["cmkfs", "--keys", "/k", "key", "list"],
            ["cmkfs", "key", "list", "--keys", "/k"],
        ] {
            let cli = Cli::try_parse_from(line).unwrap();
            assert_eq!(cli.global.keys, Some(PathBuf::from("/k")));
        }
    }
}
