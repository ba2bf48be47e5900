//! What becomes of cmkfs as a volume grows: the cost of each operation, memory, and the time of mounting and of withdrawing a
//! key, from 1,000 files to as many as wanted, spread over directories and in one; and the cost of operations on one file from
//! 1 MB to 100 GB, sparse. On a real mount of the release build:
//!
//!     cargo bench --bench growth -- [--on DIR] [--files N] [--only PART,…] [--output json]
//!
//! `--files 1000000` takes about 20 GB of memory where the volume lies in memory, and some ten minutes.
//!
//! This file reads the arguments and prints; `files` measures many files, `sparse` large ones, on a `volume`.

mod figures;
mod files;
#[path = "../shared/machine.rs"]
#[allow(dead_code, reason = "each benchmark uses its own part")]
mod machine;
#[path = "../shared/mounted.rs"]
mod mounted;
#[path = "../shared/programs.rs"]
mod programs;
mod sparse;
mod volume;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};

use figures::Figures;
use files::Layout;
use programs::Outcome;

/// How cost, memory and mount time grow with a volume
#[derive(Debug, Parser)]
#[command(name = "growth")]
struct Arguments {
    /// Store the volume below this directory
    #[arg(long, value_name = "DIR", default_value = "/dev/shm")]
    on: PathBuf,
    /// The largest number of files; from 1,000 on every tenfold is measured
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1000..=10_000_000))]
    files: u32,
    /// Measure these parts only
    #[arg(long, value_name = "PART,…", value_delimiter = ',', default_values_t = Part::ALL)]
    only: Vec<Part>,
    /// What is printed
    #[arg(long, value_name = "FORM", default_value = "table")]
    output: Form,
    /// cargo says so when it runs benchmarks
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Many files in many directories
    Spread,
    /// Many files in one directory
    Flat,
    /// One large file
    Sparse,
}

impl Part {
    const ALL: [Self; 3] = [Self::Spread, Self::Flat, Self::Sparse];
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Spread => "spread",
            Self::Flat => "flat",
            Self::Sparse => "sparse",
        })
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Form {
    Table,
    Json,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match measure(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("growth: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &Arguments) -> Outcome<()> {
    programs::catch_signals().map_err(|error| format!("signals: {error}"))?;
    let backing = machine::Backing::at(&arguments.on)
        .map_err(|error| format!("{}: {error}", arguments.on.display()))?;
    files::check_room(&backing, arguments.files)?;
    let load = machine::load();
    let mut figures = Figures::new(machine::describe(), backing.kind.clone(), load);
    for part in Part::ALL {
        if !arguments.only.contains(&part) {
            continue;
        }
        match part {
            Part::Spread | Part::Flat => {
                let layout = if part == Part::Flat {
                    Layout::Flat
                } else {
                    Layout::Spread
                };
                let mut count = 1000;
                while count <= arguments.files {
                    eprintln!("growth: {count} files, {part}");
                    files::measure(&arguments.on, layout, count, &mut figures)?;
                    count *= 10;
                }
            }
            Part::Sparse => {
                for bytes in sparse::SIZES {
                    eprintln!("growth: a file of {bytes} bytes");
                    sparse::measure(&arguments.on, bytes, &mut figures)?;
                }
            }
        }
    }
    match arguments.output {
        Form::Table => print!("{}", figures.table()),
        Form::Json => println!("{}", figures.json()?),
    }
    Ok(())
}
