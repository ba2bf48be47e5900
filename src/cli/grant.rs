//! `cmkfs grant`: what somebody may do with a key beside its policy.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::args::Global;
use super::keystore;
use super::message::CliError;
use super::obey::{self, Obedience, ObeyArgs};
use super::output::{self, Format, OutputArgs};
use crate::ids::KeyId;
use crate::kms::grant::{
    Constraints, CreateGrantRequest, GrantId, GrantListEntry, GrantName, GrantOperation,
};
use crate::kms::key::{KeyRef, rfc3339_text};
use crate::kms::policy::Principal;
use crate::kms::{KeyService, KmsError};

/// The commands of `cmkfs grant`.
#[derive(Debug, Subcommand)]
pub enum GrantCommand {
    /// Make a grant.
    Create(CreateArgs),
    /// List a key's grants.
    List {
        /// Key id or alias/NAME.
        key: KeyRef,
        /// How to print them.
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Give a grant back: by its retiring principal, or by its grantee if it allows RetireGrant.
    Retire(Which),
    /// Take a grant back.
    Revoke(Which),
}

/// The arguments of `cmkfs grant create`.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// Key id or alias/NAME.
    key: KeyRef,
    /// Who may do it: user:NAME or group:NAME; NAME may be a number.
    #[arg(long, value_name = "PRINCIPAL")]
    grantee_principal: Principal,
    /// Who may give it back.
    #[arg(long, value_name = "PRINCIPAL")]
    retiring_principal: Option<Principal>,
    /// What may be done: Decrypt, Encrypt, GenerateDataKey, DescribeKey, CreateGrant, RetireGrant, ….
    #[arg(
        long,
        value_name = "OPERATION",
        required = true,
        num_args = 1..,
        value_delimiter = ','
    )]
    operations: Vec<GrantOperation>,
    /// Only where the encryption context has this pair; may be given more than once.
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair, conflicts_with = "encryption_context_equals")]
    encryption_context_subset: Vec<(String, String)>,
    /// Only where the encryption context has all these pairs and no other; may be given more than once.
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    encryption_context_equals: Vec<(String, String)>,
    /// A name, so that the same command again makes no second grant.
    #[arg(long)]
    name: Option<GrantName>,
    /// How long mounts may take.
    #[command(flatten)]
    obey: ObeyArgs,
    /// How to print the new grant's id and what they did.
    #[command(flatten)]
    output: OutputArgs,
}

/// A grant of a key.
#[derive(Debug, Args)]
pub struct Which {
    /// Key id or alias/NAME.
    key: KeyRef,
    /// The grant's id, from `cmkfs grant list`.
    grant_id: GrantId,
    /// How long mounts may take.
    #[command(flatten)]
    obey: ObeyArgs,
    /// How to print what they did.
    #[command(flatten)]
    output: OutputArgs,
}

/// Runs `cmkfs grant`.
///
/// # Errors
/// Why it failed.
pub fn run(global: &Global, command: GrantCommand) -> Result<(), CliError> {
    match command {
        GrantCommand::Create(args) => create(global, args),
        GrantCommand::List { key, output } => {
            let grants = keystore::open(global)?.list_grants(&key)?;
            print(&grants, output.output)
        }
        GrantCommand::Retire(which) => remove(global, &which, "Retired", KeyService::retire_grant),
        GrantCommand::Revoke(which) => remove(global, &which, "Revoked", KeyService::revoke_grant),
    }
}

fn remove(
    global: &Global,
    which: &Which,
    done: &str,
    make: fn(&KeyService, &KeyRef, &GrantId) -> Result<KeyId, KmsError>,
) -> Result<(), CliError> {
    let service = keystore::open(global)?;
    let make = |key: &KeyRef| make(&service, key, &which.grant_id);
    let (key, obedience) = obey::change_key(&service, which.obey, &which.key, make)?;
    let done = format!("{done} a grant of key {key}");
    obedience.conclude(global, which.output.output, &done)
}

fn create(global: &Global, args: CreateArgs) -> Result<(), CliError> {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Created<'a> {
        grant_id: &'a GrantId,
        #[serde(flatten)]
        obedience: &'a Obedience,
    }
    let constraints = match (
        pairs(args.encryption_context_subset)?,
        pairs(args.encryption_context_equals)?,
    ) {
        (Some(subset), _) => Some(Constraints::EncryptionContextSubset(subset)),
        (None, Some(equals)) => Some(Constraints::EncryptionContextEquals(equals)),
        (None, None) => None,
    };
    let request = CreateGrantRequest {
        grantee_principal: args.grantee_principal,
        retiring_principal: args.retiring_principal,
        operations: args.operations.into_iter().collect(),
        constraints,
        name: args.name,
    };
    let service = keystore::open(global)?;
    let make = |key: &KeyRef| service.create_grant(key, request);
    let (grant_id, obedience) = obey::change_key(&service, args.obey, &args.key, make)?;
    match args.output.output {
        Format::Json => {
            output::json(&Created {
                grant_id: &grant_id,
                obedience: &obedience,
            })?;
            obedience.check()
        }
        // What a script wants to keep in a variable.
        Format::Table if global.quiet => {
            output::line(&grant_id.to_string())?;
            obedience.check()
        }
        Format::Table => {
            output::line(&format!("Created grant {grant_id}"))?;
            obedience.report(global)
        }
    }
}

fn print(grants: &[GrantListEntry], format: Format) -> Result<(), CliError> {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Grants<'a> {
        grants: &'a [GrantListEntry],
    }
    match format {
        Format::Json => output::json(&Grants { grants }),
        Format::Table => output::table(
            [
                "GRANT ID",
                "NAME",
                "GRANTEE",
                "RETIRING",
                "OPERATIONS",
                "CONSTRAINTS",
                "CREATED",
            ],
            grants.iter().map(|grant| {
                let operations: Vec<&str> = grant.operations.iter().map(|of| of.as_str()).collect();
                [
                    grant.grant_id.to_string(),
                    grant.name.as_ref().map_or("", GrantName::as_str).to_owned(),
                    grant.grantee_principal.to_string(),
                    grant
                        .retiring_principal
                        .as_ref()
                        .map(ToString::to_string)
                        .unwrap_or_default(),
                    operations.join(", "),
                    grant.constraints.as_ref().map(phrase).unwrap_or_default(),
                    rfc3339_text(grant.creation_date),
                ]
            }),
        ),
    }
}

fn phrase(constraints: &Constraints) -> String {
    let (word, pairs) = match constraints {
        Constraints::EncryptionContextEquals(pairs) => ("equals", pairs),
        Constraints::EncryptionContextSubset(pairs) => ("has", pairs),
    };
    let pairs: Vec<String> = pairs.iter().map(|(k, v)| format!("{k}={v}")).collect();
    format!("{word} {}", pairs.join(", "))
}

fn pairs(given: Vec<(String, String)>) -> Result<Option<BTreeMap<String, String>>, KmsError> {
    let mut pairs = BTreeMap::new();
    for (name, value) in given {
        if pairs.contains_key(&name) {
            return Err(KmsError::ValidationException(format!(
                "encryption context: {name:?} is given twice"
            )));
        }
        pairs.insert(name, value);
    }
    Ok((!pairs.is_empty()).then_some(pairs))
}

fn pair(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('=') {
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        None => Err("a pair looks like NAME=VALUE"),
    }
}
