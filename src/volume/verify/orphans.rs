//! Side files at the root whose owners are not there any more, once every object of the volume was met. Such a file is
//! called after the object that owns it.

use std::collections::HashSet;
use std::path::Path;

use super::Message;
use super::object::{Examiner, finding};
use super::report::{Finding, Status, What};
use crate::format::names::BackingName;
use crate::fs::{FsError, Listed, Maintenance, SideFiles};
use crate::ids::ObjectId;

/// Tells of side files that none of `owners` has, and heals that where it is asked for. To be asked only where every object
/// of the volume was read: the side file of one that is damaged is not nobody's.
pub(super) fn side_files(
    examiner: &Examiner<'_, '_>,
    of: SideFiles,
    owners: &HashSet<ObjectId>,
    tell: &mut dyn FnMut(Message),
) {
    let directory = Path::new(of.directory());
    let unreadable = |error: FsError| {
        let (status, what) = (Status::NotVerified, What::Unreadable);
        Message::Found(finding(status, what, directory, error))
    };
    let mut listing = match examiner.maintenance.side_files(of) {
        Ok(Some(listing)) => listing,
        Ok(None) => return,
        Err(error) => return tell(unreadable(error)),
    };
    loop {
        match listing.more() {
            Ok(Some(entries)) => {
                for entry in entries {
                    if let Some(found) = side_file(examiner, of, owners, &entry) {
                        tell(Message::Found(found));
                    }
                }
            }
            Ok(None) => return,
            Err(error) => return tell(unreadable(error)),
        }
    }
}

fn side_file(
    examiner: &Examiner<'_, '_>,
    of: SideFiles,
    owners: &HashSet<ObjectId>,
    entry: &Listed,
) -> Option<Finding> {
    let name = &entry.name;
    let path = Path::new(of.directory()).join(&*name.to_string_lossy());
    let is_temporary = || {
        matches!(
            BackingName::classify(name.to_bytes()),
            BackingName::Temporary
        )
    };
    let (what, reason) = match Maintenance::owner_of_side_file(name) {
        Some(owner) if owners.contains(&owner) => return None,
        Some(_) => match of {
            SideFiles::Targets => (
                What::OrphanedSideFile,
                "it holds the target of a symlink that is not there",
            ),
            SideFiles::Journals => (What::OrphanedJournal, "no file needs what it records"),
        },
        None if is_temporary() => (
            What::Leftover,
            "it was being made or removed when a process ended",
        ),
        None => {
            let reason = "it is not of cmkfs's making";
            return Some(finding(Status::Foreign, What::ForeignName, &path, reason));
        }
    };
    let (status, reason) = examiner.attempt(reason, |maintenance| {
        maintenance
            .remove_orphaned_side_file(of, name)
            .map(|()| true)
    });
    Some(finding(status, what, &path, reason))
}
