//! A file and its journal as a process that died could have left them, and as none could: headers, slots, pages and records
//! that say anything, under valid seals. What is read is what docs/FORMAT.md says of such bytes, read here by the letter; and
//! it stays that, with what is written since, however often the file is sealed, given up and opened again.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};

use arbitrary::{Result, Unstructured};
use cmkfs::crypto::block;
use cmkfs::crypto::envelope::{DataKey, WrappingKey};
use cmkfs::crypto::header;
use cmkfs::crypto::object::ObjectKeys;
use cmkfs::format::envelope::{EncryptionContext, Envelope, ObjectKind};
use cmkfs::format::header::{HEADER_LEN, Header, KeyBinding, SealedState};
use cmkfs::format::journal::{self, ENTRIES_AT, RecordHead};
use cmkfs::format::layout::{self, BLOCK_LEN};
use cmkfs::format::names::{DIRECTORY_FILE, JOURNAL_DIRECTORY};
use cmkfs::format::slot::{ENTRY_LEN, Entry, SLOT_LEN, Slot};
use cmkfs::fs::backing::Backing;
use cmkfs::fs::keys::{KeyPort, KeyUnavailable};
use cmkfs::fs::settings::{Overwrites, Settings};
use cmkfs::fs::{FileSystem, FsResult, NodeId, OpenFlags, ROOT_NODE, SetAttributes};
use cmkfs::ids::{KeyId, MaterialId, ObjectId, VolumeId};
use rustix::io::Errno;

use super::edit::Edit;
use super::operations::tells;
use super::support::{MODE, WRITE, caller};

const VOLUME: VolumeId = VolumeId([1; 16]);
const OBJECT: ObjectId = ObjectId([2; 16]);
const KEY: KeyId = KeyId([3; 16]);
const NAME: &str = "f";
/// Blocks of the longest file: two more than a group has.
const BLOCKS: u64 = 58;
/// Fewest bytes of a block: what is shorter is another version's beginning once in a while.
const SHORTEST: usize = 16;
/// Longest sequence of changes.
const LONGEST: usize = 8;

/// Keys of one CMK, without a key directory.
struct Port(WrappingKey);

impl KeyPort for Port {
    fn generate_data_key(
        &self,
        _: &KeyBinding,
        context: &EncryptionContext,
    ) -> std::result::Result<(DataKey, Envelope), KeyUnavailable> {
        let key = DataKey::random().map_err(|_| KeyUnavailable::Store)?;
        let envelope = self.0.wrap(&key, context);
        Ok((key, envelope))
    }

    fn unwrap_data_key(
        &self,
        envelope: &Envelope,
        context: &EncryptionContext,
    ) -> std::result::Result<DataKey, KeyUnavailable> {
        let opened = self.0.unwrap(envelope, context);
        opened.map_err(|_| KeyUnavailable::Rejected)
    }

    fn rewrap_data_key(
        &self,
        _: &KeyBinding,
        _: &Envelope,
        _: &EncryptionContext,
    ) -> std::result::Result<Option<Envelope>, KeyUnavailable> {
        Ok(None)
    }

    fn check(&self, _: &KeyId) -> std::result::Result<(), KeyUnavailable> {
        Ok(())
    }
}

fn wrapping() -> WrappingKey {
    let material = DataKey::take(&mut [5; 32]);
    WrappingKey::new(KEY, MaterialId([4; 32]), &material)
}

/// What is the same for every input.
struct Bed {
    port: Arc<Port>,
    keys: ObjectKeys,
    envelope: Envelope,
    /// The header of the root, and the backing name of the file.
    root: Vec<u8>,
    name: OsString,
    /// Whole blocks, by index and version, as they are stored.
    blocks: Vec<[(Entry, Vec<u8>); 3]>,
}

