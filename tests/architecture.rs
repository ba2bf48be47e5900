//! The floors of the house, as docs/ARCHITECTURE.md draws them, checked against the sources: imports point downwards
//! only, and a few crates are named in one place only.

use std::path::{Path, PathBuf};

/// Top-level modules and their floor. A module imports itself and lower floors, nothing else.
const FLOORS: [(&str, u8); 11] = [
    ("ids", 0),
    ("clock", 0),
    ("sync", 0),
    ("sys", 0),
    ("format", 1),
    ("secret", 1),
    ("crypto", 2),
    ("fs", 3),
    ("kms", 3),
    ("volume", 4),
    ("mount", 5),
];
/// The floor of `cli`, which is above all others.
const CLI_FLOOR: u8 = 6;

/// What only files below these folders may name.
const CONFINED: [(&str, &[&str]); 11] = [
    ("fuser", &["mount/transport/library"]),
    ("io_uring", &["sys"]),
    ("zerocopy", &["mount/protocol"]),
    ("bitflags", &["mount/protocol"]),
    ("unsafe", &["sys"]),
    ("aes_gcm_siv", &["crypto"]),
    ("argon2", &["crypto"]),
    ("hkdf", &["crypto"]),
    ("hmac", &["crypto"]),
    ("sha2", &["crypto"]),
    ("clap", &["cli"]),
];

/// What a folder must never name: `format` and `mount/protocol` are bytes only, `fs` is free of the transport.
const FORBIDDEN: [(&str, &[&str]); 3] = [
    (
        "format",
        &[
            "std::fs",
            "std::io",
            "std::time",
            "rustix",
            "libc",
            "getrandom",
            "log",
        ],
    ),
    ("fs", &["serde", "serde_json"]),
    (
        "mount/protocol",
        &[
            "std::fs",
            "std::io",
            "std::net",
            "std::os::fd",
            "rustix::fd",
            "rustix::fs",
            "rustix::io::read",
            "rustix::io::write",
            "log",
        ],
    ),
];

fn floor(module: &str) -> Option<u8> {
    if module == "cli" {
        return Some(CLI_FLOOR);
    }
    FLOORS
        .iter()
        .find(|(name, _)| *name == module)
        .map(|(_, floor)| *floor)
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// The source without its comments: what they name is no import.
fn code_of(source: &str) -> String {
    let lines = source
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default());
    lines.collect::<Vec<_>>().join("\n")
}

/// Where `name` stands as a path or word of its own, not as a part of another.
fn names(code: &str, name: &str) -> bool {
    code.match_indices(name).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = code[at + name.len()..].chars().next();
        !before.is_some_and(|c| is_word(c) || c == ':' || c == '.' || c == '"')
            && !after.is_some_and(is_word)
    })
}

/// Top-level modules that the code reaches through `crate::`, grouped imports among them.
fn imports(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, prefix) in code.match_indices("crate::") {
        if code[..at].chars().next_back().is_some_and(is_word) {
            continue;
        }
        let rest = &code[at + prefix.len()..];
        let Some(group) = rest.strip_prefix('{') else {
            found.push(rest.chars().take_while(|c| is_word(*c)).collect());
            continue;
        };
        let (mut depth, mut word) = (0, String::new());
        let mut first = true;
        for character in group.chars() {
            match character {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => first = true,
                c if depth == 0 && first && is_word(c) => word.push(c),
                c if depth == 0 && first && !c.is_whitespace() => first = false,
                _ => {}
            }
            if (!first || character == ',') && !word.is_empty() {
                found.push(std::mem::take(&mut word));
            }
        }
        if !word.is_empty() {
            found.push(word);
        }
    }
    found
}

/// The longest chain of `super::` outside of the file's own test module.
fn longest_climb(code: &str) -> usize {
    let code = code.split("mod tests {").next().unwrap_or_default();
    let mut longest = 0;
    for (at, _) in code.match_indices("super::") {
        let steps = code[at..].split("::").take_while(|step| *step == "super");
        longest = longest.max(steps.count());
    }
    longest
}

