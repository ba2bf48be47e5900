//! Compares cmkfs with other encrypting FUSE filesystems, with FUSE alone and with the backing directory. `scripts/bench`
//! installs what this needs and runs it.
//!
//! This file reads the arguments and writes the results; `rounds` has the order of a run, `contenders` who takes part,
//! `workloads` what is measured.

mod chart;
mod contenders;
mod fio;
mod inputs;
#[path = "../shared/machine.rs"]
mod machine;
#[path = "../shared/mounted.rs"]
mod mounted;
#[path = "../shared/programs.rs"]
mod programs;
mod report;
mod results;
mod rounds;
mod workloads;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use contenders::{Contender, Role};
use inputs::Inputs;
use machine::Backing;
use programs::Outcome;
use results::{Cell, Column, Results, Row};
use workloads::{Extent, Workload};

const MEMORY: &str = "/dev/shm";
/// Above this many processors at work for others, figures are worth little.
const QUIET: f64 = 0.2;

/// Compare cmkfs with its peers: medians of several rounds, and ratios
#[derive(Debug, Parser)]
#[command(name = "scripts/bench", bin_name = "scripts/bench")]
struct Arguments {
    /// Store everything below this directory, which says what disk is measured
    #[arg(long, value_name = "DIR", default_value = MEMORY)]
    on: PathBuf,
    /// Rounds; each runs every workload on every contender
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Size of the files that are read and written, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 128, value_parser = clap::value_parser!(u64).range(4..=1 << 20))]
    size: u64,
    /// Run these workloads only
    #[arg(long, value_name = "WORKLOAD,…", value_delimiter = ',', value_parser = workload)]
    only: Vec<&'static Workload>,
    /// Let these take part only, besides cmkfs
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', value_parser = contender)]
    against: Vec<&'static Contender>,
    /// A short look: one round, small files, a small tree
    #[arg(long)]
    quick: bool,
    /// What is printed
    #[arg(long, value_name = "FORM", default_value = "table")]
    output: Form,
    /// Where the results go as JSON
    #[arg(long, value_name = "FILE", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/target/bench/results.json"))]
    json: PathBuf,
    /// Where the table goes as Markdown
    #[arg(long, value_name = "FILE", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/target/bench/results.md"))]
    markdown: PathBuf,
    /// Where the chart goes as SVG
    #[arg(long, value_name = "FILE", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/target/bench/chart.svg"))]
    chart: PathBuf,
    /// cargo says so when it runs benchmarks
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Form {
    Table,
    Json,
}

fn workload(name: &str) -> Outcome<&'static Workload> {
    let mut all = workloads::ALL.iter();
    let found = all.find(|workload| workload.name == name);
    found.ok_or_else(|| {
        let names: Vec<_> = workloads::ALL.iter().map(|known| known.name).collect();
        format!("there are: {}", names.join(", "))
    })
}

