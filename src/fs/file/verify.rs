//! Verifying an open file: what is stored of it is read once more, whatever memory knows of it, by the ways of reading.

use std::ops::Range;
use std::os::fd::AsFd;

use super::{Inner, OpenFile, backing_length};
use crate::crypto::object::ObjectKeys;
use crate::format::header::HEADER_LEN;
use crate::format::layout::{self, GROUP_BLOCKS, PAGE};
use crate::fs::backing::At;
use crate::fs::core::Core;
use crate::fs::error::{Damage, FsError, FsResult};
use crate::fs::flaw::{Flaw, OnFlaw, Part, Verified};

/// Groups that are read at once: 1.75 MiB of plaintext.
const GROUPS_AT_ONCE: u64 = 8;

impl OpenFile {
    /// Reads the header and every block as they are stored; users may go on with the file meanwhile. Ends early where
    /// `go_on` says so.
    ///
    /// # Errors
    /// Its key refused, and what the backing says. Damage is told to `on_flaw`.
    pub fn verify(
        &self,
        core: &Core,
        on_flaw: OnFlaw<'_>,
        go_on: &dyn Fn() -> bool,
    ) -> FsResult<Verified> {
        let mut verified = Verified::default();
        {
            let inner = self.inner.read();
            match inner.verify_header(core) {
                Err(error @ FsError::Damaged(_)) => on_flaw(Flaw {
                    part: Part::Header,
                    error,
                }),
                checked => checked?,
            }
            verified.is_unsealed = inner.has_header && inner.stored.dirty;
        }
        let mut block = 0;
        let mut buffer = Vec::new();
        while go_on() {
            // A part at a time, so that writers are not kept waiting.
            let inner = self.inner.read();
            let (Some(object), end) = (&inner.object, layout::block_count(inner.size)) else {
                break;
            };
            if block >= end {
                break;
            }
            if inner.hole_allowed(block * PAGE) {
                let next = inner.next_stored(core, block)?.unwrap_or(end).min(end);
                if next > block {
                    verified.blocks += next - block;
                    verified.bytes += (next * PAGE).min(inner.size) - block * PAGE;
                    block = next;
                    continue;
                }
            }
            let after = (layout::group_of(block) + GROUPS_AT_ONCE) * GROUP_BLOCKS;
            let blocks = block..after.min(end);
            block = blocks.end;
            let keys = object.keys(&core.ring)?;
            verified.blocks += blocks.end - blocks.start;
            verified.bytes +=
                self.verify_blocks(core, &inner, &keys, blocks, &mut buffer, on_flaw)?;
        }
        Ok(verified)
    }

    /// Reads blocks from the backing file, their slots as well. Returns how many bytes of them are sound.
    fn verify_blocks(
        &self,
        core: &Core,
        inner: &Inner,
        keys: &ObjectKeys,
        blocks: Range<u64>,
        buffer: &mut Vec<u8>,
        on_flaw: OnFlaw<'_>,
    ) -> FsResult<u64> {
        // Memory may hold what the backing file no longer does. Slots can be forgotten at any time.
        let groups = layout::group_of(blocks.start)..layout::group_of(blocks.end - 1) + 1;
        self.slots.lock().forget(groups);
        let length = (blocks.end * PAGE).min(inner.size) - blocks.start * PAGE;
        buffer.resize(length as usize, 0);
        match self.read_blocks(core, inner, keys, blocks.start, buffer) {
            Ok(()) => return Ok(length),
            Err(FsError::Damaged(_)) => {}
            Err(error) => return Err(error),
        }
        // Which of them? Blocks side by side that are damaged alike are told together.
        let mut sound = 0;
        let mut damaged: Option<(Range<u64>, FsError)> = None;
        for block in blocks {
            let length = layout::block_length(block, inner.size);
            let part = &mut buffer[..length];
            let error = match self.read_blocks(core, inner, keys, block, part) {
                Ok(()) => {
                    sound += length as u64;
                    continue;
                }
                Err(error @ FsError::Damaged(_)) => error,
                Err(error) => return Err(error),
            };
            match &mut damaged {
                Some((range, first)) if range.end == block && is_alike(first, &error) => {
                    range.end = block + 1;
                }
                _ => tell(damaged.replace((block..block + 1, error)), on_flaw),
            }
        }
        tell(damaged, on_flaw);
        Ok(sound)
    }
}

fn tell(damaged: Option<(Range<u64>, FsError)>, on_flaw: OnFlaw<'_>) {
    if let Some((blocks, error)) = damaged {
        on_flaw(Flaw {
            part: Part::Blocks(blocks),
            error,
        });
    }
}

fn is_alike(one: &FsError, other: &FsError) -> bool {
    match (one, other) {
        (FsError::Damaged(one), FsError::Damaged(other)) => {
            std::mem::discriminant(one) == std::mem::discriminant(other)
        }
        _ => false,
    }
}

impl Inner {
    /// Compares the stored header, and the backing file's length, with what is in use.
    fn verify_header(&self, core: &Core) -> FsResult<()> {
        let Some(object) = self.object.as_ref().filter(|_| self.has_header) else {
            return Ok(());
        };
        let mut bytes = [0; HEADER_LEN];
        let read = core.backing.read(&self.fd, &mut bytes, 0)?;
        let state = object.reopen_header(&core.ring, &bytes[..read])?;
        if state != self.stored {
            return Err(Damage::Authentication {
                what: "the object header",
            }
            .into());
        }
        let length = backing_length(&core.backing.stat(At::Fd(self.fd.as_fd()))?);
        let actual = layout::plaintext_size(length);
        let intact = if state.dirty {
            actual >= state.size
        } else {
            length == layout::backing_length(state.size)
        };
        if intact {
            Ok(())
        } else {
            Err(Damage::Size {
                sealed: state.size,
                actual,
            }
            .into())
        }
    }

    /// The first block from `block` on in whose group the backing file has anything; `None` where nothing follows. So a
    /// file is gone through by what is stored of it, however large its holes.
    fn next_stored(&self, core: &Core, block: u64) -> FsResult<Option<u64>> {
        let from = layout::meta_offset(layout::group_of(block));
        let next = core.backing.seek_data(&self.fd, from)?;
        let first = |next: u64| next / layout::GROUP_SPAN * GROUP_BLOCKS;
        Ok(next.map(|next| block.max(first(next))))
    }
}
