//! Results as a table for people: on a terminal, and as Markdown for a document. A failure stands in its cell as a number,
//! and below the table in full.

use comfy_table::{CellAlignment, Table, presets};

use crate::results::{Results, Row};

/// Whose ratios are shown.
const OURS: &str = "cmkfs";
/// The encrypting filesystem that it is held against.
const RIVAL: &str = "gocryptfs";
/// FUSE that is asked as much.
const ALIKE: &str = "passthrough-alike";
/// Shown where there is nothing to show.
const NOTHING: &str = "–";

/// The rows of the table, the heading first, and the failures below it.
struct Report {
    rows: Vec<Vec<String>>,
    failures: Vec<String>,
}

impl Report {
    fn of(results: &Results) -> Self {
        let mut heading = vec!["workload".to_owned(), "unit".to_owned()];
        heading.extend(results.contenders.iter().map(|column| column.name.clone()));
        heading.push(format!("{OURS} ÷ passthrough"));
        heading.push(format!("{OURS} ÷ {ALIKE}"));
        heading.push(format!("{OURS} ÷ {RIVAL}"));
        let mut report = Self {
            rows: vec![heading],
            failures: Vec::new(),
        };
        for row in &results.workloads {
            let mut line = vec![row.name.clone(), row.unit.clone()];
            for (column, cell) in results.contenders.iter().zip(&row.results) {
                line.push(match (&cell.failure, cell.median) {
                    (Some(reason), _) => report.fail(&column.name, &row.name, reason),
                    (None, Some(median)) => figure(median),
                    (None, None) => NOTHING.to_owned(),
                });
            }
            let ours = results.median_of(row, OURS);
            line.push(ratio(ours, results.ceiling(row)));
            line.push(ratio(ours, results.median_of(row, ALIKE)));
            line.push(ratio(ours, results.median_of(row, RIVAL)));
            report.rows.push(line);
        }
        report
    }

    /// What its cell says. One contender's same reason is told once.
    fn fail(&mut self, contender: &str, workload: &str, reason: &str) -> String {
        let end = format!(": {reason}");
        let beginning = format!("{contender}, ");
        let known = self
            .failures
            .iter()
            .position(|line| line.starts_with(&beginning) && line.ends_with(&end));
        let number = known.unwrap_or_else(|| {
            self.failures.push(format!("{beginning}{workload}{end}"));
            self.failures.len() - 1
        });
        format!("failed [{}]", number + 1)
    }

    fn notes(&self) -> impl Iterator<Item = String> + '_ {
        let numbered = self.failures.iter().enumerate();
        numbered.map(|(number, line)| format!("failed [{}]: {line}", number + 1))
    }
}

/// The circumstances, in one sentence or two.
fn circumstances(results: &Results) -> String {
    let Results {
        date,
        machine,
        backing,
        rounds,
        size_mebibytes,
        load_before,
        load_after,
        tree_files,
        ..
    } = results;
    format!(
        "{machine}; on {backing}; medians of {rounds}; files of {size_mebibytes} MiB, a tree of {tree_files} files; {date}; \
         load {load_before:.1} before and {load_after:.1} after. More is better; ratios are to the better of passthrough and passthrough-writeback, to the one that is asked as much, and to {RIVAL}."
    )
}

/// For a terminal.
pub fn table(results: &Results) -> String {
    let report = Report::of(results);
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(&report.rows[0]);
    table.add_rows(&report.rows[1..]);
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut text = format!("{}\n\n{table}\n", circumstances(results));
    for note in report.notes() {
        text += &note;
        text.push('\n');
    }
    text
}

/// For a document.
pub fn markdown(results: &Results) -> String {
    let report = Report::of(results);
    let line = |cells: &[String]| {
        let cells: Vec<_> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
        format!("| {} |\n", cells.join(" | "))
    };
    let mut text = line(&report.rows[0]);
    text += "|---|---|";
    text += &"---:|".repeat(report.rows[0].len() - 2);
    text.push('\n');
    report.rows[1..].iter().for_each(|row| text += &line(row));
    text += &format!("\n{}\n", circumstances(results));
    for note in report.notes() {
        text += &format!("\n{note}\n");
    }
    let versions = results.contenders.iter();
    let versions: Vec<_> = versions
        .filter(|column| !column.version.is_empty())
        .map(|column| format!("{}: {}", column.name, column.version))
        .collect();
    text += &format!("\nVersions: {}.\n", versions.join("; "));
    text
}

/// Three digits, and commas between thousands.
fn figure(value: f64) -> String {
    if value < 10.0 {
        return format!("{value:.2}");
    }
    if value < 100.0 {
        return format!("{value:.1}");
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn ratio(ours: Option<f64>, theirs: Option<f64>) -> String {
    match (ours, theirs) {
        (Some(ours), Some(theirs)) => format!("{:.2}", ours / theirs),
        _ => NOTHING.to_owned(),
    }
}

/// Ratios of every contender that encrypts to the passthrough, for the chart: name and ratio.
pub fn ratios<'a>(results: &'a Results, row: &'a Row) -> Vec<(&'a str, Option<f64>)> {
    let ceiling = results.ceiling(row);
    let both = results.contenders.iter().zip(&row.results);
    both.filter(|(column, _)| column.encrypts)
        .map(|(column, cell)| {
            let ratio = cell.median.zip(ceiling).map(|(own, other)| own / other);
            (column.name.as_str(), ratio)
        })
        .collect()
}
