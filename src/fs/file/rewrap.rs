//! A file's data key under another CMK or material: its header, and nothing else, is written anew.

use std::sync::Arc;

use super::{BindingOf, OpenFile};
use crate::format::header::SealedState;
use crate::fs::core::Core;
use crate::fs::error::FsResult;
use crate::fs::types::{Rewrapped, WrappedUnder};

impl OpenFile {
    /// Wraps the file's data key anew, under the current material of the CMK that `binding` names: one write of one
    /// sector, so that the header is the old one or the new one at every moment. Whether the file is clean or being
    /// changed stays as it is.
    pub fn rewrap(&self, core: &Core, binding: BindingOf<'_>) -> FsResult<Rewrapped> {
        let mut inner = self.inner.write();
        inner.forget_unstored_object();
        let Some(old) = inner.object.clone() else {
            return Ok(Rewrapped::Nothing);
        };
        let from = WrappedUnder::of(old.envelope());
        let Some(new) = old.rewrapped(&core.ring, &binding()?)? else {
            return Ok(Rewrapped::Already(from));
        };
        let to = WrappedUnder::of(new.envelope());
        let state = SealedState {
            // Records in the journal count while the epoch stays.
            epoch: inner.stored.epoch + u64::from(!inner.has_records()),
            ..inner.stored.clone()
        };
        inner.object = Some(new);
        let stored = inner.keeping_attributes(core, |inner| inner.store_header(core, state));
        if let Err(error) = stored {
            // Either header may be there now. Both open the same data key.
            inner.object = Some(Arc::clone(&old));
            return Err(error);
        }
        Ok(Rewrapped::Now { from, to })
    }
}