fn bed() -> &'static Bed {
    static BED: OnceLock<Bed> = OnceLock::new();
    BED.get_or_init(|| {
        let dir = tempfile::tempdir().expect("a directory");
        let port = Arc::new(Port(wrapping()));
        let root: OwnedFd = File::open(dir.path()).expect("a directory").into();
        FileSystem::make_root(&root, VOLUME, port.clone(), &KeyBinding::Key(KEY)).expect("a root");
        let fs = attach(dir.path(), &port);
        let made = fs.create(caller(), ROOT_NODE, OsStr::new(NAME), MODE, WRITE);
        fs.release(made.expect("a file").1.handle);
        let mut names = fs::read_dir(dir.path())
            .expect("a directory")
            .map(|entry| entry.expect("an entry").file_name());
        let data_key = DataKey::take(&mut [6; 32]);
        let context = EncryptionContext {
            volume: VOLUME,
            object: OBJECT,
            kind: ObjectKind::File,
        };
        let keys = ObjectKeys::new(&data_key, ObjectKind::File);
        let versions = |index| [0, 1, 2].map(|version| sealed(&keys, index, version, BLOCK_LEN));
        Bed {
            root: fs::read(dir.path().join(DIRECTORY_FILE)).expect("its header"),
            name: names
                .find(|name| name != DIRECTORY_FILE)
                .expect("the file's name"),
            envelope: port.0.wrap(&data_key, &context),
            blocks: (0..BLOCKS).map(versions).collect(),
            port,
            keys,
        }
    })
}

fn attach(root: &std::path::Path, port: &Arc<Port>) -> FileSystem {
    let root = File::open(root).expect("a directory");
    let settings = Settings {
        read_only: false,
        overwrites: Overwrites::Journaled,
        volatile: false,
        spare_descriptors: 16,
    };
    FileSystem::attach(
        root.into(),
        VOLUME,
        port.clone(),
        Backing::default(),
        settings,
    )
    .expect("a volume")
}

/// A version of a block, and its entry.
fn sealed(keys: &ObjectKeys, index: u64, version: u8, length: usize) -> (Entry, Vec<u8>) {
    let plain: Vec<u8> = (0..length)
        .map(|at| (at as u8).wrapping_mul(3) ^ (index as u8) ^ (version << 6) | 1)
        .collect();
    let mut stored = vec![0; length];
    let entry = block::seal(keys, index, &plain, &mut stored);
    (entry, stored)
}

/// One of three versions of a block, of some length.
fn version(input: &mut Unstructured<'_>, block: u64, length: usize) -> Result<(Entry, Vec<u8>)> {
    let version = input.int_in_range(0..=2_u8)?;
    let length = match input.int_in_range(0..=7_u8)? {
        0 => BLOCK_LEN,
        1 => SHORTEST,
        2 => length.saturating_sub(SHORTEST),
        3 => (length + SHORTEST).min(BLOCK_LEN),
        _ => length,
    };
    let length = length.max(SHORTEST);
    // Now and then it belongs elsewhere.
    let block = if input.ratio(1, 32)? {
        block + 1
    } else {
        block
    };
    match bed().blocks.get(block as usize) {
        Some(whole) if length == BLOCK_LEN => Ok(whole[usize::from(version)].clone()),
        _ => Ok(sealed(&bed().keys, block, version, length)),
    }
}

fn size(input: &mut Unstructured<'_>) -> Result<u64> {
    let boundary = *input.choose(&[0_u64, 1, 2, 3, 3, 3, 5, 55, 56, 57])? * layout::PAGE;
    let near = *input.choose(&[0, 0, 16, 100, 4095, -1, -100])?;
    Ok(boundary.saturating_add_signed(near))
}

/// What lies on the disk.
#[derive(Clone)]
struct Stored {
    file: Vec<u8>,
    journal: Option<Vec<u8>>,
    /// Bytes were changed without a seal.
    is_edited: bool,
}

