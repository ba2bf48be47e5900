//! What a run has found: figures of every workload and contender, or why there is none; medians and ratios. Must not know
//! how they are measured or shown.

use serde::Serialize;

/// A whole run. Its JSON is what `--json` writes.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Results {
    /// When it began, RFC 3339.
    pub date: String,
    /// Processor and kernel.
    pub machine: String,
    /// Type of the filesystem that stores everything.
    pub backing: String,
    /// Processors that were at work for others before the first round, and after the last.
    pub load_before: f64,
    pub load_after: f64,
    /// Rounds that were asked for.
    pub rounds: usize,
    /// MiB of the files that are read and written.
    pub size_mebibytes: u64,
    /// Milliseconds after which fio stops.
    pub runtime_milliseconds: u64,
    /// Files of the source tree.
    pub tree_files: u32,
    pub contenders: Vec<Column>,
    pub workloads: Vec<Row>,
}

/// A contender.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Column {
    pub name: String,
    pub version: String,
    /// FUSE that does nothing else.
    pub is_ceiling: bool,
    pub encrypts: bool,
}

/// A workload; `results` in the order of the contenders.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Row {
    pub name: String,
    pub unit: String,
    pub results: Vec<Cell>,
}

/// What a contender did in a workload.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Cell {
    pub contender: String,
    /// One figure a round.
    pub samples: Vec<f64>,
    /// Why there are no more of them.
    pub failure: Option<String>,
    /// The middle sample, once all is done; `None` after a failure.
    pub median: Option<f64>,
}

impl Cell {
    /// Of this contender, before the first round.
    pub fn of(contender: &str) -> Self {
        Self {
            contender: contender.to_owned(),
            samples: Vec::new(),
            failure: None,
            median: None,
        }
    }
}

impl Results {
    /// Computes all medians: once, after the last round.
    pub fn conclude(&mut self) {
        for cell in self.workloads.iter_mut().flat_map(|row| &mut row.results) {
            cell.median = match cell.failure {
                Some(_) => None,
                None => median(&cell.samples),
            };
        }
    }

    /// The figure of this contender.
    pub fn median_of(&self, row: &Row, name: &str) -> Option<f64> {
        let column = self
            .contenders
            .iter()
            .position(|column| column.name == name)?;
        row.results[column].median
    }

    /// The better figure of those that do nothing but FUSE.
    pub fn ceiling(&self, row: &Row) -> Option<f64> {
        let both = self.contenders.iter().zip(&row.results);
        let ceilings = both.filter(|(column, _)| column.is_ceiling);
        ceilings
            .filter_map(|(_, cell)| cell.median)
            .reduce(f64::max)
    }
}

/// The middle one, or the mean of the two in the middle.
pub fn median(samples: &[f64]) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    Some(f64::midpoint(sorted[sorted.len() / 2 - 1], upper))
}
