//! A file in the kernel's page cache, and which versions of it may have reached the disk. The rules: `cut`.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::record::PAGE;

/// The pages that a range touches.
pub fn pages_of(offset: u64, length: usize) -> std::ops::Range<u64> {
    offset / PAGE as u64..(offset + length as u64).div_ceil(PAGE as u64)
}

/// A file in the kernel's cache, and what of it may have reached the disk.
pub struct Cached {
    /// As the process sees it.
    content: BTreeMap<u64, Arc<[u8]>>,
    size: u64,
    /// Sizes that may be found, with the event that they come from; the first is there at the least.
    pub sizes: Vec<(usize, u64)>,
    pub pages: BTreeMap<u64, CachedPage>,
}

#[derive(Default)]
pub struct CachedPage {
    /// The disk has a place for it.
    mapped: bool,
    /// What it is to be replaced by has a place of its own, which is not there yet.
    detached: bool,
    /// The oldest first.
    pub versions: Vec<(usize, Arc<[u8]>)>,
}

fn zeros() -> Arc<[u8]> {
    vec![0; PAGE].into()
}

impl Cached {
    pub fn new(content: &[u8]) -> Self {
        let mut file = Self {
            content: BTreeMap::new(),
            size: 0,
            sizes: vec![(0, 0)],
            pages: BTreeMap::new(),
        };
        file.write(0, 0, content, true);
        file.sync(0);
        file
    }

    pub fn write(&mut self, at: usize, offset: u64, data: &[u8], allocates: bool) {
        for page in pages_of(offset, data.len()) {
            let start = page * PAGE as u64;
            let mut bytes = self
                .content
                .get(&page)
                .map_or_else(|| vec![0; PAGE], |old| old.to_vec());
            let from = offset.max(start);
            let to = (offset + data.len() as u64).min(start + PAGE as u64);
            bytes[(from - start) as usize..(to - start) as usize]
                .copy_from_slice(&data[(from - offset) as usize..(to - offset) as usize]);
            let bytes: Arc<[u8]> = bytes.into();
            self.content.insert(page, Arc::clone(&bytes));
            let cached = self.pages.entry(page).or_default();
            if cached.versions.is_empty() {
                cached.versions.push((0, zeros()));
            }
            if !cached.detached && (cached.mapped || allocates) {
                cached.mapped = true;
                cached.versions.push((at, bytes));
            }
        }
        let end = offset + data.len() as u64;
        if !data.is_empty() && end > self.size {
            self.size = end;
            if allocates {
                self.sizes.push((at, end));
            }
        }
    }

    pub fn resize(&mut self, at: usize, length: u64, there: bool) {
        let first = length.div_ceil(PAGE as u64);
        if length < self.size && !length.is_multiple_of(PAGE as u64) {
            let (page, kept) = (length / PAGE as u64, (length % PAGE as u64) as usize);
            if let Some(bytes) = self.content.get_mut(&page) {
                let mut cut = bytes.to_vec();
                cut[kept..].fill(0);
                *bytes = cut.into();
            }
            if let Some(cached) = self.pages.get_mut(&page) {
                if there {
                    for (_, bytes) in &mut cached.versions {
                        let mut cut = bytes.to_vec();
                        cut[kept..].fill(0);
                        *bytes = cut.into();
                    }
                } else if let (true, false, Some(bytes)) =
                    (cached.mapped, cached.detached, self.content.get(&page))
                {
                    cached.versions.push((at, Arc::clone(bytes)));
                }
            }
        }
        self.drop_pages(first, u64::MAX, there);
        self.size = length;
        if there {
            self.sizes = vec![(at, length)];
        }
    }

    pub fn drop_pages(&mut self, from: u64, end: u64, there: bool) {
        self.content.retain(|page, _| !(from..end).contains(page));
        if there {
            self.pages.retain(|page, _| !(from..end).contains(page));
        } else {
            self.pages
                .range_mut(from..end)
                .for_each(|(_, page)| page.detached = true);
        }
    }

    pub fn sync(&mut self, at: usize) {
        self.sizes = vec![(at, self.size)];
        let page = |(page, bytes): (&u64, &Arc<[u8]>)| {
            let cached = CachedPage {
                mapped: true,
                detached: false,
                versions: vec![(at, Arc::clone(bytes))],
            };
            (*page, cached)
        };
        self.pages = self.content.iter().map(page).collect();
    }
}
