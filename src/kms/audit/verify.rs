//! Whether the audit log is whole: every line follows the one before, and it reaches as far as its head says.

use std::io::BufReader;

use super::chain::{End, Next, Walk};
use super::log::{HEAD, LOG, read_head};
use crate::kms::error::KmsError;
use crate::kms::storage::LogFile;
use crate::kms::store::KeyStore;

/// What was found in the audit log.
#[derive(Debug)]
pub struct AuditVerification {
    /// Lines that are whole, from the first on.
    pub events: u64,
    /// A line was begun that is not finished: its writer is at work, or died. The next writer tidies up.
    pub unfinished: bool,
    /// What is wrong, if anything is.
    pub damage: Option<KmsError>,
}

/// Reads the whole log. Takes no lock and changes nothing.
pub(in crate::kms) fn verify(store: &KeyStore) -> AuditVerification {
    let mut found = AuditVerification {
        events: 0,
        unfinished: false,
        damage: None,
    };
    found.damage = walk(store, &mut found).err();
    found
}

fn walk(store: &KeyStore, found: &mut AuditVerification) -> Result<(), KmsError> {
    let path = store.dir().join(LOG);
    let sealer = &store.sealer;
    // The head first: whatever is written meanwhile only makes the log longer than it says.
    let head = LogFile::open_to_read(&store.dir().join(HEAD))?;
    let (_, head) = read_head(store.dir(), sealer, &head)?;
    let file = LogFile::open_to_read(&path)?.into_file();
    let mut walk = Walk::new(sealer, BufReader::new(file), End::beginning(sealer));
    let mut passed_the_head = head.sequence == 0;
    loop {
        let next = walk.next().map_err(KmsError::io("read", &path))?;
        found.events = walk.end.sequence;
        let line = walk.end.sequence.saturating_add(1);
        match next {
            Next::Line(_) if walk.end.sequence == head.sequence => {
                if walk.end != head {
                    return Err(KmsError::damaged(
                        path,
                        format!("line {} is not the one that was written", head.sequence),
                    ));
                }
                passed_the_head = true;
            }
            Next::Line(_) => {}
            _ if !passed_the_head => {
                let why = match next {
                    Next::Nothing => format!(
                        "it ends after line {}; {} lines were written",
                        walk.end.sequence, head.sequence
                    ),
                    _ => format!(
                        "line {line} was changed, or lines before it were left out, inserted or exchanged"
                    ),
                };
                return Err(KmsError::damaged(path, why));
            }
            Next::Nothing => return Ok(()),
            Next::Unfinished => {
                found.unfinished = true;
                return Ok(());
            }
            Next::Foreign => {
                return Err(KmsError::damaged(
                    path,
                    format!("line {line} was not written by cmkfs"),
                ));
            }
        }
    }
}
