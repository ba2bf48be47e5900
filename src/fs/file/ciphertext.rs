//! What a write turns into. Blocks that it fills are encrypted before the file is held alone, so that several requests on one
//! file are encrypted at a time; those that it changes in part need what is there, and are encrypted in their turn.

use std::ops::Range;

use super::{Inner, OpenFile};
use crate::crypto::block;
use crate::crypto::object::ObjectKeys;
use crate::format::layout::{self, BLOCK_LEN, PAGE};
use crate::format::slot::Entry;
use crate::fs::core::Core;
use crate::fs::error::FsResult;
use crate::ids::ObjectId;

/// What is to be written, and where.
pub(super) struct Patch<'a> {
    pub offset: u64,
    pub data: &'a [u8],
    /// Plaintext size before.
    pub old_size: u64,
    /// Plaintext size after.
    pub new_size: u64,
}

/// The blocks of a write: a page and an entry each. Beside them is room for meta pages, so that one buffer serves a request.
pub(super) struct Ciphertext<'a> {
    first: u64,
    pages: &'a mut [u8],
    metas: &'a mut [u8],
    /// `None`: not encrypted yet.
    entries: Vec<Option<Entry>>,
    /// Whose data key encrypted them.
    object: Option<ObjectId>,
}

impl<'a> Ciphertext<'a> {
    /// How many pages it takes for blocks that are written with at most so many groups at a time.
    pub fn pages_for(blocks: &Range<u64>, groups: u64) -> usize {
        (blocks.end - blocks.start + groups) as usize
    }

    /// Blocks that are to be encrypted into these pages, of which there are [`Ciphertext::pages_for`] them.
    pub fn of(blocks: &Range<u64>, pages: &'a mut [u8]) -> Self {
        let count = (blocks.end - blocks.start) as usize;
        let (pages, metas) = pages.split_at_mut(count * BLOCK_LEN);
        Self {
            first: blocks.start,
            pages,
            metas,
            entries: vec![None; count],
            object: None,
        }
    }

    /// Encrypts the blocks that `data`, from `offset` on, fills from end to end.
    pub fn fill(&mut self, object: ObjectId, keys: &ObjectKeys, offset: u64, data: &[u8]) {
        self.object = Some(object);
        let skipped = (offset - self.first * PAGE) as usize;
        let (mut index, data) = if skipped == 0 {
            (self.first, data)
        } else {
            let skipped = BLOCK_LEN - skipped;
            (self.first + 1, data.get(skipped..).unwrap_or_default())
        };
        for block in data.chunks_exact(BLOCK_LEN) {
            let entry = block::seal(keys, index, block, self.page(index));
            self.set(index, entry);
            index += 1;
        }
    }

    /// From now on this is the object's: what another data key has encrypted is none of it. Says whether anything was its.
    pub fn keep_if_of(&mut self, object: ObjectId) -> bool {
        let is_its = self.object == Some(object);
        if !is_its {
            self.entries.fill(None);
        }
        is_its
    }

    /// The entry of a block that is encrypted.
    pub fn entry(&self, block: u64) -> Option<Entry> {
        self.entries[(block - self.first) as usize]
    }

    /// The entries of blocks that are all encrypted.
    pub fn entries(&self, blocks: &Range<u64>) -> Vec<Entry> {
        blocks
            .clone()
            .filter_map(|block| self.entry(block))
            .collect()
    }

    fn set(&mut self, block: u64, entry: Entry) {
        self.entries[(block - self.first) as usize] = Some(entry);
    }

    fn page(&mut self, block: u64) -> &mut [u8] {
        let at = (block - self.first) as usize * BLOCK_LEN;
        &mut self.pages[at..at + BLOCK_LEN]
    }

    /// Blocks side by side in a file of this size.
    pub fn bytes(&self, blocks: &Range<u64>, size: u64) -> &[u8] {
        &self.pages[self.place(blocks, size)]
    }

    /// The same, and the room for meta pages.
    pub fn bytes_and_metas(&mut self, blocks: &Range<u64>, size: u64) -> (&[u8], &mut [u8]) {
        let place = self.place(blocks, size);
        (&self.pages[place], self.metas)
    }

    fn place(&self, blocks: &Range<u64>, size: u64) -> Range<usize> {
        let at = (blocks.start - self.first) as usize * BLOCK_LEN;
        let length = size.min(blocks.end * PAGE) - blocks.start * PAGE;
        at..at + length as usize
    }
}

impl OpenFile {
    /// Encrypts those of the blocks that are not yet, as they are once the patch has been applied.
    pub(super) fn complete(
        &self,
        core: &Core,
        inner: &Inner,
        keys: &ObjectKeys,
        blocks: &Range<u64>,
        patch: &Patch<'_>,
        sealed: &mut Ciphertext<'_>,
    ) -> FsResult<()> {
        for index in blocks.clone() {
            if sealed.entry(index).is_none() {
                let entry =
                    self.seal_patched(core, inner, keys, index, patch, sealed.page(index))?;
                sealed.set(index, entry);
            }
        }
        Ok(())
    }

    fn seal_patched(
        &self,
        core: &Core,
        inner: &Inner,
        keys: &ObjectKeys,
        index: u64,
        patch: &Patch<'_>,
        out: &mut [u8],
    ) -> FsResult<Entry> {
        let start = index * PAGE;
        let out = &mut out[..layout::block_length(index, patch.new_size)];
        let end = patch.offset + patch.data.len() as u64;
        let (from, to) = (start.max(patch.offset), (start + out.len() as u64).min(end));
        let new = &patch.data[(from - patch.offset) as usize..(to - patch.offset) as usize];
        if new.len() == out.len() {
            return Ok(block::seal(keys, index, new, out));
        }
        let mut plain = [0; BLOCK_LEN];
        let old = layout::block_length(index, patch.old_size);
        if old > 0 {
            self.read_blocks(core, inner, keys, index, &mut plain[..old])?;
        }
        plain[(from - start) as usize..][..new.len()].copy_from_slice(new);
        Ok(block::seal(keys, index, &plain[..out.len()], out))
    }
}
