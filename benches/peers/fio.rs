//! Runs a job of benches/fio, and reads its report.

use std::path::Path;
use std::process::Stdio;

use serde::Deserialize;

use crate::programs::{Outcome, program, run};
use crate::workloads::Extent;

const JOBS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/fio");

/// What was done, reads and writes together.
#[derive(Debug)]
pub struct Done {
    pub bytes_a_second: f64,
    pub operations_a_second: f64,
}

#[derive(Deserialize)]
struct Report {
    jobs: Vec<Job>,
}

#[derive(Deserialize)]
struct Job {
    error: i32,
    read: Direction,
    write: Direction,
}

#[derive(Deserialize)]
struct Direction {
    bw_bytes: f64,
    iops: f64,
}

/// Runs the job of this name in this directory.
pub fn run_job(name: &str, directory: &Path, extent: Extent) -> Outcome<Done> {
    let mut fio = program("fio");
    fio.env("DIRECTORY", directory);
    fio.env("SIZE", format!("{}m", extent.mebibytes));
    fio.env("RUNTIME", format!("{}ms", extent.runtime.as_millis()));
    fio.arg("--output-format=json").stdout(Stdio::piped());
    let (_, report) = run(fio.arg(format!("{JOBS}/{name}.fio")))?;
    parse(&report)
}

fn parse(report: &[u8]) -> Outcome<Done> {
    // Notes may stand before the report.
    let start = report.iter().position(|byte| *byte == b'{').unwrap_or(0);
    let report: Report = serde_json::from_slice(&report[start..])
        .map_err(|error| format!("fio's report: {error}"))?;
    let mut done = Done {
        bytes_a_second: 0.0,
        operations_a_second: 0.0,
    };
    for job in &report.jobs {
        if job.error != 0 {
            let error = std::io::Error::from_raw_os_error(job.error);
            return Err(format!("fio: {error}"));
        }
        for direction in [&job.read, &job.write] {
            done.bytes_a_second += direction.bw_bytes;
            done.operations_a_second += direction.iops;
        }
    }
    Ok(done)
}
