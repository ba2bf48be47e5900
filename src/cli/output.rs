//! Results on standard output: lines, tables, JSON. Knows no noun.

use std::io::{self, Write};

use clap::{Args, ValueEnum};
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use super::args::Global;
use super::message::CliError;

/// How to print a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// For programs: AWS's field names.
    Json,
}

/// The option of every command that prints a result.
#[derive(Debug, Clone, Copy, Args)]
pub struct OutputArgs {
    /// How to print the result.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub output: Format,
}

/// A number of things, in words: `1 file`, `2 files`.
#[must_use]
pub fn count(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// Prints text and a line break to standard output.
///
/// # Errors
/// [`CliError::Output`].
pub fn line(text: &str) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.write_all(b"\n"))
        .and_then(|()| out.flush())
        .map_err(CliError::Output)
}

/// Says on standard output what was done, unless only results are wanted.
///
/// # Errors
/// [`CliError::Output`].
pub fn done(global: &Global, text: &str) -> Result<(), CliError> {
    if global.quiet { Ok(()) } else { line(text) }
}

/// Mentions something beside the result, on standard error so that it does not get into it.
pub fn note(global: &Global, text: &str) {
    if !global.quiet {
        // Nothing depends on its being read.
        let _ = writeln!(io::stderr(), "{text}");
    }
}

/// Prints JSON.
///
/// # Errors
/// [`CliError::Output`].
pub fn json(value: &impl Serialize) -> Result<(), CliError> {
    let text =
        serde_json::to_string_pretty(value).map_err(|error| CliError::Output(error.into()))?;
    line(&text)
}

/// Prints rows under headings.
///
/// # Errors
/// [`CliError::Output`].
pub fn table<const N: usize>(
    header: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> Result<(), CliError> {
    let mut table = new_table();
    table.set_header(header);
    table.add_rows(rows.into_iter().map(|row| row.map(|cell| printable(&cell))));
    finish(table)
}

/// Prints names and values below one another; an empty value is left out.
///
/// # Errors
/// [`CliError::Output`].
pub fn fields<'a>(fields: impl IntoIterator<Item = (&'a str, String)>) -> Result<(), CliError> {
    let mut table = new_table();
    for (name, value) in fields {
        if !value.is_empty() {
            table.add_row([name.to_owned(), printable(&value)]);
        }
    }
    finish(table)
}

fn new_table() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    // A wrapped key id cannot be copied; a terminal wraps long rows by itself.
    table.set_content_arrangement(ContentArrangement::Disabled);
    table
}

fn finish(mut table: Table) -> Result<(), CliError> {
    if let Some(column) = table.column_mut(0) {
        column.set_padding((0, 1));
    }
    line(&table.trim_fmt())
}

/// Text from a record must not drive the terminal, nor break its row.
pub(super) fn printable(text: &str) -> String {
    text.chars()
        .flat_map(|c| {
            let plain = (!c.is_control()).then_some(c);
            let escaped = c.is_control().then(|| c.escape_default());
            plain.into_iter().chain(escaped.into_iter().flatten())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(printable("a\u{1b}[31m\nä"), "a\\u{1b}[31m\\nä");
    }
}