/// What is wrong with the file at `path`, relative to src.
fn violations(path: &str, source: &str) -> Vec<String> {
    let mut found = Vec::new();
    let code = code_of(source);
    let mut complain = |what: String| found.push(format!("src/{path}: {what}"));
    if !source.starts_with("//!") {
        complain("does not open with //!".to_owned());
    }
    let below = |folder: &str| {
        path.strip_prefix(folder)
            .is_some_and(|rest| rest.starts_with('/') || rest.starts_with('.'))
    };
    for (name, folders) in CONFINED {
        if names(&code, name) && !folders.iter().any(|folder| below(folder)) {
            complain(format!("names {name}, which belongs into {folders:?}"));
        }
    }
    for (folder, forbidden) in FORBIDDEN {
        for name in forbidden
            .iter()
            .filter(|name| below(folder) && names(&code, name))
        {
            complain(format!("names {name}"));
        }
    }
    if matches!(path, "lib.rs" | "main.rs") {
        return found;
    }
    let module = path.split(['/', '.']).next().unwrap_or_default();
    let Some(own) = floor(module) else {
        complain(format!(
            "{module} is on no floor: give it one here and in docs/ARCHITECTURE.md"
        ));
        return found;
    };
    for import in imports(&code) {
        match floor(&import) {
            _ if import == module => {}
            Some(floor) if floor < own => {}
            Some(floor) => complain(format!(
                "imports {import} (floor {floor}), but stands on floor {own}"
            )),
            None => complain(format!("imports crate::{import}, which is on no floor")),
        }
    }
    // `x_tests.rs` is the module `x::tests`.
    let depth = path.trim_end_matches(".rs").replace("_tests", "/tests");
    let parts = depth.split('/').filter(|part| *part != "mod");
    if longest_climb(&code) >= parts.count() {
        complain("climbs out of its top-level module by super::".to_owned());
    }
    found
}

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn every_source_keeps_to_its_floor() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    assert!(files.len() > 50, "the sources were found");
    let wrong: Vec<String> = files
        .iter()
        .flat_map(|file| {
            let path = file.strip_prefix(&root).unwrap().to_str().unwrap();
            violations(path, &std::fs::read_to_string(file).unwrap())
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_document_draws_the_same_floors() {
    let document = include_str!("../docs/ARCHITECTURE.md");
    for (module, floor) in FLOORS.into_iter().chain([("cli", CLI_FLOOR)]) {
        let row = document
            .lines()
            .find(|line| line.starts_with(&format!("| {floor} |")))
            .unwrap_or_else(|| panic!("floor {floor} has a row"));
        assert!(names(row, module), "{module} in: {row}");
    }
}

/// The checker notices what it is there to notice.
#[test]
fn a_violation_is_noticed() {
    let bad = [
        (
            "fs/ops/files.rs",
            "use crate::kms::service::KeyService;",
            "imports kms",
        ),
        ("kms/store.rs", "use crate::fs::FsError;", "imports fs"),
        (
            "crypto/aead.rs",
            "use crate::volume::open;",
            "imports volume",
        ),
        (
            "format/slot.rs",
            "use crate::{ids::KeyId, crypto::aead::Tag};",
            "imports crypto",
        ),
        (
            "format/slot.rs",
            "use crate::{\n    ids::{KeyId, ObjectId},\n    kms,\n};",
            "imports kms",
        ),
        (
            "volume/mod.rs",
            "fn f() { crate::cli::run() }",
            "imports cli",
        ),
        ("ids.rs", "use crate::secret::Secret;", "imports secret"),
        (
            "fs/file/read.rs",
            "use super::super::super::kms::store;",
            "climbs out",
        ),
        ("ids.rs", "use super::secret::Secret;", "climbs out"),
        ("fs/mod.rs", "use fuser::Errno;", "names fuser"),
        (
            "mount/protocol/reply.rs",
            "use fuser::Errno;",
            "names fuser",
        ),
        (
            "mount/protocol/mod.rs",
            "use std::io::Read;",
            "names std::io",
        ),
        (
            "mount/session/mod.rs",
            "use zerocopy::IntoBytes;",
            "names zerocopy",
        ),
        (
            "mount/daemon.rs",
            "fn f() { fuser::mount() }",
            "names fuser",
        ),
        ("kms/seal.rs", "unsafe { f() }", "names unsafe"),
        (
            "kms/seal.rs",
            "use aes_gcm_siv::Aes256GcmSiv;",
            "names aes_gcm_siv",
        ),
        (
            "fs/directory.rs",
            "let d = sha2::Sha256::new();",
            "names sha2",
        ),
        ("format/codec.rs", "use std::io::Read;", "names std::io"),
        ("policy/mod.rs", "fn f() {}", "on no floor"),
        ("fs/mod.rs", "use crate::nowhere::X;", "on no floor"),
    ];
    for (path, line, complaint) in bad {
        let found = violations(path, &format!("//! What it is.\n{line}\n"));
        assert!(
            found.len() == 1 && found[0].contains(complaint),
            "{path}: {line}: {found:?}"
        );
    }
    assert_eq!(violations("fs/mod.rs", "fn f() {}\n").len(), 1, "no //!");
}

#[test]
fn what_is_allowed_is_not_complained_about() {
    let good = [
        (
            "fs/ops/files.rs",
            "use crate::fs::error::FsResult;\nuse crate::{format::slot, sys};",
        ),
        ("fs/file/slots.rs", "use super::super::core::Core;"),
        ("ids.rs", "#[cfg(test)]\nmod tests {\n    use super::*;\n}"),
        ("mount/transport/library/mod.rs", "use fuser::Session;"),
        ("mount/transport/library.rs", "use fuser::Session;"),
        (
            "mount/protocol/wire.rs",
            "use rustix::io::Errno;\nuse zerocopy::IntoBytes;",
        ),
        ("sys/identity.rs", "unsafe { f() }"),
        (
            "kms/seal.rs",
            "// crate::cli is above, and this is not unsafe\n#![deny(unsafe_code)]",
        ),
        ("lib.rs", "pub mod cli;"),
        ("crypto/kdf.rs", "use hkdf::Hkdf;\nuse sha2::Sha256;"),
    ];
    for (path, line) in good {
        let found = violations(path, &format!("//! What it is.\n{line}\n"));
        assert!(found.is_empty(), "{found:?}");
    }
}
