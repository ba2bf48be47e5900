//! Finds, opens and makes the key directory, and asks for its passphrase.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use zeroize::{Zeroize, Zeroizing};

use super::args::Global;
use super::message::CliError;
use super::{output, raw};
use crate::clock::SystemClock;
use crate::crypto::passphrase::{Argon2Params, Passphrase};
use crate::kms::root::{NewProtection, PassphraseSource};
use crate::kms::{KeyService, KmsError};

/// Longer than any passphrase; whatever is longer was named by mistake.
const MAX_PASSPHRASE: usize = 64 * 1024;

/// The key directory's absolute path: `--keys`, else `$CMKFS_KEYS`, else under the user's data directory.
///
/// # Errors
/// [`CliError::NoHome`] where nothing says where that is.
pub fn locate(global: &Global) -> Result<PathBuf, CliError> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let dir = if let Some(dir) = &global.keys {
        dir.clone()
    } else if let Some(dir) = variable("CMKFS_KEYS") {
        dir.into()
    } else {
        // A relative XDG_DATA_HOME is to be ignored (XDG Base Directory Specification).
        let data = variable("XDG_DATA_HOME")
            .map(PathBuf::from)
            .filter(|dir| dir.is_absolute());
        let home = || variable("HOME").map(|home| PathBuf::from(home).join(".local/share"));
        data.or_else(home)
            .ok_or(CliError::NoHome)?
            .join("cmkfs/keys")
    };
    std::path::absolute(&dir).map_err(|source| CliError::Io {
        action: "find",
        path: dir,
        source,
    })
}

/// Opens the key directory; never makes one, so that a mistyped path is an error.
///
/// # Errors
/// What [`KeyService::open`] says.
pub fn open(global: &Global) -> Result<KeyService, CliError> {
    let service = KeyService::open(&locate(global)?, &Asked(global), Arc::new(SystemClock))?;
    Ok(service)
}

/// Opens the key directory, or makes it, with its default key, where there is none. It gets a passphrase if
/// `passphrase` says so or one is given by file or command. Also says whether it was made.
///
/// # Errors
/// What [`KeyService::open_or_create`] says.
pub fn open_or_create(global: &Global, passphrase: bool) -> Result<(KeyService, bool), CliError> {
    let given = global.passphrase_file.is_some() || global.passphrase_command.is_some();
    let protection = if passphrase || given {
        NewProtection::Passphrase(Argon2Params::RECOMMENDED)
    } else {
        NewProtection::RootKeyFile
    };
    let dir = locate(global)?;
    let (service, made) =
        KeyService::open_or_create(&dir, protection, &Asked(global), Arc::new(SystemClock))?;
    if made {
        let text = format!("Created key directory {}", dir.display());
        output::note(global, &text);
    }
    Ok((service, made))
}

/// Passphrases from where the options say, else from the terminal.
struct Asked<'a>(&'a Global);

impl PassphraseSource for Asked<'_> {
    fn existing(&self, dir: &Path) -> Result<Passphrase, KmsError> {
        match self.given() {
            Some(given) => given,
            None => prompt(&format!("Passphrase for {}: ", dir.display())),
        }
    }

    fn chosen(&self, dir: &Path) -> Result<Passphrase, KmsError> {
        if let Some(given) = self.given() {
            return given;
        }
        let passphrase = prompt(&format!("New passphrase for {}: ", dir.display()))?;
        if passphrase.is_empty() || passphrase == prompt("The same again: ")? {
            Ok(passphrase)
        } else {
            Err(no_passphrase("the two are not the same"))
        }
    }
}

impl Asked<'_> {
    fn given(&self) -> Option<Result<Passphrase, KmsError>> {
        if let Some(path) = &self.0.passphrase_file {
            return Some(from_file(path));
        }
        self.0.passphrase_command.as_deref().map(from_command)
    }
}

fn prompt(text: &str) -> Result<Passphrase, KmsError> {
    match rpassword::prompt_password(text) {
        Ok(typed) => Ok(Passphrase::new(typed.into_bytes().into())),
        Err(error) => Err(no_passphrase(format!(
            "cannot ask on the terminal: {error}"
        ))),
    }
}

fn from_file(path: &Path) -> Result<Passphrase, KmsError> {
    std::fs::File::open(path)
        .and_then(read_all)
        .map_err(|error| no_passphrase(format!("cannot read {}: {error}", path.display())))
        .and_then(first_line)
}

fn from_command(command: &str) -> Result<Passphrase, KmsError> {
    let failed = |why: String| no_passphrase(format!("the command `{command}` {why}"));
    let mut child = Command::new("/bin/sh")
        .args(["-c", command])
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| failed(format!("cannot be run: {error}")))?;
    let printed = child.stdout.take().map_or_else(
        || Ok(Zeroizing::default()),
        |stdout| read_all(stdout).map_err(|error| failed(format!("cannot be read: {error}"))),
    );
    let status = child
        .wait()
        .map_err(|error| failed(format!("cannot be waited for: {error}")))?;
    if !status.success() {
        return Err(failed(format!("failed: {status}")));
    }
    first_line(printed?)
}

fn read_all(source: impl Read) -> std::io::Result<Zeroizing<Vec<u8>>> {
    raw::read_up_to(source, MAX_PASSPHRASE)
}

/// What stands before the first line break: editors and `echo` add one.
fn first_line(mut bytes: Zeroizing<Vec<u8>>) -> Result<Passphrase, KmsError> {
    if bytes.len() > MAX_PASSPHRASE {
        return Err(no_passphrase("it is longer than 64 KiB"));
    }
    let end = bytes.iter().position(|byte| *byte == b'\n');
    let end = end.unwrap_or(bytes.len());
    let line = bytes.get(..end).unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.is_empty() {
        return Err(no_passphrase("it is empty"));
    }
    let passphrase = Passphrase::new(line.to_vec().into());
    bytes.zeroize();
    Ok(passphrase)
}

fn no_passphrase(why: impl Into<String>) -> KmsError {
    KmsError::NoPassphrase { why: why.into() }
}
