//! What the comparison with other filesystems makes of its figures, without running it: medians, ratios, failures, chart,
//! and that its fio jobs are all used.

#[path = "../benches/peers/chart.rs"]
mod chart;
#[path = "../benches/peers/report.rs"]
mod report;
#[path = "../benches/peers/results.rs"]
mod results;

use std::path::Path;

use results::{Cell, Column, Results, Row, median};

/// Name, whether it is a ceiling, whether it encrypts, samples, failure.
type Entry = (
    &'static str,
    bool,
    bool,
    &'static [f64],
    Option<&'static str>,
);

fn results(entries: &[Entry]) -> Results {
    let cell = |entry: &Entry| Cell {
        samples: entry.3.to_vec(),
        failure: entry.4.map(str::to_owned),
        ..Cell::of(entry.0)
    };
    let row = |name: &str| Row {
        name: name.to_owned(),
        unit: "IOPS".to_owned(),
        results: entries.iter().map(cell).collect(),
    };
    let column = |entry: &Entry| Column {
        name: entry.0.to_owned(),
        version: String::new(),
        is_ceiling: entry.1,
        encrypts: entry.2,
    };
    let mut results = Results {
        date: "2026-01-01T00:00:00Z".to_owned(),
        machine: "a <machine>".to_owned(),
        backing: "tmpfs".to_owned(),
        load_before: 0.0,
        load_after: 0.0,
        rounds: 3,
        size_mebibytes: 128,
        runtime_milliseconds: 700,
        tree_files: 3000,
        contenders: entries.iter().map(column).collect(),
        workloads: vec![row("randread-4k"), row("untar")],
    };
    results.conclude();
    results
}

const ENTRIES: [Entry; 7] = [
    ("plain", false, false, &[90_000.0; 3], None),
    ("passthrough", true, false, &[1000.0, 9000.0, 2000.0], None),
    ("passthrough-writeback", true, false, &[4000.0; 3], None),
    ("passthrough-alike", false, false, &[2500.0; 3], None),
    ("cmkfs", false, true, &[3000.0; 3], None),
    ("gocryptfs", false, true, &[1500.0; 3], None),
    ("encfs", false, true, &[7.0], Some("encfs: it broke")),
];

#[test]
fn the_median_is_the_middle_or_the_mean_of_the_two_in_the_middle() {
    assert_eq!(median(&[]), None);
    assert_eq!(median(&[5.0]), Some(5.0));
    assert_eq!(median(&[9.0, 1.0, 2.0]), Some(2.0));
    assert_eq!(median(&[9.0, 1.0, 2.0, 4.0]), Some(3.0));
}

#[test]
fn ratios_are_to_the_better_passthrough_and_to_gocryptfs() {
    let table = report::markdown(&results(&ENTRIES));
    let line = table.lines().find(|line| line.contains("randread-4k"));
    let cells: Vec<_> = line.unwrap().trim_matches('|').split(" | ").collect();
    let figures = ["90,000", "2,000", "4,000", "2,500", "3,000", "1,500"];
    assert_eq!(cells[2..8], figures);
    let ratios: Vec<_> = cells[9..].iter().map(|cell| cell.trim()).collect();
    assert_eq!(ratios, ["0.75", "1.20", "2.00"]);
}

#[test]
fn a_failure_stands_in_its_cell_and_is_told_below_the_table() {
    let results = results(&ENTRIES);
    for text in [report::table(&results), report::markdown(&results)] {
        assert_eq!(text.matches("failed [1]").count(), 3, "{text}");
        assert_eq!(text.matches("it broke").count(), 1, "{text}");
        assert!(
            !text.contains("7.00"),
            "a figure from before the failure: {text}"
        );
    }
}

#[test]
fn without_a_passthrough_there_is_no_ratio_to_it() {
    let table = report::markdown(&results(&ENTRIES[4..]));
    let line = table.lines().find(|line| line.contains("untar")).unwrap();
    assert!(line.ends_with("| – | 2.00 |"), "{line}");
}

#[test]
fn the_chart_has_a_figure_for_everyone_who_encrypts_and_keeps_within_its_frame() {
    let mut entries = ENTRIES;
    entries[4].3 = &[1e9; 3];
    entries[5].3 = &[1e-9; 3];
    let svg = chart::svg(&results(&entries));
    // Of two workloads.
    assert_eq!(svg.matches(">250000.00<").count(), 2);
    assert_eq!(svg.matches(">0.00<").count(), 2);
    assert_eq!(svg.matches(">none<").count(), 2);
    assert!(svg.contains("a &lt;machine>"), "{svg}");
    let width = svg.split("viewBox=\"0 0 ").nth(1).unwrap();
    let width: f64 = width.split(' ').next().unwrap().parse().unwrap();
    for rectangle in svg.split("<rect ").skip(2) {
        let number = |name: &str| -> f64 {
            let value = rectangle.split(&format!("{name}=\"")).nth(1).unwrap();
            value.split('"').next().unwrap().parse().unwrap()
        };
        assert!(number("x") >= 0.0, "{rectangle}");
        assert!(number("x") + number("width") <= width, "{rectangle}");
    }
}

#[test]
fn every_fio_job_is_a_workload() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches");
    let workloads = std::fs::read_to_string(root.join("peers/workloads.rs")).unwrap();
    let jobs: Vec<_> = std::fs::read_dir(root.join("fio")).unwrap().collect();
    assert!(!jobs.is_empty());
    for job in jobs {
        let name = job.unwrap().file_name().into_string().unwrap();
        let quoted = format!("\"{}\"", name.strip_suffix(".fio").unwrap());
        assert!(workloads.contains(&quoted), "{name}");
    }
}
