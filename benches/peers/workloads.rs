//! The workloads: what each needs to find in the mount, what it does there, and what its figure counts. All figures are
//! rates: more is better.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::fio;
use crate::inputs::{Inputs, ROWS, git};
use crate::programs::{Outcome, program, run};

/// What has to be in the mount beforehand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fixture {
    /// The file `data`.
    Data,
    /// The directory `tree`.
    Tree,
    /// A clone of the repository.
    Repository,
}

/// How large everything is.
#[derive(Debug, Clone, Copy)]
pub struct Extent {
    /// MiB in a file that is read or written.
    pub mebibytes: u64,
    /// How long fio may go on.
    pub runtime: Duration,
}

/// One workload.
#[derive(Debug)]
pub struct Workload {
    /// As `--only` takes it.
    pub name: &'static str,
    /// What its figure counts.
    pub unit: &'static str,
    /// Nothing may be in any cache.
    pub cold: bool,
    /// What it finds.
    pub needs: Option<Fixture>,
    measure: fn(&Bed) -> Outcome<f64>,
}

/// What a measurement works with.
pub struct Bed<'a> {
    /// The mount.
    pub directory: &'a Path,
    /// What is put into it.
    pub inputs: &'a Inputs,
    /// How large everything is.
    pub extent: Extent,
    /// The workload's name.
    pub name: &'static str,
}

const MB: &str = "MB/s";
const IOPS: &str = "IOPS";
const FILES: &str = "files/s";
const ENTRIES: &str = "entries/s";
const RUNS: &str = "runs/s";
const COMMITS: &str = "commits/s";
/// How often git looks for changes in one measurement.
const STATUSES: u32 = 5;

const fn workload(
    name: &'static str,
    unit: &'static str,
    needs: Option<Fixture>,
    measure: fn(&Bed) -> Outcome<f64>,
) -> Workload {
    Workload {
        name,
        unit,
        cold: false,
        needs,
        measure,
    }
}

const fn cold(workload: Workload) -> Workload {
    Workload {
        cold: true,
        ..workload
    }
}

use Fixture::{Data, Repository, Tree};

/// All of them, in the order in which they run. Those named after a file of benches/fio run it.
pub static ALL: [Workload; 19] = [
    workload("seqwrite-1m", MB, None, megabytes),
    cold(workload("seqread-1m", MB, Some(Data), megabytes)),
    cold(workload("randread-4k", IOPS, Some(Data), operations)),
    cold(workload("randread-4k-x4", IOPS, Some(Data), operations)),
    workload("randwrite-4k", IOPS, Some(Data), operations),
    workload("seqwrite-4k", MB, None, megabytes),
    workload("fsync-4k", IOPS, None, operations),
    workload("direct-randread-4k", IOPS, Some(Data), operations),
    workload("direct-randwrite-4k", IOPS, Some(Data), operations),
    workload("direct-mixed-4k", IOPS, Some(Data), operations),
    workload("untar", FILES, None, untar),
    cold(workload("readtree", FILES, Some(Tree), read_tree)),
    cold(workload("ls-lr-cold", ENTRIES, Some(Tree), list)),
    workload("ls-lr-warm", ENTRIES, Some(Tree), list_again),
    workload("rm-rf", ENTRIES, Some(Tree), remove),
    workload("git-checkout", FILES, Some(Repository), checkout),
    workload("git-status", RUNS, Some(Repository), status),
    workload("sqlite-wal", COMMITS, None, |bed| insert(bed, "wal")),
    workload("sqlite-rollback", COMMITS, None, |bed| {
        insert(bed, "delete")
    }),
];

impl Workload {
    /// Runs it once. Its figure, in its unit.
    pub fn measure(&self, bed: &Bed) -> Outcome<f64> {
        let figure = (self.measure)(bed)?;
        if figure.is_finite() && figure > 0.0 {
            Ok(figure)
        } else {
            Err(format!("no figure came of it ({figure})"))
        }
    }
}

