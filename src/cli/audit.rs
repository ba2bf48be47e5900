//! `cmkfs audit`: what was done with keys, by whom, and whether its record is whole.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io::{self, BufWriter, Write};

use clap::{Args, Subcommand};
use serde::Serialize;

use super::args::Global;
use super::keystore;
use super::message::CliError;
use super::output::{self, Format, OutputArgs, printable};
use crate::clock::{Clock, SystemClock, Timestamp};
use crate::kms::KeyService;
use crate::kms::audit::{AuditEvent, AuditVerification, Filter};
use crate::kms::key::KeyRef;

/// The commands of `cmkfs audit`.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Show what was done with keys, or refused: the oldest first.
    Show(ShowArgs),
    /// Check that no line of the audit log was changed, left out, inserted, exchanged or cut off.
    Verify(OutputArgs),
    /// Move a damaged audit log aside and begin a new one, so that keys can be used again. The new one says so.
    Restart,
}

/// The arguments of `cmkfs audit show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// Only what is about this key: key id or alias/NAME.
    #[arg(long, value_name = "KEY")]
    key: Option<KeyRef>,
    /// Only events of this name, such as DisableKey or Decrypt.
    #[arg(long, value_name = "NAME")]
    event: Option<String>,
    /// Only what this user asked for: name or number.
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    /// Only what was not before TIME: 2026-01-31, 2026-01-31T08:00 (both local), 2026-01-31T08:00:00Z, or how long ago: 90m, 2h, 7d.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<Timestamp>,
    /// Only what was not after TIME.
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<Timestamp>,
    /// Only what was refused or failed.
    #[arg(long)]
    errors: bool,
    /// Only the last N of them.
    #[arg(long, value_name = "N")]
    last: Option<usize>,
    /// How to print them; json has all their fields.
    #[command(flatten)]
    output: OutputArgs,
}

/// Runs `cmkfs audit`.
///
/// # Errors
/// Why it failed.
pub fn run(global: &Global, command: AuditCommand) -> Result<(), CliError> {
    let service = keystore::open(global)?;
    match command {
        AuditCommand::Show(args) => show(&service, args),
        AuditCommand::Verify(output) => verify(&service, output.output),
        AuditCommand::Restart => {
            let aside = service.restart_audit()?;
            let text = format!("Began a new audit log; the damaged one is now in {aside}");
            output::done(global, &text)
        }
    }
}

fn show(service: &KeyService, args: ShowArgs) -> Result<(), CliError> {
    let filter = Filter {
        key: args.key,
        event: args.event,
        user: args.user,
        since: args.since,
        until: args.until,
        errors: args.errors,
    };
    let mut printer = Printer::new(args.output.output)?;
    let found = match args.last {
        None => service.audit_events(&filter, |event| printer.print(&event))?,
        Some(last) => {
            let mut kept = VecDeque::new();
            let read = service.audit_events(&filter, |event| {
                kept.push_back(event);
                if kept.len() > last {
                    kept.pop_front();
                }
                Ok::<(), Infallible>(())
            });
            for event in &kept {
                printer.print(event)?;
            }
            match read {
                Ok(found) => found,
                Err(never) => match never {},
            }
        }
    };
    printer.finish()?;
    whole(found)
}

/// Says what is wrong with the log, after all that could be shown was shown.
fn whole(found: AuditVerification) -> Result<(), CliError> {
    found.damage.map_or(Ok(()), |error| Err(error.into()))
}

fn verify(service: &KeyService, format: Format) -> Result<(), CliError> {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Report {
        key_store_id: String,
        events: u64,
        unfinished: bool,
        damage: Option<String>,
    }
    let found = service.verify_audit();
    match format {
        Format::Json => output::json(&Report {
            key_store_id: service.store_id().to_string(),
            events: found.events,
            unfinished: found.unfinished,
            damage: found.damage.as_ref().map(ToString::to_string),
        })?,
        Format::Table => {
            let tail = if found.unfinished {
                "; one more was begun and not finished, which is tidied up by the next operation"
            } else {
                ""
            };
            output::line(&format!("{} events are whole{tail}", found.events))?;
        }
    }
    whole(found)
}

