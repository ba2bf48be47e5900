//! What a verification found. Facts only: advice belongs to the command line.

use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

use crate::fs::FileKind;
use crate::ids::{KeyId, ObjectId, VolumeId};

/// So many findings are kept; all are counted.
pub const KEPT: usize = 10_000;

/// What a finding means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Status {
    /// It is not what was written there.
    Damaged,
    /// Nobody can say: its key is refused, or the operating system refused.
    NotVerified,
    /// A sound file whose last changes were not sealed: the process that made them was killed.
    NotSealed,
    /// What a process that died has left, or lost, and a repair heals.
    Repairable,
    /// It was healed.
    Repaired,
    /// It could not be healed and was left as it is.
    NotRepaired,
    /// Not of cmkfs's making. It is left alone.
    Foreign,
}

/// What a finding is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum What {
    /// The volume file.
    VolumeFile,
    /// The wrapped data key of an object.
    Envelope,
    /// The header of a directory.
    DirectoryHeader,
    /// A directory without its header.
    DirectoryHeaderMissing,
    /// The header of a file.
    FileHeader,
    /// A file's length is not the sealed one.
    Length,
    /// Blocks of a file.
    Block,
    /// Blocks that are holes where there are none.
    BlockMissing,
    /// A name.
    Name,
    /// The file that keeps a long name is missing.
    LongNameMissing,
    /// A symlink.
    Symlink,
    /// The side file of a symlink.
    SideFile,
    /// An extended attribute.
    Attribute,
    /// A key that is refused.
    Key,
    /// Something the operating system does not let be read.
    Unreadable,
    /// A file that is not sealed.
    Unsealed,
    /// Something half made or half removed (`cmkfs.tmp.*`).
    Leftover,
    /// What an interrupted binding of a directory left.
    UnfinishedBinding,
    /// A kept long name without its object.
    OrphanedName,
    /// A side file without its symlink.
    OrphanedSideFile,
    /// A redo journal without a file that needs it.
    OrphanedJournal,
    /// A file or directory of somebody else's.
    ForeignName,
}

/// What an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// The volume as a whole.
    Volume,
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symlink.
    Symlink,
    /// A pipe, socket or device.
    Special,
}

impl From<FileKind> for Kind {
    fn from(kind: FileKind) -> Self {
        match kind {
            FileKind::Directory => Self::Directory,
            FileKind::File => Self::File,
            FileKind::Symlink => Self::Symlink,
            FileKind::Fifo | FileKind::Socket | FileKind::CharDevice | FileKind::BlockDevice => {
                Self::Special
            }
        }
    }
}

/// Something that is to be told of one object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Finding {
    /// What it means.
    pub status: Status,
    /// What it is about.
    pub what: What,
    /// What the object is, where that is known.
    pub kind: Option<Kind>,
    /// Its path in the volume; none where its name, or one above it, cannot be told.
    pub path: Option<String>,
    /// Its path in the backing directory.
    pub backing_path: String,
    /// Its id, as it says in the clear.
    pub object_id: Option<ObjectId>,
    /// The CMK that wraps its data key, as it says in the clear.
    pub key_id: Option<KeyId>,
    /// The first and the last of the blocks, of 4096 bytes, that it is about.
    pub blocks: Option<(u64, u64)>,
    /// What reading it says.
    pub reason: String,
}

/// How much was looked at.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Totals {
    /// Files.
    pub files: u64,
    /// Directories, the first one among them.
    pub directories: u64,
    /// Symlinks.
    pub symlinks: u64,
    /// Pipes, sockets and devices: they hold nothing, only their names are verified.
    pub specials: u64,
    /// Names that are sound.
    pub names: u64,
    /// Encrypted attributes that are sound.
    pub attributes: u64,
    /// Plaintext bytes of files and symlinks that are sound.
    pub bytes: u64,
    /// Blocks of files, holes among them.
    pub blocks: u64,
    /// Files that are not sealed: while the volume is in use those that were changed lately.
    pub unsealed_files: u64,
}

impl Totals {
    /// All objects. One of several names counts once.
    #[must_use]
    pub const fn objects(&self) -> u64 {
        self.files + self.directories + self.symlinks + self.specials
    }
}

impl AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.files += other.files;
        self.directories += other.directories;
        self.symlinks += other.symlinks;
        self.specials += other.specials;
        self.names += other.names;
        self.attributes += other.attributes;
        self.bytes += other.bytes;
        self.blocks += other.blocks;
        self.unsealed_files += other.unsealed_files;
    }
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Report {
    /// The volume, where its volume file is sound.
    pub volume_id: Option<VolumeId>,
    /// It was mounted: then this is no snapshot.
    pub in_use: bool,
    /// How much was looked at.
    pub totals: Totals,
    /// Findings that tell of damage.
    pub damaged: u64,
    /// Findings that tell of what could not be verified.
    pub not_verified: u64,
    /// Files that are not sealed.
    pub not_sealed: u64,
    /// Findings that a repair would heal.
    pub repairable: u64,
    /// What was healed.
    pub repaired: u64,
    /// What could not be healed.
    pub not_repaired: u64,
    /// What is not of cmkfs's making.
    pub foreign: u64,
    /// The first findings, in no order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
    /// Findings that are only counted.
    pub findings_omitted: u64,
    /// Users renamed objects too quickly for every one to be met.
    pub missed: bool,
    /// It was broken off.
    pub interrupted: bool,
}

impl Report {
    /// Notes a finding.
    pub fn add(&mut self, finding: Finding) {
        *match finding.status {
            Status::Damaged => &mut self.damaged,
            Status::NotVerified => &mut self.not_verified,
            Status::NotSealed => &mut self.not_sealed,
            Status::Repairable => &mut self.repairable,
            Status::Repaired => &mut self.repaired,
            Status::NotRepaired => &mut self.not_repaired,
            Status::Foreign => &mut self.foreign,
        } += 1;
        if self.findings.len() < KEPT {
            self.findings.push(finding);
        } else {
            self.findings_omitted += 1;
        }
    }

    /// No damage was found.
    #[must_use]
    pub const fn is_sound(&self) -> bool {
        self.damaged == 0
    }

    /// Everything was looked at, and what was to be healed is.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.not_verified == 0 && self.not_repaired == 0 && !self.missed && !self.interrupted
    }
}