impl Fixture {
    /// Puts it into the mount.
    pub fn make(self, directory: &Path, inputs: &Inputs, extent: Extent) -> Outcome<()> {
        match self {
            Self::Data => {
                let mut dd = program("dd");
                dd.args(["if=/dev/urandom", "bs=1M", "conv=fsync"]);
                dd.arg(format!("count={}", extent.mebibytes));
                run(dd.arg(format!("of={}", directory.join("data").display())))?;
            }
            Self::Tree => {
                unpack(directory, inputs)?;
            }
            Self::Repository => {
                let mut clone = git(directory);
                clone.args(["clone", "-q", "--no-local"]);
                run(clone.arg(inputs.repository()).arg("repository"))?;
                let mut branch = git(&directory.join("repository"));
                run(branch.args(["branch", "-q", "other", "origin/other"]))?;
            }
        }
        Ok(())
    }

    /// Whether it is there.
    pub fn is_in(self, directory: &Path) -> bool {
        let name = match self {
            Self::Data => "data",
            Self::Tree => "tree",
            Self::Repository => "repository",
        };
        directory.join(name).exists()
    }
}

fn per_second(count: u32, took: Duration) -> f64 {
    f64::from(count) / took.as_secs_f64()
}

fn megabytes(bed: &Bed) -> Outcome<f64> {
    let done = fio::run_job(bed.name, bed.directory, bed.extent)?;
    Ok(done.bytes_a_second / 1e6)
}

fn operations(bed: &Bed) -> Outcome<f64> {
    let done = fio::run_job(bed.name, bed.directory, bed.extent)?;
    Ok(done.operations_a_second)
}

fn unpack(directory: &Path, inputs: &Inputs) -> Outcome<Duration> {
    let mut tar = program("tar");
    tar.arg("-xf").arg(inputs.archive());
    Ok(run(tar.arg("-C").arg(directory))?.0)
}

fn untar(bed: &Bed) -> Outcome<f64> {
    if Fixture::Tree.is_in(bed.directory) {
        remove(bed)?;
    }
    let took = unpack(bed.directory, bed.inputs)?;
    Ok(per_second(bed.inputs.files, took))
}

fn read_tree(bed: &Bed) -> Outcome<f64> {
    let mut find = program("find");
    find.arg(bed.directory.join("tree")).args(["-type", "f"]);
    let (took, _) = run(find.args(["-exec", "cat", "{}", "+"]))?;
    Ok(per_second(bed.inputs.files, took))
}

fn list(bed: &Bed) -> Outcome<f64> {
    let (took, _) = run(program("ls").arg("-lR").arg(bed.directory.join("tree")))?;
    Ok(per_second(bed.inputs.entries, took))
}

fn list_again(bed: &Bed) -> Outcome<f64> {
    list(bed)?;
    list(bed)
}

fn remove(bed: &Bed) -> Outcome<f64> {
    let (took, _) = run(program("rm").arg("-rf").arg(bed.directory.join("tree")))?;
    Ok(per_second(bed.inputs.entries, took))
}

fn checkout(bed: &Bed) -> Outcome<f64> {
    let directory = bed.directory.join("repository");
    let mut took = Duration::ZERO;
    for branch in ["other", "main"] {
        took += run(git(&directory).args(["checkout", "-q", branch]))?.0;
    }
    Ok(per_second(2 * bed.inputs.differing, took))
}

fn status(bed: &Bed) -> Outcome<f64> {
    let directory = bed.directory.join("repository");
    let status = || run(git(&directory).args(["status", "--porcelain"]));
    // The first one writes down what it has seen of each file.
    status()?;
    let mut took = Duration::ZERO;
    for _ in 0..STATUSES {
        took += status()?.0;
    }
    Ok(per_second(STATUSES, took))
}

fn insert(bed: &Bed, journal: &str) -> Outcome<f64> {
    let database = bed.directory.join(format!("{journal}.db"));
    let sql = fs::File::open(bed.inputs.sql(journal)).map_err(|error| format!("sql: {error}"))?;
    let mut sqlite = program("sqlite3");
    let (took, _) = run(sqlite.arg("-bail").arg(&database).stdin(sql))?;
    fs::remove_file(&database).map_err(|error| format!("{}: {error}", database.display()))?;
    Ok(per_second(ROWS, took))
}