fn contender(name: &str) -> Outcome<&'static Contender> {
    let mut all = contenders::ALL.iter();
    let found = all.find(|contender| contender.name == name);
    found.ok_or_else(|| {
        let names: Vec<_> = contenders::ALL.iter().map(|known| known.name).collect();
        format!("there are: {}", names.join(", "))
    })
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // cargo runs a benchmark in the package's directory.
    if let Some(from) = std::env::var_os("CMKFS_BENCH_FROM")
        && let Err(error) = std::env::set_current_dir(&from)
    {
        eprintln!("bench: {}: {error}", from.display());
        return ExitCode::FAILURE;
    }
    match compare(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("bench: something has failed: see the notes below the table");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether everything that was asked for has a figure.
fn compare(arguments: &Arguments) -> Outcome<bool> {
    programs::catch_signals().map_err(|error| format!("signals: {error}"))?;
    let contenders = contenders_of(arguments);
    let workloads = workloads_of(arguments);
    let (rounds, size, runtime, files) = if arguments.quick {
        (1, arguments.size.min(32), 300, 300)
    } else {
        (arguments.rounds, arguments.size, 700, 3000)
    };
    let extent = Extent {
        mebibytes: size,
        runtime: Duration::from_millis(runtime),
    };
    let folder = temporary(&arguments.on)?;
    let memory = Path::new(MEMORY);
    let inputs = if memory.is_dir() {
        memory
    } else {
        &arguments.on
    };
    let inputs_folder = temporary(inputs)?;
    let backing = Backing::at(folder.path())
        .map_err(|error| format!("{}: {error}", folder.path().display()))?;
    check_room(&backing, contenders.len(), size)?;
    let load = machine::load();
    if load > QUIET {
        eprintln!(
            "bench: NOT A QUIET MACHINE (load {load:.1}): these figures are good for a look only"
        );
    }
    if !backing.can_forget() {
        eprintln!(
            "bench: only root can drop the page cache: cold reads are cold in FUSE, not on the disk"
        );
    }
    let mut results = Results {
        date: jiff::Timestamp::now()
            .strftime("%Y-%m-%dT%H:%M:%SZ")
            .to_string(),
        machine: machine::describe(),
        backing: backing.kind.clone(),
        load_before: load,
        load_after: load,
        rounds: rounds.into(),
        size_mebibytes: size,
        runtime_milliseconds: runtime,
        tree_files: files,
        contenders: contenders
            .iter()
            .map(|contender| column(contender))
            .collect(),
        workloads: workloads
            .iter()
            .map(|workload| row(workload, &contenders))
            .collect(),
    };
    let inputs = Inputs::make(inputs_folder.path(), files)?;
    let setting = rounds::Setting {
        root: folder.path(),
        inputs: &inputs,
        extent,
        backing: &backing,
    };
    rounds::run(
        &setting,
        &contenders,
        &workloads,
        rounds.into(),
        &mut results,
    )?;
    results.load_after = machine::load();
    results.conclude();
    publish(arguments, &results)
}

/// Writes and prints; whether nothing has failed.
fn publish(arguments: &Arguments, results: &Results) -> Outcome<bool> {
    let json = serde_json::to_string_pretty(results).map_err(|error| format!("JSON: {error}"))?;
    let files = [
        (&arguments.json, json.clone() + "\n"),
        (&arguments.markdown, report::markdown(results)),
        (&arguments.chart, chart::svg(results)),
    ];
    for (path, text) in files {
        let folder = path.parent().map_or(Ok(()), fs::create_dir_all);
        let written = folder.and_then(|()| fs::write(path, text));
        written.map_err(|error| format!("{}: {error}", path.display()))?;
    }
    match arguments.output {
        Form::Table => print!("{}", report::table(results)),
        Form::Json => println!("{json}"),
    }
    let mut cells = results.workloads.iter().flat_map(|row| &row.results);
    Ok(cells.all(|cell| cell.failure.is_none()))
}

/// Those that were named, and cmkfs; where none was, all but cmkfs in other ways than by itself.
fn contenders_of(arguments: &Arguments) -> Vec<&'static Contender> {
    let named = |contender: &&Contender| {
        let mut names = arguments.against.iter().map(|named| named.name);
        arguments.against.is_empty() && contender.role != Role::Variant
            || contender.name == "cmkfs"
            || names.any(|name| name == contender.name)
    };
    contenders::ALL.iter().filter(named).collect()
}

/// Those that were named, in the order in which they run; all of them where none was.
fn workloads_of(arguments: &Arguments) -> Vec<&'static Workload> {
    let named = |workload: &&Workload| {
        let mut names = arguments.only.iter().map(|named| named.name);
        arguments.only.is_empty() || names.any(|name| name == workload.name)
    };
    workloads::ALL.iter().filter(named).collect()
}

fn column(contender: &Contender) -> Column {
    Column {
        name: contender.name.to_owned(),
        version: contender.version(),
        is_ceiling: contender.role == Role::Ceiling,
        encrypts: matches!(contender.role, Role::Encrypting | Role::Variant),
    }
}

fn row(workload: &Workload, contenders: &[&Contender]) -> Row {
    Row {
        name: workload.name.to_owned(),
        unit: workload.unit.to_owned(),
        results: contenders
            .iter()
            .map(|contender| Cell::of(contender.name))
            .collect(),
    }
}

/// A directory that goes with the run, after all mounts in it.
fn temporary(parent: &Path) -> Outcome<tempfile::TempDir> {
    let folder = tempfile::Builder::new()
        .prefix("cmkfs-bench-")
        .tempdir_in(parent);
    folder.map_err(|error| format!("{}: {error}", parent.display()))
}

/// Each contender keeps a file, writes another, and has two trees.
fn check_room(backing: &Backing, contenders: usize, mebibytes: u64) -> Outcome<()> {
    let place = backing.path.display();
    let free = backing
        .free()
        .map_err(|error| format!("{place}: {error}"))?;
    let needed = contenders as u64 * (2 * mebibytes + 150);
    if free >> 20 < needed {
        let free = free >> 20;
        return Err(format!(
            "{place}: {free} MiB are free, and {needed} are needed: use a smaller --size, another directory (--on) or fewer contenders (--against)"
        ));
    }
    Ok(())
}
