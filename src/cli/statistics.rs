//! What mounts were asked by the kernel, for `cmkfs status --stats`: gets it from them, and puts it into a table with
//! units. The figures themselves are made in `mount::stats`.

use std::path::Path;
use std::time::Instant;

use indicatif::{HumanBytes, HumanCount};
use serde::Serialize;

use super::message::CliError;
use super::output;
use crate::mount::control::client::{self, AskError, Asked};
use crate::mount::control::protocol::{Request, Response};
use crate::mount::stats::OperationStats;

/// What one mount was asked, or why that is not known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) enum Statistics {
    Operations(Vec<OperationStats>),
    OperationsUnknown(String),
}

/// What the mounts of a key directory have answered.
#[derive(Debug, Default)]
pub(super) struct Answers(Vec<Asked>);

impl Answers {
    /// Asks all mounts of a key directory.
    pub(super) fn ask(keys: &Path, deadline: Instant) -> Self {
        let asked = client::ask_all(keys, &Request::Stats, deadline);
        Self(asked.unwrap_or_else(|error| {
            log::debug!("{}: {error}", keys.display());
            Vec::new()
        }))
    }

    /// Those of one mount.
    pub(super) fn of(&self, mountpoint: &str, process_id: Option<u32>) -> Statistics {
        let counted = self.0.iter().find_map(|asked| match &asked.result {
            Ok(Response::Stats(stats)) if stats.mountpoint == mountpoint => Some(stats),
            _ => None,
        });
        if let Some(stats) = counted {
            return Statistics::Operations(stats.operations.clone());
        }
        // What went wrong does not say where it is mounted.
        let failed = self.0.iter().find_map(|asked| match &asked.result {
            Err(error) if Some(asked.process_id) == process_id => Some(error),
            _ => None,
        });
        Statistics::OperationsUnknown(match failed {
            // Nothing else makes this request fail.
            Some(AskError::Failed(_)) => {
                "its cmkfs is too old to count them; unmount it and mount it with this version"
                    .to_owned()
            }
            Some(error @ (AskError::Silent | AskError::Ended | AskError::Broken(_))) => {
                error.to_string()
            }
            None => "it is no mount of this key directory, or does not answer".to_owned(),
        })
    }
}

/// Prints them for people.
///
/// # Errors
/// [`CliError::Output`].
pub(super) fn print(statistics: &Statistics) -> Result<(), CliError> {
    match statistics {
        Statistics::Operations(operations) => output::table(
            [
                "OPERATION",
                "COUNT",
                "ERRORS",
                "TOTAL",
                "P50",
                "P99",
                "MAX",
                "BYTES",
            ],
            operations.iter().map(row),
        ),
        Statistics::OperationsUnknown(why) => {
            output::line(&format!("Operations: not known: {why}"))
        }
    }
}

fn row(stats: &OperationStats) -> [String; 8] {
    let bytes = match stats.bytes {
        0 => String::new(),
        bytes => HumanBytes(bytes).to_string(),
    };
    [
        stats.operation.clone(),
        HumanCount(stats.count).to_string(),
        HumanCount(stats.errors).to_string(),
        duration(stats.total_nanoseconds),
        duration(stats.p50_nanoseconds),
        duration(stats.p99_nanoseconds),
        duration(stats.max_nanoseconds),
        bytes,
    ]
}

/// In the unit that leaves one to three digits before the point; beyond seconds there is none.
fn duration(nanoseconds: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "µs")];
    let unit = UNITS.iter().find(|(length, _)| nanoseconds >= *length);
    let Some((length, unit)) = unit else {
        return format!("{nanoseconds} ns");
    };
    // Cut off, not rounded: what is shown as 999 µs is less than a millisecond.
    let tenths = nanoseconds / (length / 10);
    match (tenths / 10, tenths % 10) {
        (whole @ 0..10, tenth) => format!("{whole}.{tenth} {unit}"),
        (whole, _) => format!("{whole} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::PathBuf;

    use super::*;
    use crate::mount::control::protocol::{Failed, MountStats, Reason};

    #[test]
    fn durations_have_the_unit_that_fits() {
        for (nanoseconds, text) in [
            (0, "0 ns"),
            (999, "999 ns"),
            (1_000, "1.0 µs"),
            (9_999, "9.9 µs"),
            (12_345, "12 µs"),
            (999_999, "999 µs"),
            (1_250_000, "1.2 ms"),
            (2_000_000_000, "2.0 s"),
            (3_600_000_000_000, "3600 s"),
        ] {
            assert_eq!(duration(nanoseconds), text);
        }
    }

    fn read() -> OperationStats {
        OperationStats {
            operation: "read".to_owned(),
            count: 1_234,
            errors: 1,
            total_nanoseconds: 15_000_000,
            p50_nanoseconds: 11_263,
            p99_nanoseconds: 120_000,
            max_nanoseconds: 2_100_000,
            bytes: 3_565_158,
        }
    }

    #[test]
    fn a_row_reads_like_this() {
        let row = row(&read());
        assert_eq!(
            row,
            [
                "read", "1,234", "1", "15 ms", "11 µs", "120 µs", "2.1 ms", "3.40 MiB"
            ]
        );
    }

    fn answers(results: Vec<Result<Response, AskError>>) -> Answers {
        let asked = |(place, result)| Asked {
            process_id: place,
            socket: PathBuf::new(),
            result,
        };
        Answers((1..).zip(results).map(asked).collect())
    }

    #[test]
    fn each_mount_has_its_own_figures_or_the_reason_why_there_are_none() {
        let stats = |mountpoint: &str| {
            Ok(Response::Stats(MountStats {
                mountpoint: mountpoint.to_owned(),
                operations: vec![read()],
            }))
        };
        let old = Failed {
            reason: Reason::Other,
            message: "this is no request: unknown variant `Stats`".to_owned(),
        };
        let answers = answers(vec![
            stats("/one"),
            Err(AskError::Failed(old)),
            Err(AskError::Silent),
            Err(AskError::Broken(io::Error::other("nonsense"))),
        ]);
        assert_eq!(
            answers.of("/one", None),
            Statistics::Operations(vec![read()])
        );
        for (process_id, part) in [
            (Some(2), "too old"),
            (Some(3), "does not answer"),
            (Some(4), "nonsense"),
            (Some(5), "no mount of this key directory"),
            (None, "no mount of this key directory"),
        ] {
            match answers.of("/other", process_id) {
                Statistics::OperationsUnknown(why) => assert!(why.contains(part), "{why}"),
                known @ Statistics::Operations(_) => panic!("{known:?}"),
            }
        }
    }
}
