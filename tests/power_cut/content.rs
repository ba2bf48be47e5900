//! What a file may hold after a power cut: for each block its durable version and all that came later.

use std::ops::Range;
use std::rc::Rc;

use crate::pattern;

pub const BLOCK: u64 = 4096;
/// What a store of the processor leaves whole.
const WORD: usize = 8;

/// One version of a block; what is missing at its end reads as zeros.
#[derive(Debug, Clone)]
pub struct Version {
    bytes: Rc<[u8]>,
    what: &'static str,
    event: u64,
}

/// The durable version, and those after it.
#[derive(Debug, Clone)]
pub struct Block {
    versions: Vec<Version>,
    mapped: bool,
}

/// A file.
#[derive(Debug)]
pub struct Content {
    blocks: Vec<Block>,
    /// The durable size, and those after it.
    sizes: Vec<u64>,
    /// Some fsync has returned.
    pub covered: bool,
}

impl Block {
    const fn new() -> Self {
        Self {
            versions: Vec::new(),
            mapped: false,
        }
    }

    fn now(&self) -> &[u8] {
        self.versions.last().map_or(&[], |version| &version.bytes)
    }

    /// fsync has covered something here.
    pub fn is_covered(&self) -> bool {
        self.versions
            .first()
            .is_some_and(|version| version.what == DURABLE)
    }

    /// Whether these bytes are one of the versions.
    fn allows(&self, found: &[u8]) -> bool {
        let nothing: &[u8] = &[];
        let older = (!self.is_covered()).then_some(nothing);
        let versions: Vec<&[u8]> = self
            .versions
            .iter()
            .map(|version| &*version.bytes)
            .chain(older)
            .collect();
        let is = |version: &[u8], range: Range<usize>| {
            range
                .clone()
                .all(|at| found[at] == version.get(at).copied().unwrap_or(0))
        };
        if versions.iter().any(|version| is(version, 0..found.len())) {
            return true;
        }
        let words = (0..found.len())
            .step_by(WORD)
            .map(|at| at..(at + WORD).min(found.len()));
        self.mapped
            && words
                .into_iter()
                .all(|word| versions.iter().any(|version| is(version, word.clone())))
    }

    fn describe(&self, start: u64) -> String {
        let versions: Vec<_> = self
            .versions
            .iter()
            .rev()
            .take(8)
            .rev()
            .map(|version| {
                format!(
                    "{} {} = {}",
                    version.what,
                    version.event,
                    pattern::describe(start, &version.bytes)
                )
            })
            .collect();
        let mapped = if self.mapped { ", mapped" } else { "" };
        format!(
            "of {} versions{mapped}: {}",
            self.versions.len(),
            versions.join(" | ")
        )
    }
}

const DURABLE: &str = "durable";

impl Content {
    /// An empty file.
    pub fn new() -> Self {
        Self {
            blocks: Vec::new(),
            sizes: vec![0],
            covered: false,
        }
    }

    fn size(&self) -> u64 {
        self.sizes.last().copied().unwrap_or(0)
    }

    fn block(&mut self, block: u64) -> &mut Block {
        let needed = block as usize + 1;
        if self.blocks.len() < needed {
            self.blocks.resize(needed, Block::new());
        }
        &mut self.blocks[block as usize]
    }

    fn push(&mut self, block: u64, bytes: Vec<u8>, what: &'static str, event: u64) {
        self.block(block).versions.push(Version {
            bytes: bytes.into(),
            what,
            event,
        });
    }

    pub fn write(&mut self, tag: u32, event: u64, range: &Range<u64>, mapped: bool) {
        let new = pattern::bytes(tag, event, range.clone());
        for block in range.start / BLOCK..range.end.div_ceil(BLOCK) {
            let start = block * BLOCK;
            let (from, to) = (range.start.max(start), range.end.min(start + BLOCK));
            let mut bytes = self.block(block).now().to_vec();
            bytes.resize(bytes.len().max((to - start) as usize), 0);
            bytes[(from - start) as usize..(to - start) as usize]
                .copy_from_slice(&new[(from - range.start) as usize..(to - range.start) as usize]);
            self.push(
                block,
                bytes,
                if mapped { "mapped" } else { "written" },
                event,
            );
            self.block(block).mapped |= mapped;
        }
        self.sizes.push(self.size().max(range.end));
    }

    pub fn resize(&mut self, event: u64, size: u64) {
        for block in size / BLOCK..self.blocks.len() as u64 {
            let now = self.block(block).now();
            let kept = size.saturating_sub(block * BLOCK) as usize;
            if now.len() > kept {
                let bytes = now[..kept].to_vec();
                self.push(block, bytes, "cut", event);
            }
        }
        self.sizes.push(size);
    }

    pub fn punch(&mut self, event: u64, range: &Range<u64>) {
        for block in range.start / BLOCK..range.end.div_ceil(BLOCK) {
            let start = block * BLOCK;
            let mut bytes = self.block(block).now().to_vec();
            let at = |place: u64| (place.saturating_sub(start) as usize).min(bytes.len());
            let holes = at(range.start)..at(range.end);
            bytes[holes].fill(0);
            self.push(block, bytes, "punched", event);
        }
    }

    /// All that is there now is durable.
    pub fn settle(&mut self) {
        self.covered = true;
        for block in &mut self.blocks {
            if block.versions.len() > 1 || !block.is_covered() {
                block
                    .versions
                    .drain(..block.versions.len().saturating_sub(1));
                if let Some(version) = block.versions.first_mut() {
                    version.what = DURABLE;
                }
            }
            block.mapped = false;
        }
        self.sizes.drain(..self.sizes.len().saturating_sub(1));
    }

    /// What is wrong with a size.
    pub fn wrong_size(&self, found: u64) -> Option<String> {
        let least = self.sizes.iter().min().copied().unwrap_or(0);
        let most = self.sizes.iter().max().copied().unwrap_or(0);
        (!(least..=most).contains(&found))
            .then(|| format!("its size is {found}, not {least} to {most}"))
    }

    /// Whether fsync has covered a block.
    pub fn covers(&self, block: u64) -> bool {
        self.blocks
            .get(block as usize)
            .is_some_and(Block::is_covered)
    }

    /// What is wrong with a block's bytes.
    pub fn wrong_block(&self, block: u64, found: &[u8]) -> Option<String> {
        let none = Block::new();
        let known = self.blocks.get(block as usize).unwrap_or(&none);
        (!known.allows(found)).then(|| {
            let start = block * BLOCK;
            format!(
                "it holds {}, {}",
                pattern::describe(start, found),
                known.describe(start)
            )
        })
    }

    /// What a block may hold.
    pub fn describe(&self, block: u64) -> String {
        let known = self.blocks.get(block as usize);
        known.map_or_else(String::new, |known| known.describe(block * BLOCK))
    }
}