/// A file of some blocks of which some are other versions, or none, and a journal.
fn stored(input: &mut Unstructured<'_>) -> Result<Stored> {
    let bed = bed();
    let size = size(input)?;
    let flags: u8 = input.arbitrary()?;
    let (dirty, sparse) = (flags & 3 != 0, flags & 4 != 0);
    let state = SealedState {
        size: match flags >> 6 {
            0 | 1 => size,
            2 => size.min(self::size(input)?),
            _ => self::size(input)?,
        },
        epoch: u64::from(flags >> 3 & 3),
        sparse,
        dirty,
        binding: None,
    };
    if tells() {
        println!("{size} bytes, {state:?}");
    }
    let header = header::seal(&bed.keys, ObjectKind::File, OBJECT, bed.envelope, &state);
    let mut file = vec![0; layout::backing_length(size).max(layout::PAGE) as usize];
    file[..HEADER_LEN].copy_from_slice(&header.expect("no binding").encode());
    for block in 0..layout::block_count(size) {
        let length = layout::block_length(block, size);
        let (slot, page) = match input.int_in_range(0..=9_u8).unwrap_or(0) {
            0..=4 => {
                let whole = &bed.blocks[block as usize][0];
                let cut = (length < BLOCK_LEN).then(|| sealed(&bed.keys, block, 0, length));
                let (entry, page) = cut.unwrap_or_else(|| whole.clone());
                (Slot::HOLE.superseded_by(entry), page)
            }
            5 => (Slot::HOLE, Vec::new()),
            6 => (Slot::HOLE, vec![7; length]),
            kind => {
                let (old, old_page) = version(input, block, length)?;
                let (new, new_page) = version(input, block, length)?;
                let first = if kind == 7 {
                    Slot::HOLE
                } else {
                    Slot::HOLE.superseded_by(old)
                };
                let page = [old_page, new_page, Vec::new()][input.choose_index(3)?].clone();
                (first.superseded_by(new), page)
            }
        };
        if tells() {
            println!("{block}: {slot:.60?}, {} bytes", page.len());
        }
        let at = layout::slot_offset(block) as usize;
        slot.encode(&mut file[at..at + SLOT_LEN]);
        let at = layout::data_offset(block) as usize;
        let room = length.min(page.len());
        file[at..at + room].copy_from_slice(&page[..room]);
    }
    if tells() {
        println!("journal:");
    }
    let journal = match input.ratio(2, 3)? {
        true => Some(records(input, &state, size)?),
        false => None,
    };
    let is_edited = input.ratio(1, 4)?;
    let mut stored = Stored {
        file,
        journal,
        is_edited,
    };
    if is_edited {
        let edits = Edit::list(input.bytes(6)?);
        match &mut stored.journal {
            Some(journal) if input.ratio(1, 2)? => *journal = Edit::apply(&edits, journal),
            _ => stored.file = Edit::apply(&edits, &stored.file),
        }
    }
    Ok(stored)
}

fn records(input: &mut Unstructured<'_>, state: &SealedState, size: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for _ in 0..input.int_in_range(0..=5_u8)? {
        let epoch = match input.int_in_range(0..=15_u8)? {
            0 => state.epoch + 1000,
            1 => state.epoch.wrapping_sub(1),
            _ => state.epoch,
        };
        let last = layout::block_count(size);
        let first = input.int_in_range(0..=last.min(BLOCKS - 1))?;
        let count = input.int_in_range(1..=3_u64)?.min(BLOCKS - first);
        let (mut entries, mut pages) = (Vec::new(), Vec::new());
        for block in first..first + count {
            let length = layout::block_length(block, size).max(1);
            let (entry, page) = version(input, block, length)?;
            if tells() {
                println!("{block}: {entry:.60?}, epoch {epoch}, {} bytes", page.len());
            }
            entries.push(entry);
            pages.extend(page);
        }
        bytes.extend(journal::encode(epoch, first, &entries));
        bytes.extend(pages);
    }
    Ok(bytes)
}

/// A file as docs/FORMAT.md reads it: each block, or `None` where it is damaged.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Content {
    size: u64,
    blocks: Vec<Option<Vec<u8>>>,
    /// What damaged ones may say once the file was changed: nobody can tell any more that they are no holes, or not as
    /// somebody left them who died.
    otherwise: Vec<Vec<Option<Vec<u8>>>>,
    /// Somebody has tried to.
    was_changed: bool,
    /// Blocks from here on may turn out damaged: somebody has prepared their places.
    prepared_from: u64,
    /// What a change would have left that was refused: block by block, that or what was before.
    half_done: Option<Box<Content>>,
}

impl Content {
    fn set(&mut self, offset: u64, data: &[u8]) {
        self.resize(self.size.max(offset + data.len() as u64));
        for (byte, at) in data.iter().zip(offset..) {
            // One that is damaged is whole again where all of it is written.
            let first = at - at % layout::PAGE;
            let end = first + layout::block_length(at / layout::PAGE, self.size) as u64;
            let is_whole = offset <= first && end <= offset + data.len() as u64;
            let block = &mut self.blocks[(at / layout::PAGE) as usize];
            if is_whole && block.is_none() {
                *block = Some(vec![0; (end - first) as usize]);
            }
            if let Some(block) = block {
                block[(at % layout::PAGE) as usize] = *byte;
            }
        }
    }

