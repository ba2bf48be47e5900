//! A file's content under another data key: a copy in another backing file, which then takes the place of the first. All
//! that have the file open go on with the copy.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustix::io::Errno;
use zeroize::Zeroizing;

use super::{BindingOf, OpenFile};
use crate::fs::core::Core;
use crate::fs::error::{FsError, FsResult};
use crate::fs::object::Object;
use crate::fs::types::Seek;

/// Bytes copied at a time.
const CHUNK: usize = 1 << 20;

/// A backing file and its data key.
pub struct Side<'a> {
    /// The backing file.
    pub fd: BorrowedFd<'a>,
    /// Its data key.
    pub object: &'a Arc<Object>,
}

impl OpenFile {
    /// Copies the content into the empty backing file `fd`, under a data key of its own; holes stay holes. Also says of
    /// which change this is a copy. `None` where this has no data key. EINTR once `go_on` says no.
    pub fn copy(
        &self,
        core: &Core,
        fd: OwnedFd,
        binding: BindingOf<'_>,
        go_on: &mut dyn FnMut() -> bool,
    ) -> FsResult<Option<(Arc<Self>, u64)>> {
        let (change, size) = {
            let mut inner = self.inner.write();
            inner.forget_unstored_object();
            if !inner.has_header {
                return Ok(None);
            }
            (inner.changes, inner.size)
        };
        let copy = Self::created(fd);
        let mut buffer = Zeroizing::new(vec![0; CHUNK.min(usize::try_from(size).unwrap_or(CHUNK))]);
        let mut at = 0;
        while let Some(data) = self.next(core, at, Seek::Data)? {
            let end = self.next(core, data, Seek::Hole)?.unwrap_or(data);
            at = data;
            while at < end {
                if !go_on() {
                    return Err(Errno::INTR.into());
                }
                let room = buffer.len().min((end - at) as usize);
                let read = self.read(core, at, &mut buffer[..room])?;
                if read == 0 {
                    break;
                }
                copy.write(core, binding, at, &buffer[..read])?;
                at += read as u64;
            }
            if at == data {
                // Cut meanwhile: this is no copy of anything that is there now.
                break;
            }
        }
        if copy.size() < size {
            copy.truncate(core, binding, size)?;
        }
        copy.object(core, binding)?;
        copy.checkpoint(core, &mut copy.inner.write())?;
        Ok(Some((copy, change)))
    }

    fn next(&self, core: &Core, at: u64, what: Seek) -> FsResult<Option<u64>> {
        match self.seek(core, at, what) {
            Err(FsError::Os(Errno::NXIO)) => Ok(None),
            found => found.map(Some),
        }
    }

    /// Seals a file that nobody else knows. The caller has put it on the disk.
    pub fn seal_copy(&self, core: &Core) -> FsResult<()> {
        self.unsealed()
            .map_or(Ok(()), |change| self.seal(core, change))
    }

    /// Goes on with the backing file, header and data key of `copy`, if this is still at `change`, and once `publish` has
    /// put the one (first) in the place of the other (second). Says whether it does. Nobody reads or writes meanwhile.
    pub fn replace_by(
        &self,
        core: &Core,
        copy: &Self,
        change: u64,
        publish: impl FnOnce(Side<'_>, Side<'_>) -> FsResult<bool>,
    ) -> FsResult<bool> {
        let mut inner = self.inner.write();
        let new = copy.inner.read();
        let (Some(old_object), Some(new_object)) = (&inner.object, &new.object) else {
            return Ok(false);
        };
        if inner.changes != change || inner.size != new.size {
            return Ok(false);
        }
        let old = Side {
            fd: inner.fd.as_fd(),
            object: old_object,
        };
        let fresh = Side {
            fd: new.fd.as_fd(),
            object: new_object,
        };
        if !publish(fresh, old)? {
            return Ok(false);
        }
        inner.give_up_journal(core);
        inner.released = new.released;
        inner.fd = Arc::clone(&new.fd);
        inner.placed.fetch_add(1, Ordering::AcqRel);
        inner.writable = true;
        inner.object = new.object.clone();
        inner.stored = new.stored.clone();
        inner.has_header = new.has_header;
        inner.recovering = new.recovering;
        inner.found_holes = new.found_holes;
        inner.tail_unknown = new.tail_unknown;
        // A seal that is under way speaks of the other backing file.
        inner.changes += 1;
        self.slots.lock().forget_from(0);
        Ok(true)
    }
}
