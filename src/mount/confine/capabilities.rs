//! Capabilities of a mount's process (capabilities(7)): what serving the files of all users takes, and no other. An ordinary
//! user's has none to begin with.

use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities,
};

/// What root's mount keeps, and why.
const NEEDED: CapabilitySet = CapabilitySet::empty()
    // The backing files belong to the users whose files they are.
    .union(CapabilitySet::CHOWN)
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    // The file-system identity that new files are made under.
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETGID)
    // Device nodes, and whiteouts.
    .union(CapabilitySet::MKNOD)
    // Memory that stays out of swap, beyond RLIMIT_MEMLOCK.
    .union(CapabilitySet::IPC_LOCK)
    // Workers that stand back for the programs they answer, and come back (`transport::handover`). Of the rest, the filter of
    // system calls leaves that it could make others stand back, too.
    .union(CapabilitySet::SYS_NICE)
    // `security.capability`.
    .union(CapabilitySet::SETFCAP)
    // `trusted.*` and the other `security.*`. What else it is good for, the filter of system calls takes away.
    .union(CapabilitySet::SYS_ADMIN);

/// Drops all others, from the bounding set too.
pub(super) fn drop_unneeded() -> Result<(), String> {
    let has = capabilities(None).map_err(text)?;
    // Without CAP_SETPCAP the bounding set cannot be changed; nor has such a process anything to gain from it, since it gets
    // no new privileges.
    if has.effective.contains(CapabilitySet::SETPCAP) {
        for capability in all().filter(|capability| !NEEDED.contains(*capability)) {
            match remove_capability_from_bounding_set(capability) {
                // Newer than the kernel.
                Ok(()) | Err(Errno::INVAL) => {}
                Err(error) => return Err(text(error)),
            }
        }
    }
    clear_ambient_capability_set().map_err(text)?;
    let kept = CapabilitySets {
        effective: has.effective.intersection(NEEDED),
        permitted: has.permitted.intersection(NEEDED),
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, kept).map_err(text)
}

/// The names of those that are in effect.
pub(super) fn left() -> Vec<String> {
    let has = capabilities(None).map_or(CapabilitySet::all(), |sets| sets.effective);
    let names = CapabilitySet::all().iter_names();
    let names = names.filter(|(_, capability)| has.contains(*capability));
    names.map(|(name, _)| format!("CAP_{name}")).collect()
}

/// Every capability by itself.
fn all() -> impl Iterator<Item = CapabilitySet> {
    CapabilitySet::all()
        .iter_names()
        .map(|(_, capability)| capability)
}

fn text(error: Errno) -> String {
    error.to_string()
}
