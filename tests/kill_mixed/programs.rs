//! Programs: transactions of SQLite, commits of git, and commands that change what wraps the data keys.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::common::{Volume, succeed};
use crate::random::Random;
use crate::{Load, Round};

/// Transactions that each insert a row.
#[derive(Default)]
pub struct Database {
    committed: u64,
    with_log: bool,
}

fn sqlite(folder: &Path) -> Command {
    let mut command = Command::new("sqlite3");
    command.arg("-bail").arg(folder.join("base"));
    command
}

impl Load for Database {
    fn begin(&mut self, folder: &Path) {
        let mode = if self.with_log { "wal" } else { "delete" };
        self.with_log = !self.with_log;
        let script =
            format!("pragma journal_mode={mode}; create table t(n integer primary key, text);");
        succeed(sqlite(folder).arg(script));
        self.committed = 0;
    }

    fn work(&mut self, folder: &Path, _: &mut Random, round: &Round) {
        let mut command = sqlite(folder);
        let command = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
        let _ = writeln!(input, ".timeout 10000\npragma synchronous=full;");
        loop {
            let row = self.committed + 1;
            let insert =
                format!("insert into t values({row}, hex(randomblob(700))); select {row};");
            if writeln!(input, "{insert}").is_err() {
                break;
            }
            match output.next() {
                Some(Ok(line)) if line == row.to_string() => self.committed = row,
                Some(Ok(line)) => panic!("sqlite3 says {line}"),
                _ => break,
            }
            round.count();
        }
        drop(input);
        child.wait().unwrap();
    }

    fn check(&mut self, folder: &Path) {
        let ask = "pragma integrity_check; select count(*) = max(n) or max(n) is null, ifnull(max(n), 0) from t;";
        let said = succeed(sqlite(folder).arg(ask));
        let (sound, rows) = said.trim().split_once('\n').unwrap_or((&said, ""));
        assert_eq!(sound, "ok");
        let rows: u64 = rows
            .strip_prefix("1|")
            .expect("no row is missing")
            .parse()
            .unwrap();
        assert!(rows >= self.committed, "{rows} rows of {}", self.committed);
        self.committed = rows;
    }
}

/// Commits, each synced.
#[derive(Default)]
pub struct Git {
    committed: Option<String>,
    counter: u64,
}

fn git(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new("git");
    command
        .arg("-C")
        .arg(folder)
        .args(["-c", "user.name=n", "-c", "user.email=e"]);
    command.args([
        "-c",
        "core.fsync=all",
        "-c",
        "gc.auto=0",
        "-c",
        "commit.gpgsign=false",
    ]);
    command
        .args(arguments)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("HOME", folder);
    command
}

impl Load for Git {
    fn begin(&mut self, folder: &Path) {
        succeed(&mut git(folder, &["init", "-q", "."]));
        // `git reset` in a repository without a commit makes an index of a tree that is not there: `git fsck` minds.
        std::fs::write(folder.join("first"), "first").unwrap();
        succeed(&mut git(folder, &["add", "-A"]));
        succeed(&mut git(folder, &["commit", "-q", "-m", "m"]));
        self.committed = None;
    }

    fn work(&mut self, folder: &Path, _: &mut Random, round: &Round) {
        let run = |arguments: &[&str]| {
            let output = git(folder, arguments).output().unwrap();
            output
                .status
                .success()
                .then(|| String::from_utf8(output.stdout).unwrap())
        };
        while !round.is_over() {
            self.counter += 1;
            let text = format!("{} ", self.counter).repeat(2000);
            let file = format!("f{}", self.counter % 5);
            if std::fs::write(folder.join(&file), text).is_err()
                || run(&["add", "-A"]).is_none()
                || run(&["commit", "-q", "-m", "m"]).is_none()
            {
                return;
            }
            match run(&["rev-parse", "HEAD"]) {
                Some(commit) => self.committed = Some(commit),
                None => return,
            }
            round.count();
        }
    }

    fn check(&mut self, folder: &Path) {
        // As a user clears away after a crash.
        for lock in [
            "index.lock",
            "HEAD.lock",
            "refs/heads/master.lock",
            "refs/heads/main.lock",
        ] {
            let _ = std::fs::remove_file(folder.join(".git").join(lock));
        }
        let output = git(folder, &["fsck", "--full", "--strict"])
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "git fsck: {}\n{}{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
            described(&folder.join(".git"))
        );
        if let Some(commit) = &self.committed {
            succeed(&mut git(
                folder,
                &["merge-base", "--is-ancestor", commit.trim(), "HEAD"],
            ));
        }
        // What is checked out need not have been synced; what is committed was.
        succeed(&mut git(folder, &["reset", "-q", "--hard"]));
    }
}

/// What lies in a repository, to find out what is wrong with it.
fn described(directory: &Path) -> String {
    let mut text = String::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            text += &described(&path);
            continue;
        }
        let content = std::fs::read(&path);
        let length = content.as_ref().map(Vec::len);
        text += &format!("{}: {length:?} bytes\n", path.display());
        let path = path.to_string_lossy();
        let is_text = !path.contains("/objects/") && !path.contains("/hooks/");
        if let (Ok(content), true) = (content, is_text) {
            text += &format!("  {}\n", content.escape_ascii());
        }
    }
    text
}

/// Rotates the key and rewraps everything, or gives everything new data keys, every few rounds.
pub fn change_keys(volume: &Volume, count: u64, round: &Round) {
    let commands: &[&[&str]] = match count % 3 {
        0 => &[
            &["key", "rotate", "alias/cmkfs/default"],
            &["rewrap", "MOUNTPOINT"],
        ],
        1 => &[&["rekey", "MOUNTPOINT"]],
        _ => &[],
    };
    for command in commands {
        if round.is_over() {
            return;
        }
        // The daemon may be killed meanwhile. The command comes to an end.
        let output = volume.run(command);
        assert!(
            output.status.code().is_some(),
            "{command:?}: {}",
            output.status
        );
        if output.status.success() {
            round.count();
        }
    }
}
