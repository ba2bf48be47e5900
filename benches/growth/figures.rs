//! What was measured: a table a part, a line a quantity, a column a size.

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::programs::Outcome;

/// All that was measured.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Figures {
    machine: String,
    /// Type of the filesystem below.
    backing: String,
    /// Processes that wanted to run before.
    load: f64,
    parts: Vec<Part>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Part {
    name: String,
    sizes: Vec<String>,
    rows: Vec<Row>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Row {
    name: String,
    unit: String,
    /// One a size.
    values: Vec<f64>,
}

impl Figures {
    /// Of this machine.
    pub const fn new(machine: String, backing: String, load: f64) -> Self {
        Self {
            machine,
            backing,
            load,
            parts: Vec::new(),
        }
    }

    /// A column more: what was measured at one size, in the order in which it is to be shown.
    pub fn add(&mut self, part: &str, size: String, column: Vec<(&str, &str, f64)>) {
        let index = self.parts.iter().position(|known| known.name == part);
        let index = index.unwrap_or_else(|| {
            let rows = column.iter().map(|(name, unit, _)| Row {
                name: (*name).to_owned(),
                unit: (*unit).to_owned(),
                values: Vec::new(),
            });
            self.parts.push(Part {
                name: part.to_owned(),
                sizes: Vec::new(),
                rows: rows.collect(),
            });
            self.parts.len() - 1
        });
        let part = &mut self.parts[index];
        part.sizes.push(size);
        for (row, (_, _, value)) in part.rows.iter_mut().zip(column) {
            row.values.push(value);
        }
    }

    /// For people.
    pub fn table(&self) -> String {
        let load = self.load;
        let mut text = format!("{}; on {}; load {load:.1}\n", self.machine, self.backing);
        for part in &self.parts {
            let mut table = Table::new();
            table.load_style(presets::ASCII_MARKDOWN);
            let heading = [part.name.clone(), "unit".to_owned()];
            table.set_header(heading.into_iter().chain(part.sizes.iter().cloned()));
            for row in &part.rows {
                let values = row.values.iter().map(|value| figure(*value));
                let heading = [row.name.clone(), row.unit.clone()];
                table.add_row(heading.into_iter().chain(values));
            }
            for column in table.column_iter_mut().skip(2) {
                column.set_cell_alignment(CellAlignment::Right);
            }
            text += &format!("\n{table}\n");
        }
        text
    }

    /// For programs.
    pub fn json(&self) -> Outcome<String> {
        serde_json::to_string_pretty(self).map_err(|error| format!("JSON: {error}"))
    }
}

fn figure(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