    fn resize(&mut self, size: u64) {
        self.size = size;
        let empty = || Some(Vec::new());
        self.blocks
            .resize_with(layout::block_count(size) as usize, empty);
        for (index, block) in (0..).zip(&mut self.blocks) {
            if let Some(block) = block {
                block.resize(layout::block_length(index, size), 0);
            }
        }
    }

    /// Whether a change that needs these bytes as they were would meet a damaged block.
    fn is_damaged(&self, block: u64) -> bool {
        self.blocks.get(block as usize).is_some_and(Option::is_none)
    }
}

/// What lies in a row of bytes from `at` on, as far as it goes.
fn part(bytes: &[u8], at: u64, length: usize) -> &[u8] {
    let rest = bytes.get(at as usize..).unwrap_or_default();
    &rest[..rest.len().min(length)]
}

/// `None` where the file cannot be opened.
fn by_the_letter(stored: &Stored) -> Option<Content> {
    let length = stored.file.len() as u64;
    if length == 0 {
        return Some(Content {
            size: 0,
            blocks: Vec::new(),
            otherwise: Vec::new(),
            was_changed: false,
            prepared_from: u64::MAX,
            half_done: None,
        });
    }
    let header = Header::decode(ObjectKind::File, part(&stored.file, 0, HEADER_LEN)).ok()?;
    let state = header::open(&bed().keys, &header).ok()?;
    let size = layout::plaintext_size(length);
    let is_intact = if state.dirty {
        size >= state.size
    } else {
        length == layout::backing_length(state.size)
    };
    let recorded = if state.dirty {
        recorded(stored.journal.as_deref().unwrap_or_default(), &state, size)
    } else {
        Vec::new()
    };
    let block = |index: u64, dirty: bool, sparse: bool| {
        let length = layout::block_length(index, size);
        let open = |entry: &Entry, page: &[u8]| {
            let sealed = usize::from(entry.length);
            let end = index * layout::PAGE + sealed as u64;
            let hole_allowed = sparse || (dirty && end >= state.size);
            if sealed > length || (sealed < length && !hole_allowed) {
                return None;
            }
            let mut plain = part(page, 0, sealed).to_vec();
            if !entry.is_none() {
                block::open(&bed().keys, index, entry, &mut plain).ok()?;
            }
            plain.resize(length, 0);
            Some(plain)
        };
        let last = recorded.iter().rev().find(|(block, ..)| *block == index);
        if let Some((_, entry, page)) = last {
            return open(entry, page);
        }
        let page = part(&stored.file, layout::data_offset(index), length);
        let mut slot = [0; SLOT_LEN];
        slot.copy_from_slice(part(&stored.file, layout::slot_offset(index), SLOT_LEN));
        let slot = Slot::decode(&slot);
        let current = open(&slot.current, page);
        if !dirty || slot.is_hole() || current.is_some() {
            return current;
        }
        if slot.previous.is_none() && page.iter().any(|byte| *byte != 0) {
            return None;
        }
        open(&slot.previous, page)
    };
    let blocks = |dirty, sparse| -> Vec<_> {
        let all = 0..layout::block_count(size);
        all.map(|index| block(index, dirty, sparse)).collect()
    };
    let prepared_from = match stored.is_edited {
        true => layout::block_count(size),
        false => u64::MAX,
    };
    is_intact.then(|| Content {
        size,
        blocks: blocks(state.dirty, state.sparse),
        otherwise: vec![
            blocks(state.dirty, true),
            blocks(true, false),
            blocks(true, true),
        ],
        was_changed: false,
        prepared_from,
        half_done: None,
    })
}

