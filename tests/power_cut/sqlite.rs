//! A worker that commits rows to a SQLite database, by the real program, one after the other.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::ledger::{Event, Ledger};

/// Rows that stay; older ones are deleted, so that pages are used again.
const ROWS: u64 = 300;
const BASE: &str = "base";

/// How SQLite keeps its promises. Where a commit is the removal of a file it syncs the directory in the mode "extra" only.
#[derive(Debug, Clone, Copy)]
pub struct Mode(&'static str, &'static str);

pub const WAL: Mode = Mode("wal", "full");
pub const ROLLBACK: [Mode; 3] = [
    Mode("delete", "extra"),
    Mode("truncate", "full"),
    Mode("persist", "full"),
];

/// The worker.
pub struct Sqlite<'a> {
    ledger: &'a Ledger,
    program: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    row: u64,
}

impl<'a> Sqlite<'a> {
    pub fn new(mode: Mode, folder: &Path, ledger: &'a Ledger) -> Self {
        let mut command = Command::new("sqlite3");
        command.args(["-bail", BASE]).current_dir(folder);
        let mut program = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = program.stdin.take().unwrap();
        let output = BufReader::new(program.stdout.take().unwrap());
        let mut sqlite = Self {
            ledger,
            program,
            input,
            output,
            row: 0,
        };
        let Mode(journal, synchronous) = mode;
        assert_eq!(
            sqlite.ask(&format!("pragma journal_mode={journal};")),
            journal
        );
        assert_eq!(sqlite.ask("pragma wal_autocheckpoint=40;"), "40");
        sqlite.tell(&format!(
            "pragma synchronous={synchronous};
             create table t(n integer primary key, text); create table last(id integer primary key, n);"
        ));
        sqlite
    }

    fn tell(&mut self, text: &str) {
        writeln!(self.input, "{text}").unwrap();
    }

    fn ask(&mut self, text: &str) -> String {
        self.tell(text);
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }

    /// Commits a row.
    pub fn step(&mut self) {
        self.row += 1;
        let row = self.row;
        self.ledger.push(Event::Commit(row));
        let said = self.ask(&format!(
            "begin; insert into t values({row}, printf('%0900d', {row})); delete from t where n <= {row} - {ROWS};
             insert or replace into last values(1, {row}); commit; select 'committed {row}';"
        ));
        assert_eq!(said, format!("committed {row}"));
        self.ledger.push(Event::Committed(row));
    }
}

impl Drop for Sqlite<'_> {
    fn drop(&mut self) {
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}

/// What is wrong with a database that had committed and begun these rows.
pub fn wrong(folder: &Path, rows: (u64, u64)) -> Option<String> {
    if rows.0 == 0 && !folder.join(BASE).exists() {
        return None;
    }
    let run = |sql: &str| {
        let output = Command::new("sqlite3")
            .args(["-bail", BASE, sql])
            .current_dir(folder)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if output.status.success() {
            Ok(said)
        } else {
            Err(format!(
                "{said} {}",
                String::from_utf8_lossy(&output.stderr).trim()
            ))
        }
    };
    let look = || {
        let sound = run("pragma integrity_check;")?;
        if sound != "ok" {
            return Err(format!("integrity check: {sound}"));
        }
        if rows.0 == 0 {
            return Ok(());
        }
        let last: u64 = run("select n from last;")?
            .parse()
            .map_err(|_| "no last row")?;
        if !(rows.0..=rows.1).contains(&last) {
            return Err(format!(
                "the last row is {last}, not {} to {}",
                rows.0, rows.1
            ));
        }
        let kept = run("select count(*), min(n), max(n) from t where text = printf('%0900d', n);")?;
        let expected = last.min(ROWS);
        if kept != format!("{expected}|{}|{last}", last + 1 - expected) {
            return Err(format!("rows {kept} of {last}"));
        }
        Ok(())
    };
    let readable = |name: &str| std::fs::read(folder.join(name)).map(|bytes| bytes.len());
    look().err().map(|error: String| {
        let files =
            ["base", "base-wal", "base-shm", "base-journal"].map(|name| (name, readable(name)));
        format!("the database, rows {rows:?}: {error}; its files: {files:?}")
    })
}
