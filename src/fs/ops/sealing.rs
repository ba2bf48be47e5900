//! What happens in the background: files that were closed are sealed once the backing filesystem has been synced.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::sync::{Mutex, MutexGuard};
use rustix::fs::OFlags;

use super::FileSystem;
use crate::fs::error::FsResult;
use crate::fs::inodes::Inode;
use crate::fs::journals::Journals;
use crate::fs::types::NodeId;
use crate::sys::heap;

/// How long a closed file waits for its seal, so that one sync of the backing filesystem serves many.
const PATIENCE: Duration = Duration::from_secs(20);

/// Files that wait for their seal.
#[derive(Debug, Default)]
pub struct Sealer {
    waiting: Mutex<Waiting>,
    /// Held from taking the files that wait to letting go of them: who seals a file is alone with it, so that none is
    /// let go of, and opened anew, while another is about to write its seal. Before everything else in the lock order.
    turn: Mutex<()>,
    /// See `FileSystem::lock_long_names`.
    pub long_names: Mutex<()>,
}

#[derive(Debug, Default)]
struct Waiting {
    inodes: HashMap<NodeId, Arc<Inode>>,
    since: Option<Instant>,
}

impl Sealer {
    /// A file was closed that is not sealed.
    pub fn wait(&self, inode: Arc<Inode>) {
        let mut waiting = self.waiting.lock();
        waiting.since.get_or_insert_with(Instant::now);
        waiting.inodes.insert(inode.node, inode);
    }

    /// The file is not to be sealed any more. Says whether it waited.
    pub fn take_back(&self, node: NodeId) -> bool {
        self.waiting.lock().inodes.remove(&node).is_some()
    }

    /// More files wait than descriptors should be spent on.
    fn is_crowded(&self, limit: usize) -> bool {
        self.waiting.lock().inodes.len() > limit
    }
}

impl FileSystem {
    /// Seals what has waited long enough, and removes the journals of removed files; lets go of inodes that were in use when
    /// they should have gone, and gives memory back where there were many more. Called every few seconds.
    pub fn seal_idle(&self) {
        self.inodes.let_go_of_lingering();
        if self.inodes.shrink() {
            heap::give_back();
        }
        if self
            .core
            .journals
            .as_ref()
            .is_some_and(Journals::has_waited)
        {
            self.remove_doomed_journals();
        }
        let due = self
            .sealer
            .waiting
            .lock()
            .since
            .is_some_and(|since| since.elapsed() >= PATIENCE);
        if due {
            self.seal_all(&self.sealer.turn.lock());
        }
    }

    /// Seals every closed file now.
    pub fn seal_now(&self) {
        if !self.core.read_only {
            self.remove_doomed_journals();
            self.seal_all(&self.sealer.turn.lock());
        }
    }

    /// Seals what waits where that is more than descriptors should be spent on.
    pub(super) fn seal_if_crowded(&self) {
        // A file that waits holds up to two: its own, and its journal's.
        let is_crowded = || self.sealer.is_crowded(self.settings.spare_descriptors / 4);
        if is_crowded() {
            let turn = self.sealer.turn.lock();
            // Unless that is what this has waited for.
            if is_crowded() {
                self.seal_all(&turn);
            }
        }
    }

    /// Seals every closed file, and waits for it. The last call before the process ends.
    ///
    /// # Errors
    /// Where the backing filesystem cannot be synced: then files stay marked as being changed, and are recovered when
    /// they are opened next.
    pub fn shutdown(&self) -> FsResult<()> {
        if self.core.read_only {
            return Ok(());
        }
        self.remove_doomed_journals();
        for inode in self.inodes.all() {
            if self
                .open_file(&inode)
                .is_some_and(|file| file.unsealed().is_some())
            {
                self.sealer.wait(inode);
            }
        }
        self.seal_waiting(&self.sealer.turn.lock(), &|| true)
    }

    fn seal_all(&self, turn: &MutexGuard<'_, ()>) {
        if let Err(error) = self.seal_waiting(turn, &|| false) {
            log::warn!("closed files could not be sealed yet: {error}");
        }
    }

    /// Seals the files that wait. `hurry`: recovering a file after an unclean stop may be left for another time.
    fn seal_waiting(&self, _turn: &MutexGuard<'_, ()>, hurry: &dyn Fn() -> bool) -> FsResult<()> {
        let inodes = {
            let mut waiting = self.sealer.waiting.lock();
            waiting.since = None;
            std::mem::take(&mut waiting.inodes)
        };
        if inodes.is_empty() {
            return Ok(());
        }
        let mut sealable = Vec::with_capacity(inodes.len());
        for inode in inodes.values() {
            let Some(file) = self.open_file(inode) else {
                continue;
            };
            let Some(change) = file.unsealed() else {
                continue;
            };
            // What is damaged, or under a key that is refused now, stays dirty.
            if file.settle(&self.core, change, hurry).unwrap_or(false) {
                sealable.push((file, change));
            }
        }
        let synced = self.sync_backing();
        for (file, change) in sealable {
            if let Err(error) = synced.clone().and_then(|()| file.seal(&self.core, change)) {
                log::debug!("a closed file could not be sealed: {error}");
            }
        }
        for inode in inodes.into_values() {
            let mut slot = inode.file.lock();
            // Unless it was opened again, or waits again. One that could not be sealed is recovered when it is opened.
            if slot.handles == 0 && !self.sealer.waiting.lock().inodes.contains_key(&inode.node) {
                let file = slot.file.take();
                let is_unsealed = file.is_some_and(|file| file.unsealed().is_some());
                if let (true, Some(journals)) = (is_unsealed, &self.core.journals) {
                    journals.note_left();
                }
            }
            drop(slot);
            self.inodes.let_go(inode);
        }
        synced
    }

    /// Puts all that was written on the disk, as syncfs(2) does.
    ///
    /// # Errors
    /// What the backing says.
    pub fn sync_all(&self) -> FsResult<()> {
        if self.core.read_only {
            return Ok(());
        }
        self.sync_backing()
    }

    /// Puts everything of the backing filesystem on the disk.
    pub(super) fn sync_backing(&self) -> FsResult<()> {
        let root = self.inodes.root().descriptor(&self.core)?;
        let listing = self
            .core
            .backing
            .open(&root, c".", OFlags::RDONLY | OFlags::DIRECTORY, 0)?;
        Ok(self.core.backing.sync_filesystem(listing)?)
    }
}
