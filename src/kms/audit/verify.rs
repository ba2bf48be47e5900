//! Whether the audit log is whole: every line follows the one before, and it reaches as far as its head says.

use std::convert::Infallible;
use std::io::BufReader;
use std::path::Path;

use super::chain::{End, Next, Walk};
use super::log::{AUDIT, HEAD, LOG, read_head};
use crate::kms::error::KmsError;
use crate::kms::storage::LogFile;
use crate::kms::store::KeyStore;

/// What was found in the audit log.
#[derive(Debug, Default)]
pub struct AuditVerification {
    /// Lines that are whole, from the first on.
    pub events: u64,
    /// A line was begun that is not finished: its writer is at work, or died. The next writer tidies up.
    pub unfinished: bool,
    /// The first thing that is wrong, if anything is.
    pub damage: Option<KmsError>,
}

/// Reads the whole log. Takes no lock and changes nothing.
pub(in crate::kms) fn verify(store: &KeyStore) -> AuditVerification {
    match read(store, |_| Ok::<(), Infallible>(())) {
        Ok(found) => found,
        Err(never) => match never {},
    }
}

/// The same, and hands every line to `each`, until that fails. Holds one line at a time.
pub(super) fn read<E>(
    store: &KeyStore,
    each: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<AuditVerification, E> {
    read_in(store, &store.dir().join(AUDIT), each)
}

/// The same of the log in another folder.
pub(super) fn read_in<E>(
    store: &KeyStore,
    folder: &Path,
    mut each: impl FnMut(&[u8]) -> Result<(), E>,
) -> Result<AuditVerification, E> {
    let mut found = AuditVerification::default();
    let mut stopped = None;
    let walked = walk(store, folder, &mut found, |line| {
        stopped = each(line).err();
        stopped.is_none()
    });
    if let Err(error) = walked {
        found.damage.get_or_insert(error);
    }
    stopped.map_or(Ok(found), Err)
}

fn walk(
    store: &KeyStore,
    folder: &Path,
    found: &mut AuditVerification,
    mut each: impl FnMut(&[u8]) -> bool,
) -> Result<(), KmsError> {
    let path = folder.join(LOG);
    let sealer = &store.sealer;
    // The head first: whatever is written meanwhile only makes the log longer than it says.
    let head = LogFile::open_to_read(&folder.join(HEAD))
        .and_then(|head| read_head(folder, sealer, &head));
    let head = match head {
        Ok((_, head)) => Some(head),
        Err(error) => {
            found.damage = Some(error);
            None
        }
    };
    let file = LogFile::open_to_read(&path)?.into_file();
    let mut walk = Walk::new(sealer, BufReader::new(file), End::beginning(sealer));
    loop {
        let next = walk.next().map_err(KmsError::io("read", &path))?;
        found.events = walk.end.sequence;
        if found.damage.is_none()
            && let Some(head) = &head
        {
            found.damage = judge(&path, &next, &walk.end, head);
        }
        match next {
            Next::Line(line) | Next::Foreign(line) => {
                if !each(&line) {
                    return Ok(());
                }
            }
            Next::Unfinished => {
                found.unfinished = true;
                return Ok(());
            }
            Next::Nothing => return Ok(()),
        }
    }
}

/// What is wrong with the line that comes next, or with its absence.
fn judge(path: &Path, next: &Next, end: &End, head: &End) -> Option<KmsError> {
    let line = end.sequence.saturating_add(1);
    let why = match next {
        Next::Line(_) if end.sequence == head.sequence && end != head => {
            format!("line {} is not the one that was written", head.sequence)
        }
        Next::Line(_) => return None,
        Next::Nothing if end.sequence < head.sequence => {
            let (there, written) = (end.sequence, head.sequence);
            format!("it ends after line {there}; {written} lines were written")
        }
        Next::Foreign(_) | Next::Unfinished if end.sequence < head.sequence => {
            format!(
                "line {line} was changed, or lines before it were left out, inserted or exchanged"
            )
        }
        Next::Foreign(_) => format!("line {line} was not written by cmkfs"),
        Next::Nothing | Next::Unfinished => return None,
    };
    Some(KmsError::damaged(path, why))
}
