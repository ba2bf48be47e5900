//! What a mount's daemon holds at a moment: memory, descriptors, inodes, open files.

use std::fs;

use super::Volume;

/// The figures of a daemon.
#[derive(Debug, Clone, Copy)]
pub struct Figures {
    /// Resident memory in bytes.
    pub memory: u64,
    /// Descriptors.
    pub descriptors: u64,
    /// Inodes in its table.
    pub inodes: u64,
    /// Handles on files.
    pub open_files: u64,
    /// Handles on directories.
    pub open_directories: u64,
}

impl Figures {
    /// As they are now.
    pub fn of(volume: &Volume) -> Self {
        let pid = volume.daemon().expect("a daemon");
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let resident = resident.unwrap().trim().trim_end_matches(" kB");
        let said = volume.succeed(&["status", "MOUNTPOINT", "--output", "json"]);
        let said: serde_json::Value = serde_json::from_str(&said).unwrap();
        let figure = |name: &str| said[0][name].as_u64().unwrap();
        Self {
            memory: resident.parse::<u64>().unwrap() * 1024,
            descriptors: fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count() as u64,
            inodes: figure("Inodes"),
            open_files: figure("OpenFiles"),
            open_directories: figure("OpenDirectories"),
        }
    }
}

/// Has every closed file sealed now instead of in twenty seconds: a key is withdrawn, and given back.
pub fn seal(volume: &Volume) {
    for change in ["disable", "enable"] {
        volume.succeed(&["key", change, "alias/cmkfs/default"]);
    }
}