/// Prints events as they come, however many.
struct Printer {
    out: BufWriter<io::StdoutLock<'static>>,
    format: Format,
    printed: bool,
}

impl Printer {
    fn new(format: Format) -> Result<Self, CliError> {
        let mut this = Self {
            out: BufWriter::new(io::stdout().lock()),
            format,
            printed: false,
        };
        match format {
            Format::Json => this.write("{\"Records\":[")?,
            Format::Table => this.row(["TIME", "EVENT", "KEY ID", "USER", "RESULT"])?,
        }
        Ok(this)
    }

    fn print(&mut self, event: &AuditEvent) -> Result<(), CliError> {
        if self.format == Format::Json {
            self.write(if self.printed { ",\n" } else { "\n" })?;
            self.printed = true;
            return self.write(&event.text);
        }
        let text = |place| event.text_of(place).unwrap_or_default();
        let key = event.key().map(|key| key.to_string());
        let asked = || text("requestParameters/keyId").to_owned();
        let count = event
            .field("additionalEventData/count")
            .map_or_else(String::new, |count| format!(" ({count} times)"));
        let alias = event
            .text_of("requestParameters/aliasName")
            .map_or_else(String::new, |alias| format!(" {alias}"));
        let result = event.text_of("errorCode").unwrap_or("ok");
        self.row([
            text("eventTime"),
            text("eventName"),
            &key.unwrap_or_else(asked),
            &event.user(),
            &format!("{result}{count}{alias}"),
        ])
    }

    /// Of fixed widths: what comes later is not known yet.
    fn row(&mut self, cells: [&str; 5]) -> Result<(), CliError> {
        let [time, name, key, user, result] = cells.map(printable);
        self.write(&format!(
            "{time:24}  {name:27}  {key:36}  {user:12}  {result}\n"
        ))
    }

    fn finish(mut self) -> Result<(), CliError> {
        if self.format == Format::Json {
            self.write(if self.printed { "\n]}\n" } else { "]}\n" })?;
        }
        self.out.flush().map_err(CliError::Output)
    }

    fn write(&mut self, text: &str) -> Result<(), CliError> {
        self.out
            .write_all(text.as_bytes())
            .map_err(CliError::Output)
    }
}

/// A moment as people say it.
fn moment(text: &str) -> Result<Timestamp, String> {
    let zone = jiff::tz::TimeZone::system();
    moment_from(text, SystemClock.now(), &zone).ok_or_else(|| {
        "a time looks like 2026-01-31, 2026-01-31T08:00, 2026-01-31T08:00:00Z, or 2h for two hours ago".to_owned()
    })
}

fn moment_from(text: &str, now: Timestamp, zone: &jiff::tz::TimeZone) -> Option<Timestamp> {
    let millis = |moment: jiff::Timestamp| Timestamp(moment.as_millisecond());
    if let Ok(moment) = text.parse::<jiff::Timestamp>() {
        return Some(millis(moment));
    }
    if let Ok(local) = text.parse::<jiff::civil::DateTime>() {
        return Some(millis(local.to_zoned(zone.clone()).ok()?.timestamp()));
    }
    let span: jiff::Span = text.parse().ok()?;
    let now = jiff::Timestamp::from_millisecond(now.0).ok()?;
    let ago = now.to_zoned(zone.clone()).checked_sub(span).ok()?;
    Some(millis(ago.timestamp()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_a_date_a_time_or_how_long_ago() {
        let now = Timestamp(1_700_000_000_000);
        let zone = jiff::tz::TimeZone::UTC;
        let at = |text| moment_from(text, now, &zone).map(|moment| moment.0);
        assert_eq!(at("2023-11-14T22:13:20Z"), Some(now.0));
        assert_eq!(at("2023-11-14T22:13:20"), Some(now.0));
        assert_eq!(at("2023-11-14"), Some(1_699_920_000_000));
        assert_eq!(at("2h"), Some(now.0 - 7_200_000));
        assert_eq!(at("7d"), Some(now.0 - 7 * 86_400_000));
        for bad in ["", "yesterday", "12", "2023-13-01"] {
            assert_eq!(at(bad), None, "{bad}");
        }
    }
}
