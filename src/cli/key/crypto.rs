//! `cmkfs key encrypt`, `decrypt` and `re-encrypt`: small secrets from standard input to standard output.

use std::collections::BTreeMap;

use clap::Args;

use super::tags::pair;
use crate::cli::args::Global;
use crate::cli::message::CliError;
use crate::cli::{keystore, raw};
use crate::format::ciphertext::{MAX_LEN, MAX_PLAINTEXT, TextContext};
use crate::kms::KmsError;
use crate::kms::key::KeyRef;

/// The arguments of `cmkfs key encrypt`.
#[derive(Debug, Args)]
pub struct EncryptArgs {
    /// Key id or alias/NAME.
    key: KeyRef,
    /// What the secret belongs to; the same is needed to decrypt it. Not secret; may be given several times.
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    context: Vec<(String, String)>,
}

/// The arguments of `cmkfs key decrypt`.
#[derive(Debug, Args)]
pub struct DecryptArgs {
    /// Key id or alias/NAME that it must be under. Without it: the one that the ciphertext names.
    key: Option<KeyRef>,
    /// The context that it was encrypted with; may be given several times.
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    context: Vec<(String, String)>,
}

/// The arguments of `cmkfs key re-encrypt`.
#[derive(Debug, Args)]
pub struct ReEncryptArgs {
    /// Key id or alias/NAME that it is to be under.
    key: KeyRef,
    /// The context that it was encrypted with; may be given several times.
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    source_context: Vec<(String, String)>,
    /// The context that it is to have; may be given several times.
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    context: Vec<(String, String)>,
}

/// Runs `cmkfs key encrypt`.
pub(super) fn encrypt(global: &Global, args: EncryptArgs) -> Result<(), CliError> {
    let context = text_context(args.context)?;
    let service = keystore::open(global)?;
    let plaintext = raw::read_stdin(MAX_PLAINTEXT)?;
    raw::write_stdout(&service.encrypt(&args.key, &plaintext, &context)?)
}

/// Runs `cmkfs key decrypt`.
pub(super) fn decrypt(global: &Global, args: DecryptArgs) -> Result<(), CliError> {
    let context = text_context(args.context)?;
    let service = keystore::open(global)?;
    let ciphertext = raw::read_stdin(MAX_LEN)?;
    raw::write_stdout(&service.decrypt(args.key.as_ref(), &ciphertext, &context)?)
}

/// Runs `cmkfs key re-encrypt`.
pub(super) fn re_encrypt(global: &Global, args: ReEncryptArgs) -> Result<(), CliError> {
    let source = text_context(args.source_context)?;
    let destination = text_context(args.context)?;
    let service = keystore::open(global)?;
    let ciphertext = raw::read_stdin(MAX_LEN)?;
    raw::write_stdout(&service.re_encrypt(&ciphertext, &source, &args.key, &destination)?)
}

fn text_context(pairs: Vec<(String, String)>) -> Result<TextContext, CliError> {
    let mut context = BTreeMap::new();
    for (name, value) in pairs {
        if context.contains_key(&name) {
            let text = format!("the encryption context names {name:?} twice");
            return Err(KmsError::ValidationException(text).into());
        }
        context.insert(name, value);
    }
    Ok(TextContext(context))
}
