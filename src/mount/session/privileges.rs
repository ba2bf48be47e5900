//! Setuid and setgid do not survive a change of content by an ordinary user. With HANDLE_KILLPRIV_V2 the kernel leaves that
//! to us, and marks the requests that need it. (chown(2) on the backing file does it by itself, and `security.capability` is
//! removed by the kernel.)

use crate::fs::{Caller, FileKind, FileSystem, FsResult, HandleId, NodeId, SetAttributes};

const SETUID: u16 = 0o4000;
const SETGID: u16 = 0o2000;
const GROUP_EXECUTE: u16 = 0o010;

/// Takes the bits away, and says whether there were any.
pub(super) fn kill(
    fs: &FileSystem,
    caller: Caller,
    node: NodeId,
    handle: Option<HandleId>,
) -> FsResult<bool> {
    let attributes = fs.attributes(node, handle)?;
    if attributes.kind != FileKind::File {
        return Ok(false);
    }
    leave(
        fs,
        caller,
        node,
        handle,
        (attributes.permissions, without(attributes.permissions)),
    )
}

/// Takes setgid away, of a directory too, and says whether it was there.
pub(super) fn kill_setgid(fs: &FileSystem, caller: Caller, node: NodeId) -> FsResult<bool> {
    let before = fs.attributes(node, None)?.permissions;
    leave(fs, caller, node, None, (before, before & !SETGID))
}

fn leave(
    fs: &FileSystem,
    caller: Caller,
    node: NodeId,
    handle: Option<HandleId>,
    (before, left): (u16, u16),
) -> FsResult<bool> {
    if left == before {
        return Ok(false);
    }
    let changes = SetAttributes {
        permissions: Some(left),
        ..SetAttributes::default()
    };
    fs.set_attributes(caller, node, handle, &changes)?;
    Ok(true)
}

/// Setgid without execution by the group means mandatory locking, and stays.
const fn without(permissions: u16) -> u16 {
    if permissions & GROUP_EXECUTE == 0 {
        permissions & !SETUID
    } else {
        permissions & !(SETUID | SETGID)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_bits_that_give_privileges_go() {
        assert_eq!(without(0o6755), 0o755);
        assert_eq!(without(0o6745), 0o2745);
        assert_eq!(without(0o1777), 0o1777);
    }
}
