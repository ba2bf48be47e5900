//! File operations of all threads at once on the same few names. Nobody knows what is there; but what is found is whole, and
//! what is refused is refused as it is documented.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::random::Random;
use crate::watch::Watched;

const NAMES: usize = 8;
/// What a file holds, if it holds anything.
const TEXT: &[u8] = b"a line of somebody's\n";

/// What there is to say about names that others change meanwhile, and about keys.
const DOCUMENTED: [i32; 11] = [
    libc::EKEYREVOKED,
    libc::ENOKEY,
    libc::EXDEV,
    libc::ENOENT,
    libc::EEXIST,
    libc::ENOTEMPTY,
    libc::EISDIR,
    libc::ENOTDIR,
    libc::EPERM,
    libc::EINVAL,
    // What could not be written back.
    libc::EIO,
];

/// Does something in one of these directories.
pub fn step(thread: usize, folders: &[PathBuf], random: &mut Random, watched: &Watched) {
    let mut name = || random.of(folders).join(format!("n{}", random.below(NAMES)));
    let (one, other) = (name(), name());
    let folder = random.of(folders).clone();
    let (what, operation): (_, Box<dyn FnOnce() -> io::Result<()>>) = match random.below(9) {
        0 => ("write", Box::new(|| fs::write(&one, TEXT.repeat(5000)))),
        1 => ("remove", Box::new(|| fs::remove_file(&one))),
        2 => ("replace", Box::new(|| fs::rename(&one, &other))),
        3 => ("link", Box::new(|| fs::hard_link(&one, &other))),
        4 => ("mkdir", Box::new(|| fs::create_dir(&one))),
        5 => ("rmdir", Box::new(|| fs::remove_dir(&one))),
        6 => {
            let link = || std::os::unix::fs::symlink("missing/n0", &one);
            ("symlink", Box::new(link))
        }
        7 => ("list", Box::new(|| list(&folder))),
        _ => (
            "read",
            Box::new(|| fs::read(&one).map(|found| check(&found))),
        ),
    };
    let name = format!("{what} {}", one.display());
    if let Err(error) = watched.run(thread, &name, operation) {
        let errno = error.raw_os_error().unwrap_or_default();
        assert!(
            DOCUMENTED.contains(&errno) || watched.is_broken(),
            "{name}: {error}"
        );
    }
}

/// Each byte is what it was written as, or was not written yet: several write and cut the file at once.
fn check(found: &[u8]) {
    for (at, byte) in found.iter().enumerate() {
        let written = TEXT[at % TEXT.len()];
        assert!([0, written].contains(byte), "byte {at} is {byte}");
    }
}

/// What is listed has the names that are used here; one that is renamed meanwhile may be listed twice.
fn list(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name().into_string().unwrap();
        let number = name
            .strip_prefix('n')
            .and_then(|number| number.parse::<usize>().ok());
        assert!(number.is_some_and(|number| number < NAMES), "{name}");
    }
    Ok(())
}
