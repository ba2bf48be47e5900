//! Compares what is found after a power cut with what may be there.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use crate::content::BLOCK;
use crate::ledger::{Id, Kind, TOP};
use crate::model::{Model, Object};
use crate::names::attribute_value;
use crate::{is_plain, pattern, sqlite};

/// Something that should not be.
#[derive(Debug, Clone)]
pub struct Problem {
    /// It breaks a promise. Else: something that was never synced cannot be read.
    pub broken: bool,
    pub text: String,
}

/// Everything that is wrong with a worker's directory.
pub fn check(top: &Path, model: &Model) -> Vec<Problem> {
    let mut problems = Vec::new();
    if model.count() > 1 {
        folder(&mut problems, top, model, TOP, true);
    }
    if model.rows.1 > 0 {
        let text = sqlite::wrong(top, model.rows);
        problems.extend(text.map(|text| Problem {
            broken: true,
            text: format!("{}: {text}", top.display()),
        }));
    }
    problems
}

fn report(problems: &mut Vec<Problem>, path: &Path, broken: bool, text: impl std::fmt::Display) {
    problems.push(Problem {
        broken,
        text: format!("{}: {text}", path.display()),
    });
}

fn folder(problems: &mut Vec<Problem>, path: &Path, model: &Model, id: Id, durable: bool) {
    let known = model.get(id);
    let listed: io::Result<Vec<_>> = fs::read_dir(path).and_then(Iterator::collect);
    let listed = match listed {
        Ok(listed) => listed,
        Err(error) => {
            return report(
                problems,
                path,
                durable,
                format!("cannot be listed: {error}"),
            );
        }
    };
    let listed: Vec<String> = listed
        .into_iter()
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    for name in &listed {
        let may_be = known
            .names
            .get(name)
            .is_some_and(|choice| choice.all().iter().any(Option::is_some));
        if !may_be && model.returning(id, name).is_empty() {
            report(
                problems,
                path,
                true,
                format!("{name} is there, and should not be; {}", model.story(id)),
            );
        }
    }
    for (name, choice) in &known.names {
        let place = path.join(name);
        let metadata = match fs::symlink_metadata(&place) {
            Ok(metadata) => Some(metadata),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => None,
            Err(error) => {
                report(
                    problems,
                    path,
                    !choice.allows(&None),
                    format!("{name}: {error}"),
                );
                continue;
            }
        };
        if metadata.is_some() != listed.contains(name) {
            report(
                problems,
                path,
                true,
                format!(
                    "{name}: listed {}, but found {}",
                    listed.contains(name),
                    metadata.is_some()
                ),
            );
        }
        let Some(metadata) = metadata else {
            if !choice.allows(&None) {
                report(
                    problems,
                    path,
                    true,
                    format!(
                        "{name} is lost; it was {:?}; {}",
                        choice.all(),
                        model.story(id)
                    ),
                );
            }
            continue;
        };
        let durable = !choice.allows(&None);
        let is_kind = |id: &Id| match model.get(*id).kind {
            Kind::File => metadata.is_file(),
            Kind::Folder => metadata.is_dir(),
            Kind::Symlink(_) => metadata.is_symlink(),
        };
        let returning = if durable {
            &[]
        } else {
            model.returning(id, name)
        };
        // The one of those that may be there that it looks like most.
        let found = choice
            .all()
            .iter()
            .flatten()
            .rev()
            .chain(returning)
            .filter(|id| is_kind(id))
            .map(|id| {
                let mut found = Vec::new();
                object(&mut found, &place, model, *id, durable);
                found
            });
        match found.min_by_key(Vec::len) {
            Some(found) => problems.extend(found),
            None => problems.push(Problem {
                broken: true,
                text: format!(
                    "{} is a {:?}; it may be {:?}",
                    place.display(),
                    metadata.file_type(),
                    choice.all()
                ),
            }),
        }
    }
}

