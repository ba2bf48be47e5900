//! What the workloads work on, the same in every run: a source tree as an archive, a git repository with two branches, and
//! SQL. Made once, without network, in memory where there is /dev/shm.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::programs::{self, Outcome, program};

/// Rows that the SQLite workloads insert, each in a transaction of its own.
pub const ROWS: u32 = 300;
/// Every how many-th file differs between the two branches.
const DIFFERS: u32 = 4;
/// No file is larger.
const LARGEST: f64 = 512.0 * 1024.0;
/// The middle file has this many bytes; by far most source files of known projects have between 1 and 20 KiB.
const MIDDLE: f64 = 3.5 * 1024.0;
/// Standard deviation of the logarithm of a file's size.
const SPREAD: f64 = 1.4;

/// Where they lie, and what they hold.
#[derive(Debug)]
pub struct Inputs {
    folder: PathBuf,
    /// Files in the tree.
    pub files: u32,
    /// Files and directories in the tree.
    pub entries: u32,
    /// Files that differ between the two branches.
    pub differing: u32,
}

impl Inputs {
    /// Makes them in this folder.
    pub fn make(folder: &Path, files: u32) -> Outcome<Self> {
        let tree = folder.join("tree");
        let mut inputs = Self {
            folder: folder.to_owned(),
            files,
            entries: 0,
            differing: 0,
        };
        let made = inputs.write_tree(&tree).and_then(|()| inputs.write_sql());
        made.map_err(|error| format!("{}: {error}", folder.display()))?;
        let mut tar = program("tar");
        tar.arg("-cf").arg(inputs.archive()).arg("-C").arg(folder);
        programs::run(tar.arg("tree"))?;
        inputs.write_repository(&tree)?;
        fs::remove_dir_all(&tree).map_err(|error| format!("{}: {error}", tree.display()))?;
        Ok(inputs)
    }

    /// An archive that holds the directory `tree`.
    pub fn archive(&self) -> PathBuf {
        self.folder.join("tree.tar")
    }

    /// A bare repository of the tree, with the branches `main` and `other`.
    pub fn repository(&self) -> PathBuf {
        self.folder.join("repository.git")
    }

    /// Statements that make a table and fill it, in this journal mode.
    pub fn sql(&self, journal: &str) -> PathBuf {
        self.folder.join(format!("{journal}.sql"))
    }

    fn write_tree(&mut self, tree: &Path) -> io::Result<()> {
        let mut chance = Chance(1);
        let mut directories = vec![tree.to_owned()];
        fs::create_dir(tree)?;
        for number in 0..self.files {
            // One directory for fifteen files, below any that is there: broad, with a few deep branches.
            if number % 15 == 0 {
                let parent = &directories[chance.below(directories.len())];
                let directory = parent.join(format!("module_{number}"));
                fs::create_dir(&directory)?;
                directories.push(directory);
            }
            let directory = &directories[chance.below(directories.len())];
            let name = format!("source_{number}.rs");
            fs::write(directory.join(name), text(&mut chance))?;
        }
        self.entries = self.files + u32::try_from(directories.len()).unwrap_or(u32::MAX);
        Ok(())
    }

    fn write_sql(&self) -> io::Result<()> {
        for journal in ["wal", "delete"] {
            let mut sql = format!("PRAGMA journal_mode={journal};\nPRAGMA synchronous=FULL;\n");
            sql += "CREATE TABLE entry (id INTEGER PRIMARY KEY, name TEXT, body TEXT);\n";
            for row in 0..ROWS {
                let body = "0123456789abcdef".repeat(8);
                // Writing to a string cannot fail.
                let _ = writeln!(
                    sql,
                    "INSERT INTO entry VALUES ({row}, 'name {row}', '{body}');"
                );
            }
            fs::write(self.sql(journal), sql)?;
        }
        Ok(())
    }

    fn write_repository(&mut self, tree: &Path) -> Outcome<()> {
        let git = |arguments: &[&str]| {
            let mut command = git(tree);
            programs::run(command.args(arguments)).map(drop)
        };
        git(&["init", "-q", "-b", "main"])?;
        git(&["add", "-A"])?;
        git(&["commit", "-q", "-m", "main"])?;
        git(&["checkout", "-q", "-b", "other"])?;
        for path in files_below(tree).map_err(|error| format!("{}: {error}", tree.display()))? {
            let number = path.file_stem().and_then(|stem| stem.to_str());
            let number = number.and_then(|stem| stem.strip_prefix("source_")?.parse::<u32>().ok());
            if number.is_some_and(|number| number.is_multiple_of(DIFFERS)) {
                let changed = fs::read(&path)
                    .and_then(|text| fs::write(&path, [&text[..], b"fn more() {}\n"].concat()));
                changed.map_err(|error| format!("{}: {error}", path.display()))?;
                self.differing += 1;
            }
        }
        git(&["commit", "-q", "-a", "-m", "other"])?;
        git(&["checkout", "-q", "main"])?;
        let mut clone = program("git");
        clone
            .args(["clone", "-q", "--bare", "--no-local"])
            .arg(tree);
        programs::run(clone.arg(self.repository())).map(drop)
    }
}

/// git in this directory, independent of who runs it.
pub fn git(directory: &Path) -> Command {
    let mut command = program("git");
    command.arg("-C").arg(directory);
    for setting in [
        "user.name=bench",
        "user.email=bench@localhost",
        "gc.auto=0",
        "safe.directory=*",
        "advice.detachedHead=false",
    ] {
        command.args(["-c", setting]);
    }
    command
}

fn files_below(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name() == ".git" {
            continue;
        }
        if entry.file_type()?.is_dir() {
            files.extend(files_below(&entry.path())?);
        } else {
            files.push(entry.path());
        }
    }
    Ok(files)
}

/// A file's text; sizes are log-normal.
fn text(chance: &mut Chance) -> String {
    const WORDS: [&str; 16] = [
        "let ", "value", " = ", "self.", "block", "(&mut ", "buffer", ");\n", "    ", "match ",
        "offset", " => ", "return ", "Ok", "(())", "\n",
    ];
    let size = (MIDDLE * (SPREAD * chance.normal()).exp()).min(LARGEST);
    let mut text = String::new();
    while (text.len() as f64) < size {
        text += WORDS[chance.below(WORDS.len())];
    }
    text
}

/// Pseudo-random numbers, the same ones in every run: xorshift64*.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// Between 0 and 1.
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Standard normal: the sum of twelve uniform ones.
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }
}
