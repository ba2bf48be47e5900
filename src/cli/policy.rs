//! `cmkfs policy`: who may do what with a key.

use std::io::Read;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::Serialize;

use super::args::Global;
use super::keystore;
use super::message::CliError;
use super::obey::{self, ObeyArgs};
use super::output::{self, Format, OutputArgs};
use crate::kms::key::KeyRef;
use crate::kms::policy::document::MAX_POLICY;

/// What a policy can say, for `--help` and the man page.
const LANGUAGE: &str = r#"A policy is JSON in the language of AWS's key policies:

  {
    "Version": "2012-10-17",
    "Statement": [
      { "Sid": "Owner", "Effect": "Allow", "Principal": {"User": ["alice", 0]}, "Action": "kms:*", "Resource": "*" },
      { "Sid": "Readers", "Effect": "Allow", "Principal": {"Group": "staff"},
        "Action": ["kms:Decrypt", "kms:DescribeKey"], "Resource": "*",
        "Condition": {"DateLessThan": {"aws:CurrentTime": "2030-01-01T00:00:00Z"}} }
    ]
  }

Principal: "*", {"User": …}, {"Group": …}: names or numbers, one or a list.
Action: kms:NAME with the wildcards * and ?, one or a list. Resource: "*", the key itself.
Condition operators: StringEquals, StringEqualsIgnoreCase, StringLike, DateEquals, each also as …Not…; DateLessThan, DateLessThanEquals,
DateGreaterThan, DateGreaterThanEquals, Bool; all these also with …IfExists; Null; ForAllValues: and ForAnyValue: before one on a key with many values.
Condition keys: kms:EncryptionContext:volume, …:object, …:kind (file, directory, symlink or volume), kms:EncryptionContextKeys (many values),
aws:CurrentTime, kms:BypassPolicyLockoutSafetyCheck.
A statement that denies beats all that allow. What is not listed here is refused.

cmkfs enforces policies for whoever goes through it. Who can read the key directory's files can go around it."#;

/// The commands of `cmkfs policy`.
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// Show a key's policy.
    Get {
        /// Key id or alias/NAME.
        key: KeyRef,
        /// How to print it: the document itself, or as AWS's GetKeyPolicy answers.
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Give a key another policy, in running mounts too.
    #[command(after_long_help = LANGUAGE)]
    Put(PutArgs),
}

/// The arguments of `cmkfs policy put`.
#[derive(Debug, Args)]
pub struct PutArgs {
    /// Key id or alias/NAME.
    key: KeyRef,
    /// The policy, or - for standard input.
    #[arg(value_name = "FILE|-")]
    file: PathBuf,
    /// Put it even if you could not put another one afterwards.
    #[arg(long)]
    bypass_policy_lockout_safety_check: bool,
    /// How long mounts may take.
    #[command(flatten)]
    obey: ObeyArgs,
    /// How to print what they did.
    #[command(flatten)]
    output: OutputArgs,
}

/// Runs `cmkfs policy`.
///
/// # Errors
/// Why it failed.
pub fn run(global: &Global, command: PolicyCommand) -> Result<(), CliError> {
    match command {
        PolicyCommand::Get { key, output } => get(global, &key, output.output),
        PolicyCommand::Put(args) => {
            let text = read(&args.file)?;
            let bypass = args.bypass_policy_lockout_safety_check;
            let service = keystore::open(global)?;
            let make = |key: &KeyRef| service.put_key_policy(key, &text, bypass);
            let (key, obedience) = obey::change_key(&service, args.obey, &args.key, make)?;
            let done = format!("Put the policy of key {key}");
            obedience.conclude(global, args.output.output, &done)
        }
    }
}

fn get(global: &Global, key: &KeyRef, format: Format) -> Result<(), CliError> {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer<'a> {
        policy: &'a str,
        policy_name: &'a str,
    }
    let policy = keystore::open(global)?.get_key_policy(key)?;
    match format {
        Format::Table => output::line(policy.as_str().trim_end()),
        Format::Json => output::json(&Answer {
            policy: policy.as_str(),
            policy_name: "default",
        }),
    }
}

fn read(file: &Path) -> Result<String, CliError> {
    let mut text = String::new();
    // One byte more than there may be, so that too much shows.
    let limit = MAX_POLICY as u64 + 1;
    let done = if file == Path::new("-") {
        std::io::stdin()
            .lock()
            .take(limit)
            .read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(limit).read_to_string(&mut text))
    };
    done.map(|_| text).map_err(|source| CliError::Io {
        action: "read",
        path: file.to_owned(),
        source,
    })
}