fn object(problems: &mut Vec<Problem>, path: &Path, model: &Model, id: Id, durable: bool) {
    let known = model.get(id);
    match &known.kind {
        Kind::Folder => folder(problems, path, model, id, durable),
        Kind::Symlink(target) => {
            let problem = match fs::read_link(path) {
                Ok(found) if found.as_os_str() == &**target => return,
                Ok(found) => Problem {
                    broken: true,
                    text: format!("leads to {found:?}, not to {target}"),
                },
                Err(error) => Problem {
                    broken: durable,
                    text: error.to_string(),
                },
            };
            problems.push(named(path, id, problem));
        }
        Kind::File => {
            let mut found = Vec::new();
            content(&mut found, path, known, &model.story(id));
            attributes(&mut found, path, known);
            problems.extend(found.into_iter().map(|problem| named(path, id, problem)));
        }
    }
}

fn named(path: &Path, id: Id, problem: Problem) -> Problem {
    Problem {
        text: format!("{} (object {id}): {}", path.display(), problem.text),
        ..problem
    }
}

fn content(problems: &mut Vec<Problem>, path: &Path, known: &Object, story: &str) {
    let content = &known.content;
    let mut problem = |broken, text| problems.push(Problem { broken, text });
    // Directly: a block that cannot be read should not take others along that are read with it.
    let flags = if is_plain() { 0 } else { libc::O_DIRECT };
    let open = || OpenOptions::new().read(true).custom_flags(flags).open(path);
    let (file, size) = match open()
        .and_then(|file| Ok((file.metadata()?.len(), file)).map(|(size, file)| (file, size)))
    {
        Ok(opened) => opened,
        Err(error) => {
            return problem(
                content.covered,
                format!("cannot be opened: {error}; {story}"),
            );
        }
    };
    if let Some(wrong) = content.wrong_size(size) {
        problem(true, wrong);
    }
    let whole = fs::read(path).ok();
    for block in 0..size.div_ceil(BLOCK) {
        let start = block * BLOCK;
        let length = (size - start).min(BLOCK) as usize;
        let mut bytes = vec![0; length];
        match (&whole, file.read_exact_at(&mut bytes, start)) {
            (_, Err(error)) => {
                let text = format!("block {block}: {error}; {}", content.describe(block));
                problem(content.covers(block), text);
            }
            (Some(whole), Ok(()))
                if whole.get(start as usize..start as usize + length) != Some(&bytes) =>
            {
                problem(true, format!("block {block}: read directly it is another"));
            }
            (_, Ok(())) => {
                if let Some(wrong) = content.wrong_block(block, &bytes) {
                    problem(true, format!("block {block}: {wrong}"));
                }
            }
        }
    }
}

fn attributes(problems: &mut Vec<Problem>, path: &Path, known: &Object) {
    for (name, choice) in &known.attributes {
        let mut value = vec![0; 1000];
        let durable = !choice.allows(&None);
        match rustix::fs::getxattr(path, &**name, &mut value[..]) {
            Ok(length) => {
                value.truncate(length);
                let is = |event: &Option<u64>| {
                    event.is_some_and(|event| attribute_value(event) == value)
                };
                if !choice.all().iter().any(is) {
                    let text = format!(
                        "{name} is {}, not {:?}",
                        pattern::describe(0, &value),
                        choice.all()
                    );
                    problems.push(Problem { broken: true, text });
                }
            }
            Err(rustix::io::Errno::NODATA) if !durable => {}
            Err(error) => {
                let text = format!("{name}: {error}; it was {:?}", choice.all());
                problems.push(Problem {
                    broken: durable,
                    text,
                });
            }
        }
    }
}

/// New files can be made everywhere, and then everything can be removed.
pub fn use_and_empty(root: &Path) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let path = folder.join("new after the cut");
        let made = File::create_new(&path).and_then(|file| {
            file.write_all_at(b"new", 5000)?;
            file.sync_all()
        });
        if let Err(error) = made {
            problems.push(Problem {
                broken: true,
                text: format!("{} cannot be made: {error}", path.display()),
            });
        }
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(entry.path());
            }
        }
    }
    for entry in fs::read_dir(root).unwrap() {
        let output = std::process::Command::new("rm")
            .arg("-rf")
            .arg(entry.unwrap().path())
            .output()
            .unwrap();
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            problems.push(Problem { broken: true, text });
        }
    }
    let left = fs::read_dir(root).unwrap().count();
    if left > 0 {
        problems.push(Problem {
            broken: true,
            text: format!("{left} names are left in the root"),
        });
    }
    problems
}
