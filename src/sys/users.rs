//! Names of users and groups, as the machine's name service has them (`getpwnam_r(3)` and its like): files, LDAP, whatever
//! nsswitch.conf says.

use std::ffi::{CStr, CString, c_char, c_int};
use std::mem::MaybeUninit;
use std::ptr;

/// Where a lookup begins, and where it gives up: an entry of a group lists all its members.
const ROOM: [usize; 4] = [1 << 10, 1 << 14, 1 << 17, 1 << 20];

/// The name of a user; nothing where there is none, or none can be found out now.
#[must_use]
pub fn user_name(uid: u32) -> Option<String> {
    user(|entry, room, len, found| {
        // SAFETY: `lookup` hands over pointers that are valid for as long as this call, and the length of `room`.
        unsafe { libc::getpwuid_r(uid, entry, room, len, found) }
    })
    .map(|(_, name)| name)
}

/// The id of a user; nothing where there is none, or it cannot be found out now.
#[must_use]
pub fn user_id(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    user(|entry, room, len, found| {
        // SAFETY: as above, and `name` ends with a zero.
        unsafe { libc::getpwnam_r(name.as_ptr(), entry, room, len, found) }
    })
    .map(|(uid, _)| uid)
}

/// The name of a group; nothing where there is none, or none can be found out now.
#[must_use]
pub fn group_name(gid: u32) -> Option<String> {
    group(|entry, room, len, found| {
        // SAFETY: as above.
        unsafe { libc::getgrgid_r(gid, entry, room, len, found) }
    })
    .map(|(_, name)| name)
}

/// The id of a group; nothing where there is none, or it cannot be found out now.
#[must_use]
pub fn group_id(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    group(|entry, room, len, found| {
        // SAFETY: as above, and `name` ends with a zero.
        unsafe { libc::getgrnam_r(name.as_ptr(), entry, room, len, found) }
    })
    .map(|(gid, _)| gid)
}

fn user(
    call: impl Fn(*mut libc::passwd, *mut c_char, usize, *mut *mut libc::passwd) -> c_int,
) -> Option<(u32, String)> {
    lookup(call, |entry| (entry.pw_uid, entry.pw_name))
}

fn group(
    call: impl Fn(*mut libc::group, *mut c_char, usize, *mut *mut libc::group) -> c_int,
) -> Option<(u32, String)> {
    lookup(call, |entry| (entry.gr_gid, entry.gr_name))
}

/// Calls with more and more room until the entry fits.
fn lookup<E>(
    call: impl Fn(*mut E, *mut c_char, usize, *mut *mut E) -> c_int,
    parts: impl Fn(&E) -> (u32, *mut c_char),
) -> Option<(u32, String)> {
    for room in ROOM {
        let mut buffer = vec![0 as c_char; room];
        let mut entry = MaybeUninit::<E>::uninit();
        let mut found = ptr::null_mut();
        match call(entry.as_mut_ptr(), buffer.as_mut_ptr(), room, &mut found) {
            libc::ERANGE | libc::EINTR => continue,
            0 if !found.is_null() => {}
            _ => return None,
        }
        // SAFETY: the call succeeded and found something: it has filled the entry in, whose name lies in `buffer`.
        let (id, name) = unsafe {
            let (id, name) = parts(&*found);
            (id, CStr::from_ptr(name))
        };
        return name.to_str().ok().map(|name| (id, name.to_owned()));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_superuser_has_a_name_and_nobody_else_has_it() {
        assert_eq!(user_name(0).as_deref(), Some("root"));
        assert_eq!(user_id("root"), Some(0));
        assert_eq!(group_id(&group_name(0).unwrap()), Some(0));
        for nobody in ["", "no such user", "a\0b"] {
            assert_eq!(user_id(nobody), None);
            assert_eq!(group_id(nobody), None);
        }
        assert_eq!(user_name(u32::MAX - 7), None);
        assert_eq!(group_name(u32::MAX - 7), None);
    }
}
