//! What a mount's process gives up before it answers anybody: capabilities, new privileges, system calls and files that it
//! has no use for. So what goes wrong in it, or is made to, goes no further than the volume and its keys.
//!
//! [`capabilities`] · [`calls`] seccomp · [`files`] Landlock. All of it holds for threads that are started later, so it comes
//! before the first one. What a kernel does not know is left out, said in the log and by `cmkfs status`; the mount works
//! either way.

mod calls;
mod capabilities;
mod files;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use files::Reach;

use crate::sys::process;

/// What a mount's process has given up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Confinement {
    /// The capabilities that are left to it, by the names of capabilities(7).
    pub capabilities: Vec<String>,
    /// No program that it could start would have more rights than itself.
    pub no_new_privileges: bool,
    /// System calls are filtered.
    pub system_calls: bool,
    /// Only the files in [`Reach`] can be opened, made or removed.
    pub files: bool,
}

/// Gives up what serving a mount does not need, for this thread and those that it starts.
#[must_use]
pub fn confine(reach: &Reach<'_>) -> Confinement {
    process::raise_lock_limit();
    // Last what forbids the means of the others.
    let no_new_privileges = done(
        "no new privileges",
        rustix::thread::set_no_new_privs(true).map_err(|error| error.to_string()),
    );
    let files = done("the rules for files", files::restrict(reach));
    done("dropping capabilities", capabilities::drop_unneeded());
    let system_calls = done("the filter of system calls", calls::filter());
    let confinement = Confinement {
        capabilities: capabilities::left(),
        no_new_privileges,
        system_calls,
        files,
    };
    log::debug!("confined: {confinement:?}");
    confinement
}

fn done(what: &str, result: Result<(), String>) -> bool {
    if let Err(why) = &result {
        log::warn!("{what}: {why}; the mount goes on without");
    }
    result.is_ok()
}

/// The directories above which a key directory may be replaced by another one: it is moved away and comes back from a
/// backup while mounts run.
fn place_of(keys: &std::path::Path) -> Vec<PathBuf> {
    let above = |path: PathBuf| path.parent().map(PathBuf::from);
    let mut places: Vec<_> = [std::path::absolute(keys), keys.canonicalize()]
        .into_iter()
        .filter_map(|path| above(path.ok()?))
        .collect();
    places.dedup();
    places
}
