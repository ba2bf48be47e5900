//! The command line: the top of both paths. Translates arguments into operations, and results and errors into text.
//!
//! [`args`] what can be typed · [`keystore`] finding, opening and making the key directory · `key`, `alias`, `policy`, `grant`,
//! `keys`, `backup`, `audit`, `init`, `mount`, `unmount`, `status`, `generate`, `bind`, `volume`, `erase`, `rewrap`, `rekey` one file a
//! noun · `target` what the last two work on · `obey` what mounts do
//! about a change of a key · `statistics` what they were asked · `reach` which mount serves a path · [`confirm`] questions · [`output`] tables and JSON ·
//! [`progress`] bars · [`raw`] secrets in and out · [`message`] errors for people · [`exit`] exit codes.

pub mod alias;
pub mod args;
pub mod audit;
pub mod backup;
pub mod bind;
pub mod confirm;
pub mod erase;
pub mod exit;
pub mod generate;
pub mod grant;
pub mod init;
pub mod key;
pub mod keys;
pub mod keystore;
pub mod message;
pub mod mount;
pub mod obey;
pub mod output;
pub mod policy;
pub mod progress;
pub mod raw;
pub mod reach;
pub mod rekey;
pub mod rewrap;
mod statistics;
pub mod status;
pub mod target;
pub mod unmount;
pub mod volume;

use std::process::ExitCode;

use clap::Parser;

use self::args::{Cli, Command, Global};
use self::message::CliError;
use self::volume::VolumeCommand;
use crate::crypto::known_answer;
use crate::mount::daemon;

/// Runs the command line of this process.
#[must_use]
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too. Nobody is left to tell if they cannot be printed.
            let _ = error.print();
            return exit::of_usage(&error);
        }
    };
    start_log(&cli.global, &cli.command);
    let checked = known_answer::check().map_err(CliError::from);
    match checked.and_then(|()| dispatch(&cli.global, cli.command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            message::print(&error);
            exit::of(&error)
        }
    }
}

fn dispatch(global: &Global, command: Command) -> Result<(), CliError> {
    match command {
        Command::Init(args) => init::run(global, &args),
        Command::Mount(args) => mount::run(global, &args),
        Command::Unmount(args) => unmount::run(global, &args),
        Command::Unmounter(args) => unmount::serve_unmounter(&args),
        Command::Syncer(args) => unmount::serve_syncer(&args),
        Command::Probe(args) => unmount::serve_probe(&args),
        Command::Status(args) => status::run(global, &args),
        Command::Bind(args) => bind::run(global, &args),
        Command::Verify(args) => volume::run(global, &VolumeCommand::Verify(args)),
        Command::Volume(command) => volume::run(global, &command),
        Command::Erase(args) => erase::run(global, &args),
        Command::Rewrap(args) => rewrap::run(global, &args),
        Command::Rekey(args) => rekey::run(global, &args),
        Command::Key(command) => key::run(global, command),
        Command::Alias(command) => alias::run(global, command),
        Command::Policy(command) => policy::run(global, command),
        Command::Grant(command) => grant::run(global, command),
        Command::Keys(command) => keys::run(global, command),
        Command::Audit(command) => audit::run(global, command),
        Command::Generate(command) => generate::run(command),
    }
}

fn start_log(global: &Global, command: &Command) {
    let level = match (global.quiet, global.verbose) {
        (true, _) => log::LevelFilter::Error,
        // A mount's log is read long after: it says when things began and ended.
        (false, 0) if matches!(command, Command::Mount(_)) => log::LevelFilter::Info,
        (false, 0) => log::LevelFilter::Warn,
        (false, 1) => log::LevelFilter::Info,
        (false, 2) => log::LevelFilter::Debug,
        (false, _) => log::LevelFilter::Trace,
    };
    let mut builder = env_logger::Builder::new();
    builder.filter_level(level).parse_env("CMKFS_LOG");
    if daemon::is_child() {
        // Standard error is a terminal now and a file soon.
        builder.write_style(env_logger::WriteStyle::Never);
    }
    builder.init();
}