/// What a journal holds of a file of so many bytes, the newest last.
fn recorded(journal: &[u8], state: &SealedState, size: u64) -> Vec<(u64, Entry, Vec<u8>)> {
    let mut all = Vec::new();
    let mut rest = journal;
    while let Some((head, after)) = rest.split_at_checked(ENTRIES_AT) {
        let Some(head) = RecordHead::decode(head).filter(|head| head.epoch == state.epoch) else {
            break;
        };
        let Some((entries, mut after)) = after.split_at_checked(head.blocks() * ENTRY_LEN) else {
            break;
        };
        let mut record = Vec::new();
        for (entry, index) in journal::entries(entries).zip(head.first..) {
            let page = part(after, 0, entry.length.into());
            after = &after[page.len()..];
            if block::open(&bed().keys, index, &entry, &mut page.to_vec()).is_err() {
                return all;
            }
            let fits = usize::from(entry.length) <= layout::block_length(index, size);
            if fits && index < layout::block_count(size) {
                record.push((index, entry, page.to_vec()));
            }
        }
        all.extend(record);
        rest = after;
    }
    all
}

/// The file, open in a filesystem.
struct Run {
    dir: tempfile::TempDir,
    fs: Option<FileSystem>,
}

impl Run {
    fn on(stored: &Stored) -> Self {
        let bed = bed();
        let dir = tempfile::tempdir().expect("a directory");
        let path = |name: &OsStr| dir.path().join(name);
        fs::write(path(OsStr::new(DIRECTORY_FILE)), &bed.root).expect("a file");
        fs::write(path(&bed.name), &stored.file).expect("a file");
        if let Some(journal) = &stored.journal {
            let folder = path(OsStr::new(JOURNAL_DIRECTORY));
            fs::create_dir(&folder).expect("a directory");
            fs::write(folder.join(OBJECT.to_string()), journal).expect("a file");
        }
        let fs = Some(attach(dir.path(), &bed.port));
        Self { dir, fs }
    }

    fn fs(&self) -> &FileSystem {
        self.fs.as_ref().expect("it is open")
    }

    fn reopen(&mut self, is_clean: bool) {
        if is_clean {
            let _ = self.fs().shutdown();
        }
        self.fs = None;
        self.fs = Some(attach(self.dir.path(), &bed().port));
    }

    fn node(&self) -> NodeId {
        let found = self.fs().lookup(ROOT_NODE, OsStr::new(NAME));
        found.expect("its name is sound").node
    }

    /// All that can be read; `None` where the file cannot be opened.
    fn content(&self) -> Option<Content> {
        let node = self.node();
        let opened = refused(self.fs().open(caller(), node, OpenFlags::default()))?;
        let attributes = self.fs().attributes(node, Some(opened.handle));
        let size = attributes.expect("an open file").size;
        let read = |index: u64| {
            let mut block = vec![0xaa; layout::block_length(index, size)];
            let offset = index * layout::PAGE;
            let read = refused(self.fs().read(opened.handle, offset, &mut block))?;
            assert_eq!(read, block.len());
            Some(block)
        };
        let blocks: Vec<_> = (0..layout::block_count(size)).map(read).collect();
        let mut whole = vec![0xaa; size as usize];
        let all = refused(self.fs().read(opened.handle, 0, &mut whole));
        assert_eq!(all.is_some(), blocks.iter().all(Option::is_some));
        let in_parts = blocks.iter().flatten().flatten();
        assert!(
            all.is_none() || in_parts.eq(&whole),
            "in one piece as in many"
        );
        self.fs().release(opened.handle);
        Some(Content {
            size,
            blocks,
            otherwise: Vec::new(),
            was_changed: false,
            prepared_from: u64::MAX,
            half_done: None,
        })
    }

    fn write(&self, offset: u64, data: &[u8]) -> FsResult<()> {
        let handle = self.fs().open(caller(), self.node(), WRITE)?.handle;
        let written = self.fs().write(handle, offset, data);
        self.fs().release(handle);
        written
    }

    fn truncate(&self, size: u64) -> FsResult<()> {
        let changes = SetAttributes {
            size: Some(size),
            ..SetAttributes::default()
        };
        let set = self
            .fs()
            .set_attributes(caller(), self.node(), None, &changes);
        set.map(drop)
    }
}

/// Damage is refused, and nothing else goes wrong.
fn refused<T>(result: FsResult<T>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) => {
            // The latter for the data key of an edited header.
            let refusals = [Errno::BADMSG, Errno::KEYREJECTED];
            assert!(refusals.contains(&error.errno()), "{error}");
            None
        }
    }
}

