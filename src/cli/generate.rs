//! `cmkfs generate`: man pages and completions, from the same definition that parses.

use std::path::PathBuf;

use clap::{CommandFactory, Subcommand};
use clap_complete::Shell;

use super::args::Cli;
use super::message::CliError;
use super::output;

/// The commands of `cmkfs generate`.
#[derive(Debug, Subcommand)]
pub enum GenerateCommand {
    /// Write the man pages.
    Man {
        /// Where to: an existing directory for all pages, or "-" for the main page on standard output.
        #[arg(value_name = "DIR|-")]
        to: PathBuf,
    },
    /// Write a completion script to standard output.
    Completions {
        /// The shell.
        shell: Shell,
    },
}

/// Runs `cmkfs generate`.
///
/// # Errors
/// [`CliError::Io`], [`CliError::Output`].
pub fn run(command: GenerateCommand) -> Result<(), CliError> {
    let mut cli = Cli::command();
    let mut text = Vec::new();
    match command {
        GenerateCommand::Man { to } if to.as_os_str() == "-" => clap_mangen::Man::new(cli)
            .render(&mut text)
            .map_err(CliError::Output)?,
        GenerateCommand::Man { to } => {
            return clap_mangen::generate_to(cli, &to).map_err(|source| CliError::Io {
                action: "write man pages to",
                path: to,
                source,
            });
        }
        GenerateCommand::Completions { shell } => {
            clap_complete::generate(shell, &mut cli, "cmkfs", &mut text);
        }
    }
    output::line(String::from_utf8_lossy(&text).trim_end())
}
