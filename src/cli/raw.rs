//! Secrets in and out: files, standard input and output read and written without a buffer that nobody wipes.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use zeroize::Zeroizing;

use super::message::CliError;

/// Reads at most `limit` bytes and one more, which shows that there were too many.
///
/// # Errors
/// The operating system's.
pub fn read_up_to(source: impl Read, limit: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    // Room for all of it at once, so that growing leaves no copy behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(limit + 1));
    source.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads standard input, as [`read_up_to`].
///
/// # Errors
/// [`CliError::Io`].
pub fn read_stdin(limit: usize) -> Result<Zeroizing<Vec<u8>>, CliError> {
    rustix::stdio::stdin()
        .try_clone_to_owned()
        .and_then(|input| read_up_to(File::from(input), limit))
        .map_err(failed("read", Path::new("standard input")))
}

/// Reads a file, or standard input where it is called "-", as [`read_up_to`].
///
/// # Errors
/// [`CliError::Io`].
pub fn read(path: &Path, limit: usize) -> Result<Zeroizing<Vec<u8>>, CliError> {
    if path.as_os_str() == "-" {
        return read_stdin(limit);
    }
    File::open(path)
        .and_then(|file| read_up_to(file, limit))
        .map_err(failed("read", path))
}

/// Writes bytes to standard output as they are.
///
/// # Errors
/// [`CliError::Output`].
pub fn write_stdout(bytes: &[u8]) -> Result<(), CliError> {
    rustix::stdio::stdout()
        .try_clone_to_owned()
        .and_then(|output| File::from(output).write_all(bytes))
        .map_err(CliError::Output)
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CliError {
    let path = path.to_owned();
    move |source| CliError::Io {
        action,
        path,
        source,
    }
}