/// The target.
pub fn recovery(input: &[u8]) {
    let mut input = Unstructured::new(input);
    let Ok(stored) = stored(&mut input) else {
        return;
    };
    let mut run = Run::on(&stored);
    let mut content = by_the_letter(&stored);
    same(run.content(), &mut content, "as it was found");
    for _ in 0..LONGEST {
        if input.is_empty() || step(&mut run, &mut content, &mut input).is_err() {
            break;
        }
        same(run.content(), &mut content, "after a change");
    }
    for is_clean in [true, false] {
        run.reopen(is_clean);
        same(run.content(), &mut content, "opened again");
    }
}

fn same(found: Option<Content>, expected: &mut Option<Content>, when: &str) {
    let (Some(found), Some(expected)) = (&found, &mut *expected) else {
        return assert_eq!(found.is_some(), expected.is_some(), "{when}: can be opened");
    };
    assert_eq!(found.size, expected.size, "{when}: size");
    let (half_done, prepared_from) = (expected.half_done.take(), expected.prepared_from);
    let others = match expected.was_changed {
        true => &expected.otherwise[..],
        false => &[],
    };
    for (index, (found, expected)) in found.blocks.iter().zip(&mut expected.blocks).enumerate() {
        let half_done = half_done
            .as_ref()
            .and_then(|content| content.blocks.get(index));
        let is_nothing = found
            .as_ref()
            .is_none_or(|block| block.iter().all(|byte| *byte == 0));
        let is_prepared = is_nothing && index as u64 >= prepared_from;
        if half_done.is_some_and(|done| done.is_some() && done == found) || is_prepared {
            expected.clone_from(found);
        }
        let in_short = |block: &Option<Vec<u8>>| {
            let runs = block.as_ref()?.chunk_by(|a, b| a == b);
            let runs = runs.map(|run| (run[0], run.len()));
            Some(runs.take(9).collect::<Vec<_>>())
        };
        if let (None, Some(found)) = (&*expected, found) {
            let is_like = |other: &Vec<u8>| {
                let shared = found.len().min(other.len());
                found[..shared] == other[..shared] && found[shared..].iter().all(|byte| *byte == 0)
            };
            let mut known = others
                .iter()
                .filter_map(|blocks| blocks.get(index)?.as_ref());
            if known.any(is_like) {
                *expected = Some(found.clone());
            }
        }
        assert!(
            found == expected,
            "{when}: block {index} is {:?} and should be {:?}",
            in_short(found),
            in_short(expected)
        );
    }
}

fn step(run: &mut Run, content: &mut Option<Content>, input: &mut Unstructured<'_>) -> Result<()> {
    let kind = input.int_in_range(0..=9_u8)?;
    let (offset, seed) = (size(input)?, input.arbitrary::<u8>()?);
    if tells() {
        println!(
            "{kind} at {offset}, {} bytes before",
            content.as_ref().map_or(0, |content| content.size)
        );
    }
    if let Some(content) = content.as_mut().filter(|_| kind > 2) {
        content.was_changed = true;
    }
    match kind {
        0 => run.fs().seal_now(),
        1 => run.reopen(true),
        2 => run.reopen(false),
        3..=5 => {
            let done = refused(run.truncate(offset)).is_some();
            change(content, done, [offset, offset], |content| {
                content.resize(offset)
            });
        }
        _ => {
            let length = *input.choose(&[1, 100, 4095, 4096, 4097, 9000])?;
            let data = vec![seed | 1; length];
            let done = refused(run.write(offset, &data)).is_some();
            let edges = [offset, offset + length as u64];
            change(content, done, edges, |content| content.set(offset, &data));
        }
    }
    Ok(())
}

/// A change is refused only where the file cannot be opened, or a block of which a part is to stay is damaged.
fn change(
    content: &mut Option<Content>,
    done: bool,
    edges: [u64; 2],
    change: impl FnOnce(&mut Content),
) {
    let Some(content) = content else {
        return assert!(!done, "what cannot be opened cannot be changed");
    };
    if done {
        return change(content);
    }
    let mut half_done = content.clone();
    change(&mut half_done);
    content.half_done = Some(Box::new(half_done));
    let last = content.size / layout::PAGE;
    let touched = edges.map(|edge| edge / layout::PAGE);
    assert!(
        touched
            .into_iter()
            .chain([last])
            .any(|block| content.is_damaged(block)),
        "nothing damaged is in the way"
    );
}
