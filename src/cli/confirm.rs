//! Questions before what cannot be undone. Asked on the terminal only: a script answers with an option.

use std::io::{self, IsTerminal, Write};

use super::message::CliError;

/// Asks a question that is to be answered with yes; `yes` answers it.
///
/// # Errors
/// [`CliError::Unconfirmed`] for any other answer, and where there is nobody to ask.
pub fn ask(question: &str, yes: bool) -> Result<(), CliError> {
    if yes {
        return Ok(());
    }
    let answer = answer(&format!("{question} [y/N] "))?;
    match answer.as_str() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(CliError::Unconfirmed),
    }
}

/// What is typed in answer to `prompt`, without the white space around it.
///
/// # Errors
/// [`CliError::Unconfirmed`] where standard input is no terminal, or ends.
pub fn answer(prompt: &str) -> Result<String, CliError> {
    if !io::stdin().is_terminal() {
        return Err(CliError::Unconfirmed);
    }
    let mut typed = String::new();
    let read = io::stderr()
        .write_all(prompt.as_bytes())
        .and_then(|()| io::stdin().read_line(&mut typed));
    match read {
        Ok(1..) => Ok(typed.trim().to_owned()),
        Ok(0) | Err(_) => Err(CliError::Unconfirmed),
    }
}
